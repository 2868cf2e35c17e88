//! What leaders and coordinators ask for.

use std::sync::Arc;

use klamm_control::{
    AlterPartitionRequest, IsrAnswer, IsrMember, IsrProposal, PartitionState, ProducerIdControl,
    ReplicationControl,
};
use klamm_metadata::{recovery_from_pb, recovery_to_pb};
use klamm_pb::controller::v1 as pb;
use klamm_rpc::stubs::controller::v1::partition_control_server::PartitionControl;
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, TopicId};
use tonic::{Request, Response, Status};

use super::ServiceParts;
use super::lifecycle::{identity, outcome};
use super::refusal::{refusal, refusal_of};

/// The most proposals in one request.
const PROPOSALS_MAX: usize = 10_000;
/// The most members of a proposed ISR.
const MEMBERS_MAX: usize = 1_000;

/// The service.
pub(super) struct PartitionService {
    parts: Arc<ServiceParts>,
}

impl PartitionService {
    pub(super) fn new(parts: Arc<ServiceParts>) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl PartitionControl for PartitionService {
    async fn alter_partition(
        &self,
        request: Request<pb::AlterPartitionRequest>,
    ) -> Result<Response<pb::AlterPartitionResponse>, Status> {
        let message = request.into_inner();
        let broker = self.parts.identity.admit(message.caller.as_ref())?;
        if message.proposals.len() > PROPOSALS_MAX {
            return Err(Status::invalid_argument("too many proposals"));
        }
        let partitions: Vec<_> =
            message.proposals.iter().map(|p| (p.topic_id.clone(), p.partition_id)).collect();
        let proposals = message.proposals.into_iter().map(proposal_from_pb).collect::<Result<_, _>>()?;
        let broker_epoch = BrokerEpoch(message.broker_epoch);
        let request = AlterPartitionRequest { broker, broker_epoch, proposals };
        let decided = self.parts.handle.change(move |desk| {
            outcome(ReplicationControl::new(desk.image, desk.config).alter_partition(&request))
        });
        let response = match decided.await?.1 {
            Ok(answers) => {
                let answers =
                    partitions.into_iter().zip(answers).map(|((topic_id, partition_id), answer)| {
                        let (refusal, state) = answer_to_pb(answer);
                        pb::IsrAnswer { topic_id, partition_id, refusal, state }
                    });
                pb::AlterPartitionResponse { refusal: None, answers: answers.collect() }
            }
            Err(error) => {
                pb::AlterPartitionResponse { refusal: Some(refusal_of(&error)), answers: Vec::new() }
            }
        };
        Ok(Response::new(response))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<pb::AllocateProducerIdsRequest>,
    ) -> Result<Response<pb::AllocateProducerIdsResponse>, Status> {
        use pb::allocate_producer_ids_response::Result as R;
        let message = request.into_inner();
        let broker = self.parts.identity.admit(message.caller.as_ref())?;
        let epoch = BrokerEpoch(message.broker_epoch);
        let decided = self
            .parts
            .handle
            .change(move |desk| outcome(ProducerIdControl::new(desk.image).allocate(broker, epoch)));
        let result = match decided.await?.1 {
            Ok(block) => R::Block(pb::ProducerIdBlock { first: block.first.0, length: block.length }),
            Err(error) => R::Refusal(refusal_of(&error)),
        };
        Ok(Response::new(pb::AllocateProducerIdsResponse { result: Some(result) }))
    }
}

fn proposal_from_pb(message: pb::IsrProposal) -> Result<IsrProposal, Status> {
    if message.isr.len() > MEMBERS_MAX {
        return Err(Status::invalid_argument("too many members of an isr"));
    }
    let recovery =
        recovery_from_pb(message.recovery).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let member = |member: pb::IsrMember| IsrMember {
        broker: BrokerId(member.broker_id),
        epoch: BrokerEpoch(member.broker_epoch),
    };
    Ok(IsrProposal {
        topic: TopicId(identity("topic_id", &message.topic_id)?),
        partition: PartitionId(message.partition_id),
        leader_epoch: LeaderEpoch(message.leader_epoch),
        partition_epoch: PartitionEpoch(message.partition_epoch),
        isr: message.isr.into_iter().map(member).collect(),
        recovery,
    })
}

fn answer_to_pb(answer: IsrAnswer) -> (Option<pb::Refusal>, Option<pb::PartitionState>) {
    match answer {
        IsrAnswer::Accepted(state) => (None, Some(state_to_pb(&state))),
        IsrAnswer::NewLeaderElected(state) => {
            let elected = pb::RefusalCode::NewLeaderElected.into();
            let message = "the change completed a reassignment that moved the leader".to_owned();
            (Some(pb::Refusal { code: elected, message }), Some(state_to_pb(&state)))
        }
        IsrAnswer::Refused(error) => {
            (Some(refusal(klamm_control::Refused::refusal(&error), error.to_string())), None)
        }
    }
}

fn state_to_pb(state: &PartitionState) -> pb::PartitionState {
    let registration = &state.registration;
    pb::PartitionState {
        leader: registration.leader.unwrap_or(BrokerId::NONE).0,
        leader_epoch: registration.leader_epoch.0,
        partition_epoch: registration.partition_epoch.0,
        isr: registration.isr.iter().map(|member| member.0).collect(),
        recovery: recovery_to_pb(registration.recovery).into(),
        min_insync_replicas: i32::try_from(state.min_insync_replicas).unwrap_or(i32::MAX),
    }
}
