use std::collections::BTreeMap;

use super::*;

type Values = BTreeMap<String, String>;

fn values<const N: usize>(pairs: [(&str, &str); N]) -> Values {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn started<const N: usize>(pairs: [(&str, &str); N]) -> ServerSettings {
    let mut settings = ServerSettings::default();
    for (name, value) in pairs {
        settings.set(name, value).unwrap();
    }
    settings
}

fn told(resolved: &Resolved) -> Vec<(&str, Option<&str>, Source)> {
    resolved.candidates.iter().map(|c| (c.name, c.value.as_deref(), c.source)).collect()
}

fn topic(name: &str, own: &Values, layers: BrokerLayers<'_>) -> Resolved {
    resolve_topic(Table::Topic.find(name).unwrap(), own, layers)
}

#[test]
fn the_nearest_place_wins() {
    let started_with = started([("log.segment.bytes", "2000000")]);
    let (own, all) = (values([("log.segment.bytes", "4000000")]), values([("log.segment.bytes", "3000000")]));
    let layers = BrokerLayers { own: &own, all: &all, started_with: &started_with };
    let resolved = topic("segment.bytes", &values([("segment.bytes", "5000000")]), layers);
    assert_eq!((resolved.value.as_deref(), resolved.source), (Some("5000000"), Source::Resource));
    let all_places = [
        ("segment.bytes", Some("5000000"), Source::Resource),
        ("log.segment.bytes", Some("4000000"), Source::DynamicBroker),
        ("log.segment.bytes", Some("3000000"), Source::DynamicDefaultBroker),
        ("log.segment.bytes", Some("2000000"), Source::StaticBroker),
        ("log.segment.bytes", Some("1073741824"), Source::Default),
    ];
    assert_eq!(told(&resolved), all_places);
    let without_own = topic("segment.bytes", &values([]), layers);
    assert_eq!((without_own.value.as_deref(), without_own.source), (Some("4000000"), Source::DynamicBroker));
    assert_eq!(told(&without_own), all_places[1..]);
}

#[test]
fn hours_become_milliseconds_and_are_told_as_kafka_does() {
    let nothing = values([]);
    let layers = |started_with| BrokerLayers { own: &(), all: &(), started_with };
    let plain = started([]);
    let resolved = topic("retention.ms", &nothing, layers(&plain));
    assert_eq!((resolved.value.as_deref(), resolved.source), (Some("604800000"), Source::Default));
    assert_eq!(told(&resolved), []);

    let hours = started([("log.retention.hours", "1")]);
    let resolved = topic("retention.ms", &nothing, layers(&hours));
    assert_eq!((resolved.value.as_deref(), resolved.source), (Some("3600000"), Source::Default));

    let both = started([("log.retention.hours", "1"), ("log.retention.ms", "7")]);
    let resolved = topic("retention.ms", &nothing, layers(&both));
    assert_eq!((resolved.value.as_deref(), resolved.source), (Some("7"), Source::StaticBroker));
    assert_eq!(
        told(&resolved),
        [
            ("log.retention.ms", Some("7"), Source::StaticBroker),
            ("log.retention.hours", Some("1"), Source::StaticBroker),
            ("log.retention.hours", Some("168"), Source::Default),
        ]
    );
    let broker = layers(&hours).resolve(Table::Server.find("log.retention.ms").unwrap());
    assert_eq!((broker.value, broker.source, broker.candidates), (None, Source::Default, vec![]));
    let broker = layers(&hours).resolve(Table::Server.find("log.retention.hours").unwrap());
    assert_eq!((broker.value.as_deref(), broker.source), (Some("1"), Source::StaticBroker));
}

#[test]
fn what_cannot_change_or_does_not_fit_is_passed_over() {
    let started_with = started([]);
    let own = values([("num.partitions", "9"), ("log.segment.bytes", "many")]);
    let layers = BrokerLayers { own: &own, all: &(), started_with: &started_with };
    let partitions = layers.resolve(Table::Server.find("num.partitions").unwrap());
    assert_eq!((partitions.value.as_deref(), partitions.source), (Some("1"), Source::Default));
    let segment = topic("segment.bytes", &values([("segment.bytes", "1")]), layers);
    assert_eq!((segment.value.as_deref(), segment.source), (Some("1073741824"), Source::Default));
}

#[test]
fn a_topic_has_all_of_its_settings() {
    let started_with = started([("log.retention.minutes", "2"), ("klamm.write.caching", "true")]);
    let layers = BrokerLayers { own: &(), all: &(), started_with: &started_with };
    let config = TopicConfig::resolve(&values([("cleanup.policy", "compact")]), layers);
    assert_eq!(config.iter().count(), 34);
    assert_eq!(config.get("retention.ms"), Some(Value::Integer(120_000)));
    assert_eq!(config.get("write.caching"), Some(Value::Boolean(true)));
    assert_eq!(config.get("cleanup.policy"), Some(Value::List(vec!["compact".into()])));
    assert_eq!(config.get("internal.segment.bytes"), None);
    assert_eq!(config.get("no.such.setting"), None);
}

#[test]
fn groups_have_their_own_values_or_the_defaults() {
    let setting = Table::Group.find("consumer.session.timeout.ms").unwrap();
    let resolved = resolve_own(setting, &values([("consumer.session.timeout.ms", "50000")]));
    assert_eq!((resolved.value.as_deref(), resolved.source), (Some("50000"), Source::Resource));
    assert_eq!(resolved.candidates.len(), 2);
    assert_eq!(resolve_own(setting, &()).source, Source::Default);
}
