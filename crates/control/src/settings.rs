//! The few settings of topics that decisions depend on.

use klamm_metadata::{ConfigResource, MetadataImage};
use klamm_types::TopicName;

use crate::ControlConfig;

/// The setting that says how large an ISR must be for a write to count.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// The setting that prefers an available partition to a complete one.
pub const UNCLEAN_LEADER_ELECTION_ENABLE: &str = "unclean.leader.election.enable";

/// The setting that acknowledges records before they are on the disk; of topics.
pub const WRITE_CACHING: &str = "write.caching";

/// Its default for topics that do not say; of brokers.
pub const DEFAULT_WRITE_CACHING: &str = "klamm.write.caching";

/// `key` of `topic`: its own value, else the default of all brokers, else `None` for the static one.
fn value<'a>(image: &'a MetadataImage, topic: &TopicName, key: &str) -> Option<&'a str> {
    let own = image.configs.value(&ConfigResource::Topic(topic.clone()), key);
    own.or_else(|| image.configs.value(&ConfigResource::BrokerDefault, key))
}

/// `min.insync.replicas` of `topic`, at least 1, not yet bounded by the number of replicas. A value that is no
/// number cannot have passed validation; should one be there, the static default counts.
pub(crate) fn min_insync_replicas(image: &MetadataImage, config: &ControlConfig, topic: &TopicName) -> usize {
    let own = value(image, topic, MIN_INSYNC_REPLICAS).and_then(|text| text.trim().parse::<u16>().ok());
    usize::from(own.unwrap_or(config.min_insync_replicas).max(1))
}

/// `unclean.leader.election.enable` of `topic`.
pub(crate) fn unclean_election_enabled(
    image: &MetadataImage,
    config: &ControlConfig,
    topic: &TopicName,
) -> bool {
    match value(image, topic, UNCLEAN_LEADER_ELECTION_ENABLE) {
        Some(text) => text.trim().eq_ignore_ascii_case("true"),
        None => config.unclean_leader_election_enable,
    }
}

/// `write.caching` of `topic`.
pub(crate) fn write_caching(image: &MetadataImage, config: &ControlConfig, topic: &TopicName) -> bool {
    let own = image.configs.value(&ConfigResource::Topic(topic.clone()), WRITE_CACHING);
    let value = own.or_else(|| image.configs.value(&ConfigResource::BrokerDefault, DEFAULT_WRITE_CACHING));
    value.map_or(config.write_caching, |text| text.trim().eq_ignore_ascii_case("true"))
}
