//! The replica as leader: it appends, knows its followers, moves the high watermark.

mod in_sync;
mod progress;

use std::collections::BTreeMap;

use klamm_types::{BrokerId, EpochEntry, LeaderEpoch, Offset, Timestamp};

use crate::acks::{PendingAcks, PendingDeletions};
use crate::effect::{Acknowledged, Effect};
use crate::event::{Acks, AppendRequest, AppendTicket, DeletionRequest, FetchTicket, FollowerFetch};
use crate::isr::{Delivery, IsrState};
use crate::refusal::{AppendError, DeletionError, FetchRefusal};
use crate::registration::Registration;
use crate::replica::{LogOperation, Partition, Step};

pub use progress::{Fetched, FollowerProgress};

/// A leader of one leader epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    pub(crate) epoch: LeaderEpoch,
    /// The log end when this epoch began (LESO).
    pub(crate) epoch_start_offset: Offset,
    pub(crate) followers: BTreeMap<BrokerId, FollowerProgress>,
    pub(crate) isr: IsrState,
    pub(crate) acks: PendingAcks,
    deletions: PendingDeletions,
}

impl Leader {
    /// Begins a leader epoch. `previous` is this replica's own leadership of an earlier one, if nobody else's
    /// came between as far as this replica was told: what its clients wait for is still in its log.
    pub(crate) fn elected(
        registration: &Registration,
        previous: Option<Self>,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) -> Self {
        let epoch_start_offset = partition.log.log_end_offset;
        let entry = EpochEntry { epoch: registration.leader_epoch, start_offset: epoch_start_offset };
        // KAFKA-7415: an epoch that never writes must be known too, or its successors compare with the wrong one.
        if cfg!(not(mutant = "B04")) {
            partition.log.epochs.assign(entry.epoch, entry.start_offset);
            step.push(Effect::RecordEpochStart(entry));
        }
        let (acks, deletions, _followers) = previous
            .map_or_else(Default::default, |leader| (leader.acks, leader.deletions, leader.followers));
        let isr = IsrState::Committed(registration.in_sync_replicas.clone());
        // B06: keeps what followers said in an earlier epoch.
        #[cfg(mutant = "B06")]
        let followers = _followers;
        #[cfg(not(mutant = "B06"))]
        let followers = BTreeMap::new();
        let mut leader = Self { epoch: entry.epoch, epoch_start_offset, followers, isr, acks, deletions };
        leader.adopt_replicas(registration, partition.broker, step.now);
        leader.on_in_sync_set_known(partition, step);
        leader
    }

    /// Takes note of a newer image of the same leader epoch.
    pub(crate) fn on_registration_changed(
        &mut self,
        registration: &Registration,
        is_new: bool,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        self.adopt_replicas(registration, partition.broker, step.now);
        // An image of the partition epoch that a proposal is based on says nothing about the proposal. One of a
        // later epoch settles it: it was applied by then, or never will be.
        if is_new || cfg!(mutant = "B12") {
            self.isr = IsrState::Committed(registration.in_sync_replicas.clone());
        }
        self.on_in_sync_set_known(partition, step);
    }

    fn adopt_replicas(&mut self, registration: &Registration, me: BrokerId, now: Timestamp) {
        self.followers.retain(|broker, _| registration.replicas.contains(broker));
        for &broker in registration.replicas.iter().filter(|&&broker| broker != me) {
            self.followers.entry(broker).or_insert_with(|| {
                let in_sync = registration.in_sync_replicas.contains(&broker);
                if in_sync { FollowerProgress::in_sync_since(now) } else { FollowerProgress::default() }
            });
        }
    }

    /// Ends the leadership; whoever waits learns that it cannot tell.
    pub(crate) fn resign(mut self, append: AppendError, deletion: DeletionError, step: &mut Step<'_>) {
        while let Some(ticket) = self.acks.pop_any() {
            step.push(Effect::CompleteAppend { ticket, outcome: Err(append) });
        }
        while let Some(ticket) = self.deletions.pop_any() {
            step.push(Effect::CompleteDeletion { ticket, outcome: Err(deletion) });
        }
    }

    /// Admits an append, or refuses it before anything is written.
    pub(crate) fn admit(
        &self,
        request: &AppendRequest,
        partition: &Partition,
        now: Timestamp,
    ) -> Result<(), AppendError> {
        if now >= request.lease_until {
            return Err(AppendError::LeaseExpired);
        }
        let (in_sync, required) = (self.isr.committed().len(), partition.required_in_sync());
        if request.acks == Acks::All && in_sync < required {
            return Err(AppendError::NotEnoughReplicas { in_sync, required });
        }
        Ok(())
    }

    pub(crate) fn on_appended(
        &mut self,
        request: AppendRequest,
        records: std::ops::Range<Offset>,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        let log_end_offset = partition.log.log_end_offset;
        assert!(records.start < records.end, "append {:?} of no records: {records:?}", request.ticket);
        assert!(
            records.start == log_end_offset || records.end <= log_end_offset,
            "append {records:?} leaves the log end {log_end_offset}"
        );
        if partition.log.log_end_offset.advance_to(records.end) {
            for progress in self.followers.values_mut() {
                progress.before_append(step.now, log_end_offset);
            }
            step.push(Effect::AdvanceLogEnd(records.end));
            partition.request_flush(step);
        }
        match request.acks {
            Acks::None | Acks::Leader => {
                step.push(acknowledgement(request.ticket, records.start, partition));
            }
            Acks::All => self.acks.park(request.ticket, records, request.deadline),
        }
        self.maybe_advance_high_watermark(partition, step);
        // A retried batch may have been committed long ago.
        self.complete_committed(partition, step);
    }

    pub(crate) fn on_flushed(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        self.maybe_advance_high_watermark(partition, step);
    }

    /// Takes note of a fetch whose checks gave `checked`, then answers it with what is true after that.
    pub(crate) fn on_follower_fetched(
        &mut self,
        fetch: &FollowerFetch,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        let progress = self.followers.entry(fetch.broker).or_default();
        progress.record(step.now, fetch, partition.log.log_end_offset);
        self.maybe_propose(partition, step);
        self.maybe_advance_high_watermark(partition, step);
        self.complete_deletions(partition, step);
    }

    pub(crate) fn on_brokers_changed(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        self.maybe_propose(partition, step);
        self.maybe_advance_high_watermark(partition, step);
        self.complete_deletions(partition, step);
    }

    pub(crate) fn on_deletion_requested(
        &mut self,
        request: DeletionRequest,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        let DeletionRequest { ticket, offset, deadline } = request;
        let high_watermark = partition.log.high_watermark;
        if offset > high_watermark {
            if let Some(ticket) = ticket {
                let outcome = Err(DeletionError::OffsetOutOfRange { offset, high_watermark });
                step.push(Effect::CompleteDeletion { ticket, outcome });
            }
            return;
        }
        if partition.log.advance_log_start(offset) {
            step.push(Effect::AdvanceLogStart(offset));
        }
        if let Some(ticket) = ticket {
            self.deletions.park(ticket, offset, deadline);
        }
        self.complete_deletions(partition, step);
    }

    pub(crate) fn on_tick(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        while let Some(ticket) = self.acks.pop_expired(step.now) {
            step.push(Effect::CompleteAppend { ticket, outcome: Err(AppendError::TimedOut) });
        }
        while let Some(ticket) = self.deletions.pop_expired(step.now) {
            step.push(Effect::CompleteDeletion { ticket, outcome: Err(DeletionError::TimedOut) });
        }
        self.maybe_propose(partition, step);
        // A replica that was about to join may have dropped out of the lag window.
        self.maybe_advance_high_watermark(partition, step);
    }

    /// When time alone will next change something.
    pub(crate) fn next_wakeup(&self, partition: &Partition, ticked_at: Timestamp) -> Option<Timestamp> {
        let retry = self.isr.pending().and_then(|pending| match pending.delivery {
            Delivery::RetryAt(at) => Some(at),
            Delivery::Sent | Delivery::AwaitingMetadata => None,
        });
        // Members that fall out of the set, and others that then no longer hold back the high watermark.
        let log_end_offset = partition.log.log_end_offset;
        let lag_ms = partition.config.replica_lag_time_max_ms.saturating_add(1);
        let may_propose = self.isr.pending().is_none();
        let lag = self.followers.iter().filter_map(|(broker, progress)| {
            let ends = progress.caught_up_at()?.plus_millis(lag_ms);
            let is_lagging = !progress.holds_all(log_end_offset);
            // A tick makes a member leave, unless another change is under way. Of the others it could only say once
            // that they have dropped out.
            let changes = ends > ticked_at || (may_propose && self.isr.committed().contains(broker));
            (is_lagging && changes).then_some(ends)
        });
        let lag = lag.min();
        [retry, lag, self.acks.next_deadline(), self.deletions.next_deadline()].into_iter().flatten().min()
    }

    /// Moves the high watermark to where everybody holds the log who is, may be, or is about to be in sync.
    pub(crate) fn maybe_advance_high_watermark(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        let held_end_offset = partition.log.held_end_offset(partition.config.durability);
        self.acks.on_held(held_end_offset);
        if self.isr.committed().len() < partition.required_in_sync() {
            return;
        }
        let mut committed_end = held_end_offset;
        for (broker, progress) in &self.followers {
            let waited_for = self.is_waited_for(*broker, progress, partition, step.now);
            if waited_for {
                let Some(fetched) = progress.fetched() else { return };
                committed_end = committed_end.min(fetched.end_offset);
            }
        }
        if partition.log.high_watermark.advance_to(committed_end) {
            self.check_high_watermark(partition);
            step.push(Effect::AdvanceHighWatermark(committed_end));
            self.complete_committed(partition, step);
        }
    }

    fn is_waited_for(
        &self,
        broker: BrokerId,
        progress: &FollowerProgress,
        partition: &Partition,
        now: Timestamp,
    ) -> bool {
        // B07: waits for the committed set only, while the controller may already have the larger one.
        #[cfg(mutant = "B07")]
        let members = self.isr.committed();
        #[cfg(not(mutant = "B07"))]
        let members = self.isr.maximal();
        if members.contains(&broker) {
            return true;
        }
        // KAFKA-15021: one that may not join does not hold back the others, however close it follows.
        let may_join = cfg!(mutant = "B14") || Self::may_join(broker, progress, partition);
        let lag_max_ms = partition.config.replica_lag_time_max_ms;
        may_join && progress.is_about_to_join(now, partition.log.log_end_offset, lag_max_ms)
    }

    fn complete_committed(&mut self, partition: &Partition, step: &mut Step<'_>) {
        let (in_sync, required) = (self.isr.maximal().len(), partition.required_in_sync());
        while let Some(released) = self.acks.pop_committed(partition.log.high_watermark) {
            if in_sync >= required {
                step.push(acknowledgement(released.ticket, released.base_offset, partition));
            } else {
                let outcome = Err(AppendError::NotEnoughReplicasAfterAppend { in_sync, required });
                step.push(Effect::CompleteAppend { ticket: released.ticket, outcome });
            }
        }
    }

    pub(super) fn complete_deletions(&mut self, partition: &Partition, step: &mut Step<'_>) {
        if self.deletions.is_empty() {
            return;
        }
        let mut lowest = partition.log.log_start_offset;
        for (broker, progress) in &self.followers {
            if partition.brokers.get(broker).is_some_and(|state| !state.fenced) {
                let Some(fetched) = progress.fetched() else { return };
                lowest = lowest.min(fetched.log_start_offset);
            }
        }
        while let Some(ticket) = self.deletions.pop_done(lowest) {
            let outcome = Ok(partition.log.log_start_offset);
            step.push(Effect::CompleteDeletion { ticket, outcome });
        }
    }
}

fn acknowledgement(ticket: AppendTicket, base_offset: Offset, partition: &Partition) -> Effect {
    let log_start_offset = partition.log.log_start_offset;
    Effect::CompleteAppend { ticket, outcome: Ok(Acknowledged { base_offset, log_start_offset }) }
}

/// The checks of a follower's fetch that need the leader's log, in their order.
pub(crate) fn check_offset(fetch: &FollowerFetch, partition: &Partition) -> Result<(), FetchRefusal> {
    let log = &partition.log;
    let (log_start_offset, log_end_offset) = (log.log_start_offset, log.log_end_offset);
    let out_of_range = FetchRefusal::OffsetOutOfRange { log_start_offset, log_end_offset };
    // KAFKA-12996: first, for what was deleted cannot be compared.
    if fetch.offset < log_start_offset {
        return Err(out_of_range);
    }
    if fetch.last_epoch != LeaderEpoch::NONE {
        let Some(end) = log.epochs.end_offset_for(fetch.last_epoch, log_end_offset) else {
            return Err(out_of_range);
        };
        // What is deleted here cannot vouch for what the follower holds before the log start, of an epoch that is
        // gone from the history: it may have parted there. It loses nothing by starting anew.
        if fetch.offset == log_start_offset && log.is_before_history(fetch.last_epoch) {
            return Err(out_of_range);
        }
        if end.epoch < fetch.last_epoch || end.end_offset < fetch.offset {
            let high_watermark = log.high_watermark;
            return Err(FetchRefusal::Diverging {
                epoch: end.epoch,
                end_offset: end.end_offset,
                high_watermark,
            });
        }
    }
    if fetch.offset > log_end_offset {
        return Err(out_of_range);
    }
    Ok(())
}

/// Starts the write of an admitted append.
pub(crate) fn begin_append(request: AppendRequest, partition: &mut Partition, step: &mut Step<'_>) {
    let leader_epoch = partition.leader_epoch();
    partition.operation = Some(LogOperation::Append(request));
    step.push(Effect::Append { ticket: request.ticket, leader_epoch });
}

/// Answers a fetch of a follower.
pub(crate) fn answer_fetch(ticket: FetchTicket, offset: Offset, partition: &Partition, step: &mut Step<'_>) {
    step.push(Effect::AnswerFetch { ticket, bounds: partition.fetch_bounds(offset) });
}
