//! What handlers need of the rest of the node, as traits, so that each handler can be tested alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::controller_client::Submitted;
use klamm_metadata::MetadataImage;
use klamm_pb::controller::v1::{AddVoterRequest, RemoveVoterRequest, submit_request};
use klamm_types::{BrokerId, Offset};
use tokio::time::Instant;

use crate::table::BoxFuture;

/// The cluster's metadata as this broker has applied it.
pub trait ClusterMetadata: Send + Sync + 'static {
    /// The newest image. Called once per request, so that an answer never mixes two.
    fn image(&self) -> Arc<MetadataImage>;

    /// Waits until everything up to and including `offset` is applied; `false` if it is not by `deadline`.
    fn applied(&self, offset: Offset, deadline: Instant) -> BoxFuture<bool>;

    /// Waits until what has befallen other brokers by now is likely to have been noticed: a client that lost its connection
    /// to one may ask sooner than this node's own connection is seen to have ended.
    fn noticed(&self) -> BoxFuture<()>;

    /// Brokers that the newest image knows as alive, and that may be dead: what it says of them may change at once.
    fn suspects(&self) -> BTreeSet<BrokerId>;

    /// Brokers that the newest image knows as fenced, and that died some seconds ago.
    fn lately_dead(&self) -> BTreeSet<BrokerId>;

    /// Waits until the image tells what became of a suspect, shortly at most.
    fn unsuspected(&self, broker: BrokerId) -> BoxFuture<()>;
}

/// The way to the active controller, whichever node that is.
pub trait ControllerGateway: Send + Sync + 'static {
    /// Asks for a change and waits for its outcome, at most for `timeout`.
    fn submit(
        &self,
        change: submit_request::Change,
        timeout: Duration,
    ) -> BoxFuture<Result<Submitted, GatewayError>>;

    /// Adds a voter to the metadata quorum. Who calls and for how long is filled in.
    fn add_voter(&self, voter: AddVoterRequest, timeout: Duration) -> BoxFuture<Result<(), GatewayError>>;

    /// Takes a voter from the metadata quorum. Who calls and for how long is filled in.
    fn remove_voter(
        &self,
        voter: RemoveVoterRequest,
        timeout: Duration,
    ) -> BoxFuture<Result<(), GatewayError>>;

    /// Asks the leader of the metadata quorum how it is doing, and waits at most for `timeout`.
    fn describe_quorum(&self, timeout: Duration) -> BoxFuture<Result<QuorumDescription, GatewayError>>;
}

/// Why there is no answer from the controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// No answer in time. The change may have happened, or may still happen.
    #[error("no answer came from the active controller; a change that was asked for may have been made")]
    TimedOut,
    /// The answer is none that the question can have.
    #[error("the controller's answer makes no sense")]
    BadAnswer,
    /// The controller refused the request as a whole; nothing was changed.
    #[error("the controller refused: {reason}")]
    Refused {
        /// Kafka's number of the reason.
        code: i32,
        /// The reason in words.
        reason: String,
    },
    /// No controller can be asked for this.
    #[error("the request cannot be passed on: {reason}")]
    Impossible {
        /// Why not.
        reason: String,
    },
}

impl GatewayError {
    /// Whether the same question may be answered later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TimedOut)
    }
}

/// The metadata quorum at one moment, as its leader sees it (KIP-595, KIP-836).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// The leader.
    pub leader: BrokerId,
    /// Its term.
    pub term: i64,
    /// Exclusive end of what is committed.
    pub committed_end_offset: Offset,
    /// The members, the leader among them, ordered by id.
    pub voters: Vec<QuorumReplica>,
    /// Nodes that follow without a vote, ordered by id.
    pub observers: Vec<QuorumReplica>,
}

/// A node's copy of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// The node.
    pub node: BrokerId,
    /// Its log directory; all zero if it is not known.
    pub directory: [u8; 16],
    /// Exclusive end of its log, as far as the leader knows; -1 if it does not.
    pub log_end_offset: Offset,
    /// When it last fetched or acknowledged, in milliseconds of Unix time; -1 if it is not known.
    pub last_fetch_ms: i64,
    /// When it last had all that the leader had, in milliseconds of Unix time; -1 if it is not known.
    pub last_caught_up_ms: i64,
    /// Where its controller listens: host and port; `None` for a broker without one.
    pub endpoint: Option<(String, u16)>,
}

/// The levels at which this node's loggers write.
pub trait LogLevels: Send + Sync + 'static {
    /// Loggers by name with their levels, `root` among them.
    fn levels(&self) -> Vec<(String, String)>;

    /// Whether [`Self::set`] would do it.
    ///
    /// # Errors
    /// What is wrong with the first level that cannot be set.
    fn check(&self, changes: &[(String, Option<String>)]) -> Result<(), LogLevelError>;

    /// Sets levels, all or none; without a level, a logger follows the root again.
    ///
    /// # Errors
    /// What is wrong with the first level that cannot be set.
    fn set(&self, changes: &[(String, Option<String>)]) -> Result<(), LogLevelError>;
}

/// A level that cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogLevelError {
    /// There is no such logger.
    #[error("logger {logger} does not exist")]
    UnknownLogger {
        /// The name, shortened.
        logger: String,
    },
    /// The level is none.
    #[error(
        "logger {logger} cannot write at level {level}: levels are TRACE, DEBUG, INFO, WARN, ERROR and FATAL"
    )]
    UnknownLevel {
        /// The logger.
        logger: String,
        /// The text, shortened.
        level: String,
    },
    /// The root logger has nobody to follow.
    #[error("the level of the root logger cannot be removed")]
    RootRemoved,
}

impl LogLevelError {
    /// Never: the same change is refused again.
    pub fn is_retryable(&self) -> bool {
        false
    }
}
