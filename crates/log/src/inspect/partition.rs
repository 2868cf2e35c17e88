//! One partition's directory: what files there are, and whether they agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use klamm_types::{LeaderEpochCache, Offset};

use super::InspectError;
use super::finding::{Place, Problem, VerifyReport};
use super::kind::ContentKind;
use super::log_state::{LogState, Settled};
use super::segment_check::{self, SegmentToCheck};
use super::state::{StateFile, read_state};
use crate::checkpoint::{LEADER_EPOCH_FILE, PARTITION_METADATA_FILE};
use crate::error::Describe as _;
use crate::fs::{DirEntry, LogFs};
use crate::names::{FileKind, segment_file_name};

/// Files that Kafka keeps in the directory of its metadata log, in formats of its own.
const FOREIGN_FILES: [&str; 1] = ["quorum-state"];
/// Endings of files that recovery removes or puts in place.
const PASSING_SUFFIXES: [&str; 4] = [".deleted", ".cleaned", ".swap", ".tmp"];
/// An index of this many bytes is worth missing: smaller segments need none.
const INDEX_EXPECTED_BYTES: u64 = 1 << 20;

/// What the checkpoints of the log directory say of a partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkpointed {
    pub(super) recovery_point: Option<Offset>,
    pub(super) high_watermark: Option<Offset>,
    pub(super) log_start_offset: Option<Offset>,
    /// The directory was closed in order.
    pub(super) clean_shutdown: bool,
    /// The directory keeps recovery points: a partition without one has none of its offsets promised yet.
    pub(super) keeps_recovery_points: bool,
}

impl Checkpointed {
    fn settled(&self) -> Settled {
        match self.recovery_point {
            _ if self.clean_shutdown => Settled::All,
            Some(recovery_point) => Settled::Below(recovery_point),
            None if self.keeps_recovery_points => Settled::Below(Offset::ZERO),
            None => Settled::All,
        }
    }
}

/// The files of a partition, by what they are.
#[derive(Debug, Default)]
struct Files {
    segments: BTreeMap<Offset, BTreeSet<FileKind>>,
    lengths: BTreeMap<Offset, u64>,
    snapshots: Vec<Offset>,
    metadata_snapshots: Vec<String>,
    names: BTreeSet<String>,
}

/// Checks the partition whose files are in `dir`.
pub(super) fn check(fs: &dyn LogFs, dir: &Path, checkpointed: &Checkpointed, report: &mut VerifyReport) {
    let Some(entries) = report.watch(dir, fs.list(dir).describe("list", dir)) else { return };
    report.partitions += 1;
    let files = classify(dir, &entries, report);
    let settled = checkpointed.settled();
    let epochs = read_epochs(fs, dir, (&files, settled), report);
    read_topic_id(fs, dir, (&files, settled), report);
    let segments = segments_to_check(dir, &files, report);
    let first = segments.first().map_or(Offset::ZERO, |first| first.base_offset);
    let mut state = LogState::new(settled, epochs, first);
    if checkpointed.clean_shutdown {
        state.epochs_from = checkpointed.log_start_offset.unwrap_or(Offset::ZERO);
    }
    for segment in &segments {
        segment_check::check(fs, segment, &mut state, report);
    }
    let log_end_offset = state.expected;
    check_epochs_end(dir, &state, log_end_offset, report);
    for offset in &files.snapshots {
        let path = dir.join(segment_file_name(*offset, FileKind::Snapshot));
        check_snapshot(fs, &path, *offset, state.settled.of_unsynced(), report);
        if *offset > log_end_offset {
            let place = Place::of(&path).offset(*offset);
            report.note(place, Problem::SnapshotPastEnd { log_end_offset });
        }
    }
    for name in &files.metadata_snapshots {
        check_metadata_snapshot(fs, &dir.join(name), report);
    }
    check_offsets(dir, checkpointed, log_end_offset, report);
}

fn classify(dir: &Path, entries: &[DirEntry], report: &mut VerifyReport) -> Files {
    let mut files = Files::default();
    for entry in entries {
        let path = dir.join(&entry.name);
        let name = entry.name.as_str();
        if entry.stat.is_dir {
            report.note(Place::of(&path), Problem::UnknownDirectory);
        } else if PASSING_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            report.note(Place::of(&path), Problem::Leftover);
        } else if let Some((offset, kind)) = FileKind::parse_name(name) {
            if kind == FileKind::Snapshot {
                files.snapshots.push(offset);
            } else {
                files.segments.entry(offset).or_default().insert(kind);
            }
            if kind == FileKind::Log {
                files.lengths.insert(offset, entry.stat.len);
            }
        } else if ContentKind::of_name(name) == Some(ContentKind::MetadataSnapshot) {
            files.metadata_snapshots.push(name.to_owned());
        } else if ContentKind::of_name(name).is_none() && !FOREIGN_FILES.contains(&name) {
            report.note(Place::of(&path), Problem::UnknownFile);
        }
        files.names.insert(name.to_owned());
    }
    files
}

fn segments_to_check(dir: &Path, files: &Files, report: &mut VerifyReport) -> Vec<SegmentToCheck> {
    let mut segments: Vec<SegmentToCheck> = Vec::new();
    for (base_offset, kinds) in &files.segments {
        let path = |kind| dir.join(segment_file_name(*base_offset, kind));
        if !kinds.contains(&FileKind::Log) {
            for kind in kinds {
                report.note(Place::of(&path(*kind)), Problem::IndexAlone);
            }
            continue;
        }
        let is_large = files.lengths.get(base_offset).is_some_and(|len| *len >= INDEX_EXPECTED_BYTES);
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            if is_large && !kinds.contains(&kind) {
                let place = path(FileKind::Log);
                report.note(Place::of(&place), Problem::IndexMissing { suffix: kind.suffix() });
            }
        }
        if let Some(previous) = segments.last_mut() {
            previous.next_base = Some(*base_offset);
        }
        let index = |kind| kinds.contains(&kind).then(|| path(kind));
        segments.push(SegmentToCheck {
            path: path(FileKind::Log),
            base_offset: *base_offset,
            next_base: None,
            indexes: [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TxnIndex].map(index),
        });
    }
    segments
}

fn read_epochs(
    fs: &dyn LogFs,
    dir: &Path,
    (files, settled): (&Files, Settled),
    report: &mut VerifyReport,
) -> Option<LeaderEpochCache> {
    let path = dir.join(LEADER_EPOCH_FILE);
    if !files.names.contains(LEADER_EPOCH_FILE) {
        if files.lengths.values().any(|len| *len > 0) {
            report.note(Place::of(dir), Problem::FileMissing { name: LEADER_EPOCH_FILE });
        }
        return None;
    }
    match read_state(fs, &path) {
        Ok(StateFile::LeaderEpochs(epochs)) => Some(epochs),
        Ok(_) => None,
        Err(error) => {
            // Recovery makes it again from the batches, if a crash has torn it.
            report.unread(settled == Settled::All, &path, error);
            None
        }
    }
}

fn read_topic_id(fs: &dyn LogFs, dir: &Path, (files, settled): (&Files, Settled), report: &mut VerifyReport) {
    let path = dir.join(PARTITION_METADATA_FILE);
    if !files.names.contains(PARTITION_METADATA_FILE) {
        report.note(Place::of(dir), Problem::FileMissing { name: PARTITION_METADATA_FILE });
    } else if let Err(error) = read_state(fs, &path) {
        // It is synced with the first flush of the log.
        report.unread(settled.covers(Offset::ZERO), &path, error);
    }
}

fn check_epochs_end(dir: &Path, state: &LogState, log_end_offset: Offset, report: &mut VerifyReport) {
    let past_end = |epochs: &LeaderEpochCache| {
        epochs.entries().iter().find(|entry| entry.start_offset > log_end_offset).copied()
    };
    if let Some(entry) = state.epochs.as_ref().and_then(past_end) {
        let path = dir.join(LEADER_EPOCH_FILE);
        let problem = Problem::EpochPastEnd { epoch: entry.epoch, log_end_offset };
        report.note(Place::of(&path).offset(entry.start_offset), problem);
    }
}

fn check_snapshot(fs: &dyn LogFs, path: &Path, offset: Offset, settled: Settled, report: &mut VerifyReport) {
    let place = Place::of(path).offset(offset);
    let producers = match read_state(fs, path) {
        Ok(StateFile::Producers(producers)) => producers,
        Ok(_) => return,
        // Nobody syncs a snapshot: recovery takes an older one.
        Err(error) => return report.unread(settled.covers(offset), path, error),
    };
    for (producer_id, entry) in producers {
        let newest = entry.batches().last().map(|batch| batch.last_offset);
        let known = newest.into_iter().chain(entry.txn_first_offset).max();
        if let Some(known) = known.filter(|known| *known >= offset) {
            report.error(place, Problem::SnapshotKnowsTooMuch { producer_id, known });
        }
    }
}

/// A snapshot of Kafka's metadata log is a file of batches that stands by itself.
fn check_metadata_snapshot(fs: &dyn LogFs, path: &Path, report: &mut VerifyReport) {
    let snapshot = SegmentToCheck {
        path: path.to_owned(),
        base_offset: Offset::ZERO,
        next_base: None,
        indexes: [None, None, None],
    };
    let mut state = LogState::new(Settled::All, None, Offset::ZERO);
    segment_check::check(fs, &snapshot, &mut state, report);
}

fn check_offsets(dir: &Path, checkpointed: &Checkpointed, log_end_offset: Offset, report: &mut VerifyReport) {
    let place = Place::of(dir).offset(log_end_offset);
    let past_end = |offset: &Offset| *offset > log_end_offset;
    if let Some(recovery_point) = checkpointed.recovery_point.filter(past_end) {
        report.error(place, Problem::RecoveryPointPastEnd { recovery_point, log_end_offset });
    }
    let before_end = |offset: &Offset| *offset < log_end_offset && checkpointed.clean_shutdown;
    if let Some(recovery_point) = checkpointed.recovery_point.filter(before_end) {
        report.error(place, Problem::NotAsClosed { recovery_point, log_end_offset });
    }
    if let Some(high_watermark) = checkpointed.high_watermark.filter(past_end) {
        let problem = Problem::HighWatermarkPastEnd { high_watermark, log_end_offset };
        report.graded(checkpointed.clean_shutdown, place, problem);
    }
    if let Some(log_start_offset) = checkpointed.log_start_offset.filter(past_end) {
        report.error(place, Problem::LogStartPastEnd { log_start_offset, log_end_offset });
    }
}

impl VerifyReport {
    /// Takes note of a small file of a log directory that does not read; returns what it holds.
    pub(super) fn state(&mut self, fs: &dyn LogFs, path: &Path) -> Option<StateFile> {
        match read_state(fs, path) {
            Ok(state) => Some(state),
            Err(InspectError::Storage(error)) if error.source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.unreadable(path, error);
                None
            }
        }
    }

    /// Checks a `.checkpoint` file of a log directory, which Kafka puts there when it formats it.
    pub(super) fn metadata_snapshot(&mut self, fs: &dyn LogFs, path: &Path) {
        check_metadata_snapshot(fs, path, self);
    }
}
