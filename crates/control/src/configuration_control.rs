//! Settings of topics, brokers, groups and metrics subscriptions.

use std::collections::{BTreeMap, BTreeSet};

use klamm_metadata::{ConfigResource, MetadataRecord};

use crate::draft::Draft;
use crate::partition_change::Election;
use crate::replication_control::{Standing, is_unfenced};
use crate::settings::{MIN_INSYNC_REPLICAS, min_insync_replicas};
use crate::{ControlConfig, ControlResult, Refusal, Refused, ReplicationControl};

/// The longest value, as in Kafka.
const VALUE_BYTES_MAX: usize = 32_767;

/// Which settings there are and what they may be. The caller knows: `control` does not.
pub trait ConfigSchema {
    /// Checks a value of a setting of `resource`.
    ///
    /// # Errors
    /// [`ConfigRefusal`] if there is no such setting, or it cannot have that value.
    fn validate(&self, resource: &ConfigResource, key: &str, value: &str) -> Result<(), ConfigRefusal>;

    /// Checks what the settings of a resource come to together, each of which has been found good alone. Where there are
    /// no rules between settings, all is well.
    ///
    /// # Errors
    /// [`ConfigRefusal`] if one contradicts another.
    fn validate_together(
        &self,
        _resource: &ConfigResource,
        _settings: &BTreeMap<String, String>,
    ) -> Result<(), ConfigRefusal> {
        Ok(())
    }

    /// Whether the setting is a list, separated by commas, that values can be added to and taken from.
    fn is_list(&self, resource: &ConfigResource, key: &str) -> bool;

    /// What a list holds where nobody has set it: the value that additions and removals start from.
    fn default_value(&self, resource: &ConfigResource, key: &str) -> Option<String>;
}

/// Why a setting is refused; each variant is `INVALID_CONFIG` unless it says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigRefusal {
    /// There is no such setting.
    #[error("unknown setting {key}")]
    Unknown {
        /// The setting.
        key: String,
    },
    /// The value is not one that the setting can have.
    #[error("{key} cannot be {value:?}: {allowed}")]
    BadValue {
        /// The setting.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The setting cannot change while the cluster runs, or not for that resource.
    #[error("{key} cannot be set here")]
    NotDynamic {
        /// The setting.
        key: String,
    },
    /// Addition to or removal from what is no list.
    #[error("{key} is no list")]
    NotAList {
        /// The setting.
        key: String,
    },
    /// Longer than 32,767 bytes.
    #[error("the value of {key} has {bytes} bytes, more than {VALUE_BYTES_MAX}")]
    TooLong {
        /// The setting.
        key: String,
        /// How long the value is.
        bytes: usize,
    },
    /// `INVALID_REQUEST` where operations are asked for; `INVALID_CONFIG` when a topic is created.
    #[error("{key} is named twice")]
    NamedTwice {
        /// The setting.
        key: String,
    },
}

/// Why a resource's settings stay as they are.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    #[error("the topic does not exist")]
    UnknownTopic,
    /// `BROKER_ID_NOT_REGISTERED`.
    #[error("the broker is not registered")]
    UnknownBroker,
    /// `INVALID_REQUEST`: the resource, or one of its settings, is named twice.
    #[error("a resource or a setting is named twice")]
    NamedTwice,
    /// `INVALID_REQUEST`: a group or a subscription without a name.
    #[error("the resource has no name")]
    NoName,
    /// `INVALID_CONFIG`.
    #[error("a setting is refused")]
    Refused(#[source] ConfigRefusal),
}

impl Refused for ConfigError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::UnknownTopic => Refusal::UnknownTopicOrPartition,
            Self::UnknownBroker => Refusal::BrokerIdNotRegistered,
            Self::NamedTwice | Self::NoName => Refusal::InvalidRequest,
            Self::Refused(_) => Refusal::InvalidConfig,
        }
    }
}

/// What shall become of one setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigOperation {
    /// It gets a value.
    Set(String),
    /// It loses its value, so that a default counts.
    Delete,
    /// These items, separated by commas, are added to a list; those that it has already stay where they are.
    Append(String),
    /// These items, separated by commas, are taken from a list.
    Subtract(String),
}

/// What shall become of one resource's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterResource {
    /// Whose settings.
    pub resource: ConfigResource,
    /// Setting by setting; none twice.
    pub operations: Vec<(String, ConfigOperation)>,
    /// Settings that are not named lose their values (the older `AlterConfigs`).
    pub replace_all: bool,
}

type NewValues = BTreeMap<String, Option<String>>;

/// Decisions about settings, on one image.
#[derive(Clone, Copy)]
pub struct ConfigurationControl<'a> {
    control: ReplicationControl<'a>,
    schema: &'a dyn ConfigSchema,
}

impl<'a> ConfigurationControl<'a> {
    /// Decisions on what `control` decides on, with settings as `schema` knows them.
    #[must_use]
    pub fn new(control: ReplicationControl<'a>, schema: &'a dyn ConfigSchema) -> Self {
        Self { control, schema }
    }

    /// Alters settings; each resource alone, all of its settings or none. When `min.insync.replicas` of a partition
    /// changes, the ELR that was kept under the old minimum is forgotten (KIP-966).
    ///
    /// With an ISR that is empty the ELR stays: nobody leads, hence no high watermark moves, and nobody else could ever
    /// lead again without loss.
    pub fn alter_configs(&self, wanted: &[AlterResource]) -> ControlResult<Vec<Result<(), ConfigError>>> {
        let mut draft = Draft::new(self.control.image);
        let mut named = BTreeSet::new();
        let twice: BTreeSet<_> = wanted.iter().map(|w| &w.resource).filter(|r| !named.insert(*r)).collect();
        let mut outcomes = Vec::with_capacity(wanted.len());
        for alter in wanted {
            if twice.contains(&alter.resource) {
                outcomes.push(Err(ConfigError::NamedTwice));
                continue;
            }
            let values = self.new_values(alter);
            outcomes
                .push(values.map(|values| apply(&mut draft, &alter.resource, values, self.control.config)));
        }
        ControlResult::atomic(draft.records, outcomes)
    }

    fn new_values(&self, alter: &AlterResource) -> Result<NewValues, ConfigError> {
        let resource = &alter.resource;
        self.check_exists(resource)?;
        let mut values = NewValues::new();
        for (key, operation) in &alter.operations {
            let value = self.new_value(resource, key, operation).map_err(ConfigError::Refused)?;
            if let Some(value) = &value {
                self.validate(resource, key, value).map_err(ConfigError::Refused)?;
            }
            if values.insert(key.clone(), value).is_some() {
                return Err(ConfigError::NamedTwice);
            }
        }
        if alter.replace_all
            && let Some(current) = self.control.image.configs.resource(resource)
        {
            for key in current.keys() {
                values.entry(key.clone()).or_insert(None);
            }
        }
        let mut together: BTreeMap<String, String> =
            self.control.image.configs.resource(resource).map(|kept| (**kept).clone()).unwrap_or_default();
        for (key, value) in &values {
            match value {
                Some(value) => together.insert(key.clone(), value.clone()),
                None => together.remove(key),
            };
        }
        self.schema.validate_together(resource, &together).map_err(ConfigError::Refused)?;
        Ok(values)
    }

    fn check_exists(&self, resource: &ConfigResource) -> Result<(), ConfigError> {
        let image = self.control.image;
        let (exists, error) = match resource {
            ConfigResource::Topic(name) => {
                (image.topics.topic_by_name(name).is_some(), ConfigError::UnknownTopic)
            }
            ConfigResource::Broker(id) => (image.cluster.broker(*id).is_some(), ConfigError::UnknownBroker),
            ConfigResource::BrokerDefault => (true, ConfigError::UnknownBroker),
            ConfigResource::Group(name) | ConfigResource::ClientMetrics(name) => {
                (!name.is_empty(), ConfigError::NoName)
            }
        };
        if exists { Ok(()) } else { Err(error) }
    }

    fn validate(&self, resource: &ConfigResource, key: &str, value: &str) -> Result<(), ConfigRefusal> {
        let key = || key.to_owned();
        if value.len() > VALUE_BYTES_MAX {
            return Err(ConfigRefusal::TooLong { key: key(), bytes: value.len() });
        }
        // A minimum of one broker's own would make two controllers' answers differ with who leads.
        if matches!(resource, ConfigResource::Broker(_)) && key() == MIN_INSYNC_REPLICAS {
            return Err(ConfigRefusal::NotDynamic { key: key() });
        }
        self.schema.validate(resource, &key(), value)
    }

    fn new_value(
        &self,
        resource: &ConfigResource,
        key: &str,
        operation: &ConfigOperation,
    ) -> Result<Option<String>, ConfigRefusal> {
        let (items, append) = match operation {
            ConfigOperation::Set(value) => return Ok(Some(value.clone())),
            ConfigOperation::Delete => return Ok(None),
            ConfigOperation::Append(items) => (items, true),
            ConfigOperation::Subtract(items) => (items, false),
        };
        if !self.schema.is_list(resource, key) {
            return Err(ConfigRefusal::NotAList { key: key.to_owned() });
        }
        let current = self.control.image.configs.value(resource, key).map(str::to_owned);
        let current = current.or_else(|| self.schema.default_value(resource, key)).unwrap_or_default();
        let mut list: Vec<&str> = split(&current).collect();
        for item in split(items) {
            if !append {
                list.retain(|other| *other != item);
            } else if !list.contains(&item) {
                list.push(item);
            }
        }
        Ok(Some(list.join(",")))
    }
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Writes what differs. What was kept under another minimum goes first, so that no image has the new one with the old ELR.
fn apply(draft: &mut Draft, resource: &ConfigResource, values: NewValues, config: &ControlConfig) {
    let before = draft.image().clone();
    let mut after = Draft::new(&before);
    for (key, value) in values {
        if before.configs.value(resource, &key) != value.as_deref() {
            after.push(MetadataRecord::ConfigChanged { resource: resource.clone(), key, value });
        }
    }
    let may_lead = |broker| before.cluster.is_active(broker);
    let may_stay = |broker| is_unfenced(&before, broker);
    let standing = Standing { may_lead: &may_lead, may_stay: &may_stay };
    let control = ReplicationControl::new(&before, config);
    for located in control.partitions() {
        let min_isr = min_insync_replicas(after.image(), config, &located.topic.name);
        if min_isr == located.min_isr {
            continue;
        }
        let mut builder = control.builder(located, &standing);
        builder.election = Election::Clean;
        builder.min_isr = min_isr;
        builder.forget_elr = true;
        #[cfg(not(mutant = "B17"))]
        builder.build().into_iter().for_each(|record| draft.push(record));
        #[cfg(mutant = "B17")]
        drop(builder);
    }
    after.records.into_iter().for_each(|record| draft.push(record));
}
