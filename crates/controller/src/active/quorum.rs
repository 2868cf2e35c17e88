//! The quorum as the active controller sees it: who votes, how far everybody is.

use std::collections::{BTreeMap, BTreeSet};

use klamm_types::{BrokerId, Offset, Timestamp};
use openraft::Instant as _;

use crate::raft::{ControllerNode, Metrics};

/// A change of who votes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum VoterChange {
    /// A node follows without a vote.
    AddLearner(u64, ControllerNode),
    /// A node that follows without a vote is dropped.
    RemoveLearner(u64),
    /// A node that follows gets a vote.
    AddVoter(u64),
    /// A voter is dropped.
    RemoveVoter(u64),
}

impl VoterChange {
    pub(crate) fn into_change(self) -> (openraft::ChangeMembers<u64, ControllerNode>, bool) {
        use openraft::ChangeMembers as C;
        match self {
            Self::AddLearner(id, node) => (C::AddNodes(BTreeMap::from([(id, node)])), true),
            Self::RemoveLearner(id) => (C::RemoveNodes(BTreeSet::from([id])), true),
            Self::AddVoter(id) => (C::AddVoterIds(BTreeSet::from([id])), true),
            Self::RemoveVoter(id) => (C::RemoveVoters(BTreeSet::from([id])), false),
        }
    }
}

/// One copy of the metadata log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReplicaView {
    pub(crate) node_id: u64,
    /// Of a controller.
    pub(crate) node: Option<ControllerNode>,
    /// Exclusive; -1 if it is not known.
    pub(crate) log_end_offset: Offset,
    pub(crate) last_fetch: Timestamp,
    pub(crate) last_caught_up: Timestamp,
}

/// The quorum at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct QuorumView {
    pub(crate) leader: u64,
    pub(crate) term: u64,
    /// Exclusive end of what is committed.
    pub(crate) high_watermark: Offset,
    pub(crate) voters: Vec<ReplicaView>,
    pub(crate) observers: Vec<ReplicaView>,
}

/// When each follower last had all that the leader had a moment before.
#[derive(Debug, Default)]
pub(crate) struct CaughtUp {
    last_index: Option<u64>,
    at: BTreeMap<u64, Timestamp>,
}

impl CaughtUp {
    /// To be called often: whoever has now what the leader had at the last call has caught up.
    pub(crate) fn observe(&mut self, metrics: &Metrics, now: Timestamp) {
        for (id, matched) in metrics.replication.iter().flatten() {
            let matched = matched.map(|log_id| log_id.index);
            if self.last_index.is_some() && matched >= self.last_index {
                self.at.insert(*id, now);
            }
        }
        self.last_index = metrics.last_log_index;
    }

    fn of(&self, id: u64) -> Timestamp {
        self.at.get(&id).copied().unwrap_or(Timestamp::NONE)
    }
}

/// The controllers among the replicas; `now` is wall-clock time.
pub(crate) fn view(metrics: &Metrics, caught_up: &CaughtUp, now: Timestamp) -> QuorumView {
    let membership = metrics.membership_config.membership();
    let replica = |id: u64| replica_view(metrics, caught_up, id, now);
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let committed = metrics.local_committed.map_or(0, |log_id| log_id.index + 1);
    QuorumView {
        leader: metrics.id,
        term: metrics.current_term,
        high_watermark: Offset(committed.cast_signed()),
        voters: voters.iter().copied().map(replica).collect(),
        observers: membership.learner_ids().map(replica).collect(),
    }
}

fn replica_view(metrics: &Metrics, caught_up: &CaughtUp, id: u64, now: Timestamp) -> ReplicaView {
    let node = metrics.membership_config.membership().get_node(&id).cloned();
    let end_after =
        |index: Option<u64>| index.map_or(Offset::ZERO, |index| Offset((index + 1).cast_signed()));
    if id == metrics.id {
        let log_end_offset = end_after(metrics.last_log_index);
        return ReplicaView { node_id: id, node, log_end_offset, last_fetch: now, last_caught_up: now };
    }
    let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&id).copied());
    let log_end_offset = matched.map_or(Offset(-1), |matched| end_after(matched.map(|log_id| log_id.index)));
    let heard = metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&id).copied().flatten());
    let last_fetch = heard.map_or(Timestamp::NONE, |heard| {
        let ago = i64::try_from(heard.elapsed().as_millis()).unwrap_or(i64::MAX);
        now.plus_millis(-ago)
    });
    ReplicaView { node_id: id, node, log_end_offset, last_fetch, last_caught_up: caught_up.of(id) }
}

/// A broker that follows the metadata.
pub(crate) fn broker_view(
    broker: BrokerId,
    applied: Option<Offset>,
    last_heard: Timestamp,
    end: Offset,
) -> ReplicaView {
    let log_end_offset = applied.map_or(Offset(-1), Offset::next);
    let caught_up = log_end_offset >= end;
    ReplicaView {
        node_id: u64::from(broker.0.unsigned_abs()),
        node: None,
        log_end_offset,
        last_fetch: last_heard,
        last_caught_up: if caught_up { last_heard } else { Timestamp::NONE },
    }
}
