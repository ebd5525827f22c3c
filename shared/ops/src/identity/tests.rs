//! Identity as a whole: first start, tokens, joins, the registry. Handshakes are in `handshakes`.

mod handshakes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use fellbeck_core::WallTime;
use proptest::collection::vec;
use proptest::num::u8::ANY;

use super::*;
use crate::config::HostPorts;
use crate::identity::wire::{JoinReply, JoinRequest};

/// 2026-01-01, so that no test depends on the machine's clock except the handshakes.
const NOW: WallTime = WallTime(1_767_225_600_000);
const DAY_MS: u64 = 86_400_000;

struct World {
    dir: tempfile::TempDir,
    cloud: CloudIdentity,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cloud = CloudIdentity::open(&dir.path().join("cloud"), None, NOW).unwrap();
        Self { dir, cloud }
    }

    fn path(&self, rest: &str) -> std::path::PathBuf {
        self.dir.path().join(rest)
    }

    fn token(&self, edge: &str) -> JoinToken {
        let addresses = HostPorts(vec!["127.0.0.1:4483".parse().unwrap()]);
        self.cloud
            .create_token(&edge.parse().unwrap(), &addresses, CloudIdentity::TOKEN_LIFETIME, NOW)
            .unwrap()
    }

    fn join(&self, edge: &str) -> EdgeKeys {
        let pending = PendingJoin::new(self.token(edge)).unwrap();
        let issued = self.cloud.redeem(&pending.request(), NOW).unwrap();
        pending.complete(&issued).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_ca_is_made_once_with_private_modes() {
    let world = World::new();
    let identity = world.path("cloud/identity");
    assert_eq!(mode(&identity), 0o700);
    assert_eq!(mode(&identity.join("ca.key")), 0o600);
    assert_eq!(mode(&identity.join("ca.crt")), 0o644);
    assert_eq!(
        (mode(&world.path("cloud/edges")), mode(&world.path("cloud/tokens"))),
        (0o700, 0o700)
    );
    let again = CloudIdentity::open(&world.path("cloud"), None, NOW).unwrap();
    assert_eq!(again.ca().fingerprint(), world.cloud.ca().fingerprint());
    assert!(!format!("{again:?}").contains("PRIVATE"));
}

#[test]
fn two_first_starts_at_once_end_with_one_ca() {
    let dir = tempfile::tempdir().unwrap();
    let prints: Vec<Fingerprint> = std::thread::scope(|scope| {
        let open = || CloudIdentity::open(dir.path(), None, NOW).unwrap().ca().fingerprint();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(prints.windows(2).all(|pair| pair[0] == pair[1]), "{prints:?}");
}

#[test]
fn a_given_ca_is_used_and_a_wrong_one_is_named() {
    let world = World::new();
    let given = CaFiles {
        certificate: world.path("cloud/identity/ca.crt"),
        key: world.path("cloud/identity/ca.key"),
    };
    let other = CloudIdentity::open(&world.path("other"), Some(&given), NOW).unwrap();
    assert_eq!(other.ca().fingerprint(), world.cloud.ca().fingerprint());
    assert!(!world.path("other/identity").exists(), "no second CA is made");

    let third = CloudIdentity::open(&world.path("third"), None, NOW).unwrap();
    drop(third);
    let mixed = CaFiles {
        key: world.path("third/identity/ca.key"),
        ..given.clone()
    };
    let text = CloudIdentity::open(&world.path("x"), Some(&mixed), NOW)
        .unwrap_err()
        .to_string();
    assert!(text.contains("ca.crt") && text.contains("does not belong"), "{text}");

    let later = WallTime(NOW.0 + 40 * 365 * DAY_MS);
    let text = CloudIdentity::open(&world.path("cloud"), None, later)
        .unwrap_err()
        .to_string();
    assert!(text.contains("expired"), "{text}");

    fs::write(&given.key, "no key").unwrap();
    let text = CloudIdentity::open(&world.path("cloud"), None, NOW)
        .unwrap_err()
        .to_string();
    assert!(text.contains("ca.key") && text.contains("not a private key"), "{text}");
    fs::remove_file(&given.key).unwrap();
    let text = CloudIdentity::open(&world.path("cloud"), None, NOW)
        .unwrap_err()
        .to_string();
    assert!(text.contains("ca.key") && text.contains("key is missing"), "{text}");
}

#[test]
fn loosened_key_files_are_tightened() {
    let world = World::new();
    let key = world.path("cloud/identity/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    drop(CloudIdentity::open(&world.path("cloud"), None, NOW).unwrap());
    assert_eq!(mode(&key), 0o600);
}

#[test]
fn a_token_survives_its_text_and_keeps_its_secret_to_itself() {
    let world = World::new();
    let token = world.token("plant-3");
    let text = token.to_text();
    assert!(
        text.starts_with("fbj1.") && text.len() < 400,
        "{} characters",
        text.len()
    );
    assert_eq!(format!("  {text}\n").parse::<JoinToken>().unwrap(), token);
    assert!(format!("{token:?}").contains("(secret)"));
    let file = world.path(&format!("cloud/tokens/{}.json", token.id));
    assert_eq!(mode(&file), 0o600);
    let secret = super::token::encode_32(token.secret.expose());
    assert!(
        !fs::read_to_string(file).unwrap().contains(&secret),
        "the secret itself is on disk"
    );
    let request = PendingJoin::new(token).unwrap().request();
    assert!(!format!("{request:?}").contains(&secret));

    assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::Prefix));
    for cut in [6, 40, text.len() - 1] {
        assert_eq!(
            text[..cut].parse::<JoinToken>(),
            Err(TokenError::Damaged),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_join_gives_an_identity_that_survives_a_restart() {
    let world = World::new();
    let edge_dir = world.path("edge");
    assert!(EdgeKeys::load(&edge_dir).unwrap().is_none(), "not joined yet");
    let keys = world.join("plant-3");
    keys.save(&edge_dir).unwrap();
    assert_eq!(mode(&EdgeKeys::path(&edge_dir)), 0o600);
    assert_eq!(mode(&edge_dir.join("identity")), 0o700);
    let loaded = EdgeKeys::load(&edge_dir).unwrap().unwrap();
    assert_eq!(loaded.identity, keys.identity);
    assert_eq!(
        (loaded.identity.name.as_str(), loaded.identity.instance),
        ("plant-3", 1)
    );
    assert_eq!(loaded.cloud.0[0].to_string(), "127.0.0.1:4483");
    assert_eq!(loaded.ca_fingerprint(), world.cloud.ca().fingerprint());
    assert!(!format!("{loaded:?}").contains("PRIVATE"));
    world.cloud.edges().admit(&loaded.identity, NOW).unwrap();
}

#[test]
fn a_damaged_identity_file_is_named_and_its_key_not_shown() {
    let world = World::new();
    let edge_dir = world.path("edge");
    let (one, two) = (world.join("a"), world.join("b"));
    one.save(&edge_dir).unwrap();
    let path = EdgeKeys::path(&edge_dir);
    let text = fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    two.save(&edge_dir).unwrap();
    let other: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    json["cert_pem"] = other["cert_pem"].clone();
    let mixed = json.to_string();
    for (damaged, reason) in [
        (&text[..text.len() / 2], "not an identity file"),
        ("", "not an identity file"),
        (mixed.as_str(), "does not belong to the key"),
        (&text.replace("\"version\": 1", "\"version\": 9"), "another version"),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = EdgeKeys::load(&edge_dir).unwrap_err().to_string();
        assert!(error.contains("edge.json") && error.contains(reason), "{error}");
        assert!(!error.contains("MIG"), "a piece of the key was shown: {error}");
    }
}

#[test]
fn a_token_works_once() {
    let world = World::new();
    let pending = PendingJoin::new(world.token("plant-3")).unwrap();
    world.cloud.redeem(&pending.request(), NOW).unwrap();
    let error = world.cloud.redeem(&pending.request(), NOW).unwrap_err();
    assert!(matches!(error, JoinError::Used { .. }), "{error}");
    assert!(error.to_string().contains("token create --edge plant-3"), "{error}");
    assert_eq!(
        world.cloud.edges().list().unwrap()[0].instance,
        1,
        "the second try raised nothing"
    );
}

#[test]
fn of_many_who_redeem_a_token_at_once_one_succeeds() {
    let world = World::new();
    let request = PendingJoin::new(world.token("plant-3")).unwrap().request();
    // Each thread has an identity of its own on the same files, as two processes would.
    let won: usize = std::thread::scope(|scope| {
        let redeem = || {
            let cloud = CloudIdentity::open(&world.path("cloud"), None, NOW).unwrap();
            usize::from(cloud.redeem(&request, NOW).is_ok())
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(redeem)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
}

#[test]
fn a_token_made_beside_a_running_node_is_known_to_it() {
    let world = World::new();
    let beside = CloudIdentity::open(&world.path("cloud"), None, NOW).unwrap();
    let addresses = HostPorts(vec!["c:1".parse().unwrap()]);
    let token = beside
        .create_token(&"e".parse().unwrap(), &addresses, Duration::from_secs(60), NOW)
        .unwrap();
    let pending = PendingJoin::new(token).unwrap();
    world.cloud.redeem(&pending.request(), NOW).unwrap();
}

#[test]
fn wrong_expired_and_misnamed_tokens_are_told_apart_and_stay_good() {
    let world = World::new();
    let token = world.token("plant-3");
    let good = PendingJoin::new(token.clone()).unwrap().request();

    let wrong_secret = JoinRequest {
        secret: super::token::encode_32(&[7; 32]),
        ..good.clone()
    };
    let unknown = JoinRequest {
        token_id: "0123456789abcdef".into(),
        ..good.clone()
    };
    let traversal = JoinRequest {
        token_id: "../edges/plant-3".into(),
        ..good.clone()
    };
    let no_secret = JoinRequest {
        secret: String::new(),
        ..good.clone()
    };
    for request in [wrong_secret, unknown, traversal, no_secret] {
        assert!(
            matches!(world.cloud.redeem(&request, NOW), Err(JoinError::Wrong)),
            "{request:?}"
        );
    }

    let late = WallTime(NOW.0 + DAY_MS);
    let error = world.cloud.redeem(&good, late).unwrap_err();
    assert!(
        matches!(error, JoinError::Expired { .. }) && error.to_string().contains("plant-3"),
        "{error}"
    );

    let renamed = JoinToken {
        edge: "plant-4".parse().unwrap(),
        ..token
    };
    let misnamed = PendingJoin::new(renamed).unwrap().request();
    let error = world.cloud.redeem(&misnamed, NOW).unwrap_err().to_string();
    assert!(error.contains("plant-3") && error.contains("plant-4"), "{error}");

    let version = JoinRequest {
        version: 2,
        ..good.clone()
    };
    assert!(matches!(
        world.cloud.redeem(&version, NOW),
        Err(JoinError::Version { edge: 2, .. })
    ));
    for csr_pem in [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ] {
        let broken = JoinRequest {
            csr_pem: csr_pem.into(),
            ..good.clone()
        };
        assert!(matches!(world.cloud.redeem(&broken, NOW), Err(JoinError::Request(_))));
    }
    world.cloud.redeem(&good, WallTime(late.0 - 1)).unwrap();
}

#[test]
fn tokens_that_are_long_over_are_forgotten_when_a_new_one_is_made() {
    let world = World::new();
    let old = world.token("a");
    let later = WallTime(NOW.0 + 32 * DAY_MS);
    let addresses = HostPorts(vec!["c:1".parse().unwrap()]);
    let new = world
        .cloud
        .create_token(&"b".parse().unwrap(), &addresses, Duration::from_secs(60), later)
        .unwrap();
    assert!(!world.path(&format!("cloud/tokens/{}.json", old.id)).exists());
    assert!(world.path(&format!("cloud/tokens/{}.json", new.id)).exists());
}

#[test]
fn a_new_join_of_a_known_name_supersedes_the_older_one() {
    let world = World::new();
    let (old, new) = (world.join("plant-3"), world.join("plant-3"));
    assert_eq!((old.identity.instance, new.identity.instance), (1, 2));
    let edges = world.cloud.edges();
    edges.admit(&new.identity, NOW).unwrap();
    let text = edges.admit(&old.identity, NOW).unwrap_err().to_string();
    for part in ["plant-3", "instance 1 is superseded", "instance 2", "new token"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    let forged = EdgeIdentity {
        fingerprint: old.identity.fingerprint,
        ..new.identity.clone()
    };
    assert!(matches!(edges.admit(&forged, NOW), Err(Refusal::Superseded { .. })));
}

#[test]
fn an_edge_that_the_operator_locked_out_is_refused_until_it_joins_again() {
    let world = World::new();
    let keys = world.join("plant-3");
    let path = world.path("cloud/edges/plant-3.json");
    assert_eq!(mode(&path), 0o600);
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("\"refused\": false", "\"refused\": true");
    fs::write(&path, text).unwrap();
    assert!(matches!(
        world.cloud.edges().admit(&keys.identity, NOW),
        Err(Refusal::Refused { .. })
    ));
    let again = world.join("plant-3");
    world.cloud.edges().admit(&again.identity, NOW).unwrap();
}

#[test]
fn a_cloud_put_back_to_an_older_copy_learns_its_edges_again() {
    let world = World::new();
    world.join("plant-3");
    let copy = fs::read(world.path("cloud/edges/plant-3.json")).unwrap();
    let newest = world.join("plant-3");
    let unknown = world.join("plant-4");
    fs::write(world.path("cloud/edges/plant-3.json"), copy).unwrap();
    fs::remove_file(world.path("cloud/edges/plant-4.json")).unwrap();
    world.cloud.edges().admit(&newest.identity, NOW).unwrap();
    world.cloud.edges().admit(&unknown.identity, NOW).unwrap();
    assert_eq!(world.join("plant-3").identity.instance, 3, "no instance is given twice");
}

#[test]
fn an_answer_that_does_not_fit_the_token_is_refused() {
    let world = World::new();
    let stranger = World::new();
    let pending = PendingJoin::new(world.token("a")).unwrap();
    let issued = world.cloud.redeem(&pending.request(), NOW).unwrap();

    let other_key = PendingJoin::new(world.token("a"))
        .unwrap()
        .complete(&issued)
        .unwrap_err();
    assert!(
        other_key.to_string().contains("does not belong to the key"),
        "{other_key}"
    );
    let other_ca = Issued {
        ca_pem: stranger.cloud.ca().pem(),
        ..issued.clone()
    };
    let other_instance = Issued {
        instance: 9,
        ..issued.clone()
    };
    for (answer, reason) in [(other_ca, "CA"), (other_instance, "another edge")] {
        let pending = PendingJoin::new(world.token("a")).unwrap();
        let mine = world.cloud.redeem(&pending.request(), NOW).unwrap();
        let answer = Issued {
            cert_pem: mine.cert_pem,
            ..answer
        };
        let text = pending.complete(&answer).unwrap_err().to_string();
        assert!(text.contains(reason) && text.contains("nothing was stored"), "{text}");
    }
    pending.complete(&issued).unwrap();
}

#[tokio::test]
async fn join_messages_cross_a_stream_and_hostile_ones_are_refused() {
    let world = World::new();
    let (mut edge, mut cloud) = tokio::io::duplex(64);
    let pending = PendingJoin::new(world.token("a")).unwrap();
    let request = pending.request();
    let (sent, received) = tokio::join!(wire::write(&mut edge, &request), wire::read::<JoinRequest>(&mut cloud));
    sent.unwrap();
    assert_eq!(received.unwrap(), request);
    let reply = JoinReply::from(world.cloud.redeem(&request, NOW));
    let (sent, received) = tokio::join!(wire::write(&mut cloud, &reply), wire::read::<JoinReply>(&mut edge));
    sent.unwrap();
    let Ok(JoinReply::Issued(issued)) = received else {
        panic!("not issued")
    };
    pending.complete(&issued).unwrap();
    let refused = JoinReply::from(world.cloud.redeem(&request, NOW));
    assert!(matches!(refused, JoinReply::Refused { code, text } if code == "used" && text.contains("already used")));

    for hostile in [
        &[0xff; 8][..],
        &[0, 0, 0x40, 1, 0][..],
        &[0, 0, 0, 3, b'{', b'}', b'x'][..],
        &[0, 0][..],
    ] {
        let mut bytes = hostile;
        assert!(wire::read::<JoinRequest>(&mut bytes).await.is_err(), "{hostile:?}");
    }
}

proptest::proptest! {
    /// Tokens and join messages come from outside: whatever they hold, parsing ends in a value or an error.
    #[test]
    fn hostile_texts_never_panic(text in ".{0,200}", bytes in vec(ANY, 0..200)) {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
        for token in [text.clone(), format!("fbj1.{text}"), format!("fbj1.{body}")] {
            proptest::prop_assert!(token.parse::<JoinToken>().is_err());
        }
        if let Ok(name) = text.parse::<EdgeName>() {
            proptest::prop_assert_eq!(name.as_str(), text.as_str());
        }
        proptest::prop_assert!(text.parse::<Fingerprint>().is_err());
        proptest::prop_assert!(EdgeIdentity::from_chain(&[rustls_pki_types::CertificateDer::from(bytes)]).is_err());
    }

    /// Any single damaged byte of a certificate gives an error or another identity, never a panic.
    #[test]
    fn damaged_certificates_never_panic(at in 0_usize..400, bit in 0_u8..8) {
        let mut der = sample_certificate().to_vec();
        let at = at % der.len();
        der[at] ^= 1 << bit;
        let damaged = rustls_pki_types::CertificateDer::from(der);
        if let Ok(identity) = EdgeIdentity::from_chain(&[damaged]) {
            proptest::prop_assert_ne!(identity.fingerprint, Fingerprint::of(sample_certificate()));
        }
    }
}

fn sample_certificate() -> &'static rustls_pki_types::CertificateDer<'static> {
    static SAMPLE: std::sync::OnceLock<rustls_pki_types::CertificateDer<'static>> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| World::new().join("plant-3").certificate)
}
