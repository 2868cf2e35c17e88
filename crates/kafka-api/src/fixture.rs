//! What tests of handlers stand on: an image made of facts, and a controller that says what it is told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use klamm_broker::controller_client::Submitted;
use klamm_config::ServerSettings;
use klamm_metadata::{
    BrokerRegistration, ConfigResource, DirectoryId, Endpoint, IncarnationId, MetadataDelta, MetadataImage,
    MetadataProvenance, MetadataRecord, PartitionRegistration, ReplicasOffline, SecurityProtocol,
};
use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::{AddVoterRequest, RemoveVoterRequest};
use klamm_protocol::ApiRequest;
use klamm_types::{BrokerEpoch, BrokerId, Offset, PartitionId, TopicId, TopicName};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::context::{ConnectionId, RequestContext, RequestMemory};
use crate::ports::{
    ClusterMetadata, ControllerGateway, GatewayError, LogLevelError, LogLevels, QuorumDescription,
};
use crate::table::{Answer, BoxFuture, Ticket};

/// The listener that requests of tests come from.
pub(crate) const LISTENER: &str = "CLIENTS";

/// A request's circumstances.
pub(crate) fn context_of<R: ApiRequest>(version: i16) -> RequestContext {
    RequestContext {
        connection: ConnectionId(0),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        listener: LISTENER.into(),
        key: R::KEY,
        version,
        correlation_id: 1,
        client_id: None,
        memory: RequestMemory::default(),
    }
}

/// The response of a ticket whose answer needs nothing that is not there yet.
pub(crate) fn answer<R: Send + 'static>(ticket: Ticket<R>) -> R {
    match ticket.into_answer().now_or_never().expect("the answer is there") {
        Answer::Response(response) => response,
        Answer::WithFiles(..) | Answer::Nothing | Answer::Close => panic!("there is a response"),
    }
}

/// A change of the quorum.
#[derive(Clone, Debug)]
pub(crate) enum VoterChange {
    Add(AddVoterRequest),
    Remove(RemoveVoterRequest),
}

pub(crate) type Replies = VecDeque<Result<Outcome, GatewayError>>;

/// The node that a handler under test is part of.
#[derive(Default)]
pub(crate) struct Bed {
    pub(crate) image: Mutex<Arc<MetadataImage>>,
    /// What the controller was asked, in order.
    pub(crate) asked: Mutex<Vec<(Change, Duration)>>,
    /// What it answers next, each with the image that it leaves behind.
    pub(crate) replies: Mutex<Replies>,
    /// The offsets that were waited for.
    pub(crate) waited: Mutex<Vec<Offset>>,
    /// The image once the controller has answered.
    pub(crate) image_after: Mutex<Option<Arc<MetadataImage>>>,
    /// Brokers that may be dead, each until somebody waits for it.
    pub(crate) suspects: Mutex<BTreeSet<BrokerId>>,
    /// Those that will be suspects in a moment.
    pub(crate) unnoticed: Mutex<BTreeSet<BrokerId>>,
    pub(crate) lately_dead: Mutex<BTreeSet<BrokerId>>,
    pub(crate) quorum: Mutex<Option<QuorumDescription>>,
    /// The changes of the quorum that were asked for.
    pub(crate) voters: Mutex<Vec<VoterChange>>,
    /// Why they are refused.
    pub(crate) voters_refused: Mutex<Option<GatewayError>>,
    /// What the node was started with; read when the cluster is made.
    pub(crate) settings: Mutex<ServerSettings>,
    /// Levels of loggers by name.
    pub(crate) levels: Mutex<BTreeMap<String, String>>,
}

impl Bed {
    /// Brokers by id, fenced or not, each with the listener of the tests and another one.
    pub(crate) fn with_brokers(brokers: &[(i32, bool)]) -> Arc<Self> {
        let records: Vec<_> = brokers.iter().map(|(id, fenced)| broker(*id, *fenced)).collect();
        let bed = Arc::new(Self::default());
        bed.learn(&records);
        bed
    }

    /// Replays facts.
    pub(crate) fn learn(&self, records: &[MetadataRecord]) {
        let mut image = self.image.lock().unwrap();
        *image = Arc::new(replayed(&image, records));
    }

    /// The same facts, once the controller has answered its next question.
    pub(crate) fn learn_after_answer(&self, records: &[MetadataRecord]) {
        let image = Arc::new(replayed(&self.image.lock().unwrap(), records));
        *self.image_after.lock().unwrap() = Some(image);
    }

    pub(crate) fn reply(&self, outcome: Result<Outcome, GatewayError>) {
        self.replies.lock().unwrap().push_back(outcome);
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        self.asked.lock().unwrap().iter().map(|(change, _)| change.clone()).collect()
    }

    fn change_voters(&self, change: VoterChange) -> BoxFuture<Result<(), GatewayError>> {
        self.voters.lock().unwrap().push(change);
        let refused = self.voters_refused.lock().unwrap().clone();
        Box::pin(async move { refused.map_or(Ok(()), Err) })
    }

    /// A setting that the node was started with.
    pub(crate) fn start_with(&self, name: &str, value: &str) {
        self.settings.lock().unwrap().set(name, value).unwrap();
    }

    pub(crate) fn loggers(self: &Arc<Self>) -> Arc<dyn LogLevels> {
        Arc::new(View(self.clone()))
    }

    pub(crate) fn cluster(self: &Arc<Self>) -> Arc<Cluster> {
        Arc::new(Cluster {
            broker: BrokerId(1),
            cluster_id: "cluster".into(),
            metadata: Arc::new(View(self.clone())),
            controller: Arc::new(View(self.clone())),
            settings: Arc::new(self.settings.lock().unwrap().clone()),
        })
    }
}

fn replayed(image: &MetadataImage, records: &[MetadataRecord]) -> MetadataImage {
    let last_offset = Offset(image.provenance.last_offset.0 + 1);
    let mut delta = MetadataDelta::new(image.clone());
    records.iter().for_each(|record| delta.replay(record).unwrap());
    delta.apply(MetadataProvenance { last_offset, last_epoch: 1 })
}

/// A broker's registration: port 9000 + id on the listener of the tests, 8000 + id on `INTERNAL`.
pub(crate) fn broker(id: i32, fenced: bool) -> MetadataRecord {
    let endpoint = |listener: &str, port: i32| Endpoint {
        listener: listener.to_owned(),
        host: format!("host{id}"),
        port: u16::try_from(port + id).unwrap(),
        security_protocol: SecurityProtocol::Plaintext,
    };
    MetadataRecord::BrokerRegistered(BrokerRegistration {
        id: BrokerId(id),
        epoch: BrokerEpoch(i64::from(id)),
        incarnation: IncarnationId([1; 16]),
        directory: DirectoryId([1; 16]),
        endpoints: vec![endpoint("INTERNAL", 8000), endpoint(LISTENER, 9000)],
        rack: Some(format!("rack{id}")),
        features: Vec::new(),
        fenced,
        shutting_down: false,
        cordoned: false,
    })
}

/// The id of the topic that [`topic`] makes with this number.
pub(crate) fn topic_id(number: u8) -> TopicId {
    TopicId([number; 16])
}

pub(crate) fn broker_ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// A topic with these replicas of each partition, all in sync.
pub(crate) fn topic(number: u8, name: &str, partitions: &[&[i32]]) -> Vec<MetadataRecord> {
    let id = topic_id(number);
    let mut records = vec![MetadataRecord::TopicCreated { id, name: TopicName::new(name).unwrap() }];
    for (i, replicas) in partitions.iter().enumerate() {
        let registration = PartitionRegistration::new(broker_ids(replicas), broker_ids(replicas));
        records.push(partition(number, i, registration));
    }
    records
}

/// The fact that a broker of the bed cannot serve these replicas: topics by their numbers, and partitions.
pub(crate) fn offline(broker: i32, replicas: &[(u8, i32)]) -> MetadataRecord {
    let replicas = replicas.iter().map(|(topic, partition)| (topic_id(*topic), PartitionId(*partition)));
    let (broker, epoch) = (BrokerId(broker), BrokerEpoch(i64::from(broker)));
    MetadataRecord::ReplicasOffline(ReplicasOffline { broker, epoch, replicas: replicas.collect() })
}

/// Another partition of a topic.
pub(crate) fn partition(topic: u8, number: usize, registration: PartitionRegistration) -> MetadataRecord {
    let partition = PartitionId(i32::try_from(number).unwrap());
    MetadataRecord::PartitionCreated { topic: topic_id(topic), partition, registration }
}

/// A setting's value.
pub(crate) fn setting(resource: ConfigResource, key: &str, value: &str) -> MetadataRecord {
    MetadataRecord::ConfigChanged { resource, key: key.to_owned(), value: Some(value.to_owned()) }
}

struct View(Arc<Bed>);

impl ClusterMetadata for View {
    fn image(&self) -> Arc<MetadataImage> {
        self.0.image.lock().unwrap().clone()
    }

    fn applied(&self, offset: Offset, _deadline: Instant) -> BoxFuture<bool> {
        self.0.waited.lock().unwrap().push(offset);
        if let Some(image) = self.0.image_after.lock().unwrap().take() {
            *self.0.image.lock().unwrap() = image;
        }
        Box::pin(async { true })
    }

    fn noticed(&self) -> BoxFuture<()> {
        let unnoticed = std::mem::take(&mut *self.0.unnoticed.lock().unwrap());
        self.0.suspects.lock().unwrap().extend(unnoticed);
        Box::pin(async {})
    }

    fn suspects(&self) -> BTreeSet<BrokerId> {
        self.0.suspects.lock().unwrap().clone()
    }

    fn lately_dead(&self) -> BTreeSet<BrokerId> {
        self.0.lately_dead.lock().unwrap().clone()
    }

    fn unsuspected(&self, broker: BrokerId) -> BoxFuture<()> {
        self.0.suspects.lock().unwrap().remove(&broker);
        if let Some(image) = self.0.image_after.lock().unwrap().take() {
            *self.0.image.lock().unwrap() = image;
        }
        Box::pin(async {})
    }
}

impl ControllerGateway for View {
    fn submit(&self, change: Change, timeout: Duration) -> BoxFuture<Result<Submitted, GatewayError>> {
        self.0.asked.lock().unwrap().push((change, timeout));
        let reply = self.0.replies.lock().unwrap().pop_front().expect("the test knows the answer");
        let reply = reply.map(|outcome| Submitted { applied: Offset(77), outcome });
        Box::pin(async { reply })
    }

    fn add_voter(&self, voter: AddVoterRequest, _: Duration) -> BoxFuture<Result<(), GatewayError>> {
        self.0.change_voters(VoterChange::Add(voter))
    }

    fn remove_voter(&self, voter: RemoveVoterRequest, _: Duration) -> BoxFuture<Result<(), GatewayError>> {
        self.0.change_voters(VoterChange::Remove(voter))
    }

    fn describe_quorum(&self, _timeout: Duration) -> BoxFuture<Result<QuorumDescription, GatewayError>> {
        let description = self.0.quorum.lock().unwrap().clone().ok_or(GatewayError::TimedOut);
        Box::pin(async { description })
    }
}

impl LogLevels for View {
    fn levels(&self) -> Vec<(String, String)> {
        self.0.levels.lock().unwrap().clone().into_iter().collect()
    }

    fn check(&self, changes: &[(String, Option<String>)]) -> Result<(), LogLevelError> {
        let levels = self.0.levels.lock().unwrap();
        let unknown = changes.iter().find(|(logger, _)| !levels.contains_key(logger));
        unknown.map_or(Ok(()), |(logger, _)| Err(LogLevelError::UnknownLogger { logger: logger.clone() }))
    }

    fn set(&self, changes: &[(String, Option<String>)]) -> Result<(), LogLevelError> {
        self.check(changes)?;
        let mut levels = self.0.levels.lock().unwrap();
        for (logger, level) in changes {
            levels.insert(logger.clone(), level.clone().unwrap_or_else(|| "INFO".to_owned()));
        }
        Ok(())
    }
}
