//! Who calls, and whether it may.

use std::sync::Arc;

use klamm_pb::controller::v1::Caller;
use klamm_pb::metadata::v1::FollowRequest;
use klamm_pb::raft::v1::RaftHeader;
use klamm_types::BrokerId;
use tonic::Status;

use crate::status;

/// This node, as it presents itself in every call and as it judges those that call it.
///
/// A node of another cluster is refused before anything else in its call is looked at: two clusters that share an
/// address by mistake must not mix their metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeIdentity {
    cluster_id: Arc<str>,
    node_id: BrokerId,
}

impl NodeIdentity {
    /// Node `node_id` of the cluster `cluster_id`.
    #[must_use]
    pub fn new(cluster_id: &str, node_id: BrokerId) -> Self {
        Self { cluster_id: Arc::from(cluster_id), node_id }
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
        Caller { cluster_id: self.cluster_id.to_string(), node_id: self.node_id.0 }
    }

    /// The number of the node that calls.
    ///
    /// # Errors
    /// A status if the call names no caller, a foreign cluster or an impossible number.
    pub fn admit(&self, caller: Option<&Caller>) -> Result<BrokerId, Status> {
        let Some(caller) = caller else {
            return Err(Status::invalid_argument("the call names no caller"));
        };
        self.admit_node(&caller.cluster_id, caller.node_id)
    }

    /// The number of the node that follows the metadata.
    ///
    /// # Errors
    /// A status if it is of a foreign cluster or has an impossible number.
    pub fn admit_follower(&self, request: &FollowRequest) -> Result<BrokerId, Status> {
        self.admit_node(&request.cluster_id, request.node_id)
    }

    /// The number of the controller that calls.
    ///
    /// # Errors
    /// A status if the call has no header, is of a foreign cluster, or is meant for another node.
    pub fn admit_controller(&self, header: Option<&RaftHeader>) -> Result<u64, Status> {
        let Some(header) = header else {
            return Err(Status::invalid_argument("the call has no header"));
        };
        self.admit_cluster(&header.cluster_id)?;
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
        Caller { cluster_id: cluster_id.to_owned(), node_id }
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
        };
        assert_eq!(me.admit_controller(Some(&header("c1", 1))).unwrap(), 2);
        let code = |header: RaftHeader| me.admit_controller(Some(&header)).unwrap_err().code();
        assert_eq!(code(header("c1", 3)), Code::NotFound);
        assert_eq!(code(header("c1", u64::MAX)), Code::NotFound);
        assert_eq!(code(header("c2", 1)), Code::PermissionDenied);
        assert_eq!(me.admit_controller(None).unwrap_err().code(), Code::InvalidArgument);
    }
}
