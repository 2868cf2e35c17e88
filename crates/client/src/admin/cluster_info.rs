//! The cluster and its brokers.

use klamm_protocol::messages::DescribeClusterRequest;
use klamm_types::BrokerId;

use super::Admin;
use crate::error::{ApiError, ClientError};

/// A cluster as one of its brokers sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker to which changes may be sent; any of them in a cluster without ZooKeeper.
    pub controller: Option<BrokerId>,
    /// The brokers by ascending id.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDescription {
    /// Its id.
    pub id: BrokerId,
    /// The host on the listener by which the question came.
    pub host: String,
    /// The port on the listener by which the question came.
    pub port: i32,
    /// The rack, if it names one.
    pub rack: Option<String>,
    /// Whether the controller has fenced it: it leads nothing and is not shown to clients.
    pub is_fenced: bool,
}

impl Admin {
    /// Describes the cluster; fenced brokers are shown if the broker that answers can tell (KIP-1073).
    ///
    /// # Errors
    /// [`ClientError`] if no broker answers, or if it refuses.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, ClientError> {
        let connection = self.cluster.any_broker().await?;
        let version = connection.newest(klamm_protocol::ApiKey::DescribeCluster, i16::MAX)?;
        let request = DescribeClusterRequest {
            include_fenced_brokers: version >= 2,
            ..DescribeClusterRequest::default()
        };
        self.look_up(&request, |answer| {
            ApiError::check(answer.error_code, answer.error_message.as_deref())?;
            let brokers = answer.brokers.into_iter().map(|broker| BrokerDescription {
                id: BrokerId(broker.broker_id),
                host: broker.host,
                port: broker.port,
                rack: broker.rack,
                is_fenced: broker.is_fenced,
            });
            let mut brokers: Vec<_> = brokers.collect();
            brokers.sort_unstable_by_key(|broker| broker.id);
            Ok(ClusterDescription {
                cluster_id: answer.cluster_id,
                controller: (answer.controller_id >= 0).then_some(BrokerId(answer.controller_id)),
                brokers,
            })
        })
        .await
    }
}
