//! The table of settings, as the controller checks changes against it.

use std::collections::BTreeMap;

use klamm_config::{
    BrokerLayers, DynamicError, Kind, ServerSettings, Table, check_dynamic_server, check_group, check_topic,
};
use klamm_control::{ConfigRefusal, ConfigSchema};
use klamm_log::{ConfigError, LogConfig};
use klamm_metadata::ConfigResource;

/// Checks changes of settings against the table of [`klamm_config`].
#[derive(Clone, Debug)]
pub struct TableSchema {
    started_with: std::sync::Arc<ServerSettings>,
}

impl TableSchema {
    /// The table, with the settings that this controller was started with as the defaults of lists.
    #[must_use]
    pub fn new(started_with: std::sync::Arc<ServerSettings>) -> Self {
        Self { started_with }
    }
}

fn table_of(resource: &ConfigResource) -> Table {
    match resource {
        ConfigResource::Topic(_) => Table::Topic,
        ConfigResource::Broker(_) | ConfigResource::BrokerDefault => Table::Server,
        ConfigResource::Group(_) => Table::Group,
        ConfigResource::ClientMetrics(_) => Table::ClientMetrics,
    }
}

impl ConfigSchema for TableSchema {
    fn validate(&self, resource: &ConfigResource, key: &str, value: &str) -> Result<(), ConfigRefusal> {
        let checked = match resource {
            ConfigResource::Topic(_) => check_topic(key, value),
            ConfigResource::Broker(_) => check_dynamic_server(key, value, false),
            ConfigResource::BrokerDefault => check_dynamic_server(key, value, true),
            ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => {
                check_group(table_of(resource), key, value)
            }
        };
        checked.map_err(|error| match error {
            DynamicError::Unknown { .. } => ConfigRefusal::Unknown { key: key.to_owned() },
            DynamicError::NotDynamic { name, .. } => ConfigRefusal::NotDynamic { key: name.to_owned() },
            DynamicError::BadValue(bad) => {
                let allowed = format!("it must be {}", bad.allowed);
                ConfigRefusal::BadValue { key: key.to_owned(), value: bad.value, allowed }
            }
        })?;
        let read = match resource {
            ConfigResource::Topic(_) => LogConfig::check(key, value),
            ConfigResource::Broker(_) | ConfigResource::BrokerDefault => {
                LogConfig::check_broker_property(key, value)
            }
            ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => Ok(()),
        };
        read.map_err(|error| by_log(key, value, error))
    }

    /// A minimum of the compaction lag must not be past the maximum. The topic's own hold, or the defaults of the node.
    fn validate_together(
        &self,
        resource: &ConfigResource,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), ConfigRefusal> {
        let (min, max) = match resource {
            ConfigResource::Topic(_) => ("min.compaction.lag.ms", "max.compaction.lag.ms"),
            ConfigResource::Broker(_) | ConfigResource::BrokerDefault => {
                ("log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms")
            }
            ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => return Ok(()),
        };
        if !settings.contains_key(min) && !settings.contains_key(max) {
            return Ok(());
        }
        let value = |key: &str| settings.get(key).cloned().or_else(|| self.default_value(resource, key));
        let number = |text: &String| text.trim().parse::<i64>().ok();
        match (value(min), value(max)) {
            (Some(least), Some(most)) if number(&least) > number(&most) => {
                let allowed = format!("it must be at most {max} ({most})");
                Err(ConfigRefusal::BadValue { key: min.to_owned(), value: least, allowed })
            }
            _ => Ok(()),
        }
    }

    fn is_list(&self, resource: &ConfigResource, key: &str) -> bool {
        table_of(resource).find(key).is_some_and(|setting| setting.kind == Kind::List)
    }

    fn default_value(&self, resource: &ConfigResource, key: &str) -> Option<String> {
        let table = table_of(resource);
        let setting = table.find(key)?;
        let layers = BrokerLayers { own: &(), all: &(), started_with: &self.started_with };
        match table {
            Table::Server => layers.resolve(setting).value,
            Table::Topic => klamm_config::resolve_topic(setting, &(), layers).value,
            Table::Group | Table::ClientMetrics => setting.default.map(str::to_owned),
        }
    }
}

/// The log has the last word on what its settings may be: what it does not read would have no effect.
fn by_log(key: &str, value: &str, error: ConfigError) -> ConfigRefusal {
    let (value, allowed) = match error {
        ConfigError::InvalidValue { value, allowed, .. } => (value, format!("it must be {allowed}")),
        other => (value.to_owned(), other.to_string()),
    };
    ConfigRefusal::BadValue { key: key.to_owned(), value, allowed }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use klamm_config::topic_synonyms;
    use klamm_types::TopicName;

    use super::*;

    fn topic() -> ConfigResource {
        ConfigResource::Topic(TopicName::new("orders").unwrap())
    }

    #[test]
    fn changes_are_checked_by_the_table_of_the_resource() {
        let schema = TableSchema::new(Arc::default());
        assert_eq!(schema.validate(&topic(), "retention.ms", "1000"), Ok(()));
        let unknown = ConfigRefusal::Unknown { key: "log.retention.ms".to_owned() };
        assert_eq!(schema.validate(&topic(), "log.retention.ms", "1000"), Err(unknown));
        let all = ConfigResource::BrokerDefault;
        assert_eq!(schema.validate(&all, "log.retention.ms", "1000"), Ok(()));
        assert!(matches!(schema.validate(&all, "node.id", "1"), Err(ConfigRefusal::NotDynamic { .. })));
        assert!(matches!(
            schema.validate(&topic(), "retention.ms", "x"),
            Err(ConfigRefusal::BadValue { .. })
        ));
        assert!(schema.is_list(&topic(), "cleanup.policy") && !schema.is_list(&topic(), "retention.ms"));
    }

    #[test]
    fn what_the_log_would_not_read_is_refused() {
        let schema = TableSchema::new(Arc::default());
        for value in [",", "compact,", "delete,,compact"] {
            let refused = schema.validate(&topic(), "cleanup.policy", value);
            assert!(matches!(refused, Err(ConfigRefusal::BadValue { .. })), "{value:?}");
            let refused = schema.validate(&ConfigResource::BrokerDefault, "log.cleanup.policy", value);
            assert!(matches!(refused, Err(ConfigRefusal::BadValue { .. })), "{value:?} for all");
        }
        for value in ["", ",", "0:1,", "*"] {
            assert_eq!(schema.validate(&topic(), "leader.replication.throttled.replicas", value), Ok(()));
        }
        assert_eq!(schema.validate(&topic(), "internal.segment.bytes", "1000"), Ok(()));
    }

    #[test]
    fn compaction_lags_must_not_contradict_one_another() {
        let mut settings = ServerSettings::default();
        settings.set("log.cleaner.max.compaction.lag.ms", "100").unwrap();
        let schema = TableSchema::new(Arc::new(settings));
        let check = |resource: &ConfigResource, given: &[(&str, &str)]| {
            let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            schema.validate_together(resource, &given.collect())
        };
        let (min, max) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
        assert_eq!(check(&topic(), &[(min, "5"), (max, "5"), ("retention.ms", "1")]), Ok(()));
        let refused = check(&topic(), &[(min, "10"), (max, "5")]);
        let allowed = "it must be at most max.compaction.lag.ms (5)".to_owned();
        let bad = ConfigRefusal::BadValue { key: min.to_owned(), value: "10".to_owned(), allowed };
        assert_eq!(refused, Err(bad));
        assert!(check(&topic(), &[(min, "101")]).is_err(), "past the default of the node");
        assert_eq!(check(&topic(), &[(min, "100")]), Ok(()));
        let of_broker = "log.cleaner.min.compaction.lag.ms";
        assert!(check(&ConfigResource::BrokerDefault, &[(of_broker, "101")]).is_err());
    }

    #[test]
    fn lists_start_from_what_the_node_was_started_with() {
        let mut settings = ServerSettings::default();
        settings.set("log.cleanup.policy", "compact").unwrap();
        let schema = TableSchema::new(Arc::new(settings));
        assert_eq!(schema.default_value(&topic(), "cleanup.policy").as_deref(), Some("compact"));
    }

    /// The log reads the settings that the table lets through, by the same names, defaults and synonyms.
    #[test]
    fn the_log_and_the_table_agree() {
        let ours: Vec<_> = Table::Topic.settings().iter().filter(|setting| !setting.internal).collect();
        let of_log = klamm_log::definitions();
        assert_eq!(
            ours.iter().map(|setting| setting.name).collect::<Vec<_>>(),
            of_log.iter().map(|def| def.name).collect::<Vec<_>>()
        );
        for (setting, def) in ours.iter().zip(of_log) {
            assert_eq!(setting.default, Some(def.default), "{}", def.name);
            let ours: Vec<_> = topic_synonyms(def.name).iter().map(|s| (s.name, s.factor)).collect();
            let theirs: Vec<_> = def.broker_synonyms.iter().map(|s| (s.name, s.millis)).collect();
            assert_eq!(ours, theirs, "{}", def.name);
        }
    }
}
