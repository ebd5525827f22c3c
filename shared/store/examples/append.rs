//! Measures durable appends, a reopen with the backlog that they leave, and reading it back.
//!
//! `cargo run --release -p fellbeck-store --example append -- DIR [COMMITS] [RECORDS] [PAYLOAD] [ack|keep] [OUTSTANDING]`
//! Prints rates, CPU per record and bytes written; compares with a plain append and fdatasync of the same raw bytes.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use fellbeck_core::{ClockQuality, Properties, QoS, Record, RecordBlock, RecordBlockBuilder, Seq, TrackId, WallTime};
use fellbeck_store::{Append, Commit, StoreConfig, TrackEntry, open};

const LANE: TrackId = TrackId(0);

struct Load {
    commits: usize,
    records: usize,
    payload: usize,
    /// Nothing is acknowledged: the backlog grows.
    keep: bool,
    outstanding: usize,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("the first argument is a directory");
    let mut number = |default: usize| args.next().map_or(default, |text| text.parse().expect("a number"));
    let (commits, records, payload) = (number(2000), number(256), number(137));
    let load = Load {
        commits,
        records,
        payload,
        keep: args.next().is_some_and(|word| word == "keep"),
        outstanding: args.next().map_or(1, |text| text.parse().expect("a number")),
    };
    let dir = Path::new(&dir);
    let blocks: Vec<_> = (0..64).map(|seed| telemetry(seed, records, payload)).collect();
    plain(dir, &blocks, commits.min(500));
    write(dir, &blocks, &load);
    read(dir);
}

fn config() -> StoreConfig {
    StoreConfig {
        linger: Duration::ZERO,
        ..StoreConfig::edge(vec!["lane/default/0".into()])
    }
}

fn write(dir: &Path, blocks: &[RecordBlock], load: &Load) {
    let (store, _) = open(&dir.join("store"), config()).expect("the store opens");
    let (submitter, mut answers) = store.submitter(load.outstanding + 1);
    let (start, usage) = (Instant::now(), Usage::now());
    let mut latencies = Vec::with_capacity(load.commits);
    let mut sent = std::collections::VecDeque::new();
    for n in 0..load.commits + load.outstanding {
        if n < load.commits {
            let acked = Seq((n * load.records).saturating_sub(8 * load.records) as u64);
            let commit = Commit {
                appends: vec![Append {
                    track: LANE,
                    block: blocks[n % blocks.len()].clone(),
                }],
                acked: if load.keep { vec![] } else { vec![(LANE, acked)] },
                ..Commit::default()
            };
            submitter.submit(commit).expect("the store is open");
            sent.push_back(Instant::now());
        }
        if n >= load.outstanding {
            answers.blocking_recv().expect("the store is open");
            latencies.push(sent.pop_front().expect("one per answer").elapsed());
        }
    }
    let elapsed = start.elapsed();
    let used = Usage::now().since(&usage);
    let total = (load.commits * load.records) as f64;
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{} submissions of {} x {} B, {} outstanding: {:.0}/s, {:.0} records/s",
        load.commits,
        load.records,
        load.payload,
        load.outstanding,
        rate(load.commits, elapsed),
        total / elapsed.as_secs_f64()
    );
    println!("  latency p50 {:?} p99 {:?} max {:?}", at(0.5), at(0.99), at(1.0));
    println!(
        "  CPU {:.2} us per record, flash {:.2} bytes per payload byte, RSS {} kB",
        used.cpu * 1e6 / total,
        used.written / (total * load.payload as f64),
        rss_kb()
    );
    let stats = store.stats();
    println!(
        "  {} commits, {} segments of {} bytes in all, {} bytes on disk",
        stats.commits, stats.segments, stats.segment_bytes, stats.disk_bytes
    );
    store.close();
}

fn read(dir: &Path) {
    let start = Instant::now();
    let (store, report) = open(&dir.join("store"), config()).expect("the store opens again");
    println!("reopen: {:?}, damaged: {}", start.elapsed(), report.is_damaged());
    let (start, mut at, mut records) = (Instant::now(), store.bounds(LANE).first, 0);
    while at < store.bounds(LANE).end {
        let read = store.read_track(LANE, at, 1 << 20).blocking_recv();
        let read = read.expect("answered").expect("readable");
        for entry in read.entries {
            if let TrackEntry::Batch(batch) = entry {
                records += batch.open(1 << 24).expect("sound").len();
            }
        }
        at = read.next;
    }
    println!(
        "read back {records} records: {:.0}/s, RSS {} kB",
        rate(records, start.elapsed()),
        rss_kb()
    );
}

fn plain(dir: &Path, blocks: &[RecordBlock], commits: usize) {
    std::fs::create_dir_all(dir).expect("a writable directory");
    let path = dir.join("plain");
    let mut file = std::fs::File::create(&path).expect("a writable directory");
    let start = Instant::now();
    for n in 0..commits {
        file.write_all(blocks[n % blocks.len()].bytes())
            .expect("space on the disk");
        file.sync_data().expect("a working disk");
    }
    println!(
        "plain append + fdatasync of {} B: {:.0}/s",
        blocks[0].bytes().len(),
        rate(commits, start.elapsed())
    );
    std::fs::remove_file(path).expect("it was just written");
}

fn rate(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// JSON of a sensor, padded to the length.
fn telemetry(seed: u64, records: usize, len: usize) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    let mut state = seed * 7919 + 1;
    for n in 0..records {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (temperature, humidity) = ((state >> 33) % 4000, (state >> 45) % 1000);
        let mut text = format!(
            r#"{{"ts":17000{seed:04}{n:05},"sensor":"s-{:03}","temperature":{}.{:02},"humidity":{}.{},"battery":3.{:02},"status":"ok"}}"#,
            state % 50,
            temperature / 100,
            temperature % 100,
            humidity / 10,
            humidity % 10,
            state % 100
        );
        while text.len() < len {
            text.push(' ');
        }
        builder.push(&Record {
            device: &format!("device-{:03}", n % 50),
            topic: &format!("plant/line-{}/device-{:03}/telemetry", n % 7, n % 50),
            payload: &text.as_bytes()[..len],
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1_700_000_000_000 + n as u64),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    builder.finish()
}

struct Usage {
    cpu: f64,
    written: f64,
}

impl Usage {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Self {
            cpu: (ticks(11) + ticks(12)) / 100.0,
            written: line.and_then(|text| text.parse().ok()).unwrap_or(0.0),
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu: self.cpu - earlier.cpu,
            written: self.written - earlier.written,
        }
    }
}

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
