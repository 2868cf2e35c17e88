//! Nodes, and the calls that tests make.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use klamm_control::{ConfigRefusal, ConfigSchema};
use klamm_controller::{Controller, ControllerOptions, ControllerStatus, RaftTiming, StartError, Voter};
use klamm_log::fs::{LogFs, MemoryFs, RealFs};
use klamm_log::{FileCache, LogDir};
use klamm_metadata::{
    ConfigResource, MetadataDelta, MetadataImage, MetadataProvenance, SnapshotReader, SnapshotWriter,
    from_batch,
};
use klamm_pb::controller::v1 as pb;
use klamm_pb::metadata::v1 as feed;
use klamm_rpc::stubs::controller::v1::admin_client::AdminClient;
use klamm_rpc::stubs::controller::v1::quorum_client::QuorumClient;
use klamm_rpc::stubs::metadata::v1::metadata_feed_client::MetadataFeedClient;
use klamm_rpc::{ChannelPool, Deadline, Lane, NodeAddress, RpcError, ServerConfig, serve};
use klamm_types::{BrokerId, Offset};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;

/// How long anything may take that is waited for, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const CLUSTER: &str = "test-cluster";

/// Every setting may have every value but "bad".
pub(crate) struct AnySetting;

impl ConfigSchema for AnySetting {
    fn validate(&self, _: &ConfigResource, key: &str, value: &str) -> Result<(), ConfigRefusal> {
        if value == "bad" {
            let (key, value) = (key.to_owned(), value.to_owned());
            return Err(ConfigRefusal::BadValue { key, value, allowed: "anything else".to_owned() });
        }
        Ok(())
    }

    fn is_list(&self, _: &ConfigResource, key: &str) -> bool {
        key == "list"
    }

    fn default_value(&self, _: &ConfigResource, _: &str) -> Option<String> {
        None
    }
}

/// A runtime for one node, or for the test's own calls.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(crate) fn disk() -> MemoryFs {
    let fs = MemoryFs::new();
    fs.create_dir_all(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

/// A controller as a process: killing it closes its sockets and forgets all that is not on its disk.
pub(crate) struct Node {
    runtime: Option<Runtime>,
    controller: Option<Controller>,
    pub(crate) status: watch::Receiver<ControllerStatus>,
}

impl Node {
    /// Keeps it from doing anything for a while, as a stopped process: its one thread sleeps. Its sockets stay open.
    pub(crate) fn pause(&self, duration: Duration) {
        let (begun, has_begun) = std::sync::mpsc::channel();
        self.runtime.as_ref().unwrap().spawn(async move {
            begun.send(()).unwrap();
            std::thread::sleep(duration);
        });
        has_begun.recv().unwrap();
    }

    /// Stops it at once.
    pub(crate) fn kill(mut self) {
        let runtime = self.runtime.take();
        std::mem::forget(self.controller.take());
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    /// Stops it politely.
    pub(crate) fn shut_down(mut self) {
        let controller = self.controller.take().unwrap();
        self.runtime.as_ref().unwrap().block_on(controller.shutdown(Deadline::after(PATIENCE)));
        self.kill();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        std::mem::forget(self.controller.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

/// A cluster of controllers.
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<i32, Node>,
    pub(crate) addresses: BTreeMap<i32, NodeAddress>,
    pub(crate) disks: BTreeMap<i32, MemoryFs>,
    /// Where nodes write instead if what they keep on disks must not be taken for their memory.
    real_disks: Option<TempDir>,
    pub(crate) founders: Vec<i32>,
    /// Changes the options that nodes are started with from now on.
    pub(crate) adjust: fn(&mut ControllerOptions),
    pub(crate) channels: ChannelPool,
    pub(crate) calls: Runtime,
}

/// A port that nobody else gets while it is listened to; free again for the node at once.
fn free_address() -> NodeAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port())
}

impl Cluster {
    /// `count` founders, running.
    pub(crate) fn start(count: i32) -> Self {
        Self::start_with(count, |_| ())
    }

    pub(crate) fn start_with(count: i32, adjust: fn(&mut ControllerOptions)) -> Self {
        Self::start_on(None, count, adjust)
    }

    /// The same in directories of the operating system, which end with the cluster.
    pub(crate) fn start_on_real_disks(count: i32, adjust: fn(&mut ControllerOptions)) -> Self {
        Self::start_on(Some(tempfile::tempdir().unwrap()), count, adjust)
    }

    fn start_on(real_disks: Option<TempDir>, count: i32, adjust: fn(&mut ControllerOptions)) -> Self {
        let mut cluster = Self { real_disks, ..Self::planned(count, adjust) };
        for id in 1..=count {
            cluster.start_node(id);
        }
        cluster
    }

    /// `count` founders that do not run yet.
    pub(crate) fn planned(count: i32, adjust: fn(&mut ControllerOptions)) -> Self {
        Self {
            nodes: BTreeMap::new(),
            addresses: (1..=count).map(|id| (id, free_address())).collect(),
            disks: (1..=count).map(|id| (id, disk())).collect(),
            real_disks: None,
            founders: (1..=count).collect(),
            adjust,
            channels: ChannelPool::default(),
            calls: runtime(),
        }
    }

    /// Gives a node that is no founder a disk and an address.
    pub(crate) fn prepare(&mut self, id: i32) {
        self.addresses.insert(id, free_address());
        self.disks.insert(id, disk());
    }

    /// The directory of a node on a real disk.
    pub(crate) fn real_directory(&self, id: i32) -> Option<PathBuf> {
        let path = self.real_disks.as_ref()?.path().join(id.to_string());
        std::fs::create_dir_all(&path).unwrap();
        Some(path)
    }

    pub(crate) fn options(&self, id: i32) -> ControllerOptions {
        let voter = |id: &i32| Voter { id: BrokerId(*id), address: self.addresses[id].clone() };
        let memory = || Arc::new(self.disks[&id].clone());
        let log_dir = match self.real_directory(id) {
            Some(path) => LogDir::new(Arc::new(RealFs), &path, FileCache::new(100)),
            None => LogDir::new(memory(), Path::new("/data"), FileCache::new(100)),
        };
        let voters = self.founders.iter().map(voter).collect();
        let mut options =
            ControllerOptions::new(CLUSTER, BrokerId(id), voters, log_dir, Arc::new(AnySetting));
        options.timing = RaftTiming {
            heartbeat_interval_ms: 100,
            election_timeout_min_ms: 500,
            election_timeout_max_ms: 1_000,
        };
        (self.adjust)(&mut options);
        options
    }

    /// Starts a node, or starts it again on what its disk holds.
    pub(crate) fn start_node(&mut self, id: i32) {
        let runtime = runtime();
        let address = self.addresses[&id].clone();
        let controller = runtime.block_on(async {
            loop {
                match Controller::start(self.options(id)).await {
                    Ok(controller) => return controller,
                    // The thread of the one before is still making its log durable.
                    Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(error) => panic!("node {id} does not start: {error}"),
                }
            }
        });
        runtime.block_on(listen(&address, controller.routes()));
        let status = controller.status();
        self.nodes.insert(id, Node { runtime: Some(runtime), controller: Some(controller), status });
    }

    /// Why a node does not start.
    pub(crate) fn start_error(&self, id: i32) -> StartError {
        let runtime = runtime();
        runtime.block_on(async {
            loop {
                match Controller::start(self.options(id)).await {
                    Ok(_) => panic!("node {id} starts"),
                    Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(error) => return error,
                }
            }
        })
    }

    pub(crate) fn kill(&mut self, id: i32) {
        self.nodes.remove(&id).unwrap().kill();
    }

    /// Waits for a status that `wanted` accepts.
    pub(crate) fn wait_for(&self, id: i32, wanted: impl Fn(&ControllerStatus) -> bool) -> ControllerStatus {
        let mut status = self.nodes[&id].status.clone();
        self.calls.block_on(async {
            let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| wanted(status))).await;
            waited.expect("the status comes").expect("the node runs").clone()
        })
    }

    /// The active controller, once there is one.
    pub(crate) fn active(&self) -> i32 {
        let started = Instant::now();
        loop {
            let active = self.nodes.iter().find(|(_, node)| node.status.borrow().is_active);
            if let Some((id, _)) = active {
                return *id;
            }
            assert!(started.elapsed() < PATIENCE, "nobody becomes active");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn channel(&self, id: i32) -> Channel {
        let _guard = self.calls.enter();
        self.channels.channel(&self.addresses[&id], Lane::Control).unwrap()
    }

    pub(crate) fn submit_to(
        &self,
        id: i32,
        change: pb::submit_request::Change,
    ) -> Result<pb::SubmitResponse, RpcError> {
        let mut client = AdminClient::new(self.channel(id));
        let request =
            pb::SubmitRequest { caller: Some(caller(99)), timeout_ms: 20_000, change: Some(change) };
        let deadline = Deadline::after(PATIENCE);
        self.calls.block_on(deadline.run(client.submit(deadline.request(request))))
    }

    /// Submits to whoever is active, again and again while nothing was executed.
    pub(crate) fn submit(&self, change: pb::submit_request::Change) -> Result<pb::SubmitResponse, RpcError> {
        let started = Instant::now();
        loop {
            match self.submit_to(self.active(), change.clone()) {
                Err(error) if error.is_without_effect() && started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                outcome => return outcome,
            }
        }
    }

    pub(crate) fn describe(&self) -> pb::DescribeQuorumResponse {
        let mut client = QuorumClient::new(self.channel(self.active()));
        let request = pb::DescribeQuorumRequest { caller: Some(caller(99)) };
        let deadline = Deadline::after(PATIENCE);
        self.calls.block_on(deadline.run(client.describe(deadline.request(request)))).unwrap()
    }

    /// The image that node `id` feeds, from the beginning or from `base`, once it reaches `offset`.
    pub(crate) fn image(&self, id: i32, base: MetadataImage, offset: Offset) -> (MetadataImage, bool) {
        let mut client = MetadataFeedClient::new(self.channel(id));
        let follow = follow_request(&base);
        self.wait_for(id, |status| status.is_ready);
        self.calls.block_on(async {
            let following = async {
                let mut stream = client.follow(follow).await.unwrap().into_inner();
                let mut follower = Follower { image: base, snapshot: None, used_snapshot: false };
                while follower.image.provenance.last_offset < offset {
                    follower.take(stream.message().await.unwrap().expect("the feed goes on"));
                }
                (follower.image, follower.used_snapshot)
            };
            tokio::time::timeout(PATIENCE, following).await.expect("the feed gets there")
        })
    }
}

/// Serves `routes` at `address`, on this runtime; a port of a killed process may take a moment to be free.
async fn listen(address: &NodeAddress, routes: tonic::service::Routes) {
    let listener = loop {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        let bound = socket.bind(format!("{}:{}", address.host, address.port).parse().unwrap());
        match bound.and_then(|()| socket.listen(1_024)) {
            Ok(listener) => break listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{address}: {error}"),
        }
    };
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(async move {
        serve(routes, incoming, std::future::pending(), ServerConfig::default()).await.unwrap();
    });
}

pub(crate) fn follow_request(base: &MetadataImage) -> feed::FollowRequest {
    feed::FollowRequest {
        cluster_id: CLUSTER.to_owned(),
        node_id: 99,
        from_offset: base.provenance.last_offset.next().0,
        previous_epoch: base.provenance.last_epoch,
        event_bytes_max: 0,
        ..feed::FollowRequest::default()
    }
}

/// Follows a feed as a broker would.
pub(crate) struct Follower {
    pub(crate) image: MetadataImage,
    pub(crate) snapshot: Option<SnapshotReader>,
    pub(crate) used_snapshot: bool,
}

impl Follower {
    pub(crate) fn take(&mut self, event: feed::FollowEvent) {
        use feed::follow_event::Event;
        match event.event.expect("an event") {
            Event::Snapshot(part) => {
                let reader = self.snapshot.get_or_insert_default();
                if let Some(image) = reader.push_message(part).unwrap() {
                    (self.image, self.snapshot, self.used_snapshot) = (image, None, true);
                }
            }
            Event::Entries(entries) => {
                for entry in entries.entries {
                    let last_offset = Offset(entry.offset);
                    assert_eq!(
                        last_offset,
                        self.image.provenance.last_offset.next(),
                        "no gap, nothing twice"
                    );
                    let mut delta = MetadataDelta::new(self.image.clone());
                    for record in from_batch(entry.batch.unwrap_or_default()).unwrap() {
                        delta.replay(&record).unwrap();
                    }
                    self.image = delta.apply(MetadataProvenance { last_offset, last_epoch: entry.epoch });
                }
            }
            Event::Idle(_) | Event::Behind(_) => {}
        }
    }
}

pub(crate) fn caller(node_id: i32) -> pb::Caller {
    pb::Caller { cluster_id: CLUSTER.to_owned(), node_id, ..pb::Caller::default() }
}

/// Sets a value of a client-metrics subscription: a change that needs no broker.
pub(crate) fn set(name: &str, key: &str, value: &str) -> pb::submit_request::Change {
    let operation = pb::ConfigOperation {
        kind: pb::config_operation::Kind::Set.into(),
        key: key.to_owned(),
        value: Some(value.to_owned()),
    };
    let resource = pb::AlterResource {
        resource_type: feed::ResourceType::ClientMetrics.into(),
        resource_name: name.to_owned(),
        operations: vec![operation],
        replace_all: false,
    };
    pb::submit_request::Change::AlterConfigs(pb::AlterConfigs {
        resources: vec![resource],
        validate_only: false,
    })
}

/// Adds an item to the list of a client-metrics subscription: the outcome depends on all that was added before.
pub(crate) fn append(name: &str, item: &str) -> pb::submit_request::Change {
    let mut change = set(name, "list", item);
    if let pb::submit_request::Change::AlterConfigs(change) = &mut change {
        change.resources[0].operations[0].kind = pb::config_operation::Kind::Append.into();
    }
    change
}

pub(crate) fn value<'a>(image: &'a MetadataImage, name: &str, key: &str) -> Option<&'a str> {
    image.configs.value(&ConfigResource::ClientMetrics(name.to_owned()), key)
}

/// The bytes of an image.
pub(crate) fn bytes(image: &MetadataImage) -> Vec<u8> {
    SnapshotWriter::new(image).parts().flatten().collect()
}

/// The offset of a change that was accepted.
pub(crate) fn accepted(outcome: Result<pb::SubmitResponse, RpcError>) -> Offset {
    let response = outcome.unwrap();
    let refused = match &response.outcome {
        Some(pb::submit_response::Outcome::Refusal(refusal)) => Some(refusal),
        Some(pb::submit_response::Outcome::AlterConfigs(outcome)) => {
            outcome.resources.iter().find_map(|resource| resource.refusal.as_ref())
        }
        _ => None,
    };
    assert_eq!(refused, None);
    Offset(response.applied.unwrap().offset)
}
