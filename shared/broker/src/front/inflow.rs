//! What the broker loop does for a link: takes messages from the cloud, tells what clients want, and looks after edges.
//!
//! An inflow waits here while the store is nearly full or has enough to do; those behind it wait too, so that their order is kept.
//! Whoever hands them over waits for each, so there are only a few.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fellbeck_core::{RecordBlock, Tick};
use tokio::sync::oneshot;

use super::broker::Broker;
use crate::session::{EdgeReader, Inflow, Outcome};

/// Filters that are told at most. What lies beyond is counted.
const INTEREST_MAX: usize = 16_384;
/// The filters are looked up again no sooner than after this many times what the last look took.
const INTEREST_SHARE: u32 = 20;
/// A look that took less is free.
const INTEREST_FREE: Duration = Duration::from_millis(1);

/// Inflows in order, and their numbers.
#[derive(Debug, Default)]
pub(super) struct Inflows {
    waiting: VecDeque<Inflow>,
    last: u64,
}

/// When the interest was told last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InterestTold {
    changes: Option<u64>,
    not_before: Tick,
}

impl Broker {
    /// Messages from the cloud. While the node drains none are taken: the cloud has them still.
    pub(super) fn take_inflow(&self, block: RecordBlock, mark: Option<(Bytes, Bytes)>, answer: oneshot::Sender<()>) {
        if self.takes_none.get() {
            return;
        }
        self.with(|state, _| {
            state.inflows.last += 1;
            let number = state.inflows.last;
            state.inflows.waiting.push_back(Inflow { number, block, mark });
            state.wire.inflows.push_back((number, answer));
        });
        self.retry_inflows();
    }

    /// Offers what waits to the core, while it takes it.
    pub(super) fn retry_inflows(&self) {
        if self.takes_none.get() || self.paused.get() {
            return;
        }
        let pressure = self.pressure();
        loop {
            let outcome = {
                let mut state = self.state_mut();
                let Some(inflow) = state.inflows.waiting.pop_front() else {
                    return;
                };
                drop(state);
                self.with(|state, now| {
                    let outcome = state.core.handle_inflow(&inflow, pressure, now, &mut state.wire);
                    if outcome == Outcome::Hold {
                        state.inflows.waiting.push_front(inflow);
                    }
                    outcome
                })
            };
            if outcome == Outcome::Hold {
                return;
            }
        }
    }

    /// Tells what clients are subscribed to, if somebody asked and it is something else than before.
    pub(super) fn tell_interest(&self) {
        if !self.notices.wants_interest.load(std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        let told = self.interest.get();
        let now = self.now().tick;
        let state = self.state_mut();
        let changes = state.core.interest_changes();
        if told.changes == Some(changes) || now < told.not_before {
            return;
        }
        let began = std::time::Instant::now();
        let filters: Vec<String> = state.core.interest().take(INTEREST_MAX + 1).collect();
        let beyond = filters.len() > INTEREST_MAX;
        metrics::gauge!("fellbeck_downlink_interest_cut").set(f64::from(u8::from(beyond)));
        let filters: Arc<[String]> = filters.into_iter().take(INTEREST_MAX).collect();
        drop(state);
        self.notices.interest.send_replace(Some(filters));
        let took = began.elapsed();
        let pause = if took < INTEREST_FREE {
            Duration::ZERO
        } else {
            took * INTEREST_SHARE
        };
        self.interest.set(InterestTold {
            changes: Some(changes),
            not_before: now.after(pause),
        });
    }

    /// Called once a second: forgets edges whose link is gone, and shows the others.
    pub(super) fn tend_edges(&self) {
        let (gone, edges) = {
            let state = self.state_mut();
            let outlets = state.wire.outlets.iter();
            let gone: Vec<_> = outlets
                .filter(|(_, outlet)| outlet.is_gone())
                .map(|(id, _)| *id)
                .collect();
            (gone, state.core.edges())
        };
        for id in gone {
            self.socket_gone(id);
        }
        let was_none = self.notices.edges.borrow().is_empty();
        if !edges.is_empty() || !was_none {
            for_metrics(&edges);
            self.notices.edges.send_replace(edges.into());
        }
    }
}

/// Sums over all edges; by edge they are on the status page.
fn for_metrics(edges: &[EdgeReader]) {
    let sum = |of: fn(&EdgeReader) -> usize| edges.iter().map(of).sum::<usize>() as f64;
    metrics::gauge!("fellbeck_downlink_edges").set(sum(|edge| usize::from(edge.status.connected)));
    metrics::gauge!("fellbeck_downlink_in_flight").set(sum(|edge| edge.status.in_flight));
    metrics::gauge!("fellbeck_downlink_waiting").set(sum(|edge| edge.status.queued + edge.status.unread as usize));
}
