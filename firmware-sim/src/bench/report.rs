//! Samples, medians, ratios, and the table against the bars.
//!
//! In: samples per figure and side. Out: markdown. Ratios hold on a noisy machine, absolute times do not; so the bars
//! are ratios, and the peer's value of the same run stands beside ours.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use super::suite::{BenchPlan, Side};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Figure {
    /// QoS 1 into one broker; ours syncs before it acks.
    IngestQos1,
    /// QoS 0 into one broker; ours logs it.
    IngestQos0,
    /// Device to consumer through both tiers, as fast as it goes.
    Path,
    /// The same at 5,000 messages a second, for its latency.
    PathAt5000,
}

impl Figure {
    pub(super) fn all(more: bool) -> Vec<Self> {
        let mut figures = vec![Self::IngestQos1, Self::Path];
        if more {
            figures.extend([Self::IngestQos0, Self::PathAt5000]);
        }
        figures
    }

    const fn title(self) -> &'static str {
        match self {
            Self::IngestQos1 => "ingest QoS 1, fsync before ack / mosquitto in memory",
            Self::IngestQos0 => "ingest QoS 0, logged / mosquitto, which drops it",
            Self::Path => "device -> edge (fsync) -> QUIC -> cloud (fsync) -> consumer / mosquitto bridge in memory",
            Self::PathAt5000 => "the same at 5,000 messages/s",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// Messages per second.
    pub(super) rate: f64,
    /// User + system time of all broker processes of this side, per message.
    pub(super) cpu_us: f64,
    /// Latency: of the ack for ingest, end to end for the path.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rate,
            cpu_us,
            p50_us,
            p99_us,
        } = self;
        write!(
            f,
            "{rate:.0} messages/s, {cpu_us:.2} us CPU, latency p50 {p50_us:.0} us, p99 {p99_us:.0} us"
        )
    }
}

/// A bar on the ratio of ours to theirs, or on our value alone.
struct Bar {
    what: &'static str,
    value: fn(&Sample) -> f64,
    better: Better,
    must: f64,
    aim: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    /// A ratio that should be small.
    LowerRatio,
    /// A ratio that should be large.
    HigherRatio,
    /// Our own microseconds.
    LowerOwn,
}

const fn cpu_bar(must: f64, aim: f64) -> Bar {
    Bar {
        what: "CPU us per message",
        value: |sample| sample.cpu_us,
        better: Better::LowerRatio,
        must,
        aim,
    }
}

const fn rate_bar(must: f64, aim: f64) -> Bar {
    Bar {
        what: "messages/s",
        value: |sample| sample.rate,
        better: Better::HigherRatio,
        must,
        aim,
    }
}

/// The bars of DESIGN section 11.
fn bars(figure: Figure) -> Vec<Bar> {
    let own = |what, value, must, aim| Bar {
        what,
        value,
        better: Better::LowerOwn,
        must,
        aim,
    };
    match figure {
        Figure::IngestQos1 => vec![cpu_bar(0.3, 0.1), rate_bar(2.0, 6.0)],
        Figure::IngestQos0 => vec![cpu_bar(0.8, 0.3)],
        Figure::Path => vec![cpu_bar(0.3, 0.1), rate_bar(3.0, 10.0)],
        Figure::PathAt5000 => vec![
            own("latency p50, us", |sample| sample.p50_us, 5_000.0, 1_000.0),
            own("latency p99, us", |sample| sample.p99_us, 25_000.0, 5_000.0),
        ],
    }
}

/// All samples.
#[derive(Debug, Default)]
pub(super) struct Report {
    samples: HashMap<(Figure, bool), Vec<Sample>>,
}

impl Report {
    pub(super) fn add(&mut self, figure: Figure, side: Side, sample: Sample) {
        self.samples
            .entry((figure, side == Side::Fellbeck))
            .or_default()
            .push(sample);
    }

    fn median(&self, figure: Figure, side: Side, value: fn(&Sample) -> f64) -> Option<f64> {
        let samples = self.samples.get(&(figure, side == Side::Fellbeck))?;
        let mut values: Vec<f64> = samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        })
    }

    /// Ours, theirs, and what is compared with the bar.
    fn compared(&self, figure: Figure, bar: &Bar) -> Option<(f64, f64, f64)> {
        let ours = self.median(figure, Side::Fellbeck, bar.value)?;
        let theirs = self.median(figure, Side::Mosquitto, bar.value)?;
        let compared = if bar.better == Better::LowerOwn {
            ours
        } else {
            ours / theirs
        };
        Some((ours, theirs, compared))
    }

    pub(super) fn meets_musts(&self) -> bool {
        let figures = Figure::all(true);
        let mut all = figures
            .iter()
            .flat_map(|figure| bars(*figure).into_iter().map(|bar| (*figure, bar)));
        all.all(|(figure, bar)| {
            self.compared(figure, &bar)
                .is_none_or(|(_, _, value)| bar.reached(value, bar.must))
        })
    }

    pub(super) fn to_markdown(&self, plan: &BenchPlan, mosquitto: &str) -> String {
        let mut text = String::new();
        let BenchPlan {
            rounds,
            connections,
            window,
            size,
            path_messages,
            measure_for,
            ..
        } = plan;
        // Writing to a string cannot fail.
        write!(
            text,
            "{}\n\nfirmware-sim {}{}, mosquitto {mosquitto} without persistence. {connections} connections, window \
             {window}, {size} B, {rounds} rounds of {} s (ingest) and {path_messages} messages (path); medians.\n\n\
             | figure | | fellbeck | mosquitto | ratio | must | aim | |\n|---|---|---|---|---|---|---|---|\n",
            machine(),
            env!("CARGO_PKG_VERSION"),
            if cfg!(debug_assertions) {
                " (NOT A RELEASE BUILD)"
            } else {
                ""
            },
            measure_for.as_secs(),
        )
        .expect("writing to a string");
        for figure in Figure::all(true) {
            for bar in bars(figure) {
                if let Some(values) = self.compared(figure, &bar) {
                    bar.write_row(&mut text, figure, values);
                }
            }
        }
        text
    }
}

impl Bar {
    fn reached(&self, value: f64, bar: f64) -> bool {
        if self.better == Better::HigherRatio {
            value >= bar
        } else {
            value <= bar
        }
    }

    fn write_row(&self, text: &mut String, figure: Figure, (ours, theirs, compared): (f64, f64, f64)) {
        let (sign, unit) = match self.better {
            Better::LowerRatio => ("<=", " x"),
            Better::HigherRatio => (">=", " x"),
            Better::LowerOwn => ("<=", ""),
        };
        let judged = match (self.reached(compared, self.aim), self.reached(compared, self.must)) {
            (true, _) => "aim",
            (false, true) => "must",
            (false, false) => "**missed**",
        };
        let digits = if ours >= 100.0 { 0 } else { 2 };
        let (title, what, must, aim) = (figure.title(), self.what, self.must, self.aim);
        writeln!(
            text,
            "| {title} | {what} | {ours:.digits$} | {theirs:.digits$} | {:.2} x | {sign} {must}{unit} | {sign} {aim}{unit} | {judged} |",
            ours / theirs
        )
        .expect("writing to a string");
    }
}

/// Processor and kernel of this machine.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown processor");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{}, {cores} cores, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ours: Sample, theirs: Sample) -> Report {
        let mut report = Report::default();
        for extreme in [0.01, 1.0, 100.0] {
            let scaled = |sample: Sample| Sample {
                rate: sample.rate * extreme,
                cpu_us: sample.cpu_us * extreme,
                ..sample
            };
            report.add(Figure::IngestQos1, Side::Fellbeck, scaled(ours));
            report.add(Figure::IngestQos1, Side::Mosquitto, scaled(theirs));
        }
        report
    }

    #[test]
    fn medians_decide_and_each_must_counts() {
        let theirs = Sample {
            rate: 100.0,
            cpu_us: 10.0,
            ..Sample::default()
        };
        let good = Sample {
            rate: 250.0,
            cpu_us: 2.0,
            ..Sample::default()
        };
        assert!(report(good, theirs).meets_musts());
        assert!(!report(Sample { rate: 150.0, ..good }, theirs).meets_musts());
        assert!(!report(Sample { cpu_us: 4.0, ..good }, theirs).meets_musts());
    }
}
