//! What always holds. Asserted after every step, in release builds too: the ids are those of
//! `docs/protocol/replication.md`.

use klamm_types::Offset;

use crate::isr::{IsrChange, IsrState};
use crate::leader::Leader;
use crate::registration::Durability;
use crate::replica::{LogOperation, Partition, Replica, Role};

impl Replica {
    /// Checks the state after a step that began with `old_high_watermark`.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub(crate) fn check_invariants(&self, old_high_watermark: Offset) {
        self.check_log(old_high_watermark);
        match &self.role {
            Role::Leader(leader) => {
                leader.check(&self.partition);
                assert_eq!(self.partition.leader(), Some(self.partition.broker), "R-1: leads unelected");
            }
            Role::Follower(follower) => {
                assert_eq!(follower.epoch, self.partition.leader_epoch(), "R-9: follows in another epoch");
                assert!(follower.leader != Some(self.partition.broker), "INV12: follows itself");
            }
            Role::Unassigned | Role::Failed => {
                assert!(self.partition.operation.is_none(), "a replica without a role writes its log");
            }
        }
    }

    fn check_log(&self, old_high_watermark: Offset) {
        let partition = &self.partition;
        let log = &partition.log;
        assert!(
            log.log_start_offset <= log.high_watermark && log.high_watermark <= log.log_end_offset,
            "INV9: log_start <= high_watermark <= log_end is broken: {log:?}"
        );
        assert!(log.flushed_end_offset <= log.log_end_offset, "INV9: flushed past the log end: {log:?}");
        let entries = log.epochs.entries();
        let ordered =
            |w: &[klamm_types::EpochEntry]| w[0].epoch < w[1].epoch && w[0].start_offset < w[1].start_offset;
        assert!(entries.windows(2).all(ordered), "INV10: epochs out of order: {entries:?}");
        let past_end = entries.last().is_some_and(|latest| latest.start_offset > log.log_end_offset);
        assert!(!past_end, "INV10: an epoch starts past the log end: {log:?}");
        // Without an unclean election the high watermark only falls as part of a truncation that the
        // registration explains, and then it is at the log end.
        let fell = log.high_watermark < old_high_watermark;
        let explained = || partition.registration.as_ref().is_some_and(|r| r.last_unclean_epoch.is_some());
        assert!(
            !fell || (explained() && log.high_watermark == log.log_end_offset),
            "INV11: the high watermark fell from {old_high_watermark}: {log:?}"
        );
    }
}

impl Leader {
    fn check(&self, partition: &Partition) {
        let log = &partition.log;
        let latest = log.epochs.latest();
        assert!(
            latest.is_some_and(|latest| latest.epoch == self.epoch
                && latest.start_offset == self.epoch_start_offset.max(log.log_start_offset)),
            "INV10: the leader of epoch {} that began at {} has the history {latest:?}",
            self.epoch,
            self.epoch_start_offset
        );
        assert_eq!(self.epoch, partition.leader_epoch(), "R-9: leads in another epoch");
        assert!(
            matches!(partition.operation, None | Some(LogOperation::Append(_))),
            "INV12: a leader copies or truncates: {:?}",
            partition.operation
        );
        assert!(!self.followers.contains_key(&partition.broker), "a leader does not follow itself");
        let (committed, maximal) = (self.isr.committed(), self.isr.maximal());
        assert!(committed.is_subset(maximal), "R-2: {maximal:?} lacks some of {committed:?}");
        assert!(
            self.acks.first_end().is_none_or(|end| end > log.high_watermark),
            "R-4: an append waits below the high watermark {}",
            log.high_watermark
        );
        if let IsrState::Pending(pending) = &self.isr {
            let proposed = pending.proposal.members.iter().map(|member| member.broker);
            let includes = |broker| maximal.contains(&broker);
            assert!(proposed.into_iter().all(includes), "INV3: proposes who is not waited for: {pending:?}");
            assert!(
                pending.proposal.leader_epoch == self.epoch
                    && partition.registration.as_ref().is_some_and(|registration| {
                        registration.partition_epoch == pending.proposal.partition_epoch
                    }),
                "R-6: the proposal of another epoch is under way: {pending:?}"
            );
            let grows = matches!(pending.change, IsrChange::Expand | IsrChange::Withdraw);
            assert!(grows || committed == maximal, "R-6: {pending:?} waits for strangers");
        }
    }

    /// Called when the high watermark has just moved: everybody who is or may be in sync holds what is below.
    pub(crate) fn check_high_watermark(&self, partition: &Partition) {
        let high_watermark = partition.log.high_watermark;
        let held = match partition.config.durability {
            Durability::Flushed => partition.log.flushed_end_offset,
            Durability::PageCache => partition.log.log_end_offset,
        };
        assert!(high_watermark <= held, "R-2: {high_watermark} is past what the leader holds, {held}");
        for broker in self.isr.maximal().iter().filter(|&&broker| broker != partition.broker) {
            let end = self.followers.get(broker).and_then(|progress| progress.fetched());
            assert!(
                end.is_some_and(|fetched| high_watermark <= fetched.end_offset),
                "R-2: {high_watermark} is past what in-sync replica {broker} holds: {end:?}"
            );
        }
    }
}
