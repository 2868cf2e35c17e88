//! Who calls, and whether it may.

use std::sync::Arc;

use klamm_pb::controller::v1::Caller;
use klamm_pb::metadata::v1::FollowRequest;
use klamm_pb::raft::v1::RaftHeader;
use klamm_types::{BrokerId, QuorumId};
use tonic::Status;

use crate::{KnownQuorum, status};

/// This node, as it presents itself in every call and as it judges those that call it.
///
/// A node of another cluster is refused before anything else in its call is looked at: two clusters that share an
/// address by mistake must not mix their metadata. The same goes for a node whose metadata is that of another quorum:
/// one that was founded anew under the same cluster id.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    cluster_id: Arc<str>,
    node_id: BrokerId,
    quorum: KnownQuorum,
}

impl NodeIdentity {
    /// Node `node_id` of the cluster `cluster_id`.
    #[must_use]
    pub fn new(cluster_id: &str, node_id: BrokerId) -> Self {
        Self { cluster_id: Arc::from(cluster_id), node_id, quorum: KnownQuorum::default() }
    }

    /// The same, as a node that belongs to `quorum`.
    #[must_use]
    pub fn of_quorum(self, quorum: KnownQuorum) -> Self {
        Self { quorum, ..self }
    }

    /// The quorum that this node belongs to.
    #[must_use]
    pub const fn quorum(&self) -> &KnownQuorum {
        &self.quorum
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// This node's number.
    #[must_use]
    pub const fn node_id(&self) -> BrokerId {
        self.node_id
    }

    /// What this node's calls to the active controller carry.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller {
            cluster_id: self.cluster_id.to_string(),
            node_id: self.node_id.0,
            quorum_id: self.quorum.to_bytes(),
        }
    }

    /// What this controller's calls to the controller `to_node` carry.
    #[must_use]
    pub fn raft_header(&self, to_node: u64) -> RaftHeader {
        RaftHeader {
            cluster_id: self.cluster_id.to_string(),
            from_node: u64::from(self.node_id.0.unsigned_abs()),
            to_node,
            quorum_id: self.quorum.to_bytes(),
        }
    }

    /// What a request to follow the metadata carries, but for the position to follow it from.
    #[must_use]
    pub fn follow_request(&self) -> FollowRequest {
        FollowRequest {
            cluster_id: self.cluster_id.to_string(),
            node_id: self.node_id.0,
            quorum_id: self.quorum.to_bytes(),
            ..FollowRequest::default()
        }
    }

    /// The number of the node that calls.
    ///
    /// # Errors
    /// A status if the call names no caller, a foreign cluster or quorum, or an impossible number, and if this node
    /// does not know yet whether it is of the caller's quorum.
    pub fn admit(&self, caller: Option<&Caller>) -> Result<BrokerId, Status> {
        let Some(caller) = caller else {
            return Err(Status::invalid_argument("the call names no caller"));
        };
        let node = self.admit_node(&caller.cluster_id, caller.node_id)?;
        self.admit_taker(&caller.quorum_id)?;
        Ok(node)
    }

    /// The number of the node that follows the metadata.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn admit_follower(&self, request: &FollowRequest) -> Result<BrokerId, Status> {
        let node = self.admit_node(&request.cluster_id, request.node_id)?;
        self.admit_taker(&request.quorum_id)?;
        Ok(node)
    }

    /// The number of the controller that calls.
    ///
    /// # Errors
    /// A status if the call has no header, is of a foreign cluster or quorum, or is meant for another node. A node
    /// that knows no quorum yet takes what any tells it.
    pub fn admit_controller(&self, header: Option<&RaftHeader>) -> Result<u64, Status> {
        let Some(header) = header else {
            return Err(Status::invalid_argument("the call has no header"));
        };
        self.admit_cluster(&header.cluster_id)?;
        self.admit_quorum(&header.quorum_id)?;
        if i64::try_from(header.to_node) == Ok(i64::from(self.node_id.0)) {
            Ok(header.from_node)
        } else {
            Err(status::wrong_node(header.to_node, self.node_id))
        }
    }

    /// Whether `cluster_id` is this node's cluster; for calls that name their sender in another way.
    ///
    /// # Errors
    /// A status if it is not.
    pub fn admit_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        if *cluster_id == *self.cluster_id {
            Ok(())
        } else {
            Err(status::foreign_cluster(cluster_id, &self.cluster_id))
        }
    }

    /// Whether the caller, who names `quorum_id` if it knows a quorum, may be of this node's quorum.
    fn admit_quorum(&self, quorum_id: &[u8]) -> Result<Option<QuorumId>, Status> {
        if quorum_id.is_empty() {
            return Ok(None);
        }
        let Ok(theirs) = quorum_id.try_into().map(QuorumId) else {
            let bytes = quorum_id.len();
            return Err(Status::invalid_argument(format!("a quorum id has 16 bytes, not {bytes}")));
        };
        match self.quorum.get() {
            Some(ours) if ours != theirs => Err(status::foreign_quorum(theirs, ours)),
            _ => Ok(Some(theirs)),
        }
    }

    /// The same for a caller that takes this node's metadata: it must not get that of a quorum which has only begun.
    fn admit_taker(&self, quorum_id: &[u8]) -> Result<(), Status> {
        match (self.admit_quorum(quorum_id)?, self.quorum.get()) {
            (Some(theirs), None) => Err(Status::unavailable(format!(
                "this controller does not know yet whether it is of quorum {theirs}, as the caller is"
            ))),
            _ => Ok(()),
        }
    }

    /// The number of a node that names its cluster and itself.
    ///
    /// # Errors
    /// A status if it is of a foreign cluster or has an impossible number.
    pub fn admit_node(&self, cluster_id: &str, node_id: i32) -> Result<BrokerId, Status> {
        self.admit_cluster(cluster_id)?;
        if node_id < 0 {
            return Err(Status::invalid_argument(format!("{node_id} is no node id")));
        }
        Ok(BrokerId(node_id))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn caller(cluster_id: &str, node_id: i32) -> Caller {
        Caller { cluster_id: cluster_id.to_owned(), node_id, ..Caller::default() }
    }

    #[test]
    fn a_caller_of_this_cluster_is_admitted_and_others_are_not() {
        let me = NodeIdentity::new("c1", BrokerId(1));
        assert_eq!(me.admit(Some(&caller("c1", 2))).unwrap(), BrokerId(2));
        assert_eq!(me.admit(Some(&me.caller())).unwrap(), BrokerId(1));
        let code = |caller: Option<Caller>| me.admit(caller.as_ref()).unwrap_err().code();
        assert_eq!(code(None), Code::InvalidArgument);
        assert_eq!(code(Some(caller("c1", -1))), Code::InvalidArgument);
        assert_eq!(code(Some(caller("c2", 2))), Code::PermissionDenied);
        // A foreign cluster is what the answer is about, whatever else is wrong.
        assert_eq!(code(Some(caller("", -1))), Code::PermissionDenied);
    }

    #[test]
    fn a_controller_must_mean_this_node() {
        let me = NodeIdentity::new("c1", BrokerId(1));
        let header = |cluster_id: &str, to_node| RaftHeader {
            cluster_id: cluster_id.to_owned(),
            from_node: 2,
            to_node,
            ..RaftHeader::default()
        };
        assert_eq!(me.admit_controller(Some(&header("c1", 1))).unwrap(), 2);
        let code = |header: RaftHeader| me.admit_controller(Some(&header)).unwrap_err().code();
        assert_eq!(code(header("c1", 3)), Code::NotFound);
        assert_eq!(code(header("c1", u64::MAX)), Code::NotFound);
        assert_eq!(code(header("c2", 1)), Code::PermissionDenied);
        assert_eq!(me.admit_controller(None).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn whoever_has_the_metadata_of_another_quorum_is_refused() {
        let quorum = |byte| KnownQuorum::new(Some(QuorumId([byte; 16])));
        let node = |quorum: KnownQuorum| NodeIdentity::new("c1", BrokerId(1)).of_quorum(quorum);
        let asked = |me: &NodeIdentity, other: &NodeIdentity| {
            let taker = me.admit(Some(&other.caller())).map(drop).map_err(|status| status.code());
            let follower = me.admit_follower(&other.follow_request());
            assert_eq!(follower.map(drop).map_err(|status| status.code()), taker);
            let controller = me.admit_controller(Some(&other.raft_header(1)));
            (taker, controller.map(drop).map_err(|status| status.code()))
        };
        let (ours, theirs, new) = (node(quorum(1)), node(quorum(2)), node(KnownQuorum::default()));
        assert_eq!(asked(&ours, &node(quorum(1))), (Ok(()), Ok(())));
        assert_eq!(asked(&ours, &theirs), (Err(Code::DataLoss), Err(Code::DataLoss)));
        assert_eq!(asked(&ours, &new), (Ok(()), Ok(())));
        // A controller that joins is told by the others what there is; nobody is told anything by it before.
        assert_eq!(asked(&new, &ours), (Err(Code::Unavailable), Ok(())));
        let odd = Caller { quorum_id: vec![1; 15].into(), ..ours.caller() };
        assert_eq!(ours.admit(Some(&odd)).unwrap_err().code(), Code::InvalidArgument);
    }
}
