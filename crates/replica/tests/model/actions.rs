//! What may happen next.

use klamm_replica::{Durability, Event, FetchAnswer, IsrAnswer, Replica};
use klamm_types::{BrokerId, Timestamp};

use super::{Cluster, LAG_MAX_MS, Log, Message, Verdict, config};

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// A client appends to a replica that believes it leads.
    Append(BrokerId),
    /// The oldest flush under way is done.
    Flush(BrokerId),
    /// The message at this place of the wire arrives.
    Deliver(usize),
    /// It is lost.
    Lose(usize),
    /// It arrives, and will arrive again.
    Duplicate(usize),
    /// A broker learns the next image.
    Learn(BrokerId),
    /// A broker learns all images as one.
    LearnAll(BrokerId),
    /// Back-offs run out.
    Wake(BrokerId),
    /// All who lag have lagged for long.
    Lag(BrokerId),
    /// A leader gives up waiting for the controller's answer; the proposal may still arrive.
    LoseProposal(BrokerId),
    /// A follower gives up waiting for an answer.
    LoseFetch(BrokerId),
    /// The controller counts a broker out, dead or alive.
    Fence(BrokerId),
    /// The controller counts it in again.
    Unfence(BrokerId),
    /// The process dies; in the default mode, what is not on disk goes.
    Crash(BrokerId),
    /// The broker dies and its disk with it.
    LoseDisk(BrokerId),
    /// The broker flushes and stops.
    Stop(BrokerId),
    /// The broker starts and registers.
    Start(BrokerId),
    /// The broker asks to leave; its leadership moves.
    Drain(BrokerId),
    /// Retention deletes committed records.
    Delete(BrokerId),
}

impl Action {
    /// Whether it is one that a healthy cluster would not see.
    pub(crate) fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Lose(_)
                | Self::Duplicate(_)
                | Self::Lag(_)
                | Self::LoseProposal(_)
                | Self::LoseFetch(_)
                | Self::Fence(_)
                | Self::Crash(_)
                | Self::LoseDisk(_)
                | Self::Stop(_)
        )
    }
}

impl Cluster {
    /// Does it.
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Append(id) => self.append(id, Timestamp(i64::MAX)),
            Action::Flush(id) => self.complete_flush(id),
            Action::Deliver(at) => {
                let message = self.wire.remove(at);
                self.deliver(message);
            }
            Action::Lose(at) => drop(self.wire.remove(at)),
            Action::Duplicate(at) => {
                let message = self.wire[at].clone();
                self.deliver(message);
            }
            Action::Learn(id) => self.apply_metadata(id, false),
            Action::LearnAll(id) => self.apply_metadata(id, true),
            Action::Wake(id) => self.tick_at(id, 1_000),
            Action::Lag(id) => {
                self.used.lags += 1;
                self.tick_at(id, 2 * LAG_MAX_MS);
            }
            Action::LoseProposal(id) => {
                self.used.lost_proposals += 1;
                if let Some(proposal) = self.node_mut(id).outstanding_proposal.take() {
                    self.feed(id, Event::IsrProposalAnswered { proposal, answer: IsrAnswer::Lost });
                }
            }
            Action::LoseFetch(id) => {
                if let Some(fetch) = self.node_mut(id).outstanding_fetch.take() {
                    self.feed(id, Event::FetchAnswered { fetch, answer: FetchAnswer::Unreachable });
                }
            }
            Action::Fence(id) => {
                if self.nodes[&id].replica.is_some() {
                    self.used.fences += 1;
                }
                self.controller.fence(id);
            }
            Action::Unfence(id) => self.controller.unfence(id),
            Action::Crash(id) => self.crash(id),
            Action::LoseDisk(id) => self.lose_disk(id),
            Action::Stop(id) => self.stop(id),
            Action::Start(id) => self.start(id),
            Action::Drain(id) => self.controller.drain(id),
            Action::Delete(id) => {
                self.used.deletions += 1;
                self.delete_committed(id);
            }
        }
        self.drop_stale();
    }

    /// A tick at a later time, after which the clock of the search stands where it stood.
    fn tick_at(&mut self, id: BrokerId, later_ms: i64) {
        let now = self.now;
        self.now = now.plus_millis(later_ms);
        self.feed(id, Event::Tick);
        self.now = now;
    }

    fn crash(&mut self, id: BrokerId) {
        self.used.crashes += 1;
        let flushed = self.setup.durability == Durability::Flushed;
        let node = self.node_mut(id);
        node.replica = None;
        node.flushes.clear();
        if flushed {
            node.log = node.durable.clone();
        } else {
            node.durable = node.log.clone();
        }
    }

    fn lose_disk(&mut self, id: BrokerId) {
        self.used.lossy += 1;
        let node = self.node_mut(id);
        node.replica = None;
        node.flushes.clear();
        node.log = Log::default();
        node.durable = Log::default();
        node.disk_lost = true;
    }

    fn stop(&mut self, id: BrokerId) {
        let node = self.node_mut(id);
        node.replica = None;
        node.flushes.clear();
        node.durable = node.log.clone();
    }

    fn start(&mut self, id: BrokerId) {
        let verdict = if self.nodes[&id].disk_lost { Verdict::Lossy } else { Verdict::Durable };
        let broker_epoch = self.controller.register(id, verdict);
        let (config, images) = (config(&self.setup), self.controller.images.len());
        let node = self.node_mut(id);
        node.broker_epoch = broker_epoch;
        node.incarnation += 1;
        node.disk_lost = false;
        node.outstanding_fetch = None;
        node.outstanding_proposal = None;
        // The checkpoint of the high watermark is a hint; having none is the worst case.
        let position = node.log.position(node.log.start as i64);
        node.replica = Some(Replica::new(id, broker_epoch, config, position));
        // It counts the image with its own registration as the first it knows.
        node.applied = images - 1;
        self.apply_metadata(id, false);
    }

    /// Answers that nobody waits for change nothing; questions that nobody waits for may, but only so many.
    fn drop_stale(&mut self) {
        let nodes = &self.nodes;
        let mut stale_fetches_left = self.setup.stale_fetches_max;
        let mut keeps = |message: &Message| match message {
            Message::Fetch { from, id, incarnation, .. } => {
                let is_current = nodes[from].awaits_fetch(*incarnation, *id);
                let keeps = is_current || stale_fetches_left > 0;
                stale_fetches_left -= usize::from(keeps && !is_current);
                keeps
            }
            Message::FetchReply { to, id, incarnation, .. } => nodes[to].awaits_fetch(*incarnation, *id),
            Message::ProposalReply { to, id, incarnation, .. } => {
                nodes[to].awaits_proposal(*incarnation, *id)
            }
            Message::Proposal { .. } => true,
        };
        // The youngest stale questions stay.
        let mut kept: Vec<Message> = self.wire.drain(..).rev().filter(|message| keeps(message)).collect();
        kept.reverse();
        self.wire = kept;
    }

    /// Everything that may happen next within the limits, for the exhaustive search.
    pub(crate) fn enabled(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let (limits, used) = (&self.setup.limits, &self.used);
        for (&id, node) in &self.nodes {
            let state = self.controller.brokers[&id];
            let Some(replica) = &node.replica else {
                actions.push(Action::Start(id));
                if !state.fenced {
                    actions.push(Action::Fence(id));
                }
                continue;
            };
            if replica.is_leader() && used.values < limits.values {
                actions.push(Action::Append(id));
            }
            if !node.flushes.is_empty() {
                actions.push(Action::Flush(id));
            }
            let behind = self.controller.images.len() - node.applied;
            if behind > 0 {
                actions.push(Action::Learn(id));
            }
            if behind > 1 && self.setup.skip_images {
                actions.push(Action::LearnAll(id));
            }
            if replica.next_wakeup(Timestamp(0)).is_some_and(|at| at < Timestamp(LAG_MAX_MS)) {
                actions.push(Action::Wake(id));
            }
            let shrinkable =
                replica.isr().is_some_and(|isr| isr.pending().is_none() && isr.committed().len() > 1);
            if shrinkable && used.lags < limits.lags {
                actions.push(Action::Lag(id));
            }
            if node.outstanding_proposal.is_some() && used.lost_proposals < limits.lost_proposals {
                actions.push(Action::LoseProposal(id));
            }
            if state.fenced && state.epoch == node.broker_epoch && behind == 0 {
                actions.push(Action::Unfence(id));
            } else if !state.fenced && used.fences < limits.fences {
                actions.push(Action::Fence(id));
            }
            if used.crashes < limits.crashes {
                actions.push(Action::Crash(id));
            }
            if used.lossy < limits.lossy {
                actions.push(Action::LoseDisk(id));
            }
            let deletable = replica.log().high_watermark().0 - 1 > node.log.start as i64;
            if replica.is_leader() && deletable && used.deletions < limits.deletions {
                actions.push(Action::Delete(id));
            }
        }
        actions.extend((0..self.wire.len()).map(Action::Deliver));
        actions
    }
}
