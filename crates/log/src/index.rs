//! Indexes of a segment: sorted entries of fixed size, in a file and an unwritten tail.
//!
//! An index is a cache of the log file: whatever happens to it, it can be made again from the batches. New entries
//! gather in memory and are written out in blocks, when the segment is sealed, or when the partition goes idle.
//! Readers search the tail under a lock that is only ever held around memory, and the file without one.

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use klamm_types::Offset;

use crate::dir::PartitionDir;
use crate::error::{Describe as _, StorageError};
use crate::file_cache::CachedFile;
use crate::fs::{OpenMode, read_exact_at, write_all_at};
use crate::names::FileKind;

mod entries;

pub use entries::{AbortedTxn, OffsetEntry, TimeEntry};

/// What an index holds.
pub(crate) trait IndexEntry: Copy + Debug + Send + Sync {
    /// The kind of file that holds such entries.
    const KIND: FileKind;
    /// Bytes an entry takes in the file.
    const LEN: usize;
    /// Appends the entry's bytes.
    fn encode(&self, bytes: &mut Vec<u8>);
    /// Reads an entry from its `LEN` bytes. `None` if they cannot be one.
    fn decode(bytes: &[u8]) -> Option<Self>;
    /// Whether the entry may come right after `previous`.
    fn follows(&self, previous: &Self) -> bool;
}

/// An index of entries `E`.
#[derive(Debug)]
pub(crate) struct Index<E> {
    file: Arc<CachedFile>,
    state: RwLock<State<E>>,
}

#[derive(Debug)]
struct State<E> {
    /// How many entries the file holds; `None` until somebody asks.
    stored: Option<u32>,
    /// Entries that come after those of the file.
    tail: Vec<E>,
}

impl<E: IndexEntry> Index<E> {
    /// Entries in memory before they are written out: one page of offset entries.
    const TAIL_MAX: usize = 512;
    /// Entries read at once when a search has come this close.
    const BLOCK: u32 = 256;

    /// The index of a segment that is new: whatever file stands under its name is emptied at the first write.
    pub(crate) fn create(dir: &Arc<PartitionDir>, base_offset: Offset) -> Self {
        Self::with_stored(dir, base_offset, Some(0))
    }

    /// The index of a segment that exists. Nothing is read yet.
    pub(crate) fn load(dir: &Arc<PartitionDir>, base_offset: Offset) -> Self {
        Self::with_stored(dir, base_offset, None)
    }

    fn with_stored(dir: &Arc<PartitionDir>, base_offset: Offset, stored: Option<u32>) -> Self {
        let file = CachedFile::new(Arc::clone(dir), base_offset, E::KIND);
        Self { file, state: RwLock::new(State { stored, tail: Vec::new() }) }
    }

    pub(crate) fn file(&self) -> &Arc<CachedFile> {
        &self.file
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> Result<u32, StorageError> {
        let stored = self.stored()?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok(state.stored.unwrap_or(stored) + state.tail.len() as u32)
    }

    /// The newest entry.
    pub(crate) fn last(&self) -> Result<Option<E>, StorageError> {
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = state.tail.last() {
                return Ok(Some(*last));
            }
        }
        match self.stored()?.checked_sub(1) {
            Some(last) => self.get(last),
            None => Ok(None),
        }
    }

    /// Adds an entry. It must follow the newest; one that does not is dropped, as it would break the order.
    pub(crate) fn append(&self, entry: E) -> Result<(), StorageError> {
        if self.last()?.is_some_and(|last| !entry.follows(&last)) {
            return Ok(());
        }
        let mut state = self.write_lock();
        state.tail.push(entry);
        if state.tail.len() < Self::TAIL_MAX {
            return Ok(());
        }
        drop(state);
        self.spill()
    }

    /// Writes the tail to the file, creating it if there is none. Only the log's one writer calls this.
    pub(crate) fn spill(&self) -> Result<(), StorageError> {
        let stored = self.stored()?;
        let mut bytes = Vec::new();
        let count = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.tail.iter().for_each(|entry| entry.encode(&mut bytes));
            state.tail.len()
        };
        if count == 0 && (stored > 0 || E::KIND == FileKind::TxnIndex) {
            return Ok(());
        }
        let mode = if stored == 0 { OpenMode::Truncate } else { OpenMode::Write };
        let file = self.file.open(mode)?;
        if stored == 0 {
            // The handle may have been open already: then `Truncate` did nothing.
            file.set_len(0).describe("truncate", &self.file.path())?;
        }
        write_all_at(file.as_ref(), &bytes, u64::from(stored) * E::LEN as u64)
            .describe("write", &self.file.path())?;
        self.file.mark_written(&file);
        let mut state = self.write_lock();
        state.stored = Some(stored + count as u32);
        state.tail.drain(..count);
        state.tail.shrink_to_fit();
        Ok(())
    }

    /// The last entry for which `wanted` holds, where `wanted` holds for none after one for which it does not.
    pub(crate) fn floor(&self, wanted: impl Fn(&E) -> bool) -> Result<Option<E>, StorageError> {
        match self.partition_point(wanted)?.checked_sub(1) {
            Some(found) => self.get(found),
            None => Ok(None),
        }
    }

    /// The first entry for which `wanted` does not hold, where it holds for none after one for which it does not.
    pub(crate) fn ceiling(&self, wanted: impl Fn(&E) -> bool) -> Result<Option<E>, StorageError> {
        let found = self.partition_point(wanted)?;
        self.get(found)
    }

    /// How many entries come before the first for which `wanted` does not hold.
    fn partition_point(&self, wanted: impl Fn(&E) -> bool) -> Result<u32, StorageError> {
        let stored = self.stored()?;
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let in_tail = state.tail.partition_point(&wanted) as u32;
            if in_tail > 0 {
                return Ok(state.stored.unwrap_or(stored) + in_tail);
            }
        }
        let (mut low, mut high) = (0, self.stored()?);
        while high - low > Self::BLOCK {
            let middle = low + (high - low) / 2;
            match self.read_block(middle, 1)?.first() {
                Some(entry) if wanted(entry) => low = middle,
                _ => high = middle,
            }
        }
        let block = self.read_block(low, high - low)?;
        Ok(low + block.partition_point(wanted) as u32)
    }

    fn get(&self, at: u32) -> Result<Option<E>, StorageError> {
        let stored = self.stored()?;
        if at >= stored {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let stored = state.stored.unwrap_or(stored);
            if let Some(in_tail) = at.checked_sub(stored) {
                return Ok(state.tail.get(in_tail as usize).copied());
            }
        }
        Ok(self.read_block(at, 1)?.first().copied())
    }

    /// All entries, oldest first; up to where they stop being in order, if the file is damaged.
    pub(crate) fn entries(&self) -> Result<Vec<E>, StorageError> {
        let mut entries = self.read_block(0, self.stored()?)?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        entries.extend_from_slice(&state.tail);
        let ordered = entries.windows(2).take_while(|pair| pair[1].follows(&pair[0])).count();
        entries.truncate(ordered + 1);
        Ok(entries)
    }

    /// Keeps the first `count` entries.
    pub(crate) fn truncate(&self, count: u32) -> Result<(), StorageError> {
        let stored = self.stored()?;
        let mut state = self.write_lock();
        state.tail.truncate(count.saturating_sub(stored) as usize);
        if count < stored {
            state.stored = Some(count);
        }
        drop(state);
        if count < stored
            && let Some(file) = self.file.open_existing()?
        {
            file.set_len(u64::from(count) * E::LEN as u64).describe("truncate", &self.file.path())?;
            self.file.mark_written(&file);
        }
        Ok(())
    }

    /// Keeps the entries before the first for which `wanted` does not hold.
    pub(crate) fn truncate_where(&self, wanted: impl Fn(&E) -> bool) -> Result<(), StorageError> {
        let count = self.partition_point(wanted)?;
        self.truncate(count)
    }

    /// Drops everything, in memory and in the file.
    pub(crate) fn reset(&self) -> Result<(), StorageError> {
        self.truncate(0)
    }

    fn stored(&self) -> Result<u32, StorageError> {
        if let Some(stored) = self.state.read().unwrap_or_else(PoisonError::into_inner).stored {
            return Ok(stored);
        }
        let len = match self.file.open_existing()? {
            Some(file) => file.len().describe("stat", &self.file.path())?,
            None => 0,
        };
        let stored = u32::try_from(len / E::LEN as u64).unwrap_or(u32::MAX);
        Ok(*self.write_lock().stored.get_or_insert(stored))
    }

    /// Up to `count` entries of the file from number `at`; fewer if the file ends or holds what is no entry.
    fn read_block(&self, at: u32, count: u32) -> Result<Vec<E>, StorageError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let Some(file) = self.file.open_existing()? else { return Ok(Vec::new()) };
        let mut bytes = vec![0; count as usize * E::LEN];
        match read_exact_at(file.as_ref(), &mut bytes, u64::from(at) * E::LEN as u64) {
            // Truncated since `stored` was read.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Vec::new()),
            read => read.describe("read", &self.file.path())?,
        }
        Ok(bytes.chunks_exact(E::LEN).map_while(E::decode).collect())
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, State<E>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
