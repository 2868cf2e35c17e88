//! The controller as one ordered log of images: REPLICATION 2.6 to 2.8 for one partition.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use klamm_replica::{
    BrokerState, BrokerStates, IsrAnswer, IsrProposal, IsrRefusal, LeaderRecovery, Registration,
};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

/// What a broker says of its disk when it registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Verdict {
    /// Nothing flushed is lost.
    Durable,
    /// The disk is new, or something flushed is gone.
    Lossy,
}

#[derive(Clone, Debug)]
pub(crate) struct Controller {
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) leader: Option<BrokerId>,
    pub(crate) isr: BTreeSet<BrokerId>,
    pub(crate) elr: BTreeSet<BrokerId>,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) partition_epoch: PartitionEpoch,
    pub(crate) brokers: BrokerStates,
    pub(crate) images: Vec<Rc<(Registration, BrokerStates)>>,
    min_in_sync_replicas: usize,
    next_broker_epoch: i64,
}

/// The images are left out: what matters of them is what each broker has yet to learn.
impl Hash for Controller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.leader, &self.isr, &self.elr, self.leader_epoch, self.partition_epoch).hash(state);
        self.brokers.hash(state);
    }
}

impl Controller {
    pub(crate) fn new(brokers: i32, min_in_sync_replicas: usize) -> Self {
        let replicas: Vec<BrokerId> = (1..=brokers).map(BrokerId).collect();
        let state = |id: BrokerId| BrokerState {
            epoch: BrokerEpoch(i64::from(id.0)),
            fenced: false,
            shutting_down: false,
        };
        let states: BTreeMap<_, _> = replicas.iter().map(|&id| (id, state(id))).collect();
        let mut controller = Self {
            leader: replicas.first().copied(),
            isr: replicas.iter().copied().collect(),
            elr: BTreeSet::new(),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            brokers: states,
            images: Vec::new(),
            min_in_sync_replicas: min_in_sync_replicas.min(replicas.len()),
            next_broker_epoch: i64::from(brokers) + 1,
            replicas,
        };
        controller.publish();
        controller
    }

    fn publish(&mut self) {
        let registration = Registration {
            replicas: self.replicas.clone(),
            leader: self.leader,
            in_sync_replicas: self.isr.clone(),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            recovery: LeaderRecovery::Recovered,
            last_unclean_epoch: None,
        };
        self.images.push(Rc::new((registration, self.brokers.clone())));
    }

    fn is_active(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(|state| !state.fenced && !state.shutting_down)
    }

    /// A broker starts: it is in no in-sync set any more, and fenced until it has caught up with the metadata.
    pub(crate) fn register(&mut self, id: BrokerId, verdict: Verdict) -> BrokerEpoch {
        let epoch = BrokerEpoch(self.next_broker_epoch);
        self.next_broker_epoch += 1;
        self.brokers.insert(id, BrokerState { epoch, fenced: true, shutting_down: false });
        let mut isr = self.isr.clone();
        isr.remove(&id);
        self.change(isr, (verdict == Verdict::Lossy).then_some(id), false);
        epoch
    }

    pub(crate) fn fence(&mut self, id: BrokerId) {
        if let Some(state) = self.brokers.get_mut(&id) {
            state.fenced = true;
        }
        let mut isr = self.isr.clone();
        isr.remove(&id);
        self.change(isr, None, false);
    }

    pub(crate) fn unfence(&mut self, id: BrokerId) {
        if let Some(state) = self.brokers.get_mut(&id) {
            state.fenced = false;
        }
        self.change(self.isr.clone(), None, false);
    }

    /// A broker wants to leave: its leadership moves, and it may join nothing.
    pub(crate) fn drain(&mut self, id: BrokerId) {
        if let Some(state) = self.brokers.get_mut(&id) {
            state.shutting_down = true;
        }
        let mut isr = self.isr.clone();
        isr.remove(&id);
        self.change(isr, None, false);
    }

    /// Moves to `isr`, keeps the eligible leaders, elects if there is need, tells the brokers.
    fn change(&mut self, isr: BTreeSet<BrokerId>, lossy: Option<BrokerId>, accepted: bool) {
        let before = (self.leader, self.isr.clone(), self.elr.clone());
        let mut elr: BTreeSet<BrokerId> = self.isr.union(&self.elr).copied().collect();
        elr.retain(|id| !isr.contains(id) && Some(*id) != lossy);
        self.isr = isr;
        self.elr = elr;
        self.elect();
        if self.isr.len() >= self.min_in_sync_replicas {
            self.elr.clear();
        }
        if self.leader != before.0 {
            self.leader_epoch.0 += 1;
        }
        // An accepted proposal is a change even if it asks for what there is: its epoch must not be used again.
        if accepted || before != (self.leader, self.isr.clone(), self.elr.clone()) {
            self.partition_epoch.0 += 1;
        }
        self.check();
        self.publish();
    }

    fn elect(&mut self) {
        let valid = |id: &BrokerId| self.is_active(*id) && self.isr.contains(id);
        if self.leader.as_ref().is_some_and(valid) {
            return;
        }
        self.leader = self.replicas.iter().copied().find(|id| valid(id));
        if self.leader.is_none() && self.isr.is_empty() {
            let eligible = |id: &BrokerId| self.is_active(*id) && self.elr.contains(id);
            self.leader = self.replicas.iter().copied().find(eligible);
            if let Some(leader) = self.leader {
                self.elr.remove(&leader);
                self.isr.insert(leader);
            }
        }
    }

    pub(crate) fn alter(&mut self, from: BrokerId, proposal: &IsrProposal) -> IsrAnswer {
        if let Err(refusal) = self.validate(from, proposal) {
            return IsrAnswer::Refused(refusal);
        }
        let isr = proposal.members.iter().map(|member| member.broker).collect();
        self.change(isr, None, true);
        IsrAnswer::Accepted {
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            in_sync_replicas: self.isr.clone(),
            min_in_sync_replicas: self.min_in_sync_replicas,
        }
    }

    fn validate(&self, from: BrokerId, proposal: &IsrProposal) -> Result<(), IsrRefusal> {
        if self.brokers.get(&from).is_none_or(|state| state.epoch != proposal.broker_epoch) {
            return Err(IsrRefusal::StaleBrokerEpoch);
        }
        if proposal.leader_epoch > self.leader_epoch || proposal.partition_epoch > self.partition_epoch {
            return Err(IsrRefusal::NotController);
        }
        if proposal.leader_epoch < self.leader_epoch {
            return Err(IsrRefusal::FencedLeaderEpoch);
        }
        if self.leader != Some(from) {
            return Err(IsrRefusal::InvalidRequest);
        }
        if proposal.partition_epoch < self.partition_epoch {
            return Err(IsrRefusal::InvalidUpdateVersion);
        }
        let members: BTreeSet<BrokerId> = proposal.members.iter().map(|member| member.broker).collect();
        let known = members.iter().all(|id| self.replicas.contains(id));
        if !known || !members.contains(&from) || members.len() != proposal.members.len() {
            return Err(IsrRefusal::InvalidRequest);
        }
        for member in &proposal.members {
            let same = |state: &BrokerState| state.epoch == member.broker_epoch;
            if !self.is_active(member.broker) || !self.brokers.get(&member.broker).is_some_and(same) {
                return Err(IsrRefusal::IneligibleReplica);
            }
        }
        Ok(())
    }

    /// INV7.
    fn check(&self) {
        assert!(self.isr.is_disjoint(&self.elr), "INV7: {self:?}");
        assert!(self.isr.len() < self.min_in_sync_replicas || self.elr.is_empty(), "INV7: {self:?}");
        assert!(self.isr.iter().all(|id| self.is_active(*id)), "INV7: inactive in the in-sync set: {self:?}");
    }
}
