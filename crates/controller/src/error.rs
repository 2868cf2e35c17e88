//! What can go wrong with a controller, and how a call that it refuses is answered.

use klamm_rpc::{ControllerLocation, status};
use tonic::Status;

use crate::options::OptionsError;
use crate::raft::{LogStoreError, SnapshotStoreError};

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its options cannot be.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Its log does not open.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// Its snapshot does not read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotStoreError),
    /// Raft does not start: what was committed cannot be applied, or the timing is impossible.
    #[error("the metadata quorum cannot be joined: {reason}")]
    Raft {
        /// What openraft says.
        reason: String,
    },
    /// It was not started within a tokio runtime that can run its tasks.
    #[error("a task of the controller ended: {reason}")]
    Task {
        /// How.
        reason: String,
    },
}

impl StartError {
    /// Whether another start may succeed without anybody's help: while another process still holds the log.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Log(LogStoreError::Locked { .. }))
    }
}

/// Why a controller that may have forgotten something cannot find out what.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnlistError {
    /// The disk does not take it down.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// Raft has stopped.
    #[error("raft has stopped: {reason}")]
    Raft {
        /// What openraft says.
        reason: String,
    },
    /// The node is not new, and yet nobody remembers a quorum.
    #[error(
        "the metadata log is empty and no controller has another one, but this node holds partitions or belongs to a quorum (quorum.id in meta.properties): the metadata is lost, or its directory is not mounted; restore it, or move partitions and meta.properties away to begin anew"
    )]
    NotNew,
    /// Raft knows of a newer vote than all the others do. A bug.
    #[error("the vote {vote} cannot be promised after {own}")]
    Vote {
        /// What the others know of.
        vote: String,
        /// What Raft knows of.
        own: String,
    },
}

impl EnlistError {
    pub(crate) fn raft(error: impl std::fmt::Display) -> Self {
        Self::Raft { reason: error.to_string() }
    }
}

/// Why the active controller has no answer to a request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControllerError {
    /// This node is not the active controller; nothing was executed.
    #[error("not the active controller")]
    NotActive {
        /// Who is, as far as it knows.
        hint: Option<ControllerLocation>,
    },
    /// Too many requests wait; nothing was executed.
    #[error("the controller has too much to do")]
    Overloaded,
    /// The request leads to an entry that is too long for the log; nothing was executed.
    #[error("the change has {bytes} bytes, more than {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// The controller lost its leadership after it had appended the change: it may have happened.
    #[error("the controller lost its leadership before the change was committed")]
    Interrupted,
    /// The decision failed; nothing was executed. A bug.
    #[error("the controller failed to decide")]
    Failed,
    /// The controller has stopped.
    #[error("the controller has stopped")]
    Stopped,
}

impl ControllerError {
    /// Whether the same request may succeed later, here or at another controller.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Failed)
    }
}

impl From<ControllerError> for Status {
    fn from(error: ControllerError) -> Self {
        let message = error.to_string();
        match error {
            ControllerError::NotActive { hint } => status::not_active_controller(hint.as_ref()),
            ControllerError::Overloaded => status::overloaded("requests of the controller"),
            ControllerError::TooLarge { .. } => Self::out_of_range(message),
            ControllerError::Interrupted | ControllerError::Stopped => Self::unavailable(message),
            ControllerError::Failed => Self::internal(message),
        }
    }
}
