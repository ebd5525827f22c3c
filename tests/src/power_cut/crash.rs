//! What a power cut makes of the operations that were not synced.
//!
//! In: a plan, chosen by a seed. Out: the disk as the next start finds it, and a report of what was kept and what was not.
//! Names: with a journal, a prefix of them in their order; without, any subset in which each name's own order holds. A rename is atomic.
//! Bytes: each sector shows one of the states that it went through since the last sync. A torn one holds zeros, noise or a mixture where
//! bytes were being written; bytes beside them in the same sector that were synced before stay (power-safe overwrite, as disks do it).

use rand::Rng;
use rand::rngs::StdRng;

use super::content::{Content, to_usize};
use super::pending::{Data, DataOp, NameOp, PendingFs};

/// How much of what was not synced survives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Survivors {
    /// Nothing: the drive's cache is gone.
    None,
    /// Everything, as after a kill of the process alone.
    All,
    /// What came first, in the order of the operations; the last one may be torn.
    First,
    /// Each sector and each name on its own, with this probability.
    Any(f64),
}

/// What torn sectors hold where bytes were being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torn {
    /// No sector is torn.
    Never,
    /// Zeros.
    Zeros,
    /// Noise.
    Noise,
    /// The first part is new, the rest as before.
    Mixed,
}

/// How a cut treats what was not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CutPlan {
    /// Names become durable in their order, and a file's length only with the bytes below it (ext4 with `data=ordered`).
    pub journaled: bool,
    /// Bytes written at once by the device.
    pub sector: u64,
    /// What becomes of names.
    pub names: Survivors,
    /// What becomes of bytes and lengths.
    pub data: Survivors,
    /// What torn sectors look like.
    pub torn: Torn,
}

impl CutPlan {
    /// Everything that was not synced is gone.
    #[must_use]
    pub fn lose_all() -> Self {
        Self {
            journaled: false,
            sector: 512,
            names: Survivors::None,
            data: Survivors::None,
            torn: Torn::Never,
        }
    }

    /// Any plan for a file system that is `journaled` or not.
    #[must_use]
    pub fn random(journaled: bool, rng: &mut StdRng) -> Self {
        let torn = match rng.random_range(0..6) {
            0 => Torn::Zeros,
            1 => Torn::Noise,
            2 => Torn::Mixed,
            _ => Torn::Never,
        };
        Self {
            journaled,
            sector: if rng.random() { 512 } else { 4096 },
            names: Survivors::random(rng),
            data: Survivors::random(rng),
            torn: if journaled { Torn::Never } else { torn },
        }
    }
}

impl Survivors {
    fn random(rng: &mut StdRng) -> Self {
        match rng.random_range(0..8) {
            0 | 1 => Self::None,
            2 => Self::All,
            3 | 4 => Self::First,
            _ => Self::Any(*[0.1, 0.5, 0.9].get(rng.random_range(0..3)).unwrap_or(&0.5)),
        }
    }

    /// Which of `count` operations in a row survive.
    fn choose(self, count: usize, rng: &mut StdRng) -> Vec<bool> {
        match self {
            Self::None => vec![false; count],
            Self::All => vec![true; count],
            Self::First => {
                let kept = rng.random_range(0..=count);
                (0..count).map(|at| at < kept).collect()
            }
            Self::Any(share) => (0..count).map(|_| rng.random_bool(share)).collect(),
        }
    }
}

/// What a cut did.
#[derive(Debug, Clone, Default)]
pub struct CutReport {
    /// Pending changes of names, and how many of them are on disk now.
    pub names: (usize, usize),
    /// Files with bytes or a length pending, and how many of them are not as the process saw them.
    pub files: (usize, usize),
    /// One line per pending thing, for a failure message.
    pub lines: Vec<String>,
}

pub(super) fn cut(fs: &mut PendingFs, plan: &CutPlan, rng: &mut StdRng) -> CutReport {
    let mut report = CutReport::default();
    for (ino, ops) in std::mem::take(&mut fs.data) {
        let title = fs.title(ino);
        let seen = fs.now.file(ino).cloned().unwrap_or_default();
        let Some(content) = fs.disk.file_mut(ino) else {
            continue;
        };
        let before = content.len();
        *content = settle_data(content, &ops, plan, rng);
        let same = *content == seen;
        report.files.0 += 1;
        report.files.1 += usize::from(!same);
        report.lines.push(format!(
            "{title}: {} pending, synced length {before}, seen {}, now {}{}",
            ops.len(),
            seen.len(),
            content.len(),
            if same { ", all kept" } else { "" }
        ));
    }
    let chosen = if plan.journaled && plan.names != Survivors::None && plan.names != Survivors::All {
        Survivors::First.choose(fs.names.len(), rng)
    } else {
        plan.names.choose(fs.names.len(), rng)
    };
    let before = fs.names.len();
    let described: Vec<String> = fs.names.iter().map(|op| describe(fs, op)).collect();
    fs.settle_names(&chosen);
    report.names = (before, before - fs.names.len());
    for (line, chosen) in described.into_iter().zip(&chosen) {
        report
            .lines
            .push(format!("{line}: {}", if *chosen { "kept" } else { "dropped" }));
    }
    fs.names.clear();
    report
}

fn describe(fs: &PendingFs, op: &NameOp) -> String {
    match op {
        NameOp::Link { at, ino } => format!("name {} of {}", at.name, fs.title(*ino)),
        NameOp::Unlink { at } => format!("removal of {} in {}", at.name, fs.title(at.dir)),
        NameOp::Rename { from, to, ino } => format!("rename {} -> {} ({})", from.name, to.name, fs.title(*ino)),
    }
}

/// What is on disk of a file of which `ops` were pending over `base`.
pub(super) fn settle_data(base: &Content, ops: &[DataOp], plan: &CutPlan, rng: &mut StdRng) -> Content {
    match plan.data {
        Survivors::None => return base.clone(),
        Survivors::All => return replay(base, ops),
        Survivors::First | Survivors::Any(_) => {}
    }
    if plan.data == Survivors::First {
        // The last one that got through may be torn: it alone is then settled sector by sector.
        let kept = rng.random_range(0..=ops.len());
        let whole = kept.saturating_sub(1);
        let base = replay(base, &ops[..whole]);
        return by_sector(&base, &ops[whole..kept], plan, rng);
    }
    by_sector(base, ops, plan, rng)
}

fn replay(base: &Content, ops: &[DataOp]) -> Content {
    let mut content = base.clone();
    ops.iter().for_each(|op| op.apply(&mut content));
    content
}

/// Cuttings of the file are in the order of the operations: each survives or not, and splits the rest into times.
fn by_sector(base: &Content, ops: &[DataOp], plan: &CutPlan, rng: &mut StdRng) -> Content {
    let shrinks: Vec<usize> = (0..ops.len()).filter(|at| ops[*at].shrinks()).collect();
    let applied = rng.random_range(0..=shrinks.len());
    let first = if applied == 0 { 0 } else { shrinks[applied - 1] };
    let end = shrinks.get(applied).copied().unwrap_or(ops.len());
    let len = choose_len(base, &ops[..end], first, applied > 0, rng);

    let mut out = base.clone();
    if applied > 0 {
        for op in shrinks[..applied].iter().map(|at| &ops[*at]) {
            out.set_len(out.len().min(op.len_after));
        }
    }
    for sector in touched(&ops[..end], plan.sector, len) {
        let (at, until) = (sector * plan.sector, (sector + 1) * plan.sector);
        let touching: Vec<usize> = (0..end).filter(|op| ops[*op].touches(at, until)).collect();
        // What was cut away is not seen again.
        let lowest = touching
            .iter()
            .rposition(|op| ops[*op].shrinks())
            .map_or(0, |last| last + 1);
        let highest = touching.len();
        let must = plan.journaled && touching.iter().any(|op| ops[*op].extends());
        let state = if must {
            highest
        } else {
            choose_state(lowest, highest, plan.data, rng)
        };
        let mut content = window(base, at, plan.sector);
        for op in touching[..state].iter().map(|op| &ops[*op]) {
            op.apply_within(at, &mut content);
        }
        if state < highest && plan.torn != Torn::Never && rng.random_bool(0.5) {
            tear(&mut content, &ops[touching[state]], at, plan.torn, rng);
        }
        let shown = len.saturating_sub(at).min(plan.sector);
        out.write(at, &content[..to_usize(shown)]);
    }
    out.set_len(len);
    out
}

/// One of the lengths that the file had since the last cutting that survives.
fn choose_len(base: &Content, ops: &[DataOp], first: usize, cut: bool, rng: &mut StdRng) -> u64 {
    let start = if cut { ops[first].len_after } else { base.len() };
    let from = if cut { first + 1 } else { 0 };
    let mut lens = vec![start];
    lens.extend(ops[from..].iter().map(|op| op.len_after));
    lens.dedup();
    if rng.random_bool(0.5) {
        return lens[lens.len() - 1];
    }
    lens[rng.random_range(0..lens.len())]
}

fn touched(ops: &[DataOp], sector: u64, len: u64) -> Vec<u64> {
    let mut found = std::collections::BTreeSet::new();
    for op in ops {
        let range = match &op.what {
            Data::Write { at, bytes } => *at..at + bytes.len() as u64,
            // Beyond the first sector nothing is there to be zeroed that a write has not touched.
            Data::SetLen => op.len_after..op.len_after + 1,
        };
        if range.start < range.end {
            found.extend(range.start / sector..=(range.end - 1) / sector);
        }
    }
    found.retain(|at| at * sector < len);
    found.into_iter().collect()
}

fn choose_state(lowest: usize, highest: usize, survivors: Survivors, rng: &mut StdRng) -> usize {
    let share = if let Survivors::Any(share) = survivors {
        share
    } else {
        0.5
    };
    if rng.random_bool(share) {
        highest
    } else {
        rng.random_range(lowest..=highest.saturating_sub(1).max(lowest))
    }
}

/// The bytes of one sector, with zeros behind the end.
fn window(content: &Content, at: u64, sector: u64) -> Vec<u8> {
    let mut bytes = content.read(at, sector);
    bytes.resize(to_usize(sector), 0);
    bytes
}

fn tear(content: &mut [u8], op: &DataOp, at: u64, torn: Torn, rng: &mut StdRng) {
    let Data::Write { at: start, bytes } = &op.what else {
        return;
    };
    let until = at + content.len() as u64;
    let (from, to) = ((*start).max(at), (start + bytes.len() as u64).min(until));
    let range = to_usize(from - at)..to_usize(to - at);
    match torn {
        Torn::Never => {}
        Torn::Zeros => content[range].fill(0),
        Torn::Noise => rng.fill(&mut content[range]),
        Torn::Mixed => {
            let new = &bytes[to_usize(from - start)..to_usize(to - start)];
            let share = rng.random_range(0..=new.len());
            content[range][..share].copy_from_slice(&new[..share]);
        }
    }
}

impl DataOp {
    fn shrinks(&self) -> bool {
        matches!(self.what, Data::SetLen) && self.len_after < self.len_before
    }

    fn touches(&self, start: u64, until: u64) -> bool {
        match &self.what {
            Data::Write { at, bytes } => *at < until && at + bytes.len() as u64 > start,
            Data::SetLen => self.shrinks() && self.len_after < until,
        }
    }

    /// A write that made the file longer: its bytes go before the length.
    fn extends(&self) -> bool {
        matches!(self.what, Data::Write { .. }) && self.len_after > self.len_before
    }

    fn apply_within(&self, start: u64, content: &mut [u8]) {
        let until = start + content.len() as u64;
        match &self.what {
            Data::Write { at, bytes } => {
                let (from, to) = ((*at).max(start), (at + bytes.len() as u64).min(until));
                let source = &bytes[to_usize(from - at)..to_usize(to - at)];
                content[to_usize(from - start)..to_usize(to - start)].copy_from_slice(source);
            }
            Data::SetLen => content[to_usize(self.len_after.saturating_sub(start))..].fill(0),
        }
    }
}
