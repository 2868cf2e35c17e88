//! DescribeConfigs (32): settings of topics, brokers, their loggers, groups and metrics subscriptions (KIP-133,
//! KIP-226, KIP-569, KIP-714, KIP-848).
//!
//! A broker's own settings and loggers are told by that broker alone; clients send such a request to it.

use std::collections::HashSet;
use std::sync::Arc;

use klamm_protocol::messages::describe_configs_request::DescribeConfigsResource;
use klamm_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use klamm_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::TopicName;

use crate::cluster::Cluster;
use crate::config_resource::{ResourceKind, broker_of};
use crate::config_view::{ConfigView, Detail, log_level};
use crate::context::RequestContext;
use crate::ports::LogLevels;
use crate::submission::Refused;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// About how many bytes of memory an answer may take; the settings of some 20,000 topics do. Not a setting, as no
/// client in use asks for that much.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Serves DescribeConfigs.
pub(crate) struct DescribeConfigsHandler {
    cluster: Arc<Cluster>,
    loggers: Arc<dyn LogLevels>,
}

type Entries = Vec<DescribeConfigsResourceResult>;

impl DescribeConfigsHandler {
    pub(crate) fn new(cluster: Arc<Cluster>, loggers: Arc<dyn LogLevels>) -> Self {
        Self { cluster, loggers }
    }

    fn entries(&self, view: &ConfigView, kind: i8, name: &str, detail: Detail) -> Result<Entries, Refused> {
        let invalid = |reason: String| Err(Refused::new(ErrorCode::InvalidRequest, reason));
        match ResourceKind::from_code(kind) {
            Some(ResourceKind::Topic) => {
                let topic = TopicName::new(name)
                    .map_err(|error| Refused::new(ErrorCode::InvalidTopicException, error.to_string()))?;
                match view.image().topics.topic_by_name(&topic) {
                    Some(_) => Ok(view.topic(&topic, detail)),
                    None => Err(Refused::plain(ErrorCode::UnknownTopicOrPartition)),
                }
            }
            Some(ResourceKind::Broker) if name.is_empty() => Ok(view.broker_default(detail)),
            Some(ResourceKind::Broker) => {
                self.check_broker(name)?;
                Ok(view.broker(detail))
            }
            Some(ResourceKind::BrokerLogger) if name.is_empty() => {
                invalid("Broker id must not be empty".to_owned())
            }
            Some(ResourceKind::BrokerLogger) => {
                self.check_broker(name)?;
                let levels = self.loggers.levels().into_iter();
                Ok(levels.map(|(logger, level)| log_level(logger, level)).collect())
            }
            Some(ResourceKind::ClientMetrics) if name.is_empty() => {
                invalid("Client metrics subscription name must not be empty".to_owned())
            }
            Some(ResourceKind::ClientMetrics) => Ok(view.client_metrics(name, detail)),
            Some(ResourceKind::Group) if name.is_empty() => {
                invalid("Group name must not be empty".to_owned())
            }
            Some(ResourceKind::Group) => Ok(view.group(name, detail)),
            None => invalid(format!("Unsupported resource type: {kind}")),
        }
    }

    /// Whether `name` is this broker's.
    fn check_broker(&self, name: &str) -> Result<(), Refused> {
        let (own, asked) = (self.cluster.broker, broker_of(name)?);
        if own == asked {
            return Ok(());
        }
        let reason = format!("Unexpected broker id, expected {own} or empty string, but received {asked}");
        Err(Refused::new(ErrorCode::InvalidRequest, reason))
    }

    /// A result per resource, once for those that are named twice, and refusals where the answer would be too large:
    /// a name of a few bytes asks for some thousand.
    fn results(
        &self,
        view: &ConfigView,
        resources: Vec<DescribeConfigsResource>,
        detail: Detail,
    ) -> Vec<DescribeConfigsResult> {
        let mut named = HashSet::new();
        let mut results = Vec::with_capacity(resources.len());
        let mut bytes = 0;
        for resource in resources {
            if !named.insert((resource.resource_type, resource.resource_name.clone())) {
                continue;
            }
            let result = if bytes < ANSWER_BYTES_MAX {
                self.result(view, resource, detail)
            } else {
                too_much(resource)
            };
            bytes += result.configs.iter().map(weight).sum::<usize>();
            results.push(result);
        }
        results
    }

    fn result(
        &self,
        view: &ConfigView,
        resource: DescribeConfigsResource,
        detail: Detail,
    ) -> DescribeConfigsResult {
        let DescribeConfigsResource { resource_type, resource_name, configuration_keys } = resource;
        let mut entries = self.entries(view, resource_type, &resource_name, detail);
        // No names at all stand for every name.
        let wanted = configuration_keys.filter(|keys| !keys.is_empty());
        if let (Ok(entries), Some(wanted)) = (&mut entries, wanted) {
            let wanted: HashSet<String> = wanted.into_iter().collect();
            entries.retain(|entry| wanted.contains(&entry.name));
        }
        let base = DescribeConfigsResult { resource_type, resource_name, ..DescribeConfigsResult::default() };
        match entries {
            Ok(configs) => DescribeConfigsResult { configs, ..base },
            Err(Refused { code, message }) => {
                DescribeConfigsResult { error_code: code.code(), error_message: message, ..base }
            }
        }
    }
}

impl Handler for DescribeConfigsHandler {
    type Request = DescribeConfigsRequest;

    const VERSIONS: VersionRange = DescribeConfigsRequest::VERSIONS;
    const ACCESS: Access = Access::Config(Operation::DescribeConfigs);

    fn handle(
        &self,
        context: RequestContext,
        request: DescribeConfigsRequest,
    ) -> Ticket<DescribeConfigsResponse> {
        let view = ConfigView::of(&self.cluster);
        let detail = Detail {
            synonyms: request.include_synonyms,
            documentation: request.include_documentation && context.version >= 3,
        };
        let results = self.results(&view, request.resources, detail);
        Ticket::ready(Answer::Response(DescribeConfigsResponse { throttle_time_ms: 0, results }))
    }
}

fn too_much(resource: DescribeConfigsResource) -> DescribeConfigsResult {
    let DescribeConfigsResource { resource_type, resource_name, .. } = resource;
    let reason = "the request asks for too much at once; ask for fewer resources".to_owned();
    DescribeConfigsResult {
        error_code: ErrorCode::PolicyViolation.code(),
        error_message: Some(reason),
        resource_type,
        resource_name,
        configs: Vec::new(),
    }
}

/// About how many bytes an entry takes.
fn weight(entry: &DescribeConfigsResourceResult) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let synonyms = entry.synonyms.iter();
    let synonyms = synonyms.map(|s| size_of::<DescribeConfigsSynonym>() + s.name.len() + text(&s.value));
    let own = entry.name.len() + text(&entry.value) + text(&entry.documentation);
    size_of::<DescribeConfigsResourceResult>() + own + synonyms.sum::<usize>()
}

#[cfg(test)]
#[path = "describe_configs_test.rs"]
mod tests;
