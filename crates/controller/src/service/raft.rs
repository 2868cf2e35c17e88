//! Raft's own calls, from the other controllers.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use klamm_metadata::SnapshotReader;
use klamm_pb::raft::v1 as pb;
use klamm_rpc::NodeAddress;
use klamm_rpc::stubs::raft::v1::raft_server::Raft as RaftRpc;
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use openraft::type_config::alias::SnapshotOf;
use tonic::{Request, Response, Status, Streaming};

use super::ServiceParts;
use crate::detection::{Probe, probe};
use crate::raft::wire::{self, WireError};
use crate::raft::{TypeConfig, WatchReceiver as _};
use crate::standing;

/// The service.
pub(super) struct RaftService {
    parts: Arc<ServiceParts>,
}

impl RaftService {
    pub(super) fn new(parts: Arc<ServiceParts>) -> Self {
        Self { parts }
    }

    /// Refuses what this node must not do before it knows what it has forgotten.
    fn may_follow(&self) -> Result<(), Status> {
        if self.parts.standing.get().may_follow() {
            return Ok(());
        }
        Err(Status::unavailable(
            "this controller has an empty disk and does not know yet what the others have",
        ))
    }

    fn admit(&self, header: Option<&pb::RaftHeader>) -> Result<u64, Status> {
        self.parts.identity.admit_controller(header)
    }

    /// Whether the leader before `term` is dead as far as this node can tell: it knows so, or nobody listens where the
    /// leader should be. Somebody else's word alone is not enough.
    async fn leader_is_dead(&self, term: u64) -> bool {
        if self.parts.dead_leader.is_before(term) {
            return true;
        }
        let leader = {
            let metrics = self.parts.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let this_leads = metrics.current_leader == Some(metrics.id);
            let id = metrics.current_leader.filter(|_| !this_leads);
            if this_leads {
                return false;
            }
            let node = |id| metrics.membership_config.membership().get_node(&id).cloned();
            id.and_then(node)
        };
        match leader {
            Some(node) => probe(&NodeAddress::new(node.host, node.port)).await == Probe::Refused,
            // Nobody leads: there is no lease to break.
            None => true,
        }
    }

    /// No, and what this node knows.
    async fn refusal(&self) -> Result<VoteResponse<TypeConfig>, Status> {
        let state =
            self.parts.raft.with_raft_state(|state| (*state.vote_ref(), state.log_ids.last().copied())).await;
        let (vote, last_log_id) = state.map_err(stopped)?;
        Ok(VoteResponse::new(vote, last_log_id, false))
    }

    /// What the answer to a vote would be if the lease of a dead leader did not count; changes nothing.
    async fn would_grant(
        &self,
        request: &VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, Status> {
        let state =
            self.parts.raft.with_raft_state(|state| (*state.vote_ref(), state.log_ids.last().copied())).await;
        let (vote, last_log_id) = state.map_err(stopped)?;
        let granted = request.vote.leader_id.term > vote.leader_id.term && request.last_log_id >= last_log_id;
        Ok(VoteResponse::new(vote, last_log_id, granted))
    }
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl RaftRpc for RaftService {
    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let message = request.into_inner();
        self.admit(message.header.as_ref())?;
        let (pre_vote, leader_is_dead) = (message.pre_vote, message.leader_is_dead);
        let mut vote = wire::vote_request_from_pb(message).map_err(malformed)?;
        self.may_follow()?;
        if !self.parts.standing.get().may_vote_for(vote.last_log_id) {
            return Ok(Response::new(wire::vote_response_to_pb(&self.refusal().await?)));
        }
        let dead = leader_is_dead && self.leader_is_dead(vote.vote.leader_id.term).await;
        let raft = &self.parts.raft;
        let response = match (pre_vote, dead) {
            (true, true) => self.would_grant(&vote).await?,
            (true, false) => raft.pre_vote(vote).await.map_err(stopped)?,
            (false, dead) => {
                vote.leadership_transfer |= dead;
                raft.vote(vote).await.map_err(stopped)?
            }
        };
        Ok(Response::new(wire::vote_response_to_pb(&response)))
    }

    async fn append(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let message = request.into_inner();
        self.admit(message.header.as_ref())?;
        let append = wire::append_request_from_pb(message).map_err(malformed)?;
        self.may_follow()?;
        let last = append.entries.last().map(|entry| entry.log_id).or(append.prev_log_id);
        let response = self.parts.raft.append_entries(append).await.map_err(stopped)?;
        if !matches!(response, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
            self.parts.contact.note();
        }
        Ok(Response::new(wire::append_response_to_pb(response, last)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotRequest>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        use pb::snapshot_request::Part;
        let mut stream = request.into_inner();
        let torn = || Status::invalid_argument("the snapshot ends before its end");
        let Some(pb::SnapshotRequest { part: Some(Part::Open(open)) }) = stream.message().await? else {
            return Err(Status::invalid_argument("a snapshot begins with what it is"));
        };
        self.admit(open.header.as_ref())?;
        let (vote, meta) = wire::snapshot_open_from_pb(open).map_err(malformed)?;
        self.may_follow()?;
        let (mut reader, mut image) = (SnapshotReader::new(), None);
        let (mut bytes, mut crc32c) = (0_u64, 0);
        let end = loop {
            match stream.message().await?.and_then(|message| message.part).ok_or_else(torn)? {
                Part::Open(_) => return Err(Status::invalid_argument("the snapshot is opened twice")),
                Part::Data(part) => {
                    bytes += part.len() as u64;
                    crc32c = crc32c::crc32c_append(crc32c, &part);
                    let pushed =
                        reader.push(part).map_err(|error| Status::invalid_argument(error.to_string()))?;
                    image = pushed.or(image);
                }
                Part::End(end) => break end,
            }
        };
        if (end.bytes, end.crc32c) != (bytes, crc32c) {
            return Err(Status::invalid_argument("the snapshot is not what was sent"));
        }
        let image = image.ok_or_else(torn)?;
        if meta.last_log_id.map(crate::raft::provenance_of) != Some(image.provenance) {
            return Err(Status::invalid_argument("the snapshot is not of the entry that it names"));
        }
        let snapshot = SnapshotOf::<TypeConfig, _> { meta, snapshot: image };
        let response = self.parts.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        self.parts.contact.note();
        Ok(Response::new(pb::SnapshotResponse { vote: Some(wire::vote_to_pb(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let message = request.into_inner();
        self.admit(message.header.as_ref())?;
        let from = wire::vote_from_pb(message.from_leader).map_err(malformed)?;
        let last_log_id = message.last_log_id.map(wire::log_id_from_pb).transpose().map_err(malformed)?;
        if !self.parts.standing.get().may_stand() {
            return Err(Status::aborted("this controller may have forgotten something and cannot lead yet"));
        }
        let transfer = TransferLeaderRequest::new(from, message.to_node, last_log_id);
        let answer = self.parts.raft.handle_transfer_leader(transfer).await.map_err(stopped)?;
        answer.map_err(|refused| Status::aborted(refused.to_string()))?;
        let vote = self.parts.raft.with_raft_state(|state| *state.vote_ref()).await.map_err(stopped)?;
        Ok(Response::new(pb::TransferLeaderResponse { vote: Some(wire::vote_to_pb(&vote)) }))
    }

    async fn recall(
        &self,
        request: Request<pb::RecallRequest>,
    ) -> Result<Response<pb::RecallResponse>, Status> {
        self.admit(request.into_inner().header.as_ref())?;
        let remembered =
            standing::remembered_to_pb(&self.parts.raft, &self.parts.identity, &self.parts.control.features)
                .await;
        Ok(Response::new(remembered.map_err(stopped)?))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.admit(request.into_inner().header.as_ref())?;
        let mut stopped = self.parts.stopped.clone();
        let begun = futures_util::stream::once(async { Ok(pb::WatchResponse {}) });
        let end = futures_util::stream::once(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            Err(Status::unavailable("the controller shuts down"))
        });
        Ok(Response::new(Box::pin(futures_util::StreamExt::chain(begun, end))))
    }
}
