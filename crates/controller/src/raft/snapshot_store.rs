//! Snapshots of the metadata on the disk.
//!
//! ```text
//!   __cluster_metadata-0/00000000000000004711-0000000003.checkpoint     last index, term
//!
//!   envelope type 5: the log ids and the voters that the snapshot stands for
//!   frames:          length u32, CRC-32C u32, one part of the snapshot; the last part is the trailer
//! ```
//! A snapshot is written under another name, synced, renamed, and the directory synced; only then are older ones
//! removed. The log before it may have been purged, so a snapshot that does not read stops the node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use klamm_log::LogDir;
use klamm_log::fs::{LogFile, OpenMode, read_exact_at, read_up_to_at, write_all_at};
use klamm_metadata::{BATCH_BYTES_MAX, MetadataImage, SnapshotError, SnapshotReader, SnapshotWriter};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use serde::{Deserialize, Serialize};

use super::entry::MembershipV1;
use super::envelope::{self, Durable};
use super::error::{EntryError, EnvelopeError};
use super::types::{CommittedLeaderId, LogId, Membership, TypeConfig};

/// How the name of a snapshot ends, as in Kafka.
pub const SNAPSHOT_SUFFIX: &str = ".checkpoint";
/// How the name of one that is being written ends.
const TEMPORARY_SUFFIX: &str = ".checkpoint.tmp";
/// The most bytes of the header.
const HEADER_BYTES_MAX: usize = (1 << 20) + 17;
/// Length and checksum before a part.
const FRAME_HEADER_LEN: u64 = 8;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotStoreError {
    /// The disk failed, or the directory is out of service.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The header is damaged or of a newer version.
    #[error("{path} is damaged: {source}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// The header names voters that cannot be.
    #[error("{path} is damaged: {source}")]
    Membership {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: EntryError,
    },
    /// A frame is longer than any part, torn, or its checksum does not match.
    #[error("{path} is damaged at byte {position}")]
    Frame {
        /// The file.
        path: PathBuf,
        /// Where the frame begins.
        position: u64,
    },
    /// The parts do not make an image.
    #[error("{path} does not read: {source}")]
    Parts {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SnapshotError,
    },
    /// The file ends before the trailer, or stands for another prefix of the log than its header says.
    #[error("{path} is incomplete")]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
}

impl SnapshotStoreError {
    /// Whether the same call may succeed later: never without somebody's help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl From<SnapshotStoreError> for io::Error {
    fn from(error: SnapshotStoreError) -> Self {
        Self::other(error)
    }
}

/// A snapshot: the image, and what Raft must know of it. Copies are cheap.
pub(crate) type Snapshot = SnapshotOf<TypeConfig, MetadataImage>;

/// The newest snapshot, on the disk and in memory.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    log_dir: Arc<LogDir>,
    directory: PathBuf,
    newest: Mutex<Option<Snapshot>>,
}

impl SnapshotStore {
    /// The store in `directory` of `log_dir`; reads the newest snapshot, and removes older and unfinished ones.
    pub(crate) fn open(log_dir: Arc<LogDir>, directory: PathBuf) -> Result<Self, SnapshotStoreError> {
        let store = Self { log_dir, directory, newest: Mutex::new(None) };
        let names = store.names()?;
        if let Some(name) = names.iter().rfind(|name| name.ends_with(SNAPSHOT_SUFFIX)) {
            let path = store.directory.join(name);
            *store.newest() = Some(store.read(&path)?);
            store.remove_others(&path)?;
        } else {
            store.remove_others(Path::new(""))?;
        }
        Ok(store)
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, Option<Snapshot>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Option<Snapshot> {
        self.newest().clone()
    }

    /// Makes `snapshot` the newest; durable on return. An older one than there is changes nothing.
    pub(crate) fn save(&self, snapshot: &Snapshot) -> Result<(), SnapshotStoreError> {
        let newer = |known: &Snapshot| known.meta.last_log_id >= snapshot.meta.last_log_id;
        if self.newest().as_ref().is_some_and(newer) {
            return Ok(());
        }
        let path = self.path_of(snapshot.meta.last_log_id);
        self.write(&path, snapshot)?;
        *self.newest() = Some(snapshot.clone());
        self.remove_others(&path)
    }

    fn path_of(&self, last_log_id: Option<LogId>) -> PathBuf {
        let (index, term) = last_log_id.map_or((0, 0), |log_id| (log_id.index, log_id.leader_id.term));
        self.directory.join(format!("{index:020}-{term:010}{SNAPSHOT_SUFFIX}"))
    }

    fn write(&self, path: &Path, snapshot: &Snapshot) -> Result<(), SnapshotStoreError> {
        let fs = self.log_dir.fs();
        let temporary = path.with_extension("checkpoint.tmp");
        let io = |verb: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| SnapshotStoreError::Io { verb, path, source }
        };
        let file = fs.open(&temporary, OpenMode::Truncate).map_err(io("create", &temporary))?;
        write_parts(file.as_ref(), snapshot).map_err(|error| match error {
            WriteError::Io(source) => io("write", &temporary)(source),
            WriteError::Header(source) => SnapshotStoreError::Header { path: path.to_owned(), source },
        })?;
        file.sync_data().map_err(io("sync", &temporary))?;
        fs.rename(&temporary, path).map_err(io("rename", &temporary))?;
        fs.sync_dir(&self.directory).map_err(io("sync", &self.directory))
    }

    fn read(&self, path: &Path) -> Result<Snapshot, SnapshotStoreError> {
        let io = |source| SnapshotStoreError::Io { verb: "read", path: path.to_owned(), source };
        let file = self.log_dir.fs().open(path, OpenMode::Read).map_err(io)?;
        let len = file.len().map_err(io)?;
        let mut start = vec![0; HEADER_BYTES_MAX.min(usize::try_from(len).unwrap_or(HEADER_BYTES_MAX))];
        let filled = read_up_to_at(file.as_ref(), &mut start, 0).map_err(io)?;
        start.truncate(filled);
        let header = |source| SnapshotStoreError::Header { path: path.to_owned(), source };
        let (stored, rest): (SnapshotHeaderV1, _) = envelope::open(&start).map_err(header)?;
        let position = (start.len() - rest.len()) as u64;
        let meta = stored
            .into_meta()
            .map_err(|source| SnapshotStoreError::Membership { path: path.to_owned(), source })?;
        let image = read_parts(file.as_ref(), path, position, len)?;
        let same = match meta.last_log_id {
            Some(last) => {
                let provenance = image.provenance;
                u64::try_from(provenance.last_offset.0) == Ok(last.index)
                    && u64::try_from(provenance.last_epoch) == Ok(last.leader_id.term)
            }
            None => image.provenance.last_offset.0 < 0,
        };
        if !same {
            return Err(SnapshotStoreError::Incomplete { path: path.to_owned() });
        }
        Ok(Snapshot { meta, snapshot: image })
    }

    fn names(&self) -> Result<Vec<String>, SnapshotStoreError> {
        let listed = self.log_dir.fs().list(&self.directory).map_err(|source| SnapshotStoreError::Io {
            verb: "list",
            path: self.directory.clone(),
            source,
        })?;
        let names = listed.into_iter().map(|entry| entry.name);
        Ok(names.filter(|name| name.ends_with(SNAPSHOT_SUFFIX) || name.ends_with(TEMPORARY_SUFFIX)).collect())
    }

    /// Removes every snapshot but `keep`. One that comes back after a crash is older, and goes with the next.
    fn remove_others(&self, keep: &Path) -> Result<(), SnapshotStoreError> {
        for name in self.names()? {
            let path = self.directory.join(name);
            if path != keep {
                let removed = self.log_dir.fs().remove_file(&path);
                removed.map_err(|source| SnapshotStoreError::Io { verb: "remove", path, source })?;
            }
        }
        Ok(())
    }
}

enum WriteError {
    Io(io::Error),
    Header(EnvelopeError),
}

fn write_parts(file: &dyn LogFile, snapshot: &Snapshot) -> Result<(), WriteError> {
    let mut header = Vec::new();
    envelope::seal(&SnapshotHeaderV1::of(&snapshot.meta), &mut header).map_err(WriteError::Header)?;
    write_all_at(file, &header, 0).map_err(WriteError::Io)?;
    let mut position = header.len() as u64;
    let mut frame = Vec::new();
    for part in SnapshotWriter::new(&snapshot.snapshot).parts() {
        let len =
            u32::try_from(part.len()).map_err(|_| WriteError::Io(io::ErrorKind::FileTooLarge.into()))?;
        frame.clear();
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&crc32c::crc32c(&part).to_be_bytes());
        frame.extend_from_slice(&part);
        write_all_at(file, &frame, position).map_err(WriteError::Io)?;
        position += frame.len() as u64;
    }
    Ok(())
}

fn read_parts(
    file: &dyn LogFile,
    path: &Path,
    mut position: u64,
    file_len: u64,
) -> Result<MetadataImage, SnapshotStoreError> {
    let io = |source| SnapshotStoreError::Io { verb: "read", path: path.to_owned(), source };
    let mut reader = SnapshotReader::new();
    while position < file_len {
        let damaged = SnapshotStoreError::Frame { path: path.to_owned(), position };
        if file_len - position < FRAME_HEADER_LEN {
            return Err(damaged);
        }
        let (mut len, mut crc) = ([0; 4], [0; 4]);
        read_exact_at(file, &mut len, position).map_err(io)?;
        read_exact_at(file, &mut crc, position + 4).map_err(io)?;
        position += FRAME_HEADER_LEN;
        let len = u32::from_be_bytes(len) as usize;
        if len > BATCH_BYTES_MAX || len as u64 > file_len - position {
            return Err(damaged);
        }
        let mut part = vec![0; len];
        read_exact_at(file, &mut part, position).map_err(io)?;
        if crc32c::crc32c(&part) != u32::from_be_bytes(crc) {
            return Err(damaged);
        }
        position += len as u64;
        let parts = |source| SnapshotStoreError::Parts { path: path.to_owned(), source };
        if let Some(image) = reader.push(Bytes::from(part)).map_err(parts)? {
            return if position == file_len {
                Ok(image)
            } else {
                Err(SnapshotStoreError::Frame { path: path.to_owned(), position })
            };
        }
    }
    Err(SnapshotStoreError::Incomplete { path: path.to_owned() })
}

/// What a snapshot stands for, on the disk, version 1. Frozen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct SnapshotHeaderV1 {
    /// Term and index of the last entry.
    last_log_id: Option<(u64, u64)>,
    /// Term and index of the entry that named the voters.
    membership_log_id: Option<(u64, u64)>,
    membership: MembershipV1,
}

impl Durable for SnapshotHeaderV1 {
    const RECORD_TYPE: u16 = 5;
    const SCHEMA_VERSION: u16 = 1;
}

impl SnapshotHeaderV1 {
    fn of(meta: &SnapshotMetaOf<TypeConfig>) -> Self {
        let pair = |log_id: LogId| (log_id.leader_id.term, log_id.index);
        Self {
            last_log_id: meta.last_log_id.map(pair),
            membership_log_id: meta.last_membership.log_id().map(pair),
            membership: MembershipV1::from(meta.last_membership.membership()),
        }
    }

    fn into_meta(self) -> Result<SnapshotMetaOf<TypeConfig>, EntryError> {
        let log_id = |(term, index)| LogId { leader_id: CommittedLeaderId::new(term), index };
        let membership = Membership::try_from(self.membership)?;
        Ok(SnapshotMetaOf::<TypeConfig> {
            last_log_id: self.last_log_id.map(log_id),
            last_membership: StoredMembershipOf::<TypeConfig>::new(
                self.membership_log_id.map(log_id),
                membership,
            ),
        })
    }
}

#[cfg(test)]
#[path = "snapshot_store_test.rs"]
mod tests;
