//! Reading for consumers. No lock is taken.

use klamm_log::{FetchIsolation, ReadError, ReadOutcome};
use klamm_types::{EpochEndOffset, LeaderEpoch, Offset};

use super::{PartitionHandle, ReadFailure};

/// How far a consumer may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadIsolation {
    /// To the high watermark.
    ReadUncommitted,
    /// To the last stable offset; aborted transactions come along.
    ReadCommitted,
}

/// Who may answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFrom {
    /// Only the leader.
    Leader,
    /// A follower, too (KIP-392).
    AnyReplica,
}

/// What a consumer wants to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The first offset.
    pub offset: Offset,
    /// The most bytes, but at least one whole batch if there is one.
    pub bytes_max: usize,
    /// How far it may see.
    pub isolation: ReadIsolation,
    /// Who may answer.
    pub from: ReadFrom,
    /// The leader epoch that the consumer believes in, if it says.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record before `offset` that the consumer has, if it says (KIP-595).
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct PartitionRead {
    /// The records and the bounds at the time of the read. The records are read from the file by
    /// [`LogSlice::read_into`](klamm_log::LogSlice::read_into).
    pub outcome: ReadOutcome,
    /// The consumer's history parts from this log: where the newest epoch ends that both know. There are no records
    /// then.
    pub diverging: Option<EpochEndOffset>,
}

impl ReadIsolation {
    fn bound(self) -> FetchIsolation {
        match self {
            Self::ReadUncommitted => FetchIsolation::HighWatermark,
            Self::ReadCommitted => FetchIsolation::LastStable,
        }
    }
}

impl PartitionHandle {
    /// Reads for a consumer. May read the disk.
    ///
    /// # Errors
    /// [`ReadFailure::NotServing`]; [`ReadFailure::Log`], with
    /// [`ReadError::OutOfRange`](klamm_log::ReadError::OutOfRange) for an offset outside of the log.
    pub fn read(&self, request: &ReadRequest) -> Result<PartitionRead, ReadFailure> {
        let role = self.shared.role.load();
        role.check(request.leader_epoch, request.from)?;
        self.check_lease(self.now())?;
        let diverging = request.last_fetched_epoch.map(|epoch| self.diverging(epoch, request.offset));
        let diverging = diverging.transpose()?.flatten();
        let bytes_max = if diverging.is_some() { 0 } else { request.bytes_max };
        let mut outcome = match self.shared.log.read(request.offset, bytes_max, request.isolation.bound()) {
            Err(ReadError::OutOfRange { .. }) if diverging.is_some() => self.bounds(),
            outcome => outcome?,
        };
        if diverging.is_some() {
            outcome.slice = None;
            outcome.aborted.clear();
        }
        let bytes = outcome.slice.as_ref().map_or(0, klamm_log::LogSlice::len);
        self.shared.around.metrics.bytes_out.add(bytes as u64);
        Ok(PartitionRead { outcome, diverging })
    }

    /// Where this log ends for one who has `epoch` before `offset`, if the two part there.
    fn diverging(&self, epoch: LeaderEpoch, offset: Offset) -> Result<Option<EpochEndOffset>, ReadFailure> {
        let log = &self.shared.log;
        match log.end_offset_for_epoch(epoch) {
            Some(end) if end.epoch < epoch || end.end_offset < offset => Ok(Some(end)),
            Some(_) => Ok(None),
            None => Err(ReadError::OutOfRange {
                offset,
                log_start_offset: log.log_start_offset(),
                log_end_offset: log.log_end_offset(),
            }
            .into()),
        }
    }

    /// The published bounds of the log, without records. Each is true, and they are in order.
    #[must_use]
    pub fn bounds(&self) -> ReadOutcome {
        let log = &self.shared.log;
        let log_end_offset = log.log_end_offset();
        let high_watermark = log.high_watermark().min(log_end_offset);
        ReadOutcome {
            slice: None,
            log_start_offset: log.log_start_offset().min(high_watermark),
            high_watermark,
            last_stable_offset: log.last_stable_offset().min(high_watermark),
            log_end_offset,
            aborted: Vec::new(),
        }
    }
}
