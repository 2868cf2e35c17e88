//! The types that openraft works with, and the names that the rest of this crate gives them.

use std::fmt;

use bytes::Bytes;
use openraft::type_config::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, VoteOf};

openraft::declare_raft_types!(
    /// The quorum's choice of types: one leader per term (so that a log id is a term and an index, which are Kafka's
    /// leader epoch and offset), tokio as the runtime.
    pub TypeConfig:
        D = EncodedRecords,
        R = AppliedEntry,
        NodeId = u64,
        Node = ControllerNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

/// The term and the index of an entry.
pub type LogId = LogIdOf<TypeConfig>;
/// The leader of a term, as it stands in a log id: the term alone.
pub type CommittedLeaderId = CommittedLeaderIdOf<TypeConfig>;
/// Whom a node has voted for, in which term, and whether a quorum has.
pub type Vote = VoteOf<TypeConfig>;
/// One entry of the log.
pub type Entry = EntryOf<TypeConfig>;
/// What an entry carries: nothing, metadata records, or the voters.
pub type EntryPayload = openraft::EntryPayload<EncodedRecords, u64, ControllerNode>;
/// Who votes, who learns, and where they are.
pub type Membership = openraft::Membership<u64, ControllerNode>;

/// A batch of metadata records, encoded once by the active controller: the same bytes lie in every log and travel to
/// every node. Raft does not look inside; the state machine decodes and checks them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedRecords(pub Bytes);

impl fmt::Display for EncodedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of records", self.0.len())
    }
}

/// The answer to a write: the entry has been applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppliedEntry {
    /// Its index, which is the offset of its records in the metadata log.
    pub index: u64,
}

/// Where a controller is, and which disk it votes with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ControllerNode {
    /// The host that the other controllers connect to.
    pub host: String,
    /// The port of its controller listener.
    pub port: u16,
    /// The id of its metadata directory (KIP-853): a node whose disk was wiped comes back with another one, and may
    /// not vote as the voter it was.
    pub directory_id: [u8; 16],
}
