//! The first pass: which files there are, and which a crash has left over.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_types::Offset;

use super::RecoveryReport;
use crate::dir::PartitionDir;
use crate::error::{Describe as _, LogError};
use crate::fs::{DirEntry, OpenMode};
use crate::names::{FileKind, segment_file_name};
use crate::scan::BatchScanner;

/// The files of a partition, once nothing is left over.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Base offset and size of each segment, in order.
    pub(super) segments: Vec<ListedSegment>,
    /// The offsets of the producer snapshots, in order.
    pub(super) snapshots: Vec<Offset>,
}

/// A segment as its files' names and sizes show it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListedSegment {
    pub(super) base_offset: Offset,
    pub(super) size: u64,
    /// Both index files are there and have the size of whole entries.
    pub(super) indexed: bool,
}

/// Marks a file that compaction was still writing.
const CLEANED: &str = ".cleaned";
/// Marks a file that compaction had finished and was putting in place.
const SWAP: &str = ".swap";
/// Marks a file that was about to be removed.
const DELETED: &str = ".deleted";
/// Marks a file that was about to replace another.
const TEMPORARY: &str = ".tmp";

pub(super) fn pass(dir: &Arc<PartitionDir>, report: &mut RecoveryReport) -> Result<Listing, LogError> {
    let path = dir.path();
    let entries = dir.fs().list(&path).describe("list", &path)?;
    let leftover =
        |name: &str| [CLEANED, SWAP, DELETED, TEMPORARY].iter().any(|suffix| name.ends_with(suffix));
    if !entries.iter().any(|entry| leftover(&entry.name)) {
        return classify(dir, &entries, report);
    }
    strip_leftovers(dir, report)?;
    settle_swaps(dir, report)?;
    let entries = dir.fs().list(&path).describe("list", &path)?;
    classify(dir, &entries, report)
}

/// Removes the files that whatever was under way would have removed, or will make again.
fn strip_leftovers(dir: &PartitionDir, report: &mut RecoveryReport) -> Result<(), LogError> {
    for name in names(dir)? {
        if [CLEANED, DELETED, TEMPORARY].iter().any(|suffix| name.ends_with(suffix)) {
            remove(dir, &name, report)?;
        }
    }
    Ok(())
}

/// Finishes interrupted swaps: a `.log.swap` is whole, and takes the place of every segment whose offsets it spans.
fn settle_swaps(dir: &PartitionDir, report: &mut RecoveryReport) -> Result<(), LogError> {
    let all = names(dir)?;
    let swapped = |name: &String| FileKind::parse_name(name.strip_suffix(SWAP)?);
    for (base, _) in all.iter().filter_map(swapped).filter(|(_, kind)| *kind == FileKind::Log) {
        let end = swap_end(dir, base)?;
        for name in &all {
            let replaced = FileKind::parse_name(name)
                .is_some_and(|(offset, kind)| kind != FileKind::Snapshot && base < offset && offset < end);
            if replaced {
                remove(dir, name, report)?;
            }
        }
        // The log file last: while it has its swap name, all this is done again.
        for kind in FileKind::OF_SEGMENT.into_iter().rev() {
            let name = segment_file_name(base, kind);
            let from = dir.file(&format!("{name}{SWAP}"));
            if dir.fs().stat(&from).describe("stat", &from)?.is_some() {
                dir.fs().rename(&from, &dir.file(&name)).describe("rename", &from)?;
            }
        }
        dir.sync()?;
    }
    // Index files of a swap whose log file is in place already, or never came.
    for name in names(dir)?.iter().filter(|name| name.ends_with(SWAP)) {
        remove(dir, name, report)?;
    }
    Ok(())
}

/// The end of the offsets in a swap file.
fn swap_end(dir: &PartitionDir, base: Offset) -> Result<Offset, LogError> {
    let path = dir.file(&format!("{}{SWAP}", segment_file_name(base, FileKind::Log)));
    let file = dir.fs().open(&path, OpenMode::Read).describe("open", &path)?;
    let len = file.len().describe("stat", &path)?;
    let mut scanner = BatchScanner::new(file.as_ref(), 0, len, BatchScanner::BULK_BUFFER);
    let mut end = base;
    while let Ok(Some(batch)) = scanner.next() {
        end = batch.header.next_offset();
    }
    Ok(end)
}

fn classify(
    dir: &PartitionDir,
    entries: &[DirEntry],
    report: &mut RecoveryReport,
) -> Result<Listing, LogError> {
    let files: BTreeMap<(Offset, FileKind), u64> = entries
        .iter()
        .filter(|entry| !entry.stat.is_dir)
        .filter_map(|entry| Some((FileKind::parse_name(&entry.name)?, entry.stat.len)))
        .collect();
    let len_of = |offset: Offset, wanted: FileKind| files.get(&(offset, wanted)).copied();
    let mut listing = Listing::default();
    for ((offset, kind), len) in &files {
        match kind {
            FileKind::Log => {
                let whole = |kind, entry: u64| len_of(*offset, kind).is_some_and(|len| len % entry == 0);
                let indexed = whole(FileKind::OffsetIndex, 8) && whole(FileKind::TimeIndex, 12);
                listing.segments.push(ListedSegment { base_offset: *offset, size: *len, indexed });
            }
            FileKind::Snapshot => listing.snapshots.push(*offset),
            _ if len_of(*offset, FileKind::Log).is_none() => {
                remove(dir, &segment_file_name(*offset, *kind), report)?;
            }
            _ => {}
        }
    }
    Ok(listing)
}

/// The offsets of the producer snapshots, in order.
pub(crate) fn snapshots(dir: &PartitionDir) -> Result<Vec<Offset>, LogError> {
    let parsed = names(dir)?.into_iter().filter_map(|name| FileKind::parse_name(&name));
    let mut offsets: Vec<_> =
        parsed.filter(|(_, kind)| *kind == FileKind::Snapshot).map(|(o, _)| o).collect();
    offsets.sort_unstable();
    Ok(offsets)
}

fn names(dir: &PartitionDir) -> Result<Vec<String>, LogError> {
    let path = dir.path();
    let entries = dir.fs().list(&path).describe("list", &path)?;
    Ok(entries.into_iter().filter(|entry| !entry.stat.is_dir).map(|entry| entry.name).collect())
}

fn remove(dir: &PartitionDir, name: &str, report: &mut RecoveryReport) -> Result<(), LogError> {
    let path = dir.file(name);
    report.removed_files += 1;
    Ok(dir.fs().remove_file(&path).describe("remove", &path)?)
}
