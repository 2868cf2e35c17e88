//! What a node that may have forgotten something makes of what the others remember. Pure.

use std::collections::BTreeMap;

use klamm_types::QuorumId;

use crate::raft::wire::new_vote;
use crate::raft::{ControllerNode, LogId, Membership, Vote};

/// What one voter remembers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Memory {
    /// `None` if it has not voted and follows nobody.
    pub(super) vote: Option<Vote>,
    /// The newest entry that it has.
    pub(super) last: Option<LogId>,
    /// Who votes, as far as it knows.
    pub(super) membership: Option<Membership>,
    /// The quorum that it belongs to.
    pub(super) quorum: Option<QuorumId>,
}

impl Memory {
    pub(super) fn is_blank(&self) -> bool {
        self.vote.is_none() && self.last.is_none()
    }
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    /// These have not said yet what they remember.
    Ask(BTreeMap<u64, ControllerNode>),
    /// These two belong to different quorums: one of them was founded beside the other, and nobody but the operator
    /// can say which is to go on.
    Split([(u64, QuorumId); 2]),
    /// Nobody remembers anything, and yet `id` belongs to a quorum: its metadata is lost, and a new quorum would take its
    /// place in silence.
    Orphaned {
        /// The node.
        id: u64,
        /// Its quorum.
        quorum: QuorumId,
    },
    /// Nobody remembers anything, and this node is no founder: others will found the quorum.
    WaitForFounders,
    /// Nobody remembers anything: this is a new quorum.
    Found,
    /// This node is no voter, so nothing depends on its memory.
    Join,
    /// This is the most that this node can have acknowledged, and the vote that it must not contradict.
    Recall {
        /// The newest entry; `None` if nobody has any.
        until: Option<LogId>,
        /// The newest vote that it can have given; `None` if nobody has voted.
        vote: Option<Vote>,
    },
}

/// Decides for the node `this`, which remembers `own`, on what the others have said.
///
/// Everybody that can have counted on this node must have answered. An answer stays good: what this node has
/// forgotten, it had promised before it asked.
pub(super) fn decide(
    this: u64,
    founders: &BTreeMap<u64, ControllerNode>,
    own: &Memory,
    others: &BTreeMap<u64, Memory>,
) -> Decision {
    let mut quorums = others.iter().filter_map(|(id, memory)| memory.quorum.map(|quorum| (*id, quorum)));
    if let Some(one) = quorums.next()
        && let Some(other) = quorums.find(|(_, quorum)| *quorum != one.1)
    {
        return Decision::Split([one, other]);
    }
    let known = others.values().chain([own]);
    // Who has the newest log knows the newest voters.
    let membership = known
        .filter_map(|memory| memory.membership.as_ref().map(|m| (memory.last, m)))
        .max_by_key(|(last, _)| *last);
    let membership = membership.map(|(_, membership)| membership);
    let asked: BTreeMap<u64, ControllerNode> = match membership {
        Some(membership) => {
            let voter = |id| membership.get_node(&id).map(|node| (id, node.clone()));
            membership.voter_ids().filter_map(voter).collect()
        }
        None => founders.clone(),
    };
    let silent: BTreeMap<_, _> =
        asked.into_iter().filter(|(id, _)| *id != this && !others.contains_key(id)).collect();
    // A node that a majority of the voters does not know as one has never counted: a new one need not wait for a voter
    // that it is to replace.
    let stranger = membership.is_some_and(|membership| !membership.voter_ids().any(|voter| voter == this));
    if stranger && membership.is_some_and(|membership| is_known_by_majority(membership, others)) {
        return Decision::Join;
    }
    if !silent.is_empty() {
        return Decision::Ask(silent);
    }
    if own.is_blank() && others.values().all(Memory::is_blank) {
        if let Some((id, quorum)) = others.iter().find_map(|(id, memory)| Some((*id, memory.quorum?))) {
            return Decision::Orphaned { id, quorum };
        }
        return if founders.contains_key(&this) { Decision::Found } else { Decision::WaitForFounders };
    }
    Decision::Recall {
        until: others.values().filter_map(|memory| memory.last).max(),
        vote: newest_vote(this, others),
    }
}

/// The quorum that a majority of the founders belongs to; whatever the rest says, it is that of this node. One that has
/// lost its metadata has no say.
pub(super) fn quorum_of_majority(
    founders: &BTreeMap<u64, ControllerNode>,
    others: &BTreeMap<u64, Memory>,
) -> Option<QuorumId> {
    let founding = others.iter().filter(|(id, memory)| founders.contains_key(id) && !memory.is_blank());
    let quorums: Vec<_> = founding.filter_map(|(_, memory)| memory.quorum).collect();
    let is_of_majority =
        |quorum: &QuorumId| quorums.iter().filter(|other| *other == quorum).count() * 2 > founders.len();
    quorums.iter().copied().find(is_of_majority)
}

/// Whether a majority of each set of voters has said who votes.
fn is_known_by_majority(membership: &Membership, others: &BTreeMap<u64, Memory>) -> bool {
    let knows = |voter: &&u64| others.get(voter).is_some_and(|memory| memory.membership.is_some());
    membership.get_joint_config().iter().all(|voters| voters.iter().filter(knows).count() * 2 > voters.len())
}

/// The vote that this node may have given last: in the newest term that anybody knows, for the one who stood in it. If
/// several did it was one of them, and a vote for itself rules out them all; a leader of that term it still obeys.
fn newest_vote(this: u64, others: &BTreeMap<u64, Memory>) -> Option<Vote> {
    let votes: Vec<_> = others.values().filter_map(|memory| memory.vote.as_ref()).collect();
    let term = votes.iter().map(|vote| vote.leader_id().term).max()?;
    let newest = votes.into_iter().filter(|vote| vote.leader_id().term == term);
    let leader = newest.clone().find(|vote| vote.is_committed());
    let mut candidates: Vec<u64> = leader.map_or_else(
        || newest.map(|vote| vote.leader_id().voted_for).collect(),
        |vote| vec![vote.leader_id().voted_for],
    );
    candidates.dedup();
    match candidates.as_slice() {
        [one] => Some(new_vote(term, *one, false)),
        _ => Some(new_vote(term, this, false)),
    }
}

#[cfg(test)]
#[path = "decision_test.rs"]
mod tests;
