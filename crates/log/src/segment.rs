//! One segment: a file of batches and its three indexes.
//!
//! A segment knows its base offset, how to append, read, look up and cut. It has no idea of leaders, watermarks or
//! recovery. One writer appends; readers see whatever lies below the published [`size`](Segment::size).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use klamm_record::BatchHeader;
use klamm_types::{Offset, Timestamp};

use crate::dir::PartitionDir;
use crate::error::{Describe as _, ReadError, StorageError};
use crate::file_cache::CachedFile;
use crate::fs::{LogFile, OpenMode, write_all_at};
use crate::index::{AbortedTxn, Index, OffsetEntry, TimeEntry};
use crate::names::FileKind;
use crate::scan::{BatchScanner, ScanError, Scanned};

/// The largest timestamp of a segment and the last offset of the batch that has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MaxTimestamp {
    pub(crate) timestamp: Timestamp,
    pub(crate) offset: Offset,
}

impl MaxTimestamp {
    pub(crate) const NONE: Self = Self { timestamp: Timestamp::NONE, offset: Offset(-1) };

    /// Takes a batch into account; the earliest of equal timestamps stays.
    pub(crate) fn include(&mut self, header: &BatchHeader) {
        if header.max_timestamp() > self.timestamp {
            *self = Self { timestamp: header.max_timestamp(), offset: header.last_offset() };
        }
    }
}

/// A segment of a log.
#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: Offset,
    log: Arc<CachedFile>,
    pub(crate) offsets: Index<OffsetEntry>,
    pub(crate) times: Index<TimeEntry>,
    pub(crate) txns: Index<AbortedTxn>,
    /// Bytes of the log file that readers may see.
    size: AtomicU64,
    /// `None` until somebody asks, in a segment that was loaded.
    max_timestamp: Mutex<Option<MaxTimestamp>>,
}

impl Segment {
    /// A new segment, whose files appear with the first append.
    pub(crate) fn create(dir: &Arc<PartitionDir>, base_offset: Offset) -> Arc<Self> {
        Arc::new(Self {
            base_offset,
            log: CachedFile::new(Arc::clone(dir), base_offset, FileKind::Log),
            offsets: Index::create(dir, base_offset),
            times: Index::create(dir, base_offset),
            txns: Index::create(dir, base_offset),
            size: AtomicU64::new(0),
            max_timestamp: Mutex::new(Some(MaxTimestamp::NONE)),
        })
    }

    /// A new segment whose log file is made at once, empty: its name tells where the log goes on.
    pub(crate) fn create_file(
        dir: &Arc<PartitionDir>,
        base_offset: Offset,
    ) -> Result<Arc<Self>, StorageError> {
        let segment = Self::create(dir, base_offset);
        segment.create_log()?;
        Ok(segment)
    }

    /// A segment whose log file exists and has `size` bytes. Nothing is read yet.
    pub(crate) fn load(dir: &Arc<PartitionDir>, base_offset: Offset, size: u64) -> Arc<Self> {
        Arc::new(Self {
            base_offset,
            log: CachedFile::new(Arc::clone(dir), base_offset, FileKind::Log),
            offsets: Index::load(dir, base_offset),
            times: Index::load(dir, base_offset),
            txns: Index::load(dir, base_offset),
            size: AtomicU64::new(size),
            max_timestamp: Mutex::new(None),
        })
    }

    /// The offset that names the segment; no record in it has a smaller one.
    pub(crate) fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Bytes that readers may see.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Lets readers see the first `size` bytes.
    pub(crate) fn publish_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    pub(crate) fn log(&self) -> &Arc<CachedFile> {
        &self.log
    }

    /// The open log file. It must exist.
    pub(crate) fn open_log(&self) -> Result<Arc<dyn LogFile>, StorageError> {
        self.log.open(OpenMode::Write)
    }

    /// Writes `bytes` behind what readers see, without showing them. On a full disk the file is as before.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), StorageError> {
        let size = self.size();
        let file = if size == 0 { self.create_log()? } else { self.open_log()? };
        let written = write_all_at(file.as_ref(), bytes, size);
        // Only now: a sync that ran meanwhile may have missed some of the bytes.
        self.log.mark_written(&file);
        let Err(error) = written else { return Ok(()) };
        let error = StorageError { verb: "write", path: self.log.path(), source: error };
        if error.is_full() {
            // Bytes past the published size would look like a torn write after a crash. If even this fails, the
            // caller must not go on.
            file.set_len(size).describe("truncate", &self.log.path())?;
        }
        Err(error)
    }

    /// Creates the log file of a segment that has no bytes; whatever stood under its name is gone.
    pub(crate) fn create_log(&self) -> Result<Arc<dyn LogFile>, StorageError> {
        let file = self.log.open(OpenMode::Truncate)?;
        file.set_len(0).describe("truncate", &self.log.path())?;
        Ok(file)
    }

    /// The relative form of `offset` in the indexes; `None` if it is too far from the base offset.
    pub(crate) fn relative(&self, offset: Offset) -> Option<u32> {
        let distance = offset.0.checked_sub(self.base_offset.0)?;
        u32::try_from(distance).ok().filter(|relative| i32::try_from(*relative).is_ok())
    }

    fn absolute(&self, relative: u32) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(relative)))
    }

    /// The first batch that ends at or past `offset`, among the first `end` bytes.
    ///
    /// An index entry that does not match the batch it points to is not believed: then the segment is walked from
    /// its start.
    pub(crate) fn locate(&self, offset: Offset, end: u64) -> Result<Option<Scanned>, ReadError> {
        if end == 0 {
            return Ok(None);
        }
        let target = offset.0.saturating_sub(self.base_offset.0);
        let entry = self.offsets.floor(|entry| i64::from(entry.relative_offset) <= target)?;
        let file = self.open_log()?;
        let walk = |start: u64, entry: Option<&OffsetEntry>| {
            let mut scanner = BatchScanner::new(file.as_ref(), start, end, BatchScanner::LOOKUP_BUFFER);
            while let Some(batch) = scanner.next()? {
                let is_entry =
                    |entry: &OffsetEntry| self.absolute(entry.relative_offset) == batch.header.last_offset();
                if batch.position == start && entry.is_some_and(|entry| !is_entry(entry)) {
                    return Ok(Walk::IndexLies);
                }
                if batch.header.last_offset() >= offset {
                    return Ok(Walk::Found(batch));
                }
            }
            Ok(Walk::End)
        };
        let from_entry = match entry {
            Some(entry) => walk(u64::from(entry.position), Some(&entry)),
            None => walk(0, None),
        };
        let from_entry = match from_entry {
            Ok(Walk::IndexLies) => walk(0, None),
            // The entry's own batch does not parse: either the entry lies or the batch is damaged.
            Err(ScanError::Damaged { position, .. })
                if entry.is_some_and(|e| u64::from(e.position) == position) =>
            {
                walk(0, None)
            }
            other => other,
        };
        match from_entry {
            Ok(Walk::Found(batch)) => Ok(Some(batch)),
            Ok(Walk::End | Walk::IndexLies) => Ok(None),
            Err(error) => Err(self.read_error(error)),
        }
    }

    pub(crate) fn read_error(&self, error: ScanError) -> ReadError {
        let path = self.log.path();
        match error {
            ScanError::Damaged { position, reason } => ReadError::Corrupt { path, position, reason },
            ScanError::Io(source) => StorageError { verb: "read", path, source }.into(),
        }
    }

    /// The largest timestamp of the segment.
    pub(crate) fn max_timestamp(&self) -> Result<MaxTimestamp, StorageError> {
        let known = *self.max_timestamp.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known {
            return Ok(known);
        }
        let last = self.times.last()?;
        let found = last.map_or(MaxTimestamp::NONE, |entry| MaxTimestamp {
            timestamp: entry.timestamp,
            offset: self.absolute(entry.relative_offset),
        });
        self.set_max_timestamp(found);
        Ok(found)
    }

    pub(crate) fn set_max_timestamp(&self, max: MaxTimestamp) {
        *self.max_timestamp.lock().unwrap_or_else(PoisonError::into_inner) = Some(max);
    }

    /// Where a search for the first record at or after `target` may start: no batch before this offset has a
    /// timestamp that large.
    pub(crate) fn time_floor(&self, target: Timestamp) -> Result<Offset, StorageError> {
        let entry = self.times.floor(|entry| entry.timestamp < target)?;
        Ok(entry.map_or(self.base_offset, |entry| self.absolute(entry.relative_offset)))
    }

    /// Writes the indexes' unwritten entries to their files.
    pub(crate) fn spill_indexes(&self) -> Result<(), StorageError> {
        self.offsets.spill()?;
        self.times.spill()?;
        self.txns.spill()
    }

    /// Makes the batches durable, and with `indexes` also what the index files hold.
    pub(crate) fn sync(&self, indexes: bool) -> Result<(), StorageError> {
        self.log.sync()?;
        if indexes {
            self.offsets.file().sync()?;
            self.times.file().sync()?;
            self.txns.file().sync()?;
        }
        Ok(())
    }

    fn files(&self) -> [&Arc<CachedFile>; 4] {
        [&self.log, self.offsets.file(), self.times.file(), self.txns.file()]
    }

    /// Whether any of the files is open.
    pub(crate) fn has_open_files(&self) -> bool {
        self.files().into_iter().any(|file| file.is_open())
    }

    /// Closes the files; the log file only if it holds nothing unsynced, whose loss a later open might not learn of.
    pub(crate) fn close_files(&self) {
        self.log.close_if_clean();
        for index in [self.offsets.file(), self.times.file(), self.txns.file()] {
            index.close();
        }
    }

    /// Renames all files to `*.deleted`: whoever has them open reads on.
    pub(crate) fn rename_to_deleted(&self) -> Result<(), StorageError> {
        self.files().into_iter().try_for_each(|file| file.rename_to_deleted())
    }

    /// Removes all files.
    pub(crate) fn remove_files(&self) -> Result<(), StorageError> {
        self.files().into_iter().try_for_each(|file| file.remove())
    }
}

/// How a walk in search of an offset ended.
enum Walk {
    Found(Scanned),
    End,
    IndexLies,
}
