//! ListGroups (16): the groups that this broker coordinates, filtered by their state and their type (KIP-518, KIP-848).
//!
//! There are no groups yet, so that the list is empty whatever the filters are. Tools that ask for all groups before
//! they go on (`kafka-configs --entity-type groups`) learn that there are none.

use klamm_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use klamm_protocol::{ErrorCode, VersionRange};

use crate::context::RequestContext;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves ListGroups.
pub(crate) struct ListGroupsHandler;

impl Handler for ListGroupsHandler {
    type Request = ListGroupsRequest;

    const VERSIONS: VersionRange = ListGroupsRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Describe);

    fn handle(&self, _context: RequestContext, _request: ListGroupsRequest) -> Ticket<ListGroupsResponse> {
        let response = ListGroupsResponse {
            throttle_time_ms: 0,
            error_code: ErrorCode::None.code(),
            groups: Vec::new(),
        };
        Ticket::ready(Answer::Response(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{answer, context_of};

    #[test]
    fn there_are_no_groups_whatever_is_asked_for() {
        let filters = [
            (vec![], vec![]),
            (vec!["Stable".to_owned()], vec![]),
            (vec!["nonsense".to_owned()], vec!["classic".to_owned(), "nonsense".to_owned()]),
        ];
        for (states_filter, types_filter) in filters {
            let request = ListGroupsRequest { states_filter, types_filter };
            let response = answer(ListGroupsHandler.handle(context_of::<ListGroupsRequest>(5), request));
            assert_eq!((response.error_code, response.groups), (0, vec![]));
        }
    }
}
