use super::*;
use crate::{Value, server_synonyms, topic_synonyms};

const TABLES: [Table; 4] = [Table::Server, Table::Topic, Table::Group, Table::ClientMetrics];

#[test]
fn every_setting_of_kafka_is_there_once() {
    let of_kafka = |table: Table| table.settings().iter().filter(|s| !s.name.starts_with("klamm.")).count();
    // As the ConfigDefs of Kafka 4.3.1 count, with the three replication rates, and write.caching of ours.
    assert_eq!(TABLES.map(of_kafka), [363, 35, 17, 3]);
    for table in TABLES {
        for pair in table.settings().windows(2) {
            assert!(pair[0].name < pair[1].name, "{} is there twice", pair[1].name);
        }
    }
}

#[test]
fn rows_are_read_as_they_are_written() {
    let level = Table::Server.find("compression.gzip.level").unwrap();
    assert_eq!((level.kind, level.default, level.scope), (Kind::Int, Some("-1"), Scope::ClusterWide));
    assert_eq!(level.allowed_text(), "from 1 to 9, or -1");
    for (text, fits) in [("-1", true), ("1", true), ("9", true), ("0", false), ("10", false), ("x", false)] {
        assert_eq!(level.parse(text).is_ok(), fits, "{text}");
    }
    let node_id = Table::Server.find("node.id").unwrap();
    assert!(node_id.required && node_id.default.is_none());
    let secret = Table::Server.find("ssl.key.password").unwrap();
    assert!(secret.is_sensitive() && matches!(secret.treatment, Treatment::Refused(_)));
    assert!(Table::Server.find("internal.metadata.log.segment.bytes").unwrap().internal);
    let policy = Table::Topic.find("cleanup.policy").unwrap();
    assert_eq!(
        policy.parse(" compact , delete ").unwrap(),
        Value::List(vec!["compact".into(), "delete".into()])
    );
    assert!(policy.parse("").is_ok() && policy.parse("compact,keep").is_err());
    let ratio = Table::Topic.find("min.cleanable.dirty.ratio").unwrap();
    assert!(ratio.parse("0.25").is_ok() && ratio.parse("1.1").is_err() && ratio.parse("NaN").is_err());
    let migration = Table::Server.find("group.consumer.migration.policy").unwrap();
    assert!(migration.parse("Upgrade").is_ok() && migration.parse("both").is_err());
}

#[test]
fn a_refusal_names_what_is_allowed_and_hides_secrets() {
    let partitions = Table::Server.find("num.partitions").unwrap();
    let error = partitions.parse("0").unwrap_err();
    assert_eq!(error.to_string(), "num.partitions cannot be \"0\": it must be from 1 to 2147483647");
    let long = partitions.parse(&"9".repeat(10_000)).unwrap_err();
    assert_eq!(long.value.len(), crate::ValueError::TEXT_LEN_MAX);
}

#[test]
fn synonyms_are_settings_of_the_server() {
    for topic in Table::Topic.settings() {
        for synonym in topic_synonyms(topic.name) {
            let server = Table::Server.find(synonym.name).unwrap_or_else(|| panic!("{}", synonym.name));
            let same_kind = server.kind == topic.kind || (synonym.factor > 1 && server.kind == Kind::Int);
            assert!(same_kind, "{} and {}", topic.name, synonym.name);
            let is_default = server.default.is_none_or(|text| {
                crate::server_settings::scaled(topic, synonym.factor, text).as_deref() == topic.default
            });
            assert!(is_default, "{} and {} have different defaults", topic.name, synonym.name);
        }
    }
    for server in Table::Server.settings() {
        for synonym in server_synonyms(server.name) {
            assert!(Table::Server.find(synonym.name).is_some(), "{}", synonym.name);
        }
    }
}

#[test]
fn bad_rows_are_not_read() {
    assert!(read_row("a|int|1|any|low|static|used|Meaning.").is_some());
    for bad in [
        "a|int|1|any|low|static|used|",
        "a|int|x|any|low|static|used|Meaning.",
        "a|int|0|1..|low|static|used|Meaning.",
        "a|int|1|any|low|static|ignored nonsense|Meaning.",
        "a|integer|1|any|low|static|used|Meaning.",
        "a|int|1|any|lower|static|used|Meaning.",
        "a|int|1|1-2|low|static|used|Meaning.",
        "a|int|1|any|low|static|used",
    ] {
        assert!(read_row(bad).is_none(), "{bad}");
    }
}

#[test]
fn every_reason_is_given_somewhere() {
    let given: Vec<_> = TABLES.iter().flat_map(|table| table.settings()).map(|s| s.treatment).collect();
    for (word, reason) in REASONS {
        let is_given =
            given.iter().any(|t| matches!(t, Treatment::Ignored(r) | Treatment::Refused(r) if *r == reason));
        assert!(is_given, "no setting has the reason {word}");
    }
}
