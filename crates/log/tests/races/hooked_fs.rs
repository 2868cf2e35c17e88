//! A file system that lets somebody else in at a chosen moment of a chosen call.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use klamm_log::fs::{DirEntry, FileStat, LogFile, LogFs, MemoryFs, OpenMode};

/// How long a call is held up for an intruder that waits for a lock which the caller holds: it is then let go, and
/// the intruder has its turn once the lock is free.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an intruder may take altogether.
const DEADLINE: Duration = Duration::from_secs(30);

/// A moment in the life of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// A file is about to be opened.
    Open,
    /// Bytes are about to be read.
    Read,
    /// Bytes have been read; the caller has not seen them yet.
    AfterRead,
    /// Bytes are about to be written.
    Write,
    /// A file is about to be synced.
    Sync,
    /// A directory is about to be synced.
    SyncDir,
}

type Action = Box<dyn FnOnce() + Send>;

struct Hook {
    moment: Moment,
    path_contains: String,
    /// How many such moments pass before the one that counts.
    skip: u32,
    action: Action,
}

/// What is to happen at which moment: one thing at most, and once.
#[derive(Clone, Default)]
pub(crate) struct Hooks(Arc<Mutex<Option<Hook>>>);

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// What another thread was sent to do in the middle of a call.
pub(crate) struct Intruder(Receiver<()>);

impl Intruder {
    /// Waits until the other thread has done its work, and fails if the moment for it never came.
    #[track_caller]
    pub(crate) fn join(self) {
        assert_eq!(self.0.recv_timeout(DEADLINE), Ok(()), "nobody came in, or never got out");
    }
}

impl Hooks {
    /// Has `action` run on the calling thread, in the middle of the call.
    pub(crate) fn within(&self, moment: Moment, path_contains: &str, action: impl FnOnce() + Send + 'static) {
        self.set(moment, path_contains, 0, Box::new(action));
    }

    /// Has `action` run on a thread of its own while the call is held up; see [`PATIENCE`].
    pub(crate) fn meanwhile(
        &self,
        moment: Moment,
        path_contains: &str,
        action: impl FnOnce() + Send + 'static,
    ) -> Intruder {
        self.meanwhile_after(moment, path_contains, 0, action)
    }

    /// As [`meanwhile`](Self::meanwhile), after `skip` such moments have passed.
    pub(crate) fn meanwhile_after(
        &self,
        moment: Moment,
        path_contains: &str,
        skip: u32,
        action: impl FnOnce() + Send + 'static,
    ) -> Intruder {
        let (done, joined) = mpsc::channel();
        let intrude = move || {
            let (finished, waited) = mpsc::channel::<()>();
            thread::spawn(move || {
                action();
                drop(finished);
                // Nobody listens if the test has failed meanwhile.
                let _ = done.send(());
            });
            // Whether it has finished or still waits for a lock: both are legal.
            let _ = waited.recv_timeout(PATIENCE);
        };
        self.set(moment, path_contains, skip, Box::new(intrude));
        Intruder(joined)
    }

    /// Takes back what has not happened yet; tells whether there was something.
    pub(crate) fn clear(&self) -> bool {
        self.0.lock().unwrap().take().is_some()
    }

    fn set(&self, moment: Moment, path_contains: &str, skip: u32, action: Action) {
        let hook = Hook { moment, path_contains: path_contains.to_owned(), skip, action };
        assert!(self.0.lock().unwrap().replace(hook).is_none(), "one thing at a time");
    }

    fn reach(&self, moment: Moment, path: &Path) {
        let mut waiting = self.0.lock().unwrap();
        let path = path.to_string_lossy();
        let meant = |hook: &&mut Hook| hook.moment == moment && path.contains(&hook.path_contains);
        let Some(hook) = waiting.as_mut().filter(meant) else { return };
        if hook.skip > 0 {
            hook.skip -= 1;
            return;
        }
        let hook = waiting.take();
        drop(waiting);
        if let Some(hook) = hook {
            (hook.action)();
        }
    }
}

/// A disk in memory with hooks.
#[derive(Debug)]
pub(crate) struct HookedFs {
    inner: MemoryFs,
    hooks: Hooks,
}

impl HookedFs {
    pub(crate) fn new(inner: MemoryFs, hooks: Hooks) -> Self {
        Self { inner, hooks }
    }
}

impl LogFs for HookedFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        self.hooks.reach(Moment::Open, path);
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(HookedFile { inner, path: path.to_owned(), hooks: self.hooks.clone() }))
    }

    fn stat(&self, path: &Path) -> io::Result<Option<FileStat>> {
        self.inner.stat(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.hooks.reach(Moment::SyncDir, dir);
        self.inner.sync_dir(dir)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.inner.try_lock(path)
    }
}

#[derive(Debug)]
struct HookedFile {
    inner: Arc<dyn LogFile>,
    path: PathBuf,
    hooks: Hooks,
}

impl LogFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.hooks.reach(Moment::Read, &self.path);
        let read = self.inner.read_at(buf, position);
        self.hooks.reach(Moment::AfterRead, &self.path);
        read
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.hooks.reach(Moment::Write, &self.path);
        self.inner.write_at(bytes, position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.hooks.reach(Moment::Sync, &self.path);
        self.inner.sync_data()
    }

    fn start_writeback(&self) {
        self.inner.start_writeback();
    }
}
