//! Where other nodes' words come in: fetches of followers, answers of leaders and of the controller.

use klamm_log::{FetchIsolation, LogSlice, ReadError};
use klamm_record::{BatchError, Batches};
use klamm_replica::{
    Event, FetchAnswer, FetchBounds, FetchId, FetchRefusal, FetchTicket, FetchedRecords, FollowerFetch,
    IsrAnswer, ProposalId,
};
use klamm_types::{EpochEntry, Offset};

use super::effects::StepIo;
use super::{FetchOutcome, PartitionHandle};

impl PartitionHandle {
    /// A follower asks for records. Takes note of what it holds, and tells what it may be given now: read it with
    /// [`read_for_follower`](Self::read_for_follower). While there is nothing to read, hold the answer, and ask
    /// [`check_follower_fetch`](Self::check_follower_fetch) for fresh bounds when the partition has changed
    /// ([`watch`](Self::watch) with [`Interest::Anything`](super::Interest::Anything)).
    ///
    /// # Errors
    /// [`FetchRefusal`], to be sent as it is.
    pub fn on_follower_fetch(&self, fetch: &FollowerFetch) -> Result<FetchBounds, FetchRefusal> {
        let Ok(mut state) = self.enter() else { return Err(FetchRefusal::LogFailed) };
        state.ticket += 1;
        let ticket = FetchTicket(state.ticket);
        let mut io = StepIo::default();
        self.run(&mut state, Event::FollowerFetched { ticket, fetch: *fetch }, &mut io);
        self.leave(state);
        io.follower.unwrap_or(Err(FetchRefusal::LogFailed))
    }

    /// What the follower of a fetch that was held back may be given now, without taking note of it again.
    ///
    /// # Errors
    /// [`FetchRefusal`], to be sent as it is.
    pub fn check_follower_fetch(&self, fetch: &FollowerFetch) -> Result<FetchBounds, FetchRefusal> {
        match self.enter() {
            Ok(state) => state.replica.check_fetch(fetch),
            Err(_) => Err(FetchRefusal::LogFailed),
        }
    }

    /// The records for a follower within `bounds`: at least one whole batch if there is one. Takes no lock; may read
    /// the disk.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::OutOfRange`] if the log was truncated or cut since the bounds were told: ask
    /// [`check_follower_fetch`](Self::check_follower_fetch) again.
    pub fn read_for_follower(
        &self,
        bounds: &FetchBounds,
        bytes_max: usize,
    ) -> Result<Option<LogSlice>, ReadError> {
        let slice = self.shared.log.read(bounds.offset, bytes_max, FetchIsolation::LogEnd)?.slice;
        let bytes = slice.as_ref().map_or(0, LogSlice::len);
        self.shared.around.metrics.replication_bytes_out.add(bytes as u64);
        Ok(slice)
    }

    /// A fetch of this follower was answered. Records are checked and written before this returns. A refusal may make
    /// the log truncate, which waits for the disk: give those to a thread that may wait.
    pub fn on_fetch_answer(&self, id: FetchId, outcome: FetchOutcome) {
        let (answer, mut io) = self.fetch_answer(outcome);
        let Ok(mut state) = self.enter() else { return };
        self.run(&mut state, Event::FetchAnswered { fetch: id, answer }, &mut io);
        self.leave(state);
    }

    /// Checks an answer before the lock is taken: records that are damaged count as no answer.
    fn fetch_answer(&self, outcome: FetchOutcome) -> (FetchAnswer, StepIo) {
        let (mut records, high_watermark, log_start_offset) = match outcome {
            FetchOutcome::Refused(refusal) => return (FetchAnswer::Refused(refusal), StepIo::default()),
            FetchOutcome::Unreachable => return (FetchAnswer::Unreachable, StepIo::default()),
            FetchOutcome::Records { records, high_watermark, log_start_offset } => {
                (records, high_watermark, log_start_offset)
            }
        };
        let mut surveyed = match survey(&records) {
            Ok(surveyed) => surveyed,
            Err(error) => {
                self.shared.around.metrics.alarms.add(1);
                tracing::warn!(partition = %self.shared.partition, %error, "the leader sent damaged records");
                return (FetchAnswer::Unreachable, StepIo::default());
            }
        };
        records.truncate(surveyed.bytes);
        // The log does not move while a fetch is under way, and an answer to another fetch is not looked at.
        let log = &self.shared.log;
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let fetched_base = surveyed.epoch_starts.first().map(|first| first.start_offset);
        if let Some(first) = surveyed.epoch_starts.first_mut().filter(|_| start == end) {
            // A log that was started anew may start within a batch; the replica sees what is its own of it.
            first.start_offset = first.start_offset.max(end);
        }
        let described = FetchedRecords {
            end_offset: surveyed.end_offset.unwrap_or(end),
            epoch_starts: surveyed.epoch_starts,
            high_watermark,
            log_start_offset,
        };
        (FetchAnswer::Records(described), StepIo::following(records, fetched_base))
    }

    /// A proposal of this leader was answered.
    pub fn on_isr_answer(&self, proposal: ProposalId, answer: IsrAnswer) {
        let Ok(mut state) = self.enter() else { return };
        self.run(&mut state, Event::IsrProposalAnswered { proposal, answer }, &mut StepIo::default());
        self.leave(state);
    }
}

/// What a leader's records are.
struct Surveyed {
    /// Bytes of the whole batches.
    bytes: usize,
    end_offset: Option<Offset>,
    epoch_starts: Vec<EpochEntry>,
}

/// Checks the batches, and finds their epochs and their end. A last batch that is cut off does not count.
fn survey(records: &[u8]) -> Result<Surveyed, BatchError> {
    let mut surveyed = Surveyed { bytes: 0, end_offset: None, epoch_starts: Vec::new() };
    for batch in Batches::new(records) {
        let batch = match batch {
            Err(BatchError::Truncated { .. }) if surveyed.bytes > 0 => break,
            batch => batch?,
        };
        batch.verify_crc()?;
        let header = batch.header();
        let epoch = header.leader_epoch();
        if surveyed.epoch_starts.last().is_none_or(|last| last.epoch != epoch) {
            surveyed.epoch_starts.push(EpochEntry { epoch, start_offset: header.base_offset() });
        }
        surveyed.end_offset = Some(header.next_offset());
        surveyed.bytes += header.size();
    }
    Ok(surveyed)
}
