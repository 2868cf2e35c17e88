//! Settings, and the one of them that replication depends on.

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::*;

use crate::context::*;

fn topic(topic: &str) -> ConfigResource {
    ConfigResource::Topic(name(topic))
}

#[test]
fn a_change_of_the_minimum_forgets_the_elr() {
    for resource in [topic("t"), ConfigResource::BrokerDefault] {
        let mut cluster = Cluster::new(3);
        cluster.topic("t", 3, &[&[1, 2, 3]]);
        cluster.set_isr("t", &[1, 2]);
        assert_eq!(state(&cluster.partition("t", 0)).2, [3]);
        if resource == ConfigResource::BrokerDefault {
            cluster.set_config(resource.clone(), MIN_INSYNC_REPLICAS, "3").expect("legal");
            let operations = vec![(MIN_INSYNC_REPLICAS.to_owned(), ConfigOperation::Delete)];
            let alter = AlterResource { resource: topic("t"), operations, replace_all: false };
            cluster.alter_config(alter).expect("legal");
            assert_eq!(state(&cluster.partition("t", 0)).2, [3], "the effective minimum is the same");
        }
        cluster.set_config(resource.clone(), MIN_INSYNC_REPLICAS, "2").expect("legal");
        assert_eq!(state(&cluster.partition("t", 0)), (Some(1), vec![1, 2], vec![], vec![]));
        cluster.set_config(resource, MIN_INSYNC_REPLICAS, "3").expect("legal");
        assert_eq!(state(&cluster.partition("t", 0)), (Some(1), vec![1, 2], vec![], vec![]));
    }
}

#[test]
fn a_partition_without_an_isr_keeps_its_elr() {
    let mut cluster = Cluster::new(2);
    cluster.topic("t", 2, &[&[1, 2]]);
    cluster.die(1);
    cluster.die(2);
    cluster.set_config(topic("t"), MIN_INSYNC_REPLICAS, "1").expect("legal");
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![1, 2], vec![]));
    cluster.restart(1, RecoveryVerdict::CrashedDurable);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(1), vec![1], vec![], vec![]));
}

#[test]
fn lists_grow_and_shrink() {
    let mut cluster = Cluster::new(1);
    cluster.topic("t", 1, &[&[1]]);
    let mut alter = |operation| {
        let operations = vec![("cleanup.policy".to_owned(), operation)];
        cluster
            .alter_config(AlterResource { resource: topic("t"), operations, replace_all: false })
            .expect("legal");
        cluster.image.configs.value(&topic("t"), "cleanup.policy").map(str::to_owned)
    };
    assert_eq!(
        alter(ConfigOperation::Append("compact, delete".to_owned())).as_deref(),
        Some("delete,compact")
    );
    assert_eq!(alter(ConfigOperation::Subtract("delete".to_owned())).as_deref(), Some("compact"));
    assert_eq!(alter(ConfigOperation::Delete), None);
}

#[test]
fn replacing_all_settings_drops_the_others() {
    let mut cluster = Cluster::new(1);
    cluster.topic("t", 1, &[&[1]]);
    cluster.set_config(topic("t"), "retention.ms", "7").expect("legal");
    let operations = vec![("cleanup.policy".to_owned(), ConfigOperation::Set("compact".to_owned()))];
    let alter = AlterResource { resource: topic("t"), operations, replace_all: true };
    cluster.alter_config(alter.clone()).expect("legal");
    let settings = cluster.image.configs.resource(&topic("t")).expect("there are settings");
    assert_eq!(
        settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(),
        [("cleanup.policy", "compact")]
    );
    let log = cluster.log.len();
    cluster.alter_config(alter).expect("legal");
    assert_eq!(cluster.log.len(), log, "what is so already needs no record");
}

#[test]
fn impossible_settings_are_refused() {
    let mut cluster = Cluster::new(1);
    cluster.topic("t", 1, &[&[1]]);
    let mut refusal = |resource, key: &str, operation| {
        let operations = vec![(key.to_owned(), operation)];
        let alter = AlterResource { resource, operations, replace_all: false };
        let before = cluster.image.clone();
        let refusal = cluster.alter_config(alter).expect_err("impossible").refusal();
        assert_eq!(cluster.image, before);
        refusal
    };
    let set = |value: &str| ConfigOperation::Set(value.to_owned());
    let broker = ConfigResource::Broker;
    assert_eq!(refusal(topic("u"), "retention.ms", set("1")), Refusal::UnknownTopicOrPartition);
    assert_eq!(refusal(broker(b(9)), "retention.ms", set("1")), Refusal::BrokerIdNotRegistered);
    assert_eq!(
        refusal(ConfigResource::Group(String::new()), "retention.ms", set("1")),
        Refusal::InvalidRequest
    );
    assert_eq!(refusal(topic("t"), "no.such.thing", set("1")), Refusal::InvalidConfig);
    assert_eq!(refusal(topic("t"), MIN_INSYNC_REPLICAS, set("none")), Refusal::InvalidConfig);
    assert_eq!(refusal(broker(b(1)), MIN_INSYNC_REPLICAS, set("1")), Refusal::InvalidConfig);
    assert_eq!(
        refusal(topic("t"), "retention.ms", ConfigOperation::Append("1".to_owned())),
        Refusal::InvalidConfig
    );
    assert_eq!(refusal(topic("t"), "retention.ms", set(&"x".repeat(32_768))), Refusal::InvalidConfig);
    let twice = vec![("retention.ms".to_owned(), set("1")), ("retention.ms".to_owned(), set("2"))];
    let twice = AlterResource { resource: topic("t"), operations: twice, replace_all: false };
    assert_eq!(cluster.alter_config(twice.clone()), Err(ConfigError::NamedTwice));
    let control = ConfigurationControl::new(cluster.replication(), &Schema);
    let result = control.alter_configs(&[twice.clone(), twice]);
    assert_eq!(result.response, [Err(ConfigError::NamedTwice), Err(ConfigError::NamedTwice)]);
}

#[test]
fn groups_and_subscriptions_need_not_exist() {
    let mut cluster = Cluster::new(1);
    cluster.set_config(ConfigResource::Group("g".to_owned()), "retention.ms", "1").expect("legal");
    cluster.set_config(ConfigResource::ClientMetrics("m".to_owned()), "retention.ms", "1").expect("legal");
    cluster.set_config(ConfigResource::Broker(BrokerId(1)), "retention.ms", "1").expect("legal");
    assert_eq!(cluster.image.configs.resources().count(), 3);
}
