//! What a controller says of itself.

use klamm_rpc::ControllerLocation;
use klamm_types::Offset;

/// What this controller is to the quorum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuorumRole {
    /// It leads, though perhaps it is not active yet.
    Leader,
    /// It votes and follows.
    Follower,
    /// It stands for election.
    Candidate,
    /// It follows without a vote, or is not part of the quorum.
    Observer,
}

/// A controller at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerStatus {
    /// What it is to the quorum.
    pub role: QuorumRole,
    /// Who leads the quorum, as far as it knows, and where to reach that.
    pub leader: Option<ControllerLocation>,
    /// The term: Kafka's leader epoch of the metadata log.
    pub term: u64,
    /// Exclusive end of what it has committed and applied.
    pub committed_end_offset: Offset,
    /// It is the active controller: it leads, has applied all of its own term and takes requests.
    pub is_active: bool,
    /// It has caught up with what the quorum had committed when it started, and so serves metadata.
    pub is_ready: bool,
    /// It knows which quorum it is part of, or founds: what it has forgotten, if anything, others have told.
    pub is_enlisted: bool,
    /// Controllers that have to say what they remember before this one votes, as `ID@HOST:PORT`: it is new, or has
    /// forgotten something. Empty once it takes part.
    pub awaited: Vec<String>,
    /// It has stopped for good, and why: the node has to stop too.
    pub failure: Option<String>,
}

impl ControllerStatus {
    pub(crate) const NEW: Self = Self {
        role: QuorumRole::Observer,
        leader: None,
        term: 0,
        committed_end_offset: Offset::ZERO,
        is_active: false,
        is_ready: false,
        is_enlisted: false,
        awaited: Vec::new(),
        failure: None,
    };
}
