//! DeleteTopics (20): topics by name or, from version 6 on, by id (KIP-516); each is deleted or refused alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::topic_reference::Reference;
use klamm_pb::controller::v1::{DeleteTopics, DeletedTopic, TopicReference};
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::delete_topics_response::DeletableTopicResult;
use klamm_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use klamm_protocol::{ErrorCode, Uuid, VersionRange};

use crate::cluster::{Cluster, timeout};
use crate::context::RequestContext;
use crate::ports::GatewayError;
use crate::submission::{Refused, item_result, submit};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// From this version on topics can be named by their ids.
const IDS_SINCE: i16 = 6;

/// Serves DeleteTopics.
pub(crate) struct DeleteTopicsHandler {
    cluster: Arc<Cluster>,
}

impl DeleteTopicsHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for DeleteTopicsHandler {
    type Request = DeleteTopicsRequest;

    const VERSIONS: VersionRange = DeleteTopicsRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Delete);

    fn handle(&self, context: RequestContext, request: DeleteTopicsRequest) -> Ticket<DeleteTopicsResponse> {
        let timeout = timeout(request.timeout_ms);
        let topics = if context.version >= IDS_SINCE {
            request.topics
        } else {
            let named = |name| DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO };
            request.topic_names.into_iter().map(named).collect()
        };
        let cluster = self.cluster.clone();
        Ticket::later(async move {
            let responses = delete(&cluster, topics, timeout).await;
            Answer::Response(DeleteTopicsResponse { throttle_time_ms: 0, responses })
        })
    }
}

/// A topic as the request names it.
type Named = (Option<String>, Uuid);

async fn delete(
    cluster: &Arc<Cluster>,
    topics: Vec<DeleteTopicState>,
    timeout: Duration,
) -> Vec<DeletableTopicResult> {
    let topics: Vec<Named> = topics.into_iter().map(|topic| (topic.name, topic.topic_id)).collect();
    let mut times = BTreeMap::<Named, usize>::new();
    for named in &topics {
        *times.entry(named.clone()).or_default() += 1;
    }
    let (mut results, mut wanted) = (Vec::new(), Vec::new());
    for named in topics {
        // What is there twice has one result.
        let Some(times) = times.remove(&named) else { continue };
        match reference(&named, times) {
            Ok(reference) => wanted.push((named, reference)),
            Err(refused) => results.push(refused_result(named, refused)),
        }
    }
    results.extend(submit_topics(cluster, wanted, timeout).await);
    results
}

fn reference((name, id): &Named, times: usize) -> Result<Reference, Refused> {
    let refused = |reason: &str| Err(Refused::new(ErrorCode::InvalidRequest, reason));
    match (name, id.is_zero()) {
        (None, true) => refused("Neither topic name nor id were specified."),
        (Some(_), false) => refused("You may not specify both topic name and topic id."),
        (Some(_), true) if times > 1 => refused("Duplicate topic name."),
        (None, false) if times > 1 => refused("Duplicate topic id."),
        (Some(name), true) => Ok(Reference::Name(name.clone())),
        (None, false) => Ok(Reference::TopicId(id.0.to_vec().into())),
    }
}

async fn submit_topics(
    cluster: &Arc<Cluster>,
    wanted: Vec<(Named, Reference)>,
    timeout: Duration,
) -> Vec<DeletableTopicResult> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let (named, topics): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let topics = topics.into_iter().map(|reference| TopicReference { reference: Some(reference) }).collect();
    let change = Change::DeleteTopics(DeleteTopics { topics });
    let outcome = submit(cluster, change, timeout).await.and_then(|outcome| match outcome {
        Outcome::DeleteTopics(outcome) if outcome.topics.len() == named.len() => Ok(outcome.topics),
        _ => Err(GatewayError::BadAnswer.into()),
    });
    match outcome {
        Ok(topics) => named.into_iter().zip(topics).map(|(named, topic)| result(named, topic)).collect(),
        Err(refused) => named.into_iter().map(|named| refused_result(named, refused.clone())).collect(),
    }
}

fn result(named: Named, topic: DeletedTopic) -> DeletableTopicResult {
    match item_result(topic.refusal) {
        Err(refused) => refused_result(named, refused),
        Ok(()) => DeletableTopicResult {
            name: Some(topic.name),
            topic_id: <[u8; 16]>::try_from(&topic.topic_id[..]).map_or(named.1, Uuid),
            ..DeletableTopicResult::default()
        },
    }
}

fn refused_result((name, topic_id): Named, refused: Refused) -> DeletableTopicResult {
    DeletableTopicResult { name, topic_id, error_code: refused.code.code(), error_message: refused.message }
}

#[cfg(test)]
mod tests {
    use klamm_pb::controller::v1::{DeleteTopicsOutcome, Refusal};

    use super::*;
    use crate::fixture::{Bed, answer, context_of};

    fn ask(bed: &Arc<Bed>, version: i16, request: DeleteTopicsRequest) -> Vec<DeletableTopicResult> {
        let handler = DeleteTopicsHandler::new(bed.cluster());
        answer(handler.handle(context_of::<DeleteTopicsRequest>(version), request)).responses
    }

    fn names(names: &[&str]) -> DeleteTopicsRequest {
        let topic_names = names.iter().map(|name| (*name).to_owned()).collect();
        DeleteTopicsRequest { topic_names, timeout_ms: 500, ..DeleteTopicsRequest::default() }
    }

    fn deleted(name: &str, id: u8) -> DeletedTopic {
        DeletedTopic { name: name.to_owned(), topic_id: vec![id; 16].into(), ..DeletedTopic::default() }
    }

    fn refused(code: ErrorCode) -> DeletedTopic {
        let refusal = Refusal { code: i32::from(code.code()), message: String::new() };
        DeletedTopic { refusal: Some(refusal), ..DeletedTopic::default() }
    }

    fn told(results: &[DeletableTopicResult]) -> Vec<(Option<&str>, Uuid, i16)> {
        results.iter().map(|r| (r.name.as_deref(), r.topic_id, r.error_code)).collect()
    }

    #[test]
    fn topics_are_deleted_by_name_and_waited_for() {
        let bed = Bed::with_brokers(&[(1, false)]);
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let topics = vec![deleted("a", 7), refused(unknown)];
        bed.reply(Ok(Outcome::DeleteTopics(DeleteTopicsOutcome { topics })));
        let results = ask(&bed, 1, names(&["a", "b"]));
        assert_eq!(told(&results), [(Some("a"), Uuid([7; 16]), 0), (Some("b"), Uuid::ZERO, unknown.code())]);
        assert_eq!(results[1].error_message.as_deref(), Some(unknown.message()));
        assert_eq!(bed.asked.lock().unwrap()[0].1, Duration::from_millis(500));
        assert_eq!(bed.waited.lock().unwrap().len(), 1);
    }

    #[test]
    fn topics_are_deleted_by_id_and_malformed_ones_are_not_passed_on() {
        let bed = Bed::with_brokers(&[(1, false)]);
        let state = |name: Option<&str>, id: u8| DeleteTopicState {
            name: name.map(str::to_owned),
            topic_id: Uuid([id; 16]),
        };
        let topics = vec![
            state(None, 7),
            state(None, 0),
            state(Some("x"), 9),
            state(None, 8),
            state(None, 8),
            state(Some("twice"), 0),
            state(Some("twice"), 0),
        ];
        let outcome = DeleteTopicsOutcome { topics: vec![deleted("seven", 7)] };
        bed.reply(Ok(Outcome::DeleteTopics(outcome)));
        let results = ask(&bed, 6, DeleteTopicsRequest { topics, ..DeleteTopicsRequest::default() });
        let invalid = ErrorCode::InvalidRequest.code();
        assert_eq!(
            told(&results),
            [
                (None, Uuid::ZERO, invalid),
                (Some("x"), Uuid([9; 16]), invalid),
                (None, Uuid([8; 16]), invalid),
                (Some("twice"), Uuid::ZERO, invalid),
                (Some("seven"), Uuid([7; 16]), 0),
            ]
        );
        let [Change::DeleteTopics(change)] = &bed.changes()[..] else { panic!("one change") };
        assert_eq!(
            change.topics,
            [TopicReference { reference: Some(Reference::TopicId(vec![7; 16].into())) }]
        );
    }

    #[test]
    fn no_answer_refuses_every_topic() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.reply(Err(GatewayError::TimedOut));
        let results = ask(&bed, 5, names(&["a", "b"]));
        assert!(results.iter().all(|r| r.error_code == ErrorCode::RequestTimedOut.code()));
        // An answer for another number of topics is none.
        bed.reply(Ok(Outcome::DeleteTopics(DeleteTopicsOutcome { topics: vec![deleted("a", 7)] })));
        let results = ask(&bed, 5, names(&["a", "b"]));
        assert!(results.iter().all(|r| r.error_code == ErrorCode::UnknownServerError.code()));
    }

    #[test]
    fn nothing_is_asked_for_no_topics() {
        let bed = Bed::with_brokers(&[(1, false)]);
        assert!(ask(&bed, 5, names(&[])).is_empty());
        assert!(bed.changes().is_empty());
    }
}
