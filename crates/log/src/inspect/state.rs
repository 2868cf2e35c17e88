//! The small files: checkpoints, identities, producer snapshots.

use std::path::Path;

use klamm_types::{BrokerEpoch, LeaderEpochCache, ProducerId, TopicId};

use super::{ContentKind, InspectError, STATE_FILE_BYTES_MAX};
use crate::checkpoint::{CleanShutdown, MetaProperties, OffsetCheckpoint, read_epochs, read_topic_id};
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFs, read_file};
use crate::producers::{ProducerEntry, snapshot};

/// The content of a small file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateFile {
    /// Of `leader-epoch-checkpoint`.
    LeaderEpochs(LeaderEpochCache),
    /// Of `partition.metadata`.
    TopicId(TopicId),
    /// Of a checkpoint with an offset per partition.
    Offsets(OffsetCheckpoint),
    /// Of `meta.properties`.
    MetaProperties(MetaProperties),
    /// Of `.kafka_cleanshutdown`. Reading it here does not remove it.
    CleanShutdown(CleanShutdown),
    /// Of a `.snapshot`, in the order of the file.
    Producers(Vec<(ProducerId, ProducerEntry)>),
}

/// Reads the small file at `path`, as its name says.
///
/// # Errors
/// [`InspectError::UnknownKind`] if the name is that of no small file; [`InspectError::Damaged`] if the content is not
/// what the name says; the disk's errors, also if the file is not there.
pub fn read_state(fs: &dyn LogFs, path: &Path) -> Result<StateFile, InspectError> {
    let unknown = || InspectError::UnknownKind { path: path.to_owned() };
    let kind = ContentKind::of_path(path).ok_or_else(unknown)?;
    let stat = fs.stat(path).describe("open", path)?;
    match stat {
        Some(stat) if stat.is_dir => return Err(InspectError::IsDirectory { path: path.to_owned() }),
        Some(stat) if stat.len > STATE_FILE_BYTES_MAX => {
            return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge)).describe("read", path)?;
        }
        Some(_) => {}
        None => return Err(std::io::Error::from(std::io::ErrorKind::NotFound)).describe("open", path)?,
    }
    let damaged = |reason: &str| {
        InspectError::Damaged(LogError::Damaged { path: path.to_owned(), reason: reason.to_owned() })
    };
    match kind {
        ContentKind::LeaderEpochs => Ok(StateFile::LeaderEpochs(read_epochs(fs, path)?)),
        ContentKind::TopicId => {
            // Gone between the two calls: then it is as if it had not been there.
            let id = read_topic_id(fs, path)?.ok_or_else(|| damaged("it is not there any more"))?;
            Ok(StateFile::TopicId(id))
        }
        ContentKind::Offsets => Ok(StateFile::Offsets(OffsetCheckpoint::read(fs, path)?)),
        ContentKind::MetaProperties => {
            let dir = path.parent().unwrap_or(Path::new(""));
            let properties = MetaProperties::read(fs, dir)?;
            Ok(StateFile::MetaProperties(properties.ok_or_else(|| damaged("it is not there any more"))?))
        }
        ContentKind::CleanShutdown => {
            let bytes = read_file(fs, path, STATE_FILE_BYTES_MAX).describe("read", path)?;
            let epoch = broker_epoch(&bytes).ok_or_else(|| damaged("it has no brokerEpoch"))?;
            Ok(StateFile::CleanShutdown(CleanShutdown { broker_epoch: epoch }))
        }
        ContentKind::Producers => {
            let bytes = read_file(fs, path, STATE_FILE_BYTES_MAX).describe("read", path)?;
            Ok(StateFile::Producers(snapshot::decode(&bytes).map_err(damaged)?.entries))
        }
        ContentKind::Batches
        | ContentKind::MetadataSnapshot
        | ContentKind::OffsetIndex
        | ContentKind::TimeIndex
        | ContentKind::TxnIndex => Err(unknown()),
    }
}

fn broker_epoch(json: &[u8]) -> Option<BrokerEpoch> {
    let content: serde_json::Value = serde_json::from_slice(json).ok()?;
    content.get("brokerEpoch")?.as_i64().map(BrokerEpoch)
}
