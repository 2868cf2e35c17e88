//! An offset per partition.

use std::collections::BTreeMap;
use std::path::Path;

use klamm_types::{Offset, PartitionId, TopicName, TopicPartition};

use super::table;
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFs, replace_file};

/// The content of one of the directory-level checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetCheckpoint(pub BTreeMap<TopicPartition, Offset>);

impl OffsetCheckpoint {
    /// Reads `path`; empty if there is no such file.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if it does not read; the disk's errors.
    pub fn read(fs: &dyn LogFs, path: &Path) -> Result<Self, LogError> {
        let rows = table::read(fs, path, parse_row)?;
        Ok(Self(rows.unwrap_or_default().into_iter().collect()))
    }

    /// Replaces `path`. Durable on return.
    ///
    /// # Errors
    /// The disk's errors; the file holds the old content or the new.
    pub fn write(&self, fs: &dyn LogFs, path: &Path) -> Result<(), LogError> {
        let row =
            |(tp, offset): (&TopicPartition, &Offset)| format!("{} {} {offset}", tp.topic, tp.partition);
        let text = table::render(self.0.iter().map(row));
        Ok(replace_file(fs, path, text.as_bytes()).describe("replace", path)?)
    }
}

fn parse_row(line: &str) -> Option<(TopicPartition, Offset)> {
    let mut fields = line.split_whitespace();
    let topic = TopicName::new(fields.next()?).ok()?;
    let partition = PartitionId(fields.next()?.parse().ok()?);
    let offset = Offset(fields.next()?.parse().ok()?);
    fields.next().is_none().then_some((TopicPartition::new(topic, partition), offset))
}
