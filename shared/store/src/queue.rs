//! The way into the writer: submitters put change sets into one bounded queue, the writer takes them in groups.
//!
//! Each submission carries a permit for one slot of its submitter's answer channel, taken at submission: so the number
//! outstanding is bounded, and the writer can always answer without waiting. Bytes are bounded over all submitters; only a
//! submitter with nothing unanswered may go beyond, since nothing would wake it later. The writer sleeps on a condition variable,
//! with a deadline while only lazy or too few submissions wait; submitters wake it only when that changes anything.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use fellbeck_core::TrackId;
use tokio::sync::mpsc;

use crate::commit::{Commit, Committed, Ticket, Urgency};
use crate::config::StoreConfig;
use crate::error::SubmitError;

/// One submission on its way.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) commit: Commit,
    pub(crate) ticket: Ticket,
    pub(crate) permit: mpsc::OwnedPermit<Committed>,
    records: usize,
    bytes: usize,
    at: Instant,
}

/// How the writer paces its commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    bytes_target: usize,
    records_target: usize,
    bytes_max: usize,
    records_max: usize,
    linger: Duration,
    lazy_max: Duration,
    /// Bytes that may be unanswered.
    held_max: usize,
}

impl Pace {
    pub(crate) fn of(config: &StoreConfig) -> Self {
        Self {
            // What waits at the bound of bytes must not wait for more.
            bytes_target: config.batch_target.min(config.submit_bytes_max),
            records_target: config.commit_records_target,
            bytes_max: config.commit_bytes_max,
            records_max: config.commit_records_max,
            linger: config.linger,
            lazy_max: config.lazy_max,
            held_max: config.submit_bytes_max,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    pace: Pace,
    tracks: u32,
    /// All submitters, so that their answer channels can be closed. Those that are gone are swept when one is added.
    seats: Mutex<Vec<Weak<Mutex<Seat>>>>,
}

/// The part of a submitter that the queue can take away.
#[derive(Debug)]
struct Seat {
    /// `None` once nothing is answered any more.
    answers: Option<mpsc::Sender<Committed>>,
    /// Last ticket given. The lock around it also keeps the order of tickets and of the queue the same.
    last: Ticket,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Submission>,
    records: usize,
    bytes: usize,
    /// Bytes of the group that the writer took last.
    taken: usize,
    /// Waiting submissions that are not lazy.
    urgent: usize,
    sleep: Sleep,
    door: Door,
}

/// What the writer sleeps for, so that a submitter knows whether to wake it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    Empty,
    Lazy,
    Linger,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Door {
    #[default]
    Open,
    Closing,
    Shut,
}

/// What the writer got.
#[derive(Debug)]
pub(crate) enum Group {
    Work(Vec<Submission>),
    /// Nothing came before the deadline.
    Idle,
    /// The queue is empty and takes nothing any more.
    Closed,
}

impl Queue {
    pub(crate) fn new(pace: Pace, tracks: u32) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            pace,
            tracks,
            seats: Mutex::default(),
        }
    }

    /// Waits until a commit is due. `last_start` is when the one before it started.
    pub(crate) fn collect(&self, last_start: Option<Instant>, until: Option<Instant>) -> Group {
        let mut state = self.lock();
        state.taken = 0;
        loop {
            let now = Instant::now();
            let (due, sleep) = match self.due(&state, last_start) {
                Some((due, sleep)) if due > now => (Some(due), sleep),
                Some(_) => return Group::Work(self.take(&mut state)),
                None if state.door != Door::Open => return Group::Closed,
                None => (None, Sleep::Empty),
            };
            if until.is_some_and(|until| until <= now) {
                return Group::Idle;
            }
            state.sleep = sleep;
            let deadline = due.into_iter().chain(until).min();
            state = match deadline {
                Some(deadline) => {
                    let wait = deadline.saturating_duration_since(now);
                    self.wake.wait_timeout(state, wait).expect(LOCK).0
                }
                None => self.wake.wait(state).expect(LOCK),
            };
            state.sleep = Sleep::Awake;
        }
    }

    fn due(&self, state: &State, last_start: Option<Instant>) -> Option<(Instant, Sleep)> {
        let oldest = state.waiting.front()?.at;
        if state.door != Door::Open || self.full_commit(state) {
            return Some((oldest, Sleep::Awake));
        }
        if state.urgent == 0 {
            return Some((oldest + self.pace.lazy_max, Sleep::Lazy));
        }
        Some((last_start.map_or(oldest, |at| at + self.pace.linger), Sleep::Linger))
    }

    fn full_commit(&self, state: &State) -> bool {
        state.records >= self.pace.records_target || state.bytes >= self.pace.bytes_target
    }

    fn take(&self, state: &mut State) -> Vec<Submission> {
        let mut group = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        while let Some(next) = state.waiting.front() {
            let over = records + next.records > self.pace.records_max || bytes + next.bytes > self.pace.bytes_max;
            if over && !group.is_empty() {
                break;
            }
            records += next.records;
            bytes += next.bytes;
            state.urgent -= usize::from(next.commit.urgency == Urgency::Now);
            group.extend(state.waiting.pop_front());
        }
        state.records -= records;
        state.bytes -= bytes;
        state.taken = bytes;
        group
    }

    /// Takes no more submissions; what waits is still committed.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.door == Door::Open {
            state.door = Door::Closing;
        }
        self.wake.notify_one();
    }

    /// Takes no more submissions, forgets what waits and closes all answer channels: the writer has ended or failed.
    pub(crate) fn halt(&self) {
        let forgotten = {
            let mut state = self.lock();
            state.door = Door::Shut;
            (state.urgent, state.records, state.bytes) = (0, 0, 0);
            self.wake.notify_one();
            std::mem::take(&mut state.waiting)
        };
        drop(forgotten);
        for seat in self
            .seats
            .lock()
            .expect(LOCK)
            .drain(..)
            .filter_map(|seat| seat.upgrade())
        {
            seat.lock().expect(LOCK).answers = None;
        }
    }

    fn seat(&self, answers: mpsc::Sender<Committed>) -> Arc<Mutex<Seat>> {
        // Before the door is looked at: a halt shuts it first and then closes the seats that it finds, so it finds this one.
        let mut seats = self.seats.lock().expect(LOCK);
        let shut = self.lock().door == Door::Shut;
        let seat = Arc::new(Mutex::new(Seat {
            answers: (!shut).then_some(answers),
            last: Ticket::default(),
        }));
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&seat));
        seat
    }

    /// `alone`: nothing else of this submitter is unanswered, so no answer would wake it if it were sent away.
    fn put(&self, submission: Submission, alone: bool) -> Result<(), SubmitError> {
        let mut state = self.lock();
        if state.door != Door::Open {
            return Err(SubmitError::Halted);
        }
        let waits = submission.bytes > 0 && !alone;
        if waits && state.bytes + state.taken + submission.bytes > self.pace.held_max {
            metrics::counter!("fellbeck_store_submissions_refused_total", "bound" => "bytes").increment(1);
            return Err(SubmitError::Full(submission.commit));
        }
        let urgent = submission.commit.urgency == Urgency::Now;
        state.urgent += usize::from(urgent);
        state.records += submission.records;
        state.bytes += submission.bytes;
        state.waiting.push_back(submission);
        let wake = match state.sleep {
            Sleep::Awake => false,
            Sleep::Empty => true,
            Sleep::Lazy => urgent || self.full_commit(&state),
            Sleep::Linger => self.full_commit(&state),
        };
        if wake {
            state.sleep = Sleep::Awake;
            self.wake.notify_one();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(LOCK)
    }
}

fn bytes_of(commit: &Commit) -> usize {
    let records: usize = commit.appends.iter().map(|append| append.block.bytes().len()).sum();
    let puts: usize = commit.puts.iter().map(|put| put.key.len() + put.value.len()).sum();
    let deletes: usize = commit.deletes.iter().map(|delete| delete.key.len()).sum();
    records + puts + deletes
}

const LOCK: &str = "no code that holds this lock panics";

/// Hands change sets to the store. Submissions are answered in order on the channel that came with it.
#[derive(Debug)]
pub struct Submitter {
    queue: Arc<Queue>,
    seat: Arc<Mutex<Seat>>,
}

impl Submitter {
    pub(crate) fn new(queue: Arc<Queue>, answers: mpsc::Sender<Committed>) -> Self {
        let seat = queue.seat(answers);
        Self { queue, seat }
    }

    /// Queues one change set. An empty one is a barrier: its answer comes after all earlier submissions are durable.
    pub fn submit(&self, commit: Commit) -> Result<Ticket, SubmitError> {
        self.check(&commit)?;
        let mut seat = self.seat.lock().expect(LOCK);
        let answers = seat.answers.clone().ok_or(SubmitError::Halted)?;
        let alone = answers.capacity() == answers.max_capacity();
        let permit = match answers.try_reserve_owned() {
            Ok(permit) => permit,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!("fellbeck_store_submissions_refused_total", "bound" => "count").increment(1);
                return Err(SubmitError::Full(commit));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(SubmitError::Halted),
        };
        let ticket = Ticket(seat.last.0 + 1);
        let submission = Submission {
            records: commit.appends.iter().map(|append| append.block.len()).sum(),
            bytes: bytes_of(&commit),
            commit,
            ticket,
            permit,
            at: Instant::now(),
        };
        self.queue.put(submission, alone)?;
        seat.last = ticket;
        Ok(ticket)
    }

    /// Submissions whose answer was not yet received.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let seat = self.seat.lock().expect(LOCK);
        seat.answers
            .as_ref()
            .map_or(0, |answers| answers.max_capacity() - answers.capacity())
    }

    /// Whether there is room for a submission at this moment. Another submitter may be quicker.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let seat = self.seat.lock().expect(LOCK);
        let (free, most) = seat
            .answers
            .as_ref()
            .map_or((0, 0), |answers| (answers.capacity(), answers.max_capacity()));
        let state = self.queue.lock();
        free > 0 && (free == most || state.bytes + state.taken < self.queue.pace.held_max)
    }

    fn check(&self, commit: &Commit) -> Result<(), SubmitError> {
        let known = |track: TrackId| track.0 < self.queue.tracks;
        if !commit.appends.iter().all(|append| known(append.track)) || !commit.acked.iter().all(|acked| known(acked.0))
        {
            return Err(SubmitError::Invalid("unknown track"));
        }
        let keys = commit.puts.iter().map(|put| &put.key);
        let mut keys = keys.chain(commit.deletes.iter().map(|delete| &delete.key));
        if !keys.all(|key| !key.is_empty() && u16::try_from(key.len()).is_ok()) {
            return Err(SubmitError::Invalid("key is empty or longer than 65,535 bytes"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{Append, Put, Space};
    use crate::testing::block_of;

    fn queue(submit_bytes_max: usize) -> Arc<Queue> {
        let config = StoreConfig {
            submit_bytes_max,
            linger: Duration::ZERO,
            ..StoreConfig::edge(vec!["t".into()])
        };
        Arc::new(Queue::new(Pace::of(&config), 1))
    }

    fn put(len: usize) -> Commit {
        Commit {
            puts: vec![Put {
                space: Space::Node,
                key: "k".into(),
                value: vec![0; len].into(),
            }],
            ..Commit::default()
        }
    }

    #[test]
    fn unanswered_bytes_are_bounded_over_all_submitters_and_nobody_is_sent_away_without_an_answer_to_come() {
        let queue = queue(1000);
        let seats: Vec<_> = (0..3).map(|_| mpsc::channel(10)).collect();
        let submitters: Vec<_> = seats
            .iter()
            .map(|(answers, _)| Submitter::new(queue.clone(), answers.clone()))
            .collect();
        submitters[0].submit(put(500)).unwrap();
        submitters[0].submit(put(400)).unwrap();
        let refused = submitters[0].submit(put(100));
        assert!(matches!(&refused, Err(SubmitError::Full(commit)) if commit.puts[0].value.len() == 100));
        assert!(submitters[0].has_room() && submitters[1].has_room());
        submitters[1].submit(put(5000)).unwrap();
        assert!(!submitters[0].has_room() && !submitters[1].has_room() && submitters[2].has_room());
        assert!(matches!(submitters[1].submit(put(1)), Err(SubmitError::Full(_))));
        submitters[1]
            .submit(Commit::default())
            .expect("a barrier weighs nothing");
        assert_eq!((submitters[0].outstanding(), submitters[1].outstanding()), (2, 2));

        // What the writer has taken counts until it comes back for more.
        let Group::Work(group) = queue.collect(None, None) else {
            panic!("there is work")
        };
        assert_eq!(group.len(), 4);
        submitters[2].submit(put(10)).unwrap();
        assert!(matches!(submitters[2].submit(put(10)), Err(SubmitError::Full(_))));
        drop(group);
        assert!(matches!(queue.collect(None, None), Group::Work(group) if group.len() == 1));
        submitters[2].submit(put(900)).unwrap();
    }

    #[test]
    fn records_and_keys_weigh_too() {
        let queue = queue(1000);
        let (answers, _receiver) = mpsc::channel(10);
        let submitter = Submitter::new(queue, answers);
        let records = Append {
            track: TrackId(0),
            block: block_of(3, 400),
        };
        let commit = Commit {
            appends: vec![records],
            ..Commit::default()
        };
        submitter.submit(commit).unwrap();
        assert!(matches!(submitter.submit(put(0)), Err(SubmitError::Full(_))));
    }

    #[test]
    fn a_submitter_made_after_a_halt_finds_its_channel_closed() {
        let queue = queue(1000);
        queue.halt();
        let (answers, mut receiver) = mpsc::channel(1);
        let submitter = Submitter::new(queue, answers);
        assert!(matches!(submitter.submit(put(1)), Err(SubmitError::Halted)));
        assert!(matches!(
            receiver.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        ));
    }
}
