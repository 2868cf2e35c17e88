//! The Kafka wire protocol as Kafka 4.3 speaks it: every request and response in every served version.
//!
//! **For:** turning frames into typed requests and typed responses into bytes. **Not for:** sockets, what a
//! request means, which versions a broker advertises (its handler table knows), and what is inside a record
//! batch (the `record` crate knows).
//!
//! **Called by:** the Kafka front, the client, coordinators. **Calls:** nothing that does I/O.
//!
//! The message code under [`messages`] is generated from the listing in `schema/` by `cargo xtask codegen` and
//! committed. All of it goes through one [`Reader`] and one [`Writer`]:
//!
//! - A length is checked against the remaining bytes before it is believed: an array needs
//!   `count * least length of an element` bytes.
//! - An allocation is charged to the message's [`Budget`] before it is made.
//! - Record payloads are slices of the frame, counted by reference; on the way out they become pieces of their
//!   own in [`Encoded`], also when their bytes are not in memory ([`External`]).
//! - Unknown tagged fields are skipped and forgotten; more than 64 in one structure are refused.
//! - No input makes this crate panic.
//!
//! ```
//! use bytes::Bytes;
//! use klamm_protocol::messages::MetadataRequest;
//! use klamm_protocol::{ApiKey, Budget, Reader, Request, RequestHead, Writer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let head = RequestHead { key: ApiKey::Metadata, version: 12, correlation_id: 7, client_id: None };
//! let mut writer = Writer::new();
//! head.encode(&mut writer)?;
//! MetadataRequest { topics: None, ..MetadataRequest::default() }.encode(head.version, &mut writer)?;
//! let frame: Bytes = writer.finish()?.into_bytes().map_err(|_| "in memory")?;
//!
//! let mut reader = Reader::shared(&frame, Budget::for_request(frame.len()));
//! let head = RequestHead::decode(&mut reader)?;
//! let Request::Metadata(request) = Request::decode(head.key, head.version, reader)? else {
//!     return Err("another request".into());
//! };
//! assert_eq!(request.topics, None);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

mod api_key;
mod apis;
mod error;
mod error_code;
mod frame;
mod header;
#[path = "generated/mod.rs"]
pub mod messages;
mod reader;
mod records;
mod uuid;
mod versions;
mod writer;

pub use apis::{ApiMessage, ApiRequest};
pub use error::{DecodeError, EncodeError};
pub use error_code::ErrorCode;
pub use frame::{FrameDecoder, FrameError, FrameLimits};
pub use header::{HeaderError, RequestHead, decode_response_header, encode_response_header};
pub use messages::{ApiKey, Request, Response};
pub use reader::{Budget, Reader};
pub use records::{External, Payload, Records};
pub use uuid::Uuid;
pub use versions::VersionRange;
pub use writer::{Encoded, Tags, Writer};
