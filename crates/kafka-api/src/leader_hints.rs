//! Who leads, told with the refusal of whoever does not (KIP-951): the client goes on without asking for metadata.

use std::collections::BTreeMap;

use klamm_metadata::MetadataImage;
use klamm_protocol::ErrorCode;
use klamm_types::{BrokerId, PartitionId, TopicId};

/// The leader of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// The broker, -1 if nobody leads.
    pub(crate) id: i32,
    /// The leader epoch.
    pub(crate) epoch: i32,
}

/// Where a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaderEndpoint {
    /// The broker.
    pub(crate) id: i32,
    /// Its host on the listener that the client uses.
    pub(crate) host: String,
    /// Its port there.
    pub(crate) port: i32,
    /// Its rack.
    pub(crate) rack: Option<String>,
}

/// Gathers the hints of one answer.
#[derive(Debug)]
pub(crate) struct LeaderHints<'a> {
    image: &'a MetadataImage,
    listener: &'a str,
    endpoints: BTreeMap<BrokerId, LeaderEndpoint>,
}

impl<'a> LeaderHints<'a> {
    /// No hints yet; they will be those of `image`, for a client of the listener of this name.
    pub(crate) fn new(image: &'a MetadataImage, listener: &'a str) -> Self {
        Self { image, listener, endpoints: BTreeMap::new() }
    }

    /// Whether an answer with this code comes with a hint.
    pub(crate) fn apply_to(code: ErrorCode) -> bool {
        matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch)
    }

    /// Who leads the partition, `None` if it is not known at all.
    pub(crate) fn leader(&mut self, topic: TopicId, partition: i32) -> Option<Leader> {
        let registration = self.image.topics.partition(topic, PartitionId(partition))?;
        let id = registration.leader.unwrap_or(BrokerId::NONE);
        self.add_endpoint(id);
        Some(Leader { id: id.0, epoch: registration.leader_epoch.0 })
    }

    /// Where the leaders that were told are reached, by id.
    pub(crate) fn into_endpoints(self) -> impl Iterator<Item = LeaderEndpoint> {
        self.endpoints.into_values()
    }

    fn add_endpoint(&mut self, id: BrokerId) {
        let broker = self.image.cluster.broker(id).filter(|broker| !broker.fenced);
        let Some(broker) = broker else { return };
        if let Some(endpoint) = broker.endpoint(self.listener) {
            let (host, port) = (endpoint.host.clone(), i32::from(endpoint.port));
            self.endpoints.insert(id, LeaderEndpoint { id: id.0, host, port, rack: broker.rack.clone() });
        }
    }
}
