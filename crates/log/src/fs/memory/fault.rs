//! Which calls fail, and how.

use std::io;
use std::path::Path;

use rustix::io::Errno;

/// The calls of the port, for counting them and for making them fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// [`LogFs::open`](crate::fs::LogFs::open).
    Open,
    /// [`LogFs::stat`](crate::fs::LogFs::stat).
    Stat,
    /// [`LogFs::list`](crate::fs::LogFs::list).
    List,
    /// [`LogFs::create_dir_all`](crate::fs::LogFs::create_dir_all).
    CreateDir,
    /// [`LogFs::rename`](crate::fs::LogFs::rename); the path is the old one.
    Rename,
    /// [`LogFs::remove_file`](crate::fs::LogFs::remove_file).
    RemoveFile,
    /// [`LogFs::remove_dir`](crate::fs::LogFs::remove_dir).
    RemoveDir,
    /// [`LogFs::sync_dir`](crate::fs::LogFs::sync_dir).
    SyncDir,
    /// [`LogFs::try_lock`](crate::fs::LogFs::try_lock).
    Lock,
    /// [`LogFile::len`](crate::fs::LogFile::len).
    Len,
    /// [`LogFile::read_at`](crate::fs::LogFile::read_at).
    Read,
    /// [`LogFile::write_at`](crate::fs::LogFile::write_at).
    Write,
    /// [`LogFile::set_len`](crate::fs::LogFile::set_len).
    SetLen,
    /// [`LogFile::sync_data`](crate::fs::LogFile::sync_data).
    SyncData,
}

impl Operation {
    /// Every operation, so that a test can fail each call of each.
    pub const ALL: [Self; 14] = [
        Self::Open,
        Self::Stat,
        Self::List,
        Self::CreateDir,
        Self::Rename,
        Self::RemoveFile,
        Self::RemoveDir,
        Self::SyncDir,
        Self::Lock,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::SetLen,
        Self::SyncData,
    ];
}

/// How a call goes wrong. A call that fails changes nothing, with the exception of a failed sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// `EIO`. A sync that fails so also marks the unsynced pages clean: see the module of
    /// [`MemoryFs`](crate::fs::MemoryFs).
    Io,
    /// `ENOSPC`; for a sync as [`Io`](Self::Io).
    NoSpace,
    /// `EINTR`.
    Interrupted,
    /// A read or write of at most this many bytes; other calls are not affected.
    Short(usize),
}

/// One rule of which calls go wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultRule {
    /// The operation that goes wrong.
    pub operation: Operation,
    /// Only calls whose path contains this text count; the empty text counts all. The path of an open file is the
    /// one it was opened by.
    pub path_contains: String,
    /// The first call that goes wrong, from 1, counted over the calls that match since the rule was added.
    pub first: u64,
    /// Whether every matching call from `first` on goes wrong, or that one only.
    pub repeats: bool,
    /// How it goes wrong.
    pub kind: FaultKind,
}

impl FaultRule {
    /// The `nth` call of `operation`, from 1, goes wrong once, whatever the path.
    #[must_use]
    pub fn once(operation: Operation, nth: u64, kind: FaultKind) -> Self {
        Self { operation, path_contains: String::new(), first: nth, repeats: false, kind }
    }

    /// Every call of `operation` goes wrong.
    #[must_use]
    pub fn always(operation: Operation, kind: FaultKind) -> Self {
        Self { operation, path_contains: String::new(), first: 1, repeats: true, kind }
    }

    /// The same rule, for paths that contain `text` only.
    #[must_use]
    pub fn on_paths_with(mut self, text: &str) -> Self {
        text.clone_into(&mut self.path_contains);
        self
    }
}

/// The rules in force, and how often each operation was called.
#[derive(Default)]
pub(super) struct Faults {
    rules: Vec<(FaultRule, u64)>,
    calls: [u64; Operation::ALL.len()],
    injected: u64,
}

impl Faults {
    pub(super) fn add(&mut self, rule: FaultRule) {
        self.rules.push((rule, 0));
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn calls(&self, operation: Operation) -> u64 {
        self.calls[operation as usize]
    }

    pub(super) fn injected(&self) -> u64 {
        self.injected
    }

    /// Counts a call. The first rule that strikes decides; every rule counts. `Ok` says how many bytes the call may
    /// transfer.
    pub(super) fn on_call(&mut self, operation: Operation, path: &Path) -> io::Result<usize> {
        self.calls[operation as usize] += 1;
        let mut struck = None;
        for (rule, seen) in &mut self.rules {
            if rule.operation != operation || !path.to_string_lossy().contains(&rule.path_contains) {
                continue;
            }
            *seen += 1;
            if *seen == rule.first || (rule.repeats && *seen > rule.first) {
                struck = struck.or(Some(rule.kind));
            }
        }
        let Some(kind) = struck else { return Ok(usize::MAX) };
        self.injected += 1;
        match kind {
            FaultKind::Io => Err(Errno::IO.into()),
            FaultKind::NoSpace => Err(Errno::NOSPC.into()),
            FaultKind::Interrupted => Err(Errno::INTR.into()),
            FaultKind::Short(len) => Ok(len),
        }
    }
}
