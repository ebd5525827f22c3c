//! Configuration: order of sources, and the table of errors.

use std::ffi::OsString;
use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Node {
    data_dir: String,
    mqtt: Mqtt,
    uplink: Uplink,
    lanes: Vec<Lane>,
    log: crate::logging::LogConfig,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Mqtt {
    listen: Listen,
    packet_max: ByteSize,
    keep_alive_secs: Secs,
    receive_maximum: u16,
    anonymous: bool,
    unauthenticated_public: String,
    password: u32,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Uplink {
    cloud: HostPorts,
    linger_ms: Millis,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Lane {
    name: String,
    #[serde(default)]
    durability: Durability,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Durability {
    #[default]
    Fsync,
    Memory,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/fellbeck".into(),
            mqtt: Mqtt::default(),
            uplink: Uplink::default(),
            lanes: Vec::new(),
            log: crate::logging::LogConfig::default(),
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            listen: Listen::loopback(1883),
            packet_max: ByteSize::mib(2),
            keep_alive_secs: Secs(60),
            receive_maximum: 1024,
            anonymous: true,
            unauthenticated_public: String::new(),
            password: 0,
        }
    }
}

const PREFIX: &str = "FELLBECK_EDGE__";

/// Loads with a file, variables and `--set` arguments of this test alone; `mqtt.packet_max` is range-checked.
fn loaded(file: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Node, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.toml");
    std::fs::write(&path, file).unwrap();
    let overrides = sets.iter().map(|s| Override::from_set(s)).collect::<Result<_, _>>()?;
    let sources = ConfigSources {
        file: Some(path),
        env_prefix: PREFIX.into(),
        overrides,
    };
    let env = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let figment = source::merge(Figment::new(), &sources, env)?;
    extract(&figment, |node: Node| {
        ranged(
            "mqtt.packet_max",
            node.mqtt.packet_max,
            ByteSize::kib(1)..=ByteSize::mib(256),
        )?;
        node.log.validate()?;
        Ok(node)
    })
}

#[test]
fn without_any_source_the_defaults_hold() {
    let sources = ConfigSources::default();
    assert_eq!(load::<Node>(&sources).unwrap(), Node::default());
}

#[test]
fn later_sources_win_key_by_key() {
    let file = "
        data_dir = '/from/file'
        [mqtt]
        listen = '127.0.0.1:1001'
        packet_max = '64 KiB'
        keep_alive_secs = 10
    ";
    let env = [
        ("FELLBECK_EDGE__MQTT__LISTEN", "127.0.0.1:1002"),
        ("FELLBECK_EDGE__MQTT__KEEP_ALIVE_SECS", "20"),
        ("FELLBECK_CLOUD__MQTT__LISTEN", "not for this node"),
        ("PATH", "/bin"),
    ];
    let node = loaded(file, &env, &["mqtt.keep_alive_secs=30", "mqtt.keep_alive_secs = 40"]).unwrap();
    assert_eq!(node.data_dir, "/from/file");
    assert_eq!(node.mqtt.listen, Listen::loopback(1002));
    assert_eq!(node.mqtt.packet_max, ByteSize::kib(64));
    assert_eq!(node.mqtt.keep_alive_secs.duration(), Duration::from_secs(40));
    assert_eq!(node.mqtt.receive_maximum, 1024);
}

#[test]
fn override_values_are_toml_and_else_plain_text() {
    let sets = [
        "mqtt.listen=localhost:0",
        "mqtt.anonymous=false",
        "mqtt.packet_max=2MB",
        "data_dir=/srv/a b=c",
        "uplink.cloud=[\"a:1\", \"[::1]:2\"]",
        "lanes=[{name=\"alarm\", durability=\"memory\"}]",
    ];
    let node = loaded("", &[("FELLBECK_EDGE__UPLINK__LINGER_MS", " 5 ")], &sets).unwrap();
    assert_eq!(node.mqtt.listen.to_string(), "\"localhost:0\"");
    assert!(!node.mqtt.anonymous);
    assert_eq!(node.mqtt.packet_max, ByteSize(2_000_000));
    assert_eq!(node.data_dir, "/srv/a b=c");
    let cloud: Vec<String> = node.uplink.cloud.0.iter().map(ToString::to_string).collect();
    assert_eq!(cloud, ["a:1", "[::1]:2"]);
    assert_eq!(node.uplink.linger_ms, Millis(5));
    assert_eq!(
        node.lanes,
        [Lane {
            name: "alarm".into(),
            durability: Durability::Memory
        }]
    );

    let one = loaded("", &[("FELLBECK_EDGE__UPLINK__CLOUD", "a:1, b:2")], &["mqtt.listen="]).unwrap();
    assert_eq!(one.uplink.cloud.0.len(), 2);
    assert_eq!(one.mqtt.listen, Listen::OFF);
}

/// File, variables, `--set` arguments, and what the error must contain.
type Mistake<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str]);

const FILE_MISTAKES: &[Mistake<'_>] = &[
    (
        "[mqtt]\nlissten = 1",
        &[],
        &[],
        &["edge.toml", "unknown key `mqtt.lissten`", "listen"],
    ),
    (
        "colour = 1",
        &[],
        &[],
        &["edge.toml", "unknown key `colour`", "data_dir"],
    ),
    (
        "[mqtt]\nlisten = 5",
        &[],
        &[],
        &["edge.toml", "`mqtt.listen` = 5", "string"],
    ),
    ("mqtt = 5", &[], &[], &["edge.toml", "`mqtt` = 5", "a table"]),
    (
        "[mqtt]\nanonymous = 'yes'",
        &[],
        &[],
        &["`mqtt.anonymous` = \"yes\"", "true or false"],
    ),
    ("a = \n b", &[], &[], &["edge.toml, line 2, column 3"]),
    ("[mqtt]\nlisten = ''\n x x", &[], &[], &["edge.toml, line 3, column"]),
    (
        "[[lanes]]\nname='a'\ndurability='tape'",
        &[],
        &[],
        &["`lanes.0.durability` = \"tape\"", "fsync, memory"],
    ),
    (
        "[[lanes]]\ndurability='fsync'",
        &[],
        &[],
        &["`lanes.0.name` is missing"],
    ),
    (
        "[mqtt]\npacket_max = '1 TiB'",
        &[],
        &[],
        &["edge.toml", "1 TiB", "out of range", "1 KiB to 256 MiB"],
    ),
    (
        "[mqtt]\npassword = 'hunter2'",
        &[],
        &[],
        &["`mqtt.password` = (not shown)"],
    ),
];

const ENV_MISTAKES: &[Mistake<'_>] = &[
    (
        "",
        &[("FELLBECK_EDGE__MQTT__COLOUR", "1")],
        &[],
        &["environment FELLBECK_EDGE__MQTT__COLOUR", "`mqtt.colour`"],
    ),
    (
        "",
        &[("FELLBECK_EDGE__MQTT__RECEIVE_MAXIMUM", "70000")],
        &[],
        &[
            "environment FELLBECK_EDGE__MQTT__RECEIVE_MAXIMUM",
            "`mqtt.receive_maximum` = 70000",
            "0 to 65535",
        ],
    ),
    (
        "",
        &[("FELLBECK_EDGE____X", "1")],
        &[],
        &["FELLBECK_EDGE____X", "PATH__TO__KEY"],
    ),
];

const SET_MISTAKES: &[Mistake<'_>] = &[
    (
        "",
        &[],
        &["mqtt.receive_maximum=-1"],
        &["--set mqtt.receive_maximum", "= -1", "0 to 65535"],
    ),
    (
        "",
        &[],
        &["mqtt.packet_max=1 parsec"],
        &["--set mqtt.packet_max", "\"1 parsec\"", "\"64 MiB\""],
    ),
    (
        "",
        &[],
        &["mqtt.packet_max=-4"],
        &["`mqtt.packet_max` = -4", "\"64 MiB\""],
    ),
    (
        "",
        &[],
        &["mqtt.packet_max=1"],
        &["--set mqtt.packet_max", "1 bytes", "1 KiB to 256 MiB"],
    ),
    (
        "",
        &[],
        &["mqtt.listen=1883"],
        &["--set mqtt.listen", "= 1883", "string"],
    ),
    (
        "",
        &[],
        &["mqtt.listen=host"],
        &["--set mqtt.listen", "\"host\"", "host:port", "turns it off"],
    ),
    ("", &[], &["mqtt.listen=::1:1883"], &["brackets"]),
    ("", &[], &["mqtt.listen=h:70000"], &["0 to 65535"]),
    (
        "",
        &[],
        &["uplink.cloud=5"],
        &["--set uplink.cloud", "a list of addresses"],
    ),
    (
        "",
        &[],
        &["uplink.cloud=[\"nohost\"]"],
        &["--set uplink.cloud", "= \"nohost\"", "host:port"],
    ),
    ("", &[], &["mqtt"], &["--set mqtt", "path.to.key=value"]),
    ("", &[], &["=5"], &["--set =5", "path of keys"]),
    ("", &[], &["a b=5"], &["path of keys"]),
    (
        "",
        &[],
        &["log.level=loud"],
        &["--set log.level", "loud", "error, warn, info"],
    ),
];

/// Goal: every kind of mistake, from every source, gives one line with source, field, value and what is allowed.
#[test]
fn every_mistake_names_source_field_value_and_what_is_allowed() {
    for (file, env, sets, expected) in [FILE_MISTAKES, ENV_MISTAKES, SET_MISTAKES].concat() {
        let text = match loaded(file, env, sets) {
            Ok(node) => panic!("accepted: {file:?} {env:?} {sets:?}: {node:?}"),
            Err(e) => e.to_string(),
        };
        assert!(!text.contains('\n'), "more than one line: {text}");
        assert!(!text.contains("hunter2"), "a secret was shown: {text}");
        for part in expected {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let sources = ConfigSources {
        file: Some("/nowhere/edge.toml".into()),
        ..ConfigSources::default()
    };
    let text = load::<Node>(&sources).unwrap_err().to_string();
    assert!(
        text.contains("/nowhere/edge.toml") && text.contains("No such file"),
        "{text}"
    );
}

#[test]
fn a_value_with_line_breaks_stays_one_line() {
    let text = loaded("", &[], &["mqtt.listen=a\nb\u{1b}[31m"])
        .unwrap_err()
        .to_string();
    assert!(!text.contains('\n') && !text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn sizes_are_parsed_and_shown() {
    let cases = [
        ("0", 0, "0 bytes"),
        ("1_000", 1000, "1 kB"),
        ("64 MiB", 64 << 20, "64 MiB"),
        ("2mb", 2_000_000, "2 MB"),
        ("3 GiB", 3 << 30, "3 GiB"),
        ("7 B", 7, "7 bytes"),
        ("1500", 1500, "1500 bytes"),
    ];
    for (text, bytes, shown) in cases {
        let size: ByteSize = text.parse().unwrap();
        assert_eq!((size.0, size.to_string().as_str()), (bytes, shown), "{text}");
    }
    for bad in ["", "MiB", "-1", "1.5 GiB", "1 M", "99999999999 TiB", "1 MiB x"] {
        assert!(bad.parse::<ByteSize>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_public_listener_without_authentication_needs_the_words() {
    let check = |address: &str, authenticated, words| {
        check_public_listener(&PublicCheck {
            field: "mqtt.listen",
            address: address.parse().unwrap(),
            authenticated,
            words_field: "mqtt.unauthenticated_public",
            words,
        })
    };
    for local in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        check(local, false, "").unwrap_or_else(|e| panic!("{local}: {e}"));
    }
    for public in ["0.0.0.0:1883", "[::]:1883", "192.168.1.5:1883"] {
        let text = check(public, false, "yes").unwrap_err().to_string();
        for part in [
            "mqtt.listen",
            public,
            "127.0.0.1",
            "`mqtt.unauthenticated_public` = \"I understand\"",
        ] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
        check(public, false, PUBLIC_WORDS).unwrap();
        check(public, true, "").unwrap();
    }
}

#[test]
fn listeners_resolve_and_an_unknown_host_names_the_field() {
    assert_eq!(Listen::OFF.resolve("mqtt.listen").unwrap(), None);
    let local: Listen = "localhost:7".parse().unwrap();
    let address = local.resolve("mqtt.listen").unwrap().unwrap();
    assert!(address.ip().is_loopback() && address.port() == 7);
    let unknown: Listen = "no-such-host.invalid:1".parse().unwrap();
    let text = unknown.resolve("mqtt.listen").unwrap_err().to_string();
    assert!(text.contains("`mqtt.listen` = \"no-such-host.invalid:1\""), "{text}");
}

/// A node whose default of a table differs from that of the table's type.
#[derive(Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Tuned {
    data_dir: Option<std::path::PathBuf>,
    mqtt: TunedMqtt,
}

#[derive(Debug, Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct TunedMqtt {
    listen: Listen,
    tls_listen: Option<Listen>,
    packet_max: ByteSize,
}

impl Default for TunedMqtt {
    fn default() -> Self {
        Self {
            listen: Listen::OFF,
            tls_listen: None,
            packet_max: ByteSize::mib(1),
        }
    }
}

impl Default for Tuned {
    fn default() -> Self {
        Self {
            data_dir: None,
            mqtt: TunedMqtt {
                listen: Listen::loopback(1883),
                packet_max: ByteSize::mib(16),
                ..TunedMqtt::default()
            },
        }
    }
}

#[test]
fn a_key_that_is_set_leaves_its_neighbours_at_the_default_of_the_node() {
    let tuned = |set: &str| {
        let sources = ConfigSources {
            overrides: vec![Override::from_set(set).unwrap()],
            ..ConfigSources::default()
        };
        load_checked(&sources, |node: Tuned| {
            ranged(
                "mqtt.packet_max",
                node.mqtt.packet_max,
                ByteSize::kib(1)..=ByteSize::mib(16),
            )
            .map(|_| node)
        })
    };
    let node = tuned("mqtt.tls_listen=127.0.0.1:0").unwrap();
    assert_eq!(node.mqtt.listen, Listen::loopback(1883));
    assert_eq!(node.mqtt.tls_listen, Some(Listen::loopback(0)));
    assert_eq!(node.mqtt.packet_max, ByteSize::mib(16));
    assert_eq!(node.data_dir, None);
    let error = tuned("mqtt.packet_max=17 MiB").unwrap_err().to_string();
    assert!(error.starts_with("--set mqtt.packet_max: "), "{error}");
    let error = tuned("mqtt.nonsense=1").unwrap_err().to_string();
    assert!(error.contains("unknown key `mqtt.nonsense`"), "{error}");
}

proptest::proptest! {
    /// Whatever stands in a variable or a `--set`, loading ends in a value or an error of one line.
    #[test]
    fn hostile_overrides_give_one_line(path in ".{0,30}", value in ".{0,60}") {
        for set in [format!("{path}={value}"), format!("mqtt.listen={value}"), format!("lanes={value}")] {
            if let Err(e) = loaded("", &[("FELLBECK_EDGE__DATA_DIR", &value)], &[&set]) {
                proptest::prop_assert!(!e.to_string().contains('\n'), "{}", e);
            }
        }
    }
}
