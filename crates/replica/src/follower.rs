//! The replica as follower: it fetches, appends what it gets, and falls into line where it parted from its leader.
//!
//! ```text
//!   Ready ──Fetch──▶ Outstanding ──Records──▶ (append, flush) ──▶ Ready
//!     ▲                  │ Diverging, out of range ──▶ (truncate) ──▶ Ready
//!     │                  │ Unreachable, NotLeader, Unknown…, Log… ──▶ BackingOff ──time or metadata──▶ Ready
//!     │                  │ Fenced ──▶ AwaitingMetadata
//!     │                  └ would drop committed records ──▶ Halted
//!     └────────────────────── new leader epoch, from every state ─────────────────────┘
//! ```

use std::hash::{Hash, Hasher};

use klamm_types::{BrokerId, EpochEndOffset, LeaderEpoch, Offset, Timestamp};

use crate::effect::Effect;
use crate::event::{FetchAnswer, FetchId, FetchedRecords, FollowerFetch};
use crate::refusal::{Alarm, FetchRefusal};
use crate::registration::Registration;
use crate::replica::{LogOperation, Partition, Step, backoff_ms};
use crate::truncation::truncation_target;

/// A fetch that has not been answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutstandingFetch {
    pub(crate) id: FetchId,
    pub(crate) offset: Offset,
}

/// The id only tells answers apart.
impl Hash for OutstandingFetch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.offset.hash(state);
    }
}

/// What the follower is doing about its next records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FetchState {
    /// Free to ask, as soon as all it holds is flushed.
    Ready,
    /// Waiting for the leader.
    Outstanding(OutstandingFetch),
    /// Asking again later, or when the metadata changes.
    BackingOff { until: Timestamp },
    /// Its leader epoch is over; the next one will come.
    AwaitingMetadata,
    /// Asked to drop committed records; waits for the next leader epoch, and for an operator.
    Halted,
}

/// A follower in one leader epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Follower {
    /// Whom to follow; `None` while nobody leads.
    pub(crate) leader: Option<BrokerId>,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) fetch: FetchState,
    /// Fetches that failed in a row.
    failures: u32,
    /// The high watermark that the leader last told, to be taken over once this log is flushed that far.
    leader_high_watermark: Offset,
}

/// Without the pace of its retries.
impl Hash for Follower {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.leader, self.epoch, self.leader_high_watermark).hash(state);
        std::mem::discriminant(&self.fetch).hash(state);
        if let FetchState::Outstanding(outstanding) = self.fetch {
            outstanding.hash(state);
        }
    }
}

impl Follower {
    /// Begins to follow in a new leader epoch, even if it is of the same leader (KAFKA-7164).
    pub(crate) fn following(
        leader: Option<BrokerId>,
        registration: &Registration,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) -> Self {
        let leader_high_watermark = partition.log.high_watermark;
        let epoch = registration.leader_epoch;
        let mut follower =
            Self { leader, epoch, fetch: FetchState::Ready, failures: 0, leader_high_watermark };
        let log = &partition.log;
        // B01: falls back to what it knows to be committed, which is less than what is (KIP-101).
        if cfg!(mutant = "B01") && log.high_watermark < log.log_end_offset {
            follower.truncate(log.high_watermark, partition, step);
            return follower;
        }
        // An epoch that this replica led without writing must go: the leader may have records of other epochs there.
        if log.epochs.latest().is_some_and(|latest| latest.start_offset >= log.log_end_offset) {
            follower.truncate(log.log_end_offset, partition, step);
        }
        follower.maybe_fetch(partition, step);
        follower
    }

    /// Any news of the metadata in the same leader epoch is a reason to ask again at once.
    pub(crate) fn on_metadata(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        if let FetchState::BackingOff { .. } = self.fetch {
            self.fetch = FetchState::Ready;
        }
        // What is written may count as held under other settings.
        self.maybe_fetch(partition, step);
    }

    /// Drops the outstanding fetch, if there is one: this replica follows no longer, or in another epoch.
    pub(crate) fn stop(self, step: &mut Step<'_>) {
        if let FetchState::Outstanding(outstanding) = self.fetch {
            step.push(Effect::CancelFetch(outstanding.id));
        }
    }

    pub(crate) fn on_tick(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        if let FetchState::BackingOff { until } = self.fetch
            && step.now >= until
        {
            self.fetch = FetchState::Ready;
        }
        self.maybe_fetch(partition, step);
    }

    pub(crate) fn next_wakeup(&self) -> Option<Timestamp> {
        match self.fetch {
            FetchState::BackingOff { until } => Some(until),
            _ => None,
        }
    }

    /// Asks for what comes after all that this replica holds. What is written but not flushed is not held: to
    /// ask for more would acknowledge it.
    pub(crate) fn maybe_fetch(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        let Some(leader) = self.leader else { return };
        let held_end_offset = partition.log.held_end_offset(partition.config.durability);
        let log_end_offset = partition.log.log_end_offset;
        if self.fetch != FetchState::Ready
            || partition.operation.is_some()
            || held_end_offset < log_end_offset
        {
            return;
        }
        let id = FetchId(partition.next_id());
        let fetch = FollowerFetch {
            broker: partition.broker,
            broker_epoch: partition.broker_epoch,
            leader_epoch: self.epoch,
            offset: log_end_offset,
            last_epoch: partition.log.epoch_before(log_end_offset),
            log_start_offset: partition.log.log_start_offset,
            high_watermark: partition.log.high_watermark,
        };
        self.fetch = FetchState::Outstanding(OutstandingFetch { id, offset: log_end_offset });
        step.push(Effect::Fetch { id, leader, fetch });
    }

    pub(crate) fn on_fetch_answered(
        &mut self,
        id: FetchId,
        answer: FetchAnswer,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        // An answer to a fetch of another epoch or offset is stale (KAFKA-13207, KAFKA-7786, KAFKA-8012).
        let FetchState::Outstanding(outstanding) = self.fetch else { return };
        if outstanding.id != id {
            return;
        }
        assert_eq!(outstanding.offset, partition.log.log_end_offset, "INV12: the log moved under a fetch");
        self.fetch = FetchState::Ready;
        match answer {
            FetchAnswer::Records(records) => self.on_records(id, records, partition, step),
            FetchAnswer::Refused(refusal) => self.on_refused(refusal, partition, step),
            FetchAnswer::Unreachable => self.back_off(step),
        }
        self.maybe_fetch(partition, step);
    }

    fn on_records(
        &mut self,
        id: FetchId,
        records: FetchedRecords,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        if !self.is_plausible(&records, partition) {
            step.push(Effect::RaiseAlarm(Alarm::MalformedFetchAnswer {
                offset: partition.log.log_end_offset,
            }));
            self.back_off(step);
            return;
        }
        if records.end_offset > partition.log.log_end_offset {
            partition.operation = Some(LogOperation::AppendAsFollower(records));
            step.push(Effect::AppendAsFollower { fetch: id });
        } else {
            self.failures = 0;
            self.adopt_bounds(&records, partition, step);
        }
    }

    /// Whether the records go on where the log ends, with epochs that only grow and are not past the leader's.
    fn is_plausible(&self, records: &FetchedRecords, partition: &Partition) -> bool {
        let log = &partition.log;
        let starts = &records.epoch_starts;
        let inside = |offset| log.log_end_offset <= offset && offset < records.end_offset;
        let last = log.epochs.latest().map_or(LeaderEpoch(0), |latest| latest.epoch);
        records.end_offset >= log.log_end_offset
            && records.log_start_offset <= records.high_watermark
            && starts.is_empty() == (records.end_offset == log.log_end_offset)
            && starts.iter().all(|start| inside(start.start_offset) && start.epoch <= self.epoch)
            && starts.first().is_none_or(|first| first.epoch >= last)
            && starts.windows(2).all(|w| w[0].epoch < w[1].epoch && w[0].start_offset < w[1].start_offset)
    }

    pub(crate) fn on_appended(
        &mut self,
        records: &FetchedRecords,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        self.failures = 0;
        let log = &mut partition.log;
        for start in &records.epoch_starts {
            log.epochs.assign(start.epoch, start.start_offset);
        }
        log.log_end_offset.advance_to(records.end_offset);
        step.push(Effect::AdvanceLogEnd(records.end_offset));
        partition.request_flush(step);
        self.adopt_bounds(records, partition, step);
        self.maybe_fetch(partition, step);
    }

    pub(crate) fn on_flushed(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        self.advance_high_watermark(partition, step);
        self.maybe_fetch(partition, step);
    }

    fn adopt_bounds(&mut self, records: &FetchedRecords, partition: &mut Partition, step: &mut Step<'_>) {
        self.leader_high_watermark.advance_to(records.high_watermark);
        self.advance_high_watermark(partition, step);
        let log_start_offset = records.log_start_offset.min(partition.log.high_watermark);
        if partition.log.advance_log_start(log_start_offset) {
            step.push(Effect::AdvanceLogStart(log_start_offset));
        }
    }

    /// Committed is what the leader says, as far as this replica holds it.
    fn advance_high_watermark(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        let held_end_offset = partition.log.held_end_offset(partition.config.durability);
        let high_watermark = self.leader_high_watermark.min(held_end_offset);
        if partition.log.high_watermark.advance_to(high_watermark) {
            step.push(Effect::AdvanceHighWatermark(high_watermark));
        }
    }

    fn on_refused(&mut self, refusal: FetchRefusal, partition: &mut Partition, step: &mut Step<'_>) {
        match refusal {
            FetchRefusal::Diverging { epoch, end_offset, high_watermark } => {
                // KAFKA-14704: what the leader has committed is not what this log holds there.
                if cfg!(mutant = "B19") {
                    self.leader_high_watermark.advance_to(high_watermark);
                    self.advance_high_watermark(partition, step);
                }
                let log = &partition.log;
                let leader_end = EpochEndOffset { epoch, end_offset };
                let target = truncation_target(&log.epochs, log.log_end_offset, leader_end);
                match target.filter(|&target| target < log.log_end_offset) {
                    Some(target) => self.truncate(target, partition, step),
                    None => self.on_senseless_answer(partition, step),
                }
            }
            FetchRefusal::OffsetOutOfRange { log_start_offset, log_end_offset } => {
                self.on_out_of_range(log_start_offset, log_end_offset, partition, step);
            }
            FetchRefusal::FencedLeaderEpoch { .. } => self.fetch = FetchState::AwaitingMetadata,
            FetchRefusal::UnknownLeaderEpoch { .. }
            | FetchRefusal::NotLeader
            | FetchRefusal::NotReplica
            | FetchRefusal::StaleBrokerEpoch { .. }
            | FetchRefusal::LogFailed => self.back_off(step),
        }
    }

    fn on_out_of_range(
        &mut self,
        leader_start: Offset,
        leader_end: Offset,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        let mine = partition.log.log_end_offset;
        if leader_start > leader_end {
            self.on_senseless_answer(partition, step);
        } else if mine <= leader_start && partition.log.log_start_offset < leader_start {
            // All that is held here was deleted: nothing is lost, and nothing of it connects to what is left.
            partition.operation = Some(LogOperation::Restart(leader_start));
            step.push(Effect::TruncateFullyAndStartAt { offset: leader_start });
        } else if mine > leader_end {
            self.truncate(leader_end, partition, step);
        } else {
            // The leader's log has moved into range since.
            self.back_off(step);
        }
    }

    /// Drops what lies past `target`, unless it was committed and no unclean election explains its loss (R-5).
    fn truncate(&mut self, target: Offset, partition: &mut Partition, step: &mut Step<'_>) {
        let high_watermark = partition.log.high_watermark;
        if target < high_watermark && !partition.may_lose_committed() {
            step.push(Effect::RaiseAlarm(Alarm::CommittedTruncation { target, high_watermark }));
            self.fetch = FetchState::Halted;
        } else if target < partition.log.log_start_offset {
            partition.operation = Some(LogOperation::Restart(target));
            step.push(Effect::TruncateFullyAndStartAt { offset: target });
        } else {
            partition.operation = Some(LogOperation::Truncate(target));
            step.push(Effect::TruncateTo { offset: target });
        }
    }

    pub(crate) fn on_truncated(
        &mut self,
        old_high_watermark: Offset,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        let high_watermark = partition.log.high_watermark;
        if high_watermark < old_high_watermark {
            step.push(Effect::LowerHighWatermark(high_watermark));
            self.leader_high_watermark = high_watermark;
        } else if high_watermark > old_high_watermark {
            step.push(Effect::AdvanceHighWatermark(high_watermark));
        }
        partition.request_flush(step);
        self.maybe_fetch(partition, step);
    }

    fn on_senseless_answer(&mut self, partition: &Partition, step: &mut Step<'_>) {
        step.push(Effect::RaiseAlarm(Alarm::MalformedFetchAnswer { offset: partition.log.log_end_offset }));
        self.back_off(step);
    }

    pub(crate) fn back_off(&mut self, step: &mut Step<'_>) {
        self.failures = self.failures.saturating_add(1);
        self.fetch = FetchState::BackingOff { until: step.now.plus_millis(backoff_ms(self.failures)) };
    }
}
