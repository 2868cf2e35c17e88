//! Other brokers, as the metadata and the controller know them.

use std::sync::Arc;

use klamm_pb::controller::v1::DeathEvidence;
use klamm_rpc::NodeAddress;
use klamm_types::{BrokerEpoch, BrokerId};
use tokio::runtime::Handle;

use super::{Peers, throttle};
use crate::controller_client::ControllerClient;
use crate::metadata::MetadataCache;

/// Peers by the newest metadata. What speaks for a death is told to the active controller.
#[derive(Debug)]
pub struct MetadataPeers {
    metadata: Arc<MetadataCache>,
    /// `inter.broker.listener.name`.
    listener: String,
    controller: ControllerClient,
    runtime: Handle,
}

impl MetadataPeers {
    /// Peers that are reached at their listener of this name. To be called within a tokio runtime.
    #[must_use]
    pub fn new(metadata: Arc<MetadataCache>, listener: &str, controller: ControllerClient) -> Self {
        Self { metadata, listener: listener.to_owned(), controller, runtime: Handle::current() }
    }
}

impl Peers for MetadataPeers {
    fn replication_address(&self, broker: BrokerId) -> Option<NodeAddress> {
        let image = self.metadata.image();
        let endpoint = image.cluster.broker(broker)?.endpoint(&self.listener)?;
        Some(NodeAddress::new(endpoint.host.clone(), endpoint.port))
    }

    fn on_stream_broken(&self, broker: BrokerId, broker_epoch: BrokerEpoch) {
        self.metadata.suspect(broker, broker_epoch);
        let controller = self.controller.clone();
        // Ends with its deadline, and nothing depends on it: the controller has means of its own.
        self.runtime.spawn(async move {
            let told = controller.report_death(broker, broker_epoch, DeathEvidence::PeerStreamEnded).await;
            if let Err(error) = told {
                tracing::debug!(%broker, %error, "the end of the stream is not reported");
            }
        });
    }

    fn follower_rate(&self) -> Option<u64> {
        let me = self.controller.identity().node_id();
        throttle::rate(&self.metadata.image(), me, throttle::FOLLOWER_RATE)
    }
}
