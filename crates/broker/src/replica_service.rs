//! The leader's side of replication: answers the fetches of followers.
//!
//! ```text
//!   ReplicaFetchers ══ stream ══▶ FollowerSession ──on_follower_fetch──▶ PartitionHandle
//!          ▲                         │      ▲                                │
//!          └──────── answers ────────┘      └────────── Wakes::wake ─────────┘
//! ```
//!
//! One session for each stream. A fetch to which there is nothing to say yet is held; the partition wakes the session
//! when that may have changed, so that a partition in which nothing happens costs neither time nor bytes, and no timer.
//! Answers are made when the transport can take them, in the order in which their partitions had something to say:
//! none starves, and what waits in memory is bounded.

mod reader;
mod session;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_pb::replication::v1 as pb;
use klamm_rpc::stubs::replication::v1::replication_server::{Replication, ReplicationServer};
use klamm_rpc::{Lane, NodeIdentity, status};
use klamm_types::{BrokerEpoch, BrokerId, PartitionId, TopicId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::fetcher::throttle::{self, Throttle};
use crate::partition::PartitionHandle;
use crate::replica_manager::ReplicaManager;

use session::FollowerSession;

/// How many messages wait for the transport. Each has at most about 1 MiB, unless a batch is larger.
const RESPONSES_WAITING_MAX: usize = 2;

/// What a broker hosts, as its followers may ask for it.
pub trait HostedPartitions: Send + Sync + fmt::Debug {
    /// The replica of this broker; `None` if it has none, or none yet.
    fn hosted(&self, topic: TopicId, partition: PartitionId) -> Option<PartitionHandle>;

    /// This broker's incarnation.
    fn broker_epoch(&self) -> BrokerEpoch;

    /// `leader.replication.throttled.rate`: bytes a second that this broker may give followers of replicas that their
    /// topics' `leader.replication.throttled.replicas` name; `None` for any number.
    fn leader_rate(&self) -> Option<u64> {
        None
    }
}

/// What all sessions share.
#[derive(Debug)]
struct Context {
    me: BrokerId,
    hosted: Arc<dyn HostedPartitions>,
    throttle: Throttle,
}

impl Context {
    /// Whether the bytes that `follower` gets of the partition count against the leader's rate: the replica here is
    /// named, and the follower is not in sync.
    fn is_throttled(&self, partition: &PartitionHandle, follower: BrokerId) -> bool {
        let named = &partition.log().config().leader_throttled_replicas;
        throttle::names(named, partition.partition().partition, self.me)
            && !partition.role().in_sync_replicas.contains(&follower)
    }

    /// Whether nothing may be given that counts.
    fn is_exhausted(&self) -> bool {
        self.hosted.leader_rate().is_some_and(|rate| self.throttle.is_exhausted(rate, Instant::now()))
    }
}

impl HostedPartitions for ReplicaManager {
    fn hosted(&self, topic: TopicId, partition: PartitionId) -> Option<PartitionHandle> {
        // Whatever the reason, the follower asks again a little later.
        self.partition(topic, partition).ok()
    }

    fn broker_epoch(&self) -> BrokerEpoch {
        Self::broker_epoch(self)
    }

    fn leader_rate(&self) -> Option<u64> {
        throttle::rate(&self.image(), self.node_id(), throttle::LEADER_RATE)
    }
}

/// The gRPC service of a leader broker. Clones share their sessions.
#[derive(Clone, Debug)]
pub struct ReplicaService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: NodeIdentity,
    context: Arc<Context>,
    stop: watch::Sender<bool>,
    sessions: Mutex<JoinSet<()>>,
}

impl ReplicaService {
    /// A service without sessions.
    #[must_use]
    pub fn new(identity: NodeIdentity, hosted: Arc<dyn HostedPartitions>) -> Self {
        let stop = watch::Sender::new(false);
        let context = Arc::new(Context { me: identity.node_id(), hosted, throttle: Throttle::new() });
        let shared = Shared { identity, context, stop, sessions: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// What the server of a listener routes to.
    #[must_use]
    pub fn server(&self) -> ReplicationServer<Self> {
        let limit = Lane::Bulk.limits().message_bytes_max;
        ReplicationServer::new(self.clone()).max_decoding_message_size(limit).max_encoding_message_size(limit)
    }

    /// Ends all streams in good order, so that followers do not take it for a death, and refuses new ones.
    pub async fn stop(&self) {
        self.shared.stop.send_replace(true);
        let sessions =
            std::mem::take(&mut *self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        sessions.join_all().await;
    }
}

/// Who opens the stream, and how much it takes at a time.
fn check_opening(
    identity: &NodeIdentity,
    request: Option<&pb::FetchRequest>,
) -> Result<(BrokerId, usize), Status> {
    let Some(opening) = request.and_then(|request| request.opening.as_ref()) else {
        return Err(Status::invalid_argument("the first message does not open the stream"));
    };
    let from = identity.admit_node(&opening.cluster_id, opening.from_broker)?;
    match u64::try_from(opening.to_broker) {
        Ok(_) if opening.to_broker == identity.node_id().0 => {}
        Ok(to) => return Err(status::wrong_node(to, identity.node_id())),
        Err(_) => return Err(Status::invalid_argument(format!("{} is no node id", opening.to_broker))),
    }
    let bytes_max = usize::try_from(opening.partition_bytes_max).unwrap_or(usize::MAX);
    Ok((from, bytes_max.max(1)))
}

#[tonic::async_trait]
impl Replication for ReplicaService {
    type FetchStream = ReceiverStream<Result<pb::FetchResponse, Status>>;

    async fn fetch(
        &self,
        request: Request<Streaming<pb::FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?;
        let (follower, partition_bytes_max) = check_opening(&self.shared.identity, first.as_ref())?;
        let (responses, receiver) = mpsc::channel(RESPONSES_WAITING_MAX);
        let session =
            FollowerSession::new(Arc::clone(&self.shared.context), follower, partition_bytes_max, responses);
        let task = session.run(first.unwrap_or_default(), requests, self.shared.stop.subscribe());
        let mut sessions = self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        while sessions.try_join_next().is_some() {}
        sessions.spawn(task);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
