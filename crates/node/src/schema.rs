//! The table of settings, as the controller checks changes against it.

use klamm_config::{
    BrokerLayers, DynamicError, Kind, ServerSettings, Table, check_dynamic_server, check_group, check_topic,
};
use klamm_control::{ConfigRefusal, ConfigSchema};
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
        })
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
