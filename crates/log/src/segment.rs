//! One segment: a file of batches and its three indexes.
//!
//! A segment knows its base offset, how to append, read, look up and cut. It has no idea of leaders, watermarks or
//! recovery. One writer appends; readers see whatever lies below the published [`size`](Segment::size).

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use klamm_record::{BatchError, BatchHeader};
use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::dir::PartitionDir;
use crate::error::{Describe as _, ReadError, StorageError};
use crate::file_cache::CachedFile;
use crate::fs::{LogFile, OpenMode, write_all_vectored_at};
use crate::index::{AbortedTxn, Index, OffsetEntry, TimeEntry};
use crate::names::FileKind;
use crate::scan::{BatchScanner, Fit, Promise, ScanError, Scanned, Sound, SoundScanner};

/// Whether a segment at `base` cannot hold what comes right before the one at `next_base`: then there is a gap between
/// them. No such segment is made before everything that comes before it is durable.
pub(crate) fn is_out_of_reach(base: Offset, next_base: Offset) -> bool {
    base.distance_to(next_base) > u64::from(i32::MAX.unsigned_abs()) + 1
}

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

    /// Writes `parts` behind what readers see, without showing them. On a full disk the file is as before.
    pub(crate) fn write(&self, parts: &mut [IoSlice<'_>]) -> Result<(), StorageError> {
        let size = self.size();
        let file = if size == 0 { self.create_log()? } else { self.open_log()? };
        let written = write_all_vectored_at(file.as_ref(), parts, size);
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

    /// The batches from `position` on, past damage.
    pub(crate) fn batches<'f>(
        &self,
        file: &'f dyn LogFile,
        position: u64,
        buffer: usize,
    ) -> SoundScanner<'f> {
        let fit = Fit { expected: self.base_offset, epoch: LeaderEpoch::NONE, end: None };
        SoundScanner::new(file, position..self.size(), fit, buffer).starting_known(position > 0)
    }

    /// The first batch that ends at or past `offset`, among the first `end` bytes.
    ///
    /// An index entry that does not match the batch it points to is not believed: then the segment is walked from
    /// its start. Batches behind damage are found; an offset within damage is [`ReadError::Corrupt`].
    pub(crate) fn locate(&self, offset: Offset, end: u64) -> Result<Option<Scanned>, ReadError> {
        match self.seek(offset, end)? {
            Place::Batch(batch) => Ok(Some(batch)),
            Place::End => Ok(None),
            Place::Damage { position, reason } => {
                Err(ReadError::Corrupt { path: self.log.path(), position, reason })
            }
        }
    }

    /// Where, among the first `end` bytes, the batch starts that [`locate`](Self::locate) finds, or the damage in which
    /// `offset` lies; `end` if there is neither.
    pub(crate) fn position_of(&self, offset: Offset, end: u64) -> Result<u64, StorageError> {
        Ok(match self.seek(offset, end)? {
            Place::Batch(batch) => batch.position,
            Place::Damage { position, .. } => position,
            Place::End => end,
        })
    }

    /// Where `offset` is, or would be, among the first `end` bytes.
    pub(crate) fn seek(&self, offset: Offset, end: u64) -> Result<Place, StorageError> {
        if end == 0 {
            return Ok(Place::End);
        }
        let target = offset.0.saturating_sub(self.base_offset.0);
        let entry = self.offsets.floor(|entry| i64::from(entry.relative_offset) <= target)?;
        let file = self.open_log()?;
        let mut start = entry.map_or(0, |entry| u64::from(entry.position));
        let mut walked = self.walk_to(offset, file.as_ref(), entry, end);
        if entry.is_some() && matches!(walked, Ok(Walk::IndexLies)) {
            start = 0;
            walked = self.walk_to(offset, file.as_ref(), None, end);
        }
        let place = match walked {
            Ok(Walk::Found(batch)) => Ok(Place::Batch(batch)),
            Ok(Walk::End) => Ok(Place::End),
            Ok(Walk::Doubtful | Walk::IndexLies) => self.seek_past_damage(offset, file.as_ref(), start..end),
            Err(error) => Err(error),
        };
        place.describe("read", &self.log.path())
    }

    /// Where the last batch before `position` ends, the start of a batch or the end of the file; the base offset if
    /// there is none. `None` if damage stands there.
    pub(crate) fn end_before(&self, position: u64) -> Result<Option<Offset>, StorageError> {
        if position == 0 {
            return Ok(Some(self.base_offset));
        }
        let entry = self.offsets.floor(|entry| u64::from(entry.position) < position)?;
        let file = self.open_log()?;
        let start = entry.map_or(0, |entry| u64::from(entry.position));
        let mut scanner = BatchScanner::new(file.as_ref(), start, position, BatchScanner::LOOKUP_BUFFER);
        let mut end = None;
        loop {
            match scanner.next() {
                Ok(Some(batch)) => end = Some(batch.header.next_offset()),
                Ok(None) => return Ok(end),
                Err(ScanError::Damaged { .. }) => return Ok(None),
                Err(ScanError::Io(source)) => {
                    return Err(StorageError { verb: "read", path: self.log.path(), source });
                }
            }
        }
    }

    /// Walks from an index entry to the batch that ends at or past `offset`, for as long as all is as it should be.
    fn walk_to(
        &self,
        offset: Offset,
        file: &dyn LogFile,
        entry: Option<OffsetEntry>,
        end: u64,
    ) -> io::Result<Walk> {
        let start = entry.map_or(0, |entry| u64::from(entry.position));
        let mut expected = self.base_offset;
        let mut scanner = BatchScanner::new(file, start, end, BatchScanner::LOOKUP_BUFFER);
        let mut is_first = true;
        loop {
            let is_entrys = entry.is_some() && std::mem::take(&mut is_first);
            let header = match scanner.next() {
                Ok(Some(batch))
                    if is_entrys && !entry.is_some_and(|entry| self.is_at(entry, &batch.header)) =>
                {
                    return Ok(Walk::IndexLies);
                }
                Ok(Some(batch)) if batch.header.last_offset() >= offset => {
                    let base_offset = batch.header.base_offset();
                    let is_next = is_entrys || base_offset == expected;
                    return Ok(if is_next && base_offset == offset {
                        Walk::Found(batch)
                    } else {
                        Walk::Doubtful
                    });
                }
                Ok(Some(batch)) => batch.header,
                Ok(None) => return Ok(Walk::End),
                // Either the entry lies, or its batch is damaged.
                Err(ScanError::Damaged { .. }) if is_entrys => return Ok(Walk::IndexLies),
                Err(ScanError::Damaged { .. }) => return Ok(Walk::Doubtful),
                Err(ScanError::Io(error)) => return Err(error),
            };
            if header.base_offset() < expected {
                return Ok(Walk::Doubtful);
            }
            expected = header.next_offset();
        }
    }

    fn is_at(&self, entry: OffsetEntry, header: &BatchHeader) -> bool {
        self.absolute(entry.relative_offset) == header.last_offset()
    }

    /// As [`seek`](Self::seek), slowly: every batch is checked, and compared with its neighbours.
    fn seek_past_damage(
        &self,
        offset: Offset,
        file: &dyn LogFile,
        range: std::ops::Range<u64>,
    ) -> io::Result<Place> {
        let fit = Fit { expected: self.base_offset, epoch: LeaderEpoch::NONE, end: None };
        // A batch is judged by those after it, also by such as the caller must not see.
        let all = range.start..self.size().max(range.end);
        let mut batches = SoundScanner::new(file, all, fit, BatchScanner::LOOKUP_BUFFER)
            .promised(Promise::Everything, None)
            .starting_known(range.start > 0);
        let mut damage = None;
        while let Some(next) = batches.next()? {
            match next {
                Sound::Batch(batch) if batch.header.last_offset() < offset => damage = None,
                Sound::Batch(batch) => {
                    if batch.header.base_offset() > offset && damage.is_some() {
                        break;
                    }
                    return Ok(if batch.position < range.end { Place::Batch(batch) } else { Place::End });
                }
                Sound::Damage { position, reason } => damage = damage.or(Some((position, reason))),
                Sound::Torn { .. } => break,
            }
        }
        Ok(match damage {
            Some((position, reason)) if position < range.end => Place::Damage { position, reason },
            _ => Place::End,
        })
    }

    /// The error of a batch that claims offsets which are not those of its place.
    pub(crate) fn displaced(&self, batch: &Scanned) -> ReadError {
        let reason = BatchError::OffsetRange {
            base_offset: batch.header.base_offset(),
            last_offset_delta: batch.header.last_offset_delta(),
        };
        ReadError::Corrupt { path: self.log.path(), position: batch.position, reason }
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

/// Where an offset is in a segment.
#[derive(Debug)]
pub(crate) enum Place {
    /// In this batch, or right before it if no batch has it.
    Batch(Scanned),
    /// In the damage that starts at `position`.
    Damage { position: u64, reason: BatchError },
    /// Past all batches.
    End,
}

/// How a walk in search of an offset ended.
enum Walk {
    Found(Scanned),
    End,
    /// The batch that the index entry points to is not there.
    IndexLies,
    /// A batch on the way is not what it should be, or none starts at the offset: is that a gap, or damage?
    Doubtful,
}
