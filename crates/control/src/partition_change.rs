//! From what a partition is and what shall be different to the one record that says so.

use klamm_metadata::{LeaderRecovery, MetadataRecord, PartitionChanged, PartitionRegistration};
use klamm_types::{BrokerId, PartitionId, TopicId};

use crate::invariants::check_partition;

/// Which election the builder holds if it must or may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Election {
    /// Keep a leader that can stay; otherwise a clean one or none.
    Clean,
    /// The preferred leader if it is in sync and active; otherwise as `Clean`.
    Preferred,
    /// As `Clean`, but rather an incomplete leader than none.
    Unclean,
}

/// Computes one change of one partition: completes a reassignment that can be completed, elects, keeps the eligible
/// replicas (REPLICATION 2.7), counts the epochs.
///
/// ```text
///   |ISR| >= m        ELR = last known ELR = {}
///   |ISR| <  m        ELR            = (old ISR + old ELR) - ISR - those that may have lost something
///                     last known ELR = (old ISR + old ELR + old last known ELR) - ISR - ELR
/// ```
/// So long as `|ISR| < m` no leader moves its high watermark, and whoever was in the ISR stays complete. The sets
/// together thus never fall below `m` members, whatever fails, until the ISR is full again (INV8).
pub(crate) struct PartitionChangeBuilder<'a> {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) old: &'a PartitionRegistration,
    /// The partition as it shall be; `new` starts it as a copy of `old`, and callers change the sets.
    pub(crate) target: PartitionRegistration,
    /// `min.insync.replicas` as configured.
    pub(crate) min_isr: usize,
    pub(crate) election: Election,
    /// A broker that may have lost something that it had acknowledged.
    pub(crate) lossy: Option<BrokerId>,
    /// A proposal was accepted: the change is written, and the partition epoch grows, even if nothing else is different.
    /// The leader counts on that: it takes an answer for that of its proposal by the epoch alone.
    pub(crate) always: bool,
    /// Whether an unclean election is remembered: from `metadata.version` 2 on.
    pub(crate) remembers_unclean: bool,
    /// A change of `min.insync.replicas`: the minimum that the ELR was kept under no longer counts (KIP-966).
    pub(crate) forget_elr: bool,
    /// Brokers that clients may not reach for another moment, although they serve: they lead where nobody else can.
    pub(crate) newcomers: &'a [BrokerId],
    /// Replicas that their brokers cannot serve, whatever the standing of those is.
    pub(crate) offline: Vec<BrokerId>,
    /// Whether a broker may be elected.
    pub(crate) may_lead: &'a dyn Fn(BrokerId) -> bool,
    /// Whether a leader may go on as one: also on its way out, if it has not been fenced.
    pub(crate) may_stay: &'a dyn Fn(BrokerId) -> bool,
}

impl PartitionChangeBuilder<'_> {
    /// The change, or `None` if there is none.
    pub(crate) fn build(mut self) -> Option<MetadataRecord> {
        self.maybe_complete_reassignment();
        let unclean = self.elect();
        if !unclean {
            self.keep_eligible_replicas();
        }
        self.count_epochs()?;
        if unclean && self.remembers_unclean {
            self.target.last_unclean_epoch = Some(self.target.leader_epoch);
        }
        check_partition(&self.target, self.min_isr);
        let change = PartitionChanged::between(self.topic, self.partition, self.old, &self.target);
        Some(MetadataRecord::PartitionChanged(change))
    }

    /// A reassignment is complete when everybody it adds is in sync and what remains of the ISR is large enough to
    /// write to: the replication factor never falls below its target on the way.
    fn maybe_complete_reassignment(&mut self) {
        let target = &mut self.target;
        if !target.is_reassigning() {
            return;
        }
        let replicas = target.target_replicas();
        let isr: Vec<_> =
            target.isr.iter().copied().filter(|member| !target.removing.contains(member)).collect();
        let enough = self.min_isr.min(replicas.len()).max(1);
        if isr.len() < enough || !target.adding.iter().all(|added| isr.contains(added)) {
            return;
        }
        target.isr = isr;
        target.replicas = replicas;
        target.adding.clear();
        target.removing.clear();
        if target.leader.is_some_and(|leader| !target.isr.contains(&leader)) {
            target.leader = None;
        }
    }

    /// Chooses the leader, and tells whether it was an unclean choice, which starts the sets anew.
    fn elect(&mut self) -> bool {
        #[cfg(mutant = "B15")]
        if self.target.isr.is_empty() {
            self.target.isr.clone_from(&self.old.isr);
        }
        let preferred = self.target.preferred_leader();
        if self.election == Election::Preferred && preferred.is_some_and(|broker| self.is_electable(broker)) {
            self.target.leader = preferred;
            return false;
        }
        let stays = |leader: &BrokerId| {
            self.target.isr.contains(leader) && self.serves(*leader) && (self.may_stay)(*leader)
        };
        if self.target.leader.as_ref().is_some_and(stays) {
            return false;
        }
        let electable = || self.target.replicas.iter().copied().filter(|broker| self.is_electable(*broker));
        let known = electable().find(|broker| !self.newcomers.contains(broker));
        self.target.leader = known.or_else(|| electable().next());
        if self.target.leader.is_none() && self.target.isr.is_empty() {
            self.elect_eligible_replica();
        }
        self.target.leader.is_none() && self.election == Election::Unclean && self.elect_uncleanly()
    }

    fn is_electable(&self, broker: BrokerId) -> bool {
        self.target.isr.contains(&broker) && self.may_be_elected(broker)
    }

    fn may_be_elected(&self, broker: BrokerId) -> bool {
        self.serves(broker) && (self.may_lead)(broker)
    }

    fn serves(&self, broker: BrokerId) -> bool {
        !self.offline.contains(&broker)
    }

    /// With an empty ISR one of the ELR may lead, and is then the ISR.
    fn elect_eligible_replica(&mut self) {
        let eligible = self.eligible_replicas();
        let leader = eligible.into_iter().find(|broker| self.may_be_elected(*broker));
        self.target.leader = leader;
        self.target.isr.extend(leader);
    }

    /// Those that hold everything committed: they were in the ISR or the ELR and have lost nothing. In the order of
    /// the replicas.
    fn eligible_replicas(&self) -> Vec<BrokerId> {
        let complete = |broker: &BrokerId| self.old.isr.contains(broker) || self.old.elr.contains(broker);
        let kept = |broker: &BrokerId| complete(broker) && Some(*broker) != self.lossy;
        self.target.replicas.iter().copied().filter(kept).collect()
    }

    /// Rather one of the last known replicas than any other; whoever it is, its log is now the truth.
    fn elect_uncleanly(&mut self) -> bool {
        let remembered = |broker: &BrokerId| {
            self.old.last_known_elr.contains(broker)
                || self.old.isr.contains(broker)
                || self.old.elr.contains(broker)
        };
        let active = || self.target.replicas.iter().copied().filter(|broker| self.may_be_elected(*broker));
        let leader = active().find(remembered).or_else(|| active().next());
        let Some(leader) = leader else { return false };
        self.become_recovering(leader);
        true
    }

    /// Makes `leader` the only one that counts, until it has confirmed its log.
    pub(crate) fn become_recovering(&mut self, leader: BrokerId) {
        self.target.leader = Some(leader);
        self.target.isr = vec![leader];
        self.target.elr.clear();
        self.target.last_known_elr.clear();
        self.target.recovery = LeaderRecovery::Recovering;
    }

    fn keep_eligible_replicas(&mut self) {
        let full = self.target.isr.len() >= self.target.effective_min_isr(self.min_isr);
        #[cfg(mutant = "B16")]
        let full = full && self.old.elr.is_empty();
        let forget = self.forget_elr && !self.target.isr.is_empty();
        if full || forget {
            self.target.elr.clear();
            self.target.last_known_elr.clear();
            return;
        }
        let mut elr = self.eligible_replicas();
        elr.retain(|broker| !self.target.isr.contains(broker));
        let remembered = |broker: &BrokerId| {
            let old = self.old;
            old.isr.contains(broker) || old.elr.contains(broker) || old.last_known_elr.contains(broker)
        };
        let lost = |broker: &BrokerId| {
            remembered(broker) && !self.target.isr.contains(broker) && !elr.contains(broker)
        };
        self.target.last_known_elr = self.target.replicas.iter().copied().filter(lost).collect();
        self.target.elr = elr;
    }

    /// R-9. `None` if nothing but epochs would change and nobody proposed that.
    pub(crate) fn count_epochs(&mut self) -> Option<()> {
        let (old, target) = (self.old, &mut self.target);
        target.leader_epoch = old.leader_epoch;
        target.partition_epoch = old.partition_epoch;
        if target == old && !self.always {
            return None;
        }
        let removed = old.replicas.iter().any(|replica| !target.replicas.contains(replica));
        if target.leader != old.leader || removed {
            target.leader_epoch = old.leader_epoch.next().expect("R-9: leader epochs are used up");
        }
        target.partition_epoch = old.partition_epoch.next().expect("R-9: partition epochs are used up");
        assert!(target.leader_epoch >= old.leader_epoch, "R-9: a leader epoch falls");
        assert!(target.partition_epoch > old.partition_epoch, "R-9: a partition epoch stays");
        Some(())
    }
}
