//! Metrics of a node in Prometheus' text form, and the figures of the process itself.
//!
//! In: the `metrics` facade of all crates. Out: [`Metrics::render`], served by [`crate::http`] at `/metrics`.
//! [`Metrics::install`] sets the one recorder of the process. Histograms are kept in memory until they are folded:
//! [`Metrics::upkeep`] must run every few seconds, scraped or not; [`Metrics::spawn_upkeep`] does.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::shutdown::Shutdown;

/// How often histograms are folded.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Bounds of histograms whose name ends in `_seconds`.
const SECONDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];
/// Bounds of all other histograms: counts and bytes.
const SIZES: [f64; 12] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    16_777_216.0,
];

/// Handle to the recorder of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    started: Duration,
}

/// What a metric is, for [`describe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution; its name ends in `_seconds`, `_bytes` or what is counted.
    Histogram,
}

/// One metric with its help text.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// What it is.
    pub kind: Kind,
    /// Full name, e.g. `fellbeck_store_commits_total`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// Gives the metrics in `list` their help texts. A metric appears once it is first set.
pub fn describe(list: &[Description]) {
    for d in list {
        match d.kind {
            Kind::Counter => metrics::describe_counter!(d.name, d.help),
            Kind::Gauge => metrics::describe_gauge!(d.name, d.help),
            Kind::Histogram => metrics::describe_histogram!(d.name, d.help),
        }
    }
}

impl Metrics {
    /// Sets the recorder of this process, or returns the one already set.
    #[must_use]
    pub fn install() -> Self {
        static INSTALLED: OnceLock<Metrics> = OnceLock::new();
        INSTALLED
            .get_or_init(|| {
                let recorder = PrometheusBuilder::new()
                    .set_buckets(&SIZES)
                    .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS))
                    .expect("the bounds are not empty")
                    .build_recorder();
                let handle = recorder.handle();
                if metrics::set_global_recorder(recorder).is_err() {
                    tracing::warn!("another metrics recorder is installed: /metrics shows the process figures only");
                }
                let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Metrics { handle, started }
            })
            .clone()
    }

    /// All metrics and the figures of the process, in Prometheus' text form.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        self.render_process(&mut text);
        text
    }

    /// Folds what histograms have collected.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Runs [`Metrics::upkeep`] until `shutdown`. Must be called within a tokio runtime.
    #[must_use]
    pub fn spawn_upkeep(&self, mut shutdown: Shutdown) -> tokio::task::JoinHandle<()> {
        let metrics = self.clone();
        tokio::spawn(async move {
            let mut every = tokio::time::interval(UPKEEP_EVERY);
            loop {
                tokio::select! {
                    _ = every.tick() => metrics.upkeep(),
                    () = shutdown.requested() => return,
                }
            }
        })
    }

    fn render_process(&self, text: &mut String) {
        let mut gauge = |name: &str, kind: &str, help: &str, value: f64| {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
                .expect("writing to a string cannot fail");
        };
        let started = self.started.as_secs_f64();
        gauge(
            "process_start_time_seconds",
            "gauge",
            "Start of the process since the Unix epoch.",
            started,
        );
        if let Some(bytes) = resident_bytes() {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people; 2^52 bytes are exact")]
            gauge(
                "process_resident_memory_bytes",
                "gauge",
                "Memory of the process in RAM.",
                bytes as f64,
            );
        }
        if let Some(seconds) = cpu_seconds() {
            gauge(
                "process_cpu_seconds_total",
                "counter",
                "User and system time of the process.",
                seconds,
            );
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            let open = u32::try_from(entries.count().saturating_sub(1)).unwrap_or(u32::MAX);
            gauge("process_open_fds", "gauge", "Open file descriptors.", f64::from(open));
        }
    }
}

/// Memory of this process in RAM, in bytes, where the system tells.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .trim_end_matches("kB")
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// User and system time of this process.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process stands in parentheses and may itself hold spaces and parentheses.
    let fields = stat.rsplit_once(')')?.1;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    // Linux reports these in hundredths of a second on every architecture that we build for.
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_histograms_and_process_figures_are_rendered() {
        let metrics = Metrics::install();
        describe(&[Description {
            kind: Kind::Counter,
            name: "fellbeck_ops_test_total",
            help: "A test.",
        }]);
        metrics::counter!("fellbeck_ops_test_total", "reason" => "quota").increment(3);
        metrics::histogram!("fellbeck_ops_test_seconds").record(0.002);
        metrics.upkeep();
        let text = Metrics::install().render();
        for expected in [
            "# HELP fellbeck_ops_test_total A test.",
            "fellbeck_ops_test_total{reason=\"quota\"} 3",
            "fellbeck_ops_test_seconds_bucket{le=\"0.0025\"} 1",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
        ] {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
        assert!(
            resident_bytes().unwrap() > 1024 * 1024,
            "a test process has more than a MiB"
        );
    }
}
