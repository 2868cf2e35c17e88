//! Brokers in one process on disks in memory: real replica managers, partitions and logs; calls in place of the network,
//! and a controller that does what it is told.

#![allow(dead_code, reason = "each test file that includes this uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod ports;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use klamm_broker::partition::{
    Acks, AppendFailure, AppendOptions, AppendOrigin, Appended, ReadFrom, ReadIsolation, ReadRequest,
    SessionLease, Surroundings,
};
use klamm_broker::{
    BrokerConfig, BrokerMetrics, Clock, FetcherConfig, LogDirs, PartitionHandle, ReplicaManager,
};
use klamm_log::fs::{CrashPlan, LogFs, MemoryFs};
use klamm_metadata::{
    BrokerChanged, BrokerRegistration, ConfigResource, DirectoryId, IncarnationId, MetadataDelta,
    MetadataImage, MetadataProvenance, MetadataRecord, PartitionChanged, PartitionRegistration,
    ReplicasOffline,
};
use klamm_record::{BatchBuilder, Batches, Compression, NewRecord};
use klamm_types::{
    BrokerEpoch, BrokerId, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicName,
};
use tokio::task::JoinSet;

pub(crate) use ports::Network;
pub(crate) use wire::Wire;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// `replica.lag.time.max.ms` of the brokers that have no sockets.
pub(crate) const LAG_MAX_MS: i64 = 400;

pub(crate) const TOPIC: TopicId = TopicId([7; 16]);
pub(crate) const ZERO: PartitionId = PartitionId(0);

pub(crate) struct Cluster {
    pub(crate) network: Arc<Network>,
    /// Sockets in place of calls.
    pub(crate) wire: Option<Arc<Wire>>,
    pub(crate) disks: BTreeMap<i32, MemoryFs>,
    pub(crate) nodes: BTreeMap<i32, Node>,
    pub(crate) dirs: Vec<PathBuf>,
    metadata: Arc<Mutex<Arc<MetadataImage>>>,
}

pub(crate) struct Node {
    pub(crate) manager: Arc<ReplicaManager>,
    pub(crate) lease: SessionLease,
    pub(crate) clock: Clock,
    pub(crate) attached: Option<wire::Attached>,
    tasks: JoinSet<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn topic() -> TopicName {
    TopicName::new("orders").unwrap()
}

/// Waits until `condition` gives something.
pub(crate) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One batch with a record for each value.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::NONE);
    let now = Clock::start().wall();
    for value in values {
        builder.append(&NewRecord::new(now, None, Some(value.as_bytes()))).unwrap();
    }
    builder.build().unwrap().into()
}

/// A batch of one record, of one producer.
pub(crate) fn sequenced(sequence: i32) -> Bytes {
    let builder = BatchBuilder::new(Compression::NONE);
    let mut builder = builder.producer(ProducerId(7), ProducerEpoch(0), sequence);
    let value = sequence.to_string();
    builder.append(&NewRecord::new(Clock::start().wall(), None, Some(value.as_bytes()))).unwrap();
    builder.build().unwrap().into()
}

pub(crate) fn options(acks: Acks) -> AppendOptions {
    AppendOptions {
        acks,
        timeout: PATIENCE,
        leader_epoch: None,
        origin: AppendOrigin::Client,
        first_sequence: None,
    }
}

impl Cluster {
    /// Brokers with these ids and one log directory each, registered and active.
    pub(crate) async fn of(ids: &[i32]) -> Self {
        Self::with_dirs(ids, &["/data"]).await
    }

    pub(crate) async fn with_dirs(ids: &[i32], dirs: &[&str]) -> Self {
        Self::with(ids, dirs, None).await
    }

    /// Brokers that replicate over sockets.
    pub(crate) async fn wired(ids: &[i32], config: FetcherConfig) -> Self {
        Self::with(ids, &["/data"], Some(Wire::new(config))).await
    }

    async fn with(ids: &[i32], dirs: &[&str], wire: Option<Arc<Wire>>) -> Self {
        let mut cluster = Self {
            wire,
            network: Arc::default(),
            disks: ids.iter().map(|id| (*id, MemoryFs::new())).collect(),
            nodes: BTreeMap::new(),
            dirs: dirs.iter().map(PathBuf::from).collect(),
            metadata: Arc::default(),
        };
        for id in ids {
            cluster.start(*id).await;
        }
        cluster
    }

    /// Starts a broker on its disk, registers it and lets it learn the metadata.
    pub(crate) async fn start(&mut self, id: i32) -> BrokerEpoch {
        let clock = Clock::start();
        let mut config = BrokerConfig::new(BrokerId(id), "test-cluster", self.dirs.clone());
        if self.wire.is_none() {
            config.replica_lag_time_max_ms = LAG_MAX_MS;
        }
        config.flush_threads_per_dir = 2;
        let fs: Arc<dyn LogFs> = Arc::new(self.disks[&id].clone());
        let dirs = LogDirs::open(fs, &config, clock.wall()).unwrap();
        let lease = SessionLease::expired();
        let mut tasks = JoinSet::new();
        let (mut fetches, proposals) = ports::start(BrokerId(id), &self.network, &self.metadata, &mut tasks);
        let mut attached = self.wire.as_ref().map(|wire| wire.attach(BrokerId(id)));
        if let Some(attached) = &attached {
            fetches = attached.fetches();
        }
        let around = Surroundings {
            node: BrokerId(id),
            clock,
            lease: lease.clone(),
            fetches,
            proposals,
            metrics: Arc::new(BrokerMetrics::default()),
        };
        let manager = ReplicaManager::new(config, Arc::new(dirs), around);
        tasks.spawn(Arc::clone(&manager).run());
        self.network.join(BrokerId(id), &manager);
        if let (Some(wire), Some(attached)) = (&self.wire, &mut attached) {
            wire.serve(BrokerId(id), &manager, attached).await;
        }
        lease.extend(Timestamp(i64::MAX));
        self.nodes.insert(id, Node { manager, lease, clock, attached, tasks });
        self.register_again(id).await
    }

    /// Registers a running broker.
    pub(crate) async fn register_again(&self, id: i32) -> BrokerEpoch {
        let epoch = BrokerEpoch(lock(&self.metadata).provenance.last_offset.0 + 1);
        self.nodes[&id].manager.begin_incarnation(epoch).await;
        self.publish(vec![registration_of(id, epoch.0)]).await;
        epoch
    }

    /// The broker's process ends at once; its machine loses what was not flushed.
    pub(crate) async fn crash(&mut self, id: i32) {
        let disk = self.disks[&id].crash_point().power_cut(&CrashPlan::nothing_pending());
        self.stop(id).await;
        self.disks.insert(id, disk);
    }

    /// The broker is closed in an orderly way.
    pub(crate) async fn shut_down(&mut self, id: i32) {
        self.nodes[&id].manager.shut_down().await.unwrap();
        self.stop(id).await;
        // The disk of a process that has ended has no locks.
        let disk = self.disks[&id].crash_point().process_kill();
        self.disks.insert(id, disk);
    }

    async fn stop(&mut self, id: i32) {
        self.network.leave(BrokerId(id));
        let mut node = self.nodes.remove(&id).unwrap();
        node.lease.end();
        if let (Some(wire), Some(attached)) = (&self.wire, node.attached.take()) {
            wire.kill(BrokerId(id), attached).await;
        }
        node.tasks.shutdown().await;
    }

    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&lock(&self.metadata))
    }

    /// Commits facts and lets every broker know.
    pub(crate) async fn publish(&self, records: Vec<MetadataRecord>) {
        ports::decide_and_publish(&self.metadata, &self.network, |_| (records, ())).await;
    }

    pub(crate) async fn create_topic(&self, replicas: &[i32], settings: &[(&str, &str)]) {
        let replicas: Vec<_> = replicas.iter().copied().map(BrokerId).collect();
        let mut records = vec![MetadataRecord::TopicCreated { id: TOPIC, name: topic() }];
        records.extend(settings.iter().map(|(key, value)| setting(key, value)));
        records.push(MetadataRecord::PartitionCreated {
            topic: TOPIC,
            partition: ZERO,
            registration: PartitionRegistration::new(replicas.clone(), replicas),
        });
        self.publish(records).await;
    }

    pub(crate) async fn set(&self, key: &str, value: &str) {
        self.publish(vec![setting(key, value)]).await;
    }

    pub(crate) fn registration(&self) -> PartitionRegistration {
        self.image().topics.partition(TOPIC, ZERO).unwrap().as_ref().clone()
    }

    /// Changes the partition's registration.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut PartitionRegistration)) {
        let decide = |image: &MetadataImage| {
            let old = image.topics.partition(TOPIC, ZERO).unwrap();
            let mut new = old.as_ref().clone();
            new.partition_epoch = old.partition_epoch.next().unwrap();
            change(&mut new);
            let changed = PartitionChanged::between(TOPIC, ZERO, old, &new);
            (vec![MetadataRecord::PartitionChanged(changed)], ())
        };
        ports::decide_and_publish(&self.metadata, &self.network, decide).await;
    }

    /// As [`change`](Self::change), unless `change` leaves the registration as it is.
    pub(crate) async fn change_if(&self, change: impl FnOnce(&mut PartitionRegistration)) {
        let decide = |image: &MetadataImage| {
            let old = image.topics.partition(TOPIC, ZERO).unwrap();
            let mut new = old.as_ref().clone();
            change(&mut new);
            if new == **old {
                return (Vec::new(), ());
            }
            new.partition_epoch = old.partition_epoch.next().unwrap();
            let changed = PartitionChanged::between(TOPIC, ZERO, old, &new);
            (vec![MetadataRecord::PartitionChanged(changed)], ())
        };
        ports::decide_and_publish(&self.metadata, &self.network, decide).await;
    }

    /// `leader` takes over, with `isr` in sync.
    pub(crate) async fn elect(&self, leader: i32, isr: &[i32]) {
        let isr: Vec<_> = isr.iter().copied().map(BrokerId).collect();
        if self.registration().leader == Some(BrokerId(leader)) {
            // A new epoch is of a new leader: nobody leads in between.
            self.change(|partition| {
                partition.leader = None;
                partition.leader_epoch = partition.leader_epoch.next().unwrap();
            })
            .await;
        }
        self.change(|partition| {
            partition.leader = Some(BrokerId(leader));
            partition.isr = isr;
            partition.leader_epoch = partition.leader_epoch.next().unwrap();
        })
        .await;
    }

    /// Another replica leads these partitions of the topic, without broker `id` in sync.
    pub(crate) async fn take_over(&self, id: i32, partitions: &[PartitionId]) {
        let decide = |image: &MetadataImage| {
            let changed = partitions.iter().map(|partition| {
                let old = image.topics.partition(TOPIC, *partition).unwrap();
                let mut new = old.as_ref().clone();
                new.isr.retain(|member| *member != BrokerId(id));
                new.leader = new.replicas.iter().copied().find(|replica| *replica != BrokerId(id));
                new.partition_epoch = old.partition_epoch.next().unwrap();
                if new.leader != old.leader {
                    new.leader_epoch = old.leader_epoch.next().unwrap();
                }
                MetadataRecord::PartitionChanged(PartitionChanged::between(TOPIC, *partition, old, &new))
            });
            (changed.collect(), ())
        };
        ports::decide_and_publish(&self.metadata, &self.network, decide).await;
    }

    /// Broker `id` cannot serve its replicas of these partitions of the topic, and others lead them.
    pub(crate) async fn lose(&self, id: i32, partitions: &[PartitionId]) {
        self.take_over(id, partitions).await;
        let epoch = self.image().cluster.broker(BrokerId(id)).unwrap().epoch;
        let replicas = partitions.iter().map(|partition| (TOPIC, *partition)).collect();
        let offline = ReplicasOffline { broker: BrokerId(id), epoch, replicas };
        self.publish(vec![MetadataRecord::ReplicasOffline(offline)]).await;
    }

    pub(crate) async fn fence(&self, id: i32, fenced: bool) {
        let epoch = self.image().cluster.broker(BrokerId(id)).unwrap().epoch;
        let change = BrokerChanged {
            broker: BrokerId(id),
            epoch,
            fenced: Some(fenced),
            shutting_down: None,
            cordoned: None,
        };
        self.publish(vec![MetadataRecord::BrokerChanged(change)]).await;
    }

    pub(crate) fn partition(&self, id: i32) -> PartitionHandle {
        self.nodes[&id].manager.partition(TOPIC, ZERO).unwrap()
    }

    pub(crate) async fn append(
        &self,
        id: i32,
        acks: Acks,
        values: &[&str],
    ) -> Result<Appended, AppendFailure> {
        let pending = self.partition(id).append(batch(values), &options(acks));
        tokio::time::timeout(PATIENCE, pending.done()).await.expect("an append is answered")
    }

    /// All records that a consumer can read at `id`, as text.
    pub(crate) fn read_all(&self, id: i32) -> Vec<String> {
        read_from(&self.partition(id), self.partition(id).bounds().log_start_offset)
    }

    pub(crate) async fn until_isr(&self, members: &[i32]) {
        let members: BTreeSet<_> = members.iter().copied().map(BrokerId).collect();
        until("the in-sync set", || {
            let isr: BTreeSet<_> = self.registration().isr.into_iter().collect();
            (isr == members).then_some(())
        })
        .await;
    }

    /// Waits until a consumer sees `count` records at each of the brokers.
    pub(crate) async fn until_committed(&self, ids: &[i32], end: i64) {
        for id in ids {
            let partition = self.partition(*id);
            until("the high watermark", || (partition.bounds().high_watermark >= Offset(end)).then_some(()))
                .await;
        }
    }
}

/// The fact that a broker is registered, and active at once.
pub(crate) fn registration_of(id: i32, epoch: i64) -> MetadataRecord {
    MetadataRecord::BrokerRegistered(BrokerRegistration {
        id: BrokerId(id),
        epoch: BrokerEpoch(epoch),
        incarnation: IncarnationId([epoch.to_le_bytes(); 2].concat().try_into().unwrap()),
        directory: DirectoryId([1; 16]),
        endpoints: Vec::new(),
        rack: None,
        features: Vec::new(),
        fenced: false,
        shutting_down: false,
        cordoned: false,
    })
}

pub(crate) fn setting(key: &str, value: &str) -> MetadataRecord {
    MetadataRecord::ConfigChanged {
        resource: ConfigResource::Topic(topic()),
        key: key.to_owned(),
        value: Some(value.to_owned()),
    }
}

pub(crate) fn read_request(offset: Offset) -> ReadRequest {
    ReadRequest {
        offset,
        bytes_max: 1 << 20,
        isolation: ReadIsolation::ReadUncommitted,
        from: ReadFrom::AnyReplica,
        leader_epoch: None,
        last_fetched_epoch: None,
    }
}

pub(crate) fn read_from(partition: &PartitionHandle, mut offset: Offset) -> Vec<String> {
    let mut values = Vec::new();
    loop {
        let read = partition.read(&read_request(offset)).unwrap();
        let Some(slice) = read.outcome.slice else { return values };
        for batch in Batches::new(&slice.to_vec().unwrap()) {
            // The last one may be cut off by the limit of the read.
            let Ok(batch) = batch else { break };
            let mut records = batch.records(1 << 20).unwrap();
            while let Some(record) = records.next_record().unwrap() {
                if record.offset >= offset {
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
            offset = batch.header().next_offset();
        }
    }
}

pub(crate) fn path(dir: &str, file: &str) -> PathBuf {
    Path::new(dir).join("orders-0").join(file)
}

pub(crate) fn provenance(image: &MetadataImage, records: usize) -> MetadataProvenance {
    let last_offset = Offset(image.provenance.last_offset.0 + i64::try_from(records).unwrap());
    MetadataProvenance { last_offset, last_epoch: 1 }
}

pub(crate) fn delta_of(image: &MetadataImage, records: &[MetadataRecord]) -> MetadataDelta {
    let mut delta = MetadataDelta::new(image.clone());
    for record in records {
        delta.replay(record).unwrap();
    }
    delta
}
