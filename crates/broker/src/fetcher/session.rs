//! One stream of fetches to one leader broker, and the task that keeps it up.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use klamm_pb::replication::v1 as pb;
use klamm_replica::{FetchId, FetchRefusal, FollowerFetch};
use klamm_rpc::stubs::replication::v1::replication_client::ReplicationClient;
use klamm_rpc::{AddressError, Backoff, Lane, RpcError};
use klamm_types::{BrokerEpoch, BrokerId, Offset};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Status, Streaming};

use crate::partition::{FetchOutcome, PartitionHandle};

use super::Context;
use super::standing::{Received, StandingFetch, StandingFetches};
use super::wire::{PartitionKey, WireError, refusal_from_pb};

/// How long a leader may take to open a stream.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether fetches that are held may go.
const HOLD_CHECK_INTERVAL: Duration = Duration::from_millis(5);
/// How often it is looked whether the stream is still needed.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The fetches from one leader broker, shared by partitions, the task and the transport.
#[derive(Debug)]
pub(crate) struct Session {
    leader: BrokerId,
    state: Mutex<State>,
    has_fetches: Notify,
}

#[derive(Debug)]
struct State {
    fetches: StandingFetches<PartitionHandle>,
    /// Which stream may take requests; a stream of an older number ends.
    stream: u64,
    /// Of the transport, when it waits for a request.
    waker: Option<Waker>,
}

impl Session {
    pub(crate) fn new(leader: BrokerId) -> Self {
        let state = State { fetches: StandingFetches::new(), stream: 0, waker: None };
        Self { leader, state: Mutex::new(state), has_fetches: Notify::new() }
    }

    /// Takes over a fetch, to be sent at once or when the throttle allows it. Called with the partition's lock held.
    pub(crate) fn send(
        &self,
        key: PartitionKey,
        partition: PartitionHandle,
        id: FetchId,
        fetch: FollowerFetch,
        hold: bool,
    ) {
        let waker = {
            let mut state = self.state();
            state.fetches.add(key, partition, id, fetch, hold);
            if hold { None } else { state.waker.take() }
        };
        match waker {
            Some(waker) => waker.wake(),
            None => self.has_fetches.notify_one(),
        }
    }

    /// Drops a fetch, if it stands here. Called with the partition's lock held.
    pub(crate) fn cancel(&self, key: PartitionKey, id: FetchId) {
        let waker = {
            let mut state = self.state();
            match state.fetches.cancel(key, id) {
                true => state.waker.take(),
                false => None,
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn has_held(&self) -> bool {
        self.state().fetches.has_held()
    }

    fn release_held(&self) {
        let mut state = self.state();
        state.fetches.release_held();
        wake(state);
    }

    pub(crate) fn standing(&self) -> usize {
        self.state().fetches.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a stream, which takes all that stands; the one before it ends.
    fn begin_stream(self: &Arc<Self>, opening: pb::FetchSessionOpening) -> Requests {
        let mut state = self.state();
        state.stream += 1;
        state.fetches.on_stream_lost();
        let number = state.stream;
        wake(state);
        Requests { session: Arc::clone(self), number, opening: Some(opening) }
    }

    /// Ends the stream, so that the transport lets go of it.
    fn end_stream(&self) {
        let mut state = self.state();
        state.stream += 1;
        state.fetches.on_stream_lost();
        wake(state);
    }
}

/// Wakes the transport, if it waits, with the lock released.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What is sent over one stream. It has no queue of its own: the transport takes what stands when it can send.
#[derive(Debug)]
struct Requests {
    session: Arc<Session>,
    number: u64,
    opening: Option<pb::FetchSessionOpening>,
}

impl Stream for Requests {
    type Item = pb::FetchRequest;

    fn poll_next(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let requests = self.get_mut();
        let mut state = requests.session.state();
        if state.stream != requests.number {
            return Poll::Ready(None);
        }
        let opening = requests.opening.take();
        match (state.fetches.take_request(), opening) {
            (Some(request), opening) => Poll::Ready(Some(pb::FetchRequest { opening, ..request })),
            (None, Some(opening)) => {
                Poll::Ready(Some(pb::FetchRequest { opening: Some(opening), ..Default::default() }))
            }
            (None, None) => {
                state.waker = Some(task.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the metadata knows no address of the broker")]
    NoAddress,
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("the stream was not opened within {OPENING_TIMEOUT:?}")]
    OpeningTimedOut,
    #[error("the stream was not opened")]
    NotOpened(#[source] RpcError),
    #[error(transparent)]
    Malformed(#[from] WireError),
    #[error("the stream broke")]
    Broken(#[source] RpcError),
    #[error("the leader ended the stream")]
    Ended,
}

impl StreamError {
    /// Whether this may mean that the leader's process is gone.
    fn is_sign_of_death(&self) -> bool {
        match self {
            Self::Broken(error) => match error {
                RpcError::Unreachable { .. }
                | RpcError::Lost { .. }
                | RpcError::TimedOut
                | RpcError::Failed { .. } => true,
                RpcError::NotActiveController { .. }
                | RpcError::ForeignCluster { .. }
                | RpcError::ForeignQuorum { .. }
                | RpcError::WrongNode { .. }
                | RpcError::Overloaded { .. }
                | RpcError::Invalid { .. }
                | RpcError::Unsupported { .. }
                | RpcError::TooLong { .. } => false,
            },
            Self::NoAddress
            | Self::Address(_)
            | Self::OpeningTimedOut
            | Self::NotOpened(_)
            | Self::Malformed(_)
            | Self::Ended => false,
        }
    }
}

/// How a stream came to its end.
enum StreamEnd {
    /// Nobody needs it.
    Idle,
    Error(StreamError),
}

/// Keeps the stream up for as long as partitions follow the leader.
pub(crate) struct SessionTask {
    session: Arc<Session>,
    context: Arc<Context>,
    backoff: Backoff,
    /// Who serves the stream, once it has said so.
    leader_incarnation: Option<BrokerEpoch>,
}

impl SessionTask {
    pub(crate) fn new(session: Arc<Session>, context: Arc<Context>) -> Self {
        Self { session, context, backoff: Backoff::between_nodes(), leader_incarnation: None }
    }

    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            // An error means that the fetchers are gone.
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.keep_up() => {}
        }
        self.session.end_stream();
        let left = self.session.state().fetches.take_all();
        for standing in left {
            standing.partition.on_fetch_answer(standing.id, FetchOutcome::Unreachable);
        }
    }

    async fn keep_up(&mut self) {
        loop {
            while self.session.standing() == 0 {
                self.session.has_fetches.notified().await;
            }
            self.leader_incarnation = None;
            let end = self.follow().await;
            self.session.end_stream();
            if let StreamEnd::Error(error) = end {
                self.on_stream_error(&error);
                tokio::time::sleep(self.backoff.next_pause()).await;
            }
        }
    }

    fn on_stream_error(&self, error: &StreamError) {
        let leader = self.session.leader;
        if let Some(epoch) = self.leader_incarnation {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::info!(%leader, %error, cause, "the replication stream from the leader is gone");
            if error.is_sign_of_death() {
                self.context.peers.on_stream_broken(leader, epoch);
            }
        } else {
            tracing::debug!(%leader, %error, "no replication stream from the leader");
        }
    }

    /// Opens a stream and hands out what comes over it.
    async fn follow(&mut self) -> StreamEnd {
        let mut stream = match self.open().await {
            Ok(stream) => stream,
            Err(error) => return StreamEnd::Error(error),
        };
        let first_check = Instant::now() + IDLE_CHECK_INTERVAL;
        let mut idle_check = tokio::time::interval_at(first_check, IDLE_CHECK_INTERVAL);
        idle_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hold_check = tokio::time::interval(HOLD_CHECK_INTERVAL);
        hold_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_idle = false;
        loop {
            tokio::select! {
                biased;
                _ = hold_check.tick(), if self.session.has_held() => {
                    if !self.context.is_exhausted() {
                        self.session.release_held();
                    }
                }
                message = stream.message() => match self.on_message(message) {
                    Ok(()) => {}
                    Err(error) => return StreamEnd::Error(error),
                },
                // A fetch may have to be held.
                () = self.session.has_fetches.notified() => {}
                _ = idle_check.tick() => {
                    let is_idle = self.session.standing() == 0;
                    if is_idle && was_idle {
                        return StreamEnd::Idle;
                    }
                    was_idle = is_idle;
                }
            }
        }
    }

    async fn open(&self) -> Result<Streaming<pb::FetchResponse>, StreamError> {
        let Context { identity, config, channels, peers, .. } = &*self.context;
        let leader = self.session.leader;
        let address = peers.replication_address(leader).ok_or(StreamError::NoAddress)?;
        let limit = Lane::Bulk.limits().message_bytes_max;
        let mut client = ReplicationClient::new(channels.channel(&address, Lane::Bulk)?)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        let requests = self.session.begin_stream(pb::FetchSessionOpening {
            cluster_id: identity.cluster_id().to_owned(),
            from_broker: identity.node_id().0,
            to_broker: leader.0,
            partition_bytes_max: config.partition_bytes_max,
        });
        match tokio::time::timeout(OPENING_TIMEOUT, client.fetch(requests)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(StreamError::NotOpened(RpcError::from(status))),
            Err(_) => {
                // The connection may lead nowhere.
                channels.forget(&address, Lane::Bulk);
                Err(StreamError::OpeningTimedOut)
            }
        }
    }

    fn on_message(&mut self, message: Result<Option<pb::FetchResponse>, Status>) -> Result<(), StreamError> {
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Err(StreamError::Ended),
            Err(status) => {
                let error = RpcError::from(status);
                return Err(match self.leader_incarnation {
                    Some(_) => StreamError::Broken(error),
                    None => StreamError::NotOpened(error),
                });
            }
        };
        if let Some(accepted) = message.accepted {
            self.leader_incarnation = Some(BrokerEpoch(accepted.broker_epoch));
            self.backoff.reset();
        } else if self.leader_incarnation.is_none() {
            return Err(WireError::NotOpened.into());
        }
        for answer in message.answers {
            self.on_answer(answer)?;
        }
        Ok(())
    }

    fn on_answer(&self, answer: pb::PartitionAnswer) -> Result<(), WireError> {
        use pb::partition_answer::Outcome;
        let fetch_id = answer.fetch_id;
        match answer.outcome.ok_or(WireError::NoOutcome { fetch_id })? {
            Outcome::Records(records) => self.on_records(fetch_id, records)?,
            Outcome::Refusal(refusal) => {
                let standing = self.session.state().fetches.take(fetch_id);
                if let Some(standing) = standing {
                    refuse(standing, refusal_from_pb(&refusal));
                }
            }
        }
        Ok(())
    }

    fn on_records(&self, fetch_id: u64, records: pb::FetchedRecords) -> Result<(), WireError> {
        let pb::FetchedRecords { batches, high_watermark, log_start_offset, continues } = records;
        let received = self.session.state().fetches.receive(fetch_id, batches, continues)?;
        if let Received::Whole(standing, batches) = received {
            if self.context.is_throttled(&standing.partition) {
                self.context.throttle.take(batches.len());
            }
            let outcome = FetchOutcome::Records {
                records: batches,
                high_watermark: Offset(high_watermark),
                log_start_offset: Offset(log_start_offset),
            };
            standing.partition.on_fetch_answer(standing.id, outcome);
        }
        Ok(())
    }
}

/// Hands a refusal over. One of a kind that this version does not know counts as no answer.
fn refuse(standing: StandingFetch<PartitionHandle>, refusal: Option<FetchRefusal>) {
    let StandingFetch { partition, id, .. } = standing;
    let Some(refusal) = refusal else {
        return partition.on_fetch_answer(id, FetchOutcome::Unreachable);
    };
    let outcome = FetchOutcome::Refused(refusal);
    match refusal {
        // The log may have to be truncated, which waits for the disk.
        FetchRefusal::Diverging { .. } | FetchRefusal::OffsetOutOfRange { .. } => {
            // Nobody waits: what comes of it is a new fetch.
            drop(tokio::task::spawn_blocking(move || partition.on_fetch_answer(id, outcome)));
        }
        FetchRefusal::FencedLeaderEpoch { .. }
        | FetchRefusal::UnknownLeaderEpoch { .. }
        | FetchRefusal::NotLeader
        | FetchRefusal::NotReplica
        | FetchRefusal::StaleBrokerEpoch { .. }
        | FetchRefusal::LogFailed => partition.on_fetch_answer(id, outcome),
    }
}
