//! The services of a controller: gRPC in, commands to the active controller or to Raft, gRPC out.
//!
//! Every call names its cluster, and is refused if that is another one before anything else is looked at.

mod admin;
mod changes;
mod configs;
mod feature_support;
mod feed;
mod lifecycle;
mod partition;
mod quorum;
mod raft;
mod refusal;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_control::ControlConfig;
use klamm_metadata::MetadataImage;
use klamm_rpc::stubs::controller::v1::admin_server::AdminServer;
use klamm_rpc::stubs::controller::v1::broker_lifecycle_server::BrokerLifecycleServer;
use klamm_rpc::stubs::controller::v1::partition_control_server::PartitionControlServer;
use klamm_rpc::stubs::controller::v1::quorum_server::QuorumServer;
use klamm_rpc::stubs::metadata::v1::metadata_feed_server::MetadataFeedServer;
use klamm_rpc::stubs::raft::v1::raft_server::RaftServer;
use klamm_rpc::{Lane, NodeIdentity};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::service::Routes;

use crate::active::ControllerHandle;
use crate::detection::DeadLeader;
use crate::raft::transport::RaftTransport;
use crate::raft::{LogReader, Raft, SnapshotStore};
use crate::standing::StandingWatch;
use crate::status::ControllerStatus;

/// When a leader last gave a sign of life.
#[derive(Debug, Default)]
pub(crate) struct Contact(Mutex<Option<Instant>>);

impl Contact {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_within(&self, duration: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() <= duration)
    }
}

/// What the services work with.
pub(crate) struct ServiceParts {
    pub(crate) raft: Raft,
    pub(crate) identity: NodeIdentity,
    /// The way to the other controllers.
    pub(crate) transport: RaftTransport,
    pub(crate) handle: ControllerHandle,
    pub(crate) control: ControlConfig,
    pub(crate) committed: watch::Receiver<MetadataImage>,
    pub(crate) reader: LogReader,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) status: watch::Receiver<ControllerStatus>,
    /// Turns true when the controller shuts down.
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) dead_leader: Arc<DeadLeader>,
    pub(crate) contact: Arc<Contact>,
    /// What this node may do that may have forgotten something.
    pub(crate) standing: StandingWatch,
    /// How long a controller may be out of touch with the quorum and still tell others what is committed.
    pub(crate) lease: Duration,
}

/// The services, each with the limits of its lane.
pub(crate) fn routes(parts: ServiceParts) -> Routes {
    let parts = Arc::new(parts);
    let control = Lane::Control.limits().message_bytes_max;
    let raft = Lane::Raft.limits().message_bytes_max;
    let mut routes = tonic::service::RoutesBuilder::default();
    routes
        .add_service(
            RaftServer::new(raft::RaftService::new(Arc::clone(&parts))).max_decoding_message_size(raft),
        )
        .add_service(
            BrokerLifecycleServer::new(lifecycle::LifecycleService::new(Arc::clone(&parts)))
                .max_decoding_message_size(control),
        )
        .add_service(
            PartitionControlServer::new(partition::PartitionService::new(Arc::clone(&parts)))
                .max_decoding_message_size(control),
        )
        .add_service(
            AdminServer::new(admin::AdminService::new(Arc::clone(&parts))).max_decoding_message_size(control),
        )
        .add_service(
            QuorumServer::new(quorum::QuorumService::new(Arc::clone(&parts)))
                .max_decoding_message_size(control),
        )
        .add_service(
            MetadataFeedServer::new(feed::FeedService::new(parts)).max_decoding_message_size(control),
        );
    routes.routes()
}
