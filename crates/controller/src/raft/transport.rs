//! Raft's calls to the other controllers.
//!
//! Every call has a deadline of its own, longer than openraft's hints, which are made for heartbeats: an append is
//! answered when the other side's disk has it, and a disk may take its time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_metadata::{MetadataImage, SnapshotWriter};
use klamm_pb::raft::v1 as pb;
use klamm_rpc::stubs::raft::v1::raft_client::RaftClient;
use klamm_rpc::{
    AddressError, Backoff as Pauses, ChannelPool, Deadline, Lane, LineBudget, NodeAddress, NodeIdentity,
    RpcError,
};
use openraft::OptionalSend;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::types::{ControllerNode, TypeConfig, Vote};
use super::wire::{self, WireError};
use crate::detection::DeadLeader;

/// How many parts of a snapshot wait for the network.
const SNAPSHOT_PARTS_AHEAD: usize = 2;
/// How long a whole snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long calls may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CallTimeouts {
    /// A vote, a heartbeat, the start of a transfer.
    pub(crate) short: Duration,
    /// An append, which waits for a disk.
    pub(crate) append: Duration,
}

/// Makes connections to controllers.
#[derive(Clone, Debug)]
pub(crate) struct RaftTransport {
    pub(crate) identity: NodeIdentity,
    pub(crate) channels: ChannelPool,
    pub(crate) timeouts: CallTimeouts,
    /// What this node knows of its leader's death; its votes say so.
    pub(crate) dead_leader: Arc<DeadLeader>,
    /// For controllers that turn out to be of another cluster or quorum, which every call to them tells again.
    pub(crate) foreign: Arc<LineBudget>,
}

/// The way to one controller.
#[derive(Debug)]
pub(crate) struct Connection {
    transport: RaftTransport,
    target: u64,
    address: NodeAddress,
    lane: Lane,
}

impl RaftNetworkFactory<TypeConfig> for RaftTransport {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &ControllerNode) -> Connection {
        self.connection(target, node, Lane::Raft)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &ControllerNode) -> Connection {
        self.connection(target, node, Lane::Bulk)
    }
}

impl RaftTransport {
    pub(crate) fn connection(&self, target: u64, node: &ControllerNode, lane: Lane) -> Connection {
        let address = NodeAddress::new(node.host.clone(), node.port);
        Connection { transport: self.clone(), target, address, lane }
    }
}

impl RaftTransport {
    /// What another controller remembers.
    pub(crate) async fn recall(
        &self,
        id: u64,
        node: &ControllerNode,
    ) -> Result<pb::RecallResponse, RpcError> {
        let connection = self.connection(id, node, Lane::Raft);
        let invalid = |error: AddressError| RpcError::Unreachable { reason: error.to_string() };
        let mut client = connection.client().map_err(invalid)?;
        let deadline = Deadline::after(self.timeouts.short);
        let request = pb::RecallRequest { header: Some(connection.header()) };
        let answer = deadline.run(client.recall(deadline.request(request))).await;
        answer.inspect_err(|error| connection.tell_if_foreign(error))
    }
}

impl Connection {
    pub(crate) fn client(&self) -> Result<RaftClient<Channel>, AddressError> {
        let channel = self.transport.channels.channel(&self.address, self.lane)?;
        let bytes_max = self.lane.limits().message_bytes_max;
        Ok(RaftClient::new(channel).max_decoding_message_size(bytes_max).max_encoding_message_size(bytes_max))
    }

    pub(crate) fn header(&self) -> pb::RaftHeader {
        self.transport.identity.raft_header(self.target)
    }

    fn raft_client(&self) -> Result<RaftClient<Channel>, RPCError<TypeConfig>> {
        self.client().map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }

    /// What openraft should make of a failed call. A connection on which a call was not answered may lead nowhere: the
    /// next call makes a new one.
    fn failed(&self, error: &RpcError) -> RPCError<TypeConfig> {
        if matches!(error, RpcError::TimedOut) {
            self.transport.channels.forget(&self.address, self.lane);
        }
        match error {
            RpcError::TimedOut | RpcError::Lost { .. } => RPCError::Network(NetworkError::new(error)),
            error => {
                self.tell_if_foreign(error);
                tracing::debug!(target = self.target, %error, "a controller cannot be called");
                RPCError::Unreachable(Unreachable::new(error))
            }
        }
    }

    /// Says now and then that this controller is of another cluster or quorum, if that is what `error` says.
    pub(crate) fn tell_if_foreign(&self, error: &RpcError) {
        let advice = match error {
            RpcError::ForeignCluster { .. } => {
                "a voter is of another cluster: one of the two has the wrong CLUSTER_ID or controller.quorum.voters"
            }
            RpcError::ForeignQuorum { .. } => {
                "a voter is of another quorum: one of the two was founded with empty disks beside the other, and has to be stopped and emptied"
            }
            _ => return,
        };
        if let Some(held_back) = self.transport.foreign.take() {
            tracing::warn!(voter = self.target, address = %self.address, %error, held_back, advice, "a voter is foreign");
        }
    }

    /// Asks for a vote, or whether one would be given.
    pub(crate) async fn ask_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre_vote: bool,
        leader_is_dead: bool,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.raft_client()?;
        let message = wire::vote_request_to_pb(request, self.header(), pre_vote, leader_is_dead);
        let deadline = Deadline::after(self.transport.timeouts.short);
        let answer = deadline.run(client.vote(deadline.request(message))).await;
        let answer = answer.map_err(|error| self.failed(&error))?;
        wire::vote_response_from_pb(answer).map_err(|error| senseless(&error))
    }

    async fn send_snapshot(
        &self,
        open: pb::SnapshotOpen,
        image: MetadataImage,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.raft_client()?;
        let (parts, queue) = tokio::sync::mpsc::channel(SNAPSHOT_PARTS_AHEAD);
        let encoder = tokio::task::spawn_blocking(move || encode_snapshot(open, &image, &parts));
        let deadline = Deadline::after(SNAPSHOT_TIMEOUT);
        let answer =
            deadline.run(client.install_snapshot(deadline.request(ReceiverStream::new(queue)))).await;
        let answer = answer.map_err(|error| self.failed(&error))?;
        // The other side has the trailer, so the encoder has ended.
        encoder.await.map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let vote = wire::vote_from_pb(answer.vote).map_err(|error| senseless(&error))?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// Sends the parts of a snapshot, each in a message of its own; ends early if nobody takes them.
fn encode_snapshot(
    open: pb::SnapshotOpen,
    image: &MetadataImage,
    parts: &tokio::sync::mpsc::Sender<pb::SnapshotRequest>,
) {
    use pb::snapshot_request::Part;
    let send = |part| parts.blocking_send(pb::SnapshotRequest { part: Some(part) }).is_ok();
    if !send(Part::Open(open)) {
        return;
    }
    let (mut bytes, mut crc32c) = (0, 0);
    for part in SnapshotWriter::new(image).parts() {
        bytes += part.len() as u64;
        crc32c = crc32c::crc32c_append(crc32c, &part);
        if !send(Part::Data(Bytes::clone(&part))) {
            return;
        }
    }
    send(Part::End(pb::SnapshotEnd { bytes, crc32c }));
}

/// An answer that means nothing: from a newer binary or a bug. Trying at once would only repeat it.
fn senseless(error: &WireError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = MetadataImage;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.raft_client()?;
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let timeouts = self.transport.timeouts;
        let timeout = if request.entries.is_empty() { timeouts.short } else { timeouts.append };
        let message = wire::append_request_to_pb(request, self.header());
        let deadline = Deadline::after(timeout);
        let answer = deadline.run(client.append(deadline.request(message))).await;
        let answer = answer.map_err(|error| self.failed(&error))?;
        wire::append_response_from_pb(answer, last).map_err(|error| senseless(&error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let leader_is_dead = self.transport.dead_leader.is_before(request.vote.leader_id.term);
        self.ask_vote(&request, false, leader_is_dead).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(&request, true, false).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, MetadataImage>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let open = wire::snapshot_open_to_pb(self.header(), &vote, &snapshot.meta);
        tokio::select! {
            sent = self.send_snapshot(open, snapshot.snapshot) => Ok(sent?),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.raft_client()?;
        let message = pb::TransferLeaderRequest {
            header: Some(self.header()),
            from_leader: Some(wire::vote_to_pb(request.from_leader())),
            to_node: *request.to_node_id(),
            last_log_id: request.last_log_id().copied().map(wire::log_id_to_pb),
        };
        let deadline = Deadline::after(self.transport.timeouts.short);
        let answer = deadline.run(client.transfer_leader(deadline.request(message))).await;
        answer.map_err(|error| self.failed(&error))?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        let mut pauses = Pauses::between_nodes();
        Some(Backoff::new(std::iter::from_fn(move || Some(pauses.next_pause()))))
    }
}
