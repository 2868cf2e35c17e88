//! Walking a file of batches that may be damaged anywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_record::{BatchError, BatchHeader, HEADER_LEN};
use klamm_types::Offset;

use super::{BATCH_BYTES_MAX, ContentKind, InspectError};
use crate::error::{Describe as _, StorageError};
use crate::fs::{LogFile, LogFs, OpenMode, read_up_to_at};
use crate::scan::{BatchScanner, ScanError, Scanned, read_batch};

/// A file of batches: a segment, or a snapshot of a metadata log.
#[derive(Debug)]
pub struct SegmentFile {
    path: PathBuf,
    file: Arc<dyn LogFile>,
    len: u64,
}

/// What a [`SegmentWalk`] came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentItem {
    /// A batch that lies whole in the file, though its checksum may be wrong.
    Batch(FoundBatch),
    /// Bytes that are no batch.
    Damage(Damage),
}

/// A batch in a file. Its records are not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundBatch {
    /// Where it starts, in bytes from the start of the file.
    pub position: u64,
    /// Its header, which the checksum covers from the attributes on.
    pub header: BatchHeader,
    /// [`BatchError::Crc`] if the checksum is wrong.
    pub crc_error: Option<BatchError>,
}

impl FoundBatch {
    /// Where the next batch starts, in bytes from the start of the file.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + self.header.size() as u64
    }
}

/// Bytes that are no batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where they start.
    pub position: u64,
    /// Why no batch can be read there.
    pub reason: BatchError,
    /// Where the next whole batch with a right checksum starts; `None` if none was found up to the end of the file.
    pub resumes_at: Option<u64>,
}

impl SegmentFile {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// If it is a directory; the disk's errors.
    pub fn open(fs: &dyn LogFs, path: &Path) -> Result<Self, InspectError> {
        let (file, len) = open_file(fs, path)?;
        Ok(Self { path: path.to_owned(), file, len })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes, when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it had no bytes when it was opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The batches from the start of the file.
    #[must_use]
    pub fn walk(&self) -> SegmentWalk<'_> {
        let expected = ContentKind::offset_of_path(&self.path).unwrap_or(Offset::ZERO);
        SegmentWalk {
            file: self,
            scanner: BatchScanner::new(self.file.as_ref(), 0, self.len, BatchScanner::BULK_BUFFER),
            expected,
            search_budget: self.len.saturating_mul(SEARCH_FACTOR).saturating_add(SEARCH_FLOOR),
        }
    }

    /// The bytes of a batch; `None` if it has more than [`BATCH_BYTES_MAX`].
    ///
    /// # Errors
    /// The disk's errors; the file may also have become shorter.
    pub fn read(&self, batch: &FoundBatch) -> Result<Option<Vec<u8>>, StorageError> {
        if batch.header.size() > BATCH_BYTES_MAX {
            return Ok(None);
        }
        let scanned = Scanned { position: batch.position, header: batch.header };
        read_batch(self.file.as_ref(), &scanned).describe("read", &self.path).map(Some)
    }
}

/// How many times the file's length may be read in search of whole batches, so that bytes made to look like the
/// starts of many large batches do not keep the search busy for ever.
const SEARCH_FACTOR: u64 = 4;
const SEARCH_FLOOR: u64 = 1 << 20;

/// The batches of a file, in order of position.
pub struct SegmentWalk<'f> {
    file: &'f SegmentFile,
    scanner: BatchScanner<'f>,
    /// The least base offset of the next batch; where damage is, nothing below it counts as a batch.
    expected: Offset,
    search_budget: u64,
}

impl std::fmt::Debug for SegmentWalk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWalk").field("path", &self.file.path).finish_non_exhaustive()
    }
}

impl SegmentWalk<'_> {
    /// The next batch, or damage; `None` at the end of the file. After damage the walk goes on at the next batch that
    /// is whole.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn next_item(&mut self) -> Result<Option<SegmentItem>, StorageError> {
        let position = self.scanner.position();
        match self.scanner.next() {
            Ok(None) => Ok(None),
            Ok(Some(batch)) => {
                let crc_error = match self.scanner.verify_crc(&batch) {
                    Ok(()) => None,
                    Err(ScanError::Damaged { reason, .. }) => Some(reason),
                    Err(ScanError::Io(error)) => return Err(self.failed(error)),
                };
                match crc_error {
                    // Is it the length that is wrong?
                    Some(reason) if !self.is_followed(&batch)? => self.damage(position, reason).map(Some),
                    _ => {
                        self.expected.advance_to(batch.header.next_offset());
                        let Scanned { position, header } = batch;
                        Ok(Some(SegmentItem::Batch(FoundBatch { position, header, crc_error })))
                    }
                }
            }
            Err(ScanError::Damaged { reason, .. }) => self.damage(position, reason).map(Some),
            Err(ScanError::Io(error)) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: std::io::Error) -> StorageError {
        StorageError { verb: "read", path: self.file.path.clone(), source }
    }

    /// Whether what follows a batch is the end of the file, or looks like another.
    fn is_followed(&self, batch: &Scanned) -> Result<bool, StorageError> {
        let mut header = [0; HEADER_LEN];
        let read = read_up_to_at(self.file.file.as_ref(), &mut header, batch.end());
        let read = read.describe("read", &self.file.path)?;
        if read == 0 {
            return Ok(true);
        }
        let next = header.get(..read).map(BatchHeader::parse);
        Ok(matches!(next, Some(Ok(next)) if next.base_offset() >= batch.header.next_offset()))
    }

    fn damage(&mut self, position: u64, reason: BatchError) -> Result<SegmentItem, StorageError> {
        let resumes_at = self.find_batch(position + 1).describe("read", &self.file.path)?;
        let file = self.file.file.as_ref();
        let from = resumes_at.unwrap_or(self.file.len);
        self.scanner = BatchScanner::new(file, from, self.file.len, BatchScanner::BULK_BUFFER);
        Ok(SegmentItem::Damage(Damage { position, reason, resumes_at }))
    }

    /// Looks for the next whole batch with a right checksum, byte by byte.
    fn find_batch(&mut self, mut position: u64) -> std::io::Result<Option<u64>> {
        let room = usize::try_from(self.file.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; room.min(BatchScanner::BULK_BUFFER)];
        while position + HEADER_LEN as u64 <= self.file.len {
            let read = read_up_to_at(self.file.file.as_ref(), &mut buffer, position)?;
            let windows = buffer.get(..read).unwrap_or_default().windows(HEADER_LEN);
            let count = windows.len() as u64;
            for (at, window) in (position..).zip(windows) {
                let Ok(header) = BatchHeader::parse(window) else { continue };
                let batch = Scanned { position: at, header };
                if self.may_be(&batch) && self.has_right_crc(&batch)? {
                    return Ok(Some(at));
                }
            }
            if count == 0 {
                break;
            }
            position += count;
        }
        Ok(None)
    }

    fn may_be(&self, batch: &Scanned) -> bool {
        batch.end() <= self.file.len
            && batch.header.base_offset() >= self.expected
            && self.expected.distance_to(batch.header.base_offset()) <= u64::from(u32::MAX)
    }

    fn has_right_crc(&mut self, batch: &Scanned) -> std::io::Result<bool> {
        let size = batch.header.size() as u64;
        let Some(left) = self.search_budget.checked_sub(size) else { return Ok(false) };
        self.search_budget = left;
        let file = self.file.file.as_ref();
        let mut scanner = BatchScanner::new(file, batch.position, batch.end(), BatchScanner::BULK_BUFFER);
        match scanner.verify_crc(batch) {
            Ok(()) => Ok(true),
            Err(ScanError::Damaged { .. }) => Ok(false),
            Err(ScanError::Io(error)) => Err(error),
        }
    }
}

/// Opens a file for reading, and tells its length.
pub(super) fn open_file(fs: &dyn LogFs, path: &Path) -> Result<(Arc<dyn LogFile>, u64), InspectError> {
    // The operating system opens directories, too, and fails at the first read.
    if fs.stat(path).describe("open", path)?.is_some_and(|stat| stat.is_dir) {
        return Err(InspectError::IsDirectory { path: path.to_owned() });
    }
    let file = fs.open(path, OpenMode::Read).describe("open", path)?;
    let len = file.len().describe("stat", path)?;
    Ok((file, len))
}
