//! `partition.metadata`: the id of the topic whose partition a directory holds.

use std::path::Path;

use klamm_types::TopicId;

use super::table::read_text;
use crate::error::LogError;
use crate::fs::LogFs;

/// The name of the file in a partition's directory.
pub const PARTITION_METADATA_FILE: &str = "partition.metadata";

/// Reads `path`; `None` if there is no such file.
///
/// # Errors
/// [`LogError::Damaged`] if it does not read; the disk's errors.
pub fn read_topic_id(fs: &dyn LogFs, path: &Path) -> Result<Option<TopicId>, LogError> {
    let Some(text) = read_text(fs, path)? else { return Ok(None) };
    let damaged = |reason: String| LogError::Damaged { path: path.to_owned(), reason };
    let mut lines = text.lines();
    if lines.next() != Some("version: 0") {
        return Err(damaged("the first line is not 'version: 0'".to_owned()));
    }
    let id = lines
        .next()
        .and_then(|line| line.strip_prefix("topic_id: "))
        .ok_or_else(|| damaged("the second line is not 'topic_id: '".to_owned()))?;
    match id.parse() {
        Ok(id) if id != TopicId::ZERO => Ok(Some(id)),
        Ok(_) => Err(damaged("the topic id is zero".to_owned())),
        Err(e) => Err(damaged(e.to_string())),
    }
}

/// The content of the file.
pub(crate) fn render_topic_id(id: TopicId) -> String {
    format!("version: 0\ntopic_id: {id}\n")
}
