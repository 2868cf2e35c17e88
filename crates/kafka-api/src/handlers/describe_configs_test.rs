use klamm_metadata::ConfigResource;
use klamm_types::BrokerId;

use super::*;
use crate::fixture::{Bed, answer, context_of, setting, topic};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const METRICS: i8 = 16;
const GROUP: i8 = 32;

fn bed() -> Arc<Bed> {
    let bed = Bed::with_brokers(&[(1, false), (2, false)]);
    bed.learn(&topic(1, "orders", &[&[1]]));
    bed
}

fn ask(bed: &Arc<Bed>, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let handler = DescribeConfigsHandler::new(bed.cluster(), bed.loggers());
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    let mut results = answer(handler.handle(context_of::<DescribeConfigsRequest>(4), request)).results;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

fn only(bed: &Arc<Bed>, kind: i8, name: &str, key: &str) -> DescribeConfigsResourceResult {
    let mut result = ask(bed, kind, name, Some(&[key]));
    assert_eq!((result.error_code, result.configs.len()), (0, 1), "{result:?}");
    result.configs.remove(0)
}

fn synonyms(entry: &DescribeConfigsResourceResult) -> Vec<(&str, Option<&str>, i8)> {
    entry.synonyms.iter().map(|s| (s.name.as_str(), s.value.as_deref(), s.source)).collect()
}

#[test]
fn a_topics_setting_tells_every_place_that_gives_a_value() {
    let bed = bed();
    let entry = only(&bed, TOPIC, "orders", "segment.bytes");
    assert_eq!((entry.value.as_deref(), entry.config_source, entry.config_type), (Some("1073741824"), 5, 3));
    assert_eq!(synonyms(&entry), [("log.segment.bytes", Some("1073741824"), 5)]);
    assert!(!entry.read_only && !entry.is_sensitive && entry.documentation.is_some());

    bed.start_with("log.segment.bytes", "20000000");
    bed.learn(&[
        setting(ConfigResource::BrokerDefault, "log.segment.bytes", "30000000"),
        setting(ConfigResource::Broker(BrokerId(1)), "log.segment.bytes", "40000000"),
        setting(ConfigResource::Broker(BrokerId(2)), "log.segment.bytes", "50000000"),
    ]);
    let broker = [
        ("log.segment.bytes", Some("40000000"), 2),
        ("log.segment.bytes", Some("30000000"), 3),
        ("log.segment.bytes", Some("20000000"), 4),
        ("log.segment.bytes", Some("1073741824"), 5),
    ];
    let entry = only(&bed, TOPIC, "orders", "segment.bytes");
    assert_eq!((entry.value.as_deref(), entry.config_source), (Some("40000000"), 2));
    assert_eq!(synonyms(&entry), broker);

    bed.learn(&[setting(
        ConfigResource::Topic(TopicName::new("orders").unwrap()),
        "segment.bytes",
        "60000000",
    )]);
    let entry = only(&bed, TOPIC, "orders", "segment.bytes");
    assert_eq!((entry.value.as_deref(), entry.config_source), (Some("60000000"), 1));
    let mut all = vec![("segment.bytes", Some("60000000"), 1)];
    all.extend(broker);
    assert_eq!(synonyms(&entry), all);
}

#[test]
fn all_settings_are_told_when_none_is_named() {
    let bed = bed();
    for keys in [None, Some(&[][..])] {
        let result = ask(&bed, TOPIC, "orders", keys);
        assert_eq!(result.configs.len(), 34);
        assert!(result.configs.is_sorted_by_key(|entry| &entry.name));
        assert!(result.configs.iter().all(|entry| entry.name != "internal.segment.bytes"));
    }
    assert!(ask(&bed, TOPIC, "orders", Some(&["no.such.setting"])).configs.is_empty());
}

#[test]
fn older_versions_and_terse_clients_get_less() {
    let bed = bed();
    let handler = DescribeConfigsHandler::new(bed.cluster(), bed.loggers());
    let resource = || DescribeConfigsResource {
        resource_type: TOPIC,
        resource_name: "orders".to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource()],
        include_synonyms: false,
        include_documentation: true,
    };
    let response = answer(handler.handle(context_of::<DescribeConfigsRequest>(2), request));
    let entries = &response.results[0].configs;
    assert!(entries.iter().all(|entry| entry.synonyms.is_empty() && entry.documentation.is_none()));
    assert!(entries.iter().all(|entry| entry.value.is_some()));
}

#[test]
fn a_broker_tells_its_own_settings_and_which_can_change() {
    let bed = bed();
    bed.start_with("node.id", "1");
    bed.learn(&[setting(ConfigResource::BrokerDefault, "log.retention.ms", "5000")]);
    let entry = only(&bed, BROKER, "1", "node.id");
    assert_eq!((entry.value.as_deref(), entry.config_source, entry.read_only), (Some("1"), 4, true));
    let entry = only(&bed, BROKER, "1", "log.retention.ms");
    assert_eq!((entry.value.as_deref(), entry.config_source, entry.read_only), (Some("5000"), 3, false));
    let entry = only(&bed, BROKER, "1", "ssl.keystore.password");
    assert!(entry.is_sensitive && entry.value.is_none());
    assert!(ask(&bed, BROKER, "1", None).configs.len() > 200);

    let default = ask(&bed, BROKER, "", None);
    let told: Vec<_> = default.configs.iter().map(|c| (c.name.as_str(), c.value.as_deref())).collect();
    assert_eq!(told, [("log.retention.ms", Some("5000"))]);
    assert_eq!(synonyms(&default.configs[0]), [("log.retention.ms", Some("5000"), 3)]);
}

#[test]
fn resources_that_cannot_be_told_say_why() {
    let bed = bed();
    let invalid = ErrorCode::InvalidRequest;
    for (kind, name, code) in [
        (TOPIC, "none", ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "a/b", ErrorCode::InvalidTopicException),
        (TOPIC, "", ErrorCode::InvalidTopicException),
        (BROKER, "2", invalid),
        (BROKER, "x", invalid),
        (LOGGER, "", invalid),
        (LOGGER, "2", invalid),
        (METRICS, "", invalid),
        (GROUP, "", invalid),
        (3, "x", invalid),
        (-1, "x", invalid),
    ] {
        let result = ask(&bed, kind, name, None);
        assert_eq!((result.error_code, result.configs.len()), (code.code(), 0), "{kind} {name}");
        assert!(result.error_message.is_some());
        assert_eq!((result.resource_type, result.resource_name.as_str()), (kind, name));
    }
}

#[test]
fn groups_have_settings_without_being_there_and_subscriptions_only_if_they_are() {
    let bed = bed();
    let entry = only(&bed, GROUP, "g", "consumer.session.timeout.ms");
    assert_eq!((entry.value.as_deref(), entry.config_source), (Some("45000"), 5));
    assert_eq!(synonyms(&entry), [("group.consumer.session.timeout.ms", Some("45000"), 5)]);
    bed.learn(&[
        setting(ConfigResource::Group("g".to_owned()), "consumer.session.timeout.ms", "50000"),
        setting(ConfigResource::ClientMetrics("m".to_owned()), "interval.ms", "1000"),
    ]);
    let entry = only(&bed, GROUP, "g", "consumer.session.timeout.ms");
    assert_eq!((entry.value.as_deref(), entry.config_source), (Some("50000"), 8));
    let default = ("group.consumer.session.timeout.ms", Some("45000"), 5);
    assert_eq!(synonyms(&entry), [("consumer.session.timeout.ms", Some("50000"), 8), default]);
    assert_eq!(only(&bed, METRICS, "m", "interval.ms").config_source, 7);
    let result = ask(&bed, METRICS, "none", None);
    assert_eq!((result.error_code, result.configs.len()), (0, 0));
}

#[test]
fn loggers_are_told_with_their_levels() {
    let bed = bed();
    bed.levels.lock().unwrap().insert("root".to_owned(), "INFO".to_owned());
    let entry = only(&bed, LOGGER, "1", "root");
    assert_eq!((entry.value.as_deref(), entry.config_source, entry.read_only), (Some("INFO"), 6, false));
    assert!(synonyms(&entry).is_empty());
}

#[test]
fn an_answer_is_bounded_and_repeats_nothing() {
    let bed = bed();
    let handler = DescribeConfigsHandler::new(bed.cluster(), bed.loggers());
    let group = |name: String| DescribeConfigsResource {
        resource_type: GROUP,
        resource_name: name,
        configuration_keys: None,
    };
    let ask = |resources| {
        let request =
            DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true };
        answer(handler.handle(context_of::<DescribeConfigsRequest>(4), request)).results
    };
    assert_eq!(ask(vec![group("g".to_owned()); 1_000]).len(), 1);
    let results = ask((0..30_000).map(|number| group(number.to_string())).collect());
    let refused = |result: &DescribeConfigsResult| result.error_code == ErrorCode::PolicyViolation.code();
    assert_eq!(results.len(), 30_000);
    assert!(!refused(&results[0]) && refused(&results[29_999]));
    assert!(results.is_sorted_by_key(refused));
    let weights = results.iter().flat_map(|result| &result.configs).map(weight);
    assert!(weights.sum::<usize>() < ANSWER_BYTES_MAX + (1 << 20));
}
