//! The WebSocket upgrade and the frames behind it: what arrives in portions means the same, and an answer is one answer.

use fellbeck_broker::front::fuzz;

/// Longest input that is cut at every byte.
const CUT_MAX: usize = 512;
/// Largest frame of the body.
const FRAME_MAX: u64 = 1024;

/// The input is the first bytes of a connection.
pub(super) fn ws_upgrade(data: &[u8]) -> bool {
    match fuzz::websocket_upgrade(data) {
        None => false,
        Some(Err(answer)) => {
            assert_is_one_answer(&answer, &["400", "426", "431"]);
            false
        }
        Some(Ok((length, answer))) => {
            assert!(length <= data.len(), "a request ends within what came");
            assert_is_one_answer(&answer, &["101"]);
            let request = &data[..length];
            for cut in 0..request.len().min(CUT_MAX) {
                let part = fuzz::websocket_upgrade(&request[..cut]);
                assert!(
                    !matches!(part, Some(Ok(_))),
                    "cut at {cut}: a request is accepted only when it is whole"
                );
            }
            let again = fuzz::websocket_upgrade(request);
            assert_eq!(
                again,
                Some(Ok((length, answer))),
                "what follows a request changes nothing"
            );
            true
        }
    }
}

/// Nothing of the request may end the head early or begin a second answer.
fn assert_is_one_answer(answer: &str, statuses: &[&str]) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head has an end");
    let status = head.split(' ').nth(1).expect("a status");
    assert!(statuses.contains(&status), "{head}");
    assert_eq!(head.matches("HTTP/1.1").count(), 1, "{head}");
    assert!(!body.contains('\r') && body.lines().count() <= 1, "{body}");
}

/// The input is the size of a portion, and frames of a client.
pub(super) fn ws_frames(data: &[u8]) -> bool {
    let [step, bytes @ ..] = data else {
        return false;
    };
    let whole = fuzz::websocket_frames(FRAME_MAX, bytes, usize::MAX);
    let cut = fuzz::websocket_frames(FRAME_MAX, bytes, usize::from(*step));
    assert_eq!(cut, whole, "portions of {step} change nothing");
    let pinged: usize = whole.pings.iter().map(Vec::len).sum();
    assert!(whole.mqtt.len() + pinged <= bytes.len(), "nothing is made up");
    assert!(
        whole.pings.iter().all(|ping| ping.len() <= 125),
        "a control frame is small"
    );
    if let Some(code) = whole.end {
        assert!(
            matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999),
            "{code} may be sent"
        );
    }
    whole.end.is_none() && !(whole.mqtt.is_empty() && whole.pings.is_empty())
}
