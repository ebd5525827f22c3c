//! The file system with its power switch: what the FUSE thread works on and a test controls.
//!
//! In: operations from the FUSE thread; orders of a test. Out: results, until the power goes. From the moment of a cut no operation is
//! answered before the process is dead, so that it cannot act on what the disk will not hold.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::crash::CutPlan;
use super::faults::{Faults, OpKind};
use super::image::Ino;
use super::pending::{FsError, FsResult, PendingFs};

/// Operations that a failure message shows.
const TRACE: usize = 1000;
/// An operation that came after the cut waits so long for the switch; then it fails whatever the test does.
const PARK_MAX: Duration = Duration::from_secs(30);

/// When the power goes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// Operations of this kind are counted; `None` counts all that change something.
    pub kind: Option<OpKind>,
    /// How many of them still pass.
    pub after: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Gone; operations wait for the process to die.
    Failing,
    Off,
}

/// All of it, behind one lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) fs: PendingFs,
    pub(super) faults: Faults,
    trigger: Option<Trigger>,
    power: Power,
    /// Times that the power came back.
    starts: u64,
    trace: VecDeque<String>,
    counts: Counts,
    /// Decides what a sync that failed has written.
    rng: StdRng,
}

/// Operations seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations that change something or sync.
    pub changes: u64,
    /// Syncs of files.
    pub syncs: u64,
}

/// The switch.
#[derive(Debug)]
pub(super) struct Switch {
    state: Mutex<State>,
    moved: Condvar,
}

/// What an operation is, for faults, triggers and the trace.
pub(super) struct Op<'a> {
    pub(super) kind: OpKind,
    pub(super) ino: Ino,
    pub(super) what: &'a str,
    pub(super) detail: String,
}

impl Switch {
    pub(super) fn new(fs: PendingFs, seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                fs,
                faults: Faults::default(),
                trigger: None,
                power: Power::On,
                starts: 0,
                trace: VecDeque::new(),
                counts: Counts::default(),
                rng: StdRng::seed_from_u64(seed),
            }),
            moved: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one operation, unless the power is gone or goes with it.
    pub(super) fn run<T>(&self, op: &Op<'_>, act: impl FnOnce(&mut PendingFs) -> FsResult<T>) -> FsResult<T> {
        let mut state = self.lock();
        if state.power != Power::On {
            return Err(self.park(state));
        }
        let title = state.fs.title(op.ino);
        // A sync that the cut comes before has made nothing durable; any other change is pending when it comes.
        let syncs = matches!(op.kind, OpKind::Sync | OpKind::SyncDir);
        let last = state.is_last(op.kind);
        if last && syncs {
            state.note(op, &title, "cut before");
            state.power = Power::Failing;
            self.moved.notify_all();
            return Err(self.park(state));
        }
        let outcome = match state.faults.check(op.kind, &title) {
            Some(error) => {
                if op.kind == OpKind::Sync {
                    state.lose_dirty(op.ino);
                }
                Err(error)
            }
            None => {
                let outcome = act(&mut state.fs);
                if matches!(outcome, Err(FsError::NoSpace)) {
                    state.faults.hit();
                }
                outcome
            }
        };
        if op.kind.changes() {
            state.counts.changes += 1;
            state.counts.syncs += u64::from(op.kind == OpKind::Sync);
            match &outcome {
                Ok(_) if last => state.note(op, &title, "cut behind"),
                Ok(_) => state.note(op, &title, "ok"),
                Err(error) => state.note(op, &title, &format!("{error:?}")),
            }
        }
        if last {
            state.power = Power::Failing;
            self.moved.notify_all();
            return Err(self.park(state));
        }
        outcome
    }

    /// Waits until the process is dead, and gives the answer that nobody hears.
    fn park(&self, state: MutexGuard<'_, State>) -> FsError {
        let waited = self
            .moved
            .wait_timeout_while(state, PARK_MAX, |state| state.power == Power::Failing);
        drop(waited);
        FsError::Io
    }

    pub(super) fn arm(&self, trigger: Trigger) {
        self.lock().trigger = Some(trigger);
    }

    /// Waits until the trigger has cut the power; false when it has not within `within`.
    pub(super) fn await_cut(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let state = self.lock();
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .moved
            .wait_timeout_while(state, left, |state| state.power == Power::On);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.power != Power::On
    }

    /// The power goes now, if it has not gone.
    pub(super) fn fail(&self) {
        let mut state = self.lock();
        if state.power == Power::On {
            state.power = Power::Failing;
            self.moved.notify_all();
        }
    }

    /// The process has got its signal: what waits may be answered.
    pub(super) fn off(&self) {
        self.lock().power = Power::Off;
        self.moved.notify_all();
    }

    pub(super) fn on(&self) {
        let mut state = self.lock();
        state.power = Power::On;
        state.starts += 1;
        state.trigger = None;
        state.trace.clear();
    }

    /// Tells one time under power from the next.
    pub(super) fn starts(&self) -> u64 {
        self.lock().starts
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.lock().trace.iter().cloned().collect()
    }
}

impl State {
    /// Counts an operation down; true when the power goes with it.
    fn is_last(&mut self, kind: OpKind) -> bool {
        let Some(trigger) = &mut self.trigger else {
            return false;
        };
        if !kind.changes() || trigger.kind.is_some_and(|only| only != kind) {
            return false;
        }
        if trigger.after > 0 {
            trigger.after -= 1;
            return false;
        }
        self.trigger = None;
        true
    }

    fn lose_dirty(&mut self, ino: Ino) {
        let Self { fs, rng, .. } = self;
        let plan = CutPlan::random(false, rng);
        fs.fail_sync(ino, &plan, rng);
    }

    fn note(&mut self, op: &Op<'_>, title: &str, outcome: &str) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let Op { what, detail, .. } = op;
        self.trace.push_back(format!("{what} {title} {detail}: {outcome}"));
    }
}
