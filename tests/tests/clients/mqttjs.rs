//! MQTT.js (Node.js), on its event loop.
//!
//! In: its programs in `tests/clients/mqttjs`. Out: one test per scenario, each at both nodes and with both versions where they have it.

use crate::program::Library;
use crate::{messages, request, retained, session, subscriptions, will};

const LIBRARY: Library = Library::MqttJs;

#[test]
fn messages_keep_content_qos_and_order_both_ways() {
    messages::keep_content_and_order(LIBRARY);
}

#[test]
fn messages_keep_content_qos_and_order_over_websocket() {
    messages::keep_content_and_order_over(LIBRARY, "ws");
}

#[test]
fn messages_keep_content_qos_and_order_over_tls() {
    messages::keep_content_and_order_over(LIBRARY, "tls");
}

#[test]
fn messages_keep_content_qos_and_order_over_websocket_and_tls() {
    messages::keep_content_and_order_over(LIBRARY, "wss");
}

#[test]
fn messages_travel_from_the_edge_to_the_cloud_unchanged() {
    messages::travel_to_the_cloud_unchanged(LIBRARY);
}

#[test]
fn retained_messages_are_kept_replaced_and_deleted() {
    retained::are_kept_replaced_and_deleted(LIBRARY);
}

#[test]
fn wills_follow_a_kill_but_not_a_goodbye() {
    will::follow_a_kill_but_not_a_goodbye(LIBRARY);
}

#[test]
fn sessions_survive_a_restart_of_the_node() {
    session::survive_a_restart_of_the_node(LIBRARY);
}

#[test]
fn resumed_sessions_get_no_expired_messages() {
    session::get_no_expired_messages(LIBRARY);
}

#[test]
fn sessions_move_to_the_newest_connection() {
    session::move_to_the_newest_connection(LIBRARY);
}

#[test]
fn shared_subscriptions_share_the_work() {
    subscriptions::share_the_work(LIBRARY);
}

#[test]
fn messages_name_the_identifiers_of_their_subscriptions() {
    subscriptions::name_their_identifiers(LIBRARY);
}

#[test]
fn a_request_finds_its_response() {
    request::finds_its_response(LIBRARY);
}

#[test]
fn a_responder_answers_other_clients() {
    request::answers_others(LIBRARY);
}

#[test]
fn aliases_of_a_device_stand_for_their_topics() {
    request::aliases_stand_for_their_topics(LIBRARY);
}

#[test]
fn aliases_of_the_node_stand_for_their_topics() {
    messages::keep_their_topics_behind_aliases(LIBRARY);
}
