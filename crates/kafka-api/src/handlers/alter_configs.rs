//! AlterConfigs (33): replaces all settings of a resource by those named. Kafka's first way of doing it, which newer
//! clients have given up for IncrementalAlterConfigs, as settings that nobody thought of are lost.

use std::sync::Arc;

use klamm_protocol::VersionRange;
use klamm_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use klamm_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::config_change::{ConfigChanges, Operation as Change, ResourceChange};
use crate::context::RequestContext;
use crate::submission::told;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves AlterConfigs.
pub(crate) struct AlterConfigsHandler {
    changes: Arc<ConfigChanges>,
}

impl AlterConfigsHandler {
    pub(crate) fn new(changes: Arc<ConfigChanges>) -> Self {
        Self { changes }
    }
}

impl Handler for AlterConfigsHandler {
    type Request = AlterConfigsRequest;

    const VERSIONS: VersionRange = AlterConfigsRequest::VERSIONS;
    const ACCESS: Access = Access::Config(Operation::AlterConfigs);

    fn handle(&self, _: RequestContext, request: AlterConfigsRequest) -> Ticket<AlterConfigsResponse> {
        let changes = self.changes.clone();
        let wanted = request.resources.into_iter().map(|resource| {
            let operations =
                resource.configs.into_iter().map(|config| Change::set(config.name, config.value));
            ResourceChange {
                kind: resource.resource_type,
                name: resource.resource_name,
                operations: operations.collect(),
                replace_all: true,
            }
        });
        let wanted: Vec<_> = wanted.collect();
        Ticket::later(async move {
            let outcomes = changes.apply(wanted, request.validate_only).await.into_iter();
            let responses = outcomes.map(|(resource_type, resource_name, result)| {
                let (error_code, error_message) = told(result);
                AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
            });
            let responses = responses.collect();
            Answer::Response(AlterConfigsResponse { throttle_time_ms: 0, responses })
        })
    }
}
