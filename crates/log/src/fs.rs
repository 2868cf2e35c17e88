//! The only door to the disk: a small file-system port, and what implements it.
//!
//! Everything the log does to a disk goes through [`LogFs`] and [`LogFile`], so that tests and simulation can put
//! a disk there that forgets unflushed pages, tears writes, fills up and fails.
//!
//! # What an implementation promises
//! - **Durability is asked for, never assumed.** Written bytes survive a power cut only after [`LogFile::sync_data`]
//!   of that file returned `Ok`; a created, renamed or removed name only after [`LogFs::sync_dir`] of its directory
//!   did. (`sync_data` also makes the file's length durable.)
//! - **Short results are legal.** `read_at` and `write_at` may do less than asked and may fail with
//!   [`io::ErrorKind::Interrupted`]; [`read_exact_at`] and [`write_all_at`] deal with both.
//! - **A failed sync is final.** After `sync_data` or `sync_dir` failed, the pages may be gone and a second call may
//!   wrongly succeed; the caller takes the whole directory out of service ("Can applications recover from fsync
//!   failures?", ATC'20).
//! - An open file stays readable after its name is gone.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

mod memory;
mod real;

pub use memory::{
    CrashPlan, CrashPoint, CrashPoints, Fate, FaultKind, FaultRule, MemoryFs, Operation, PendingKind,
    PendingOperation,
};
pub use real::RealFs;

/// How [`LogFs::open`] treats a file that exists, or does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Read only; the file must exist.
    Read,
    /// Read and write; the file must exist.
    Write,
    /// Read and write; created empty if it does not exist.
    Create,
    /// Read and write; created if it does not exist, emptied if it does.
    Truncate,
}

/// What stands under a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStat {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes (0 for a directory).
    pub len: u64,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name, without its directory. Names that are not UTF-8 are not listed.
    pub name: String,
    /// What stands there.
    pub stat: FileStat,
}

/// The room on a disk, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What may still be written.
    pub available: u64,
    /// What there is in all.
    pub total: u64,
}

/// A file system, as far as a log needs one. Paths are used as given.
pub trait LogFs: Send + Sync + Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` if it does not exist and `mode` does not create it; whatever the disk says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>>;

    /// What stands at `path`, or `None` if nothing does.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn stat(&self, path: &Path) -> io::Result<Option<FileStat>>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound` if there is no such directory; whatever the disk says.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Creates a directory and all above it that are missing; does nothing if it exists.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Gives the file or directory `from` the name `to`, replacing a file that stands there. Atomic.
    ///
    /// # Errors
    /// `NotFound` if `from` does not exist; whatever the disk says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// `NotFound` if it does not exist; whatever the disk says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`; `NotFound`; whatever the disk says.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable: what was created, renamed or removed in it before this call.
    ///
    /// # Errors
    /// Final; see the module's promises.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How much room there is on the disk of `dir`, or `None` if that is not known.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn space(&self, _dir: &Path) -> io::Result<Option<Space>> {
        Ok(None)
    }

    /// Takes the lock of a directory for this process, by a lock file of the given path. `Ok(None)` if another
    /// process holds it. The lock ends when the value is dropped, or with the process.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
}

/// An open file. All positions are absolute; a file has no cursor, so one handle serves many readers.
pub trait LogFile: Send + Sync + Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buf.len()` bytes from `position`; 0 at and past the end of the file.
    ///
    /// # Errors
    /// `Interrupted`, to be tried again; whatever the disk says.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes up to `bytes.len()` bytes at `position`, extending the file if needed.
    ///
    /// # Errors
    /// `Interrupted`, to be tried again; `StorageFull`; whatever the disk says. Nothing is known then about the
    /// bytes from `position` on.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize>;

    /// As [`write_at`](Self::write_at), with the bytes in several places.
    ///
    /// # Errors
    /// As there.
    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write_at(&whole, position)
    }

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// Final; see the module's promises.
    fn sync_data(&self) -> io::Result<()>;

    /// Asks the disk to start writing this file's changed pages, without waiting. A hint: it makes nothing
    /// durable, and it cannot fail.
    fn start_writeback(&self) {}

    /// The operating system's file, if there is one, for sending its bytes to a socket without a copy.
    fn as_std_file(&self) -> Option<&std::fs::File> {
        None
    }
}

/// Fills `buf` from `position`. Deals with short reads and interruptions.
///
/// # Errors
/// `UnexpectedEof` if the file ends first; whatever the disk says.
pub fn read_exact_at(file: &dyn LogFile, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut buf[n..];
                position += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads from `position` until `buf` is full or the file ends; tells how many bytes it read.
///
/// # Errors
/// Whatever the disk says.
pub fn read_up_to_at(file: &dyn LogFile, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `position`. Deals with short writes and interruptions.
///
/// # Errors
/// Whatever the disk says; some of the bytes may have been written then.
pub fn write_all_at(file: &dyn LogFile, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                position += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// As [`write_all_at`], with the bytes in several places.
///
/// # Errors
/// As there.
pub fn write_all_vectored_at(
    file: &dyn LogFile,
    mut parts: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    // Empty parts at the front would make a write of nothing look like a full disk.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_vectored_at(parts, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                IoSlice::advance_slices(&mut parts, n);
                position += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads a whole small file.
///
/// # Errors
/// `NotFound`; `FileTooLarge` past `len_max` bytes; whatever the disk says.
pub fn read_file(fs: &dyn LogFs, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let file = fs.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > len_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; len as usize];
    let read = read_up_to_at(file.as_ref(), &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes a small file, replacing what it holds. Nothing is durable; after a crash it may hold anything.
///
/// # Errors
/// Whatever the disk says; the content is unknown then.
pub fn write_file(fs: &dyn LogFs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = fs.open(path, OpenMode::Truncate)?;
    write_all_at(file.as_ref(), bytes, 0)
}

/// Replaces a small file so that after a crash it holds either the old bytes or the new: writes `<path>.tmp`, syncs
/// it, renames it over `path`, syncs the directory.
///
/// # Errors
/// Whatever the disk says; the old file is then still there, or already the new one. A failed sync is final.
pub fn replace_file(fs: &dyn LogFs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    put_file(fs, path, bytes)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// As [`replace_file`], but the new file takes the old one's place for good only with the next
/// [`sync_dir`](LogFs::sync_dir) of its directory, which is the caller's to do.
///
/// # Errors
/// As [`replace_file`].
pub fn put_file(fs: &dyn LogFs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let file = fs.open(temporary, OpenMode::Truncate)?;
    write_all_at(file.as_ref(), bytes, 0)?;
    #[cfg(not(mutant = "B26"))]
    file.sync_data()?;
    fs.rename(temporary, path)
}
