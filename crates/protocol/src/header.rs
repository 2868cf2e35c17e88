//! What stands before a request or response body.

use crate::messages::{RequestHeader, ResponseHeader};
use crate::{ApiKey, DecodeError, EncodeError, Reader, Writer};

/// A request that is known to this build, before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The API.
    pub key: ApiKey,
    /// The version of the body; one that can be decoded.
    pub version: i16,
    /// What the answer must carry; any number, not necessarily unique.
    pub correlation_id: i32,
    /// What the client calls itself, up to 32,767 bytes of its choosing.
    pub client_id: Option<String>,
}

/// Why a frame is no request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// No such API; the shape of its header is unknown, so there is nothing to answer.
    #[error("unknown API {code}")]
    UnknownApi {
        /// The number in the frame.
        code: i16,
    },
    /// The API is known, the version is not. For [`ApiKey::ApiVersions`] an answer in version 0 is due
    /// (KIP-511), for all others the connection ends.
    #[error("{key} has no version {version}")]
    UnsupportedVersion {
        /// The API.
        key: ApiKey,
        /// The version in the frame.
        version: i16,
        /// What an answer must carry.
        correlation_id: i32,
    },
    /// The bytes are no header.
    #[error("malformed request header: {0}")]
    Malformed(#[from] DecodeError),
}

impl HeaderError {
    /// Never: the client must send another request.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl RequestHead {
    /// Reads the header and leaves `reader` at the body.
    ///
    /// # Errors
    /// [`HeaderError`]; key and version are judged before anything else is read.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, HeaderError> {
        let code = reader.int16()?;
        let version = reader.int16()?;
        let key = ApiKey::from_code(code).ok_or(HeaderError::UnknownApi { code })?;
        let correlation_id = reader.int32()?;
        if !key.versions().contains(version) {
            return Err(HeaderError::UnsupportedVersion { key, version, correlation_id });
        }
        let client_id = reader.optional_string(false)?;
        if key.request_header_version(version) >= 2 {
            reader.skip_tagged_fields()?;
        }
        Ok(Self { key, version, correlation_id, client_id })
    }

    /// Writes the header in the version that the API and its version ask for.
    ///
    /// # Errors
    /// A client id that is too long.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let header = RequestHeader {
            request_api_key: self.key.code(),
            request_api_version: self.version,
            correlation_id: self.correlation_id,
            client_id: self.client_id.clone(),
        };
        header.encode(self.key.request_header_version(self.version), writer)
    }
}

/// Writes the header of a response to a request of `key` and `version`.
///
/// # Errors
/// None in practice: both header versions can carry every correlation id.
pub fn encode_response_header(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    writer: &mut Writer,
) -> Result<(), EncodeError> {
    ResponseHeader { correlation_id }.encode(key.response_header_version(version), writer)
}

/// Reads the header of a response to a request of `key` and `version`: the correlation id.
///
/// # Errors
/// A malformed header.
pub fn decode_response_header(
    key: ApiKey,
    version: i16,
    reader: &mut Reader<'_>,
) -> Result<i32, DecodeError> {
    Ok(ResponseHeader::decode(key.response_header_version(version), reader)?.correlation_id)
}

#[cfg(test)]
#[path = "header_test.rs"]
mod tests;
