//! The settings that apply to a topic, from the broker's own properties and from what the cluster keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_log::LogConfig;
use klamm_metadata::{ConfigResource, MetadataImage};
use klamm_replica::{Durability, ReplicaConfig};
use klamm_types::TopicName;

use super::ReplicaManager;

impl ReplicaManager {
    /// What topics have that set nothing themselves: the broker's properties, those of all brokers in the metadata, then
    /// its own there. Settings that do not read were refused when they were made; should one be there still, it
    /// alone is left out.
    pub(super) fn topic_defaults(&self, image: &MetadataImage) -> LogConfig {
        let mut properties = self.config.properties.clone();
        for resource in [ConfigResource::BrokerDefault, ConfigResource::Broker(self.config.node_id)] {
            if let Some(kept) = image.configs.resource(&resource) {
                properties.extend(kept.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        let (config, errors) = LogConfig::from_kept_broker_properties(&properties);
        for error in errors {
            tracing::error!(%error, "a setting of this broker in the metadata is not used");
        }
        config
    }

    /// The settings of `topic` on top of `defaults`. What does not read is left out, and nothing else: with the rest gone,
    /// retention could delete what the topic is told to keep.
    pub(super) fn log_config(
        image: &MetadataImage,
        topic: &TopicName,
        defaults: &LogConfig,
    ) -> Arc<LogConfig> {
        let none = Arc::new(BTreeMap::new());
        let own = image.configs.resource(&ConfigResource::Topic(topic.clone())).unwrap_or(&none);
        let overrides = own.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let (config, errors) = LogConfig::from_overrides(defaults, overrides);
        for error in errors {
            tracing::error!(%topic, %error, "a setting of the topic is not used");
        }
        Arc::new(config)
    }

    pub(super) fn replica_config(&self, config: &LogConfig) -> ReplicaConfig {
        ReplicaConfig {
            durability: if config.write_caching { Durability::PageCache } else { Durability::Flushed },
            min_in_sync_replicas: usize::try_from(config.min_insync_replicas).unwrap_or(usize::MAX),
            replica_lag_time_max_ms: self.config.replica_lag_time_max_ms,
        }
    }
}
