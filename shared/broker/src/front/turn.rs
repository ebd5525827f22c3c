//! The tasks of the broker thread beside the connections: the turn, the store's answers, the clock, reads.
//!
//! In: wakes, completed commits, committed blocks, seconds. Out: calls on the broker loop. A dull loop each: wait, call, again.
//! Work per wake is bounded, so that sockets are served in between: what is left over is taken after a yield.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use fellbeck_core::Tick;
use fellbeck_store::{Committed, Store, TailRead};
use ntex::rt::spawn;
use tokio::sync::{mpsc, watch};

use super::broker::{Broker, State};
use super::connection::{Connection, Phase};
use super::counters;
use super::frames::Fault;
use crate::session::{Now, ReadRequest, ScanRequest};

/// Bytes of committed blocks fanned out before sockets are served again.
const TAIL_BYTES_PER_WAKE: usize = 256 << 10;

/// Longest sleep of the clock task: keep-alive and stalled writers are looked at this often.
const TICK: Duration = Duration::from_secs(1);

/// Hands what one turn of the event loop gathered to the store, once per turn.
pub(super) async fn run_turns(broker: Rc<Broker>) {
    loop {
        std::future::poll_fn(|context| {
            broker.turn.register(context.waker());
            if broker.take_turn() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        let (reads, scans) = broker.run_turn();
        for read in reads {
            spawn(answer_read(broker.clone(), read));
        }
        for scan in scans {
            spawn(answer_scan(broker.clone(), scan));
        }
        // Without this, a turn that wakes itself would starve the sockets.
        tokio::task::yield_now().await;
    }
}

async fn answer_read(broker: Rc<Broker>, request: ReadRequest) {
    let answer = broker.store.read_log(request.from, request.bytes_max).await;
    let read = match answer {
        Ok(Ok(read)) => Some(read),
        Ok(Err(error)) => {
            tracing::warn!(%error, from = %request.from, "read of the log failed");
            None
        }
        Err(_) => None,
    };
    broker.with(|state, now| state.core.handle_read(request.reader, read, now, &mut state.wire));
}

async fn answer_scan(broker: Rc<Broker>, request: ScanRequest) {
    let ScanRequest {
        id,
        prefix,
        after,
        bytes_max,
    } = request;
    let answer = broker
        .store
        .scan(fellbeck_store::Space::Retained, prefix, after, bytes_max)
        .await;
    let page = match answer {
        Ok(Ok(page)) => Some(page),
        Ok(Err(error)) => {
            tracing::warn!(%error, "scan of retained messages failed");
            None
        }
        Err(_) => None,
    };
    broker.with(|state, now| state.core.handle_scan(id, page, now, &mut state.wire));
}

/// Brings the store's answers to the core: first what is committed (acks leave), then the committed records (fan-out).
pub(super) async fn follow_store(broker: Rc<Broker>, mut answers: mpsc::Receiver<Committed>) {
    let mut newest = broker.store.watch();
    loop {
        let mut first = tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) => Some(answer),
                None => return broker.failure.report("the store has halted"),
            },
            moved = newest.changed() => match moved {
                Ok(()) => None,
                Err(_) => return broker.failure.report("the store has halted"),
            },
        };
        while drain(&broker, first.take(), &mut answers, &mut newest) {
            tokio::task::yield_now().await;
        }
    }
}

/// Returns true when more is there already.
fn drain(
    broker: &Rc<Broker>,
    first: Option<Committed>,
    answers: &mut mpsc::Receiver<Committed>,
    newest: &mut watch::Receiver<fellbeck_core::CommitNumber>,
) -> bool {
    newest.mark_unchanged();
    let store = &broker.store;
    let more = broker.with(|state, now| {
        // The blocks are taken before the channel is drained: a block must not come before the answers of earlier commits.
        let blocks = store.tail().read(state.tail_next, TAIL_BYTES_PER_WAKE);
        if matches!(blocks, TailRead::Empty) {
            state.core.handle_tail_empty();
        }
        let mut next = first.or_else(|| answers.try_recv().ok());
        // Bounded by the capacity of the channel, since answers come only for what was submitted.
        while let Some(committed) = next {
            state.core.handle_committed(committed, now, &mut state.wire);
            next = answers.try_recv().ok();
        }
        give_blocks(store, state, blocks, now)
    });
    broker.retry_held(false);
    broker.update_pause();
    broker.retry_inflows();
    more
}

fn give_blocks(store: &Store, state: &mut State, blocks: TailRead, now: Now) -> bool {
    match blocks {
        TailRead::Empty => false,
        TailRead::Behind => {
            state.tail_next = store.newest_commit().next();
            state.core.handle_tail_behind(state.tail_next);
            true
        }
        TailRead::Blocks(blocks) => {
            for block in &blocks {
                state.core.handle_tail(block, now, &mut state.wire);
                state.tail_next = block.commit.next();
            }
            true
        }
    }
}

/// The clock: the core's deadlines, keep-alive, writers that stand still.
pub(super) async fn run_clock(broker: Rc<Broker>) {
    let mut books_at = Tick::default();
    let mut looked_at = broker.now().tick;
    loop {
        let sleep = broker.until_timeout().min(TICK).max(Duration::from_millis(1));
        tokio::time::sleep(sleep).await;
        broker.refresh_clock();
        broker.with(|state, now| state.core.handle_tick(now, &mut state.wire));
        broker.retry_held(true);
        broker.update_pause();
        broker.retry_inflows();
        metrics::gauge!("fellbeck_broker_partial_bytes").set(broker.assembly.used() as f64);
        let now = broker.now();
        if now.tick >= books_at {
            books_at = now.tick.after(TICK);
            broker.show_books();
            broker.tend_edges();
        }
        broker.tick_status();
        let elapsed = now.tick.since(looked_at);
        looked_at = now.tick;
        for connection in broker.connections() {
            watch_connection(&broker, &connection, now, elapsed);
        }
    }
}

/// `elapsed` is the time since the last look.
fn watch_connection(broker: &Broker, connection: &Connection, now: Now, elapsed: Duration) {
    if connection.phase.get() != Phase::Open {
        return;
    }
    // ntex-mqtt insists on a timer for MQTT 5, of 18 hours at most. It does not see what the intake takes, and a client without
    // keep-alive may be silent for longer.
    connection.io.stop_timer();
    let is_backlogged = connection.io.is_wr_backpressure();
    if is_backlogged || !broker.may_read(connection) {
        // What the client sends is not looked at. Only this time is excused: a node that pauses now and then must not keep dead
        // connections for ever.
        connection.excuse(elapsed, now.tick);
    }
    if is_backlogged {
        let since = connection.backlogged_since.get().unwrap_or(now.tick);
        connection.backlogged_since.set(Some(since));
        if now.tick.since(since) > broker.config.stalled_after {
            broker.fail(
                connection,
                Fault {
                    reason: 0x80,
                    text: "the client does not read",
                },
            );
        }
    } else if connection.backlogged_since.get().is_some() {
        // The dispatcher tells it too, but not while it may not read.
        broker.writable(connection);
    } else if connection.frames.borrow().is_partial()
        && now.tick.since(connection.packet_since.get()) > broker.config.partial_within
    {
        counters::packet_given_up("deadline");
        broker.fail(
            connection,
            Fault {
                reason: 0x80,
                text: "the packet was not whole in time",
            },
        );
    } else if let Some(since) = connection.authentication.since()
        && now.tick.since(since) > broker.config.first_packet_timeout
    {
        broker.fail(
            connection,
            Fault {
                reason: 0x87,
                text: "re-authentication was not done in time",
            },
        );
    } else if !connection.silence_max.is_zero() && now.tick.since(connection.last_packet.get()) > connection.silence_max
    {
        // [MQTT5-3.1.2-22]
        broker.fail(
            connection,
            Fault {
                reason: 0x8D,
                text: "keep alive timeout",
            },
        );
    }
}

#[cfg(test)]
mod tests;
