//! FindCoordinator (10): which broker coordinates a group, a transactional id or a share partition.
//!
//! There are no coordinators yet, so that every well-formed key is answered with COORDINATOR_NOT_AVAILABLE, upon which
//! clients ask again later.

use klamm_protocol::messages::find_coordinator_response::Coordinator;
use klamm_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::TopicId;

use crate::context::RequestContext;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// From this version on one request names many keys (KIP-699).
const BATCHED_SINCE: i16 = 4;
/// From this version on coordinators of share partitions can be asked for (KIP-932).
const SHARE_SINCE: i16 = 6;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// Serves FindCoordinator.
pub(crate) struct FindCoordinatorHandler;

impl Handler for FindCoordinatorHandler {
    type Request = FindCoordinatorRequest;

    const VERSIONS: VersionRange = FindCoordinatorRequest::VERSIONS;
    const ACCESS: Access = Access::Group(Operation::Describe);

    fn handle(
        &self,
        context: RequestContext,
        request: FindCoordinatorRequest,
    ) -> Ticket<FindCoordinatorResponse> {
        let (version, kind) = (context.version, request.key_type);
        let response = if version < BATCHED_SINCE {
            let code = find(version, kind, &request.key);
            FindCoordinatorResponse {
                error_code: code.code(),
                error_message: (version >= 1).then(|| code.message().to_owned()),
                node_id: -1,
                port: -1,
                ..FindCoordinatorResponse::default()
            }
        } else {
            let coordinators =
                request.coordinator_keys.into_iter().map(|key| coordinator(version, kind, key));
            FindCoordinatorResponse {
                coordinators: coordinators.collect(),
                ..FindCoordinatorResponse::default()
            }
        };
        Ticket::ready(Answer::Response(response))
    }
}

fn coordinator(version: i16, kind: i8, key: String) -> Coordinator {
    let code = find(version, kind, &key);
    Coordinator {
        key,
        node_id: -1,
        port: -1,
        error_code: code.code(),
        error_message: Some(code.message().to_owned()),
        ..Coordinator::default()
    }
}

fn find(version: i16, kind: i8, key: &str) -> ErrorCode {
    match kind {
        GROUP | TRANSACTION => ErrorCode::CoordinatorNotAvailable,
        SHARE if version >= SHARE_SINCE && is_share_key(key) => ErrorCode::CoordinatorNotAvailable,
        _ => ErrorCode::InvalidRequest,
    }
}

/// `group:topic id:partition`; the group's name may have colons of its own.
fn is_share_key(key: &str) -> bool {
    let mut parts = key.rsplitn(3, ':');
    let partition = parts.next().and_then(|text| text.parse::<i32>().ok()).is_some_and(|number| number >= 0);
    let topic = parts.next().is_some_and(|text| text.parse::<TopicId>().is_ok());
    partition && topic && parts.next().is_some_and(|group| !group.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{answer, context_of};

    fn ask(version: i16, kind: i8, key: &str) -> FindCoordinatorResponse {
        let mut request = FindCoordinatorRequest { key_type: kind, ..FindCoordinatorRequest::default() };
        if version < BATCHED_SINCE {
            request.key = key.to_owned();
        } else {
            request.coordinator_keys = vec![key.to_owned()];
        }
        answer(FindCoordinatorHandler.handle(context_of::<FindCoordinatorRequest>(version), request))
    }

    #[test]
    fn a_coordinator_is_not_available_in_every_version() {
        let code = ErrorCode::CoordinatorNotAvailable;
        for version in 0..BATCHED_SINCE {
            let response = ask(version, GROUP, "g");
            assert_eq!((response.error_code, response.node_id, response.port), (code.code(), -1, -1));
            assert_eq!(response.error_message.is_some(), version > 0);
        }
        for version in BATCHED_SINCE..=6 {
            let coordinators = ask(version, TRANSACTION, "t").coordinators;
            let told: Vec<_> =
                coordinators.iter().map(|c| (c.key.as_str(), c.error_code, c.node_id)).collect();
            assert_eq!(told, [("t", code.code(), -1)]);
        }
    }

    #[test]
    fn unknown_kinds_and_malformed_share_keys_are_invalid() {
        let code = |version, kind, key| ask(version, kind, key).coordinators[0].error_code;
        let invalid = ErrorCode::InvalidRequest.code();
        let share = "a:group:AAAAAAAAAAAAAAAAAAAAAQ:0";
        assert_eq!(code(6, 3, "g"), invalid);
        assert_eq!(code(6, -1, "g"), invalid);
        assert_eq!(code(5, SHARE, share), invalid);
        assert_eq!(code(6, SHARE, share), ErrorCode::CoordinatorNotAvailable.code());
        for key in ["", "g", "g:1", ":AAAAAAAAAAAAAAAAAAAAAQ:0", "g:x:0", "g:AAAAAAAAAAAAAAAAAAAAAQ:-1"] {
            assert_eq!(code(6, SHARE, key), invalid, "{key}");
        }
        assert_eq!(ask(1, 9, "g").error_code, invalid);
    }
}
