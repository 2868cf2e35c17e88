//! The leader's care of the in-sync set: who may join, who has to leave, what to propose.

use klamm_types::{BrokerEpoch, BrokerId, Timestamp};

use super::{FollowerProgress, Leader};
use crate::effect::{Effect, IsrMember, IsrProposal};
use crate::event::{IsrAnswer, ProposalId};
use crate::isr::{Delivery, IsrChange, IsrState, Verdict};
use crate::refusal::{Alarm, AppendError};
use crate::registration::LeaderRecovery;
use crate::replica::{Partition, Step, backoff_ms};

impl Leader {
    /// Whether the follower's incarnation that fetched may be in the set: it is the registered one, neither
    /// fenced nor leaving.
    pub(super) fn may_join(broker: BrokerId, progress: &FollowerProgress, partition: &Partition) -> bool {
        let Some(fetched) = progress.fetched() else { return false };
        let same_incarnation = |epoch| cfg!(mutant = "B10") || epoch == fetched.broker_epoch;
        partition
            .brokers
            .get(&broker)
            .is_some_and(|state| !state.fenced && !state.shutting_down && same_incarnation(state.epoch))
    }

    fn wants_to_join(
        &self,
        broker: BrokerId,
        progress: &FollowerProgress,
        partition: &Partition,
        now: Timestamp,
    ) -> bool {
        // KAFKA-7128: a new leader's high watermark may be behind the truth, the start of its epoch is not.
        let mut needed = partition.log.high_watermark;
        if cfg!(not(mutant = "B05")) {
            needed = needed.max(self.epoch_start_offset);
        }
        // With too few in sync the high watermark stands still: who has fallen behind it since would join and leave by turns.
        Self::may_join(broker, progress, partition)
            && progress.fetched().is_some_and(|fetched| fetched.end_offset >= needed)
            && !self.has_to_leave(broker, partition, now)
    }

    fn has_to_leave(&self, broker: BrokerId, partition: &Partition, now: Timestamp) -> bool {
        let fenced = partition.brokers.get(&broker).is_none_or(|state| state.fenced);
        let lag_max_ms = partition.config.replica_lag_time_max_ms;
        let log_end_offset = partition.log.log_end_offset;
        let keeps_up = |progress: &FollowerProgress| progress.is_caught_up(now, log_end_offset, lag_max_ms);
        fenced || !self.followers.get(&broker).is_some_and(keeps_up)
    }

    /// Proposes a change if none is under way and one is due; sends one again that was lost.
    pub(super) fn maybe_propose(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        if self.isr.pending().is_some() {
            self.maybe_resend(step);
            return;
        }
        let Some(recovery) = partition.registration.as_ref().map(|registration| registration.recovery) else {
            return;
        };
        if recovery == LeaderRecovery::Recovering {
            // Until the recovery is confirmed nobody else may be in the set.
            self.propose(IsrChange::ConfirmRecovery, vec![partition.broker], partition, step);
            return;
        }
        let committed = self.isr.committed();
        let joins = |(broker, progress): &(&BrokerId, &FollowerProgress)| {
            !committed.contains(broker) && self.wants_to_join(**broker, progress, partition, step.now)
        };
        let joining: Vec<BrokerId> = self.followers.iter().filter(joins).map(|(broker, _)| *broker).collect();
        if !joining.is_empty() {
            let mut members: Vec<BrokerId> = committed.iter().copied().chain(joining).collect();
            members.sort_unstable();
            self.propose(IsrChange::Expand, members, partition, step);
            return;
        }
        let stays = |broker: &BrokerId| {
            *broker == partition.broker || !self.has_to_leave(*broker, partition, step.now)
        };
        if !committed.iter().all(stays) {
            let members = committed.iter().copied().filter(stays).collect();
            self.propose(IsrChange::Shrink, members, partition, step);
        }
    }

    fn propose(
        &mut self,
        change: IsrChange,
        members: Vec<BrokerId>,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        let Some(registration) = &partition.registration else { return };
        let (leader_epoch, partition_epoch) = (registration.leader_epoch, registration.partition_epoch);
        let member = |broker| IsrMember { broker, broker_epoch: self.member_epoch(broker, partition) };
        let members = members.into_iter().map(member).collect();
        let id = ProposalId(partition.next_id());
        let broker_epoch = partition.broker_epoch;
        let proposal = IsrProposal { id, broker_epoch, leader_epoch, partition_epoch, members };
        step.push(Effect::ProposeIsr(proposal.clone()));
        self.isr.propose(change, proposal);
    }

    /// The incarnation of a member: the one that fetched, so that the controller can tell whether it is still
    /// the registered one (KIP-903); for a member that has not fetched yet, the registered one.
    fn member_epoch(&self, broker: BrokerId, partition: &Partition) -> BrokerEpoch {
        let registered = partition.brokers.get(&broker).map_or(BrokerEpoch::NONE, |state| state.epoch);
        if broker == partition.broker {
            return partition.broker_epoch;
        }
        if cfg!(mutant = "B10") {
            return registered;
        }
        let fetched = self.followers.get(&broker).and_then(FollowerProgress::fetched);
        fetched.map_or(registered, |fetched| fetched.broker_epoch)
    }

    fn maybe_resend(&mut self, step: &mut Step<'_>) {
        let IsrState::Pending(pending) = &mut self.isr else { return };
        if let Delivery::RetryAt(at) = pending.delivery
            && step.now >= at
        {
            pending.delivery = Delivery::Sent;
            pending.attempts = pending.attempts.saturating_add(1);
            step.push(Effect::ProposeIsr(pending.proposal.clone()));
        }
    }

    pub(crate) fn on_proposal_answered(
        &mut self,
        id: ProposalId,
        answer: IsrAnswer,
        partition: &mut Partition,
        step: &mut Step<'_>,
    ) {
        let Some(pending) = self.isr.pending().filter(|pending| pending.proposal.id == id) else { return };
        let verdict = match answer {
            IsrAnswer::Accepted { leader_epoch, partition_epoch, in_sync_replicas, min_in_sync_replicas } => {
                let known = partition.registration.as_ref().map(|known| known.partition_epoch);
                // Withdrawing works by making a change: if there was none, the old proposal may still be applied.
                let proves = pending.change != IsrChange::Withdraw
                    || partition_epoch > pending.proposal.partition_epoch;
                if !proves {
                    Verdict::Resend
                } else if leader_epoch == self.epoch && known.is_some_and(|known| partition_epoch >= known) {
                    partition.adopt_accepted(partition_epoch, &in_sync_replicas, min_in_sync_replicas);
                    self.isr = IsrState::Committed(in_sync_replicas);
                    self.on_in_sync_set_known(partition, step);
                    return;
                } else {
                    Verdict::AwaitMetadata
                }
            }
            IsrAnswer::Refused(refusal) => pending.judge(refusal),
            // Never roll back on an ambiguous outcome: the controller may hold the larger set.
            #[cfg(not(mutant = "B08"))]
            IsrAnswer::Lost => Verdict::Resend,
            #[cfg(mutant = "B08")]
            IsrAnswer::Lost => Verdict::RollBack,
        };
        self.act_on(verdict, partition, step);
    }

    fn act_on(&mut self, verdict: Verdict, partition: &mut Partition, step: &mut Step<'_>) {
        let IsrState::Pending(pending) = &mut self.isr else { return };
        match verdict {
            Verdict::Resend => {
                let at = step.now.plus_millis(backoff_ms(pending.attempts));
                pending.delivery = Delivery::RetryAt(at);
            }
            Verdict::AwaitMetadata => pending.delivery = Delivery::AwaitingMetadata,
            Verdict::AwaitMetadataAlarmed => {
                pending.delivery = Delivery::AwaitingMetadata;
                step.push(Effect::RaiseAlarm(Alarm::InvalidProposal));
            }
            Verdict::RollBack => {
                self.isr = IsrState::Committed(std::mem::take(&mut pending.committed));
                self.maybe_advance_high_watermark(partition, step);
            }
            Verdict::Withdraw => {
                let members = pending.committed.iter().copied().collect();
                self.propose(IsrChange::Withdraw, members, partition, step);
            }
        }
    }

    /// The committed set is newly known: it may set the high watermark free, or leave too few members.
    pub(crate) fn on_in_sync_set_known(&mut self, partition: &mut Partition, step: &mut Step<'_>) {
        let committed = self.isr.committed();
        for (broker, progress) in &mut self.followers {
            progress.set_in_sync(step.now, committed.contains(broker));
        }
        // KAFKA-13091: in both directions; nothing else may ever come to move it.
        if cfg!(not(mutant = "B13")) {
            self.maybe_advance_high_watermark(partition, step);
        }
        let (in_sync, required) = (self.isr.committed().len(), partition.required_in_sync());
        if in_sync < required {
            let outcome = Err(AppendError::NotEnoughReplicasAfterAppend { in_sync, required });
            while let Some(ticket) = self.acks.pop_any() {
                step.push(Effect::CompleteAppend { ticket, outcome });
            }
        }
        self.maybe_propose(partition, step);
        self.complete_deletions(partition, step);
    }
}
