//! What ends a request or a connection, and the one place where refusals become Kafka's codes.

use std::io;

use klamm_protocol::{ApiKey, DecodeError, EncodeError, ErrorCode, FrameError, HeaderError, VersionRange};

use crate::config::ConfigError;

/// Bytes that are no request which this listener serves. The connection ends, because nothing can be answered that
/// the client would understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The length is none that a request has.
    #[error("no request begins here: {0}")]
    Frame(#[from] FrameError),
    /// The header is not one.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The API exists, but not on this listener.
    #[error("{key} is not served here")]
    NotServed {
        /// The API.
        key: ApiKey,
    },
    /// The API is served, the version is not.
    #[error("{key} is served in versions {served}, not in {version}")]
    VersionNotServed {
        /// The API.
        key: ApiKey,
        /// The version in the request.
        version: i16,
        /// The versions that the handler takes.
        served: VersionRange,
    },
    /// The body is malformed, longer than its fields, or beyond what decoding may cost.
    #[error("malformed {key} request of version {version}: {source}")]
    Body {
        /// The API.
        key: ApiKey,
        /// The version in the request.
        version: i16,
        /// What is wrong with the body.
        source: DecodeError,
    },
}

impl RequestError {
    /// Never: the same bytes are refused again.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// An answer that cannot be sent. The connection ends, as later answers must not overtake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The handler's answer does not fit the version of the request.
    #[error("answer of {key} in version {version}: {source}")]
    Encode {
        /// The API.
        key: ApiKey,
        /// The version of the request.
        version: i16,
        /// Why not.
        source: EncodeError,
    },
    /// The answer refers to bytes that are neither in memory nor in a file that came with it.
    #[error("payload {token} is nowhere to be found")]
    PayloadElsewhere {
        /// What the handler calls the payload.
        token: u64,
    },
    /// The handler wants the connection to end instead of an answer, as it must when a client that waits for none
    /// (`acks=0`) would otherwise not learn of a failure.
    #[error("{key} ended the connection")]
    ClosedByHandler {
        /// The API.
        key: ApiKey,
    },
}

impl AnswerError {
    /// Whether the client may succeed with the same request on a new connection.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::ClosedByHandler { .. })
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum CloseCause {
    /// The client closed its side and has all its answers.
    #[error("closed by the client")]
    Client,
    /// The client closed its side in the middle of a request.
    #[error("closed by the client within a request")]
    ClientWithinRequest,
    /// The socket failed.
    #[error("socket failed: {0}")]
    Socket(#[from] io::Error),
    /// Records that an answer promised cannot be read: the disk failed, or they were truncated meanwhile.
    #[error("records of an answer cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// The client sent something that is not served.
    #[error(transparent)]
    Refused(#[from] RequestError),
    /// An answer cannot be sent.
    #[error(transparent)]
    Unanswerable(#[from] AnswerError),
    /// No request for `connections.max.idle.ms`.
    #[error("idle for too long")]
    Idle,
    /// A request that does not arrive.
    #[error("the client sends its request too slowly")]
    SlowRequest,
    /// Answers that the client does not take.
    #[error("the client takes its answers too slowly")]
    SlowReader,
    /// The listener shuts down.
    #[error("the listener shuts down")]
    Shutdown,
}

impl CloseCause {
    /// Whether the client may succeed with the same requests on a new connection.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(error) => error.is_retryable(),
            Self::Unanswerable(error) => error.is_retryable(),
            Self::Client
            | Self::ClientWithinRequest
            | Self::Socket(_)
            | Self::Unreadable(_)
            | Self::Idle
            | Self::SlowRequest
            | Self::SlowReader
            | Self::Shutdown => true,
        }
    }
}

/// A table of handlers that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two handlers for one API.
    #[error("{key} has two handlers")]
    Duplicate {
        /// The API.
        key: ApiKey,
    },
    /// A handler for versions that cannot be decoded, or for none.
    #[error("{key} claims the versions {claimed}, {known} are known")]
    Versions {
        /// The API.
        key: ApiKey,
        /// What the handler claims.
        claimed: VersionRange,
        /// What can be decoded and encoded.
        known: VersionRange,
    },
}

impl TableError {
    /// Never: the table is part of the program.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A listener that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// A setting is outside its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl ListenerError {
    /// Whether another attempt may succeed without a change of settings: the address may become free.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Config(_) => false,
            Self::Bind { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
        }
    }
}

/// The code of a refusal by the controller: the numbers are Kafka's on both sides.
pub(crate) fn refusal_code(code: i32) -> ErrorCode {
    let known = i16::try_from(code).ok().and_then(ErrorCode::from_code);
    known.unwrap_or(ErrorCode::UnknownServerError)
}

/// What ApiVersions refuses with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiVersionsRefusal {
    /// A version from the future, or a negative one (KIP-511).
    UnknownVersion,
    /// A client's name or version that is not made of the characters allowed (KIP-511).
    InvalidSoftwareName,
}

impl ApiVersionsRefusal {
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::UnknownVersion => ErrorCode::UnsupportedVersion,
            Self::InvalidSoftwareName => ErrorCode::InvalidRequest,
        }
    }
}
