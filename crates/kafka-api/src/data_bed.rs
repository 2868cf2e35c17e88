//! What tests of the handlers that touch records stand on: real partitions on a disk, under metadata made of facts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_broker::partition::{
    FetchId, FollowerFetch, FollowerFetches, IsrProposal, IsrProposals, SessionLease, Surroundings,
};
use klamm_broker::{BrokerConfig, BrokerMetrics, Clock, LogDirs, PartitionHandle, ReplicaManager};
use klamm_log::fs::RealFs;
use klamm_metadata::{ConfigResource, MetadataDelta, MetadataRecord};
use klamm_protocol::ApiRequest;
use klamm_record::{BatchBuilder, Codec, Compression, NewRecord};
use klamm_types::{BrokerEpoch, BrokerId, PartitionId, Timestamp, TopicName};

use crate::context::RequestContext;
use crate::data_plane::{DataConfig, DataPlane};
use crate::fixture::{Bed, context_of, setting, topic, topic_id};
use crate::table::{Answer, Handler, Ticket};

/// The broker under test.
pub(crate) const NODE: i32 = 1;

#[derive(Debug)]
struct Alone;

impl FollowerFetches for Alone {
    fn send(&self, _: &PartitionHandle, _: FetchId, _: BrokerId, _: FollowerFetch) {}

    fn cancel(&self, _: &PartitionHandle, _: FetchId) {}
}

impl IsrProposals for Alone {
    fn propose(&self, _: &PartitionHandle, _: IsrProposal) {}
}

/// A broker with partitions of its own.
pub(crate) struct DataBed {
    pub(crate) bed: Arc<Bed>,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) lease: SessionLease,
    _dir: tempfile::TempDir,
}

impl DataBed {
    /// Brokers 1 (this one), 2 and 3 are there. Topic `t` (number 1) has partition 0 here alone, 1 here too, and 2 on
    /// broker 2.
    pub(crate) async fn new() -> Self {
        Self::with_config(DataConfig::default()).await
    }

    pub(crate) async fn with_config(config: DataConfig) -> Self {
        Self::with(config, &[]).await
    }

    /// The same, on a broker that was started with these settings.
    pub(crate) async fn started_with(settings: &[(&str, &str)]) -> Self {
        Self::with(DataConfig::default(), settings).await
    }

    async fn with(config: DataConfig, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let lease = SessionLease::default();
        lease.extend(clock.after(Duration::from_secs(3600)));
        let broker = BrokerConfig::new(BrokerId(NODE), "cluster", vec![dir.path().join("data")]);
        let dirs = Arc::new(LogDirs::open(Arc::new(RealFs), &broker, clock.wall()).unwrap());
        let around = Surroundings {
            node: BrokerId(NODE),
            clock,
            lease: lease.clone(),
            fetches: Arc::new(Alone),
            proposals: Arc::new(Alone),
            metrics: Arc::new(BrokerMetrics::default()),
        };
        let replicas = ReplicaManager::new(broker, dirs, around);
        let bed = Bed::with_brokers(&[(1, false), (2, false), (3, false)]);
        settings.iter().for_each(|(name, value)| bed.start_with(name, value));
        let plane = DataPlane::new(config, Arc::clone(&replicas), bed.cluster());
        let data = Self { bed, plane, lease, _dir: dir };
        data.learn(&topic(1, "t", &[&[1], &[1], &[2]])).await;
        replicas.begin_incarnation(BrokerEpoch(i64::from(NODE))).await;
        data
    }

    /// Replays facts, as the metadata and as the replicas have them.
    pub(crate) async fn learn(&self, records: &[MetadataRecord]) {
        let before = self.plane.image();
        self.bed.learn(records);
        let after = self.plane.image();
        let delta = MetadataDelta::between((*before).clone(), (*after).clone());
        self.plane.replicas.apply(Arc::new(delta), after).await;
    }

    /// Another setting of topic `t`.
    pub(crate) async fn set(&self, key: &str, value: &str) {
        let resource = ConfigResource::Topic(TopicName::new("t").unwrap());
        self.learn(&[setting(resource, key, value)]).await;
    }

    pub(crate) fn partition(&self, partition: i32) -> PartitionHandle {
        self.plane.replicas.partition(topic_id(1), PartitionId(partition)).unwrap()
    }

    /// The response of a handler to a request of this version.
    pub(crate) async fn ask<H: Handler>(
        &self,
        handler: &H,
        version: i16,
        request: H::Request,
    ) -> <H::Request as ApiRequest>::Response {
        let ticket = handler.handle(context_of::<H::Request>(version), request);
        match outcome(ticket).await {
            Answer::Response(response) | Answer::WithFiles(response, _) => response,
            Answer::Nothing | Answer::Close => panic!("there is a response"),
        }
    }
}

/// What becomes of a ticket.
pub(crate) async fn outcome<R: Send + 'static>(ticket: Ticket<R>) -> Answer<R> {
    tokio::time::timeout(Duration::from_secs(20), ticket.into_answer()).await.expect("an answer in time")
}

pub(crate) fn context<R: ApiRequest>(version: i16) -> RequestContext {
    context_of::<R>(version)
}

/// Now, as records carry it.
pub(crate) fn wall() -> Timestamp {
    Clock::start().wall()
}

/// A batch with these values, stamped with the time now.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    stamped(wall(), values)
}

/// A batch with these values and timestamps that grow by 1 from `first`.
pub(crate) fn stamped(first: Timestamp, values: &[&str]) -> Bytes {
    built(Compression::NONE, first, values)
}

/// A batch under another codec.
pub(crate) fn compressed(codec: Codec, values: &[&str]) -> Bytes {
    let level = codec.levels().map_or(0, |(_, default, _)| default);
    built(Compression::new(codec, level).unwrap(), wall(), values)
}

fn built(compression: Compression, first: Timestamp, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    append(&mut builder, first, values);
    builder.build().unwrap().into()
}

/// Appends a record with a key per value.
pub(crate) fn append(builder: &mut BatchBuilder, first: Timestamp, values: &[&str]) {
    for (i, value) in values.iter().enumerate() {
        let timestamp = first.plus_millis(i64::try_from(i).unwrap());
        builder.append(&NewRecord::new(timestamp, Some(b"k"), Some(value.as_bytes()))).unwrap();
    }
}
