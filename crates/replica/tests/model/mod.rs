//! A partition's replicas, their disks, the wire and the controller, moved by one action at a time. The random
//! world and the exhaustive search drive this same model; its oracle knows what was promised.

#![allow(dead_code, reason = "each test file that includes the model uses its own part of it")]

mod actions;
mod controller;
mod disk;
mod effects;
mod oracle;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use klamm_replica::{
    Durability, Event, FetchAnswer, FetchId, FlushToken, FollowerFetch, IsrAnswer, IsrProposal, ProposalId,
    Replica, ReplicaConfig,
};
use klamm_types::{BrokerEpoch, BrokerId, Timestamp};

pub(crate) use actions::Action;
pub(crate) use controller::{Controller, Verdict};
pub(crate) use disk::{Entry, Log};
pub(crate) use oracle::Oracle;

/// How long a follower may lag; the search makes time pass in one jump past it.
pub(crate) const LAG_MAX_MS: i64 = 10_000;

/// What may go wrong, and how often.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Limits {
    /// Values that clients append.
    pub(crate) values: u32,
    /// Crashes that lose what is not on disk.
    pub(crate) crashes: u32,
    /// Crashes that lose the whole disk.
    pub(crate) lossy: u32,
    /// Brokers fenced while they live.
    pub(crate) fences: u32,
    /// Times that all who lag drop out of the lag window.
    pub(crate) lags: u32,
    /// Proposals given up for lost that may yet arrive.
    pub(crate) lost_proposals: u32,
    /// Deletions of what is committed.
    pub(crate) deletions: u32,
}

/// The shape of a run.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Setup {
    pub(crate) brokers: i32,
    pub(crate) min_in_sync_replicas: usize,
    pub(crate) durability: Durability,
    pub(crate) limits: Limits,
    /// Whether flushes complete at once. It makes the search shorter.
    pub(crate) instant_flush: bool,
    /// Whether an answer of a leader arrives before anything else happens. It makes the search shorter.
    pub(crate) instant_replies: bool,
    /// How many questions of followers that no longer wait for the answer stay on the wire; older ones are lost.
    pub(crate) stale_fetches_max: usize,
    /// Whether a broker may learn several metadata images as one.
    pub(crate) skip_images: bool,
}

/// What is on the wire. Stale answers are dropped; stale questions are not.
#[derive(Clone, Hash, Debug)]
pub(crate) enum Message {
    Fetch { from: BrokerId, to: BrokerId, id: FetchId, incarnation: u32, fetch: FollowerFetch },
    FetchReply { to: BrokerId, id: FetchId, incarnation: u32, answer: FetchAnswer, records: Vec<Entry> },
    Proposal { from: BrokerId, incarnation: u32, proposal_id: ProposalId, proposal: Proposal },
    ProposalReply { to: BrokerId, incarnation: u32, id: ProposalId, answer: IsrAnswer },
}

/// A proposal without its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Proposal(pub IsrProposal);

impl Hash for Proposal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let IsrProposal { broker_epoch, leader_epoch, partition_epoch, ref members, .. } = self.0;
        (broker_epoch, leader_epoch, partition_epoch, members).hash(state);
    }
}

/// A broker with its replica and disk.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: BrokerId,
    /// The replica, while the broker runs.
    pub(crate) replica: Option<Replica>,
    pub(crate) log: Log,
    /// What a crash leaves.
    pub(crate) durable: Log,
    /// Flushes under way: what they cover, and what will be on disk.
    pub(crate) flushes: Vec<(FlushToken, Log)>,
    pub(crate) broker_epoch: BrokerEpoch,
    /// Counts the starts of the process.
    pub(crate) incarnation: u32,
    /// How many metadata images it has applied.
    pub(crate) applied: usize,
    /// Whether its disk was lost since it last registered.
    pub(crate) disk_lost: bool,
    pub(crate) outstanding_fetch: Option<FetchId>,
    pub(crate) outstanding_proposal: Option<ProposalId>,
    /// Records of the answer that is being handled.
    arriving: Vec<Entry>,
    /// The value of the append that is being handled.
    appending: u32,
}

impl Node {
    /// Whether an answer to this fetch would mean anything.
    pub(crate) fn awaits_fetch(&self, incarnation: u32, id: FetchId) -> bool {
        self.incarnation == incarnation && self.replica.is_some() && self.outstanding_fetch == Some(id)
    }

    /// Whether an answer to this proposal would mean anything, though it be late.
    pub(crate) fn awaits_proposal(&self, incarnation: u32, id: ProposalId) -> bool {
        let isr = self.replica.as_ref().and_then(Replica::isr);
        let pending = isr.and_then(|isr| isr.pending());
        self.incarnation == incarnation && pending.is_some_and(|pending| pending.proposal().id == id)
    }
}

/// The whole world at one instant.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) setup: Setup,
    pub(crate) now: Timestamp,
    pub(crate) nodes: BTreeMap<BrokerId, Node>,
    pub(crate) controller: Controller,
    pub(crate) wire: Vec<Message>,
    pub(crate) oracle: Oracle,
    pub(crate) used: Limits,
    next_ticket: u64,
}

impl Cluster {
    /// All brokers run, all are in sync, the first one leads.
    pub(crate) fn new(setup: Setup) -> Self {
        let controller = Controller::new(setup.brokers, setup.min_in_sync_replicas);
        let mut nodes = BTreeMap::new();
        for id in (1..=setup.brokers).map(BrokerId) {
            let broker_epoch = controller.brokers[&id].epoch;
            let mut node = Node {
                id,
                replica: None,
                log: Log::default(),
                durable: Log::default(),
                flushes: Vec::new(),
                broker_epoch,
                incarnation: 0,
                applied: 0,
                disk_lost: false,
                outstanding_fetch: None,
                outstanding_proposal: None,
                arriving: Vec::new(),
                appending: 0,
            };
            node.replica = Some(Replica::new(id, broker_epoch, config(&setup), node.log.position(0)));
            nodes.insert(id, node);
        }
        let used =
            Limits { values: 0, crashes: 0, lossy: 0, fences: 0, lags: 0, lost_proposals: 0, deletions: 0 };
        let mut cluster = Self {
            now: Timestamp(0),
            nodes,
            controller,
            wire: Vec::new(),
            oracle: Oracle::default(),
            used,
            next_ticket: 0,
            setup,
        };
        for id in cluster.ids() {
            cluster.apply_metadata(id, false);
        }
        cluster
    }

    pub(crate) fn ids(&self) -> Vec<BrokerId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&self, id: BrokerId) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn node_mut(&mut self, id: BrokerId) -> &mut Node {
        self.nodes.get_mut(&id).expect("brokers are never removed")
    }

    /// The broker that leads in the controller's current epoch, if it knows.
    pub(crate) fn active_leader(&self) -> Option<BrokerId> {
        let leader = self.controller.leader?;
        let replica = self.nodes[&leader].replica.as_ref()?;
        (replica.is_leader() && replica.leader_epoch() == self.controller.leader_epoch).then_some(leader)
    }

    /// Gives the next image, or the newest, to a broker.
    pub(crate) fn apply_metadata(&mut self, id: BrokerId, newest: bool) {
        let images = self.controller.images.len();
        let node = self.node_mut(id);
        node.applied = if newest { images } else { (node.applied + 1).min(images) };
        let image = &self.controller.images[self.nodes[&id].applied - 1];
        let (registration, brokers) = image.as_ref().clone();
        self.feed(id, Event::RegistrationChanged { config: None, registration, brokers });
    }

    /// A number that is equal for states from which the same may happen.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for node in self.nodes.values() {
            node.replica.hash(&mut hasher);
            (&node.log, &node.durable, node.disk_lost, node.broker_epoch).hash(&mut hasher);
            for (token, log) in &node.flushes {
                let current = node.replica.as_ref().map(|replica| replica.flush_token().generation);
                (token.end_offset, Some(token.generation) == current, log).hash(&mut hasher);
            }
            // What it has yet to learn.
            self.controller.images[node.applied.min(self.controller.images.len())..].hash(&mut hasher);
        }
        self.controller.hash(&mut hasher);
        self.oracle.hash(&mut hasher);
        self.used.hash(&mut hasher);
        let wire = self.wire.iter().filter_map(|message| self.message_fingerprint(message));
        wire.fold(0_u64, u64::wrapping_add).hash(&mut hasher);
        hasher.finish()
    }

    /// `None` for an answer that nobody waits for.
    fn message_fingerprint(&self, message: &Message) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        let waits = |id: BrokerId, incarnation, fetch| self.nodes[&id].awaits_fetch(incarnation, fetch);
        let awaits =
            |id: BrokerId, incarnation, proposal| self.nodes[&id].awaits_proposal(incarnation, proposal);
        match message {
            Message::Fetch { from, to, id, incarnation, fetch } => {
                (0, from, to, waits(*from, *incarnation, *id), fetch).hash(&mut hasher);
            }
            Message::FetchReply { to, id, incarnation, answer, records } => {
                if !waits(*to, *incarnation, *id) {
                    return None;
                }
                (1, to, answer, records).hash(&mut hasher);
            }
            Message::Proposal { from, incarnation, proposal_id, proposal } => {
                (2, from, awaits(*from, *incarnation, *proposal_id), proposal).hash(&mut hasher);
            }
            Message::ProposalReply { to, incarnation, id, answer } => {
                if !awaits(*to, *incarnation, *id) {
                    return None;
                }
                (3, to, answer).hash(&mut hasher);
            }
        }
        Some(hasher.finish())
    }
}

/// The settings of every replica of a run.
pub(crate) fn config(setup: &Setup) -> ReplicaConfig {
    ReplicaConfig {
        durability: setup.durability,
        min_in_sync_replicas: setup.min_in_sync_replicas,
        replica_lag_time_max_ms: LAG_MAX_MS,
    }
}
