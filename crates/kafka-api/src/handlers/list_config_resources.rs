//! ListConfigResources (74): the resources that have settings, by kind (KIP-1142). In version 0, when the API was
//! called ListClientMetricsResources, subscriptions to clients' metrics alone (KIP-714).

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_metadata::ConfigResource as Known;
use klamm_protocol::messages::list_config_resources_response::ConfigResource;
use klamm_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use klamm_protocol::{ErrorCode, VersionRange};

use crate::cluster::{Cluster, ClusterView};
use crate::config_resource::ResourceKind;
use crate::context::RequestContext;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves ListConfigResources.
pub(crate) struct ListConfigResourcesHandler {
    cluster: Arc<Cluster>,
}

impl ListConfigResourcesHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for ListConfigResourcesHandler {
    type Request = ListConfigResourcesRequest;

    const VERSIONS: VersionRange = ListConfigResourcesRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::DescribeConfigs);

    fn handle(
        &self,
        context: RequestContext,
        request: ListConfigResourcesRequest,
    ) -> Ticket<ListConfigResourcesResponse> {
        let view = self.cluster.view(&context.listener);
        let response = match kinds(context.version, &request.resource_types) {
            Some(kinds) => ListConfigResourcesResponse {
                config_resources: kinds.into_iter().flat_map(|kind| resources(&view, kind)).collect(),
                ..ListConfigResourcesResponse::default()
            },
            None => ListConfigResourcesResponse {
                error_code: ErrorCode::UnsupportedVersion.code(),
                ..ListConfigResourcesResponse::default()
            },
        };
        Ticket::ready(Answer::Response(response))
    }
}

/// The kinds that the request asks for, `None` if one of them does not exist.
fn kinds(version: i16, codes: &[i8]) -> Option<BTreeSet<ResourceKind>> {
    if version == 0 {
        return Some(BTreeSet::from([ResourceKind::ClientMetrics]));
    }
    if codes.is_empty() {
        return Some(ResourceKind::ALL.into_iter().collect());
    }
    codes.iter().map(|code| ResourceKind::from_code(*code)).collect()
}

fn resources(view: &ClusterView, kind: ResourceKind) -> Vec<ConfigResource> {
    let configured = || view.image.configs.resources().map(|(resource, _)| resource);
    let names: Vec<String> = match kind {
        ResourceKind::Topic => {
            view.topics_by_name().into_iter().map(|topic| topic.name.to_string()).collect()
        }
        ResourceKind::Broker | ResourceKind::BrokerLogger => {
            view.usable_nodes().map(|node| node.id.to_string()).collect()
        }
        ResourceKind::ClientMetrics => configured()
            .filter_map(|known| match known {
                Known::ClientMetrics(name) => Some(name.clone()),
                _ => None,
            })
            .collect(),
        ResourceKind::Group => configured()
            .filter_map(|known| match known {
                Known::Group(name) => Some(name.clone()),
                _ => None,
            })
            .collect(),
    };
    let told = names.into_iter();
    told.map(|resource_name| ConfigResource { resource_name, resource_type: kind.code() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Bed, answer, context_of, setting, topic};

    fn ask(version: i16, kinds: &[ResourceKind], extra: Option<i8>) -> ListConfigResourcesResponse {
        let bed = Bed::with_brokers(&[(1, false), (2, true)]);
        bed.learn(&topic(1, "b", &[&[1]]));
        bed.learn(&topic(2, "a", &[&[1]]));
        bed.learn(&[
            setting(Known::Group("g".to_owned()), "consumer.session.timeout.ms", "50000"),
            setting(Known::ClientMetrics("m".to_owned()), "interval.ms", "1000"),
            setting(Known::BrokerDefault, "message.max.bytes", "1000"),
        ]);
        let handler = ListConfigResourcesHandler::new(bed.cluster());
        let resource_types = kinds.iter().map(|kind| kind.code()).chain(extra).collect();
        let request = ListConfigResourcesRequest { resource_types };
        answer(handler.handle(context_of::<ListConfigResourcesRequest>(version), request))
    }

    fn told(response: &ListConfigResourcesResponse) -> Vec<(i8, &str)> {
        response.config_resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())).collect()
    }

    #[test]
    fn all_kinds_are_told_in_order_and_one_at_a_time() {
        let all = [(2, "a"), (2, "b"), (4, "1"), (8, "1"), (16, "m"), (32, "g")];
        assert_eq!(told(&ask(1, &[], None)), all);
        assert_eq!(
            told(&ask(1, &[ResourceKind::Group, ResourceKind::Topic], None)),
            [all[0], all[1], all[5]]
        );
        assert_eq!(told(&ask(0, &[], None)), [all[4]]);
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let response = ask(1, &[ResourceKind::Topic], Some(3));
        assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
        assert!(response.config_resources.is_empty());
    }
}
