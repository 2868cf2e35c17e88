//! A network of sockets for the cluster: the real fetchers and the real service, with a relay before each broker that
//! can cut its connections, count their bytes and slow them down.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_broker::partition::FollowerFetches;
use klamm_broker::{FetcherConfig, Peers, ReplicaFetchers, ReplicaManager, ReplicaService};
use klamm_rpc::stubs::replication::v1::replication_client::ReplicationClient;
use klamm_rpc::{ChannelPool, Lane, NodeAddress, NodeIdentity, ServerConfig, serve};
use klamm_types::{BrokerEpoch, BrokerId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Channel;

use super::lock;

/// The sockets of all brokers.
#[derive(Default)]
pub(crate) struct Wire {
    config: FetcherConfig,
    relays: Mutex<BTreeMap<BrokerId, Arc<Relay>>>,
    broken: Mutex<Vec<(BrokerId, BrokerEpoch)>>,
    follower_rate: Mutex<Option<u64>>,
}

/// One broker's part in it.
pub(crate) struct Attached {
    fetchers: ReplicaFetchers,
    service: Option<ReplicaService>,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

/// What one broker's fetchers know of the others.
#[derive(Debug)]
struct WirePeers {
    me: BrokerId,
    wire: Arc<Wire>,
}

impl Peers for WirePeers {
    fn replication_address(&self, broker: BrokerId) -> Option<NodeAddress> {
        let relays = lock(&self.wire.relays);
        if relays.get(&self.me).is_some_and(|mine| mine.is_cut()) {
            return None;
        }
        relays.get(&broker).map(|relay| NodeAddress::new("127.0.0.1", relay.address.port()))
    }

    fn on_stream_broken(&self, broker: BrokerId, broker_epoch: BrokerEpoch) {
        lock(&self.wire.broken).push((broker, broker_epoch));
    }

    fn follower_rate(&self) -> Option<u64> {
        *lock(&self.wire.follower_rate)
    }
}

impl Attached {
    pub(crate) fn fetches(&self) -> Arc<dyn FollowerFetches> {
        Arc::new(self.fetchers.clone())
    }
}

impl Wire {
    pub(crate) fn new(config: FetcherConfig) -> Arc<Self> {
        Arc::new(Self { config, ..Self::default() })
    }

    /// The fetchers of a broker that starts.
    pub(crate) fn attach(self: &Arc<Self>, me: BrokerId) -> Attached {
        let identity = NodeIdentity::new("test-cluster", me);
        let peers = Arc::new(WirePeers { me, wire: Arc::clone(self) });
        let fetchers = ReplicaFetchers::new(identity, self.config.clone(), ChannelPool::default(), peers);
        Attached { fetchers, service: None, shutdown: watch::Sender::new(false), tasks: JoinSet::new() }
    }

    /// Has the broker serve its followers, behind a relay.
    pub(crate) async fn serve(&self, me: BrokerId, manager: &Arc<ReplicaManager>, attached: &mut Attached) {
        let identity = NodeIdentity::new("test-cluster", me);
        let service = ReplicaService::new(identity, Arc::clone(manager) as Arc<_>);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Routes::new(service.server());
        attached.service = Some(service);
        let mut shutdown = attached.shutdown.subscribe();
        attached.tasks.spawn(async move {
            let until = async move { _ = shutdown.wait_for(|stop| *stop).await };
            let config = ServerConfig { shutdown_grace: Duration::ZERO, ..ServerConfig::default() };
            serve(routes, TcpListenerStream::new(listener), until, config).await.unwrap();
        });
        let relay = Relay::start(address, &mut attached.tasks).await;
        lock(&self.relays).insert(me, relay);
    }

    /// The broker's process ends: its connections break, and there are no new ones.
    pub(crate) async fn kill(&self, me: BrokerId, mut attached: Attached) {
        let relay = lock(&self.relays).remove(&me);
        if let Some(relay) = relay {
            relay.cut();
        }
        attached.fetchers.stop().await;
        attached.shutdown.send_replace(true);
        attached.tasks.shutdown().await;
    }

    /// The broker ends its streams in good order.
    pub(crate) async fn stop_serving(&self, attached: &Attached) {
        if let Some(service) = &attached.service {
            service.stop().await;
        }
    }

    pub(crate) fn relay(&self, id: i32) -> Arc<Relay> {
        Arc::clone(&lock(&self.relays)[&BrokerId(id)])
    }

    pub(crate) fn set_follower_rate(&self, rate: Option<u64>) {
        *lock(&self.follower_rate) = rate;
    }

    /// A stranger's way to a broker.
    pub(crate) async fn client(&self, id: i32) -> ReplicationClient<Channel> {
        let address = NodeAddress::new("127.0.0.1", self.relay(id).address.port());
        ReplicationClient::new(ChannelPool::default().channel(&address, Lane::Bulk).unwrap())
    }

    /// Whose streams broke, as their followers saw it.
    pub(crate) fn broken(&self) -> Vec<(BrokerId, BrokerEpoch)> {
        lock(&self.broken).clone()
    }
}

/// What stands between a broker's socket and those who connect to it.
pub(crate) struct Relay {
    address: SocketAddr,
    cut: watch::Sender<u64>,
    is_cut: AtomicBool,
    bytes: AtomicU64,
    /// Bytes to go until a connection is cut.
    cut_after: AtomicI64,
    cuts: AtomicU64,
    /// Bytes a second to each follower; 0 for no limit.
    rate: AtomicU64,
}

impl Relay {
    async fn start(to: SocketAddr, tasks: &mut JoinSet<()>) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let relay = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            cut: watch::Sender::new(0),
            is_cut: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            cut_after: AtomicI64::new(i64::MAX),
            cuts: AtomicU64::new(0),
            rate: AtomicU64::new(0),
        });
        let this = Arc::clone(&relay);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (from, _) = listener.accept().await.unwrap();
                if !this.is_cut() {
                    connections.spawn(Arc::clone(&this).connect(from, to));
                }
                while connections.try_join_next().is_some() {}
            }
        });
        relay
    }

    async fn connect(self: Arc<Self>, from: TcpStream, to: SocketAddr) {
        let mut cut = self.cut.subscribe();
        let Ok(to) = TcpStream::connect(to).await else { return };
        from.set_nodelay(true).unwrap();
        to.set_nodelay(true).unwrap();
        let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
        tokio::select! {
            _ = cut.changed() => {}
            () = self.pass(from_read, to_write, false) => {}
            () = self.pass(to_read, from_write, true) => {}
        }
    }

    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, slowed: bool) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            self.bytes.fetch_add(len as u64, Ordering::AcqRel);
            let signed = i64::try_from(len).unwrap();
            let left = self.cut_after.fetch_sub(signed, Ordering::AcqRel);
            if left < signed {
                // It ends within a frame, and there is a next time only if somebody asks for one.
                self.cut_after.store(i64::MAX, Ordering::Release);
                self.cuts.fetch_add(1, Ordering::AcqRel);
                let passed = usize::try_from(left).unwrap_or(0);
                let _ = to.write_all(&buffer[..passed]).await;
                return;
            }
            let rate = self.rate.load(Ordering::Acquire);
            if slowed && rate > 0 {
                tokio::time::sleep(Duration::from_micros(len as u64 * 1_000_000 / rate)).await;
            }
            if to.write_all(&buffer[..len]).await.is_err() {
                return;
            }
        }
    }

    /// Breaks all connections, and every new one at once.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.cut.send_modify(|count| *count += 1);
    }

    pub(crate) fn heal(&self) {
        self.is_cut.store(false, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Breaks the connection over which the byte of this number comes, counted from now.
    pub(crate) fn cut_after(&self, bytes: i64) {
        self.cut_after.store(bytes, Ordering::Release);
    }

    /// How often [`cut_after`](Self::cut_after) has come to pass.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Lets followers have no more than this.
    pub(crate) fn set_rate(&self, bytes_per_second: u64) {
        self.rate.store(bytes_per_second, Ordering::Release);
    }

    /// Bytes in both directions so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }
}
