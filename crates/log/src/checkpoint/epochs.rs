//! `leader-epoch-checkpoint`: which leader wrote which part of a partition.

use std::path::Path;

use klamm_types::{EpochEntry, LeaderEpoch, LeaderEpochCache, Offset};

use super::table;
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFs, put_file};

/// The name of the file in a partition's directory.
pub const LEADER_EPOCH_FILE: &str = "leader-epoch-checkpoint";

/// Reads `path`; an empty history if there is no such file.
///
/// # Errors
/// [`LogError::Damaged`] if it does not read or is out of order; the disk's errors.
pub fn read_epochs(fs: &dyn LogFs, path: &Path) -> Result<LeaderEpochCache, LogError> {
    let entries = table::read(fs, path, parse_row)?.unwrap_or_default();
    LeaderEpochCache::from_entries(entries)
        .map_err(|e| LogError::Damaged { path: path.to_owned(), reason: e.to_string() })
}

/// Replaces `path`, for good with the next sync of its directory.
///
/// # Errors
/// The disk's errors; the file holds the old content or the new.
pub fn write_epochs(fs: &dyn LogFs, path: &Path, epochs: &LeaderEpochCache) -> Result<(), LogError> {
    let row = |entry: &EpochEntry| format!("{} {}", entry.epoch, entry.start_offset);
    let text = table::render(epochs.entries().iter().map(row));
    Ok(put_file(fs, path, text.as_bytes()).describe("replace", path)?)
}

fn parse_row(line: &str) -> Option<EpochEntry> {
    let (epoch, start) = line.split_once(' ')?;
    Some(EpochEntry { epoch: LeaderEpoch(epoch.parse().ok()?), start_offset: Offset(start.parse().ok()?) })
}
