//! Changes that administrators ask for.

use std::sync::Arc;
use std::time::Duration;

use klamm_control::ControlResult;
use klamm_pb::controller::v1 as pb;
use klamm_rpc::stubs::controller::v1::admin_server::Admin;
use pb::submit_request::Change;
use pb::submit_response::Outcome;
use tonic::{Request, Response, Status};

use super::{ServiceParts, changes, configs, feature_support};
use crate::ControllerError;
use crate::active::Desk;

/// How long a caller waits that does not say so.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// The most items in one request; a decision on more would hold up all others for too long.
pub(super) const ITEMS_MAX: usize = 20_000;

/// The service.
pub(super) struct AdminService {
    parts: Arc<ServiceParts>,
}

/// A change, understood, that can be decided upon.
pub(super) type Decision = Box<dyn FnOnce(&mut Desk<'_>) -> ControlResult<Outcome> + Send>;

impl AdminService {
    pub(super) fn new(parts: Arc<ServiceParts>) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn submit(
        &self,
        request: Request<pb::SubmitRequest>,
    ) -> Result<Response<pb::SubmitResponse>, Status> {
        let message = request.into_inner();
        self.parts.identity.admit(message.caller.as_ref())?;
        let timeout = timeout_of(message.timeout_ms);
        let change = message.change.ok_or_else(|| Status::invalid_argument("the request names no change"))?;
        if items(&change) > ITEMS_MAX {
            return Ok(too_much(format!("a request may have {ITEMS_MAX} items")));
        }
        if let Change::UpdateFeatures(update) = &change
            && let Some(refusal) = feature_support::unsupported(&self.parts, &update.updates).await
        {
            let outcome = Some(Outcome::Refusal(refusal));
            return Ok(Response::new(pb::SubmitResponse { applied: None, outcome }));
        }
        let decision = understand(change);
        let decided = tokio::time::timeout(timeout, self.parts.handle.change(decision)).await;
        let (offset, outcome) = match decided {
            Ok(Ok(decided)) => decided,
            // The change was understood, and is refused as a whole: what is wrong with it will not pass.
            Ok(Err(error @ ControllerError::TooLarge { .. })) => return Ok(too_much(error.to_string())),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Status::deadline_exceeded("the change is not committed yet")),
        };
        let applied = Some(pb::Applied { offset: offset.0 });
        Ok(Response::new(pb::SubmitResponse { applied, outcome: Some(outcome) }))
    }
}

/// How long a caller waits that says `millis`; 0 is not to say.
pub(super) fn timeout_of(millis: u32) -> Duration {
    if millis == 0 { TIMEOUT_DEFAULT } else { Duration::from_millis(u64::from(millis)).min(TIMEOUT_MAX) }
}

fn items(change: &Change) -> usize {
    match change {
        Change::CreateTopics(change) => {
            change.topics.iter().map(|topic| 1 + topic.assignments.len() + topic.configs.len()).sum()
        }
        Change::DeleteTopics(change) => change.topics.len(),
        Change::CreatePartitions(change) => {
            change.topics.iter().map(|topic| 1 + topic.assignments.len()).sum()
        }
        Change::AlterConfigs(change) => {
            change.resources.iter().map(|resource| 1 + resource.operations.len()).sum()
        }
        Change::ElectLeaders(change) => change.partitions.len(),
        Change::AlterReassignments(change) => change.partitions.len(),
        Change::UpdateFeatures(change) => change.updates.len(),
        Change::UnregisterBroker(_) => 1,
    }
}

fn understand(change: Change) -> Decision {
    match change {
        Change::CreateTopics(change) => changes::create_topics(change),
        Change::DeleteTopics(change) => changes::delete_topics(change),
        Change::CreatePartitions(change) => changes::create_partitions(change),
        Change::ElectLeaders(change) => changes::elect_leaders(change),
        Change::AlterReassignments(change) => changes::alter_reassignments(change),
        Change::AlterConfigs(change) => configs::alter_configs(change),
        Change::UpdateFeatures(change) => configs::update_features(change),
        Change::UnregisterBroker(change) => configs::unregister_broker(&change),
    }
}

/// Items of a request, each understood or refused by itself.
pub(super) struct Items<T> {
    understood: Vec<T>,
    /// One per item: the refusal of one that was not understood.
    refusals: Vec<Option<pb::Refusal>>,
}

impl<T> Items<T> {
    pub(super) fn of(items: impl Iterator<Item = Result<T, pb::Refusal>>) -> Self {
        let mut sorted = Self { understood: Vec::new(), refusals: Vec::new() };
        for item in items {
            match item {
                Ok(item) => {
                    sorted.understood.push(item);
                    sorted.refusals.push(None);
                }
                Err(refusal) => sorted.refusals.push(Some(refusal)),
            }
        }
        sorted
    }

    /// What can be decided upon.
    pub(super) fn understood(&self) -> &[T] {
        &self.understood
    }

    /// The outcome of every item, in the order of the request, given those of the understood ones.
    pub(super) fn weave<O>(self, outcomes: Vec<Result<O, pb::Refusal>>) -> Vec<Result<O, pb::Refusal>> {
        let mut outcomes = outcomes.into_iter();
        let outcome = |refusal: Option<pb::Refusal>| match refusal {
            Some(refusal) => Some(Err(refusal)),
            None => outcomes.next(),
        };
        self.refusals.into_iter().filter_map(outcome).collect()
    }
}

/// The same decision, without its records if nothing shall happen.
pub(super) fn unless_validating<T>(result: ControlResult<T>, validate_only: bool) -> ControlResult<T> {
    if validate_only { ControlResult { records: Vec::new(), ..result } } else { result }
}

/// The answer to a change that is refused as a whole because of its size.
fn too_much(message: String) -> Response<pb::SubmitResponse> {
    let refusal = super::refusal::refusal(klamm_control::Refusal::PolicyViolation, message);
    Response::new(pb::SubmitResponse { applied: None, outcome: Some(Outcome::Refusal(refusal)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_in_the_order_of_the_request() {
        let refusal = pb::Refusal { code: 42, message: String::new() };
        let items = Items::of([Ok(1), Err(refusal.clone()), Ok(3)].into_iter());
        assert_eq!(items.understood(), [1, 3]);
        assert_eq!(items.weave(vec![Ok("one"), Ok("three")]), [Ok("one"), Err(refusal), Ok("three")]);
    }

    #[test]
    fn a_caller_that_does_not_say_waits_a_while() {
        assert_eq!(timeout_of(0), TIMEOUT_DEFAULT);
        assert_eq!(timeout_of(7), Duration::from_millis(7));
        assert_eq!(timeout_of(u32::MAX), TIMEOUT_MAX);
    }
}
