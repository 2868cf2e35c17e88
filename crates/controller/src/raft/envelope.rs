//! The envelope around what Raft keeps beside its entries, and the only place that knows bincode.
//!
//! ```text
//!   0        4                  5             9              13           15               17
//!   magic    envelope version   payload len   CRC-32C        type         schema version   payload
//!   "KLRQ"   u8                 u32           u32            u16          u16              bincode, fixed integers
//! ```
//!
//! Integers of the envelope are big-endian; the checksum covers everything after itself. Each type and version that
//! was ever written is frozen: a change is a new struct with a new version, and the old one still decodes. An unknown
//! type or version is refused, never skipped.

use bincode::Options as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::EnvelopeError;

const MAGIC: [u8; 4] = *b"KLRQ";
const ENVELOPE_VERSION: u8 = 1;
const HEADER_LEN: usize = 17;
/// Where the bytes start that the checksum covers.
const CHECKED_AT: usize = 13;
/// The most bytes of a payload: a membership of ten thousand nodes has fewer.
const PAYLOAD_BYTES_MAX: u64 = 1 << 20;

/// A struct that is written to the disk, as its type and version.
pub(super) trait Durable: Serialize + DeserializeOwned {
    /// What it is. Never reused.
    const RECORD_TYPE: u16;
    /// The version of its layout.
    const SCHEMA_VERSION: u16;
}

fn options() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .reject_trailing_bytes()
        .with_limit(PAYLOAD_BYTES_MAX)
}

/// Appends `record` in its envelope to `bytes`.
pub(super) fn seal<T: Durable>(record: &T, bytes: &mut Vec<u8>) -> Result<(), EnvelopeError> {
    let payload = options()
        .serialize(record)
        .map_err(|source| EnvelopeError::Payload { record_type: T::RECORD_TYPE, source })?;
    let len = u32::try_from(payload.len()).map_err(|_| too_long(payload.len() as u64))?;
    let mut checked = Vec::with_capacity(4 + payload.len());
    checked.extend_from_slice(&T::RECORD_TYPE.to_be_bytes());
    checked.extend_from_slice(&T::SCHEMA_VERSION.to_be_bytes());
    checked.extend_from_slice(&payload);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(ENVELOPE_VERSION);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&checked).to_be_bytes());
    bytes.extend_from_slice(&checked);
    Ok(())
}

/// Reads the envelope at the start of `bytes`, which must hold a `T`; returns it and what follows.
pub(super) fn open<T: Durable>(bytes: &[u8]) -> Result<(T, &[u8]), EnvelopeError> {
    let truncated = |needed| EnvelopeError::Truncated { len: bytes.len(), needed };
    let (header, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(truncated(HEADER_LEN))?;
    let &[m0, m1, m2, m3, version, l0, l1, l2, l3, c0, c1, c2, c3, t0, t1, s0, s1] = header;
    let found = [m0, m1, m2, m3];
    if found != MAGIC {
        return Err(EnvelopeError::Magic { found });
    }
    if version != ENVELOPE_VERSION {
        return Err(EnvelopeError::EnvelopeVersion { version });
    }
    let len = u32::from_be_bytes([l0, l1, l2, l3]);
    if u64::from(len) > PAYLOAD_BYTES_MAX {
        return Err(too_long(u64::from(len)));
    }
    let end = HEADER_LEN + len as usize;
    let (envelope, rest) = bytes.split_at_checked(end).ok_or(truncated(end))?;
    let found = u32::from_be_bytes([c0, c1, c2, c3]);
    let computed = crc32c::crc32c(envelope.get(CHECKED_AT..).unwrap_or_default());
    if found != computed {
        return Err(EnvelopeError::Crc { found, computed });
    }
    let record_type = u16::from_be_bytes([t0, t1]);
    if record_type != T::RECORD_TYPE {
        return Err(EnvelopeError::RecordType { found: record_type, expected: T::RECORD_TYPE });
    }
    let version = u16::from_be_bytes([s0, s1]);
    if version != T::SCHEMA_VERSION {
        return Err(EnvelopeError::SchemaVersion { record_type, version });
    }
    let payload = envelope.get(HEADER_LEN..).unwrap_or_default();
    let record =
        options().deserialize(payload).map_err(|source| EnvelopeError::Payload { record_type, source })?;
    Ok((record, rest))
}

/// Reads bytes that are one envelope with a `T` and nothing else.
pub(super) fn open_only<T: Durable>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    match open(bytes)? {
        (record, []) => Ok(record),
        (_, rest) => Err(EnvelopeError::Trailing { len: rest.len() }),
    }
}

fn too_long(len: u64) -> EnvelopeError {
    EnvelopeError::Length { len, max: PAYLOAD_BYTES_MAX }
}

#[cfg(test)]
#[path = "envelope_test.rs"]
mod tests;
