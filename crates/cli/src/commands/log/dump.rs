//! `klamm log dump`: shows what files hold.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use klamm_log::fs::{LogFs as _, RealFs};
use klamm_log::inspect::{
    BATCH_BYTES_MAX, ContentKind, DECOMPRESSED_BYTES_MAX, FoundBatch, IndexEntryValue, IndexFile,
    InspectError, SegmentFile, SegmentItem, StateFile, read_state,
};
use klamm_record::RecordBatch;

use super::{complain, say};
use crate::exit::{Exit, Failure};
use crate::output::{Format, json, table};

pub(crate) mod rows;

use rows::{BatchRow, Row};

/// Which files, and how to show them.
#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// Files of a log: segments, indexes, producer snapshots, checkpoints.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Show the records of batches (the default).
    #[arg(long, overrides_with = "no_records")]
    records: bool,
    /// Show batches only: their records are not even decompressed.
    #[arg(long)]
    no_records: bool,
    /// How to print. JSON is one object per line, told apart by its field `type`.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(args: &DumpArgs, stdout: &mut impl Write) -> Exit {
    let mut exit = Exit::Done;
    for path in &args.files {
        let mut dump = Dump { args, stdout: &mut *stdout, path, damaged: false };
        match dump.file() {
            Ok(()) if dump.damaged => {
                say(&format!(
                    "{} is damaged: `klamm log verify` on its directory tells what that means",
                    path.display()
                ));
                exit = exit.max(Exit::Failed);
            }
            Ok(()) => {}
            Err(failure) if failure.is_broken_pipe() => return Exit::Done,
            Err(failure) => exit = exit.max(complain(&failure)),
        }
    }
    exit
}

/// The dump of one file.
struct Dump<'a, W> {
    args: &'a DumpArgs,
    stdout: &'a mut W,
    path: &'a Path,
    damaged: bool,
}

impl<W: Write> Dump<'_, W> {
    fn file(&mut self) -> Result<(), Failure> {
        let path = self.path;
        // What is not there, or is a directory, is told before what has the wrong name.
        let stat = RealFs.stat(path).and_then(|stat| stat.ok_or_else(|| io::ErrorKind::NotFound.into()));
        let stat =
            stat.map_err(|source| klamm_log::StorageError { verb: "open", path: path.into(), source })?;
        if stat.is_dir {
            return Err(InspectError::IsDirectory { path: path.into() }.into());
        }
        let unknown = || InspectError::UnknownKind { path: path.into() };
        let kind = ContentKind::of_path(path).ok_or_else(unknown)?;
        match kind {
            ContentKind::Batches | ContentKind::MetadataSnapshot => {
                let file = SegmentFile::open(&RealFs, path)?;
                self.title(kind, file.len())?;
                self.batches(&file)
            }
            ContentKind::OffsetIndex | ContentKind::TimeIndex | ContentKind::TxnIndex => {
                let index = IndexFile::open(&RealFs, path)?;
                self.title(kind, stat.len)?;
                self.entries(index)
            }
            ContentKind::Producers
            | ContentKind::LeaderEpochs
            | ContentKind::TopicId
            | ContentKind::Offsets
            | ContentKind::MetaProperties
            | ContentKind::CleanShutdown => {
                let state = read_state(&RealFs, path)?;
                self.title(kind, stat.len)?;
                self.state(&state)
            }
        }
    }

    /// The table says once whose rows follow; in JSON each row does.
    fn title(&mut self, kind: ContentKind, bytes: u64) -> Result<(), Failure> {
        match self.args.output {
            Format::Table => Ok(table::title(self.stdout, self.path, kind.name(), bytes)?),
            Format::Json => Ok(()),
        }
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        self.damaged |= row.is_damage();
        match self.args.output {
            Format::Table => table::row(self.stdout, row)?,
            Format::Json => json::row(self.stdout, self.path, row)?,
        }
        Ok(())
    }

    fn batches(&mut self, file: &SegmentFile) -> Result<(), Failure> {
        let mut walk = file.walk();
        while let Some(item) = walk.next_item()? {
            match item {
                SegmentItem::Damage(damage) => {
                    let end = damage.resumes_at.unwrap_or(file.len());
                    self.row(&Row::damage(damage.position, end - damage.position, &damage.reason))?;
                }
                SegmentItem::Batch(batch) => {
                    self.row(&Row::Batch(BatchRow::new(&batch)))?;
                    if !self.args.no_records {
                        self.records(file, &batch)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn records(&mut self, file: &SegmentFile, batch: &FoundBatch) -> Result<(), Failure> {
        let Some(bytes) = file.read(batch)? else {
            say(&format!(
                "{}: the batch at byte {} has more than {BATCH_BYTES_MAX} bytes; its records are not shown",
                self.path.display(),
                batch.position
            ));
            return Ok(());
        };
        let size = bytes.len() as u64;
        let records = RecordBatch::parse(&bytes)
            .and_then(|parsed| parsed.records(DECOMPRESSED_BYTES_MAX).map(|records| (parsed, records)));
        let (parsed, mut records) = match records {
            Ok(both) => both,
            Err(reason) => return self.row(&Row::damage(batch.position, size, &reason)),
        };
        loop {
            match records.next_record() {
                Ok(Some(record)) => self.row(&Row::record(&parsed, &record))?,
                Ok(None) => return Ok(()),
                Err(reason) => return self.row(&Row::damage(batch.position, size, &reason)),
            }
        }
    }

    fn entries(&mut self, mut index: IndexFile) -> Result<(), Failure> {
        let base_offset = index.base_offset();
        let absolute = |relative: u32| base_offset.0.saturating_add(i64::from(relative));
        while let Some(item) = index.next_item()? {
            let position = item.position;
            let row = match item.entry {
                None => Row::InvalidEntry { position },
                Some(IndexEntryValue::Offset(entry)) => Row::OffsetEntry {
                    position,
                    offset: absolute(entry.relative_offset),
                    target: entry.position,
                },
                Some(IndexEntryValue::Time(entry)) => Row::TimeEntry {
                    position,
                    timestamp_ms: entry.timestamp.0,
                    offset: absolute(entry.relative_offset),
                },
                Some(IndexEntryValue::Txn(entry)) => Row::TxnEntry {
                    position,
                    producer_id: entry.producer_id.0,
                    first_offset: entry.first_offset.0,
                    last_offset: entry.last_offset.0,
                    last_stable_offset: entry.last_stable_offset.0,
                },
            };
            self.row(&row)?;
        }
        Ok(())
    }

    fn state(&mut self, state: &StateFile) -> Result<(), Failure> {
        match state {
            StateFile::LeaderEpochs(epochs) => epochs.entries().iter().try_for_each(|entry| {
                let (epoch, start_offset) = (entry.epoch.0, entry.start_offset.0);
                self.row(&Row::LeaderEpoch { epoch, start_offset })
            }),
            StateFile::TopicId(id) => self.row(&Row::TopicId { topic_id: id.to_string() }),
            StateFile::Offsets(offsets) => offsets.0.iter().try_for_each(|(partition, offset)| {
                let (topic, partition) = (partition.topic.as_str(), partition.partition.0);
                self.row(&Row::PartitionOffset { topic, partition, offset: offset.0 })
            }),
            StateFile::MetaProperties(meta) => self.row(&Row::MetaProperties {
                cluster_id: &meta.cluster_id,
                node_id: meta.node_id.0,
                // Kafka writes all its ids in one form.
                directory_id: klamm_types::TopicId(*meta.directory_id.as_bytes()).to_string(),
                quorum_id: meta.quorum_id.map(|quorum| quorum.to_string()),
            }),
            StateFile::CleanShutdown(mark) => {
                self.row(&Row::CleanShutdown { broker_epoch: mark.broker_epoch.0 })
            }
            StateFile::Producers(producers) => producers
                .iter()
                .try_for_each(|(producer_id, entry)| self.row(&Row::producer(*producer_id, entry))),
        }
    }
}
