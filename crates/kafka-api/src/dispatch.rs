//! From a frame to the handler of its API.

use std::net::SocketAddr;
use std::sync::Arc;

use klamm_protocol::{ApiKey, Budget, HeaderError, Reader, RequestHead};

use crate::config::decode_bytes;
use crate::context::{ConnectionId, RequestContext, RequestMemory};
use crate::errors::{AnswerError, RequestError};
use crate::handlers::api_versions::answer_to_unknown_version;
use crate::intake::Frame;
use crate::memory::MemoryPermit;
use crate::table::{ApiTable, Dispatched, PendingAnswer};

/// What the structures around a kept payload may take, in bytes, whatever the length of the request.
const KEPT_DECODE_BYTES_MAX: usize = 1 << 20;

/// The client's end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) connection: ConnectionId,
    pub(crate) address: SocketAddr,
    /// The listener that it connected to.
    pub(crate) listener: Arc<str>,
}

/// What decoding `frame` may allocate, in bytes.
pub(crate) fn decode_bytes_of(table: &ApiTable, frame: &[u8]) -> usize {
    let key = frame.first_chunk().and_then(|code| ApiKey::from_code(i16::from_be_bytes(*code)));
    if key.is_some_and(|key| table.keeps_frame(key)) {
        frame.len().min(KEPT_DECODE_BYTES_MAX).saturating_add(4 << 10)
    } else {
        decode_bytes(frame.len())
    }
}

/// Decodes a request and hands it to its handler. `decoded` covers what [`decode_bytes_of`] told.
///
/// # Errors
/// Bytes that are no request which the table serves. No handler was entered then.
pub(crate) fn dispatch(
    table: &ApiTable,
    peer: &Peer,
    frame: Frame,
    decoded: MemoryPermit,
) -> Result<Dispatched, RequestError> {
    let budget = Budget::new(decode_bytes_of(table, &frame.bytes), Budget::REQUEST_ELEMENTS_MAX);
    let Frame { bytes, memory } = frame;
    let key = bytes.first_chunk().and_then(|code| ApiKey::from_code(i16::from_be_bytes(*code)));
    let keeps_frame = key.is_some_and(|key| table.keeps_frame(key));
    let mut reader = if keeps_frame { Reader::shared(&bytes, budget) } else { Reader::new(&bytes, budget) };
    let head = match RequestHead::decode(&mut reader) {
        Ok(head) => head,
        Err(HeaderError::UnsupportedVersion { key: ApiKey::ApiVersions, correlation_id, version }) => {
            return Ok(unknown_api_versions(version, correlation_id));
        }
        Err(error) => return Err(error.into()),
    };
    let RequestHead { key, version, correlation_id, client_id } = head;
    let row = table.row(key).ok_or(RequestError::NotServed { key })?;
    if !row.versions.contains(version) {
        return Err(RequestError::VersionNotServed { key, version, served: row.versions });
    }
    let (kept, passing) = if keeps_frame { (Some(memory), None) } else { (None, Some(memory)) };
    let context = RequestContext {
        connection: peer.connection,
        peer: peer.address,
        listener: peer.listener.clone(),
        key,
        version,
        correlation_id,
        client_id: client_id.map(Into::into),
        memory: RequestMemory::new(kept, decoded),
    };
    let dispatched = table.call(context, reader);
    drop(bytes);
    drop(passing);
    dispatched
}

fn unknown_api_versions(version: i16, correlation_id: i32) -> Dispatched {
    let key = ApiKey::ApiVersions;
    let answer = answer_to_unknown_version(correlation_id).map(|encoded| Some(encoded.into()));
    let sealed = answer.map_err(|source| AnswerError::Encode { key, version, source });
    Dispatched { accepted: None, answer: PendingAnswer::Now(Some(sealed)), served: None }
}
