//! Administration over the public protocol.
//!
//! Everything goes to whichever broker answers; brokers pass changes on to the controller. A method that looks
//! something up tries again until [`ClientOptions::operation_timeout`](crate::ClientOptions::operation_timeout) is
//! over. A method that changes something tries again only after an answer that says that nothing was done, never after
//! a lost connection: the caller decides then, with [`ClientError::is_retryable`] as a guide.

use std::time::Duration;

use klamm_protocol::ApiRequest;

use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::error::ClientError;

mod cluster_info;
mod configs;
mod partitions;
mod quorum;
mod replicas;
mod topics;

pub use cluster_info::{BrokerDescription, ClusterDescription};
pub use configs::{ConfigEntry, ConfigOperation, ConfigResource, ConfigSource};
pub use partitions::Reassignment;
pub use quorum::{QuorumDescription, QuorumNode, QuorumReplica};
pub use replicas::{FollowerLag, FollowerLags};
pub use topics::{CreatedTopic, NewTopic, PartitionDescription, TopicDescription, TopicSummary};

/// Administers one cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    cluster: Cluster,
}

impl Admin {
    /// Administers `cluster`.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How long the broker may work on a request, in milliseconds, as requests carry it.
    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.request_timeout().as_millis()).unwrap_or(i32::MAX)
    }

    fn request_timeout(&self) -> Duration {
        self.cluster.options().request_timeout
    }

    /// Sends a request that changes something, once; a broker that cannot be dialled has seen nothing, so another is
    /// asked. The answer may take as long as the broker may work on it, and a second more.
    async fn change<R: ApiRequest>(&self, request: &R) -> Result<R::Response, ClientError> {
        let mut backoff = Backoff::for_operation(self.cluster.options());
        loop {
            match self.cluster.any_broker().await {
                Ok(connection) => {
                    let limit = self.request_timeout() + Duration::from_secs(1);
                    return connection.call_within(request, limit).await;
                }
                Err(error) if error.is_retryable() => backoff.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request that changes nothing until it has an answer that `judge` takes, or the time is over.
    async fn look_up<R: ApiRequest, T>(
        &self,
        request: &R,
        mut judge: impl FnMut(R::Response) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut backoff = Backoff::for_operation(self.cluster.options());
        loop {
            match self.cluster.ask_any(request, self.request_timeout()).await.and_then(&mut judge) {
                Ok(found) => return Ok(found),
                Err(error) if error.is_retryable() => backoff.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }
}
