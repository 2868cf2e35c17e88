//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources.

use std::time::Duration;

use klamm_protocol::messages::describe_configs_request::DescribeConfigsResource;
use klamm_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use klamm_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
    alter_configs_request, incremental_alter_configs_request,
};
use klamm_tests::cluster::wait_for;

use super::bed::{Bed, TOPIC, versions};

/// A topic, among the kinds of resources.
const OF_TOPIC: i8 = 2;
const LEARNING_TIME_MAX: Duration = Duration::from_secs(30);

async fn setting(bed: &mut Bed, version: i16, name: &str) -> DescribeConfigsResourceResult {
    let resource = DescribeConfigsResource {
        resource_type: OF_TOPIC,
        resource_name: TOPIC.to_owned(),
        configuration_keys: Some(vec![name.to_owned()]),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    let mut answer = bed.ask(version, &request).await;
    let result = &mut answer.results[0];
    assert_eq!((result.error_code, result.resource_type), (0, OF_TOPIC), "version {version}");
    assert_eq!((result.resource_name.as_str(), result.configs.len()), (TOPIC, 1));
    result.configs.remove(0)
}

/// Waits until the broker has learnt of a change.
async fn becomes(bed: &mut Bed, name: &str, value: &str) {
    wait_for("the setting is changed", LEARNING_TIME_MAX, async || {
        let setting = setting(bed, 4, name).await;
        if setting.value.as_deref() == Some(value) { Ok(()) } else { Err(format!("{setting:?}")) }
    })
    .await
    .unwrap();
}

fn synonyms(setting: &DescribeConfigsResourceResult) -> Vec<(&str, i8)> {
    setting.synonyms.iter().map(|one| (one.name.as_str(), one.source)).collect()
}

pub(crate) async fn are_described(bed: &mut Bed) {
    for version in versions::<DescribeConfigsRequest>() {
        let found = setting(bed, version, "retention.ms").await;
        assert_eq!((found.name.as_str(), found.value.as_deref()), ("retention.ms", Some("-1")));
        // Set for the topic; a number of 64 bits.
        assert_eq!((found.config_source, found.read_only, found.is_sensitive), (1, false, false));
        assert_eq!(found.config_type, if version < 3 { 0 } else { 5 });
        assert_eq!(found.documentation.as_ref().is_some_and(|text| !text.is_empty()), version >= 3);
        assert_eq!(synonyms(&found), [("retention.ms", 1)], "version {version}");
        // Not set for anything.
        let found = setting(bed, version, "max.message.bytes").await;
        assert_eq!((found.value.as_deref(), found.config_source), (Some("1048588"), 5));
        assert_eq!(synonyms(&found), [("message.max.bytes", 5)], "version {version}");
    }
}

pub(crate) async fn are_replaced(bed: &mut Bed) {
    for version in versions::<AlterConfigsRequest>() {
        let config = |name: &str, value: &str| alter_configs_request::AlterableConfig {
            name: name.to_owned(),
            value: Some(value.to_owned()),
        };
        let bytes = (1_000_000 + i32::from(version)).to_string();
        let resource = alter_configs_request::AlterConfigsResource {
            resource_type: OF_TOPIC,
            resource_name: TOPIC.to_owned(),
            configs: vec![config("retention.ms", "-1"), config("max.message.bytes", &bytes)],
        };
        let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
        let answer = bed.ask(version, &request).await;
        let result = &answer.responses[0];
        assert_eq!((result.error_code, result.resource_name.as_str()), (0, TOPIC), "version {version}");
        assert_eq!((result.resource_type, result.error_message.as_deref()), (OF_TOPIC, None));
        becomes(bed, "max.message.bytes", &bytes).await;
    }
}

pub(crate) async fn are_altered(bed: &mut Bed) {
    for version in versions::<IncrementalAlterConfigsRequest>() {
        let bytes = (2_000_000 + i32::from(version)).to_string();
        let config = incremental_alter_configs_request::AlterableConfig {
            name: "max.message.bytes".to_owned(),
            config_operation: 0,
            value: Some(bytes.clone()),
        };
        let resource = incremental_alter_configs_request::AlterConfigsResource {
            resource_type: OF_TOPIC,
            resource_name: TOPIC.to_owned(),
            configs: vec![config],
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let answer = bed.ask(version, &request).await;
        let result = &answer.responses[0];
        assert_eq!((result.error_code, result.resource_name.as_str()), (0, TOPIC), "version {version}");
        becomes(bed, "max.message.bytes", &bytes).await;
        // What is not named stays.
        becomes(bed, "retention.ms", "-1").await;
    }
}

pub(crate) async fn are_listed(bed: &mut Bed) {
    for version in versions::<ListConfigResourcesRequest>() {
        let resource_types = if version == 0 { Vec::new() } else { vec![OF_TOPIC] };
        let answer = bed.ask(version, &ListConfigResourcesRequest { resource_types }).await;
        assert_eq!(answer.error_code, 0);
        let names: Vec<_> = answer
            .config_resources
            .iter()
            .filter(|resource| resource.resource_type == OF_TOPIC)
            .map(|resource| resource.resource_name.as_str())
            .collect();
        // Version 0 asks for subscriptions to metrics, of which there are none.
        assert_eq!(names.contains(&TOPIC), version > 0, "version {version}: {names:?}");
        assert_eq!(names.len(), answer.config_resources.len());
    }
}
