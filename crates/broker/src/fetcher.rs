//! The follower's side of replication: sends the fetches of this broker's partitions to their leaders, over one gRPC
//! stream for each leader broker, and hands the answers back.
//!
//! ```text
//!   PartitionHandle ──send──▶ ReplicaFetchers ──▶ Session(leader) ══ stream ══▶ ReplicaService
//!          ▲                                         │
//!          └────────────── on_fetch_answer ──────────┘
//! ```
//!
//! A fetch stands until it is answered, cancelled or replaced. The loss of a stream does not end it: the session
//! connects again after 5, 10 ... 200 ms and sends it anew, and a partition whose leader has died learns of its next one
//! without having asked in vain meanwhile. That is safe because a fetch claims nothing that could have become
//! untrue: the log does not move under it.
//!
//! The bytes that an answer carries are those that the transport received, not a copy. What is in flight is bounded by
//! the windows of the stream: a session reads its next message when the partitions have taken the last.

mod peers;
mod session;
mod standing;
pub(crate) mod throttle;
pub(crate) mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::{HashMap, HashMapExt as _};
use klamm_replica::{FetchId, FollowerFetch};
use klamm_rpc::{ChannelPool, NodeAddress, NodeIdentity};
use klamm_types::{BrokerEpoch, BrokerId};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::partition::{FollowerFetches, PartitionHandle};

pub use peers::MetadataPeers;
use session::{Session, SessionTask};
use throttle::Throttle;
use wire::PartitionKey;

/// What the fetchers need to know of other brokers, and what they find out about them.
pub trait Peers: Send + Sync + fmt::Debug {
    /// Where the broker serves replication, as far as the metadata knows it.
    fn replication_address(&self, broker: BrokerId) -> Option<NodeAddress>;

    /// The stream from this incarnation of the broker has ended, and not in good order: its process may be gone.
    /// Takes note and returns.
    fn on_stream_broken(&self, broker: BrokerId, broker_epoch: BrokerEpoch);

    /// `follower.replication.throttled.rate`: bytes a second that this broker may fetch for replicas that their topics'
    /// `follower.replication.throttled.replicas` name; `None` for any number.
    fn follower_rate(&self) -> Option<u64> {
        None
    }
}

/// Settings of the fetchers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetcherConfig {
    /// `num.replica.fetchers`: streams to each leader broker, from 1. The partitions are spread over them.
    pub streams_per_leader: usize,
    /// `replica.fetch.max.bytes`: the most bytes of batches in one answer of one partition, unless its first batch alone
    /// is larger.
    pub partition_bytes_max: u32,
}

impl Default for FetcherConfig {
    fn default() -> Self {
        Self { streams_per_leader: 1, partition_bytes_max: 1 << 20 }
    }
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) identity: NodeIdentity,
    pub(crate) config: FetcherConfig,
    pub(crate) channels: ChannelPool,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) throttle: Throttle,
}

impl Context {
    /// Whether the bytes of the partition count against the follower's rate: it is named, and not in sync.
    pub(crate) fn is_throttled(&self, partition: &PartitionHandle) -> bool {
        let me = self.identity.node_id();
        let named = &partition.log().config().follower_throttled_replicas;
        throttle::names(named, partition.partition().partition, me)
            && !partition.role().in_sync_replicas.contains(&me)
    }

    /// Whether nothing may be fetched that counts.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.peers.follower_rate().is_some_and(|rate| self.throttle.is_exhausted(rate, Instant::now()))
    }
}

/// The sessions with all leader brokers. Clones share them.
#[derive(Clone, Debug)]
pub struct ReplicaFetchers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    context: Arc<Context>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    sessions: Mutex<Sessions>,
}

#[derive(Debug)]
struct Sessions {
    by_stream: HashMap<(BrokerId, usize), Arc<Session>>,
    /// `None` once stopped.
    tasks: Option<JoinSet<()>>,
}

impl ReplicaFetchers {
    /// Fetchers without sessions; the first fetch to a leader begins one. Their tasks run on the runtime that this is
    /// called in.
    #[must_use]
    pub fn new(
        identity: NodeIdentity,
        config: FetcherConfig,
        channels: ChannelPool,
        peers: Arc<dyn Peers>,
    ) -> Self {
        let context = Arc::new(Context { identity, config, channels, peers, throttle: Throttle::new() });
        let sessions = Sessions { by_stream: HashMap::new(), tasks: Some(JoinSet::new()) };
        let shared = Shared {
            context,
            runtime: Handle::current(),
            stop: watch::Sender::new(false),
            sessions: Mutex::new(sessions),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Ends all sessions. What stands is answered as unreachable; what comes later is dropped. Returns when nothing of
    /// them runs any longer.
    pub async fn stop(&self) {
        let tasks = self.shared.sessions().tasks.take();
        self.shared.stop.send_replace(true);
        if let Some(tasks) = tasks {
            tasks.join_all().await;
        }
        self.shared.sessions().by_stream.clear();
    }

    /// How many fetches wait for an answer.
    #[must_use]
    pub fn standing(&self) -> usize {
        self.shared.sessions().by_stream.values().map(|session| session.standing()).sum()
    }
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session for this partition's fetches from `leader`, begun if need be; `None` once stopped.
    fn session(&self, leader: BrokerId, key: PartitionKey) -> Option<Arc<Session>> {
        let stream = key.stream(self.context.config.streams_per_leader);
        let Sessions { by_stream, tasks } = &mut *self.sessions();
        let tasks = tasks.as_mut()?;
        let session = by_stream.entry((leader, stream)).or_insert_with(|| {
            let session = Arc::new(Session::new(leader));
            let task = SessionTask::new(Arc::clone(&session), Arc::clone(&self.context));
            tasks.spawn_on(task.run(self.stop.subscribe()), &self.runtime);
            session
        });
        Some(Arc::clone(session))
    }
}

impl FollowerFetches for ReplicaFetchers {
    fn send(&self, partition: &PartitionHandle, id: FetchId, leader: BrokerId, fetch: FollowerFetch) {
        let key = PartitionKey::of(partition);
        if let Some(session) = self.shared.session(leader, key) {
            let context = &self.shared.context;
            let hold = context.is_throttled(partition) && context.is_exhausted();
            session.send(key, partition.clone(), id, fetch, hold);
        }
    }

    fn cancel(&self, partition: &PartitionHandle, id: FetchId) {
        let key = PartitionKey::of(partition);
        let sessions: Vec<_> = self.shared.sessions().by_stream.values().cloned().collect();
        for session in sessions {
            session.cancel(key, id);
        }
    }
}
