//! Why a node does not start, or stops by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::{fmt, io};

use klamm_broker::broker::{BrokerFailure, BrokerStartError};
use klamm_kafka_api::{ListenerError, TableError};

use crate::config_error::ConfigError;
use crate::storage::StorageError;

/// Why a node does not start, or stops by itself. Each is one line that says what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The settings.
    #[error("{0}")]
    Config(ConfigErrors),
    /// The directories.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The broker does not start.
    #[error("the broker cannot start: {}", chain(.0))]
    Broker(#[from] BrokerStartError),
    /// The broker cannot go on.
    #[error("{}", chain(.0))]
    BrokerFailed(BrokerFailure),
    /// The controllers are of another cluster.
    #[error(
        "the controllers belong to another cluster: {message}; set CLUSTER_ID (klamm.cluster.id) to theirs, or have \
         controller.quorum.voters (or controller.quorum.bootstrap.servers) name the controllers of {ours}; {directories}"
    )]
    ForeignCluster {
        /// What they say: both clusters.
        message: String,
        /// The cluster of this node.
        ours: String,
        /// What that means for the directories.
        directories: ForeignDirectories,
    },
    /// An address that is in use or not this machine's.
    #[error("cannot listen on {address} ({name}): {source}; free it or change {setting}")]
    Bind {
        /// The address.
        address: String,
        /// What for.
        name: String,
        /// The setting that it comes from.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A client listener does not start.
    #[error("listener {name} cannot be had: {source}; free the port or change listeners")]
    Listener {
        /// Its name.
        name: String,
        /// Why.
        source: ListenerError,
    },
    /// The controller does not start.
    #[error("the controller cannot start: {}", chain(.0))]
    Controller(#[from] klamm_controller::StartError),
    /// The controller stopped.
    #[error("the controller has stopped: {reason}")]
    ControllerStopped {
        /// What it says.
        reason: String,
    },
    /// No controller took this broker in time.
    #[error(
        "no controller took this broker within {millis} ms (initial.broker.registration.timeout.ms); \
         check that the controllers run and that controller.quorum.voters names them"
    )]
    NotRegistered {
        /// How long it was tried.
        millis: u128,
    },
    /// The handlers do not fit together: a bug.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The system gives no threads, or lets no signals be caught.
    #[error("cannot {what}: {source}")]
    System {
        /// What for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A task ended that never should: a bug, which was logged.
    #[error("{what} ended unexpectedly")]
    TaskEnded {
        /// Which.
        what: &'static str,
    },
}

impl NodeError {
    /// Whether another start may succeed with nothing changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotRegistered { .. } | Self::ControllerStopped { .. } | Self::TaskEnded { .. })
    }

    /// Whether the settings must change.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Storage(_)
                | Self::ForeignCluster { .. }
                | Self::Bind { .. }
                | Self::Listener { .. }
        )
    }

    /// Whether a part has died without which nothing is left to stop in order.
    pub(crate) fn is_of_a_dead_part(&self) -> bool {
        matches!(self, Self::ControllerStopped { .. } | Self::TaskEnded { .. })
    }

    pub(crate) fn bind(address: SocketAddr, name: &str, setting: &'static str, source: io::Error) -> Self {
        Self::Bind { address: address.to_string(), name: name.to_owned(), setting, source }
    }
}

/// What becomes of the directories of a node whose cluster id the controllers have refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForeignDirectories {
    /// They were new, and the id is taken out of them again.
    TakenBack,
    /// They were new, and a controller has written its log into them.
    MadeNow(Vec<PathBuf>),
    /// They are those of a node of its cluster.
    Older(Vec<PathBuf>),
}

impl fmt::Display for ForeignDirectories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |dirs: &[PathBuf]| {
            dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::TakenBack => f.write_str("its new directories stay without an id"),
            Self::MadeNow(dirs) => {
                write!(f, "made at this start, to be removed before it joins another cluster: {}", list(dirs))
            }
            Self::Older(dirs) => write!(
                f,
                "to join another cluster it needs other log.dirs than those that meta.properties gives to this one: {}",
                list(dirs)
            ),
        }
    }
}

/// All that is wrong with the settings, a line each.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl From<Vec<ConfigError>> for NodeError {
    fn from(errors: Vec<ConfigError>) -> Self {
        Self::Config(ConfigErrors(errors))
    }
}

impl From<ConfigError> for NodeError {
    fn from(error: ConfigError) -> Self {
        vec![error].into()
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
