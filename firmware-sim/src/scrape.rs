//! What the nodes say about themselves over HTTP: metrics and status.
//!
//! In: the address of a node. Out: numbers by name. A node that is down, or lacks a name, gives `None`: the demo shows
//! what there is. The names are here and nowhere else.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Records that the cloud dropped, since it had them already.
pub const DUPLICATES: &str = "fellbeck_link_duplicates_total";
/// Where the metrics are.
pub const METRICS_PATH: &str = "/metrics";
/// Where the status is.
pub const STATUS_PATH: &str = "/api/v1/status";
/// Records ever appended to the cloud's streams, in its status.
const LOG_RECORDS: &str = "/log/records";
/// The edge's lanes, in its status; each has `track` and `queued`.
const LANES: &str = "/lanes";
/// The lane that is never forwarded: nothing of it is on its way.
const LOCAL_LANE: &str = "lane/local/";

const WITHIN: Duration = Duration::from_secs(2);
/// Longest answer that is read.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// The body of an answer with status 200.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    timeout(WITHIN, get_now(address, path)).await.ok()?
}

async fn get_now(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    // HTTP/1.0, so that the answer ends with the connection and has no chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_ascii_whitespace().nth(1).filter(|status| *status == "200")?;
    Some(body.to_owned())
}

/// The sum of a metric over all its labels, in Prometheus text.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Records ever appended to the cloud's log, by its status.
pub fn log_records(status: &str) -> Option<u64> {
    serde_json::from_str::<Value>(status)
        .ok()?
        .pointer(LOG_RECORDS)?
        .as_u64()
}

/// Records in the edge's store that the cloud has not acknowledged, by its status.
pub fn queued_records(status: &str) -> Option<u64> {
    let status = serde_json::from_str::<Value>(status).ok()?;
    let lanes = status.pointer(LANES)?.as_array()?.iter();
    let forwarded = lanes.filter(|lane| {
        !lane["track"]
            .as_str()
            .is_some_and(|track| track.starts_with(LOCAL_LANE))
    });
    forwarded.map(|lane| lane["queued"].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_mixed_with_its_neighbours() {
        let text = "# TYPE a_total counter\na_total{q=\"0\"} 3\na_total{q=\"}\"} 4\na_total_more 50\nb 1.5\n";
        assert_eq!(metric(text, "a_total"), Some(7.0));
        assert_eq!(metric(text, "b"), Some(1.5));
        assert_eq!(metric(text, "c"), None);
    }

    #[test]
    fn a_status_without_the_number_gives_nothing() {
        assert_eq!(log_records(r#"{"log":{"records":12}}"#), Some(12));
        assert_eq!(log_records(r#"{"log":{}}"#), None);
        assert_eq!(log_records(""), None);
    }

    #[test]
    fn the_local_lane_is_not_on_its_way() {
        let lane = |track, queued| format!(r#"{{"track":"{track}","queued":{queued}}}"#);
        let lanes = [
            lane("lane/default/0", 5),
            lane("lane/local/0", 100),
            lane("lane/fast/0", 2),
        ]
        .join(",");
        assert_eq!(queued_records(&format!(r#"{{"lanes":[{lanes}]}}"#)), Some(7));
        assert_eq!(queued_records(r#"{"lanes":[{"track":"lane/default/0"}]}"#), None);
    }
}
