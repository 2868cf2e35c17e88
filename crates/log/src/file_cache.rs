//! Files that open when they are used and close when others need the room.
//!
//! A node may hold a hundred thousand partitions, but a process only some thousand open files. Every segment file is
//! a [`CachedFile`]: it opens at its first use; when more than the cache's capacity are open, those not used since
//! the last round of the clock are closed (the CLOCK algorithm: a hit costs one flag). A file with bytes that no
//! sync has covered is synced before it is closed, because a later open may no longer learn of their loss.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use klamm_types::Offset;

use crate::dir::PartitionDir;
use crate::error::{Describe as _, StorageError};
use crate::fs::{LogFile, OpenMode};
use crate::names::{FileKind, segment_file_name};

/// Bounds the open files of all logs that share it.
#[derive(Debug)]
pub struct FileCache {
    capacity: usize,
    clock: Mutex<VecDeque<Weak<CachedFile>>>,
}

impl FileCache {
    /// A cache that keeps about `capacity` files open: more only while all of them are in use at once.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity: capacity.max(1), clock: Mutex::default() })
    }

    /// How many files are open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.iter().filter_map(Weak::upgrade).filter(|file| file.is_open()).count()
    }

    /// Takes note of an opened file, and closes others if there are too many.
    fn opened(&self, file: &Arc<CachedFile>) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.push_back(Arc::downgrade(file));
        let mut unsynced = Vec::new();
        // Two rounds at the most: the first clears the marks of use, the second finds somebody unmarked.
        let mut turns = 2 * clock.len();
        while clock.len() > self.capacity && turns > 0 {
            turns -= 1;
            let Some(candidate) = clock.pop_front() else { break };
            let Some(other) = candidate.upgrade() else { continue };
            match other.close_if_unused() {
                _ if Arc::ptr_eq(&other, file) => clock.push_back(candidate),
                Closing::Closed => {}
                Closing::Used => clock.push_back(candidate),
                // Out of the clock, so that nobody else takes it for the same purpose.
                Closing::Unsynced => unsynced.push(other),
            }
        }
        drop(clock);
        for other in unsynced {
            // A failure has ended the service of that file's directory, which is not the business of whoever opens a
            // file, perhaps in another directory.
            if other.sync().is_err() || !other.close_if_clean() {
                self.clock.lock().unwrap_or_else(PoisonError::into_inner).push_back(Arc::downgrade(&other));
            }
        }
    }
}

/// What became of a file that the clock came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    /// It is closed.
    Closed,
    /// It was used since the clock last came by.
    Used,
    /// It has bytes that no sync has covered.
    Unsynced,
}

/// One file of a segment, open or not.
#[derive(Debug)]
pub(crate) struct CachedFile {
    dir: Arc<PartitionDir>,
    base_offset: Offset,
    kind: FileKind,
    state: Mutex<FileState>,
    /// Held while a sync is under way, so that whoever finds the file clean knows that it is durable.
    syncing: Mutex<()>,
}

#[derive(Debug, Default)]
struct FileState {
    handle: Option<Arc<dyn LogFile>>,
    /// Used since the clock last came by.
    used: bool,
    /// Written since the last sync began.
    dirty: bool,
    /// Opened in a way that makes the file if there is none, since [`CachedFile::take_created`] was last asked.
    created: bool,
    /// Renamed: on its way to deletion.
    deleted: bool,
}

impl CachedFile {
    pub(crate) fn new(dir: Arc<PartitionDir>, base_offset: Offset, kind: FileKind) -> Arc<Self> {
        Arc::new(Self { dir, base_offset, kind, state: Mutex::default(), syncing: Mutex::default() })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path_in(&self.lock())
    }

    fn path_in(&self, state: &FileState) -> PathBuf {
        let mut name = segment_file_name(self.base_offset, self.kind);
        if state.deleted {
            name.push_str(".deleted");
        }
        self.dir.file(&name)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().handle.is_some()
    }

    /// The open file; it is opened, and created if `mode` says so, when it is not open yet.
    pub(crate) fn open(self: &Arc<Self>, mode: OpenMode) -> Result<Arc<dyn LogFile>, StorageError> {
        let mut state = self.lock();
        state.used = true;
        if let Some(handle) = &state.handle {
            return Ok(Arc::clone(handle));
        }
        let path = self.path_in(&state);
        let handle = self.dir.fs().open(&path, mode).describe("open", &path)?;
        state.handle = Some(Arc::clone(&handle));
        state.created |= matches!(mode, OpenMode::Create | OpenMode::Truncate);
        drop(state);
        self.dir.log_dir.files().opened(self);
        Ok(handle)
    }

    /// The open file for reading, or `None` if there is no such file.
    pub(crate) fn open_existing(self: &Arc<Self>) -> Result<Option<Arc<dyn LogFile>>, StorageError> {
        match self.open(OpenMode::Write) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Notes that `file`, an open handle of this file, was changed, so that no sync has covered all of it. To be called
    /// after the change: a sync that began before may not have seen it.
    pub(crate) fn mark_written(&self, file: &Arc<dyn LogFile>) {
        let mut state = self.lock();
        state.dirty = true;
        // Should the cache have closed it meanwhile: the handle that wrote is the one that learns of lost pages.
        state.handle.get_or_insert_with(|| Arc::clone(file));
    }

    /// Notes that bytes were written which no sync has covered.
    pub(crate) fn mark_dirty(&self) {
        self.lock().dirty = true;
    }

    /// Whether the file may have been made since this was last asked: its name then waits for a sync of the
    /// directory.
    pub(crate) fn take_created(&self) -> bool {
        std::mem::take(&mut self.lock().created)
    }

    /// Asks the disk to start writing what is dirty.
    pub(crate) fn start_writeback(&self) {
        let state = self.lock();
        let handle = if state.dirty { state.handle.clone() } else { None };
        drop(state);
        if let Some(handle) = handle {
            handle.start_writeback();
        }
    }

    /// Makes everything written before this call durable. A failure ends the directory's service.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        if !state.dirty {
            return Ok(());
        }
        let path = self.path_in(&state);
        let handle = match &state.handle {
            Some(handle) => Arc::clone(handle),
            None => self.dir.fs().open(&path, OpenMode::Write).describe("open", &path)?,
        };
        state.dirty = false;
        drop(state);
        self.dir.log_dir.watch(sync(handle.as_ref()).describe("sync", &path))
    }

    /// Closes the file unless it was used since the last call, or has unsynced bytes.
    fn close_if_unused(&self) -> Closing {
        let mut state = self.lock();
        if std::mem::take(&mut state.used) {
            return Closing::Used;
        }
        // An index is written out when it is asked for, and can do without the handle that wrote it.
        if self.kind == FileKind::Log && state.dirty && state.handle.is_some() {
            return Closing::Unsynced;
        }
        state.handle = None;
        Closing::Closed
    }

    /// Closes the file if every byte of it is durable; tells whether it is closed now.
    pub(crate) fn close_if_clean(&self) -> bool {
        let mut state = self.lock();
        if !state.dirty {
            state.handle = None;
        }
        state.handle.is_none()
    }

    /// Closes the file, whatever of it is durable: for files that can be made again from others.
    pub(crate) fn close(&self) {
        self.lock().handle = None;
    }

    /// Renames the file to `<name>.deleted`, if it exists.
    pub(crate) fn rename_to_deleted(&self) -> Result<(), StorageError> {
        let mut state = self.lock();
        let from = self.path_in(&state);
        state.deleted = true;
        // What a deleted file holds need not become durable any more.
        state.dirty = false;
        let to = self.path_in(&state);
        match self.dir.fs().rename(&from, &to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => self.dir.log_dir.watch(renamed.describe("rename", &from)),
        }
    }

    /// Removes the file, if it exists, and closes it.
    pub(crate) fn remove(&self) -> Result<(), StorageError> {
        let mut state = self.lock();
        state.handle = None;
        state.dirty = false;
        let path = self.path_in(&state);
        match self.dir.fs().remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => self.dir.log_dir.watch(removed.describe("remove", &path)),
        }
    }
}

#[cfg(not(mutant = "B28"))]
fn sync(handle: &dyn LogFile) -> io::Result<()> {
    handle.sync_data()
}

/// The bug of believing a second sync: the kernel has marked the lost pages clean.
#[cfg(mutant = "B28")]
fn sync(handle: &dyn LogFile) -> io::Result<()> {
    handle.sync_data().or_else(|_| handle.sync_data())
}
