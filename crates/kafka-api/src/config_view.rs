//! Settings as clients are told of them: the value that holds, and where it comes from (KIP-226).

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_config::{
    BrokerLayers, Candidate, DynamicValues, Kind, Resolved, Scope, ServerSettings, Setting, Source, Table,
    resolve_own, resolve_topic,
};
use klamm_metadata::{ConfigResource, MetadataImage};
use klamm_pb::controller::v1::ConfigEntry;
use klamm_protocol::messages::create_topics_response::CreatableTopicConfigs;
use klamm_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsSynonym,
};
use klamm_types::{BrokerId, TopicName};

use crate::cluster::Cluster;

/// The number of the source of a logger's level.
const BROKER_LOGGER_SOURCE: i8 = 6;

/// Whose settings are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Topic,
    Broker,
    ClientMetrics,
    Group,
}

impl Owner {
    /// Where a value comes from, as the protocol numbers it.
    fn source(self, source: Source) -> i8 {
        match (source, self) {
            (Source::Resource, Self::Topic) => 1,
            (Source::Resource, Self::ClientMetrics) => 7,
            (Source::Resource, Self::Group) => 8,
            // What a broker has of its own was set while it ran.
            (Source::DynamicBroker, _) | (Source::Resource, Self::Broker) => 2,
            (Source::DynamicDefaultBroker, _) => 3,
            (Source::StaticBroker, _) => 4,
            (Source::Default, _) => 5,
        }
    }
}

/// What a client wants to know of each setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detail {
    pub(crate) synonyms: bool,
    pub(crate) documentation: bool,
}

/// The settings of one image, on the broker that answers.
pub(crate) struct ConfigView {
    image: Arc<MetadataImage>,
    settings: Arc<ServerSettings>,
    broker: BrokerId,
}

/// The values of one resource, if it has any.
struct Own<'a>(Option<&'a Arc<BTreeMap<String, String>>>);

impl DynamicValues for Own<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.0?.get(name).map(String::as_str)
    }
}

impl ConfigView {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self { image: cluster.metadata.image(), settings: cluster.settings.clone(), broker: cluster.broker }
    }

    pub(crate) fn image(&self) -> &MetadataImage {
        &self.image
    }

    fn own(&self, resource: &ConfigResource) -> Own<'_> {
        Own(self.image.configs.resource(resource))
    }

    /// The settings of a topic.
    pub(crate) fn topic(&self, topic: &TopicName, detail: Detail) -> Vec<DescribeConfigsResourceResult> {
        let own = self.own(&ConfigResource::Topic(topic.clone()));
        self.topic_settings(&own)
            .map(|(setting, resolved)| told(setting, resolved, Owner::Topic, detail))
            .collect()
    }

    /// The settings of a topic that was created with `own` values, as CreateTopics tells them.
    pub(crate) fn created_topic(&self, own: &[ConfigEntry]) -> Vec<CreatableTopicConfigs> {
        let own: BTreeMap<_, _> = own.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        let told = self.topic_settings(&own).map(|(setting, resolved)| CreatableTopicConfigs {
            name: setting.name.to_owned(),
            value: resolved.value.filter(|_| !setting.is_sensitive()),
            read_only: false,
            config_source: Owner::Topic.source(resolved.source),
            is_sensitive: setting.is_sensitive(),
        });
        told.collect()
    }

    fn topic_settings(&self, own: &dyn DynamicValues) -> impl Iterator<Item = (&'static Setting, Resolved)> {
        let broker = self.own(&ConfigResource::Broker(self.broker));
        let all = self.own(&ConfigResource::BrokerDefault);
        let layers = BrokerLayers { own: &broker, all: &all, started_with: &self.settings };
        let shown = Table::Topic.settings().iter().filter(|setting| !setting.internal);
        let resolved: Vec<_> = shown.map(|setting| (setting, resolve_topic(setting, own, layers))).collect();
        resolved.into_iter()
    }

    /// The settings of the broker that answers.
    pub(crate) fn broker(&self, detail: Detail) -> Vec<DescribeConfigsResourceResult> {
        let own = self.own(&ConfigResource::Broker(self.broker));
        let all = self.own(&ConfigResource::BrokerDefault);
        let layers = BrokerLayers { own: &own, all: &all, started_with: &self.settings };
        let given = |setting: &Setting| self.settings.given(setting.name).is_some();
        let shown = Table::Server.settings().iter().filter(|setting| !setting.internal || given(setting));
        shown.map(|setting| told(setting, layers.resolve(setting), Owner::Broker, detail)).collect()
    }

    /// What was set for all brokers, and nothing else.
    pub(crate) fn broker_default(&self, detail: Detail) -> Vec<DescribeConfigsResourceResult> {
        let all = self.own(&ConfigResource::BrokerDefault);
        let own = all.0.into_iter().flat_map(|own| own.iter());
        let entries = own.filter_map(|(name, value)| {
            let setting = Table::Server.find(name)?;
            let value = Some(value.clone());
            let source = Source::DynamicDefaultBroker;
            let candidate = Candidate { name: setting.name, value: value.clone(), source };
            let resolved = Resolved { value, source, candidates: vec![candidate] };
            Some(told(setting, resolved, Owner::Broker, detail))
        });
        entries.collect()
    }

    /// The settings of a group, which need not exist: what brokers have for all groups is the default of each.
    pub(crate) fn group(&self, group: &str, detail: Detail) -> Vec<DescribeConfigsResourceResult> {
        let own = self.own(&ConfigResource::Group(group.to_owned()));
        let broker = self.own(&ConfigResource::Broker(self.broker));
        let all = self.own(&ConfigResource::BrokerDefault);
        let layers = BrokerLayers { own: &broker, all: &all, started_with: &self.settings };
        let shown = Table::Group.settings().iter().filter(|setting| !setting.internal);
        let resolved = shown.map(|setting| {
            let mut resolved = resolve_own(setting, &own);
            if let Some(server) = Table::Server.find(&format!("group.{}", setting.name)) {
                let default = layers.resolve(server);
                if resolved.source != Source::Resource {
                    (resolved.value, resolved.source) = (default.value, default.source);
                }
                resolved.candidates.retain(|candidate| candidate.source == Source::Resource);
                resolved.candidates.extend(default.candidates);
            }
            told(setting, resolved, Owner::Group, detail)
        });
        resolved.collect()
    }

    /// The settings of a subscription to clients' metrics; none if there is no such subscription.
    pub(crate) fn client_metrics(&self, name: &str, detail: Detail) -> Vec<DescribeConfigsResourceResult> {
        let own = self.own(&ConfigResource::ClientMetrics(name.to_owned()));
        if own.0.is_none() {
            return Vec::new();
        }
        let shown = Table::ClientMetrics.settings().iter().filter(|setting| !setting.internal);
        let resolved = shown.map(|setting| {
            let mut resolved = resolve_own(setting, &own);
            resolved.candidates.retain(|candidate| candidate.source == Source::Resource);
            told(setting, resolved, Owner::ClientMetrics, detail)
        });
        resolved.collect()
    }
}

/// A logger's level, as a setting.
pub(crate) fn log_level(logger: String, level: String) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: logger,
        value: Some(level),
        config_source: BROKER_LOGGER_SOURCE,
        config_type: kind(Kind::String),
        documentation: None,
        ..DescribeConfigsResourceResult::default()
    }
}

fn told(
    setting: &'static Setting,
    resolved: Resolved,
    owner: Owner,
    detail: Detail,
) -> DescribeConfigsResourceResult {
    let is_sensitive = setting.is_sensitive();
    let shown = |value: Option<String>| value.filter(|_| !is_sensitive);
    let synonyms = resolved.candidates.into_iter().filter(|_| detail.synonyms);
    let synonyms = synonyms.map(|candidate| DescribeConfigsSynonym {
        name: candidate.name.to_owned(),
        value: shown(candidate.value),
        source: owner.source(candidate.source),
    });
    DescribeConfigsResourceResult {
        name: setting.name.to_owned(),
        value: shown(resolved.value),
        read_only: owner == Owner::Broker && setting.scope == Scope::ReadOnly,
        config_source: owner.source(resolved.source),
        is_sensitive,
        synonyms: synonyms.collect(),
        config_type: kind(setting.kind),
        documentation: detail.documentation.then(|| setting.doc.to_owned()),
    }
}

fn kind(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::String => 2,
        Kind::Int => 3,
        Kind::Short => 4,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
        Kind::Class => 8,
        Kind::Password => 9,
    }
}
