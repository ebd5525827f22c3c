//! Who may speak: the cloud's decision at Hello.
//!
//! In: what the cloud knows of the edge, whether another connection of it is there, the Hello. Out: a [`Decision`].
//! Pure; the driver acts on it and, where it says so, asks again. While a Hello waits, a newer one of the same edge
//! replaces it: the older one's connection is closed without an answer, since the edge has left it.
//!
//! An edge is taken when its history continues the one that the cloud knows: the last known incarnation is in its
//! chain. A copy of its store that went on by itself is caught here when its chain lacks that incarnation, or by the
//! sender's comparison at W when not.
//!
//! More than 64 restarts offline push the last known incarnation out of the chain. Such an edge is taken when its
//! chain is full and begins above the known epoch, the log is the one it last spoke to, and it has minted beyond
//! every W: then either it is the original, or a copy that shares all records up to W with it (the sender proves that
//! at W before it sends), so that no record is lost or doubled; whichever of two such copies comes second is fenced,
//! as with any clone.

#[cfg(test)]
mod tests;

use fellbeck_core::incarnation::{Incarnation, IncarnationChain};
use fellbeck_core::limits::CHAIN_MAX;
use fellbeck_core::{Epoch, Position, Run, Seq};

use crate::limits::EPOCH_MAX;
use crate::{ByeReason, Hello, LaneHello, LaneIndex, RefuseCode};

/// Epoch of a W that was taken from the edge's own account when its store was adopted: no epoch has this number, so the
/// sender compares nothing at it.
pub const NO_EPOCH: Epoch = Epoch(0);

/// W of one lane and run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneMark {
    /// Name of the lane.
    pub lane: String,
    /// Run within it.
    pub run: Run,
    /// Durable W.
    pub w: Position,
}

/// What the cloud's store says of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEdge {
    /// Instance; from 1. Raised when the operator adopts another store under the name: then without incarnation,
    /// and with the marks that this store itself was told.
    pub instance: u32,
    /// The incarnation last admitted.
    pub incarnation: Option<Incarnation>,
    /// Durable W of its lanes, of this instance.
    pub lanes: Vec<LaneMark>,
}

/// The other connection of the same edge, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveConnection {
    /// None, and the last one's receiver is drained.
    None,
    /// Gone, but its receiver has ingests under way.
    Draining,
    /// Seems to live; nobody has asked it yet.
    Unprobed(Incarnation),
    /// Answered a probe that this Hello caused.
    Answered(Incarnation),
    /// Did not answer it.
    Silent(Incarnation),
}

/// All that the decision rests on beside the Hello.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Identity of this cloud's log.
    pub log_id: [u8; 16],
    /// The edge's name by its certificate.
    pub certificate_name: &'a str,
    /// What the store knows; read after the last receiver was drained, or to be read again then.
    pub known: Option<&'a KnownEdge>,
    /// Another connection of this edge.
    pub live: LiveConnection,
}

/// How the edge's history relates to what the cloud knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Nothing was ever taken under this name and instance.
    First,
    /// The incarnation that was here last.
    Reconnect,
    /// A later incarnation of the same store.
    Restart,
    /// As `Restart`, after so many restarts that the chain does not reach back. Worth a warning in the log.
    RestartBeyondChain,
    /// The cloud knows less than it has acknowledged: it was restored. An alarm.
    CloudRestored,
    /// An empty store under a known name.
    EmptyStore,
}

/// An edge that is taken, and from where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// How it relates to what was known.
    pub relation: Relation,
    /// Instance under which its records are stored.
    pub instance: u32,
    /// To be durable as the known incarnation *before* the Welcome leaves, so that no later crash of the cloud lifts
    /// the fence.
    pub incarnation: Incarnation,
    /// W for each lane of the Hello.
    pub lanes: Vec<Option<Position>>,
    /// Lanes where the edge knows a higher W than the cloud: an alarm.
    pub went_back: Vec<LaneIndex>,
    /// Epoch that an empty store has to continue in.
    pub adopt: Option<Epoch>,
}

/// What to do with the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Store the incarnation, make a [`Receiver`](crate::Receiver).
    Accept(Admission),
    /// Close the other connection with this reason, wait until its receiver is drained, read W anew and ask again.
    TakeOver(ByeReason),
    /// Wait until the receiver of the last connection is drained, read W anew and ask again.
    AwaitDrained,
    /// Probe the other connection and ask again with the outcome.
    Probe,
    /// Answer with a Refused frame and close.
    Refuse {
        /// For the edge's program.
        code: RefuseCode,
        /// For both operators.
        text: String,
    },
}

/// Decides what becomes of a connection that began with `hello`.
#[must_use]
pub fn admit(circumstances: &Circumstances<'_>, hello: &Hello) -> Decision {
    let judged = check_shape(circumstances, hello).and_then(|newest| judge(circumstances, hello, newest));
    let admission = match judged {
        Ok(admission) => admission,
        Err((code, text)) => return Decision::Refuse { code, text },
    };
    match circumstances.live {
        LiveConnection::None => Decision::Accept(admission),
        LiveConnection::Draining => Decision::AwaitDrained,
        LiveConnection::Unprobed(live) | LiveConnection::Answered(live) | LiveConnection::Silent(live)
            if live.id == admission.incarnation.id =>
        {
            Decision::TakeOver(ByeReason::TakenOver)
        }
        LiveConnection::Unprobed(_) => Decision::Probe,
        LiveConnection::Silent(_) => Decision::TakeOver(ByeReason::Replaced),
        LiveConnection::Answered(live) => Decision::Refuse {
            code: RefuseCode::SecondIdentity,
            text: format!(
                "another node with the identity of edge {:?} is connected and answers (its epoch is {}, yours {}); \
                 stop one of the two, and join the one that stays under a name of its own if both are needed",
                hello.edge, live.epoch, admission.incarnation.epoch
            ),
        },
    }
}

type Refusal = (RefuseCode, String);

/// The Hello in itself. Returns the running incarnation.
fn check_shape(circumstances: &Circumstances<'_>, hello: &Hello) -> Result<Incarnation, Refusal> {
    if hello.edge != circumstances.certificate_name {
        let text = format!(
            "the certificate is for edge {:?}, but the node calls itself {:?}; join it again",
            circumstances.certificate_name, hello.edge
        );
        return Err((RefuseCode::Name, text));
    }
    let malformed = |what: &str| (RefuseCode::Malformed, format!("hello of edge {:?}: {what}", hello.edge));
    let mut chain = IncarnationChain::default();
    for incarnation in &hello.chain {
        chain
            .push(*incarnation)
            .map_err(|_| malformed("its chain of incarnations is not linked"))?;
    }
    let newest = *chain.newest().ok_or_else(|| malformed("it names no incarnation"))?;
    if newest.epoch.0 > EPOCH_MAX {
        return Err(malformed("its epoch is out of range"));
    }
    for (index, lane) in hello.lanes.iter().enumerate() {
        let is_sound =
            Seq(1) <= lane.first && lane.first <= lane.end && lane.acked.is_none_or(|acked| acked < lane.end);
        if !is_sound || lane.lane.is_empty() {
            return Err(malformed("the bounds of a lane contradict each other"));
        }
        let is_double = |other: &LaneHello| other.lane == lane.lane && other.run == lane.run;
        if hello.lanes[..index].iter().any(is_double) {
            return Err(malformed("a lane is named twice"));
        }
    }
    Ok(newest)
}

/// The Hello against what is known.
fn judge(circumstances: &Circumstances<'_>, hello: &Hello, newest: Incarnation) -> Result<Admission, Refusal> {
    let same_log = hello.log_id == Some(circumstances.log_id);
    // Instances are counted by each cloud for itself.
    let shown_instance = if same_log { hello.instance } else { 0 };
    let known_instance = circumstances.known.map_or(1, |known| known.instance);
    let instance_is_news = shown_instance > known_instance;
    let known = circumstances.known.filter(|_| !instance_is_news);
    let lanes: Vec<_> = hello.lanes.iter().map(|lane| known_w(known, lane)).collect();
    let went_back: Vec<_> = hello
        .lanes
        .iter()
        .zip(&lanes)
        .enumerate()
        .filter(|(_, (lane, w))| lane.acked > w.map(|w| w.seq))
        .map(|(index, _)| LaneIndex(index as u16))
        .collect();
    let relation = relate(known, hello, newest, same_log && !went_back.is_empty(), same_log)?;
    if relation != Relation::EmptyStore {
        check_minted(hello, &lanes)?;
    }
    let adopt = (relation == Relation::EmptyStore).then(|| next_epoch(known, newest));
    let relation = if instance_is_news || (same_log && !went_back.is_empty()) {
        Relation::CloudRestored
    } else {
        relation
    };
    Ok(Admission {
        relation,
        instance: shown_instance.max(known_instance),
        incarnation: newest,
        lanes,
        went_back,
        adopt,
    })
}

fn known_w(known: Option<&KnownEdge>, lane: &LaneHello) -> Option<Position> {
    known?
        .lanes
        .iter()
        .find(|mark| mark.lane == lane.lane && mark.run == lane.run)
        .map(|mark| mark.w)
}

fn relate(
    known: Option<&KnownEdge>,
    hello: &Hello,
    newest: Incarnation,
    cloud_went_back: bool,
    same_log: bool,
) -> Result<Relation, Refusal> {
    // Where nothing was ever stored under the name, no history can contradict another.
    let Some((known, last)) = known
        .filter(|known| !known.lanes.is_empty())
        .and_then(|known| Some((known, known.incarnation?)))
    else {
        return Ok(Relation::First);
    };
    if newest.id == last.id {
        return Ok(Relation::Reconnect);
    }
    if hello.chain.iter().any(|incarnation| incarnation.id == last.id) {
        return Ok(Relation::Restart);
    }
    if hello.lanes.iter().all(|lane| lane.end == Seq(1)) {
        return Ok(Relation::EmptyStore);
    }
    // Only this cloud can have given the edge a W above its own: it has forgotten it, and the newer incarnations with
    // it.
    if cloud_went_back {
        return Ok(Relation::CloudRestored);
    }
    if same_log && reaches_beyond_chain(known, last, hello) {
        return Ok(Relation::RestartBeyondChain);
    }
    let oldest = hello.chain.first().map_or(newest.epoch, |oldest| oldest.epoch);
    Err((
        RefuseCode::Fenced,
        format!(
            "the store of edge {:?} does not continue the one that this cloud knows (last seen in epoch {}, shown are \
             epochs {} to {}): it is a clone or a restored backup, and nothing of it was taken; run the original \
             instead, or join this node under a new name, or have the operator of the cloud adopt it as a new instance",
            hello.edge, last.epoch, oldest, newest.epoch
        ),
    ))
}

/// The rule for more restarts than the chain has room for; see the module.
fn reaches_beyond_chain(known: &KnownEdge, last: Incarnation, hello: &Hello) -> bool {
    let begins_above = hello.chain.first().is_some_and(|oldest| oldest.epoch > last.epoch);
    let shows = |mark: &LaneMark| {
        hello
            .lanes
            .iter()
            .any(|lane| lane.lane == mark.lane && lane.run == mark.run && lane.end > mark.w.seq)
    };
    hello.chain.len() == CHAIN_MAX && begins_above && known.lanes.iter().all(shows)
}

fn check_minted(hello: &Hello, lanes: &[Option<Position>]) -> Result<(), Refusal> {
    let behind = hello
        .lanes
        .iter()
        .zip(lanes)
        .find_map(|(lane, w)| w.filter(|w| w.seq >= lane.end).map(|w| (lane, w)));
    let Some((lane, w)) = behind else {
        return Ok(());
    };
    Err((
        RefuseCode::EdgeBehind,
        format!(
            "edge {:?} would mint record {} of lane {}/{} next, but this cloud has that lane up to {w} already: the \
             store of the edge has lost records that it had forwarded, or is a restored backup, and nothing of it was \
             taken; run the original instead, or have the operator of the cloud adopt it as a new instance",
            hello.edge, lane.end, lane.lane, lane.run
        ),
    ))
}

/// Above everything that was minted under the name; the bound of the wire holds since a Hello above it is malformed.
fn next_epoch(known: Option<&KnownEdge>, newest: Incarnation) -> Epoch {
    let known = known.and_then(|known| known.incarnation).map_or(0, |last| last.epoch.0);
    Epoch(known.max(newest.epoch.0).saturating_add(1).min(EPOCH_MAX))
}
