//! The border between gRPC statuses and typed errors; no other module of the workspace names status codes for
//! what is refused here.

use std::error::Error;

use bytes::Bytes;
use klamm_pb::controller::v1::ControllerHint;
use klamm_types::{BrokerId, QuorumId};
use prost::Message;
use tonic::{Code, ConnectError, Status};

use crate::NodeAddress;

/// Why a call between nodes has no answer. What an answered call refuses is in its answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RpcError {
    /// No connection could be made: the call was not sent.
    #[error("cannot be reached: {reason}")]
    Unreachable {
        /// What the system says.
        reason: String,
    },
    /// The connection broke. The call may have been executed.
    #[error("the connection broke: {reason}")]
    Lost {
        /// What the system says.
        reason: String,
    },
    /// No answer within the deadline. The call may have been executed, or still be.
    #[error("no answer in time")]
    TimedOut,
    /// The node is not the active controller; it has executed nothing.
    #[error("not the active controller")]
    NotActiveController {
        /// Who is, as far as it knows.
        hint: Option<ControllerLocation>,
    },
    /// One of the two is of another cluster. Nothing was executed, and never will be.
    #[error("foreign cluster: {message}")]
    ForeignCluster {
        /// Both clusters.
        message: String,
    },
    /// The quorum of one of the two was founded apart from that of the other. Nothing was executed. Another node may
    /// still be of the right one.
    #[error("foreign quorum: {message}")]
    ForeignQuorum {
        /// Both quorums.
        message: String,
    },
    /// The address is that of another node. Nothing was executed.
    #[error("wrong node: {message}")]
    WrongNode {
        /// Both nodes.
        message: String,
    },
    /// A message is longer than its receiver takes.
    #[error("message too long: {message}")]
    TooLong {
        /// How long, and what is allowed.
        message: String,
    },
    /// The node has too much to do. Nothing was executed.
    #[error("overloaded: {message}")]
    Overloaded {
        /// What is full.
        message: String,
    },
    /// The request cannot be understood. Nothing was executed.
    #[error("invalid request: {message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The node's binary does not know the call.
    #[error("the call is not supported: {message}")]
    Unsupported {
        /// What the node says.
        message: String,
    },
    /// The node failed. What became of the call is unknown.
    #[error("failed: {message}")]
    Failed {
        /// What the node says.
        message: String,
    },
}

impl RpcError {
    /// Whether the same call may succeed later, there or at another node.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::TimedOut
            | Self::NotActiveController { .. }
            | Self::ForeignQuorum { .. }
            | Self::WrongNode { .. }
            | Self::Overloaded { .. }
            | Self::Failed { .. } => true,
            Self::ForeignCluster { .. }
            | Self::TooLong { .. }
            | Self::Invalid { .. }
            | Self::Unsupported { .. } => false,
        }
    }

    /// Whether it is certain that the call had no effect, so that even one that must not happen twice may be sent
    /// again.
    #[must_use]
    pub const fn is_without_effect(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NotActiveController { .. }
            | Self::ForeignCluster { .. }
            | Self::ForeignQuorum { .. }
            | Self::WrongNode { .. }
            | Self::Overloaded { .. }
            | Self::Invalid { .. }
            | Self::Unsupported { .. } => true,
            // A message that is too long may be the answer.
            Self::Lost { .. } | Self::TimedOut | Self::TooLong { .. } | Self::Failed { .. } => false,
        }
    }
}

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        if let Some(reason) = connect_error(&status) {
            return Self::Unreachable { reason };
        }
        let is_timeout = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
        if status.source().is_some() && !is_timeout {
            // Not an answer: this side's account of how the connection broke. Its code says nothing of the call, for
            // example `ResourceExhausted` for a connection that the other side closed because of others' calls.
            return Self::Lost { reason: describe(&status) };
        }
        let message = status.message().to_owned();
        match status.code() {
            // The stubs tell an expired timeout as a cancellation.
            Code::DeadlineExceeded | Code::Cancelled => Self::TimedOut,
            Code::FailedPrecondition => Self::NotActiveController { hint: hint_from(status.details()) },
            Code::PermissionDenied | Code::Unauthenticated => Self::ForeignCluster { message },
            Code::DataLoss => Self::ForeignQuorum { message },
            Code::NotFound => Self::WrongNode { message },
            Code::OutOfRange => Self::TooLong { message },
            Code::ResourceExhausted => Self::Overloaded { message },
            Code::InvalidArgument => Self::Invalid { message },
            Code::Unimplemented => Self::Unsupported { message },
            Code::Unavailable => Self::Lost { reason: message },
            Code::Ok | Code::Unknown | Code::AlreadyExists | Code::Aborted | Code::Internal => {
                Self::Failed { message }
            }
        }
    }
}

/// What the system said when the connection was to be made, if that is what failed.
fn connect_error(status: &Status) -> Option<String> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return Some(error.source().map_or_else(|| error.to_string(), innermost));
        }
        cause = error.source();
    }
    None
}

fn describe(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), innermost)
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// Where the active controller is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ControllerLocation {
    /// The controller.
    pub node_id: BrokerId,
    /// Where it listens.
    pub address: NodeAddress,
}

/// The status with which a node that is not the active controller refuses: it has executed nothing.
#[must_use]
pub fn not_active_controller(hint: Option<&ControllerLocation>) -> Status {
    let hint = match hint {
        Some(location) => ControllerHint {
            node_id: location.node_id.0,
            host: location.address.host.clone(),
            port: u32::from(location.address.port),
        },
        None => ControllerHint { node_id: BrokerId::NONE.0, host: String::new(), port: 0 },
    };
    let details = Bytes::from(hint.encode_to_vec());
    Status::with_details(Code::FailedPrecondition, "not the active controller", details)
}

fn hint_from(details: &[u8]) -> Option<ControllerLocation> {
    let hint = ControllerHint::decode(details).ok()?;
    let port = u16::try_from(hint.port).ok().filter(|port| *port > 0)?;
    let known = hint.node_id >= 0 && !hint.host.is_empty();
    known.then(|| ControllerLocation {
        node_id: BrokerId(hint.node_id),
        address: NodeAddress::new(hint.host, port),
    })
}

/// The status with which a caller of another cluster is refused.
#[must_use]
pub fn foreign_cluster(theirs: &str, ours: &str) -> Status {
    // What a stranger sends is echoed no longer than a cluster id is.
    let theirs: String = theirs.chars().take(64).collect();
    Status::permission_denied(format!("this is cluster {ours}, not {theirs:?}"))
}

/// The status with which a caller is refused whose metadata is that of another quorum: one of the two was founded anew,
/// with the metadata of the other lost or out of reach.
#[must_use]
pub fn foreign_quorum(theirs: QuorumId, ours: QuorumId) -> Status {
    Status::data_loss(format!(
        "this node is of quorum {ours}, and the caller of {theirs}: one of them was founded without what the other knows"
    ))
}

/// The status with which a call that is meant for another node is refused.
#[must_use]
pub fn wrong_node(meant: u64, this: BrokerId) -> Status {
    Status::not_found(format!("this is node {this}, not {meant}"))
}

/// The status with which a node refuses work that it has no room for: it has executed nothing.
#[must_use]
pub fn overloaded(what: &str) -> Status {
    Status::resource_exhausted(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_travels_in_the_details() {
        let location = ControllerLocation { node_id: BrokerId(3), address: NodeAddress::new("c", 9093) };
        let error = RpcError::from(not_active_controller(Some(&location)));
        assert_eq!(error, RpcError::NotActiveController { hint: Some(location) });
        let error = RpcError::from(not_active_controller(None));
        assert_eq!(error, RpcError::NotActiveController { hint: None });
        assert!(error.is_without_effect() && error.is_retryable());
    }

    #[test]
    fn a_senseless_hint_is_none() {
        let hint = |node_id, host: &str, port| {
            hint_from(&ControllerHint { node_id, host: host.to_owned(), port }.encode_to_vec())
        };
        assert_eq!(hint(1, "", 9093), None);
        assert_eq!(hint(1, "c", 0), None);
        assert_eq!(hint(1, "c", 65_536), None);
        assert_eq!(hint(-1, "c", 9093), None);
        assert_eq!(hint_from(&[0xff; 9]), None);
        assert!(hint(0, "c", 1).is_some());
    }

    #[test]
    fn what_this_side_says_of_its_connection_is_no_refusal() {
        for code in [Code::ResourceExhausted, Code::PermissionDenied, Code::Internal, Code::Unknown] {
            let mut status = Status::new(code, "h2 protocol error");
            status.set_source(std::sync::Arc::new(std::io::Error::other("broken")));
            let error = RpcError::from(status);
            assert_eq!(error, RpcError::Lost { reason: "broken".to_owned() }, "{code}");
            assert!(!error.is_without_effect());
        }
    }

    #[test]
    fn statuses_map_to_errors() {
        let refused = RpcError::from(foreign_cluster("theirs", "ours"));
        assert!(matches!(&refused, RpcError::ForeignCluster { message } if message.contains("theirs")));
        assert!(!refused.is_retryable());
        assert!(matches!(RpcError::from(wrong_node(4, BrokerId(1))), RpcError::WrongNode { .. }));
        assert!(matches!(RpcError::from(overloaded("queue")), RpcError::Overloaded { .. }));
        let unknown = RpcError::from(Status::internal("x"));
        assert!(!unknown.is_without_effect() && unknown.is_retryable());
        assert_eq!(RpcError::from(Status::deadline_exceeded("x")), RpcError::TimedOut);
    }
}
