//! The text form that Kafka's checkpoints share: a version, the number of rows, the rows.

use std::io;
use std::path::Path;

use crate::error::{Describe as _, LogError};
use crate::fs::{LogFs, read_file};

const VERSION: &str = "0";

/// No checkpoint is larger: a million partitions with the longest names take 270 MB.
const FILE_LEN_MAX: u64 = 512 * 1024 * 1024;

/// Reads the rows of `path`, each through `row`. `None` if there is no such file.
pub(super) fn read<T>(
    fs: &dyn LogFs,
    path: &Path,
    mut row: impl FnMut(&str) -> Option<T>,
) -> Result<Option<Vec<T>>, LogError> {
    let Some(text) = read_text(fs, path)? else { return Ok(None) };
    let damaged = |reason: String| LogError::Damaged { path: path.to_owned(), reason };
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return Err(damaged(format!("the first line is not version {VERSION}")));
    }
    let count: usize = lines
        .next()
        .and_then(|line| line.parse().ok())
        .ok_or_else(|| damaged("the second line is not a number of rows".to_owned()))?;
    let mut rows = Vec::new();
    for (i, line) in lines.enumerate() {
        rows.push(row(line).ok_or_else(|| damaged(format!("line {} is not a row", i + 3)))?);
    }
    if rows.len() != count {
        return Err(damaged(format!("there are {} rows, not {count}", rows.len())));
    }
    Ok(Some(rows))
}

/// The text of a file with these rows.
pub(super) fn render(rows: impl ExactSizeIterator<Item = String>) -> String {
    let mut text = format!("{VERSION}\n{}\n", rows.len());
    for row in rows {
        text.push_str(&row);
        text.push('\n');
    }
    text
}

/// A small text file, or `None` if there is none.
pub(super) fn read_text(fs: &dyn LogFs, path: &Path) -> Result<Option<String>, LogError> {
    let bytes = match read_file(fs, path, FILE_LEN_MAX) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.describe("read", path)?,
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(LogError::Damaged { path: path.to_owned(), reason: "it is not UTF-8".to_owned() }),
    }
}
