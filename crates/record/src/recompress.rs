//! The same records under another codec (`compression.type` of a topic).

use crate::batch::RecordBatch;
use crate::builder::{self, BuildError};
use crate::compress::{CompressError, Compressor};
use crate::compression::Compression;
use crate::decompress::{CodecError, Decompressor};
use crate::error::BatchError;
use crate::header::{ATTRIBUTES_AT, HEADER_LEN};

/// Why a batch cannot be given another codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecompressError {
    /// The batch cannot be read.
    #[error(transparent)]
    Read(#[from] BatchError),
    /// The batch cannot be written.
    #[error(transparent)]
    Write(#[from] BuildError),
}

impl From<CodecError> for RecompressError {
    fn from(error: CodecError) -> Self {
        Self::Read(error.into())
    }
}

impl From<CompressError> for RecompressError {
    fn from(error: CompressError) -> Self {
        Self::Write(error.into())
    }
}

/// Rewrites `batch` with another codec. The records themselves, and so offsets, timestamps and headers, are the same
/// bytes, and every field of the header is kept but codec, length and CRC.
///
/// The payload goes from decompressor to compressor piece by piece. The records are not looked at, nor is the CRC of
/// `batch`: [`validate`](crate::validate) first what comes from elsewhere.
///
/// # Errors
/// [`RecompressError::Read`] if the payload is malformed or becomes more than `decompressed_bytes_max` bytes;
/// [`RecompressError::Write`] if the new batch would be too large.
pub fn recompress(
    batch: &RecordBatch<'_>,
    compression: Compression,
    decompressed_bytes_max: u64,
) -> Result<Vec<u8>, RecompressError> {
    let codec = batch.attributes().compression()?;
    let mut decompressor = Decompressor::new(codec, batch.payload(), decompressed_bytes_max)?;
    let header = batch.bytes().get(..HEADER_LEN).unwrap_or_default().to_vec();
    let mut compressor = Compressor::new(compression, header)?;
    while decompressor.advance()? {
        compressor.write(decompressor.chunk())?;
    }
    let mut bytes = compressor.finish()?;
    let attributes = batch.attributes().with_codec(compression.codec());
    builder::put(&mut bytes, ATTRIBUTES_AT, attributes.0.to_be_bytes());
    builder::seal(&mut bytes)?;
    Ok(bytes)
}
