//! A controller that does as it is told, for tests: a real server on a loopback port.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use klamm_metadata::{MetadataImage, MetadataRecord, ReplicasOffline, SnapshotWriter, to_batch};
use klamm_pb::controller::v1 as pb;
use klamm_pb::metadata::v1 as feed;
use klamm_rpc::stubs::controller::v1::admin_server::{Admin, AdminServer};
use klamm_rpc::stubs::controller::v1::broker_lifecycle_server::{BrokerLifecycle, BrokerLifecycleServer};
use klamm_rpc::stubs::controller::v1::partition_control_server::{PartitionControl, PartitionControlServer};
use klamm_rpc::stubs::controller::v1::quorum_server::QuorumServer;
use klamm_rpc::stubs::metadata::v1::metadata_feed_server::{MetadataFeed, MetadataFeedServer};
use klamm_rpc::{ChannelPool, ControllerLocation, NodeAddress, NodeIdentity, ServerConfig, serve, status};
use klamm_types::{BrokerEpoch, BrokerId, PartitionId, TopicId};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::{ControllerClient, ControllerClientConfig};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const CLUSTER: &str = "fake";

/// What the controller does, and what it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Refuses what only the active controller does, with `hint`.
    pub(crate) active: bool,
    pub(crate) hint: Option<ControllerLocation>,
    /// Takes requests and does not answer.
    pub(crate) mute: bool,
    /// The refusal of registrations, changes and requests as a whole.
    pub(crate) refusal: Option<pb::RefusalCode>,
    /// The refusal of heartbeats.
    pub(crate) heartbeat_refusal: Option<pb::RefusalCode>,
    pub(crate) broker_epoch: i64,
    pub(crate) heartbeat_interval_ms: u32,
    pub(crate) standing: pb::BrokerStanding,
    /// Answers to proposals; what is not in it is left out.
    pub(crate) isr_answers: Vec<pb::IsrAnswer>,
    /// The feed says once that there is nothing new, and ends, as that of a controller that stops.
    pub(crate) feed_ends: bool,
    pub(crate) snapshot: Option<MetadataImage>,
    pub(crate) entries: Vec<feed::CommittedEntry>,
    pub(crate) calls: Vec<Call>,
}

/// What the controller was asked.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Call {
    Register(pb::RegisterRequest),
    Heartbeat(pb::HeartbeatRequest),
    AlterPartition(pb::AlterPartitionRequest),
    ReportOffline(pb::ReportOfflineReplicasRequest),
    Submit(pb::SubmitRequest),
    Describe,
    Follow(feed::FollowRequest),
}

impl Default for Script {
    fn default() -> Self {
        Self {
            active: true,
            hint: None,
            mute: false,
            refusal: None,
            heartbeat_refusal: None,
            broker_epoch: 100,
            heartbeat_interval_ms: 20,
            standing: pb::BrokerStanding { session_timeout_ms: 3_000, ..Default::default() },
            isr_answers: Vec::new(),
            feed_ends: false,
            snapshot: None,
            entries: Vec::new(),
            calls: Vec::new(),
        }
    }
}

impl Script {
    /// Adds an entry with `records` to the log.
    pub(crate) fn commit(&mut self, records: &[MetadataRecord]) {
        let base = self.snapshot.as_ref().map_or(0, |image| image.provenance.last_offset.0 + 1);
        let offset = base + i64::try_from(self.entries.len()).unwrap();
        self.entries.push(feed::CommittedEntry { offset, epoch: 1, batch: Some(to_batch(records)) });
    }

    pub(crate) fn heartbeats(&self) -> impl DoubleEndedIterator<Item = &pb::HeartbeatRequest> {
        self.calls.iter().filter_map(|call| match call {
            Call::Heartbeat(heartbeat) => Some(heartbeat),
            _ => None,
        })
    }

    pub(crate) fn offline_reports(
        &self,
    ) -> impl DoubleEndedIterator<Item = &pb::ReportOfflineReplicasRequest> {
        self.calls.iter().filter_map(|call| match call {
            Call::ReportOffline(request) => Some(request),
            _ => None,
        })
    }

    pub(crate) fn registrations(&self) -> impl DoubleEndedIterator<Item = &pb::RegisterRequest> {
        self.calls.iter().filter_map(|call| match call {
            Call::Register(request) => Some(request),
            _ => None,
        })
    }
}

/// A running controller.
pub(crate) struct FakeController {
    pub(crate) address: NodeAddress,
    script: Arc<watch::Sender<Script>>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    served: Mutex<Option<JoinHandle<()>>>,
}

impl FakeController {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port());
        let script = Arc::new(watch::Sender::new(script));
        let identity = NodeIdentity::new(CLUSTER, BrokerId(90));
        let service = Arc::new(Service { script: Arc::clone(&script), identity });
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(AdminServer::from_arc(Arc::clone(&service)))
            .add_service(BrokerLifecycleServer::from_arc(Arc::clone(&service)))
            .add_service(PartitionControlServer::from_arc(Arc::clone(&service)))
            .add_service(QuorumServer::from_arc(Arc::clone(&service)))
            .add_service(MetadataFeedServer::from_arc(service));
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let config = ServerConfig { shutdown_grace: Duration::ZERO, ..ServerConfig::default() };
        let incoming = TcpListenerStream::new(listener);
        let served = tokio::spawn(async move {
            serve(routes.routes(), incoming, shutdown, config).await.unwrap();
        });
        let stop = Mutex::new(Some(stop));
        Self { address, script, stop, served: Mutex::new(Some(served)) }
    }

    /// The controller ends, with all its connections.
    pub(crate) async fn kill(&self) {
        let stop = self.stop.lock().unwrap().take().unwrap();
        let served = self.served.lock().unwrap().take().unwrap();
        stop.send(()).unwrap();
        served.await.unwrap();
    }

    pub(crate) fn tell(&self, change: impl FnOnce(&mut Script)) {
        self.script.send_modify(change);
    }

    pub(crate) fn script(&self) -> Script {
        self.script.borrow().clone()
    }

    /// Waits until what the controller was asked satisfies `condition`.
    pub(crate) async fn wait_for(&self, mut condition: impl FnMut(&Script) -> bool) -> Script {
        let mut script = self.script.subscribe();
        let reached = tokio::time::timeout(PATIENCE, script.wait_for(|script| condition(script))).await;
        match reached {
            Ok(script) => script.unwrap().clone(),
            Err(_) => panic!("not in time: {:#?}", self.script()),
        }
    }

    pub(crate) fn location(&self) -> ControllerLocation {
        ControllerLocation { node_id: BrokerId(90), address: self.address.clone() }
    }
}

/// A client of broker 1 that knows these controllers.
pub(crate) fn client_of(nodes: &[&FakeController]) -> ControllerClient {
    let identity = NodeIdentity::new(CLUSTER, BrokerId(1));
    let quorum = nodes.iter().map(|node| node.address.clone()).collect();
    let mut config = ControllerClientConfig::new(identity, quorum);
    config.attempt_timeout = Duration::from_millis(200);
    ControllerClient::new(config, ChannelPool::default())
}

/// An address where nobody listens.
pub(crate) async fn nowhere() -> NodeAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port())
}

struct Service {
    script: Arc<watch::Sender<Script>>,
    identity: NodeIdentity,
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn note(&self, call: Call) {
        self.script.send_modify(|script| script.calls.push(call));
    }

    /// Commits that these replicas are offline; where that is in the log. `None` if the broker has registered anew since:
    /// no log holds such an entry.
    fn mark(&self, report: &pb::ReportOfflineReplicasRequest) -> Option<i64> {
        let id = |replica: &pb::OfflineReplica| TopicId(replica.topic_id.as_ref().try_into().unwrap());
        let replicas = report.replicas.iter();
        let fact = MetadataRecord::ReplicasOffline(ReplicasOffline {
            broker: BrokerId(1),
            epoch: BrokerEpoch(report.broker_epoch),
            replicas: replicas.map(|replica| (id(replica), PartitionId(replica.partition_id))).collect(),
        });
        let mut offset = None;
        self.script.send_if_modified(|script| {
            let is_current = report.broker_epoch == script.broker_epoch;
            if is_current {
                script.commit(&[fact]);
                offset = script.entries.last().map(|entry| entry.offset);
            }
            is_current
        });
        offset
    }

    /// What stands before every answer.
    async fn admit(&self, caller: Option<&pb::Caller>) -> Result<Script, Status> {
        self.identity.admit(caller)?;
        let script = self.script.borrow().clone();
        if !script.active {
            return Err(status::not_active_controller(script.hint.as_ref()));
        }
        if script.mute {
            std::future::pending::<()>().await;
        }
        Ok(script)
    }
}

fn refusal(code: pb::RefusalCode) -> pb::Refusal {
    pb::Refusal { code: code.into(), message: "as told".to_owned() }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn submit(
        &self,
        request: Request<pb::SubmitRequest>,
    ) -> Result<Response<pb::SubmitResponse>, Status> {
        use pb::submit_response::Outcome;
        let request = request.into_inner();
        self.note(Call::Submit(request.clone()));
        let script = self.admit(request.caller.as_ref()).await?;
        let outcome = match script.refusal {
            Some(code) => Outcome::Refusal(refusal(code)),
            None => Outcome::UnregisterBroker(pb::UnregisterBrokerOutcome::default()),
        };
        let applied = Some(pb::Applied { offset: 7 });
        Ok(Response::new(pb::SubmitResponse { applied, outcome: Some(outcome) }))
    }
}

#[tonic::async_trait]
impl BrokerLifecycle for Service {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        use pb::register_response::Result as Outcome;
        let request = request.into_inner();
        self.note(Call::Register(request.clone()));
        let script = self.admit(request.caller.as_ref()).await?;
        let result = match script.refusal {
            Some(code) => Outcome::Refusal(refusal(code)),
            None => Outcome::Registered(pb::Registered {
                broker_epoch: script.broker_epoch,
                session_timeout_ms: script.standing.session_timeout_ms,
                heartbeat_interval_ms: script.heartbeat_interval_ms,
            }),
        };
        Ok(Response::new(pb::RegisterResponse { result: Some(result) }))
    }

    type SessionStream = Events<pb::HeartbeatResponse>;

    async fn session(
        &self,
        request: Request<Streaming<pb::HeartbeatRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut heartbeats = request.into_inner();
        let (answers, stream) = mpsc::channel(4);
        let service = Self { script: Arc::clone(&self.script), identity: self.identity.clone() };
        tokio::spawn(async move {
            while let Some(Ok(heartbeat)) = heartbeats.next().await {
                service.note(Call::Heartbeat(heartbeat.clone()));
                let answer = service.admit(heartbeat.caller.as_ref()).await.map(|script| {
                    use pb::heartbeat_response::Result as Outcome;
                    let result = Some(match script.heartbeat_refusal {
                        Some(code) => Outcome::Refusal(refusal(code)),
                        None => Outcome::Standing(script.standing),
                    });
                    pb::HeartbeatResponse { sequence: heartbeat.sequence, result }
                });
                let is_last = answer.is_err();
                if answers.send(answer).await.is_err() || is_last {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn report_death(
        &self,
        request: Request<pb::ReportDeathRequest>,
    ) -> Result<Response<pb::ReportDeathResponse>, Status> {
        self.admit(request.into_inner().caller.as_ref()).await?;
        Ok(Response::new(pb::ReportDeathResponse {}))
    }

    async fn report_offline_replicas(
        &self,
        request: Request<pb::ReportOfflineReplicasRequest>,
    ) -> Result<Response<pb::ReportOfflineReplicasResponse>, Status> {
        use pb::report_offline_replicas_response::Result as Outcome;
        let message = request.into_inner();
        self.note(Call::ReportOffline(message.clone()));
        let script = self.admit(message.caller.as_ref()).await?;
        let result = Some(match script.refusal {
            Some(code) => Outcome::Refusal(refusal(code)),
            None => self.mark(&message).map_or_else(
                || Outcome::Refusal(refusal(pb::RefusalCode::StaleBrokerEpoch)),
                |offset| Outcome::Applied(pb::Applied { offset }),
            ),
        });
        Ok(Response::new(pb::ReportOfflineReplicasResponse { result }))
    }

    async fn report_logs(
        &self,
        request: Request<pb::ReportLogsRequest>,
    ) -> Result<Response<pb::ReportLogsResponse>, Status> {
        use pb::report_logs_response::Result as Outcome;
        self.admit(request.into_inner().caller.as_ref()).await?;
        let result = Some(Outcome::Applied(pb::Applied { offset: 0 }));
        Ok(Response::new(pb::ReportLogsResponse { result }))
    }
}

#[tonic::async_trait]
impl PartitionControl for Service {
    async fn alter_partition(
        &self,
        request: Request<pb::AlterPartitionRequest>,
    ) -> Result<Response<pb::AlterPartitionResponse>, Status> {
        let request = request.into_inner();
        self.note(Call::AlterPartition(request.clone()));
        let script = self.admit(request.caller.as_ref()).await?;
        let refusal = script.refusal.map(refusal);
        let answers = if refusal.is_some() { Vec::new() } else { script.isr_answers };
        Ok(Response::new(pb::AlterPartitionResponse { refusal, answers }))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<pb::AllocateProducerIdsRequest>,
    ) -> Result<Response<pb::AllocateProducerIdsResponse>, Status> {
        use pb::allocate_producer_ids_response::Result as Outcome;
        let request = request.into_inner();
        self.admit(request.caller.as_ref()).await?;
        let block = pb::ProducerIdBlock { first: request.broker_epoch * 1_000, length: 1_000 };
        Ok(Response::new(pb::AllocateProducerIdsResponse { result: Some(Outcome::Block(block)) }))
    }
}

#[tonic::async_trait]
impl klamm_rpc::stubs::controller::v1::quorum_server::Quorum for Service {
    async fn describe(
        &self,
        request: Request<pb::DescribeQuorumRequest>,
    ) -> Result<Response<pb::DescribeQuorumResponse>, Status> {
        self.note(Call::Describe);
        self.admit(request.into_inner().caller.as_ref()).await?;
        Ok(Response::new(pb::DescribeQuorumResponse { leader_id: 90, ..Default::default() }))
    }

    async fn add_voter(
        &self,
        _: Request<pb::AddVoterRequest>,
    ) -> Result<Response<pb::AddVoterResponse>, Status> {
        Err(Status::unimplemented("no voters here"))
    }

    async fn remove_voter(
        &self,
        _: Request<pb::RemoveVoterRequest>,
    ) -> Result<Response<pb::RemoveVoterResponse>, Status> {
        Err(Status::unimplemented("no voters here"))
    }
}

#[tonic::async_trait]
impl MetadataFeed for Service {
    type FollowStream = Events<feed::FollowEvent>;

    async fn follow(
        &self,
        request: Request<feed::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        use feed::follow_event::Event;
        let request = request.into_inner();
        self.note(Call::Follow(request.clone()));
        self.identity.admit_follower(&request)?;
        let (events, stream) = mpsc::channel(4);
        let mut script = self.script.subscribe();
        if script.borrow().feed_ends {
            let idle = Event::Idle(feed::FeedIdle { committed_end_offset: 0 });
            let _ = events.send(Ok(feed::FollowEvent { event: Some(idle) })).await;
            return Ok(Response::new(Box::pin(ReceiverStream::new(stream))));
        }
        tokio::spawn(async move {
            let mut next = request.from_offset;
            let image =
                script.borrow().snapshot.clone().filter(|image| image.provenance.last_offset.0 >= next);
            if let Some(image) = image {
                for part in SnapshotWriter::new(&image).parts() {
                    let part = feed::SnapshotPart::decode(part).unwrap();
                    let event = feed::FollowEvent { event: Some(Event::Snapshot(part)) };
                    let _ = events.send(Ok(event)).await;
                }
                next = image.provenance.last_offset.0 + 1;
            }
            loop {
                let entries: Vec<_> = script
                    .borrow_and_update()
                    .entries
                    .iter()
                    .filter(|entry| entry.offset >= next)
                    .cloned()
                    .collect();
                let event = match entries.last().map(|entry| entry.offset + 1) {
                    Some(committed_end_offset) => {
                        next = committed_end_offset;
                        Event::Entries(feed::CommittedEntries { entries, committed_end_offset })
                    }
                    None => Event::Idle(feed::FeedIdle { committed_end_offset: next }),
                };
                if events.send(Ok(feed::FollowEvent { event: Some(event) })).await.is_err() {
                    return;
                }
                if script.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
