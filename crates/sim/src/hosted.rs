//! The body of one replica: the real log, driven by the real `Replica`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use klamm_log::{AppendError, AppendOrigin, Duplicate, FetchIsolation, Log, LogError, ProducerError};
use klamm_record::Batches;
use klamm_replica::{
    Acks, AppendRequest, AppendTicket, BrokerStates, Effect, Effects, Event, FetchAnswer, FetchBounds,
    FetchId, FetchRefusal, FetchTicket, FetchedRecords, FollowerFetch, IsrProposal, LogPosition,
    Registration, Replica, ReplicaConfig,
};
use klamm_types::{BrokerEpoch, BrokerId, EpochEntry, LeaderEpoch, Offset, PartitionId, Timestamp};

use crate::message::{Address, Message, Post, ProduceOutcome};

/// The most bytes of records in one answer; small, so that catching up takes several.
const FETCH_BYTES: usize = 600;
/// How long an append may wait for its followers.
const APPEND_WAIT_MS: i64 = 1_500;

/// What a replica's body asks of the world.
#[derive(Debug)]
pub(crate) enum Request {
    Send(Address, Message),
    /// The controller is to decide on this.
    Propose(PartitionId, Post, IsrProposal),
    /// The disk is to be asked for this, some time.
    Flush(PartitionId, Post, klamm_replica::FlushToken),
    /// The disk has failed.
    DiskFailed,
}

/// A follower's question that waits for something to tell.
#[derive(Clone, Debug)]
struct Held {
    from: BrokerId,
    post: Post,
    id: FetchId,
    fetch: FollowerFetch,
    until: Timestamp,
}

pub(crate) struct Hosted {
    broker: BrokerId,
    pub(crate) post: Post,
    partition: PartitionId,
    pub(crate) log: Arc<Log>,
    pub(crate) replica: Replica,
    config: ReplicaConfig,
    /// Who waits for which append.
    appends: BTreeMap<AppendTicket, (usize, u64)>,
    appending: Vec<u8>,
    arriving: Bytes,
    held: BTreeMap<FetchTicket, Held>,
    tickets: u64,
    /// The wake-up that is scheduled.
    pub(crate) wakes_at: Option<Timestamp>,
    ticked_at: Timestamp,
}

impl Hosted {
    pub(crate) fn new(
        (broker, epoch, post): (BrokerId, BrokerEpoch, Post),
        partition: PartitionId,
        log: Arc<Log>,
        config: ReplicaConfig,
    ) -> Self {
        let position = LogPosition::recovered(
            log.log_start_offset(),
            log.high_watermark(),
            log.log_end_offset(),
            log.leader_epochs(),
        );
        let replica = Replica::new(broker, epoch, config, position.expect("a recovered log is consistent"));
        Self {
            broker,
            post,
            partition,
            log,
            replica,
            config,
            appends: BTreeMap::new(),
            appending: Vec::new(),
            arriving: Bytes::new(),
            held: BTreeMap::new(),
            tickets: 0,
            wakes_at: None,
            ticked_at: Timestamp(0),
        }
    }

    /// Takes note of what the metadata says.
    pub(crate) fn on_image(
        &mut self,
        now: Timestamp,
        config: ReplicaConfig,
        (registration, brokers): (Registration, BrokerStates),
        out: &mut Vec<Request>,
    ) {
        let config = (self.config != config).then_some(config);
        self.config = config.unwrap_or(self.config);
        self.feed(now, Event::RegistrationChanged { config, registration, brokers }, out);
    }

    /// Gives the replica an event, and carries out what follows.
    pub(crate) fn feed(&mut self, now: Timestamp, event: Event, out: &mut Vec<Request>) {
        let mut effects = Effects::new();
        self.replica.step(now, event, &mut effects);
        let queue: Vec<Effect> = effects.drain().collect();
        for effect in queue {
            self.execute(now, effect, out);
        }
    }

    fn execute(&mut self, now: Timestamp, effect: Effect, out: &mut Vec<Request>) {
        match effect {
            Effect::Append { ticket, leader_epoch } => self.append(now, ticket, leader_epoch, out),
            Effect::AppendAsFollower { .. } => self.append_as_follower(now, out),
            Effect::TruncateTo { offset } => {
                let truncated = self.log.truncate_to(offset, now);
                self.truncated(now, truncated, out);
            }
            Effect::TruncateFullyAndStartAt { offset } => {
                let restarted = self.log.truncate_fully_and_start_at(offset, now).map(|()| offset);
                self.truncated(now, restarted, out);
            }
            Effect::RecordEpochStart(epoch) => {
                self.log.assign_epoch_start(epoch.epoch);
            }
            Effect::Flush(token) => out.push(Request::Flush(self.partition, self.post, token)),
            Effect::AdvanceLogStart(offset) => {
                if self.log.advance_log_start(offset).is_err() {
                    self.fail(now, out);
                }
            }
            Effect::AdvanceLogEnd(_) => self.tell_waiting(now, out),
            Effect::AdvanceHighWatermark(offset) => {
                self.log.advance_high_watermark(offset);
                self.tell_waiting(now, out);
            }
            Effect::LowerHighWatermark(to) => panic!("{} lowers its high watermark to {to}", self.name()),
            Effect::CompleteAppend { ticket, outcome } => {
                let epoch = self.replica.registration().map_or(LeaderEpoch::NONE, |known| known.leader_epoch);
                let outcome = outcome.map_or(ProduceOutcome::Retriable, |acknowledged| {
                    ProduceOutcome::Acknowledged(acknowledged.base_offset, epoch)
                });
                self.answer_append(ticket, outcome, out);
            }
            Effect::CompleteDeletion { .. } | Effect::CancelFetch(_) => {}
            Effect::Fetch { id, leader, fetch } => {
                let message = Message::Fetch { post: self.post, partition: self.partition, id, fetch };
                out.push(Request::Send(Address::Broker(leader), message));
            }
            Effect::AnswerFetch { ticket, bounds } => self.answer_fetch(now, ticket, bounds, out),
            Effect::RefuseFetch { ticket, refusal } => self.refuse_fetch(ticket, refusal, out),
            Effect::ProposeIsr(proposal) => out.push(Request::Propose(self.partition, self.post, proposal)),
            Effect::RaiseAlarm(alarm) => panic!("{} raises an alarm: {alarm}", self.name()),
        }
    }

    /// Time has come to what the replica wanted to be woken for.
    pub(crate) fn tick(&mut self, now: Timestamp, out: &mut Vec<Request>) {
        self.wakes_at = None;
        self.ticked_at = now;
        self.feed(now, Event::Tick, out);
        self.tell_waiting(now, out);
        let next = self.next_wakeup();
        assert!(next.is_none_or(|next| next > now), "{} is not content with a tick", self.name());
    }

    pub(crate) fn next_wakeup(&self) -> Option<Timestamp> {
        self.replica.next_wakeup(self.ticked_at)
    }

    fn name(&self) -> String {
        format!("replica {} of broker {}", self.partition, self.broker)
    }

    fn fail(&mut self, now: Timestamp, out: &mut Vec<Request>) {
        out.push(Request::DiskFailed);
        self.feed(now, Event::LogFailed, out);
    }

    /// A producer's batch arrives.
    pub(crate) fn produce(
        &mut self,
        now: Timestamp,
        lease_until: Timestamp,
        (producer, attempt, batch): (usize, u64, &Bytes),
        out: &mut Vec<Request>,
    ) {
        self.tickets += 1;
        let ticket = AppendTicket(self.tickets);
        self.appends.insert(ticket, (producer, attempt));
        self.appending = batch.to_vec();
        let deadline = now.plus_millis(APPEND_WAIT_MS);
        let request = AppendRequest { ticket, acks: Acks::All, leader_epoch: None, deadline, lease_until };
        self.feed(now, Event::AppendRequested(request), out);
    }

    fn append(&mut self, now: Timestamp, ticket: AppendTicket, epoch: LeaderEpoch, out: &mut Vec<Request>) {
        let records = std::mem::take(&mut self.appending);
        match self.log.append_as_leader(&records, epoch, AppendOrigin::Client, now) {
            // An old message that the network kept back. Each producer waits for one batch before it sends the next, so that
            // of the newest this would be wrong: the producer finds it so.
            Ok(info) if info.duplicate == Some(Duplicate::Forgotten) => {
                self.answer_append(ticket, ProduceOutcome::OutOfOrder(epoch), out);
                self.feed(now, Event::AppendDropped { ticket }, out);
            }
            Ok(info) => {
                let (base_offset, end_offset) = (info.first_offset, info.last_offset.next());
                self.feed(now, Event::Appended { ticket, base_offset, end_offset }, out);
            }
            Err(AppendError::Storage(_) | AppendError::Offline(_)) => {
                self.answer_append(ticket, ProduceOutcome::Retriable, out);
                self.fail(now, out);
            }
            Err(error) => {
                let out_of_order =
                    matches!(error, AppendError::Producer(ProducerError::OutOfOrderSequence { .. }));
                assert!(out_of_order, "{} refuses a batch: {error}", self.name());
                self.answer_append(ticket, ProduceOutcome::OutOfOrder(epoch), out);
                self.feed(now, Event::AppendDropped { ticket }, out);
            }
        }
    }

    fn answer_append(&mut self, ticket: AppendTicket, outcome: ProduceOutcome, out: &mut Vec<Request>) {
        if let Some((producer, attempt)) = self.appends.remove(&ticket) {
            let answer = Message::ProduceAnswer { attempt, outcome };
            out.push(Request::Send(Address::Producer(producer), answer));
        }
    }

    /// The leader's answer arrives.
    pub(crate) fn fetch_answered(
        &mut self,
        now: Timestamp,
        (fetch, answer): (FetchId, FetchAnswer),
        records: Bytes,
        out: &mut Vec<Request>,
    ) {
        self.arriving = records;
        self.feed(now, Event::FetchAnswered { fetch, answer }, out);
        self.arriving = Bytes::new();
    }

    fn append_as_follower(&mut self, now: Timestamp, out: &mut Vec<Request>) {
        let records = std::mem::take(&mut self.arriving);
        match self.log.append_as_follower(&records, now) {
            Ok(info) => {
                let log_end_offset = info.last_offset.next();
                self.feed(now, Event::AppendedAsFollower { log_end_offset }, out);
            }
            Err(AppendError::Storage(_) | AppendError::Offline(_)) => self.fail(now, out),
            Err(error) => panic!("{} cannot append what its leader sent: {error}", self.name()),
        }
    }

    fn truncated(&mut self, now: Timestamp, result: Result<Offset, LogError>, out: &mut Vec<Request>) {
        match result {
            Ok(log_end_offset) => self.feed(now, Event::Truncated { log_end_offset }, out),
            Err(_) => self.fail(now, out),
        }
    }

    /// A flush that was asked for is done by the disk now.
    pub(crate) fn flush(&mut self, now: Timestamp, token: klamm_replica::FlushToken, out: &mut Vec<Request>) {
        match self.log.flush() {
            Ok(_) => self.feed(now, Event::Flushed(token), out),
            Err(_) => self.fail(now, out),
        }
    }

    /// A follower asks.
    pub(crate) fn follower_fetched(
        &mut self,
        now: Timestamp,
        (from, post, id): (BrokerId, Post, FetchId),
        fetch: FollowerFetch,
        out: &mut Vec<Request>,
    ) {
        // A follower has one question at a time: a new one replaces the old.
        self.held.retain(|_, held| held.from != from);
        self.tickets += 1;
        let ticket = FetchTicket(self.tickets);
        let until = now.plus_millis(500);
        self.held.insert(ticket, Held { from, post, id, fetch, until });
        self.feed(now, Event::FollowerFetched { ticket, fetch }, out);
    }

    fn answer_fetch(
        &mut self,
        now: Timestamp,
        ticket: FetchTicket,
        bounds: FetchBounds,
        out: &mut Vec<Request>,
    ) {
        let Some(held) = self.held.get(&ticket) else { return };
        let news = bounds.offset < bounds.log_end_offset
            || bounds.high_watermark > held.fetch.high_watermark
            || bounds.log_start_offset > held.fetch.log_start_offset;
        if !news && now < held.until {
            return;
        }
        let Some(records) = self.read(now, bounds, out) else { return };
        let (end_offset, epoch_starts) = describe(&records, bounds.offset);
        let answer = FetchAnswer::Records(FetchedRecords {
            end_offset,
            epoch_starts,
            high_watermark: bounds.high_watermark,
            log_start_offset: bounds.log_start_offset,
        });
        self.send_answer(ticket, answer, records, out);
    }

    fn read(&mut self, now: Timestamp, bounds: FetchBounds, out: &mut Vec<Request>) -> Option<Bytes> {
        if bounds.offset >= bounds.log_end_offset {
            return Some(Bytes::new());
        }
        let read = self.log.read(bounds.offset, FETCH_BYTES, FetchIsolation::LogEnd);
        let bytes = read.and_then(|outcome| outcome.slice.map(|slice| slice.to_vec()).transpose());
        match bytes {
            Ok(bytes) => {
                let bytes = bytes.unwrap_or_default();
                let mut whole = Batches::new(&bytes);
                while let Some(Ok(_)) = whole.next() {}
                let end = whole.position();
                let mut bytes = Bytes::from(bytes);
                bytes.truncate(end);
                Some(bytes)
            }
            Err(_) => {
                self.fail(now, out);
                None
            }
        }
    }

    fn refuse_fetch(&mut self, ticket: FetchTicket, refusal: FetchRefusal, out: &mut Vec<Request>) {
        self.send_answer(ticket, FetchAnswer::Refused(refusal), Bytes::new(), out);
    }

    fn send_answer(
        &mut self,
        ticket: FetchTicket,
        answer: FetchAnswer,
        records: Bytes,
        out: &mut Vec<Request>,
    ) {
        let Some(Held { from, post, id, .. }) = self.held.remove(&ticket) else { return };
        let message = Message::FetchAnswer { post, partition: self.partition, id, answer, records };
        out.push(Request::Send(Address::Broker(from), message));
    }

    /// Answers the questions that have something to be told now.
    pub(crate) fn tell_waiting(&mut self, now: Timestamp, out: &mut Vec<Request>) {
        let waiting: Vec<_> = self.held.iter().map(|(ticket, held)| (*ticket, held.fetch)).collect();
        for (ticket, fetch) in waiting {
            match self.replica.check_fetch(&fetch) {
                Ok(bounds) => self.answer_fetch(now, ticket, bounds, out),
                Err(refusal) => self.refuse_fetch(ticket, refusal, out),
            }
        }
    }
}

/// Where the records end, and which epochs they are of.
fn describe(records: &[u8], from: Offset) -> (Offset, Vec<EpochEntry>) {
    let mut end = from;
    let mut epochs: Vec<EpochEntry> = Vec::new();
    for batch in Batches::new(records) {
        let batch = batch.expect("a log holds whole batches");
        let header = batch.header();
        end = header.next_offset();
        let (epoch, start_offset) = (header.leader_epoch(), header.base_offset());
        if epochs.last().is_none_or(|last| last.epoch != epoch) {
            epochs.push(EpochEntry { epoch, start_offset });
        }
    }
    (end, epochs)
}
