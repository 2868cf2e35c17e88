//! IncrementalAlterConfigs (44): sets, removes, appends to and takes from single settings (KIP-339).

use std::sync::Arc;

use klamm_protocol::VersionRange;
use klamm_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use klamm_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::config_change::{ConfigChanges, Operation as Change, ResourceChange};
use crate::context::RequestContext;
use crate::submission::told;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves IncrementalAlterConfigs.
pub(crate) struct IncrementalAlterConfigsHandler {
    changes: Arc<ConfigChanges>,
}

impl IncrementalAlterConfigsHandler {
    pub(crate) fn new(changes: Arc<ConfigChanges>) -> Self {
        Self { changes }
    }
}

impl Handler for IncrementalAlterConfigsHandler {
    type Request = IncrementalAlterConfigsRequest;

    const VERSIONS: VersionRange = IncrementalAlterConfigsRequest::VERSIONS;
    const ACCESS: Access = Access::Config(Operation::AlterConfigs);

    fn handle(
        &self,
        _: RequestContext,
        request: IncrementalAlterConfigsRequest,
    ) -> Ticket<IncrementalAlterConfigsResponse> {
        let changes = self.changes.clone();
        let wanted = request.resources.into_iter().map(|resource| {
            let operations = resource.configs.into_iter();
            let operations = operations.map(|config| Change {
                kind: config.config_operation,
                key: config.name,
                value: config.value,
            });
            ResourceChange {
                kind: resource.resource_type,
                name: resource.resource_name,
                operations: operations.collect(),
                replace_all: false,
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
            Answer::Response(IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses })
        })
    }
}
