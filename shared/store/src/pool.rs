//! The reader threads: a bounded pool that does all reads of the database while the node runs.
//!
//! In: requests, each with a one-shot channel for its answer. At the bound of the queue a request is refused at once as busy.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;
use fellbeck_core::{LogPosition, Seq, TrackId};
use tokio::sync::oneshot;

use crate::commit::{Space, Stored};
use crate::committed::LogRead;
use crate::entry::TrackRead;
use crate::error::ReadError;
use crate::keyed;
use crate::read_log::{Places, read_log};
use crate::read_track::read_track;
use crate::shared::Shared;

type Answer<T> = oneshot::Sender<Result<T, ReadError>>;

/// One read.
pub(crate) enum Request {
    Log(LogPosition, usize, Answer<LogRead>),
    Track(TrackId, Seq, usize, Answer<TrackRead>),
    Scan(Scan, Answer<Vec<Stored>>),
}

/// A scan of a keyed store.
pub(crate) struct Scan {
    pub(crate) space: Space,
    pub(crate) prefix: Bytes,
    pub(crate) after: Option<Bytes>,
    pub(crate) bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
}

pub(crate) struct Pool {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    queue_max: usize,
}

impl Pool {
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let pool = Arc::new(Self {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            queue_max: shared.config.read_queue_max,
        });
        let places = Arc::new(Places::default());
        let threads = (0..shared.config.readers).map(|n| {
            let (pool, shared, places) = (pool.clone(), shared.clone(), places.clone());
            std::thread::Builder::new()
                .name(format!("store-reader-{n}"))
                .spawn(move || pool.serve(&shared, &places))
        });
        let threads = threads.collect::<std::io::Result<_>>()?;
        Ok((pool, threads))
    }

    /// Queues the request that `make` builds around the answer channel.
    pub(crate) fn ask<T>(&self, make: impl FnOnce(Answer<T>) -> Request) -> oneshot::Receiver<Result<T, ReadError>> {
        let (answer, receiver) = oneshot::channel();
        let refusal = {
            let mut waiting = self.lock();
            if waiting.closed {
                ReadError::Closed
            } else if waiting.requests.len() >= self.queue_max {
                ReadError::Busy
            } else {
                waiting.requests.push_back(make(answer));
                drop(waiting);
                self.wake.notify_one();
                return receiver;
            }
        };
        let (answer, receiver) = oneshot::channel();
        give(answer, Err(refusal));
        receiver
    }

    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        for request in waiting.requests.drain(..) {
            refuse(request);
        }
        self.wake.notify_all();
    }

    fn serve(&self, shared: &Shared, places: &Places) {
        while let Some(request) = self.next() {
            // The engine asserts on some kinds of damage. The asker then finds its channel closed; the thread goes on.
            if catch_unwind(AssertUnwindSafe(|| perform(request, shared, places))).is_err() {
                tracing::error!("a read has panicked");
                metrics::counter!("fellbeck_store_read_panics_total").increment(1);
            }
        }
    }

    fn next(&self) -> Option<Request> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(request) = waiting.requests.pop_front() {
                return Some(request);
            }
            waiting = self.wake.wait(waiting).expect("no code that holds this lock panics");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code that holds this lock panics")
    }
}

fn perform(request: Request, shared: &Shared, places: &Places) {
    match request {
        Request::Log(from, bytes_max, answer) => give(answer, read_log(shared, places, from, bytes_max)),
        Request::Track(track, from, bytes_max, answer) => give(answer, read_track(shared, track, from, bytes_max)),
        Request::Scan(scan, answer) => give(answer, shared.engine().and_then(|engine| keyed::scan(&engine, &scan))),
    }
}

fn refuse(request: Request) {
    match request {
        Request::Log(_, _, answer) => give(answer, Err(ReadError::Closed)),
        Request::Track(_, _, _, answer) => give(answer, Err(ReadError::Closed)),
        Request::Scan(_, answer) => give(answer, Err(ReadError::Closed)),
    }
}

/// Answers; a reader that has gone away in the meantime is not an error.
fn give<T>(answer: Answer<T>, result: Result<T, ReadError>) {
    drop(answer.send(result));
}
