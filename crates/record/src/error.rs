//! What can be wrong with a batch and its records.

use klamm_types::Offset;

use crate::builder::BuildError;
use crate::compress::CompressError;
use crate::compression::CompressionError;
use crate::control::ControlError;
use crate::decompress::CodecError;
use crate::recompress::RecompressError;
use crate::scan::Fault;

/// Nothing here depends on anything but its input; only a receiver may hope that bytes were damaged on their way, see
/// [`ValidationError::is_retryable`](crate::ValidationError::is_retryable).
macro_rules! never_retryable {
    ($($error:ty),*) => {$(
        impl $error {
            /// Whether trying again may help. Never: equal input gives the same error again.
            #[must_use]
            pub fn is_retryable(&self) -> bool {
                false
            }
        }
    )*};
}

never_retryable!(
    BatchError,
    BuildError,
    CodecError,
    CompressError,
    CompressionError,
    ControlError,
    RecompressError,
    RecordError
);

/// Why bytes are no readable batch. None of these goes away by reading the same bytes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The slice ends within the batch.
    #[error("record batch is truncated: {have} bytes of {need}")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes the batch needs, as far as is known: [`HEADER_LEN`](crate::HEADER_LEN), or the whole batch.
        need: usize,
    },
    /// The magic byte is not 2.
    #[error("record batch has magic {magic}, not 2")]
    Magic {
        /// The magic byte; 0 and 1 are the formats before Kafka 0.11.
        magic: i8,
    },
    /// The length field does not even cover the header.
    #[error("record batch has length {length}, less than its header")]
    Length {
        /// The length field.
        length: i32,
    },
    /// Base offset and last offset delta make no range of offsets.
    #[error("record batch at offset {base_offset} has last offset delta {last_offset_delta}")]
    OffsetRange {
        /// The base offset field.
        base_offset: Offset,
        /// The last offset delta field.
        last_offset_delta: i32,
    },
    /// The bytes are not those the CRC was computed over.
    #[error("record batch has crc {computed:08x}, but says {stored:08x}")]
    Crc {
        /// The field of the header.
        stored: u32,
        /// The CRC-32C of the bytes as they are.
        computed: u32,
    },
    /// The attributes name a codec that does not exist.
    #[error("record batch has unknown codec {codec}")]
    UnknownCodec {
        /// The codec's number: 5, 6 or 7.
        codec: u8,
    },
    /// The records cannot be decompressed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The record at this position of the batch is malformed.
    #[error("record {index} of the batch: {error}")]
    Record {
        /// The record's position in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        #[source]
        error: RecordError,
    },
    /// The header's record count is negative.
    #[error("record batch has record count {count}")]
    RecordCount {
        /// The record count field.
        count: i32,
    },
    /// Bytes follow the last record that the header counts.
    #[error("record batch goes on after its {count} records")]
    Surplus {
        /// The record count field.
        count: i32,
    },
}

impl BatchError {
    pub(crate) fn at(index: u32, fault: Fault) -> Self {
        match fault {
            Fault::Record(error) => Self::Record { index, error },
            Fault::Codec(error) => Self::Codec(error),
        }
    }
}

/// What is wrong with one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The records end before this one, or within it.
    #[error("the records end too early")]
    Missing,
    /// The length field is negative.
    #[error("its length is {length}")]
    Length {
        /// The length field.
        length: i32,
    },
    /// The length field ends the record within a field.
    #[error("it is longer than its length")]
    Overrun,
    /// The length field ends the record after its last field.
    #[error("it is shorter than its length")]
    Surplus,
    /// A variable-length integer has too many bytes, or more bits than its type.
    #[error("an integer in it is too long")]
    Varint,
    /// The key's length is below -1.
    #[error("its key has length {length}")]
    KeyLength {
        /// The length field.
        length: i32,
    },
    /// The value's length is below -1.
    #[error("its value has length {length}")]
    ValueLength {
        /// The length field.
        length: i32,
    },
    /// The number of headers is negative.
    #[error("it has {count} headers")]
    HeaderCount {
        /// The count field.
        count: i32,
    },
    /// A header's key is null or has a negative length.
    #[error("a header's key has length {length}")]
    HeaderKeyLength {
        /// The length field.
        length: i32,
    },
    /// A header's value has a length below -1.
    #[error("a header's value has length {length}")]
    HeaderValueLength {
        /// The length field.
        length: i32,
    },
    /// The offset delta leads out of the batch's range of offsets.
    #[error("its offset delta is {offset_delta}")]
    OffsetDelta {
        /// The offset delta field.
        offset_delta: i32,
    },
    /// The timestamp delta leads out of the range of timestamps.
    #[error("its timestamp delta is {timestamp_delta}")]
    TimestampDelta {
        /// The timestamp delta field.
        timestamp_delta: i64,
    },
}
