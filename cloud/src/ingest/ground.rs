//! On which marks an edge stands: those of its name, carried over, or its own from here on; and what the operator ordered.
//!
//! In: certificate, Hello, book, orders. Out: the instance under which its records are stored, and where its lanes begin. An edge whose
//! store was adopted keeps its certificate: the instance is the higher one of certificate and book.

use std::collections::HashMap;
use std::sync::Arc;

use fellbeck_core::{Run, Seq};
use fellbeck_link::{ByeReason, Hello, KnownEdge, LaneHello, RefuseCode};
use fellbeck_ops::identity::EdgeIdentity;
use fellbeck_store::{Put, Space, Store};

use super::accept::LinkParts;
use super::admit::Fault;
use super::edges::Slot;
use crate::dedup::book::Footing;
use crate::dedup::mark::{self, Mark};
use crate::dedup::start::{LanePast, LaneStart, parting, starts};
use crate::fencing::{Fenced, IncarnationId, Orders, Reason};

/// Key, in the space of the node, of the chain that was admitted last.
const CHAIN_PREFIX: &[u8] = b"chain/";

/// How an edge is judged.
pub(super) struct Ground {
    /// The certificate's, but for the instance, which may be higher.
    pub(super) identity: EdgeIdentity,
    /// The operator ordered to adopt this store.
    pub(super) is_ordered: bool,
    orders: Orders,
}

/// The marks of one moment.
pub(super) struct Stand {
    pub(super) footing: Footing,
    pub(super) known: KnownEdge,
    starts: Vec<LaneStart>,
}

impl Ground {
    /// Reads the orders, and acts on the one to adopt.
    pub(super) async fn of(
        parts: &Arc<LinkParts>,
        slot: &Slot,
        identity: &EdgeIdentity,
        hello: &Hello,
    ) -> Result<Self, Fault> {
        let instance = slot.book().instance().max(identity.instance);
        let (reading, name, chain) = (parts.clone(), identity.name.clone(), hello.chain.clone());
        // Orders that cannot be read may be readable soon; until then nobody is judged without them.
        let busy = |error: &dyn std::fmt::Display| Fault::Refuse(RefuseCode::Busy, error.to_string());
        let read = tokio::task::spawn_blocking(move || {
            let orders = reading.fences.orders(name.as_str()).map_err(|error| busy(&error))?;
            let adopts = !orders.discards(&chain) && orders.adopts(&chain, instance);
            // The registry first: whatever happens next, no join gives this instance away.
            let raised = adopts.then(|| reading.identity.edges().reserve(&name, instance));
            let raised = raised.transpose().map_err(|error| busy(&error))?;
            Ok((orders, raised))
        });
        let (orders, raised) = read.await.map_err(|error| Fault::Broken(error.to_string()))??;
        if orders.discards(&hello.chain) {
            return Err(Fault::Discarded);
        }
        let identity = EdgeIdentity {
            instance: raised.unwrap_or(instance),
            ..identity.clone()
        };
        Ok(Self {
            identity,
            is_ordered: raised.is_some(),
            orders,
        })
    }

    /// What the book says now. To be asked again whenever another link of the edge has drained.
    pub(super) async fn stand(&self, parts: &LinkParts, slot: &Slot, hello: &Hello) -> Result<Stand, Fault> {
        let instance = self.identity.instance;
        let footing = slot.book().footing(instance, hello);
        let is_first = slot.book().instance() == 0;
        if footing == Footing::Anew || self.is_ordered {
            let starts = if is_first {
                Vec::new()
            } else {
                self.begin(parts, slot, hello).await?
            };
            let known = KnownEdge {
                instance,
                incarnation: None,
                lanes: starts.iter().filter_map(LaneStart::mark).collect(),
            };
            return Ok(Stand {
                footing: Footing::Anew,
                known,
                starts,
            });
        }
        let mut known = slot.book().known(instance);
        let is_discarded = |id| self.orders.is_discarded(IncarnationId(id));
        if known.incarnation.is_some_and(|known| is_discarded(known.id)) {
            // It was welcomed before it was found out, and nothing of it was taken: it fences nobody. W still does.
            known.incarnation = hello.chain.last().copied();
        }
        Ok(Stand {
            footing,
            known,
            starts: Vec::new(),
        })
    }

    /// Where the lanes of a store begin that does not go on behind the marks.
    async fn begin(&self, parts: &LinkParts, slot: &Slot, hello: &Hello) -> Result<Vec<LaneStart>, Fault> {
        let (store, name) = (parts.store.clone(), self.identity.name.to_string());
        let highest = tokio::task::spawn_blocking(move || highest(&store, &name)).await;
        let highest = highest.map_err(|error| Fault::Broken(error.to_string()))?;
        let highest = highest.map_err(|error| Fault::Refuse(RefuseCode::Busy, error))?;
        let book = slot.book();
        let past = |lane: &LaneHello| {
            let above = lane.acked.unwrap_or_default();
            let loss = parts.gaps.reaches_above(&hello.edge, (&lane.lane, lane.run), above);
            LanePast {
                highest: highest.get(&(lane.lane.clone(), lane.run)).copied(),
                last: book.watermark(&lane.lane, lane.run),
                lossy: loss,
            }
        };
        let parting = parting(&book.chain(), &hello.chain);
        let same_log = hello.log_id == Some(parts.store.log_id());
        Ok(starts(hello, same_log, past, parting))
    }
}

impl Stand {
    /// Entries for the commit that admits the edge.
    pub(super) fn puts(&self, parts: &LinkParts, slot: &Slot, identity: &EdgeIdentity, hello: &Hello) -> Vec<Put> {
        let (edge, instance) = (identity.name.as_str(), identity.instance);
        let tracks = &parts.places.track_names;
        let mut puts = match self.footing {
            Footing::Same => Vec::new(),
            Footing::Carried => slot.book().carried(edge, instance, tracks),
            Footing::Anew => self
                .starts
                .iter()
                .flat_map(|start| start.puts(edge, instance, tracks))
                .collect(),
        };
        puts.push(chain::put(edge, instance, &hello.chain));
        puts
    }

    /// The commit is durable.
    pub(super) fn settle(&self, parts: &LinkParts, slot: &Slot, instance: u32, hello: &Hello) {
        let mut book = slot.book();
        if self.footing == Footing::Anew {
            book.begin(&self.starts, &parts.places.track_names);
        }
        book.admitted(instance, &hello.chain);
    }
}

/// The highest W of each lane of a name under any instance. Blocks.
fn highest(store: &Store, edge: &str) -> Result<HashMap<(String, Run), Seq>, String> {
    let mut highest = HashMap::new();
    for stored in store.load(Space::Mark).map_err(|error| error.to_string())? {
        let mark = mark::decode(&stored.key, &stored.value).map_err(|error| error.to_string())?;
        if let Mark::Watermark { lane, position } = mark
            && lane.edge == edge
        {
            let known = highest.entry((lane.lane, lane.run)).or_insert(position.seq);
            *known = position.seq.max(*known);
        }
    }
    Ok(highest)
}

/// Notes a store that was refused, for the operator, and tells both sides what can be done about it.
pub(super) async fn fence(parts: &Arc<LinkParts>, instance: u32, hello: &Hello, reason: Reason) {
    let Some(newest) = hello.chain.last() else { return };
    let now = parts.clock.wall().0;
    let fenced = Fenced {
        incarnation: IncarnationId(newest.id),
        epoch: newest.epoch.0,
        instance,
        reason,
        first_ms: now,
        last_ms: now,
    };
    let (noting, hello) = (parts.clone(), hello.clone());
    let noted = tokio::task::spawn_blocking(move || noting.fences.note(&hello.edge, &hello.chain, fenced));
    // A note that panicked is in the log, and the refusal stands without it.
    noted.await.ok();
}

/// The same for an edge that was welcomed and left since its store contradicts the marks.
pub(super) async fn left(parts: &Arc<LinkParts>, instance: u32, hello: &Hello, said: Option<ByeReason>) {
    let Some(reason) = said.and_then(Reason::of_bye) else {
        return;
    };
    fence(parts, instance, hello, reason).await;
    tracing::warn!(
        edge = hello.edge,
        reason = reason.as_str(),
        "the store of this edge contradicts what the log has: {}",
        advice(&hello.edge)
    );
}

/// What an operator can do about a refused store.
pub(super) fn advice(edge: &str) -> String {
    format!(
        "on the cloud, `fellbeck-cloud edges adopt {edge}` takes this store on, `fellbeck-cloud edges discard {edge}` refuses it for good"
    )
}

pub(super) mod chain {
    //! The chain of the edge that was admitted last, among the entries of the node. One that does not decode is forgotten: it only
    //! tells what need not be stored twice.

    use fellbeck_core::Incarnation;
    use fellbeck_core::incarnation::INCARNATION_BYTES;
    use fellbeck_core::limits::CHAIN_MAX;
    use fellbeck_core::varint::{put_u64, take_u32};
    use fellbeck_store::{Put, Space};

    const VERSION: u8 = 1;

    pub(in crate::ingest) fn put(edge: &str, instance: u32, chain: &[Incarnation]) -> Put {
        let mut value = vec![VERSION];
        put_u64(&mut value, u64::from(instance));
        value.extend(chain.iter().flat_map(Incarnation::encode));
        Put {
            space: Space::Node,
            key: [super::CHAIN_PREFIX, edge.as_bytes()].concat().into(),
            value: value.into(),
        }
    }

    /// Edge, instance, chain.
    pub(in crate::ingest) fn decode(key: &[u8], value: &[u8]) -> Option<(String, u32, Vec<Incarnation>)> {
        let edge = std::str::from_utf8(key.strip_prefix(super::CHAIN_PREFIX)?).ok()?;
        let (&version, mut value) = value.split_first()?;
        let instance = take_u32(&mut value)?;
        let (links, rest) = value.as_chunks::<INCARNATION_BYTES>();
        let is_whole = version == VERSION && rest.is_empty() && links.len() <= CHAIN_MAX;
        is_whole.then(|| {
            (
                edge.to_owned(),
                instance,
                links.iter().map(Incarnation::decode).collect(),
            )
        })
    }

    #[cfg(test)]
    mod tests {
        use fellbeck_core::Epoch;

        use super::*;

        /// Frozen as version 1: `docs/format/marks.md`.
        #[test]
        fn a_chain_has_the_bytes_of_the_documented_format() {
            let link = Incarnation {
                epoch: Epoch(7),
                id: [9; 16],
                parent: [8; 16],
            };
            let put = put("barn", 300, &[link]);
            assert_eq!(&put.key[..], b"chain/barn");
            let bytes = [&[1, 0xAC, 2, 0, 0, 0, 7][..], &[9; 16], &[8; 16]].concat();
            assert_eq!(&put.value[..], bytes);
            assert_eq!(decode(&put.key, &put.value), Some(("barn".into(), 300, vec![link])));
            for cut in (0..bytes.len()).filter(|cut| *cut != 3) {
                assert_eq!(decode(&put.key, &put.value[..cut]), None, "{cut}");
            }
        }
    }
}
