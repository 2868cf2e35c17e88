//! The quorum itself: who votes, and changes of that (KIP-853).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_control::Refusal;
use klamm_pb::controller::v1 as pb;
use klamm_rpc::Deadline;
use klamm_rpc::stubs::controller::v1::quorum_server::Quorum;
use tonic::{Request, Response, Status};

use super::ServiceParts;
use super::admin::timeout_of;
use super::lifecycle::identity;
use super::refusal::refusal;
use crate::active::{QuorumView, ReplicaView, VoterChange};
use crate::raft::ControllerNode;

/// How often is looked whether a node has caught up.
const CATCH_UP_POLL: Duration = Duration::from_millis(20);
/// With so many entries to go a node counts as caught up: the rest comes while it is given its vote.
const CATCH_UP_LAG_MAX: i64 = 100;

/// The service.
pub(super) struct QuorumService {
    parts: Arc<ServiceParts>,
}

impl QuorumService {
    pub(super) fn new(parts: Arc<ServiceParts>) -> Self {
        Self { parts }
    }

    /// Makes a node a learner, waits until it has nearly everything, and gives it a vote. If it does not catch up, it
    /// is no learner any more either.
    async fn add(
        &self,
        id: u64,
        node: ControllerNode,
        deadline: Deadline,
    ) -> Result<Option<pb::Refusal>, Status> {
        let handle = &self.parts.handle;
        if handle.describe().await?.voters.iter().any(|voter| voter.node_id == id) {
            return Ok(Some(coded(pb::RefusalCode::DuplicateVoter, format!("node {id} votes already"))));
        }
        handle.change_voters(VoterChange::AddLearner(id, node)).await?;
        match self.until_caught_up(id, deadline).await {
            Ok(true) => {
                handle.change_voters(VoterChange::AddVoter(id)).await?;
                Ok(None)
            }
            caught_up => {
                handle.change_voters(VoterChange::RemoveLearner(id)).await?;
                caught_up?;
                let message =
                    format!("node {id} has not caught up: it does not answer, or belongs to another quorum");
                Ok(Some(coded(pb::RefusalCode::RequestTimedOut, message)))
            }
        }
    }

    /// Whether the learner has nearly everything before the deadline.
    async fn until_caught_up(&self, id: u64, deadline: Deadline) -> Result<bool, Status> {
        while !has_caught_up(&self.parts.handle.describe().await?, id) {
            if deadline.is_over() {
                return Ok(false);
            }
            tokio::time::sleep(CATCH_UP_POLL).await;
        }
        Ok(true)
    }

    async fn remove(&self, id: u64, directory_id: [u8; 16]) -> Result<Option<pb::Refusal>, Status> {
        let view = self.parts.handle.describe().await?;
        let is_known = |replica: &&ReplicaView| {
            replica.node_id == id
                && replica.node.as_ref().is_some_and(|node| node.directory_id == directory_id)
        };
        // One that was to get a vote when the controller that was to give it died.
        if view.observers.iter().any(|observer| is_known(&observer)) {
            self.parts.handle.change_voters(VoterChange::RemoveLearner(id)).await?;
            return Ok(None);
        }
        let voter = view.voters.iter().find(|voter| voter.node_id == id);
        let known = voter.and_then(|voter| voter.node.as_ref());
        if known.is_none_or(|node| node.directory_id != directory_id) {
            let message = format!("no voter {id} with that directory");
            return Ok(Some(coded(pb::RefusalCode::VoterNotFound, message)));
        }
        if view.voters.len() == 1 {
            return Ok(Some(refusal(Refusal::InvalidRequest, "the last voter cannot be removed")));
        }
        self.parts.handle.change_voters(VoterChange::RemoveVoter(id)).await?;
        Ok(None)
    }
}

fn coded(code: pb::RefusalCode, message: String) -> pb::Refusal {
    pb::Refusal { code: code.into(), message }
}

fn has_caught_up(view: &QuorumView, id: u64) -> bool {
    let learner = view.observers.iter().find(|observer| observer.node_id == id && observer.node.is_some());
    learner.is_some_and(|learner| {
        // One that has not even the first entry has never answered.
        learner.log_end_offset.0 > 0 && view.high_watermark.0 - learner.log_end_offset.0 <= CATCH_UP_LAG_MAX
    })
}

fn node_id(id: i32) -> Result<u64, Status> {
    u64::try_from(id).map_err(|_| Status::invalid_argument(format!("{id} is no node id")))
}

#[tonic::async_trait]
impl Quorum for QuorumService {
    async fn describe(
        &self,
        request: Request<pb::DescribeQuorumRequest>,
    ) -> Result<Response<pb::DescribeQuorumResponse>, Status> {
        self.parts.identity.admit(request.into_inner().caller.as_ref())?;
        let view = self.parts.handle.describe().await?;
        Ok(Response::new(pb::DescribeQuorumResponse {
            leader_id: i32::try_from(view.leader).unwrap_or(-1),
            leader_epoch: i32::try_from(view.term).unwrap_or(i32::MAX),
            high_watermark: view.high_watermark.0,
            voters: view.voters.iter().map(replica_to_pb).collect(),
            observers: view.observers.iter().map(replica_to_pb).collect(),
        }))
    }

    async fn add_voter(
        &self,
        request: Request<pb::AddVoterRequest>,
    ) -> Result<Response<pb::AddVoterResponse>, Status> {
        let message = request.into_inner();
        self.parts.identity.admit(message.caller.as_ref())?;
        let id = node_id(message.node_id)?;
        let port = u16::try_from(message.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| Status::invalid_argument(format!("{} is no port", message.port)))?;
        if message.host.is_empty() {
            return Err(Status::invalid_argument("the node has no host"));
        }
        let directory_id = identity("directory_id", &message.directory_id)?;
        let node = ControllerNode { host: message.host, port, directory_id };
        // The answer has to be there before the caller gives up; and if the caller is gone, what was begun is still ended.
        let deadline = Deadline::after(timeout_of(message.timeout_ms) * 3 / 4);
        let service = Self::new(Arc::clone(&self.parts));
        let added = tokio::spawn(async move { service.add(id, node, deadline).await }).await;
        let refusal = added.map_err(|_| Status::internal("the change of voters has failed"))??;
        Ok(Response::new(pb::AddVoterResponse { refusal }))
    }

    async fn remove_voter(
        &self,
        request: Request<pb::RemoveVoterRequest>,
    ) -> Result<Response<pb::RemoveVoterResponse>, Status> {
        let message = request.into_inner();
        self.parts.identity.admit(message.caller.as_ref())?;
        let directory_id = identity("directory_id", &message.directory_id)?;
        let refusal = self.remove(node_id(message.node_id)?, directory_id).await?;
        Ok(Response::new(pb::RemoveVoterResponse { refusal }))
    }
}

fn replica_to_pb(view: &ReplicaView) -> pb::QuorumReplica {
    let node = view.node.clone().unwrap_or_default();
    pb::QuorumReplica {
        node_id: i32::try_from(view.node_id).unwrap_or(-1),
        directory_id: Bytes::copy_from_slice(&node.directory_id),
        log_end_offset: view.log_end_offset.0,
        last_fetch_timestamp_ms: view.last_fetch.0,
        last_caught_up_timestamp_ms: view.last_caught_up.0,
        host: node.host,
        port: u32::from(node.port),
    }
}
