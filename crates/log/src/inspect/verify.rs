//! A directory: of one partition, or of many.

use std::path::{Path, PathBuf};

use klamm_types::TopicPartition;

use super::InspectError;
use super::finding::{Place, Problem, VerifyReport};
use super::kind::{CLEAN_SHUTDOWN_FILE, ContentKind};
use super::partition::{self, Checkpointed};
use super::state::StateFile;
use crate::checkpoint::{MetaProperties, OffsetCheckpoint};
use crate::dir::{LOG_START_FILE, RECOVERY_POINT_FILE};
use crate::error::Describe as _;
use crate::fs::{DirEntry, LogFs};
use crate::manager::HIGH_WATERMARK_FILE;

/// Holds a process to be the only one in a log directory.
const LOCK_FILE: &str = ".lock";
/// How the names of directories end that are on their way out, or not in use yet.
const PASSING_DIR_SUFFIXES: [&str; 3] = ["-delete", "-stray", "-future"];

/// Checks the directory of a partition, or a log directory with all its partitions. Reads every byte of every log.
///
/// Whether damage counts as such depends on what was promised. The checkpoints of the log directory tell: past the
/// recovery point of a log that was not closed in order damage is a torn write, and a note, as are files that nobody
/// had synced yet.
///
/// Time: that of reading the files once. Memory: see [the module](crate::inspect).
///
/// # Errors
/// If `dir` is no directory, is empty, holds no log, or cannot be listed. What goes wrong further down is a finding.
pub fn verify(fs: &dyn LogFs, dir: &Path) -> Result<VerifyReport, InspectError> {
    match fs.stat(dir).describe("open", dir)? {
        None => return Err(std::io::Error::from(std::io::ErrorKind::NotFound)).describe("open", dir)?,
        Some(stat) if !stat.is_dir => return Err(InspectError::NotDirectory { path: dir.to_owned() }),
        Some(_) => {}
    }
    let entries = fs.list(dir).describe("list", dir)?;
    let mut report = VerifyReport::default();
    if entries.is_empty() {
        return Err(InspectError::EmptyDirectory { path: dir.to_owned() });
    }
    if is_log_dir(&entries) {
        check_log_dir(fs, dir, &entries, &mut report);
    } else if is_partition(&entries) {
        partition::check(fs, dir, &checkpointed_beside(fs, dir), &mut report);
    } else {
        return Err(InspectError::NoLog { path: dir.to_owned() });
    }
    Ok(report)
}

fn is_log_dir(entries: &[DirEntry]) -> bool {
    entries.iter().any(|entry| {
        let is_partition = entry.stat.is_dir && TopicPartition::parse_dir_name(&entry.name).is_some();
        let kind = ContentKind::of_name(&entry.name);
        let is_checkpoint = matches!(
            kind,
            Some(ContentKind::Offsets | ContentKind::MetaProperties | ContentKind::CleanShutdown)
        );
        is_partition || (is_checkpoint && !entry.stat.is_dir)
    })
}

fn is_partition(entries: &[DirEntry]) -> bool {
    entries.iter().any(|entry| !entry.stat.is_dir && ContentKind::of_name(&entry.name).is_some())
}

/// The checkpoints of a log directory.
#[derive(Default)]
struct Checkpoints {
    recovery_points: OffsetCheckpoint,
    high_watermarks: OffsetCheckpoint,
    log_starts: OffsetCheckpoint,
    clean_shutdown: bool,
    keeps_recovery_points: bool,
}

impl Checkpoints {
    fn read(fs: &dyn LogFs, dir: &Path, report: &mut VerifyReport) -> Self {
        let errors = report.errors;
        let recovery_points = report.offsets(fs, &dir.join(RECOVERY_POINT_FILE));
        // A file that does not read says nothing of what was promised.
        let keeps_recovery_points = report.errors == errors && is_kept(fs, dir);
        let high_watermarks = report.offsets(fs, &dir.join(HIGH_WATERMARK_FILE));
        let log_starts = report.offsets(fs, &dir.join(LOG_START_FILE));
        let clean_shutdown = report.state(fs, &dir.join(CLEAN_SHUTDOWN_FILE)).is_some();
        Self { recovery_points, high_watermarks, log_starts, clean_shutdown, keeps_recovery_points }
    }

    fn of(&self, partition: &TopicPartition) -> Checkpointed {
        Checkpointed {
            recovery_point: self.recovery_points.0.get(partition).copied(),
            high_watermark: self.high_watermarks.0.get(partition).copied(),
            log_start_offset: self.log_starts.0.get(partition).copied(),
            clean_shutdown: self.clean_shutdown,
            keeps_recovery_points: self.keeps_recovery_points,
        }
    }
}

/// Whether a node keeps its logs in `dir`, as the files that it makes there show.
fn is_kept(fs: &dyn LogFs, dir: &Path) -> bool {
    [RECOVERY_POINT_FILE, MetaProperties::FILE]
        .iter()
        .any(|name| fs.stat(&dir.join(name)).is_ok_and(|stat| stat.is_some()))
}

/// What the log directory around a partition's says of it. Whether that reads is not asked here.
fn checkpointed_beside(fs: &dyn LogFs, dir: &Path) -> Checkpointed {
    let partition = dir.file_name().and_then(|name| TopicPartition::parse_dir_name(name.to_str()?));
    let Some(partition) = partition else { return Checkpointed::default() };
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Checkpointed::default(),
    };
    Checkpoints::read(fs, parent, &mut VerifyReport::default()).of(&partition)
}

impl VerifyReport {
    fn offsets(&mut self, fs: &dyn LogFs, path: &Path) -> OffsetCheckpoint {
        match self.state(fs, path) {
            Some(StateFile::Offsets(offsets)) => offsets,
            _ => OffsetCheckpoint::default(),
        }
    }
}

fn check_log_dir(fs: &dyn LogFs, dir: &Path, entries: &[DirEntry], report: &mut VerifyReport) {
    let checkpoints = Checkpoints::read(fs, dir, report);
    for entry in entries {
        let path = dir.join(&entry.name);
        if entry.stat.is_dir {
            match TopicPartition::parse_dir_name(&entry.name) {
                Some(partition) => partition::check(fs, &path, &checkpoints.of(&partition), report),
                None => note_directory(&path, &entry.name, report),
            }
        } else {
            check_file(fs, &path, &entry.name, report);
        }
    }
    let named = |offsets: &OffsetCheckpoint, file: &str| -> Vec<(PathBuf, TopicPartition)> {
        let has_dir = |partition: &TopicPartition| {
            let name = partition.to_string();
            entries.iter().any(|entry| entry.stat.is_dir && entry.name == name)
        };
        let strays = offsets.0.keys().filter(|partition| !has_dir(partition));
        strays.map(|partition| (dir.join(file), partition.clone())).collect()
    };
    let mut strays = named(&checkpoints.recovery_points, RECOVERY_POINT_FILE);
    strays.extend(named(&checkpoints.high_watermarks, HIGH_WATERMARK_FILE));
    strays.extend(named(&checkpoints.log_starts, LOG_START_FILE));
    for (path, partition) in strays {
        let partition = partition.to_string();
        report.note(Place::of(&path), Problem::NoSuchPartition { partition });
    }
}

fn note_directory(path: &Path, name: &str, report: &mut VerifyReport) {
    let is_passing = PASSING_DIR_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    let problem = if is_passing { Problem::Leftover } else { Problem::UnknownDirectory };
    report.note(Place::of(path), problem);
}

/// A file of the log directory itself. The checkpoints that concern partitions have been read before.
fn check_file(fs: &dyn LogFs, path: &Path, name: &str, report: &mut VerifyReport) {
    const READ_BEFORE: [&str; 4] =
        [RECOVERY_POINT_FILE, HIGH_WATERMARK_FILE, LOG_START_FILE, CLEAN_SHUTDOWN_FILE];
    if READ_BEFORE.contains(&name) || name == LOCK_FILE {
        return;
    }
    match ContentKind::of_name(name) {
        Some(ContentKind::MetadataSnapshot) => report.metadata_snapshot(fs, path),
        Some(ContentKind::Offsets | ContentKind::MetaProperties) => {
            report.state(fs, path);
        }
        _ if name.ends_with(".tmp") => report.note(Place::of(path), Problem::Leftover),
        _ => report.note(Place::of(path), Problem::UnknownFile),
    }
}
