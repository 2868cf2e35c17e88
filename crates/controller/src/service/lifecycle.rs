//! The life of brokers, by gRPC.

use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::Stream;
use klamm_control::{
    BrokerStanding, ClusterControl, ControlResult, Evidence, HeartbeatRequest, LifecycleError, LostLog,
    LostLogs, OfflineReplica, OfflineReport, Recovered, RecoveryVerdict, RegisterRequest, ReplicationControl,
};
use klamm_metadata::{DirectoryId, IncarnationId, RecordError, endpoint_from_pb, feature_from_pb};
use klamm_pb::controller::v1 as pb;
use klamm_rpc::RefusedCalls;
use klamm_rpc::stubs::controller::v1::broker_lifecycle_server::BrokerLifecycle;
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, TopicId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::ServiceParts;
use super::refusal::refusal_of;
use crate::ControllerError;
use crate::active::SessionEvent;
use crate::clock::wall_clock;

/// How many answers may wait for a broker that does not read them.
const ANSWERS_AHEAD: usize = 4;
/// The most listeners, and the most features, of one broker.
const LIST_LEN_MAX: usize = 64;
/// The most replicas in one report.
const REPLICAS_MAX: usize = 10_000;

/// The service.
pub(super) struct LifecycleService {
    parts: Arc<ServiceParts>,
    streams: AtomicU64,
    /// For what goes wrong within a stream.
    refused: RefusedCalls,
}

impl LifecycleService {
    pub(super) fn new(parts: Arc<ServiceParts>) -> Self {
        Self { parts, streams: AtomicU64::new(0), refused: RefusedCalls::new() }
    }
}

#[tonic::async_trait]
impl BrokerLifecycle for LifecycleService {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        use pb::register_response::Result as R;
        let message = request.into_inner();
        let broker = self.parts.identity.admit(message.caller.as_ref())?;
        let request = register_from_pb(broker, message)?;
        let decided = self.parts.handle.lifecycle(move |desk| {
            let control = ClusterControl::new(desk.image, desk.config, desk.next_offset, desk.now);
            outcome(control.register(desk.liveness, &request))
        });
        let (_, outcome) = decided.await?;
        let control = &self.parts.control;
        let result = match outcome {
            Ok(registered) => R::Registered(pb::Registered {
                broker_epoch: registered.epoch.0,
                session_timeout_ms: control.session_timeout_ms,
                heartbeat_interval_ms: control.heartbeat_interval_ms,
            }),
            Err(error) => R::Refusal(refusal_of(&error)),
        };
        Ok(Response::new(pb::RegisterResponse { result: Some(result) }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<pb::HeartbeatResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::HeartbeatRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS_AHEAD);
        let session = Session {
            parts: Arc::clone(&self.parts),
            number: self.streams.fetch_add(1, Ordering::Relaxed),
            opened: None,
            peer: request.remote_addr(),
            refused: self.refused.clone(),
        };
        tokio::spawn(session.run(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn report_death(
        &self,
        request: Request<pb::ReportDeathRequest>,
    ) -> Result<Response<pb::ReportDeathResponse>, Status> {
        let message = request.into_inner();
        self.parts.identity.admit(message.caller.as_ref())?;
        let evidence = match message.evidence() {
            pb::DeathEvidence::PeerStreamEnded => Evidence::PeerStreamEnded,
            pb::DeathEvidence::Unspecified => return Err(Status::invalid_argument("unknown evidence")),
        };
        if !self.parts.status.borrow().is_active {
            return Err(not_active(&self.parts));
        }
        let (broker, epoch) = (BrokerId(message.broker_id), BrokerEpoch(message.broker_epoch));
        self.parts.handle.evidence(broker, epoch, evidence)?;
        Ok(Response::new(pb::ReportDeathResponse {}))
    }

    async fn report_offline_replicas(
        &self,
        request: Request<pb::ReportOfflineReplicasRequest>,
    ) -> Result<Response<pb::ReportOfflineReplicasResponse>, Status> {
        use pb::report_offline_replicas_response::Result as R;
        let message = request.into_inner();
        let broker = self.parts.identity.admit(message.caller.as_ref())?;
        let report = offline_report_from_pb(broker, message)?;
        let decided = self.parts.handle.lifecycle(move |desk| {
            let newcomers = desk.liveness.newcomers(desk.now);
            outcome(ReplicationControl::new(desk.image, desk.config).replicas_offline(&report, &newcomers))
        });
        let result = match decided.await? {
            (offset, Ok(replicas)) => {
                if replicas > 0 {
                    tracing::info!(%broker, replicas, "a broker cannot serve some of its replicas");
                }
                R::Applied(pb::Applied { offset: offset.0 })
            }
            (_, Err(error)) => R::Refusal(refusal_of(&error)),
        };
        Ok(Response::new(pb::ReportOfflineReplicasResponse { result: Some(result) }))
    }

    async fn report_logs(
        &self,
        request: Request<pb::ReportLogsRequest>,
    ) -> Result<Response<pb::ReportLogsResponse>, Status> {
        use pb::report_logs_response::Result as R;
        let message = request.into_inner();
        let broker = self.parts.identity.admit(message.caller.as_ref())?;
        let told = lost_logs_from_pb(broker, message)?;
        let decided = self.parts.handle.lifecycle(move |desk| {
            let control = ReplicationControl::new(desk.image, desk.config);
            outcome(control.logs_reported(desk.log_reports, &told, desk.now))
        });
        let result = match decided.await? {
            (offset, Ok(recovered)) => {
                for Recovered { partition, leader, log_end_offset } in recovered {
                    tracing::warn!(
                        %partition, %leader, %log_end_offset,
                        "all complete replicas were lost: the longest log that is left leads, and records may be missing"
                    );
                }
                R::Applied(pb::Applied { offset: offset.0 })
            }
            (_, Err(error)) => R::Refusal(refusal_of(&error)),
        };
        Ok(Response::new(pb::ReportLogsResponse { result: Some(result) }))
    }
}

/// The status of a controller that is not active.
fn not_active(parts: &ServiceParts) -> Status {
    ControllerError::NotActive { hint: parts.status.borrow().leader.clone() }.into()
}

/// A decision that may be a refusal: refusals too stand on what they were read from.
pub(super) fn outcome<T, E>(decided: Result<ControlResult<T>, E>) -> ControlResult<Result<T, E>> {
    match decided {
        Ok(result) => result.map(Ok),
        Err(error) => ControlResult::stepwise(Vec::new(), Err(error)),
    }
}

/// One broker's stream.
struct Session {
    parts: Arc<ServiceParts>,
    number: u64,
    /// Whose it is, once its first heartbeat was taken.
    opened: Option<(BrokerId, BrokerEpoch)>,
    peer: Option<SocketAddr>,
    refused: RefusedCalls,
}

impl Session {
    /// Answers heartbeats in their order, until the stream ends or this controller is not active any more.
    async fn run(
        mut self,
        mut heartbeats: Streaming<pb::HeartbeatRequest>,
        answers: mpsc::Sender<Result<pb::HeartbeatResponse, Status>>,
    ) {
        let mut status = self.parts.status.clone();
        let failure = loop {
            let heartbeat = tokio::select! {
                heartbeat = heartbeats.message() => heartbeat,
                // Without this a broker would learn it only with its next heartbeat.
                _ = status.wait_for(|status| !status.is_active), if self.opened.is_some() => {
                    break Some(not_active(&self.parts));
                }
                () = answers.closed() => break None,
            };
            let heartbeat = match heartbeat {
                Ok(Some(heartbeat)) => heartbeat,
                // Nobody is left who would hear more.
                Ok(None) => break None,
                Err(end) => break malformed(&end),
            };
            match self.answer(heartbeat).await {
                Ok(answer) => {
                    if answers.send(Ok(answer)).await.is_err() {
                        break None;
                    }
                }
                Err(failure) => break Some(failure),
            }
        };
        if let Some((broker, epoch)) = self.opened {
            let ended = SessionEvent::Ended { broker, epoch, stream: self.number };
            // With a full mailbox the broker's silence will tell.
            let _ = self.parts.handle.session(ended);
        }
        if let Some(failure) = failure {
            let node = self.opened.map(|(broker, _)| broker);
            self.refused.note("BrokerLifecycle/Session", self.peer, node, &failure);
            let _ = answers.send(Err(failure)).await;
        }
    }

    async fn answer(&mut self, message: pb::HeartbeatRequest) -> Result<pb::HeartbeatResponse, Status> {
        use pb::heartbeat_response::Result as R;
        let broker = self.parts.identity.admit(message.caller.as_ref())?;
        let epoch = BrokerEpoch(message.broker_epoch);
        let request = HeartbeatRequest {
            broker,
            epoch,
            applied: Offset(message.applied_offset),
            want_fence: message.want_fence,
            want_shutdown: message.want_shutdown,
        };
        if self.opened != Some((broker, epoch)) {
            if self.opened.is_some() {
                return Err(Status::invalid_argument("a session is of one registration"));
            }
            self.parts.handle.session(SessionEvent::Opened { broker, epoch, stream: self.number })?;
            self.opened = Some((broker, epoch));
        }
        let decided = self.parts.handle.lifecycle(move |desk| {
            desk.heard.note(broker, wall_clock());
            let control = ClusterControl::new(desk.image, desk.config, desk.next_offset, desk.now);
            outcome(control.heartbeat(desk.liveness, &request))
        });
        let (_, outcome): (_, Result<BrokerStanding, LifecycleError>) = decided.await?;
        let result = match outcome {
            Ok(standing) => R::Standing(pb::BrokerStanding {
                caught_up: standing.caught_up,
                fenced: standing.fenced,
                may_shut_down: standing.may_shut_down,
                session_timeout_ms: standing.session_timeout_ms,
            }),
            Err(error) => R::Refusal(refusal_of(&error)),
        };
        Ok(pb::HeartbeatResponse { sequence: message.sequence, result: Some(result) })
    }
}

/// The answer to bytes that are no heartbeat. `None` if the connection broke: this side's account of that has the cause
/// with it, and nobody is left to be told.
fn malformed(end: &Status) -> Option<Status> {
    let is_of_the_message = end.source().is_none() && matches!(end.code(), Code::Internal | Code::OutOfRange);
    is_of_the_message.then(|| Status::invalid_argument(format!("no heartbeat: {}", end.message())))
}

fn register_from_pb(broker: BrokerId, message: pb::RegisterRequest) -> Result<RegisterRequest, Status> {
    let malformed = |error: RecordError| Status::invalid_argument(error.to_string());
    let verdict = match message.verdict() {
        pb::RecoveryVerdict::Clean => RecoveryVerdict::Clean,
        pb::RecoveryVerdict::CrashedDurable => RecoveryVerdict::CrashedDurable,
        pb::RecoveryVerdict::Lossy => RecoveryVerdict::Lossy,
        pb::RecoveryVerdict::Unspecified => return Err(Status::invalid_argument("unknown recovery verdict")),
    };
    if message.endpoints.len() > LIST_LEN_MAX || message.features.len() > LIST_LEN_MAX {
        return Err(Status::invalid_argument("too many endpoints or features"));
    }
    let endpoints = message.endpoints.into_iter().map(endpoint_from_pb).collect::<Result<_, _>>();
    let features = message.features.into_iter().map(feature_from_pb).collect::<Result<_, _>>();
    Ok(RegisterRequest {
        broker,
        incarnation: IncarnationId(identity("incarnation_id", &message.incarnation_id)?),
        directory: DirectoryId(identity("directory_id", &message.directory_id)?),
        endpoints: endpoints.map_err(malformed)?,
        rack: message.rack,
        features: features.map_err(malformed)?,
        cordoned: message.cordoned,
        marker_epoch: message.marker_epoch.map(BrokerEpoch),
        verdict,
    })
}

fn offline_report_from_pb(
    broker: BrokerId,
    message: pb::ReportOfflineReplicasRequest,
) -> Result<OfflineReport, Status> {
    if message.replicas.len() + message.full.len() > REPLICAS_MAX {
        return Err(Status::invalid_argument("too many replicas"));
    }
    let replica = |replica: pb::OfflineReplica| -> Result<OfflineReplica, Status> {
        Ok(OfflineReplica {
            topic: TopicId(identity("topic_id", &replica.topic_id)?),
            partition: PartitionId(replica.partition_id),
            leader_epoch: LeaderEpoch(replica.leader_epoch),
        })
    };
    let replicas = message.replicas.into_iter().map(replica).collect::<Result<_, _>>()?;
    let full = message.full.into_iter().map(replica).collect::<Result<_, _>>()?;
    Ok(OfflineReport { broker, epoch: BrokerEpoch(message.broker_epoch), replicas, full })
}

fn lost_logs_from_pb(broker: BrokerId, message: pb::ReportLogsRequest) -> Result<LostLogs, Status> {
    if message.logs.len() > REPLICAS_MAX {
        return Err(Status::invalid_argument("too many logs"));
    }
    let log = |log: pb::LostLog| -> Result<_, Status> {
        Ok(LostLog {
            topic: TopicId(identity("topic_id", &log.topic_id)?),
            partition: PartitionId(log.partition_id),
            leader_epoch: LeaderEpoch(log.leader_epoch),
            last_epoch: LeaderEpoch(log.last_epoch),
            log_end_offset: Offset(log.log_end_offset),
        })
    };
    let logs = message.logs.into_iter().map(log).collect::<Result<_, _>>()?;
    Ok(LostLogs { broker, epoch: BrokerEpoch(message.broker_epoch), logs })
}

/// The 16 bytes of an identity.
pub(super) fn identity(field: &'static str, bytes: &Bytes) -> Result<[u8; 16], Status> {
    bytes
        .as_ref()
        .try_into()
        .map_err(|_| Status::invalid_argument(format!("{field} has {} bytes instead of 16", bytes.len())))
}
