//! Settings that differ from what brokers were started with.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_types::TopicName;

use crate::{ConfigResource, PersistentMap};

/// The settings of topics, brokers, groups and metrics subscriptions. Values are text, as Kafka carries them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfigurationsImage {
    resources: PersistentMap<ConfigResource, Arc<BTreeMap<String, String>>>,
}

impl ConfigurationsImage {
    /// The value of `key` that `resource` itself has; no default of any kind is looked up.
    #[must_use]
    pub fn value(&self, resource: &ConfigResource, key: &str) -> Option<&str> {
        self.resources.get(resource)?.get(key).map(String::as_str)
    }

    /// The settings of `resource`, ordered by name; `None` if it has none.
    #[must_use]
    pub fn resource(&self, resource: &ConfigResource) -> Option<&Arc<BTreeMap<String, String>>> {
        self.resources.get(resource)
    }

    /// All resources that have settings, in order.
    pub fn resources(&self) -> impl Iterator<Item = (&ConfigResource, &Arc<BTreeMap<String, String>>)> {
        self.resources.iter()
    }

    pub(crate) fn set(&mut self, resource: &ConfigResource, key: &str, value: Option<&str>) {
        let Some(value) = value else { return self.remove(resource, key) };
        let set = |settings: &mut Arc<BTreeMap<String, String>>| {
            Arc::make_mut(settings).insert(key.to_owned(), value.to_owned());
        };
        match self.resources.get_mut(resource) {
            Some(settings) => set(settings),
            None => {
                let mut settings = Arc::default();
                set(&mut settings);
                self.resources.insert(resource.clone(), settings);
            }
        }
    }

    fn remove(&mut self, resource: &ConfigResource, key: &str) {
        let Some(settings) = self.resources.get_mut(resource) else { return };
        let settings = Arc::make_mut(settings);
        settings.remove(key);
        if settings.is_empty() {
            self.resources.remove(resource);
        }
    }

    pub(crate) fn remove_topic(&mut self, topic: &TopicName) -> bool {
        self.resources.remove(&ConfigResource::Topic(topic.clone())).is_some()
    }
}
