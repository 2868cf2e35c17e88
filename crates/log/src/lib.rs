//! Segmented storage: the log of a partition, and of the metadata quorum.
//!
//! **For:** keeping batches in order, durably, and finding them again; in Kafka's on-disk formats.
//!
//! **Not for:** deciding who leads, what is committed, or which topics exist. Nothing here is asynchronous.
//!
//! **Called by:** the broker (partitions), the controller (the Raft log), the tools. **Calls:** `klamm-types`,
//! `klamm-record`, and the disk through [`fs::LogFs`] alone.
//!
//! Start at [`Log`]; its picture names the offsets. [`LogManager`] keeps many of them in several directories.
//!
//! # Invariants
//! - INV9: log start <= high watermark <= log end; flushed end <= log end; recovery point <= flushed end.
//! - INV10: the leader epochs are strictly increasing, and agree with those of the batches.
//! - Nothing that [`Log::flushed_end_offset`] covers is lost by a crash; nothing is called flushed that a crash may
//!   lose.
//! - A directory whose disk failed a write or a sync accepts nothing any more.
//! - Damage below the flush point is reported, never cut off.

pub mod checkpoint;
pub mod fs;
pub mod inspect;

mod append;
mod config;
mod dir;
mod error;
mod file_cache;
mod flush;
mod flusher;
mod index;
mod log;
mod maintenance;
mod manager;
mod names;
mod producers;
mod read;
mod ready;
mod recovery;
mod retention;
mod room;
mod scan;
mod segment;
mod time_lookup;
mod truncate;

pub use append::{AppendInfo, AppendOrigin, Duplicate, PreparedAppend};
pub use config::*;
pub use dir::{FailureListener, LOG_START_FILE, LogDir, RECOVERY_POINT_FILE};
pub use error::{AppendError, DirOffline, LogError, ProducerError, ReadError, StorageError};
pub use file_cache::FileCache;
pub use flush::FlushListener;
pub use flusher::{FlushQueue, Flusher};
pub use index::{AbortedTxn, OffsetEntry, TimeEntry};
pub use log::{DamagedRange, Log, ProducerLimits};
pub use manager::{
    DirContent, DirStart, HIGH_WATERMARK_FILE, LogManager, LogStart, METADATA_DIR, ManagerError,
    ManagerOptions, StartReport,
};
pub use names::{FileKind, segment_file_name};
pub use producers::{BatchMetadata, ProducerEntry};
pub use read::{FetchIsolation, LogSlice, ReadOutcome, TimestampedOffset};
pub use recovery::{FlushPoint, OpenOptions, RecoveryReport};
