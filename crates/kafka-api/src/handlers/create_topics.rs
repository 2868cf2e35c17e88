//! CreateTopics (19): each topic is created or refused alone.
//!
//! What can be refused by looking at the request alone is refused here, everything else by the controller. An answer
//! of version 5 on tells what the topic has got: partitions, replicas and settings (KIP-525).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::{ConfigEntry, CreateTopics, CreatedTopic, NewTopic, ReplicaAssignment};
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use klamm_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use klamm_protocol::{ErrorCode, Uuid, VersionRange};

use crate::cluster::{Cluster, METADATA_TOPIC, timeout};
use crate::config_view::ConfigView;
use crate::context::RequestContext;
use crate::ports::GatewayError;
use crate::submission::{Refused, item_result, submit};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves CreateTopics.
pub(crate) struct CreateTopicsHandler {
    cluster: Arc<Cluster>,
}

impl CreateTopicsHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for CreateTopicsHandler {
    type Request = CreateTopicsRequest;

    const VERSIONS: VersionRange = CreateTopicsRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Create);

    fn handle(&self, context: RequestContext, request: CreateTopicsRequest) -> Ticket<CreateTopicsResponse> {
        let cluster = self.cluster.clone();
        Ticket::later(async move {
            let details = context.version >= 5;
            let topics = create(&cluster, request, details).await;
            Answer::Response(CreateTopicsResponse { throttle_time_ms: 0, topics })
        })
    }
}

async fn create(
    cluster: &Arc<Cluster>,
    request: CreateTopicsRequest,
    details: bool,
) -> Vec<CreatableTopicResult> {
    let timeout = timeout(request.timeout_ms);
    let validate_only = request.validate_only;
    let mut named = BTreeMap::<String, usize>::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let (mut results, mut wanted) = (Vec::new(), Vec::new());
    for topic in request.topics {
        // A name that is there twice has one result.
        let Some(times) = named.remove(&topic.name) else { continue };
        let name = topic.name.clone();
        match new_topic(topic, times) {
            Ok(topic) => wanted.push(topic),
            Err(refused) => results.push(refused_result(name, refused)),
        }
    }
    results.extend(submit_topics(cluster, wanted, validate_only, timeout, details).await);
    results
}

/// What the controller is asked for.
///
/// # Errors
/// What is wrong with the request itself.
fn new_topic(topic: CreatableTopic, times: usize) -> Result<NewTopic, Refused> {
    if times > 1 {
        return Err(Refused::new(ErrorCode::InvalidRequest, "Duplicate topic name."));
    }
    if topic.name == METADATA_TOPIC {
        let reason = format!("{METADATA_TOPIC} belongs to the cluster itself");
        return Err(Refused::new(ErrorCode::TopicAuthorizationFailed, reason));
    }
    let assignments = topic.assignments.into_iter();
    let assignments =
        assignments.map(|a| ReplicaAssignment { partition_id: a.partition_index, replicas: a.broker_ids });
    let mut configs = Vec::with_capacity(topic.configs.len());
    for config in topic.configs {
        let Some(value) = config.value else {
            let reason = format!("Null value not supported for topic configs: {}", config.name);
            return Err(Refused::new(ErrorCode::InvalidConfig, reason));
        };
        configs.push(ConfigEntry { key: config.name, value });
    }
    Ok(NewTopic {
        name: topic.name,
        partitions: topic.num_partitions,
        replication_factor: i32::from(topic.replication_factor),
        assignments: assignments.collect(),
        configs,
    })
}

async fn submit_topics(
    cluster: &Arc<Cluster>,
    topics: Vec<NewTopic>,
    validate_only: bool,
    timeout: Duration,
    details: bool,
) -> Vec<CreatableTopicResult> {
    if topics.is_empty() {
        return Vec::new();
    }
    let asked: Vec<_> = topics.iter().map(|topic| (topic.name.clone(), topic.configs.clone())).collect();
    let change = Change::CreateTopics(CreateTopics { topics, validate_only });
    let outcome = submit(cluster, change, timeout).await.and_then(|outcome| match outcome {
        Outcome::CreateTopics(outcome) if outcome.topics.len() == asked.len() => Ok(outcome.topics),
        _ => Err(GatewayError::BadAnswer.into()),
    });
    match outcome {
        Ok(topics) => {
            let configs = ConfigView::of(cluster);
            let told = topics.into_iter().zip(asked);
            told.map(|(topic, (name, own))| {
                let configs = details.then(|| configs.created_topic(&own));
                result(name, topic, configs)
            })
            .collect()
        }
        Err(refused) => asked.into_iter().map(|(name, _)| refused_result(name, refused.clone())).collect(),
    }
}

fn result(
    name: String,
    topic: CreatedTopic,
    configs: Option<Vec<CreatableTopicConfigs>>,
) -> CreatableTopicResult {
    if let Err(mut refused) = item_result(topic.refusal) {
        if refused.code == ErrorCode::TopicAlreadyExists {
            // Scripts look for these words.
            refused.message = Some(format!("Topic '{name}' already exists."));
        }
        return refused_result(name, refused);
    }
    CreatableTopicResult {
        name,
        error_message: None,
        topic_id: <[u8; 16]>::try_from(&topic.topic_id[..]).map_or(Uuid::ZERO, Uuid),
        num_partitions: topic.partitions,
        replication_factor: i16::try_from(topic.replication_factor).unwrap_or(i16::MAX),
        configs: Some(configs.unwrap_or_default()),
        ..CreatableTopicResult::default()
    }
}

fn refused_result(name: String, refused: Refused) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: refused.code.code(),
        error_message: refused.message,
        ..CreatableTopicResult::default()
    }
}

#[cfg(test)]
#[path = "create_topics_test.rs"]
mod tests;
