//! Metadata (3): brokers, topics and who leads what, as a client of one listener can use them.
//!
//! A topic that does not exist is created on the way if the client and `auto.create.topics.enable` allow it. Kafka
//! answers such a request before the topic is there; here the answer waits for it, shortly, so that most clients
//! need not ask twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_metadata::{PartitionRegistration, TopicImage};
use klamm_pb::controller::v1::{CreateTopics, NewTopic, submit_request::Change};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_protocol::{ErrorCode, Uuid, VersionRange};
use klamm_types::{BrokerId, PartitionId, TopicId, TopicName};

use crate::cluster::{
    CLUSTER_OPERATIONS, Cluster, ClusterView, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, ids, is_internal,
};
use crate::context::RequestContext;
use crate::submission::submit;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// How long an answer waits for a topic to be created.
const CREATION_WAIT_MAX: Duration = Duration::from_secs(1);
/// Topics being created at the same time for clients that named them; others have to be asked for again.
const CREATIONS_MAX: usize = 1_000;

/// Serves Metadata.
pub(crate) struct MetadataHandler {
    cluster: Arc<Cluster>,
    auto_create: bool,
    creations: Arc<Creations>,
}

impl MetadataHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        let auto_create = cluster.settings.boolean("auto.create.topics.enable");
        Self { cluster, auto_create, creations: Arc::default() }
    }

    /// Topics that the request names, that do not exist, and that it may create.
    fn missing(&self, request: &MetadataRequest, context: &RequestContext) -> Vec<TopicName> {
        // Before version 4 a request cannot say that it does not want topics created.
        let allowed = context.version < 4 || request.allow_auto_topic_creation;
        let Some(topics) = request.topics.as_ref().filter(|_| allowed && self.auto_create) else {
            return Vec::new();
        };
        let view = self.cluster.view(&context.listener);
        let names =
            topics.iter().filter(|topic| topic.topic_id.is_zero()).filter_map(|topic| topic.name.as_deref());
        let names: BTreeSet<_> = names.filter_map(|name| TopicName::new(name).ok()).collect();
        let exists = |name: &TopicName| view.image.topics.topic_by_name(name).is_some();
        names.into_iter().filter(|name| !exists(name) && !is_internal(name.as_str())).collect()
    }
}

impl Handler for MetadataHandler {
    type Request = MetadataRequest;

    const VERSIONS: VersionRange = MetadataRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Describe);
    /// librdkafka (2.16) asks for all topics with a count of four bytes where one belongs, and Kafka does not look at
    /// what is left.
    const IGNORED_BEHIND_MAX: usize = 3;

    fn handle(&self, context: RequestContext, request: MetadataRequest) -> Ticket<MetadataResponse> {
        if let Some(response) = refuse(context.version, &request) {
            return Ticket::ready(Answer::Response(response));
        }
        let missing = self.missing(&request, &context);
        let cluster = self.cluster.clone();
        let view = cluster.view(&context.listener);
        let tells_of_leaders = tells_of_leaders(&cluster, &view, &request, context.version);
        if missing.is_empty() && !tells_of_leaders {
            return Ticket::ready(Answer::Response(describe(&cluster, &view, &request, context.version)));
        }
        let creations = self.creations.clone();
        Ticket::later(async move {
            if tells_of_leaders {
                cluster.metadata.noticed().await;
                let view = cluster.view(&context.listener);
                for suspect in suspected_leaders(&cluster, &view, &request, context.version) {
                    cluster.metadata.unsuspected(suspect).await;
                }
            }
            if let Some(creation) = Creations::begin(&creations, missing) {
                create(&cluster, creation).await;
            }
            let view = cluster.view(&context.listener);
            Answer::Response(describe(&cluster, &view, &request, context.version))
        })
    }
}

/// Whether the answer may say of another node that it leads something.
fn tells_of_leaders(cluster: &Cluster, view: &ClusterView, request: &MetadataRequest, version: i16) -> bool {
    let names_topics = version == 0 || request.topics.as_ref().is_none_or(|topics| !topics.is_empty());
    names_topics && view.usable_nodes().any(|node| node.id != cluster.broker)
}

/// Brokers that may be dead, and of which the answer would say that they lead what is asked for. Told of a dead leader, a
/// client (librdkafka 2.16 asks at once when a connection ends) tries it again and again, and asks anew after a second: the
/// answer had better wait for the election.
fn suspected_leaders(
    cluster: &Cluster,
    view: &ClusterView,
    request: &MetadataRequest,
    version: i16,
) -> BTreeSet<BrokerId> {
    let mut suspects = cluster.metadata.suspects();
    // Without topics, version 0 means all of them.
    if let Some(wanted) = request.topics.as_ref().filter(|wanted| version > 0 || !wanted.is_empty())
        && !suspects.is_empty()
    {
        let topic = |wanted: &MetadataRequestTopic| match wanted.name.as_deref() {
            Some(name) => view.topic(name),
            None => view.image.topics.topic(TopicId::from(wanted.topic_id)),
        };
        let partitions =
            wanted.iter().filter_map(topic).flat_map(|topic| topic.partitions().map(|(_, at)| at));
        let leaders: BTreeSet<_> = partitions.filter_map(|partition| view.leader(partition)).collect();
        suspects.retain(|suspect| leaders.contains(suspect));
    }
    suspects
}

/// Creates the topics with the cluster's defaults. What became of them the metadata tells.
async fn create(cluster: &Arc<Cluster>, creation: Creation) {
    let topics = creation.names.iter().map(|name| NewTopic {
        name: name.to_string(),
        partitions: -1,
        replication_factor: -1,
        ..NewTopic::default()
    });
    let change = CreateTopics { topics: topics.collect(), validate_only: false };
    if let Err(refused) = submit(cluster, Change::CreateTopics(change), CREATION_WAIT_MAX).await {
        tracing::debug!(code = refused.code.name(), message = refused.message, "topics were not created");
    }
}

/// The names that are being created right now, so that a crowd of clients creates a topic once.
#[derive(Debug, Default)]
struct Creations(Mutex<BTreeSet<TopicName>>);

/// Names that this request creates; free for others once it is dropped.
struct Creation {
    creations: Arc<Creations>,
    names: Vec<TopicName>,
}

impl Creations {
    /// Takes those of `wanted` that nobody creates yet, `None` if there are none.
    fn begin(this: &Arc<Self>, wanted: Vec<TopicName>) -> Option<Creation> {
        let mut current = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = CREATIONS_MAX.saturating_sub(current.len());
        let names: Vec<_> = wanted.into_iter().filter(|name| !current.contains(name)).take(room).collect();
        current.extend(names.iter().cloned());
        (!names.is_empty()).then(|| Creation { creations: this.clone(), names })
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        let mut current = self.creations.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.retain(|name| !self.names.contains(name));
    }
}

/// An answer to a request that asks for topics in a way that its version does not have: ids in versions 10 and 11,
/// where Kafka had the field but never served it, or no name.
fn refuse(version: i16, request: &MetadataRequest) -> Option<MetadataResponse> {
    let is_bad = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_zero();
    let topics = request.topics.as_ref().filter(|topics| version < 12 && topics.iter().any(is_bad))?;
    let code = ErrorCode::InvalidRequest.code();
    let refused = |topic: &MetadataRequestTopic| MetadataResponseTopic {
        error_code: code,
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..MetadataResponseTopic::default()
    };
    Some(MetadataResponse { topics: topics.iter().map(refused).collect(), ..MetadataResponse::default() })
}

fn describe(
    cluster: &Cluster,
    view: &ClusterView,
    request: &MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let asked = request.include_cluster_authorized_operations && (8..=10).contains(&version);
    MetadataResponse {
        throttle_time_ms: 0,
        brokers: view
            .told_nodes(&cluster.metadata.lately_dead())
            .into_iter()
            .map(|node| MetadataResponseBroker {
                node_id: node.id.0,
                host: node.host,
                port: node.port,
                rack: node.rack,
            })
            .collect(),
        cluster_id: Some(cluster.cluster_id.to_string()),
        controller_id: view.controller().map_or(-1, |id| id.0),
        topics: TopicsAnswer {
            view,
            version,
            operations: request.include_topic_authorized_operations && version >= 8,
        }
        .topics(request.topics.as_deref()),
        cluster_authorized_operations: if asked { CLUSTER_OPERATIONS } else { OPERATIONS_NOT_ASKED },
        error_code: ErrorCode::None.code(),
    }
}

/// The part of an answer that is about topics.
struct TopicsAnswer<'a> {
    view: &'a ClusterView,
    version: i16,
    operations: bool,
}

impl TopicsAnswer<'_> {
    fn topics(&self, wanted: Option<&[MetadataRequestTopic]>) -> Vec<MetadataResponseTopic> {
        // Version 0 has no null: there, no topics are all topics.
        let wanted = wanted.filter(|wanted| self.version > 0 || !wanted.is_empty());
        let Some(wanted) = wanted else {
            return self.view.topics_by_name().into_iter().map(|topic| self.topic(topic)).collect();
        };
        let mut seen = BTreeSet::new();
        // If any topic is asked for by its id, all are.
        let by_id = wanted.iter().any(|topic| !topic.topic_id.is_zero());
        let mut topics = Vec::with_capacity(wanted.len());
        for topic in wanted {
            if by_id {
                if !topic.topic_id.is_zero() && seen.insert((topic.topic_id, "")) {
                    topics.push(self.by_id(topic.topic_id));
                }
            } else if let Some(name) = topic.name.as_deref()
                && seen.insert((Uuid::ZERO, name))
            {
                topics.push(self.by_name(name));
            }
        }
        topics
    }

    fn by_id(&self, id: Uuid) -> MetadataResponseTopic {
        match self.view.image.topics.topic(TopicId::from(id)) {
            Some(topic) => self.topic(topic),
            None => MetadataResponseTopic {
                error_code: ErrorCode::UnknownTopicId.code(),
                name: None,
                topic_id: id,
                ..MetadataResponseTopic::default()
            },
        }
    }

    fn by_name(&self, name: &str) -> MetadataResponseTopic {
        let code = match TopicName::new(name) {
            Err(_) => ErrorCode::InvalidTopicException,
            Ok(known) => match self.view.image.topics.topic_by_name(&known) {
                Some(topic) => return self.topic(topic),
                None => ErrorCode::UnknownTopicOrPartition,
            },
        };
        MetadataResponseTopic {
            error_code: code.code(),
            name: Some(name.to_owned()),
            is_internal: is_internal(name),
            ..MetadataResponseTopic::default()
        }
    }

    fn topic(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let partitions = topic.partitions().map(|(id, partition)| self.partition(topic.id, id, partition));
        MetadataResponseTopic {
            error_code: ErrorCode::None.code(),
            name: Some(topic.name.to_string()),
            topic_id: topic.id.into(),
            is_internal: is_internal(topic.name.as_str()),
            partitions: partitions.collect(),
            topic_authorized_operations: if self.operations {
                TOPIC_OPERATIONS
            } else {
                OPERATIONS_NOT_ASKED
            },
        }
    }

    fn partition(
        &self,
        topic: TopicId,
        id: PartitionId,
        partition: &PartitionRegistration,
    ) -> MetadataResponsePartition {
        let view = self.view;
        let mut replicas = partition.replicas.clone();
        let mut isr = partition.isr.clone();
        if self.version == 0 {
            // Clients of version 0 cannot bear a broker that they were not told of.
            replicas.retain(|broker| view.has_endpoint(*broker));
            isr.retain(|broker| view.has_endpoint(*broker));
        }
        let leader = view.leader(partition);
        let is_complete = replicas.len() == partition.replicas.len() && isr.len() == partition.isr.len();
        let code = match leader {
            Some(_) if is_complete => ErrorCode::None,
            Some(_) => ErrorCode::ReplicaNotAvailable,
            None if self.version >= 6
                && partition.leader.is_some_and(|leader| view.is_registered(leader)) =>
            {
                ErrorCode::ListenerNotFound
            }
            None => ErrorCode::LeaderNotAvailable,
        };
        MetadataResponsePartition {
            error_code: code.code(),
            partition_index: id.0,
            leader_id: leader.map_or(-1, |leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: ids(&replicas),
            isr_nodes: ids(&isr),
            offline_replicas: view.offline_replicas(topic, id, partition),
        }
    }
}

#[cfg(test)]
#[path = "metadata_test.rs"]
mod tests;
