//! MAIN.9: the contracts of the command line, configuration and HTTP, for both binaries.
//!
//! In: right and wrong arguments. Out: what DESIGN section 9 promises: one clear line that names the field or file, an exit code that
//! is not 0, and nothing lost.

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use fellbeck_tests::mqtt::{Client, ConnectOptions, Event, Version};
use fellbeck_tests::{Device, DevicePlan, Kind, Node, Site, World, run_to_end, wait};

const BOTH: [Kind; 2] = [Kind::Edge, Kind::Cloud];

fn env_name(kind: Kind, rest: &str) -> String {
    match kind {
        Kind::Edge => format!("FELLBECK_EDGE__{rest}"),
        Kind::Cloud => format!("FELLBECK_CLOUD__{rest}"),
    }
}

fn check(kind: Kind, args: &[&str], env: &[(&str, &str)]) -> fellbeck_tests::Finished {
    let mut all = vec!["check"];
    all.extend(args);
    run_to_end(kind.binary(), &all, env, Duration::from_secs(20))
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn check_accepts_the_defaults_and_the_example_configurations() {
    for (kind, file) in [(Kind::Edge, "edge.toml"), (Kind::Cloud, "cloud.toml")] {
        check(kind, &[], &[]).assert_ok();
        let path = repository().join("deploy/local").join(file);
        check(kind, &["--config", path.to_str().expect("a UTF-8 path")], &[]).assert_ok();
        let text = std::fs::read_to_string(&path).expect("the example is there");
        toml::from_str::<toml::Table>(&text).expect("the example is TOML");
        assert!(
            text.lines().any(|line| line.starts_with('#')),
            "the example is commented"
        );
    }
}

#[test]
fn check_names_field_value_and_range_of_a_bad_setting() {
    for kind in BOTH {
        check(kind, &["--set", "mqtt.lisen=\"127.0.0.1:0\""], &[]).assert_refused(&["mqtt.lisen"]);
        check(kind, &["--set", "mqtt.listen=[5]"], &[]).assert_refused(&["mqtt.listen"]);
        check(kind, &["--set", "mqtt.listen=\"nonsense\""], &[]).assert_refused(&["mqtt.listen", "nonsense"]);
        check(kind, &["--set", "mqtt.receive_maximum=\"many\""], &[]).assert_refused(&["mqtt.receive_maximum", "many"]);
        check(kind, &["--set", "mqtt.receive_maximum=0"], &[]).assert_refused(&["mqtt.receive_maximum", "0", "65535"]);
        let sys = check(kind, &["--set", "mqtt.sys_interval_secs=86401"], &[]);
        sys.assert_refused(&["mqtt.sys_interval_secs", "86401", "0"]);
        check(kind, &["--set", "no equals sign"], &[]).assert_refused(&["--set"]);
    }
}

#[test]
fn forward_rules_are_checked_and_the_rules_of_one_lane_agree() {
    let rules = |rules: &str| check(Kind::Edge, &["--set", &format!("forward=[{rules}]")], &[]);
    rules(r##"{filter="a/#",lane="x",priority=9},{filter="#",overflow="thin",thin_interval_ms=1000,quota="8 MiB",ttl_secs=60}"##).assert_ok();
    rules(r##"{filter="#",durability="memory",overflow="drop-oldest"}"##).assert_ok();
    for (wrong, words) in [
        (r##"{filter="#",overflow="drop-some"}"##, ["forward", "drop-some"]),
        (
            r##"{filter="#",durability="memory",overflow="thin"}"##,
            ["forward.overflow", "memory"],
        ),
        (r##"{filter="#",priority=10}"##, ["forward.priority", "10"]),
        (
            r##"{filter="#",thin_interval_ms=1}"##,
            ["forward.thin_interval_ms", "1"],
        ),
        (r##"{filter="#",ttl_secs=0}"##, ["forward.ttl_secs", "0"]),
        (r##"{filter="#",quota="1 KiB"}"##, ["forward.quota", "1024"]),
        (
            r##"{filter="a",lane="x",priority=1},{filter="#",lane="x"}"##,
            ["forward.lane", "all rules"],
        ),
    ] {
        rules(wrong).assert_refused(&words);
    }
    check(Kind::Edge, &["--set", "store.endurance=5"], &[]).assert_refused(&["store.endurance", "5"]);
    check(Kind::Edge, &["--set", "store.reserve=5"], &[]).assert_refused(&["store.reserve", "5"]);
}

#[test]
fn a_configuration_file_is_read_and_its_faults_are_named() {
    let site = Site::new();
    let file = site.path("node.toml");
    let path = file.to_str().expect("a UTF-8 path");
    for kind in BOTH {
        check(kind, &["--config", "/nowhere/node.toml"], &[]).assert_refused(&["/nowhere/node.toml"]);
        std::fs::write(&file, "[mqtt]\nlisten = \"127.0.0.1:0\"\nspeed = 3\n").expect("a file can be written");
        check(kind, &["--config", path], &[]).assert_refused(&["speed", "node.toml"]);
        std::fs::write(&file, "[mqtt\n").expect("a file can be written");
        check(kind, &["--config", path], &[]).assert_refused(&["node.toml"]);
    }
}

#[test]
fn the_environment_wins_over_the_file_and_an_argument_over_both() {
    let site = Site::new();
    let file = site.path("node.toml");
    let path = file.to_str().expect("a UTF-8 path");
    std::fs::write(&file, "[mqtt]\nlisten = \"from the file\"\n").expect("a file can be written");
    for kind in BOTH {
        let name = env_name(kind, "MQTT__LISTEN");
        check(kind, &["--config", path], &[]).assert_refused(&["mqtt.listen", "from the file"]);
        let env = [(name.as_str(), "from the environment")];
        check(kind, &["--config", path], &env).assert_refused(&["mqtt.listen", "from the environment"]);
        let set = "mqtt.listen=\"127.0.0.1:0\"";
        check(kind, &["--config", path, "--set", set], &env).assert_ok();
    }
}

#[test]
fn an_edge_takes_its_listener_from_the_environment() {
    let site = Site::new();
    let mut edge = Node::new(Kind::Edge, &site.path("edge"));
    edge.set_by_env("mqtt.listen", "FELLBECK_EDGE__MQTT__LISTEN", "127.0.0.1:0");
    let ready = edge.start();
    assert!(ready.mqtt.ip().is_loopback() && ready.mqtt.port() != 0);
    Client::connected(ready.mqtt, ConnectOptions::clean(Version::V5, "device")).disconnect();
}

#[test]
fn run_is_the_default_and_the_ready_file_names_real_addresses() {
    let site = Site::new();
    for kind in BOTH {
        let mut node = Node::new(kind, &site.path(kind.binary()));
        let ready = node.omit_run().start();
        assert_ne!(ready.mqtt.port(), 0);
        assert_eq!(ready.link.is_some(), kind == Kind::Cloud);
        Client::connected(ready.mqtt, ConnectOptions::clean(Version::V3, "device")).disconnect();
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(node.get(path).status, 200, "{kind:?} {path}");
        }
        assert!(
            node.get("/metrics").body.contains("fellbeck_"),
            "metrics have our prefix"
        );
        assert_eq!(node.get("/no-such-page").status, 404);
        assert_eq!(node.terminate(wait::SOON).code(), Some(0), "{kind:?}");
    }
}

#[test]
fn an_empty_address_turns_a_listener_off() {
    let site = Site::new();
    for kind in BOTH {
        let mut node = Node::new(kind, &site.path(kind.binary()));
        let ready = node.set("http.listen", "\"\"").start();
        assert_eq!(ready.http, None);
        assert_eq!(node.terminate(wait::SOON).code(), Some(0));
    }
}

#[test]
fn an_edge_serves_its_devices_before_it_has_joined() {
    let site = Site::new();
    let mut edge = Node::new(Kind::Edge, &site.path("edge"));
    let ready = edge.start();
    let mut reader = Client::connected(ready.mqtt, ConnectOptions::clean(Version::V5, "reader"));
    assert_eq!(reader.subscribe(&[("site/#", 1)]), [1]);
    let book = Device::start(DevicePlan::burst("dev", Version::V3, 1, 50), edge.mqtt()).finish();
    assert_eq!(book.acked_count(), 50);
    let mut received = 0;
    let all = reader.poll_until(wait::SOON, |event| {
        received += usize::from(matches!(event, Event::Message(_)));
        received == 50
    });
    assert!(all, "{received} of 50 came");
}

#[test]
fn what_an_edge_took_before_joining_reaches_the_cloud_afterwards() {
    let mut world = World::prepare();
    world.edge.start();
    let book = Device::start(DevicePlan::burst("dev", Version::V5, 1, 200), world.edge.mqtt()).finish();
    assert_eq!(book.acked_count(), 200);
    assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
    world.start_cloud();
    world.join();
    world.edge.start();
    world.await_drained();
    assert_eq!(world.records_in_log(), 200);
}

#[test]
fn a_used_port_is_named_and_nothing_is_lost() {
    let site = Site::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    let tcp_address = tcp.local_addr().expect("a bound socket has an address").to_string();
    for kind in BOTH {
        for key in ["mqtt.listen", "http.listen"] {
            let mut node = Node::new(kind, &site.path(&format!("{}-{key}", kind.binary())));
            node.set(key, &format!("\"{tcp_address}\""));
            node.run_refused().assert_refused(&[key, &tcp_address]);
            // The same directory serves once the port is another.
            node.set(key, "\"127.0.0.1:0\"").start();
        }
    }
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port can be had");
    let udp_address = udp.local_addr().expect("a bound socket has an address").to_string();
    let mut cloud = Node::new(Kind::Cloud, &site.path("link"));
    cloud.set("link.listen", &format!("\"{udp_address}\""));
    cloud.run_refused().assert_refused(&["link.listen", &udp_address]);
}

#[test]
fn a_locked_data_directory_is_named_and_its_owner_goes_on() {
    let site = Site::new();
    for kind in BOTH {
        let mut node = Node::new(kind, &site.path(kind.binary()));
        node.start();
        let dir = node.data_dir();
        let twin = Node::new(kind, &site.path(kind.binary()));
        twin.run_refused()
            .assert_refused(&[dir.to_str().expect("a UTF-8 path")]);
        Client::connected(node.ready().mqtt, ConnectOptions::clean(Version::V5, "device")).disconnect();
        assert_eq!(node.terminate(wait::SOON).code(), Some(0));
    }
}

#[test]
fn a_data_directory_of_the_other_kind_is_refused_and_left_as_it_was() {
    let site = Site::new();
    for (owner, stranger) in [(Kind::Edge, Kind::Cloud), (Kind::Cloud, Kind::Edge)] {
        let home = site.path(owner.binary());
        let mut node = Node::new(owner, &home);
        node.start();
        assert_eq!(node.terminate(wait::SOON).code(), Some(0));
        let dir = node.data_dir();
        Node::new(stranger, &home)
            .run_refused()
            .assert_refused(&[dir.to_str().expect("a UTF-8 path")]);
        node.start();
    }
}

#[test]
fn a_public_listener_without_authentication_is_refused_unless_told_so_in_words() {
    let site = Site::new();
    for kind in BOTH {
        for listener in ["mqtt", "http"] {
            let mut node = Node::new(kind, &site.path(&format!("{}-{listener}", kind.binary())));
            let key = format!("{listener}.listen");
            node.set(&key, "\"0.0.0.0:0\"");
            node.run_refused().assert_refused(&[&key, "unauthenticated_public"]);
        }
    }
}

#[test]
fn a_killed_node_restarts_at_once_on_the_same_port() {
    let site = Site::new();
    for kind in BOTH {
        let mut node = Node::new(kind, &site.path(kind.binary()));
        let ready = node.start();
        let mut device = Client::connected(ready.mqtt, ConnectOptions::clean(Version::V5, "device"));
        node.set("mqtt.listen", &format!("\"{}\"", ready.mqtt));
        node.kill();
        assert_eq!(node.start().mqtt, ready.mqtt);
        device.poll(Duration::from_secs(1));
        assert!(!device.is_connected(), "the old connection is gone");
        device.connect(ready.mqtt).expect("the node accepts again");
    }
}
