//! JSON, one object per line.

use std::io::{self, Write};
use std::path::Path;

use klamm_log::inspect::{Finding, VerifyReport};
use serde::Serialize;

use crate::commands::Row;

/// A row with the file that it is of.
#[derive(Serialize)]
struct FileRow<'a> {
    file: String,
    #[serde(flatten)]
    row: &'a Row<'a>,
}

#[derive(Serialize)]
struct Report<'a> {
    dir: String,
    sound: bool,
    errors: u64,
    notes: u64,
    partitions: u64,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    findings: Vec<FindingRow<'a>>,
    /// Findings that are counted and not listed.
    unlisted: u64,
}

#[derive(Serialize)]
struct FindingRow<'a> {
    severity: &'static str,
    code: &'static str,
    path: String,
    position: Option<u64>,
    offset: Option<i64>,
    message: String,
    meaning: &'a str,
}

impl<'a> FindingRow<'a> {
    fn new(finding: &'a Finding) -> Self {
        Self {
            severity: finding.severity.name(),
            code: finding.problem.code(),
            path: finding.path.display().to_string(),
            position: finding.position,
            offset: finding.offset.map(|offset| offset.0),
            message: finding.problem.to_string(),
            meaning: finding.problem.meaning(),
        }
    }
}

/// Prints a row of a dump.
pub(crate) fn row(out: &mut impl Write, file: &Path, row: &Row<'_>) -> io::Result<()> {
    line(out, &FileRow { file: file.display().to_string(), row })
}

/// Prints what a check found.
pub(crate) fn report(out: &mut impl Write, dir: &Path, report: &VerifyReport) -> io::Result<()> {
    let findings = report.findings.iter().map(FindingRow::new).collect();
    line(
        out,
        &Report {
            dir: dir.display().to_string(),
            sound: report.is_sound(),
            errors: report.errors,
            notes: report.notes,
            partitions: report.partitions,
            segments: report.segments,
            batches: report.batches,
            records: report.records,
            bytes: report.bytes,
            findings,
            unlisted: report.unlisted,
        },
    )?;
    out.flush()
}

/// Prints one object.
pub(crate) fn line(out: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.write_all(b"\n")
}
