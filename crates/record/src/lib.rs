//! The record batch of Kafka, version 2 (KIP-98), as a view over bytes.
//!
//! **For:** reading, building, checking and converting batches; the codecs they are compressed with.
//!
//! **Not for:** files, sockets and clocks; the older message formats 0 and 1, which Kafka 4 no longer stores.
//!
//! **Called by:** the log, the broker, the coordinators, the client. **Calls:** `klamm-types`.
//!
//! ```text
//!   0            8        12             16    17    21           23                 27              35
//!   base offset  length   leader epoch   magic crc   attributes   last offset delta  base timestamp  max timestamp
//!   i64          i32      i32            i8    u32   i16          i32                i64             i64
//!
//!   43           51              53              57            61
//!   producer id  producer epoch  base sequence   record count  records, compressed as a whole
//!   i64          i16             i32             i32
//! ```
//!
//! `length` counts what follows it. The CRC-32C covers everything from `attributes` to the end, so that a leader
//! assigns base offset and leader epoch without touching the payload.
//!
//! A batch comes from elsewhere: whatever its bytes are, this crate answers with a typed error, never panics, and
//! takes no more memory than its documented limits.

mod batch;
mod builder;
mod compress;
mod compression;
mod control;
mod crc;
mod decompress;
mod error;
mod header;
mod patched;
mod recompress;
mod record;
mod scan;
mod validate;
mod varint;

pub use batch::{Batches, RecordBatch, RecordBatchMut};
pub use builder::{BatchBuilder, BuildError, NewRecord};
pub use compress::{CompressError, Compressor};
pub use compression::{Codec, Compression, CompressionError};
pub use control::{ControlError, ControlRecord, EndTxnMarker, TransactionResult};
pub use decompress::{CodecError, CodecMemory, Decompressor};
pub use error::{BatchError, RecordError};
pub use header::{Attributes, BatchHeader, HEADER_LEN, LOG_OVERHEAD, TimestampType};
pub use patched::PatchedHeader;
pub use recompress::{RecompressError, recompress};
pub use record::{Headers, Record, Records};
pub use validate::{Origin, Refusal, Validated, ValidationError, ValidationOptions, validate, validate_with};
