//! What can be wrong with a batch.

use klamm_types::Offset;

/// Why bytes are no readable batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The record at this position of the batch is malformed.
    #[error("record {index} of the batch: {error}")]
    Record {
        /// The record's position in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        #[source]
        error: RecordError,
    },
}

/// What is wrong with one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The records end before the one expected here, or within it.
    #[error("the records end too early")]
    Missing,
}
