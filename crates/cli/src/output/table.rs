//! Text for people.

use std::io::{self, Write};
use std::path::Path;

use klamm_log::inspect::{Finding, VerifyReport};

use crate::commands::{BatchRow, ControlRow, RecordRow, Row};

/// Prints the line above the rows of a file.
pub(crate) fn title(out: &mut impl Write, file: &Path, kind: &str, bytes: u64) -> io::Result<()> {
    writeln!(out, "{}: {}, {bytes} bytes", file.display(), kind.replace('_', " "))
}

/// Prints a row of a dump.
pub(crate) fn row(out: &mut impl Write, row: &Row<'_>) -> io::Result<()> {
    match row {
        Row::Batch(batch) => self::batch(out, batch),
        Row::Record(record) => self::record(out, record),
        Row::Damage { position, size, reason } => {
            writeln!(out, "DAMAGE position {position} size {size}: {reason}")
        }
        Row::OffsetEntry { position, offset, target } => {
            writeln!(out, "entry position {position}: offset {offset} at byte {target}")
        }
        Row::TimeEntry { position, timestamp_ms, offset } => {
            writeln!(out, "entry position {position}: timestamp {timestamp_ms} at offset {offset}")
        }
        Row::TxnEntry { position, producer_id, first_offset, last_offset, last_stable_offset } => writeln!(
            out,
            "entry position {position}: producer {producer_id} aborted {first_offset}..={last_offset}, \
             last stable offset {last_stable_offset}"
        ),
        Row::InvalidEntry { position } => writeln!(out, "DAMAGE position {position}: no entry"),
        Row::Producer(producer) => {
            write!(
                out,
                "producer {} epoch {} coordinator epoch {} last sequence {} last timestamp {} batches {}",
                producer.producer_id,
                producer.producer_epoch,
                producer.coordinator_epoch,
                producer.last_sequence,
                producer.last_timestamp_ms,
                producer.batches,
            )?;
            optional(out, " last offset ", producer.last_offset)?;
            optional(out, " transaction open since ", producer.txn_first_offset)?;
            writeln!(out)
        }
        Row::LeaderEpoch { epoch, start_offset } => writeln!(out, "epoch {epoch} from offset {start_offset}"),
        Row::TopicId { topic_id } => writeln!(out, "topic id {topic_id}"),
        Row::PartitionOffset { topic, partition, offset } => {
            writeln!(out, "{topic}-{partition} offset {offset}")
        }
        Row::MetaProperties { cluster_id, node_id, directory_id, quorum_id } => {
            write!(out, "cluster {cluster_id} node {node_id} directory {directory_id}")?;
            quorum_id.as_ref().map_or(Ok(()), |quorum| write!(out, " quorum {quorum}"))?;
            writeln!(out)
        }
        Row::CleanShutdown { broker_epoch } => writeln!(out, "closed by broker epoch {broker_epoch}"),
    }
}

fn optional(out: &mut impl Write, label: &str, value: Option<i64>) -> io::Result<()> {
    value.map_or(Ok(()), |value| write!(out, "{label}{value}"))
}

fn batch(out: &mut impl Write, batch: &BatchRow) -> io::Result<()> {
    write!(
        out,
        "batch position {} size {} offsets {}..={} records {} leader epoch {} codec {} max timestamp {}",
        batch.position,
        batch.size,
        batch.base_offset,
        batch.last_offset,
        batch.record_count,
        batch.leader_epoch,
        batch.codec.unwrap_or("unknown"),
        batch.max_timestamp_ms,
    )?;
    if batch.timestamp_type == "log_append_time" {
        write!(out, " (append time)")?;
    }
    if batch.producer_id >= 0 {
        let BatchRow { producer_id, producer_epoch, base_sequence, last_sequence, .. } = batch;
        write!(out, " producer {producer_id} epoch {producer_epoch} ")?;
        write!(out, "sequences {base_sequence}..={last_sequence}")?;
    }
    let marks = [
        (batch.transactional, " transactional"),
        (batch.control, " control"),
        (batch.delete_horizon, " delete horizon"),
    ];
    for (_, mark) in marks.iter().filter(|(is_set, _)| *is_set) {
        write!(out, "{mark}")?;
    }
    writeln!(out, " crc {:08x} {}", batch.crc, if batch.crc_ok { "ok" } else { "WRONG" })
}

fn record(out: &mut impl Write, record: &RecordRow<'_>) -> io::Result<()> {
    write!(out, "  record offset {} timestamp {}", record.offset, record.timestamp_ms)?;
    if let Some(control) = &record.control {
        return writeln!(out, " {}", control_text(control));
    }
    write!(out, " key {} value {}", record.key, record.value)?;
    for header in &record.headers {
        write!(out, " header {}={}", header.key, header.value)?;
    }
    writeln!(out)
}

fn control_text(control: &ControlRow) -> String {
    match control {
        ControlRow::Commit { coordinator_epoch } => format!("commit, coordinator epoch {coordinator_epoch}"),
        ControlRow::Abort { coordinator_epoch } => format!("abort, coordinator epoch {coordinator_epoch}"),
        ControlRow::LeaderChange => "leader change".to_owned(),
        ControlRow::SnapshotHeader => "snapshot header".to_owned(),
        ControlRow::SnapshotFooter => "snapshot footer".to_owned(),
        ControlRow::KraftVersion => "kraft version".to_owned(),
        ControlRow::KraftVoters => "kraft voters".to_owned(),
        ControlRow::Unknown { number } => format!("control record of unknown type {number}"),
        ControlRow::Invalid { reason } => format!("INVALID: {reason}"),
    }
}

/// Prints what a check found.
pub(crate) fn report(out: &mut impl Write, dir: &Path, report: &VerifyReport) -> io::Result<()> {
    for found in &report.findings {
        finding(out, found)?;
    }
    if report.unlisted > 0 {
        writeln!(out, "{} more findings are not listed", report.unlisted)?;
    }
    let VerifyReport { partitions, segments, batches, records, bytes, errors, notes, .. } = report;
    let verdict = if report.is_sound() { "sound" } else { "DAMAGED" };
    writeln!(
        out,
        "{}: {verdict}, {errors} errors, {notes} notes; {partitions} partitions, {segments} segments, \
         {batches} batches, {records} records, {bytes} bytes",
        dir.display()
    )?;
    out.flush()
}

fn finding(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    write!(out, "{}: {}", finding.severity.name(), finding.path.display())?;
    if let Some(position) = finding.position {
        write!(out, ", byte {position}")?;
    }
    if let Some(offset) = finding.offset {
        write!(out, ", offset {offset}")?;
    }
    writeln!(out, ": {} [{}]", finding.problem, finding.problem.code())?;
    writeln!(out, "    {}", finding.problem.meaning())
}
