//! Session state (4.1, 3.1.2.4): kept, resumed, taken over, expired, restarted.

use fellbeck_tests::mqtt::{Connect, Raw, Version};

use crate::brokers::{on_own, target, unique};

/// [MQTT5-3.1.2-23] [MQTT5-3.2.2-3] [MQTT3-3.1.2-4] [MQTT3-3.2.2-2] A kept session is there after the node was killed and started again.
#[test]
fn a_session_outlives_a_restart() {
    on_own(&[], |node| {
        let hellos = Version::BOTH.map(|version| Connect::kept(version, unique("kept")));
        for hello in &hellos {
            let (client, accepted) = Raw::connect(target(node, hello.version).at, hello);
            assert!(!accepted.session_present);
            client.disconnect();
        }
        node.kill();
        node.start();
        for hello in &hellos {
            let (_client, accepted) = Raw::connect(target(node, hello.version).at, hello);
            assert!(accepted.session_present, "{:?}", hello.version);
        }
    });
}
