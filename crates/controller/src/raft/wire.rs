//! The border between Raft's messages and their protobuf forms. Nothing is believed: numbers are checked, and a
//! membership must name a node for each voter.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_pb::raft::v1 as pb;
use klamm_types::QuorumId;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::type_config::alias::{LeaderIdOf, SnapshotMetaOf, StoredMembershipOf};
use openraft::vote::{RaftLeaderId as _, RaftVote as _};

use super::types::{
    CommittedLeaderId, ControllerNode, EncodedRecords, Entry, EntryPayload, LogId, Membership, TypeConfig,
    Vote,
};

/// Why a message cannot be what it says it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// A field without which the message says nothing.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A directory id that is not 16 bytes long.
    #[error("a directory id has {len} bytes instead of 16")]
    DirectoryId {
        /// How many it has.
        len: usize,
    },
    /// A quorum id that is not 16 bytes long.
    #[error("a quorum id has {len} bytes instead of 16")]
    QuorumId {
        /// How many it has.
        len: usize,
    },
    /// A port past 65535.
    #[error("{port} is no port")]
    Port {
        /// The number.
        port: u32,
    },
    /// A term or an index that no log can hold.
    #[error("{field} is {value}, which no log can hold")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The number.
        value: u64,
    },
    /// Entries that follow neither each other nor what they say they follow, or are newer than their leader.
    #[error("an entry of index {index} and term {term} cannot come there")]
    Order {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// Voters without an address, or no voters at all.
    #[error("impossible membership: {reason}")]
    Membership {
        /// What is wrong.
        reason: String,
    },
}

/// The field, or an error that names it.
pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { field })
}

pub(crate) fn vote_to_pb(vote: &Vote) -> pb::Vote {
    let leader = vote.leader_id();
    pb::Vote { term: leader.term, node_id: leader.voted_for, committed: vote.is_committed() }
}

pub(crate) fn vote_from_pb(vote: Option<pb::Vote>) -> Result<Vote, WireError> {
    let pb::Vote { term, node_id, committed } = required("vote", vote)?;
    check_term(term)?;
    Ok(new_vote(term, node_id, committed))
}

/// A vote for `node_id` in `term`.
pub(crate) fn new_vote(term: u64, node_id: u64, committed: bool) -> Vote {
    Vote::from_leader_id(LeaderIdOf::<TypeConfig>::new(term, node_id), committed)
}

/// No bytes for no quorum.
pub(crate) fn quorum_to_pb(quorum: Option<QuorumId>) -> Bytes {
    quorum.map_or_else(Bytes::new, |quorum| Bytes::copy_from_slice(&quorum.0))
}

pub(crate) fn quorum_from_pb(bytes: &Bytes) -> Result<Option<QuorumId>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bits = bytes.as_ref().try_into().map_err(|_| WireError::QuorumId { len: bytes.len() })?;
    Ok(Some(QuorumId(bits)))
}

fn check_term(term: u64) -> Result<(), WireError> {
    // Terms are leader epochs in the log, and one more must remain for the next election.
    if term < i32::MAX as u64 { Ok(()) } else { Err(WireError::OutOfRange { field: "term", value: term }) }
}

pub(crate) fn log_id_to_pb(log_id: LogId) -> pb::LogId {
    pb::LogId { term: log_id.leader_id.term, node_id: 0, index: log_id.index }
}

pub(crate) fn log_id_from_pb(log_id: pb::LogId) -> Result<LogId, WireError> {
    check_term(log_id.term)?;
    if i64::try_from(log_id.index).is_ok_and(|index| index < i64::MAX) {
        Ok(LogId { leader_id: CommittedLeaderId::new(log_id.term), index: log_id.index })
    } else {
        Err(WireError::OutOfRange { field: "index", value: log_id.index })
    }
}

fn optional_log_id(log_id: Option<pb::LogId>) -> Result<Option<LogId>, WireError> {
    log_id.map(log_id_from_pb).transpose()
}

pub(crate) fn vote_request_to_pb(
    request: &VoteRequest<TypeConfig>,
    header: pb::RaftHeader,
    pre_vote: bool,
    leader_is_dead: bool,
) -> pb::VoteRequest {
    pb::VoteRequest {
        header: Some(header),
        vote: Some(vote_to_pb(&request.vote)),
        last_log_id: request.last_log_id.map(log_id_to_pb),
        pre_vote,
        leader_is_dead,
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_pb(message: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    let last_log_id = optional_log_id(message.last_log_id)?;
    let mut request = VoteRequest::new(vote_from_pb(message.vote)?, last_log_id);
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

pub(crate) fn vote_response_to_pb(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to_pb(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.map(log_id_to_pb),
    }
}

pub(crate) fn vote_response_from_pb(
    message: pb::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    let vote = vote_from_pb(message.vote)?;
    Ok(VoteResponse::new(vote, optional_log_id(message.last_log_id)?, message.granted))
}

pub(crate) fn append_request_to_pb(
    request: AppendEntriesRequest<TypeConfig>,
    header: pb::RaftHeader,
) -> pb::AppendRequest {
    pb::AppendRequest {
        header: Some(header),
        vote: Some(vote_to_pb(&request.vote)),
        previous_log_id: request.prev_log_id.map(log_id_to_pb),
        entries: request.entries.into_iter().map(entry_to_pb).collect(),
        committed: request.leader_commit.map(log_id_to_pb),
    }
}

pub(crate) fn append_request_from_pb(
    message: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let request = AppendEntriesRequest {
        vote: vote_from_pb(message.vote)?,
        prev_log_id: optional_log_id(message.previous_log_id)?,
        entries: message.entries.into_iter().map(entry_from_pb).collect::<Result<_, _>>()?,
        leader_commit: optional_log_id(message.committed)?,
    };
    check_order(&request)?;
    Ok(request)
}

/// Raft takes for granted that entries come without a gap, in terms that do not fall, and none from after the leader's.
fn check_order(request: &AppendEntriesRequest<TypeConfig>) -> Result<(), WireError> {
    let terms_max = request.vote.leader_id().term;
    let mut before = request.prev_log_id;
    for entry in &request.entries {
        let LogId { leader_id, index } = entry.log_id;
        let (next, term_min) = before.map_or((0, 0), |before| (before.index + 1, before.leader_id.term));
        if index != next || !(term_min..=terms_max).contains(&leader_id.term) {
            return Err(WireError::Order { index, term: leader_id.term });
        }
        before = Some(entry.log_id);
    }
    Ok(())
}

/// The answer; `last` is the last entry of the request, which a success confirms.
pub(crate) fn append_response_to_pb(
    response: AppendEntriesResponse<TypeConfig>,
    last: Option<LogId>,
) -> pb::AppendResponse {
    use pb::append_response::Result as R;
    let matched = |log_id: Option<LogId>| R::Matched(pb::Matched { log_id: log_id.map(log_id_to_pb) });
    let result = match response {
        AppendEntriesResponse::Success => matched(last),
        AppendEntriesResponse::PartialSuccess(log_id) => matched(log_id),
        AppendEntriesResponse::Conflict => R::Conflict(pb::Blank {}),
        AppendEntriesResponse::HigherVote(vote) => R::HigherVote(vote_to_pb(&vote)),
    };
    pb::AppendResponse { result: Some(result) }
}

pub(crate) fn append_response_from_pb(
    message: pb::AppendResponse,
    last: Option<LogId>,
) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    use pb::append_response::Result as R;
    Ok(match required("result", message.result)? {
        R::Matched(matched) => match optional_log_id(matched.log_id)? {
            log_id if log_id == last => AppendEntriesResponse::Success,
            log_id => AppendEntriesResponse::PartialSuccess(log_id),
        },
        R::Conflict(_) => AppendEntriesResponse::Conflict,
        R::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_pb(Some(vote))?),
    })
}

fn entry_to_pb(entry: Entry) -> pb::Entry {
    use pb::entry::Payload as P;
    let payload = match entry.payload {
        EntryPayload::Blank => P::Blank(pb::Blank {}),
        EntryPayload::Normal(EncodedRecords(records)) => P::Records(records),
        EntryPayload::Membership(membership) => P::Membership(membership_to_pb(&membership)),
    };
    pb::Entry { log_id: Some(log_id_to_pb(entry.log_id)), payload: Some(payload) }
}

fn entry_from_pb(message: pb::Entry) -> Result<Entry, WireError> {
    use pb::entry::Payload as P;
    let payload = match required("payload", message.payload)? {
        P::Blank(_) => EntryPayload::Blank,
        P::Records(records) => EntryPayload::Normal(EncodedRecords(records)),
        P::Membership(membership) => EntryPayload::Membership(membership_from_pb(membership)?),
    };
    Ok(Entry { log_id: log_id_from_pb(required("log_id", message.log_id)?)?, payload })
}

pub(crate) fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs.map(|voters| pb::VoterSet { voters: voters.iter().copied().collect() }).collect(),
        nodes: membership.nodes().map(|(id, node)| node_to_pb(*id, node)).collect(),
    }
}

fn node_to_pb(node_id: u64, node: &ControllerNode) -> pb::Node {
    pb::Node {
        node_id,
        host: node.host.clone(),
        port: u32::from(node.port),
        directory_id: bytes::Bytes::copy_from_slice(&node.directory_id),
    }
}

pub(crate) fn membership_from_pb(message: pb::Membership) -> Result<Membership, WireError> {
    let configs: Vec<BTreeSet<u64>> =
        message.configs.into_iter().map(|set| set.voters.into_iter().collect()).collect();
    let nodes = message.nodes.into_iter().map(node_from_pb).collect::<Result<BTreeMap<_, _>, _>>()?;
    Membership::new(configs, nodes).map_err(|error| WireError::Membership { reason: error.to_string() })
}

fn node_from_pb(node: pb::Node) -> Result<(u64, ControllerNode), WireError> {
    let port = u16::try_from(node.port).map_err(|_| WireError::Port { port: node.port })?;
    let len = node.directory_id.len();
    let directory_id = node.directory_id.as_ref().try_into().map_err(|_| WireError::DirectoryId { len })?;
    Ok((node.node_id, ControllerNode { host: node.host, port, directory_id }))
}

pub(crate) fn snapshot_open_to_pb(
    header: pb::RaftHeader,
    vote: &Vote,
    meta: &SnapshotMetaOf<TypeConfig>,
) -> pb::SnapshotOpen {
    pb::SnapshotOpen {
        header: Some(header),
        vote: Some(vote_to_pb(vote)),
        snapshot_id: meta.last_log_id.map(|log_id| log_id.to_string()).unwrap_or_default(),
        last_log_id: meta.last_log_id.map(log_id_to_pb),
        membership_log_id: meta.last_membership.log_id().map(log_id_to_pb),
        membership: Some(membership_to_pb(meta.last_membership.membership())),
    }
}

/// The vote of the leader that sends a snapshot, and what the snapshot stands for.
pub(crate) fn snapshot_open_from_pb(
    open: pb::SnapshotOpen,
) -> Result<(Vote, SnapshotMetaOf<TypeConfig>), WireError> {
    let membership = membership_from_pb(required("membership", open.membership)?)?;
    let membership_log_id = optional_log_id(open.membership_log_id)?;
    let meta = SnapshotMetaOf::<TypeConfig> {
        last_log_id: optional_log_id(open.last_log_id)?,
        last_membership: StoredMembershipOf::<TypeConfig>::new(membership_log_id, membership),
    };
    Ok((vote_from_pb(open.vote)?, meta))
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
