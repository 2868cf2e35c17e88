//! Which value holds where several places give one, and where it comes from.

use crate::server_settings::{scaled, synonyms_of};
use crate::synonyms::{Synonym, topic_synonyms};
use crate::{Scope, ServerSettings, Setting, Table, Value};

/// Values that were set while the cluster ran, for one resource: what the metadata image holds for it.
pub trait DynamicValues {
    /// The value that was set for `name`.
    fn value(&self, name: &str) -> Option<&str>;
}

/// No values at all.
impl DynamicValues for () {
    fn value(&self, _name: &str) -> Option<&str> {
        None
    }
}

impl DynamicValues for std::collections::BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// Where a value comes from; each wins over those after it (KIP-226).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// Set for the resource itself: a topic, a group, a subscription.
    Resource,
    /// Set for this broker while it ran.
    DynamicBroker,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker,
    /// The broker was started with it.
    StaticBroker,
    /// The default of the table.
    Default,
}

/// One of the places that give a setting a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The name under which it was given there.
    pub name: &'static str,
    /// The value as it was given, in the unit of that name. `None` is `null`.
    pub value: Option<String>,
    /// The place.
    pub source: Source,
}

/// A setting with the value that holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The value as text, in the setting's own unit. `None` is `null`.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// Every place that gives a value, the one that holds first; the default is one, unless it is `null`. Where only
    /// settings of another unit give one it is empty, and the source is the default, as in Kafka.
    pub candidates: Vec<Candidate>,
}

/// The values of brokers that everything else falls back to.
#[derive(Clone, Copy)]
pub struct BrokerLayers<'a> {
    /// Set for this broker while it ran.
    pub own: &'a dyn DynamicValues,
    /// Set for all brokers while they ran.
    pub all: &'a dyn DynamicValues,
    /// What the broker was started with.
    pub started_with: &'a ServerSettings,
}

impl BrokerLayers<'_> {
    /// A broker's setting, as `DescribeConfigs` tells it: the value is the one under this very name, even where a
    /// setting of another unit holds instead (`log.retention.ms` is `null` if only `log.retention.hours` was given).
    #[must_use]
    pub fn resolve(&self, setting: &'static Setting) -> Resolved {
        let found = self.found(setting, synonyms_of(setting));
        let own = found.iter().find(|(candidate, _)| candidate.name == setting.name);
        let value = own.and_then(|(_, text)| text.clone());
        finish(setting.name, value, found)
    }

    /// What each place holds under any of the names, with the value in the unit of `setting`: all names in one place
    /// before the next place. Values that the setting cannot have are left out.
    fn found(
        &self,
        setting: &'static Setting,
        names: impl Iterator<Item = Synonym>,
    ) -> Vec<(Candidate, Option<String>)> {
        let names: Vec<Synonym> = names.collect();
        let places =
            [Source::DynamicBroker, Source::DynamicDefaultBroker, Source::StaticBroker, Source::Default];
        let in_places = places.into_iter().flat_map(|source| names.iter().map(move |name| (source, *name)));
        let candidates = in_places.filter_map(|(source, synonym)| {
            let value = self.value_in(source, synonym.name)?;
            let in_own_unit =
                scaled(setting, synonym.factor, &value).filter(|text| setting.parse(text).is_ok())?;
            Some((Candidate { name: synonym.name, value: Some(value), source }, Some(in_own_unit)))
        });
        candidates.collect()
    }

    fn value_in(&self, source: Source, name: &str) -> Option<String> {
        let setting = Table::Server.find(name)?;
        let is_dynamic = setting.scope != Scope::ReadOnly;
        let value = match source {
            Source::Resource => None,
            Source::DynamicBroker => self.own.value(name).filter(|_| is_dynamic),
            Source::DynamicDefaultBroker => self.all.value(name).filter(|_| is_dynamic),
            Source::StaticBroker => self.started_with.given(name),
            Source::Default => setting.default,
        };
        value.map(str::to_owned)
    }
}

/// A topic's setting: the topic's own value, else the brokers' under the setting's synonyms, else the default.
///
/// A value that does not pass the check of the setting is passed over: it cannot have been accepted by this version.
#[must_use]
pub fn resolve_topic(
    setting: &'static Setting,
    own: &dyn DynamicValues,
    brokers: BrokerLayers<'_>,
) -> Resolved {
    let synonyms = topic_synonyms(setting.name);
    let broker_name = synonyms.first().map_or(setting.name, |synonym| synonym.name);
    let from_brokers = brokers.found(setting, synonyms.iter().copied());
    let own = own_candidate(setting, own);
    let first = own.as_ref().or(from_brokers.first());
    let value = first.and_then(|(_, text)| text.clone()).or_else(|| setting.default.map(str::to_owned));
    let mut resolved = finish(broker_name, value, from_brokers);
    if let Some((candidate, _)) = own {
        resolved.source = candidate.source;
        resolved.candidates.insert(0, candidate);
    }
    resolved
}

/// A setting of a group or of a subscription to clients' metrics: its own value, else the default.
#[must_use]
pub fn resolve_own(setting: &'static Setting, own: &dyn DynamicValues) -> Resolved {
    let default = setting.default.map(|text| {
        let candidate =
            Candidate { name: setting.name, value: Some(text.to_owned()), source: Source::Default };
        (candidate, Some(text.to_owned()))
    });
    let found: Vec<_> = own_candidate(setting, own).into_iter().chain(default).collect();
    let value = found.first().and_then(|(_, text)| text.clone());
    finish(setting.name, value, found)
}

fn own_candidate(setting: &'static Setting, own: &dyn DynamicValues) -> Option<(Candidate, Option<String>)> {
    let value = own.value(setting.name).filter(|text| setting.parse(text).is_ok())?.to_owned();
    let candidate = Candidate { name: setting.name, value: Some(value.clone()), source: Source::Resource };
    Some((candidate, Some(value)))
}

/// As Kafka does, candidates before the first of the name `name` are not told.
fn finish(name: &str, value: Option<String>, found: Vec<(Candidate, Option<String>)>) -> Resolved {
    let told =
        found.into_iter().map(|(candidate, _)| candidate).skip_while(|candidate| candidate.name != name);
    let candidates: Vec<Candidate> = told.collect();
    let source = candidates.first().map_or(Source::Default, |candidate| candidate.source);
    Resolved { value, source, candidates }
}

/// All settings of one topic, with the values that hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    values: Vec<(&'static str, String)>,
}

impl TopicConfig {
    /// The settings of a topic with the values `own`, on these brokers.
    #[must_use]
    pub fn resolve(own: &dyn DynamicValues, brokers: BrokerLayers<'_>) -> Self {
        let resolved = Table::Topic.settings().iter().filter(|setting| !setting.internal);
        let values = resolved.filter_map(|s| Some((s.name, resolve_topic(s, own, brokers).value?)));
        Self { values: values.collect() }
    }

    /// Names and values, every value as text, in the order of the names: what `LogConfig::from_overrides` takes.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The value of one setting. `None` if there is no such setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        let at = self.values.binary_search_by_key(&name, |(name, _)| name).ok()?;
        let (name, text) = self.values.get(at)?;
        Table::Topic.find(name)?.parse(text).ok()
    }
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod tests;
