//! Reading index files entry by entry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_types::Offset;

use super::segment::open_file;
use super::{ContentKind, InspectError};
use crate::error::{Describe as _, StorageError};
use crate::fs::{LogFile, LogFs, read_up_to_at};
use crate::index::{AbortedTxn, IndexEntry, OffsetEntry, TimeEntry};

/// Bytes read at once: whole entries of every kind fit in many times.
const BLOCK_BYTES: usize = 64 << 10;

/// A value of one of the three indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexEntryValue {
    /// Of `.index`.
    Offset(OffsetEntry),
    /// Of `.timeindex`.
    Time(TimeEntry),
    /// Of `.txnindex`.
    Txn(AbortedTxn),
}

/// One slot of an index file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexItem {
    /// Where the slot starts, in bytes from the start of the file.
    pub position: u64,
    /// The entry; `None` if the bytes cannot be one, or the file ends within it.
    pub entry: Option<IndexEntryValue>,
}

/// An index file, read from its start.
#[derive(Debug)]
pub struct IndexFile {
    kind: ContentKind,
    base_offset: Offset,
    slots: Slots,
}

impl IndexFile {
    /// Opens the index at `path`.
    ///
    /// # Errors
    /// [`InspectError::UnknownKind`] if the name is not that of an index; the disk's errors.
    pub fn open(fs: &dyn LogFs, path: &Path) -> Result<Self, InspectError> {
        let kind = ContentKind::of_path(path);
        let unknown = || InspectError::UnknownKind { path: path.to_owned() };
        let slot_len = match kind {
            Some(ContentKind::OffsetIndex) => OffsetEntry::LEN,
            Some(ContentKind::TimeIndex) => TimeEntry::LEN,
            Some(ContentKind::TxnIndex) => AbortedTxn::LEN,
            _ => return Err(unknown()),
        };
        let kind = kind.ok_or_else(unknown)?;
        let base_offset = ContentKind::offset_of_path(path).ok_or_else(unknown)?;
        Ok(Self { kind, base_offset, slots: Slots::open(fs, path, slot_len)? })
    }

    /// The offset that relative offsets of the entries count from.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// The next slot; `None` at the end of the file.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn next_item(&mut self) -> Result<Option<IndexItem>, StorageError> {
        let kind = self.kind;
        let Some((position, bytes)) = self.slots.next_slot()? else { return Ok(None) };
        let entry = match kind {
            ContentKind::OffsetIndex => OffsetEntry::decode(bytes).map(IndexEntryValue::Offset),
            ContentKind::TimeIndex => TimeEntry::decode(bytes).map(IndexEntryValue::Time),
            _ => AbortedTxn::decode(bytes).map(IndexEntryValue::Txn),
        };
        Ok(Some(IndexItem { position, entry }))
    }
}

/// A file as slots of equal length; the last may be shorter.
#[derive(Debug)]
pub(super) struct Slots {
    path: PathBuf,
    file: Arc<dyn LogFile>,
    len: u64,
    slot_len: usize,
    position: u64,
    block: Vec<u8>,
    block_start: u64,
}

impl Slots {
    pub(super) fn open(fs: &dyn LogFs, path: &Path, slot_len: usize) -> Result<Self, InspectError> {
        let (file, len) = open_file(fs, path)?;
        let block = Vec::new();
        Ok(Self { path: path.to_owned(), file, len, slot_len, position: 0, block, block_start: 0 })
    }

    /// The file's length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The next slot and its position.
    pub(super) fn next_slot(&mut self) -> Result<Option<(u64, &[u8])>, StorageError> {
        let position = self.position;
        let end = (position + self.slot_len as u64).min(self.len);
        if end <= position {
            return Ok(None);
        }
        if end > self.block_start + self.block.len() as u64 {
            self.block.resize(BLOCK_BYTES - BLOCK_BYTES % self.slot_len, 0);
            let read = read_up_to_at(self.file.as_ref(), &mut self.block, position);
            self.block.truncate(read.describe("read", &self.path)?);
            self.block_start = position;
        }
        self.position = end;
        let from = (position - self.block_start) as usize;
        let to = (end - self.block_start) as usize;
        // Nothing, if the file has become shorter since it was opened.
        Ok(self.block.get(from..to).map(|bytes| (position, bytes)))
    }
}

/// The entries of an index, one ahead, for a walk over the batches beside them.
#[derive(Debug)]
pub(super) struct Entries<E> {
    slots: Slots,
    ahead: Option<Slot<E>>,
    /// How many entries of nothing but zeros the file ends with.
    pub(super) unused: u64,
}

/// An entry and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<E> {
    pub(super) position: u64,
    /// `None` if the bytes cannot be an entry.
    pub(super) entry: Option<E>,
}

impl<E: IndexEntry> Entries<E> {
    pub(super) fn open(fs: &dyn LogFs, path: &Path) -> Result<Self, InspectError> {
        let mut slots = Slots::open(fs, path, E::LEN)?;
        let unused = unused_slots(&mut slots)?;
        let mut entries = Self { slots, ahead: None, unused };
        entries.advance()?;
        Ok(entries)
    }

    /// Bytes after the last whole entry.
    pub(super) fn surplus(&self) -> u64 {
        self.slots.len() % E::LEN as u64
    }

    /// The next entry, which stays.
    pub(super) fn peek(&self) -> Option<Slot<E>> {
        self.ahead
    }

    /// Passes over the next entry.
    pub(super) fn advance(&mut self) -> Result<(), StorageError> {
        let used_end = (self.slots.len() - self.surplus()).saturating_sub(self.unused * E::LEN as u64);
        self.ahead = match self.slots.next_slot()? {
            Some((position, bytes)) if position < used_end => {
                Some(Slot { position, entry: E::decode(bytes) })
            }
            _ => None,
        };
        Ok(())
    }
}

/// Counts the whole slots at the end that hold nothing but zeros: Kafka makes index files at full size and cuts them
/// when it closes them. Leaves the reader at the start.
fn unused_slots(slots: &mut Slots) -> Result<u64, StorageError> {
    let (slot_len, mut unused) = (slots.slot_len, 0);
    while let Some((_, bytes)) = slots.next_slot()? {
        let is_whole = bytes.len() == slot_len;
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        match (is_whole, is_zero) {
            (true, true) => unused += 1,
            (true, false) => unused = 0,
            (false, _) => {}
        }
    }
    slots.position = 0;
    slots.block.clear();
    slots.block_start = 0;
    Ok(unused)
}
