//! Settings of topics and brokers.

use klamm_protocol::messages::describe_configs_request::DescribeConfigsResource;
use klamm_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use klamm_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use klamm_types::BrokerId;

use super::Admin;
use crate::error::{ApiError, ClientError};

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic's.
    Topic(String),
    /// A broker's.
    Broker(BrokerId),
    /// The dynamic defaults of all brokers.
    AllBrokers,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// It was set for the topic.
    Topic,
    /// It was set for this broker while it ran.
    DynamicBroker,
    /// It was set for all brokers while they ran.
    DynamicDefaultBroker,
    /// It is in the broker's properties.
    StaticBroker,
    /// It is what Kafka takes if nothing is set.
    Default,
    /// Another number on the wire.
    Other(i8),
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` if it is secret or unset.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it can be set only in the properties.
    pub is_read_only: bool,
    /// Whether the value is secret.
    pub is_sensitive: bool,
}

/// What to do with a setting (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Give it this value.
    Set(String),
    /// Give up the value, so that the default counts again.
    Delete,
    /// Add to a list.
    Append(String),
    /// Take out of a list.
    Subtract(String),
}

impl ConfigResource {
    fn to_wire(&self) -> (i8, String) {
        match self {
            Self::Topic(name) => (2, name.clone()),
            Self::Broker(id) => (4, id.to_string()),
            Self::AllBrokers => (4, String::new()),
        }
    }
}

impl ConfigSource {
    fn from_wire(source: i8) -> Self {
        match source {
            1 => Self::Topic,
            2 => Self::DynamicBroker,
            3 => Self::DynamicDefaultBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            other => Self::Other(other),
        }
    }
}

impl ConfigOperation {
    fn to_wire(&self) -> (i8, Option<String>) {
        match self {
            Self::Set(value) => (0, Some(value.clone())),
            Self::Delete => (1, None),
            Self::Append(value) => (2, Some(value.clone())),
            Self::Subtract(value) => (3, Some(value.clone())),
        }
    }
}

impl Admin {
    /// All settings of one resource. A broker's own are asked of that broker, which alone knows its properties.
    ///
    /// # Errors
    /// [`ClientError`] if no broker answers, or if it refuses.
    pub async fn describe_configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>, ClientError> {
        let (resource_type, resource_name) = resource.to_wire();
        let resources =
            vec![DescribeConfigsResource { resource_type, resource_name, configuration_keys: None }];
        let request = DescribeConfigsRequest { resources, ..DescribeConfigsRequest::default() };
        if let ConfigResource::Broker(id) = resource {
            return entries(self.cluster.broker(*id).await?.call(&request).await?);
        }
        self.look_up(&request, entries).await
    }

    /// Changes settings of one resource, all or none.
    ///
    /// # Errors
    /// [`ClientError`] if there is no answer, [`ClientError::Api`] if the cluster refuses.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigOperation)],
    ) -> Result<(), ClientError> {
        let (resource_type, resource_name) = resource.to_wire();
        let change = |(name, operation): &(String, ConfigOperation)| {
            let (config_operation, value) = operation.to_wire();
            AlterableConfig { name: name.clone(), config_operation, value }
        };
        let configs = changes.iter().map(change).collect();
        let resources = vec![AlterConfigsResource { resource_type, resource_name, configs }];
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        let answer = match resource {
            ConfigResource::Broker(id) => self.cluster.broker(*id).await?.call(&request).await?,
            ConfigResource::Topic(_) | ConfigResource::AllBrokers => self.change(&request).await?,
        };
        for result in answer.responses {
            ApiError::check(result.error_code, result.error_message.as_deref())?;
        }
        Ok(())
    }
}

fn entries(
    answer: klamm_protocol::messages::DescribeConfigsResponse,
) -> Result<Vec<ConfigEntry>, ClientError> {
    let mut found = Vec::new();
    for result in answer.results {
        ApiError::check(result.error_code, result.error_message.as_deref())?;
        found.extend(result.configs.into_iter().map(|config| ConfigEntry {
            name: config.name,
            value: config.value,
            source: ConfigSource::from_wire(config.config_source),
            is_read_only: config.read_only,
            is_sensitive: config.is_sensitive,
        }));
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
