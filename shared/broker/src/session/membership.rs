//! Membership of shared groups: joining, leaving for now or for good, and what goes from member to member then.
//!
//! A group exists from the commit of the first SUBSCRIBE to it until its last member leaves.

use fellbeck_core::{CommitNumber, DropReason, Filter, LogPosition, QoS, ShareName};
use fellbeck_store::commit::Space;

use super::Core;
use super::fanout::Subscriber;
use super::in_flight::Entry;
use super::persist;
use super::reader::{Reader, Reading};
use super::shared::{Desk, GroupKey, Member};
use super::state::{Session, SessionKey};
use super::turn::Turn;
use super::versions::SubscriptionVersion;
use super::work::ReaderKey;
use crate::wire::Wire;

impl Core {
    /// A SUBSCRIBE to a group is on its way: the group must exist in the same commit.
    pub(super) fn expect_member(&mut self, session: SessionKey, share: &ShareName, filter: &Filter) {
        let key = self.groups.find(share, filter).unwrap_or_else(|| {
            let reader = Reader::live(self.fanned);
            self.groups.add(share.clone(), filter.clone(), reader)
        });
        let is_durable = self.sessions.get(session).is_some_and(Session::is_durable);
        let fanned = self.fanned;
        if let Some(group) = self.groups.get_mut(key) {
            group.expected += 1;
            if is_durable && !group.is_durable() {
                let (key, value) = persist::group(group, fanned);
                self.work.put(Space::Session, key, value);
            }
        }
    }

    /// A subscription to a group takes effect after `commit`.
    pub(super) fn join<W: Wire>(
        &mut self,
        session: SessionKey,
        slot: u32,
        (share, filter): (ShareName, Filter),
        commit: CommitNumber,
        turn: &mut Turn<'_, W>,
    ) {
        let Some(key) = self.groups.find(&share, &filter) else {
            return;
        };
        let (Some(group), Some(member)) = (self.groups.get_mut(key), self.sessions.get_mut(session)) else {
            return;
        };
        let Some(version) = member.subscriptions.get(slot) else {
            return;
        };
        group.expected = group.expected.saturating_sub(1);
        group.members.push(Member {
            session,
            slot,
            options: version.options,
            is_durable: member.is_durable(),
        });
        member.groups.push((slot, key));
        if group.since.is_none() {
            group.since = Some(commit);
            group
                .reader
                .advance(LogPosition::after(commit.max(self.fanned)), self.fanned.max(commit));
            self.committed.insert(&filter, Subscriber::of_group(key, commit));
        }
        let group = self.groups.get_mut(key);
        if let Some(group) = group.filter(|group| group.is_durable()) {
            group.moved(&mut self.work);
        }
        self.pump_group(key, turn);
    }

    /// Takes a stored subscription to a group. A group whose own value was lost goes on at the end of the log.
    pub(super) fn restore_member(
        &mut self,
        session: SessionKey,
        (share, filter): (ShareName, Filter),
        version: &SubscriptionVersion,
    ) {
        let fanned = self.fanned;
        let key = self.groups.find(&share, &filter).unwrap_or_else(|| {
            let key = self.groups.add(share, filter.clone(), Reader::live(fanned));
            self.committed.insert(&filter, Subscriber::of_group(key, fanned));
            key
        });
        if let (Some(group), Some(member)) = (self.groups.get_mut(key), self.sessions.get_mut(session)) {
            group.since.get_or_insert(fanned);
            group.members.push(Member {
                session,
                slot: version.slot,
                options: version.options,
                is_durable: true,
            });
            member.groups.push((version.slot, key));
        }
    }

    /// All sessions are restored: groups without a member go, the others look for what is unread.
    pub(super) fn finish_groups(&mut self) {
        for key in self.groups.keys() {
            if self.groups.get(key).is_some_and(|group| group.members.is_empty()) {
                self.end_group(key, true);
                continue;
            }
            if let Some(group) = self.groups.get_mut(key) {
                let returned = group.returned.len() as u64;
                group.reader.ledger.matched = group.reader.ledger.matched.saturating_sub(returned);
                group.moved(&mut self.work);
            }
            self.enlist_group(key);
        }
    }

    /// A session's subscription to a group has ended.
    pub(super) fn leave_group<W: Wire>(&mut self, session: SessionKey, slot: u32, turn: &mut Turn<'_, W>) {
        let Some(member) = self.sessions.get_mut(session) else {
            return;
        };
        let is_connected = member.attached.is_some();
        let Some(index) = member.groups.iter().position(|(of, _)| *of == slot) else {
            return;
        };
        let (_, key) = member.groups.remove(index);
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let was_durable = group.is_durable();
        group
            .members
            .retain(|member| !(member.session == session && member.slot == slot));
        let is_member_still = group.members.iter().any(|member| member.session == session);
        if group.members.is_empty() && group.expected == 0 {
            return self.end_group(key, was_durable);
        }
        if was_durable && !group.is_durable() {
            self.work
                .delete(Space::Session, persist::group_key(&group.share, &group.filter));
        }
        // What a connected client was sent before UNSUBSCRIBE it may still acknowledge. [MQTT5-3.10.4-3]
        if !is_member_still && !is_connected {
            self.hand_back(session, key);
        }
        self.pump_group(key, turn);
    }

    /// Groups that the session has left while messages of theirs were unacknowledged.
    fn former_groups(&self, session: SessionKey) -> Vec<GroupKey> {
        let Some(session) = self.sessions.get(session) else {
            return Vec::new();
        };
        let mut former: Vec<GroupKey> = Vec::new();
        for group in session.in_flight.iter().filter_map(|entry| entry.source.group()) {
            let is_member = session.groups.iter().any(|(_, of)| *of == group);
            if !is_member && former.last() != Some(&group) && !former.contains(&group) {
                former.push(group);
            }
        }
        former
    }

    fn end_group(&mut self, key: GroupKey, was_durable: bool) {
        let Some(group) = self.groups.remove(key) else {
            return;
        };
        let since = group.since.unwrap_or_default();
        self.committed.remove(&group.filter, &Subscriber::of_group(key, since));
        self.work.counters.dropped(
            DropReason::SessionEnded,
            group.reader.unread + group.reader.queue.len() as u64,
        );
        if was_durable {
            self.work
                .delete(Space::Session, persist::group_key(&group.share, &group.filter));
        }
    }

    /// QoS 1 messages of `group` that `session` has not acknowledged go back to the group.
    fn hand_back(&mut self, session: SessionKey, group: GroupKey) {
        let (Some(holder), Some(group)) = (self.sessions.get_mut(session), self.groups.get_mut(group)) else {
            return;
        };
        // A QoS 2 message stays, also one whose packet ID only waits to be durable: it may be stored as his already.
        let is_his = |entry: &&Entry| entry.source.group() == Some(group.key) && entry.qos == QoS::AtLeastOnce;
        let ids: Vec<u16> = holder
            .in_flight
            .iter()
            .filter(is_his)
            .map(|entry| entry.packet_id)
            .collect();
        // Newest first, so that those that no log holds stand at the front of the queue in their order.
        for packet_id in ids.into_iter().rev() {
            if let Some(entry) = holder.in_flight.remove(packet_id) {
                if entry.counted {
                    holder.free_window();
                }
                group.take_back(entry.source, &mut self.work);
            }
        }
        holder.moved(&mut self.work);
    }

    /// The session has lost its connection: others may take what it has not acknowledged.
    pub(super) fn leave_groups_for_now<W: Wire>(&mut self, session: SessionKey, turn: &mut Turn<'_, W>) {
        for key in self.former_groups(session) {
            self.hand_back(session, key);
            self.pump_group(key, turn);
        }
        let Some(groups) = self.sessions.get(session).map(|session| session.groups.clone()) else {
            return;
        };
        for (_, key) in groups {
            let others = self
                .groups
                .get(key)
                .is_some_and(|group| group.has_connected_member(&self.sessions));
            if others {
                self.hand_back(session, key);
                self.pump_group(key, turn);
            } else {
                self.group_is_alone(key);
            }
        }
    }

    /// No member is connected: what waits in memory is given up to the log.
    fn group_is_alone(&mut self, key: GroupKey) {
        let fanned = self.fanned;
        if let Some(group) = self.groups.get_mut(key) {
            group.reader.found = false;
            let lost = group.reader.rewind(fanned).len() as u64;
            group.reader.ledger.drop_matched(DropReason::Qos0Offline, lost);
            self.work.counters.dropped(DropReason::Qos0Offline, lost);
            group.moved(&mut self.work);
        }
        self.enlist_group(key);
    }

    /// The session ends: its memberships go, and what it held.
    pub(super) fn leave_groups<W: Wire>(&mut self, session: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(groups) = self.sessions.get(session).map(|session| session.groups.clone()) else {
            return;
        };
        let former = self.former_groups(session);
        for (slot, key) in groups {
            self.leave_group(session, slot, turn);
            self.drop_held(session, key);
        }
        for key in former {
            self.hand_back(session, key);
            self.drop_held(session, key);
        }
        self.forget_expected(session);
    }

    /// The session ends: what it holds of the group at QoS 2 is not given to another. [MQTT5-4.8.2-5]
    fn drop_held(&mut self, session: SessionKey, key: GroupKey) {
        let (Some(session), Some(group)) = (self.sessions.get(session), self.groups.get_mut(key)) else {
            return;
        };
        let held = session.in_flight.iter();
        let held = held.filter(|entry| entry.source.group() == Some(key));
        for position in held.filter_map(|entry| entry.source.position()) {
            if group.outstanding.remove(&position) {
                group.reader.ledger.drop_taken(DropReason::SessionEnded, 1);
                self.work.counters.dropped(DropReason::SessionEnded, 1);
            }
        }
        group.moved(&mut self.work);
    }

    /// Groups that were made for SUBSCRIBEs of a session that is gone before they were durable.
    fn forget_expected(&mut self, session: SessionKey) {
        let Some(session) = self.sessions.get(session) else {
            return;
        };
        let pending = session.subscriptions.iter().filter(|version| version.since.is_none());
        let names: Vec<_> = pending
            .filter_map(|version| Some((version.share.clone()?, version.filter.clone())))
            .collect();
        let was_durable = session.is_durable();
        for (share, filter) in names {
            let Some(key) = self.groups.find(&share, &filter) else {
                continue;
            };
            let is_unused = self.groups.get_mut(key).is_some_and(|group| {
                group.expected = group.expected.saturating_sub(1);
                group.expected == 0 && group.members.is_empty()
            });
            if is_unused {
                self.end_group(key, was_durable);
            }
        }
    }

    /// A member is connected: it and others may take what members that are away have not acknowledged.
    pub(super) fn reclaim_for<W: Wire>(&mut self, session: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(groups) = self.sessions.get(session).map(|session| session.groups.clone()) else {
            return;
        };
        for (_, key) in groups {
            let members = self
                .groups
                .get(key)
                .map(|group| group.members.clone())
                .unwrap_or_default();
            for member in members {
                let is_away = self
                    .sessions
                    .get(member.session)
                    .is_some_and(|session| session.attached.is_none());
                if is_away {
                    self.hand_back(member.session, key);
                }
            }
            let newest = self.newest();
            if let Some(group) = self.groups.get_mut(key) {
                group.reader.found = false;
                if group.is_first_connected(session, &self.sessions) {
                    group.connected_at = newest;
                }
            }
            self.pump_group(key, turn);
        }
    }

    /// Gives members of one group what waits for them.
    pub(super) fn pump_group<W: Wire>(&mut self, key: GroupKey, turn: &mut Turn<'_, W>) {
        let mut desk = Desk {
            sessions: &mut self.sessions,
            work: &mut self.work,
        };
        if let Some(group) = self.groups.get_mut(key) {
            group.pump(&mut desk, turn);
        }
        if self
            .groups
            .get(key)
            .is_some_and(|group| group.has_room(&self.sessions, turn))
        {
            self.enlist_group(key);
        }
    }

    pub(super) fn enlist_group(&mut self, key: GroupKey) {
        if let Some(group) = self.groups.get_mut(key)
            && group.reader.reading == Reading::No
            && group.wants_read(&self.sessions)
        {
            group.reader.reading = Reading::Listed;
            self.work.reads.push_back(ReaderKey::Group(key));
        }
    }

    /// A member has acknowledged a message of the group.
    pub(super) fn group_acked(&mut self, key: GroupKey, position: Option<LogPosition>) {
        if let Some(group) = self.groups.get_mut(key) {
            if let Some(position) = position {
                group.outstanding.remove(&position);
            }
            group.reader.ledger.acked += 1;
            group.moved(&mut self.work);
        }
    }

    /// Tells groups what their members gave up during the call.
    pub(super) fn settle_groups<W: Wire>(&mut self, _turn: &mut Turn<'_, W>) {
        while let Some((key, position, reason)) = self.work.lost_by_group.pop() {
            if let Some(group) = self.groups.get_mut(key) {
                if let Some(position) = position {
                    group.outstanding.remove(&position);
                }
                group.reader.ledger.drop_taken(reason, 1);
                group.moved(&mut self.work);
            }
        }
    }
}
