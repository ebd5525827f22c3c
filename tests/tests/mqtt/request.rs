//! Request and response (4.10).

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Publish, value_of};

use crate::brokers::{on_each, unique};
use crate::pair::take;

/// [MQTT5-4.10] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] A responder finds Response Topic and Correlation Data as the
/// requesters sent them, and each answer reaches the requester that asked, with its own data.
#[test]
fn a_request_finds_its_responder_and_its_way_back() {
    on_each(|target| {
        let requests = unique("requests");
        let mut responder = target.client("responder");
        assert_eq!(responder.subscribe(&requests, 1), 1);
        let mut requesters = Vec::new();
        for at in 0..5_u8 {
            let (answers, mut requester) = (unique("answers"), target.client("requester"));
            assert_eq!(requester.subscribe(&answers, 2), 2);
            let request = Publish::new(&requests, [at]).qos(at % 2);
            let request = request.property(property::correlation_data([0xFF, at, 0]));
            requester.publish(&request.property(property::response_topic(&answers)));
            requesters.push(requester);
        }
        // Answered in another order than asked.
        let mut asked = take(&mut responder, 5);
        asked.reverse();
        for request in &asked {
            let to = request.property(0x08).expect("a Response Topic");
            let to = std::str::from_utf8(to).expect("it is a string");
            let data = request.property(0x09).expect("Correlation Data");
            let answer = Publish::new(to, &request.payload).qos(2);
            responder.publish(&answer.property(property::correlation_data(data)));
        }
        for (at, requester) in (0..5_u8).zip(&mut requesters) {
            let answer = take(requester, 1).remove(0);
            assert_eq!(answer.payload, [at]);
            assert_eq!(value_of(&answer.properties, 0x09), Some(&[0xFF, at, 0][..]));
            requester.ping();
        }
    });
}
