//! Real client programs against the real nodes: each client, at the edge and at the cloud, with 3.1.1 and 5.0, at each QoS.
//!
//! In: mosquitto's clients, paho-mqtt (Python), MQTT.js (Node.js) and rumqttc, pinned in `tests/clients` and installed by `tests/setup.sh`.
//! The three libraries have a small program per scenario, with the same arguments and the same JSON lines, so a scenario is judged by one
//! Rust function for all of them. What a program says about itself is checked against what our raw client sees or sent.

mod messages;
mod mosquitto;
mod mqttjs;
mod nodes;
mod paho;
mod program;
mod properties;
mod raw;
mod request;
mod retained;
mod rumqttc;
mod session;
mod subscriptions;
mod will;
