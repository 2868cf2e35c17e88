//! How a command ends, and what it says when it does not end well.

use std::io;
use std::process::ExitCode;

use klamm_client::{ApiError, ClientError};
use klamm_log::inspect::InspectError;
use klamm_record::BuildError;

mod hints;

/// The exit codes of all commands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Exit {
    /// 0: done, and nothing is wrong.
    Done,
    /// 1: the cluster refused, damage was found, or a file could not be read.
    Failed,
    /// 2: the command line asks for what cannot be.
    Usage,
    /// 3: no broker answered.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Unreachable => Self::from(3),
        }
    }
}

/// Why a command stops.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A file or directory could not be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A broker refused, or none answered.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster refused what was asked for one thing of several.
    #[error("{subject}: {error}")]
    Refused {
        /// The topic, partition or other thing.
        subject: String,
        /// Why.
        error: ApiError,
    },
    /// A record of a measurement was not delivered.
    #[error(transparent)]
    Batch(#[from] BuildError),
    /// The arguments contradict each other, or what there is.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// What one needs to run at all is missing: threads, or an event queue of the system.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<klamm_log::StorageError> for Failure {
    fn from(error: klamm_log::StorageError) -> Self {
        Self::Inspect(error.into())
    }
}

impl Failure {
    /// Whether whoever read the output has gone away: nothing is left to do then, and nothing is wrong.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            _ if self.is_broken_pipe() => Exit::Done,
            Self::Client(error) if error.is_unreachable() => Exit::Unreachable,
            Self::Usage { .. } | Self::Client(ClientError::NoBootstrap) => Exit::Usage,
            Self::Output(_)
            | Self::Client(_)
            | Self::Refused { .. }
            | Self::Batch(_)
            | Self::Runtime(_)
            | Self::Inspect(InspectError::Storage(_) | InspectError::Damaged(_)) => Exit::Failed,
            Self::Inspect(
                InspectError::IsDirectory { .. }
                | InspectError::NotDirectory { .. }
                | InspectError::UnknownKind { .. }
                | InspectError::EmptyDirectory { .. }
                | InspectError::NoLog { .. },
            ) => Exit::Usage,
        }
    }

    /// What happened, in one line.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Inspect(InspectError::Storage(error)) => {
                let path = error.path.display();
                match error.source.kind() {
                    io::ErrorKind::NotFound => format!("{path} does not exist"),
                    io::ErrorKind::PermissionDenied => format!("{path} may not be read: permission denied"),
                    _ => error.to_string(),
                }
            }
            other => other.to_string(),
        }
    }

    /// What to try next.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Output(_) => "is there room where the output goes?",
            Self::Runtime(_) => "look at the limits of this user's processes and files",
            Self::Client(error) => hints::for_client(error),
            Self::Refused { subject, error } => hints::for_refusal(subject, error.code),
            Self::Batch(_) => "choose smaller records or batches",
            Self::Usage { hint, .. } => hint,
            Self::Inspect(InspectError::Storage(error)) => match error.source.kind() {
                io::ErrorKind::NotFound => "check the path",
                io::ErrorKind::PermissionDenied => "run as the user that the broker runs as",
                io::ErrorKind::FileTooLarge => "no broker writes such a file",
                _ => "look at the disk",
            },
            Self::Inspect(InspectError::Damaged(_)) => {
                "`klamm log verify` on its directory tells what that means"
            }
            Self::Inspect(InspectError::IsDirectory { .. }) => {
                "name files in it, or check all of it with `klamm log verify`"
            }
            Self::Inspect(InspectError::NotDirectory { .. }) => {
                "name the directory of a partition or of all logs, or show the file with `klamm log dump`"
            }
            Self::Inspect(InspectError::UnknownKind { .. }) => {
                "give the file the name it had: *.log, *.index, *.timeindex, *.txnindex, *.snapshot, *.checkpoint, \
                 leader-epoch-checkpoint, partition.metadata, meta.properties and the like"
            }
            Self::Inspect(InspectError::EmptyDirectory { .. } | InspectError::NoLog { .. }) => {
                "name the directory of a partition (as orders-0) or of all logs (log.dirs)"
            }
        }
    }
}
