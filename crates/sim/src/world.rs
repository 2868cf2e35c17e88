//! The world: every node, what is on its way between them, and the passing of time.

mod clients;
mod faults;
mod finale;

use std::fmt::Write as _;

use klamm_control::AlterPartitionRequest;
use klamm_record::Batches;
use klamm_replica::{Event, FetchAnswer, FlushToken, IsrAnswer, IsrProposal, IsrRefusal};
use klamm_types::{BrokerId, Offset, PartitionId, Timestamp};

use crate::broker::Broker;
use crate::chance::Chance;
use crate::disk::Disk;
use crate::hosted::Request;
use crate::message::{Address, Life, Message, Post};
use crate::network::Network;
use crate::oracle::Oracle;
use crate::producer::Producer;
use crate::quorum::Quorum;
use crate::scenario::Scenario;
use crate::scheduler::Scheduler;

const HEARTBEAT_US: u64 = 200_000;
const CONTROL_TICK_US: u64 = 100_000;

/// Something that happens at an instant.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Deliver { from: Address, to: Address, message: Message },
    Start { broker: BrokerId },
    Beat { broker: BrokerId, life: Life },
    Flushed { broker: BrokerId, post: Post, partition: PartitionId, token: FlushToken },
    Wake { broker: BrokerId, post: Post, partition: PartitionId, at: Timestamp },
    Unreachable { broker: BrokerId, post: Post, partition: PartitionId, id: klamm_replica::FetchId },
    ProposalLost { broker: BrokerId, post: Post, partition: PartitionId, id: klamm_replica::ProposalId },
    Died { broker: BrokerId, epoch: klamm_types::BrokerEpoch },
    Stop { broker: BrokerId, life: Life },
    Commit { term: u64, entries: usize },
    TakeOver { term: u64 },
    ControlTick,
    Produce { producer: usize, attempt: u64 },
    Read,
    Fault,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) chance: Chance,
    scheduler: Scheduler<Happening>,
    network: Network,
    quorum: Quorum,
    brokers: Vec<Broker>,
    producers: Vec<Producer>,
    oracle: Oracle,
    /// Up to where readers have got, by partition.
    read_to: Vec<Offset>,
    /// A disk was lost and is not full again.
    replacing_disk: bool,
    /// No more faults, no new batches.
    healing: bool,
    steps: u64,
    trace: Option<String>,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) steps: u64,
    pub(crate) acknowledged: usize,
    pub(crate) virtual_us: u64,
}

impl World {
    pub(crate) fn new(seed: u64, with_trace: bool) -> Self {
        let mut chance = Chance::new(seed);
        let scenario = Scenario::draw(&mut chance);
        let scheduler = Scheduler::new();
        let quorum = Quorum::new(&scenario, scheduler.now());
        let ids = (1..=scenario.brokers).map(BrokerId);
        let brokers = ids.map(|id| Broker::new(id, Disk::empty(&mut chance))).collect();
        let partition = |producer: usize| PartitionId(producer as i32 % scenario.partitions);
        let producers = (0..scenario.producers).map(|i| Producer::new(i, partition(i))).collect();
        let read_to = vec![Offset::ZERO; usize::try_from(scenario.partitions).unwrap_or(0)];
        let mut world = Self {
            scenario,
            chance,
            scheduler,
            network: Network::default(),
            quorum,
            brokers,
            producers,
            oracle: Oracle::default(),
            read_to,
            replacing_disk: false,
            healing: false,
            steps: 0,
            trace: with_trace.then(String::new),
        };
        world.note(|world| format!("{:?}", world.scenario));
        world
    }

    fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{} {}", self.scheduler.now_us(), what(self));
            if let Some(trace) = &mut self.trace {
                // Writing to a string cannot fail.
                let _ = writeln!(trace, "{line}");
            }
        }
    }

    /// Lets one thing happen. Returns whether anything was left to happen.
    fn step(&mut self) -> bool {
        let Some(happening) = self.scheduler.next() else { return false };
        self.steps += 1;
        self.note(|_| format!("{happening:?}"));
        self.happen(happening);
        true
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(later_us) = self.paused_until(&happening) {
            self.scheduler.at(later_us, happening);
            return;
        }
        match happening {
            Happening::Deliver { from, to, message } => self.deliver(from, to, message),
            Happening::Start { broker } => self.start(broker),
            Happening::Beat { broker, life } => self.beat(broker, life),
            Happening::Flushed { broker, post, partition, token } => {
                self.with_replica(broker, Some(post), partition, |hosted, now, out| {
                    hosted.flush(now, token, out);
                });
                if self.chance.per_mille(50) {
                    let mut out = Vec::new();
                    self.broker_mut(broker).checkpoint(partition, &mut out);
                    self.carry_out(broker, out);
                }
            }
            Happening::Wake { broker, post, partition, at } => self.wake(broker, post, partition, at),
            Happening::Unreachable { broker, post, partition, id } => {
                self.with_replica(broker, Some(post), partition, |hosted, now, out| {
                    let answer = (id, FetchAnswer::Unreachable);
                    hosted.fetch_answered(now, answer, bytes::Bytes::new(), out);
                });
            }
            Happening::ProposalLost { broker, post, partition, id } => {
                let event = Event::IsrProposalAnswered { proposal: id, answer: IsrAnswer::Lost };
                self.with_replica(broker, Some(post), partition, |hosted, now, out| {
                    hosted.feed(now, event, out);
                });
            }
            Happening::Died { broker, epoch } => {
                let now = self.scheduler.now();
                self.decide(|quorum| quorum.on_death(broker, epoch, now));
            }
            Happening::Stop { broker, life } => {
                if self.broker(broker).life == life {
                    self.kill(broker, false);
                }
            }
            Happening::Commit { term, entries } => self.commit(term, entries),
            Happening::TakeOver { term } => self.take_over(term),
            Happening::ControlTick => {
                let now = self.scheduler.now();
                self.decide(|quorum| quorum.tick(now));
                self.scheduler.after(CONTROL_TICK_US, Happening::ControlTick);
            }
            Happening::Produce { producer, attempt } => self.produce(producer, attempt),
            Happening::Read => self.read(),
            Happening::Fault => self.fault(),
        }
    }

    /// Until when the process that this happens to stands still, if it does.
    fn paused_until(&self, happening: &Happening) -> Option<u64> {
        let broker = match happening {
            Happening::Deliver { to: Address::Broker(broker), .. }
            | Happening::Beat { broker, .. }
            | Happening::Wake { broker, .. }
            | Happening::Unreachable { broker, .. }
            | Happening::ProposalLost { broker, .. }
            | Happening::Flushed { broker, .. } => *broker,
            _ => return None,
        };
        let until = self.broker(broker).paused_until_us;
        (until > self.scheduler.now_us()).then_some(until)
    }

    fn index(id: BrokerId) -> usize {
        usize::try_from(id.0 - 1).unwrap_or(0)
    }

    fn broker(&self, id: BrokerId) -> &Broker {
        &self.brokers[Self::index(id)]
    }

    fn broker_mut(&mut self, id: BrokerId) -> &mut Broker {
        &mut self.brokers[Self::index(id)]
    }

    fn send(&mut self, from: Address, to: Address, message: Message) {
        let now_us = self.scheduler.now_us();
        let dice = (&self.scenario, &mut self.chance);
        for delay in self.network.route((from, to), &message, now_us, dice) {
            self.scheduler.after(delay, Happening::Deliver { from, to, message: message.clone() });
        }
    }

    /// Has the controller decide something, and what it decided be committed some time later.
    fn decide<T>(&mut self, decide: impl FnOnce(&mut Quorum) -> T) -> Option<T> {
        if !self.quorum.is_active() {
            return None;
        }
        let decided = decide(&mut self.quorum);
        let (term, entries) = (self.quorum.term(), self.quorum.entries());
        let (low, high) = self.scenario.flush_us;
        let delay = self.chance.range(low, high);
        self.scheduler.after(delay, Happening::Commit { term, entries });
        Some(decided)
    }

    fn commit(&mut self, term: u64, entries: usize) {
        let before = self.quorum.committed();
        for (to, message) in self.quorum.commit(term, entries) {
            let message = match message {
                Message::Standing { life, sent_us, standing, .. } => {
                    let committed = self.quorum.committed();
                    Message::Standing { life, sent_us, standing, committed }
                }
                other => other,
            };
            self.send(Address::Quorum, to, message);
        }
        let committed = self.quorum.committed();
        if committed > before {
            (before..committed).for_each(|entry| self.note(|world| world.quorum.tell(entry)));
            for id in (1..=self.scenario.brokers).map(BrokerId) {
                self.send(Address::Quorum, Address::Broker(id), Message::Feed { committed });
            }
        }
    }

    fn take_over(&mut self, term: u64) {
        if self.quorum.term() != term {
            return;
        }
        self.quorum.take_over(self.scheduler.now());
        self.decide(|_| ());
    }

    fn start(&mut self, id: BrokerId) {
        if self.broker(id).process.is_some() {
            return;
        }
        let broker = self.broker_mut(id);
        broker.start();
        let life = broker.life;
        self.scheduler.after(1_000, Happening::Beat { broker: id, life });
    }

    /// A broker's heartbeat, or its registration as long as it has none.
    fn beat(&mut self, id: BrokerId, life: Life) {
        let sent_us = self.scheduler.now_us();
        let broker = self.broker(id);
        if broker.life != life || broker.process.is_none() {
            return;
        }
        let message = match (broker.heartbeat_request(), broker.register_request()) {
            (Some(request), _) => Message::Heartbeat { life, sent_us, request },
            (None, Some(request)) => Message::Register { life, request },
            (None, None) => return,
        };
        self.send(Address::Broker(id), Address::Quorum, message);
        self.scheduler.after(HEARTBEAT_US, Happening::Beat { broker: id, life });
    }

    /// Does something with a replica of a broker, if it is there; only with that at `post` if there is one.
    fn with_replica(
        &mut self,
        id: BrokerId,
        post: Option<Post>,
        partition: PartitionId,
        act: impl FnOnce(&mut crate::hosted::Hosted, Timestamp, &mut Vec<Request>),
    ) {
        let now = self.scheduler.now();
        let broker = self.broker_mut(id);
        let Some(process) = &mut broker.process else { return };
        let Some(hosted) = process.replicas.get_mut(&partition) else { return };
        if post.is_some_and(|post| post != hosted.post) {
            return;
        }
        let mut out = Vec::new();
        act(hosted, now, &mut out);
        self.carry_out(id, out);
        self.schedule_wake(id, partition);
    }

    fn schedule_wake(&mut self, id: BrokerId, partition: PartitionId) {
        let Some(process) = &mut self.broker_mut(id).process else { return };
        let Some(hosted) = process.replicas.get_mut(&partition) else { return };
        let post = hosted.post;
        let wanted = hosted.next_wakeup();
        if hosted.wakes_at == wanted {
            return;
        }
        hosted.wakes_at = wanted;
        let Some(at) = wanted else { return };
        let wait_ms = at.millis_since(self.scheduler.now()).max(1).unsigned_abs();
        let wake = Happening::Wake { broker: id, post, partition, at };
        self.scheduler.after(wait_ms * 1_000, wake);
    }

    fn wake(&mut self, id: BrokerId, post: Post, partition: PartitionId, at: Timestamp) {
        self.with_replica(id, Some(post), partition, |hosted, now, out| {
            // A wake-up that something else has overtaken is not needed any more.
            if hosted.wakes_at == Some(at) {
                hosted.tick(now, out);
            }
        });
    }

    fn carry_out(&mut self, id: BrokerId, requests: Vec<Request>) {
        let life = self.broker(id).life;
        for request in requests {
            match request {
                Request::Send(to, message) => {
                    if let Message::Fetch { post, partition, id: fetch, .. } = &message {
                        let (post, partition, fetch) = (*post, *partition, *fetch);
                        let lost = Happening::Unreachable { broker: id, post, partition, id: fetch };
                        self.scheduler.after(1_200_000, lost);
                    }
                    self.send(Address::Broker(id), to, message);
                }
                Request::Propose(partition, post, proposal) => self.propose((id, post), partition, &proposal),
                Request::Flush(partition, post, token) => {
                    let (low, high) = self.scenario.flush_us;
                    let delay = self.chance.range(low, high);
                    let flushed = Happening::Flushed { broker: id, post, partition, token };
                    self.scheduler.after(delay, flushed);
                }
                Request::DiskFailed => {
                    if let Some(process) = &mut self.broker_mut(id).process
                        && !process.disk_failed
                    {
                        process.disk_failed = true;
                        self.scheduler.after(300_000, Happening::Stop { broker: id, life });
                    }
                }
            }
        }
    }

    fn propose(&mut self, (id, post): (BrokerId, Post), partition: PartitionId, proposal: &IsrProposal) {
        let latest = self.quorum.image(self.quorum.committed());
        let Some(topic) = latest.topics.topics().next().map(|topic| topic.id) else { return };
        let isr = proposal
            .members
            .iter()
            .map(|member| klamm_control::IsrMember { broker: member.broker, epoch: member.broker_epoch });
        let request = AlterPartitionRequest {
            broker: id,
            broker_epoch: proposal.broker_epoch,
            proposals: vec![klamm_control::IsrProposal {
                topic,
                partition,
                leader_epoch: proposal.leader_epoch,
                partition_epoch: proposal.partition_epoch,
                isr: isr.collect(),
                recovery: klamm_metadata::LeaderRecovery::Recovered,
            }],
        };
        let message = Message::Propose { post, partition, proposal: proposal.id, request };
        self.send(Address::Broker(id), Address::Quorum, message);
        let lost = Happening::ProposalLost { broker: id, post, partition, id: proposal.id };
        self.scheduler.after(700_000, lost);
    }

    fn deliver(&mut self, from: Address, to: Address, message: Message) {
        match to {
            Address::Quorum => self.deliver_to_quorum(from, message),
            Address::Broker(id) => self.deliver_to_broker(id, from, message),
            Address::Producer(producer) => {
                if let Message::ProduceAnswer { attempt, outcome } = message {
                    self.produce_answered(producer, attempt, outcome);
                }
            }
        }
    }

    fn deliver_to_quorum(&mut self, from: Address, message: Message) {
        let now = self.scheduler.now();
        let Address::Broker(id) = from else { return };
        // The connection of a process that has ended is gone, and with it what it had not delivered.
        match message {
            Message::Register { life, request } if self.broker(id).life == life => {
                self.decide(|quorum| quorum.register(now, life, &request));
            }
            Message::Heartbeat { life, sent_us, request } if self.broker(id).life == life => {
                self.decide(|quorum| {
                    let standing = quorum.heartbeat(now, &request);
                    let answer = Message::Standing { life, sent_us, standing, committed: 0 };
                    quorum.answer_later(from, answer);
                });
            }
            // A proposal that was on its way may arrive after its sender's death.
            Message::Propose { post, partition, proposal, request } => {
                self.decide(|quorum| {
                    let answer = quorum.alter_partition(&request);
                    let not_applied = matches!(answer, IsrAnswer::Refused(IsrRefusal::StaleBrokerEpoch));
                    let message = Message::ProposalAnswer { post, partition, proposal, answer };
                    if not_applied {
                        return;
                    }
                    quorum.answer_later(from, message);
                });
            }
            _ => {}
        }
    }

    fn deliver_to_broker(&mut self, id: BrokerId, from: Address, message: Message) {
        let now_us = self.scheduler.now_us();
        match message {
            Message::Registered { life, epoch } => {
                let broker = self.broker_mut(id);
                if broker.life == life
                    && let Some(process) = &mut broker.process
                    && process.epoch.is_none()
                {
                    process.epoch = epoch;
                    process.registered_us = now_us;
                }
            }
            Message::Standing { life, sent_us, standing, committed } => {
                if self.broker(id).life == life {
                    self.stand(id, sent_us, standing);
                    self.apply(id, committed);
                }
            }
            Message::Feed { committed } => self.apply(id, committed),
            Message::ProposalAnswer { post, partition, proposal, answer } => {
                let event = Event::IsrProposalAnswered { proposal, answer };
                self.with_replica(id, Some(post), partition, |hosted, now, out| hosted.feed(now, event, out));
            }
            Message::Fetch { post, partition, id: fetch_id, fetch } => {
                let Address::Broker(follower) = from else { return };
                self.with_replica(id, None, partition, |hosted, now, out| {
                    hosted.follower_fetched(now, (follower, post, fetch_id), fetch, out);
                });
            }
            Message::FetchAnswer { post, partition, id: fetch_id, answer, records } => {
                self.with_replica(id, Some(post), partition, |hosted, now, out| {
                    hosted.fetch_answered(now, (fetch_id, answer), records, out);
                });
            }
            Message::Produce { producer, attempt, partition, batch } => {
                self.produced(id, (producer, attempt), partition, &batch);
            }
            Message::Register { .. }
            | Message::Heartbeat { .. }
            | Message::Propose { .. }
            | Message::ProduceAnswer { .. } => {}
        }
    }

    fn stand(&mut self, id: BrokerId, sent_us: u64, standing: Option<klamm_control::BrokerStanding>) {
        let Some(standing) = standing else { return self.broker_mut(id).lose_registration(sent_us) };
        let sent_ms = 1_000_000 + i64::try_from(sent_us / 1_000).unwrap_or(i64::MAX);
        let World { brokers, chance, .. } = self;
        let broker = &mut brokers[Self::index(id)];
        let Some(process) = &mut broker.process else { return };
        let lease = Timestamp(sent_ms + i64::from(standing.session_timeout_ms));
        process.lease_until = process.lease_until.max(lease);
        if standing.may_shut_down && process.wants_shutdown {
            let mut out = Vec::new();
            broker.shut_down(chance, &mut out);
            let pause = self.chance.range(10_000, 2_000_000);
            self.scheduler.after(pause, Happening::Start { broker: id });
        }
    }

    fn apply(&mut self, id: BrokerId, committed: usize) {
        let committed = committed.min(self.quorum.committed());
        let image = self.quorum.image(committed);
        let (now, scenario) = (self.scheduler.now(), self.scenario.clone());
        let mut out = Vec::new();
        let broker = self.broker_mut(id);
        broker.apply(now, (committed, &image), &scenario, &mut out);
        let hosted: Vec<_> =
            broker.process.iter().flat_map(|process| process.replicas.keys().copied()).collect();
        self.carry_out(id, out);
        hosted.into_iter().for_each(|partition| self.schedule_wake(id, partition));
    }

    fn report(&self) -> Report {
        Report {
            steps: self.steps,
            acknowledged: self.oracle.acknowledged_count(),
            virtual_us: self.scheduler.now_us(),
        }
    }

    /// What has happened so far, line by line.
    pub(crate) fn into_trace(self) -> String {
        self.trace.unwrap_or_default()
    }
}

/// The values in whole batches, with their offsets.
fn values(bytes: &[u8]) -> Vec<(Offset, u64)> {
    let mut found = Vec::new();
    for batch in Batches::new(bytes) {
        let Ok(batch) = batch else { break };
        let Ok(mut records) = batch.records(1 << 20) else { continue };
        while let Ok(Some(record)) = records.next_record() {
            let value = record.value.and_then(|value| <[u8; 8]>::try_from(value).ok());
            found.push((record.offset, value.map_or(u64::MAX, u64::from_be_bytes)));
        }
    }
    found
}
