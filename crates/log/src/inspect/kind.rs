//! What a file holds, by its name.

use std::path::Path;

use klamm_types::Offset;

use crate::checkpoint::{LEADER_EPOCH_FILE, MetaProperties, PARTITION_METADATA_FILE};
use crate::dir::{LOG_START_FILE, RECOVERY_POINT_FILE};
use crate::manager::HIGH_WATERMARK_FILE;
use crate::names::FileKind;

/// The mark of an orderly shutdown.
pub(super) const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
/// How far Kafka's cleaner has come.
const CLEANER_OFFSET_FILE: &str = "cleaner-offset-checkpoint";
/// Endings that a file has while it is being made, swapped in or removed; what it holds stays the same.
const PASSING_SUFFIXES: [&str; 3] = [".deleted", ".cleaned", ".swap"];

/// What a file of a log, or of a log directory, holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentKind {
    /// `.log`: batches.
    Batches,
    /// `.checkpoint`: a snapshot of Kafka's metadata log (KIP-630), as batches.
    MetadataSnapshot,
    /// `.index`: offset to position.
    OffsetIndex,
    /// `.timeindex`: timestamp to offset.
    TimeIndex,
    /// `.txnindex`: aborted transactions.
    TxnIndex,
    /// `.snapshot`: the producers' state at an offset.
    Producers,
    /// `leader-epoch-checkpoint`.
    LeaderEpochs,
    /// `partition.metadata`: the topic's id.
    TopicId,
    /// A checkpoint with an offset per partition.
    Offsets,
    /// `meta.properties`.
    MetaProperties,
    /// `.kafka_cleanshutdown`.
    CleanShutdown,
}

impl ContentKind {
    /// What a file of this name holds; `None` if no file of a log is called so. An ending `.deleted`, `.cleaned` or
    /// `.swap` is passed over.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let name = PASSING_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        match name {
            LEADER_EPOCH_FILE => return Some(Self::LeaderEpochs),
            PARTITION_METADATA_FILE => return Some(Self::TopicId),
            RECOVERY_POINT_FILE | HIGH_WATERMARK_FILE | LOG_START_FILE | CLEANER_OFFSET_FILE => {
                return Some(Self::Offsets);
            }
            MetaProperties::FILE => return Some(Self::MetaProperties),
            CLEAN_SHUTDOWN_FILE => return Some(Self::CleanShutdown),
            _ => {}
        }
        if name.ends_with(".checkpoint") {
            return Some(Self::MetadataSnapshot);
        }
        FileKind::parse_name(name).map(|(_, kind)| match kind {
            FileKind::Log => Self::Batches,
            FileKind::OffsetIndex => Self::OffsetIndex,
            FileKind::TimeIndex => Self::TimeIndex,
            FileKind::TxnIndex => Self::TxnIndex,
            FileKind::Snapshot => Self::Producers,
        })
    }

    /// [`of_name`](Self::of_name) of the last part of `path`.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        Self::of_name(path.file_name()?.to_str()?)
    }

    /// The offset that the name of a segment's file, or of a producer snapshot, begins with; `None` for other names.
    #[must_use]
    pub fn offset_of_path(path: &Path) -> Option<Offset> {
        let name = path.file_name()?.to_str()?;
        let name = PASSING_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        FileKind::parse_name(name).map(|(offset, _)| offset)
    }

    /// A stable name in lower case with underscores, for output that programs read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Batches => "batches",
            Self::MetadataSnapshot => "metadata_snapshot",
            Self::OffsetIndex => "offset_index",
            Self::TimeIndex => "time_index",
            Self::TxnIndex => "txn_index",
            Self::Producers => "producers",
            Self::LeaderEpochs => "leader_epochs",
            Self::TopicId => "topic_id",
            Self::Offsets => "offsets",
            Self::MetaProperties => "meta_properties",
            Self::CleanShutdown => "clean_shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_file_holds() {
        let of = ContentKind::of_name;
        assert_eq!(of("00000000000000000042.log"), Some(ContentKind::Batches));
        assert_eq!(of("00000000000000000042.log.deleted"), Some(ContentKind::Batches));
        assert_eq!(of("00000000000000000042.timeindex.swap"), Some(ContentKind::TimeIndex));
        assert_eq!(of("00000000000000000000-0000000000.checkpoint"), Some(ContentKind::MetadataSnapshot));
        assert_eq!(of("replication-offset-checkpoint"), Some(ContentKind::Offsets));
        assert_eq!(of("leader-epoch-checkpoint"), Some(ContentKind::LeaderEpochs));
        assert_eq!(of("42.log"), None);
        assert_eq!(of("notes.txt"), None);
        let path = Path::new("/data/t-0/00000000000000000042.index");
        assert_eq!(ContentKind::offset_of_path(path), Some(Offset(42)));
    }
}
