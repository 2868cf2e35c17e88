//! Runs steps on a log and writes down what each of them promised.

use std::sync::{Arc, Mutex};

use klamm_log::fs::MemoryFs;
use klamm_log::{AppendError, AppendOrigin, CleanupPolicy, FlushListener, Log, LogConfig, LogError};
use klamm_record::{Batches, RecordBatchMut, TransactionResult};
use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::batches::{DataBatch, Writer, marker};
use crate::node::Node;
use crate::plain_log::{PlainBatch, PlainLog};
use crate::random::Random;
use crate::timeline::{Moment, Promise, Timeline};

/// Something that is done to a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A client's batch arrives at the leader.
    Append {
        records: usize,
        value_len: usize,
        producer: Option<i64>,
        transactional: bool,
    },
    /// A coordinator ends the transaction of this producer, if it has one.
    EndTransaction {
        producer: i64,
        commit: bool,
    },
    /// The leader sends batches: this many, after a gap, in an epoch so much above that of the last batch.
    Follow {
        batches: usize,
        gap: i64,
        epoch_step: i32,
    },
    /// A new leader epoch starts, `by` above the newest.
    StartEpoch {
        by: i32,
    },
    Flush,
    Checkpoint,
    /// Cuts off this many batches, at an offset within the first of them if `inside`.
    Truncate {
        batches: usize,
        inside: bool,
    },
    /// Starts again this far past the log end.
    Restart {
        ahead: i64,
    },
    AdvanceHighWatermark,
    /// Moves the log start this many batches on, as far as the high watermark allows.
    DeleteRecords {
        batches: usize,
    },
    Retain,
    RemoveDeleted,
    Release,
    /// Closes in order and opens again.
    Reopen,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Failure {
    /// Whether the directory has been taken out of service before.
    pub(crate) fn is_offline(&self) -> bool {
        matches!(self, Self::Append(AppendError::Offline(_)) | Self::Log(LogError::Offline(_)))
    }

    /// Whether the disk was full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Append(AppendError::Full(_)) => true,
            Self::Log(LogError::Storage(error)) => error.is_full(),
            _ => false,
        }
    }
}

/// Settings under which little data gives many segments and index entries.
pub(crate) fn small_segments() -> LogConfig {
    LogConfig {
        cleanup_policy: CleanupPolicy { delete: true, compact: false },
        segment_bytes: 2500,
        index_interval_bytes: 200,
        segment_index_bytes: 400,
        retention_bytes: Some(7000),
        retention_ms: None,
        file_delete_delay_ms: 500,
        ..LogConfig::default()
    }
}

/// A log under a workload.
pub(crate) struct Run {
    fs: MemoryFs,
    node: Option<Node>,
    promise: Promise,
    timeline: Timeline,
    random: Random,
    now: i64,
    published: Arc<Mutex<Vec<(u64, i64)>>>,
    /// The step under way takes everything away: until it is done, anything may be left.
    discards: bool,
    /// What the log looks like if the step under way succeeds.
    attempted: Option<PlainLog>,
}

impl Run {
    /// Starts on `fs`, on which the log holds what `promise` says.
    pub(crate) fn start(fs: &MemoryFs, promise: Promise, seed: u64, now: i64) -> Self {
        Self::try_start(fs, promise, seed, now).unwrap()
    }

    fn try_start(fs: &MemoryFs, promise: Promise, seed: u64, now: i64) -> Result<Self, Failure> {
        let mut run = Self {
            fs: fs.clone(),
            node: None,
            promise,
            timeline: Timeline::default(),
            random: Random::new(seed),
            now,
            published: Arc::default(),
            discards: false,
            attempted: None,
        };
        run.moment("open".to_owned(), Self::open)?;
        Ok(run)
    }

    /// Starts with nothing.
    pub(crate) fn start_empty(fs: &MemoryFs, seed: u64) -> Self {
        Self::try_start_empty(fs, seed).unwrap()
    }

    pub(crate) fn try_start_empty(fs: &MemoryFs, seed: u64) -> Result<Self, Failure> {
        let promise = Promise {
            log: PlainLog::new(0),
            flushed_end: 0,
            durable_epochs: Vec::new(),
            assigned_epochs: Vec::new(),
            high_watermark: 0,
        };
        Self::try_start(fs, promise, seed, 1_000_000)
    }

    /// What holds now.
    pub(crate) fn promise(&self) -> &Promise {
        &self.promise
    }

    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        self.node.as_ref().unwrap().log()
    }

    /// Whether the log was closed and could not be opened again.
    pub(crate) fn is_closed(&self) -> bool {
        self.node.is_none()
    }

    /// Whether the log's directory is out of service.
    pub(crate) fn is_offline(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.log().log_dir().check().is_err())
    }

    fn open(&mut self) -> Result<(), Failure> {
        let node = Node::open(&self.fs, small_segments(), Timestamp(self.now))?;
        let (fs, published) = (self.fs.clone(), Arc::clone(&self.published));
        let listener = move |end: Offset| published.lock().unwrap().push((fs.journal_position(), end.0));
        node.log().set_flush_listener(FlushListener(Arc::new(listener)));
        self.node = Some(node);
        Ok(())
    }

    /// Does something and writes down when, and what it changed.
    fn moment(
        &mut self,
        what: String,
        act: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (begin, before) = (self.fs.journal_position(), Arc::new(self.promise.clone()));
        let done = act(self);
        let Promise { log, assigned_epochs, .. } = &mut self.promise;
        assigned_epochs.extend(&log.epochs);
        assigned_epochs.sort_unstable();
        assigned_epochs.dedup();
        let published = std::mem::take(&mut *self.published.lock().unwrap());
        let attempted = self.attempted.take().filter(|_| done.is_err());
        let mut after = self.promise.clone();
        if let Some(log) = attempted {
            // A cut may have been made, an append may have been written.
            after.flushed_end = after.flushed_end.min(log.end);
            after.log = log;
        }
        let (failed, after) = (done.is_err(), Arc::new(after));
        let kept = if self.discards { 0 } else { before.flushed_end.min(after.flushed_end) };
        self.discards = false;
        let end = self.fs.journal_position();
        self.timeline.moments.push(Moment { what, begin, end, before, after, failed, kept, published });
        done
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.try_step(step).unwrap_or_else(|e| panic!("{step:?}: {e}"));
    }

    pub(crate) fn try_step(&mut self, step: Step) -> Result<(), Failure> {
        self.now += 100;
        self.moment(format!("{step:?}"), |run| run.act(step))?;
        let (log, plain) = (self.log(), &self.promise.log);
        assert_eq!(log.log_end_offset().0, plain.end, "{step:?}");
        assert_eq!(log.log_start_offset().0, plain.start, "{step:?}");
        assert!(log.flushed_end_offset().0 <= plain.end, "{step:?}");
        Ok(())
    }

    fn act(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Append { records, value_len, producer, transactional } => {
                let producer = producer.map(|id| self.writer(id, transactional));
                let batch = DataBatch { records, value_len, timestamp: self.now, producer };
                let bytes = batch.build(&mut self.random);
                self.append(bytes, AppendOrigin::Client)?;
            }
            Step::EndTransaction { producer, commit } => self.end_transaction(producer, commit)?,
            Step::Follow { batches, gap, epoch_step } => self.follow(batches, gap, epoch_step)?,
            Step::StartEpoch { by } => {
                let epoch = self.promise.log.epochs.last().map_or(0, |latest| latest.0) + by;
                let end = self.promise.log.end;
                self.log().assign_epoch_start(LeaderEpoch(epoch));
                self.promise.log.assign_epoch(epoch, end);
            }
            Step::Flush => {
                let end = self.log().flush()?;
                self.note_flush(end);
            }
            Step::Checkpoint => {
                self.node.as_ref().unwrap().checkpoint()?;
                self.note_flush(self.log().flushed_end_offset());
            }
            Step::Truncate { batches, inside } => self.truncate(batches, inside)?,
            Step::Restart { ahead } => self.restart(self.promise.log.end + ahead)?,
            Step::AdvanceHighWatermark => {
                let end = self.log().flushed_end_offset();
                self.log().advance_high_watermark(end);
                self.promise.high_watermark = self.promise.high_watermark.max(end.0);
            }
            Step::DeleteRecords { batches } => self.delete_records(batches)?,
            Step::Retain => {
                let retained = self.log().apply_retention(Timestamp(self.now));
                self.promise.log.start = self.log().log_start_offset().0;
                self.note_flushed_end();
                retained?;
            }
            Step::RemoveDeleted => {
                self.log().remove_deleted(Timestamp(self.now))?;
            }
            Step::Release => {
                self.log().release()?;
                self.note_flush(self.log().flushed_end_offset());
            }
            Step::Reopen => {
                self.node.take().unwrap().close()?;
                self.note_all_durable();
                self.open()?;
                // Those without a batch may be forgotten, or be older than the last of them was.
                let told = self.log().leader_epochs();
                let told: Vec<_> = told.entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect();
                let durable = self.promise.durable_epochs.iter();
                let lost: Vec<_> = durable
                    .filter(|epoch| epoch.1 >= self.promise.log.start && !told.contains(epoch))
                    .collect();
                assert!(lost.is_empty(), "{lost:?} of {told:?}");
                self.promise.log.epochs = told;
            }
        }
        Ok(())
    }

    fn note_flush(&mut self, end: Offset) {
        assert_eq!(end.0, self.promise.log.end);
        self.note_all_durable();
    }

    fn note_all_durable(&mut self) {
        self.promise.flushed_end = self.promise.log.end;
        // One that has no batch yet is not worth a file.
        let log = &self.promise.log;
        let has_batch = |epoch: &&(i32, i64)| log.batches.iter().any(|batch| batch.epoch == epoch.0);
        self.promise.durable_epochs = log.epochs.iter().filter(has_batch).copied().collect();
    }

    /// Takes over what the log itself calls flushed.
    fn note_flushed_end(&mut self) {
        self.promise.flushed_end = self.log().flushed_end_offset().0;
    }

    fn writer(&self, id: i64, transactional: bool) -> Writer {
        let known = self.log().producers().into_iter().find(|(known, _)| known.0 == id);
        match known {
            Some((_, entry)) => {
                let transactional = transactional || entry.txn_first_offset.is_some();
                let sequence = entry.last_sequence() + 1;
                Writer { id, epoch: entry.epoch.0, sequence, transactional }
            }
            None => Writer { id, epoch: 0, sequence: 0, transactional },
        }
    }

    fn append(&mut self, bytes: Vec<u8>, origin: AppendOrigin) -> Result<(), Failure> {
        let epoch = LeaderEpoch(self.promise.log.epochs.last().map_or(0, |latest| latest.0));
        let mut assigned = bytes.clone();
        RecordBatchMut::parse(&mut assigned).unwrap().assign(Offset(self.promise.log.end), epoch).unwrap();
        self.attempt_batches(&assigned);
        let info = self.log().append_as_leader(&bytes, epoch, origin, Timestamp(self.now))?;
        assert_eq!((info.first_offset.0, info.duplicate.is_some()), (self.promise.log.end, false));
        self.note_batches(&assigned);
        Ok(())
    }

    fn attempt_batches(&mut self, bytes: &[u8]) {
        let mut log = self.promise.log.clone();
        for batch in Batches::new(bytes) {
            log.append(PlainBatch::read(&batch.unwrap()));
        }
        self.attempted = Some(log);
    }

    fn note_batches(&mut self, bytes: &[u8]) {
        for batch in Batches::new(bytes) {
            self.promise.log.append(PlainBatch::read(&batch.unwrap()));
        }
    }

    fn end_transaction(&mut self, id: i64, commit: bool) -> Result<(), Failure> {
        let writer = self.writer(id, true);
        let result = if commit { TransactionResult::Commit } else { TransactionResult::Abort };
        self.append(marker(writer, result, 1, self.now), AppendOrigin::Internal)
    }

    fn follow(&mut self, batches: usize, gap: i64, epoch_step: i32) -> Result<(), Failure> {
        let last = self.promise.log.batches.last().map_or(0, |batch| batch.epoch);
        let latest = self.promise.log.epochs.last().map_or(0, |latest| latest.0);
        let epoch = (last + epoch_step).max(latest);
        let (mut base, mut bytes) = (self.promise.log.end + gap, Vec::new());
        for _ in 0..batches {
            let records = 1 + self.random.below(3) as usize;
            let value_len = self.random.below(300) as usize;
            let batch = DataBatch { records, value_len, timestamp: self.now, producer: None };
            bytes.extend(batch.build_at(base, epoch, &mut self.random));
            base += records as i64;
        }
        self.attempt_batches(&bytes);
        self.log().append_as_follower(&bytes, Timestamp(self.now))?;
        self.note_batches(&bytes);
        Ok(())
    }

    fn truncate(&mut self, batches: usize, inside: bool) -> Result<(), Failure> {
        let plain = &self.promise.log;
        let left = plain.between(plain.start, plain.end);
        // Not the first batch: from there on it is another log.
        let offset = match left.len().checked_sub(batches) {
            Some(at) if at == left.len() => plain.end,
            Some(at) if at > 0 => left[at].base + i64::from(inside && left[at].next > left[at].base + 1),
            _ => return Ok(()),
        };
        let mut cut = self.promise.log.clone();
        cut.truncate_to(offset);
        self.attempted = Some(cut);
        let end = self.log().truncate_to(Offset(offset), Timestamp(self.now))?;
        self.promise.log.truncate_to(offset);
        assert_eq!(end.0, self.promise.log.end);
        self.note_cut();
        Ok(())
    }

    fn restart(&mut self, offset: i64) -> Result<(), Failure> {
        self.discards = true;
        self.attempted = Some(PlainLog::new(offset));
        self.log().truncate_fully_and_start_at(Offset(offset), Timestamp(self.now))?;
        self.promise.log.restart_at(offset);
        self.promise.high_watermark = self.promise.high_watermark.max(offset);
        self.note_cut();
        self.promise.flushed_end = offset;
        Ok(())
    }

    fn note_cut(&mut self) {
        self.note_flushed_end();
        let epochs = &self.promise.log.epochs;
        self.promise.durable_epochs.retain(|epoch| epochs.contains(epoch));
        let (start, end) = (self.promise.log.start, self.promise.log.end);
        self.promise.assigned_epochs.retain(|epoch| epoch.1 < end && start < end);
    }

    fn delete_records(&mut self, batches: usize) -> Result<(), Failure> {
        let plain = &self.promise.log;
        let left = plain.between(plain.start, plain.end);
        let Some(batch) = left.get(batches) else { return Ok(()) };
        let to = batch.base.min(self.log().high_watermark().0);
        self.log().advance_log_start(Offset(to))?;
        self.promise.log.start = self.promise.log.start.max(to);
        Ok(())
    }
}

/// Steps at random, with a bias towards appending.
pub(crate) fn random_steps(count: usize, random: &mut Random) -> Vec<Step> {
    (0..count).map(|_| random_step(random)).collect()
}

pub(crate) fn random_step(random: &mut Random) -> Step {
    let producer = random.below(3) as i64;
    match random.below(40) {
        0..=12 => Step::Append {
            records: 1 + random.below(4) as usize,
            value_len: random.below(400) as usize,
            producer: (producer > 0).then_some(producer),
            transactional: producer == 1,
        },
        13..=14 => Step::EndTransaction { producer: 1, commit: random.one_in(2) },
        15..=17 => Step::Follow {
            batches: 1 + random.below(4) as usize,
            gap: if random.one_in(4) { random.below(5) as i64 } else { 0 },
            epoch_step: random.below(2) as i32,
        },
        18..=19 => Step::StartEpoch { by: 1 + random.below(2) as i32 },
        20..=24 => Step::Flush,
        25..=26 => Step::Checkpoint,
        27..=28 => Step::Truncate { batches: random.below(7) as usize, inside: random.one_in(2) },
        29 if random.one_in(4) => Step::Restart { ahead: random.below(10) as i64 },
        29..=32 => Step::AdvanceHighWatermark,
        33 => Step::DeleteRecords { batches: 1 + random.below(3) as usize },
        34..=35 => Step::Retain,
        36 => Step::RemoveDeleted,
        37 => Step::Release,
        _ => Step::Reopen,
    }
}
