//! The broker's own parts behind the ports of the handlers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Deadline;
use klamm_broker::controller_client::{ControllerClient, ControllerError, Submitted};
use klamm_broker::metadata::{MetadataCache, NOTICE_TIME};
use klamm_metadata::MetadataImage;
use klamm_pb::controller::v1::{self as pb, submit_request};
use klamm_types::{BrokerId, Offset};
use tokio::time::Instant;

use crate::ports::{ClusterMetadata, ControllerGateway, GatewayError, QuorumDescription, QuorumReplica};
use crate::table::BoxFuture;

/// The metadata cache, as handlers see it.
#[derive(Clone, Debug)]
pub struct CachedMetadata(
    /// The cache that the loader feeds.
    pub Arc<MetadataCache>,
);

impl ClusterMetadata for CachedMetadata {
    fn image(&self) -> Arc<MetadataImage> {
        self.0.image()
    }

    fn applied(&self, offset: Offset, deadline: Instant) -> BoxFuture<bool> {
        let cache = self.0.clone();
        Box::pin(async move { cache.wait_for(offset, Deadline::at(deadline)).await.is_ok() })
    }

    fn noticed(&self) -> BoxFuture<()> {
        Box::pin(tokio::time::sleep(NOTICE_TIME))
    }

    fn suspects(&self) -> BTreeSet<BrokerId> {
        self.0.suspects().into_keys().collect()
    }

    fn lately_dead(&self) -> BTreeSet<BrokerId> {
        self.0.lately_dead()
    }

    fn unsuspected(&self, broker: BrokerId) -> BoxFuture<()> {
        let cache = self.0.clone();
        Box::pin(async move { cache.wait_unsuspected(broker).await })
    }
}

impl ControllerGateway for ControllerClient {
    fn submit(
        &self,
        change: submit_request::Change,
        timeout: Duration,
    ) -> BoxFuture<Result<Submitted, GatewayError>> {
        let client = self.clone();
        Box::pin(async move { Self::submit(&client, change, timeout).await.map_err(gateway_error) })
    }

    fn add_voter(
        &self,
        voter: pb::AddVoterRequest,
        timeout: Duration,
    ) -> BoxFuture<Result<(), GatewayError>> {
        let client = self.clone();
        Box::pin(async move { Self::add_voter(&client, voter, timeout).await.map_err(gateway_error) })
    }

    fn remove_voter(
        &self,
        voter: pb::RemoveVoterRequest,
        timeout: Duration,
    ) -> BoxFuture<Result<(), GatewayError>> {
        let client = self.clone();
        Box::pin(async move { Self::remove_voter(&client, voter, timeout).await.map_err(gateway_error) })
    }

    fn describe_quorum(&self, timeout: Duration) -> BoxFuture<Result<QuorumDescription, GatewayError>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = Self::describe_quorum(&client, timeout).await.map_err(gateway_error)?;
            Ok(quorum(answer))
        })
    }
}

/// Whether a change happened that was not answered nobody knows; the client is told that time ran out, as by Kafka.
fn gateway_error(error: ControllerError) -> GatewayError {
    match error {
        ControllerError::Refused { code, message } => {
            GatewayError::Refused { code: code.into(), reason: message }
        }
        ControllerError::NotFound { .. } | ControllerError::OutcomeUnknown { .. } => GatewayError::TimedOut,
        ControllerError::Impossible(error) => GatewayError::Impossible { reason: error.to_string() },
        ControllerError::BadAnswer { .. } => GatewayError::BadAnswer,
    }
}

fn quorum(answer: pb::DescribeQuorumResponse) -> QuorumDescription {
    let replicas = |replicas: Vec<pb::QuorumReplica>| {
        let mut replicas: Vec<_> = replicas.into_iter().map(replica).collect();
        replicas.sort_unstable_by_key(|replica| replica.node);
        replicas
    };
    QuorumDescription {
        leader: BrokerId(answer.leader_id),
        term: answer.leader_epoch.into(),
        committed_end_offset: Offset(answer.high_watermark),
        voters: replicas(answer.voters),
        observers: replicas(answer.observers),
    }
}

fn replica(replica: pb::QuorumReplica) -> QuorumReplica {
    let endpoint = u16::try_from(replica.port).ok().filter(|_| !replica.host.is_empty());
    QuorumReplica {
        node: BrokerId(replica.node_id),
        directory: replica.directory_id.as_ref().try_into().unwrap_or_default(),
        log_end_offset: Offset(replica.log_end_offset),
        last_fetch_ms: replica.last_fetch_timestamp_ms,
        last_caught_up_ms: replica.last_caught_up_timestamp_ms,
        endpoint: endpoint.map(|port| (replica.host, port)),
    }
}
