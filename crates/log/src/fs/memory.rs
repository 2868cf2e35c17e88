//! A disk in memory that remembers what is durable, loses the rest on demand, fills up and fails.
//!
//! [`MemoryFs`] is deterministic: no clock, no threads, no randomness; who uses it chooses every fault. It keeps
//! what a running process sees, and below that a journal of every change and every barrier. A [`CrashPoint`] is one
//! instant of that journal; from it, [`CrashPoint::power_cut`] builds the disk that the next boot finds.
//!
//! # What a power cut may leave
//! - **Data.** All changes of a file before its last successful `sync_data` are there. Of those after it, any subset
//!   is: each write and each `set_len` by itself survives or not; of a write, any subset of its 512-byte sectors
//!   may survive. The file's length may or may not cover what is lost; what lies inside it and was lost reads as the
//!   older bytes, or as zeros where there were none. (This allows more than a page cache does, which writes a page
//!   with all changes up to some moment; a log that survives this survives that.)
//! - **Names.** All changes of names in a directory before its last successful `sync_dir` are there. Of those after
//!   it, a prefix is, as on a journalling file system; directories are independent of each other. A rename is atomic,
//!   also over an existing file. A rename between two directories belongs to both.
//! - A name and the file's data are independent: the name may survive with none of the data, and a file whose name
//!   did not survive is gone with all its data, synced or not. The same holds for a directory and what is in it.
//! - A **failed** `sync_data` marks the file's pending changes clean: they stay visible, no later `sync_data` makes
//!   them durable, and a power cut loses them ("Can applications recover from fsync failures?", ATC'20). After a
//!   failed `sync_dir`, later ones of that directory succeed and make nothing durable.
//! - When only the process is killed ([`CrashPoint::process_kill`]), all that was visible still is, and what was
//!   pending stays so: a power cut may yet take it.
//!
//! # What it does not model
//! Read faults by place (use a [`FaultRule`] by path, or [`MemoryFs::flip`]), links, permissions, times.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod content;
mod crash;
mod disk;
mod fault;

pub use crash::{CrashPlan, CrashPoint, CrashPoints, Fate, PendingKind, PendingOperation};
pub use fault::{FaultKind, FaultRule, Operation};

use super::{DirEntry, FileStat, LogFile, LogFs, OpenMode, Space};
use content::BLOCK_LEN;
use disk::{Change, DataChange, Disk, InodeId, NameChange, NodeKind, ROOT};
use fault::Faults;

/// A file system in memory; see the [module](self). A clone is another handle of the same disk.
#[derive(Clone, Default)]
pub struct MemoryFs {
    shared: Arc<Mutex<State>>,
}

struct State {
    disk: Disk,
    faults: Faults,
    /// The most space that files may take, in bytes, if it is limited.
    capacity: Option<u64>,
    used: u64,
    locks: BTreeSet<PathBuf>,
    recording: Option<Recording>,
}

struct Recording {
    start: Disk,
    changes: Vec<Change>,
}

struct MemoryFile {
    fs: MemoryFs,
    id: InodeId,
    path: PathBuf,
    writable: bool,
}

struct MemoryLock {
    fs: MemoryFs,
    path: PathBuf,
}

impl MemoryFs {
    /// An empty disk without faults or limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn from_disk(disk: Disk, capacity: Option<u64>) -> Self {
        let state = State { used: disk.allocated(), disk, capacity, ..State::default() };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule of failure.
    pub fn add_fault(&self, rule: FaultRule) {
        self.state().faults.add(rule);
    }

    /// Drops all rules of failure. What failed syncs have lost stays lost.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// How often `operation` was called on this disk, whether it succeeded or not.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state().faults.calls(operation)
    }

    /// How many calls went wrong by a rule.
    #[must_use]
    pub fn faults_injected(&self) -> u64 {
        self.state().faults.injected()
    }

    /// Limits the space that files may take together, in bytes; `None` for no limit. Space is taken in blocks of
    /// 4096 bytes that hold written bytes. A write that does not fit is short, then fails with `ENOSPC`.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state().capacity = capacity;
    }

    /// The space that files take, in bytes: whole blocks.
    #[must_use]
    pub fn space_used(&self) -> u64 {
        self.state().used
    }

    /// Flips the bits of `mask` in the byte at `position` of a file, on the disk and in the page cache: rot.
    ///
    /// # Errors
    /// `NotFound` if there is no such file; `InvalidInput` if it is shorter.
    pub fn flip(&self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state();
        let id = state.file_at(path)?;
        if state.disk.file(id).is_none_or(|file| position >= file.visible.len()) {
            return Err(ErrorKind::InvalidInput.into());
        }
        state.disk.flip(id, position, mask);
        Ok(())
    }

    /// How many changes and barriers there were so far.
    #[must_use]
    pub fn journal_position(&self) -> u64 {
        self.state().disk.position()
    }

    /// Keeps the journal from here on, for [`crash_points`](Self::crash_points). Memory grows by what is written.
    pub fn record(&self) {
        let mut state = self.state();
        state.recording = Some(Recording { start: state.disk.clone(), changes: Vec::new() });
    }

    /// Every instant since [`record`](Self::record) was called; without it, only the present one.
    #[must_use]
    pub fn crash_points(&self) -> CrashPoints {
        let state = self.state();
        let (start, changes) = match &state.recording {
            Some(recording) => (recording.start.clone(), recording.changes.clone()),
            None => (state.disk.clone(), Vec::new()),
        };
        CrashPoints::new(start, changes, state.capacity)
    }

    /// The present instant.
    #[must_use]
    pub fn crash_point(&self) -> CrashPoint {
        let state = self.state();
        CrashPoint::new(state.disk.clone(), state.capacity)
    }

    fn file(&self, id: InodeId, path: &Path, writable: bool) -> Arc<dyn LogFile> {
        Arc::new(MemoryFile { fs: self.clone(), id, path: path.to_owned(), writable })
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            disk: Disk::empty(),
            faults: Faults::default(),
            capacity: None,
            used: 0,
            locks: BTreeSet::new(),
            recording: None,
        }
    }
}

/// The parts of a path; the root and `.` do not count.
fn parts(path: &Path) -> io::Result<Vec<&str>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => parts.push(name.to_str().ok_or(ErrorKind::InvalidInput)?),
            Component::ParentDir | Component::Prefix(_) => return Err(ErrorKind::InvalidInput.into()),
        }
    }
    Ok(parts)
}

impl State {
    /// What stands at a path; `NotFound` if nothing does.
    fn find(&self, path: &Path) -> io::Result<InodeId> {
        self.walk(&parts(path)?)
    }

    fn walk(&self, parts: &[&str]) -> io::Result<InodeId> {
        let mut id = ROOT;
        for part in parts {
            let dir = self.disk.dir(id).ok_or(ErrorKind::NotADirectory)?;
            id = *dir.visible.get(*part).ok_or(ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    fn file_at(&self, path: &Path) -> io::Result<InodeId> {
        let id = self.find(path)?;
        if self.disk.file(id).is_none() {
            return Err(ErrorKind::IsADirectory.into());
        }
        Ok(id)
    }

    fn dir_at(&self, path: &Path) -> io::Result<InodeId> {
        let id = self.find(path)?;
        if self.disk.dir(id).is_none() {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok(id)
    }

    /// The directory that holds, or would hold, `path`, and the name in it.
    fn place(&self, path: &Path) -> io::Result<(InodeId, Arc<str>)> {
        let parts = parts(path)?;
        let (name, above) = parts.split_last().ok_or(ErrorKind::InvalidInput)?;
        let dir = self.walk(above)?;
        if self.disk.dir(dir).is_none() {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok((dir, Arc::from(*name)))
    }

    fn stat(&self, id: InodeId) -> FileStat {
        match self.disk.file(id) {
            Some(file) => FileStat { is_dir: false, len: file.visible.len() },
            None => FileStat { is_dir: true, len: 0 },
        }
    }

    fn commit(&mut self, change: Change) {
        self.disk.apply(&change);
        if let Some(recording) = &mut self.recording {
            recording.changes.push(change);
        }
    }

    /// Commits a change that may take space or give it back.
    fn commit_sized(&mut self, change: Change, sized: InodeId) {
        let space = |state: &Self| state.disk.file(sized).map_or(0, |file| file.visible.allocated());
        let before = space(self);
        self.commit(change);
        self.used = (self.used + space(self)).saturating_sub(before);
    }

    fn create(&mut self, path: &Path, place: (InodeId, Arc<str>), kind: NodeKind) -> InodeId {
        let id = self.disk.inode_next();
        let added = Some((place.0, place.1, id));
        let path = Arc::from(path.to_string_lossy());
        self.commit(Change::Name(Arc::new(NameChange { path, removed: None, added, created: Some(kind) })));
        id
    }

    fn remove(&mut self, path: &Path, id: InodeId) -> io::Result<()> {
        let removed = Some(self.place(path)?);
        let path = Arc::from(path.to_string_lossy());
        let change = NameChange { path, removed, added: None, created: None };
        self.commit_sized(Change::Name(Arc::new(change)), id);
        Ok(())
    }

    fn set_len(&mut self, id: InodeId, len: u64) {
        let change = Arc::new(DataChange::SetLen(len));
        self.commit_sized(Change::Data { file: id, change }, id);
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
        let id = match (self.file_at(path), mode) {
            (Ok(id), OpenMode::Truncate) => {
                self.set_len(id, 0);
                id
            }
            (Ok(id), _) => id,
            (Err(e), OpenMode::Create | OpenMode::Truncate) if e.kind() == ErrorKind::NotFound => {
                let place = self.place(path)?;
                self.create(path, place, NodeKind::File)
            }
            (Err(e), _) => return Err(e),
        };
        self.disk.open_handle(id);
        Ok(id)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?;
        let (removed, (to_dir, to_name)) = (self.place(from)?, self.place(to)?);
        let replaced = match self.find(to) {
            Ok(replaced) if replaced == id => return Ok(()),
            Ok(replaced) if self.stat(replaced).is_dir => return Err(ErrorKind::IsADirectory.into()),
            Ok(_) if self.stat(id).is_dir => return Err(ErrorKind::NotADirectory.into()),
            Ok(replaced) => replaced,
            Err(_) => id,
        };
        if parts(to)?.starts_with(&parts(from)?) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let path = Arc::from(from.to_string_lossy());
        let change =
            NameChange { path, removed: Some(removed), added: Some((to_dir, to_name, id)), created: None };
        self.commit_sized(Change::Name(Arc::new(change)), replaced);
        Ok(())
    }

    /// How many of `len` bytes at `position` there is space for; an error if for none.
    fn space_for(&self, id: InodeId, position: u64, len: usize) -> io::Result<usize> {
        let (Some(capacity), Some(file)) = (self.capacity, self.disk.file(id)) else { return Ok(len) };
        let blocks_free = capacity.saturating_sub(self.used) / BLOCK_LEN;
        match file.visible.writable(position, len as u64, blocks_free) {
            0 => Err(rustix::io::Errno::NOSPC.into()),
            fits => Ok(fits as usize),
        }
    }
}

/// Whether a sync that failed so has lost pages: an interrupted one has not begun.
fn loses_pages(e: &io::Error) -> bool {
    e.kind() != ErrorKind::Interrupted
}

impl LogFs for MemoryFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        let mut state = self.state();
        state.faults.on_call(Operation::Open, path)?;
        let id = state.open(path, mode)?;
        drop(state);
        Ok(self.file(id, path, mode != OpenMode::Read))
    }

    fn stat(&self, path: &Path) -> io::Result<Option<FileStat>> {
        let mut state = self.state();
        state.faults.on_call(Operation::Stat, path)?;
        match state.find(path) {
            Ok(id) => Ok(Some(state.stat(id))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state();
        state.faults.on_call(Operation::List, dir)?;
        let id = state.dir_at(dir)?;
        let names = state.disk.dir(id).map(|dir| Arc::clone(&dir.visible)).unwrap_or_default();
        let entry =
            |(name, id): (&Arc<str>, &InodeId)| DirEntry { name: name.to_string(), stat: state.stat(*id) };
        Ok(names.iter().map(entry).collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.on_call(Operation::CreateDir, dir)?;
        let (mut path, mut id) = (PathBuf::new(), ROOT);
        for name in parts(dir)? {
            path.push(name);
            let names = state.disk.dir(id).ok_or(ErrorKind::NotADirectory)?;
            id = match names.visible.get(name) {
                Some(found) => *found,
                None => state.create(&path, (id, Arc::from(name)), NodeKind::Dir),
            };
        }
        state.disk.dir(id).map(|_| ()).ok_or(ErrorKind::AlreadyExists.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.on_call(Operation::Rename, from)?;
        state.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.on_call(Operation::RemoveFile, path)?;
        let id = state.file_at(path)?;
        state.remove(path, id)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.on_call(Operation::RemoveDir, dir)?;
        let id = state.dir_at(dir)?;
        if state.disk.dir(id).is_some_and(|dir| !dir.visible.is_empty()) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        state.remove(dir, id)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let called = state.faults.on_call(Operation::SyncDir, dir);
        let id = state.dir_at(dir)?;
        match called {
            Err(e) if !loses_pages(&e) => return Err(e),
            _ => state.commit(Change::SyncDir { dir: id, failed: called.is_err() }),
        }
        called.map(|_| ())
    }

    fn space(&self, _dir: &Path) -> io::Result<Option<Space>> {
        let state = self.state();
        let space = |total: u64| Space { available: total.saturating_sub(state.used), total };
        Ok(state.capacity.map(space))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut state = self.state();
        state.faults.on_call(Operation::Lock, path)?;
        let id = state.open(path, OpenMode::Create)?;
        state.disk.close_handle(id);
        if !state.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemoryLock { fs: self.clone(), path: path.to_owned() })))
    }
}

impl MemoryFile {
    /// Refuses a change through a handle that was opened for reading.
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl LogFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.fs.state();
        state.faults.on_call(Operation::Len, &self.path)?;
        Ok(state.stat(self.id).len)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.fs.state();
        let len = state.faults.on_call(Operation::Read, &self.path)?.min(buf.len());
        Ok(state.disk.file(self.id).map_or(0, |file| file.visible.read(&mut buf[..len], position)))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.check_writable()?;
        let mut state = self.fs.state();
        let len = state.faults.on_call(Operation::Write, &self.path)?.min(bytes.len());
        if position.checked_add(len as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if len == 0 {
            return Ok(0);
        }
        let len = state.space_for(self.id, position, len)?;
        let change = Arc::new(DataChange::Write { position, bytes: bytes[..len].into() });
        state.commit_sized(Change::Data { file: self.id, change }, self.id);
        Ok(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.fs.state();
        state.faults.on_call(Operation::SetLen, &self.path)?;
        if len > i64::MAX as u64 {
            return Err(ErrorKind::InvalidInput.into());
        }
        state.set_len(self.id, len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.fs.state();
        let called = state.faults.on_call(Operation::SyncData, &self.path);
        match called {
            Err(e) if !loses_pages(&e) => return Err(e),
            _ => state.commit(Change::SyncData { file: self.id, failed: called.is_err() }),
        }
        called.map(|_| ())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut state = self.fs.state();
        let space = |state: &State| state.disk.file(self.id).map_or(0, |file| file.visible.allocated());
        let before = space(&state);
        state.disk.close_handle(self.id);
        state.used = (state.used + space(&state)).saturating_sub(before);
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.fs.state().locks.remove(&self.path);
    }
}

impl fmt::Debug for MemoryFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFs").field("journal_position", &self.journal_position()).finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
