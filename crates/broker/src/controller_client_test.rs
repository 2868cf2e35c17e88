use tokio::time::Instant;

use super::fake::{Call, FakeController, PATIENCE, Script, client_of, nowhere};
use super::*;

fn change() -> pb::submit_request::Change {
    pb::submit_request::Change::UnregisterBroker(pb::UnregisterBroker { broker_id: 5 })
}

fn passive() -> Script {
    Script { active: false, ..Script::default() }
}

#[tokio::test]
async fn the_active_controller_is_found_by_asking_around_and_by_hints() {
    let active = FakeController::start(Script::default()).await;
    let knows = FakeController::start(Script { hint: Some(active.location()), ..passive() }).await;
    let ignorant = FakeController::start(passive()).await;
    let mut client = client_of(&[&ignorant, &knows]);
    Arc::get_mut(&mut client.config).unwrap().quorum.insert(0, nowhere().await);
    let client = ControllerClient::new((*client.config).clone(), ChannelPool::default());
    let submitted = client.submit(change(), PATIENCE).await.unwrap();
    assert_eq!(submitted.applied, Offset(7));
    assert_eq!(active.script().calls.len(), 1);
    assert_eq!(knows.script().calls.len(), 1);
    // From then on it is asked at once.
    client.describe_quorum(PATIENCE).await.unwrap();
    assert_eq!(knows.script().calls.len(), 1);
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_not_sent_again() {
    let first = FakeController::start(Script { mute: true, ..Script::default() }).await;
    let second = FakeController::start(Script::default()).await;
    let client = client_of(&[&first, &second]);
    let submitting = {
        let client = client.clone();
        tokio::spawn(async move { client.submit(change(), PATIENCE).await })
    };
    first.wait_for(|script| !script.calls.is_empty()).await;
    first.kill().await;
    let error = submitting.await.unwrap().unwrap_err();
    assert!(matches!(error, ControllerError::OutcomeUnknown { .. }), "{error}");
    assert!(!error.is_without_effect());
    assert!(second.script().calls.is_empty());
    // The next one goes where somebody may answer.
    client.submit(change(), PATIENCE).await.unwrap();
    assert_eq!(second.script().calls.len(), 1);
}

#[tokio::test]
async fn a_change_that_is_not_answered_ends_at_its_timeout() {
    let mute = FakeController::start(Script { mute: true, ..Script::default() }).await;
    let error = client_of(&[&mute]).submit(change(), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error, ControllerError::OutcomeUnknown { cause: RpcError::TimedOut });
    assert_eq!(mute.script().calls.len(), 1);
}

#[tokio::test]
async fn what_may_be_repeated_is_asked_elsewhere_when_a_node_is_silent() {
    let mute = FakeController::start(Script { mute: true, ..Script::default() }).await;
    let other = FakeController::start(Script::default()).await;
    let client = client_of(&[&mute, &other]);
    client.describe_quorum(PATIENCE).await.unwrap();
    assert_eq!(mute.script().calls, [Call::Describe]);
    assert_eq!(other.script().calls, [Call::Describe]);
}

#[tokio::test]
async fn without_an_active_controller_nothing_happens_and_that_is_said() {
    let one = FakeController::start(passive()).await;
    let client = client_of(&[&one]);
    let error = loop {
        match client.submit(change(), Duration::from_millis(100)).await.unwrap_err() {
            // The time ran out while a node was being asked: who knows.
            ControllerError::OutcomeUnknown { cause: RpcError::TimedOut } => {}
            error => break error,
        }
    };
    assert!(matches!(error, ControllerError::NotFound { .. }), "{error}");
    assert!(error.is_without_effect() && error.is_retryable());
}

#[tokio::test]
async fn nodes_that_name_each_other_are_asked_with_pauses() {
    let one = FakeController::start(passive()).await;
    let two = FakeController::start(Script { hint: Some(one.location()), ..passive() }).await;
    one.tell(|script| script.hint = Some(two.location()));
    let client = client_of(&[&one, &two]);
    let started = Instant::now();
    let error = client.submit(change(), Duration::from_millis(300)).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(200));
    // Pauses of 5, 10, 20, 40 and then 50 ms, with three questions between two of them.
    let asked = one.script().calls.len() + two.script().calls.len();
    assert!((2..=40).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_refusal_of_the_whole_is_an_error_and_final() {
    let refusal = Some(pb::RefusalCode::PolicyViolation);
    let active = FakeController::start(Script { refusal, ..Script::default() }).await;
    let client = client_of(&[&active]);
    let error = client.submit(change(), PATIENCE).await.unwrap_err();
    let code = pb::RefusalCode::PolicyViolation;
    assert_eq!(error, ControllerError::Refused { code, message: "as told".to_owned() });
    let error = client.alter_partition(BrokerEpoch(1), Vec::new(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ControllerError::Refused { .. }), "{error}");
    assert_eq!(active.script().calls.len(), 2);
}

#[tokio::test]
async fn a_foreign_cluster_is_told_at_once() {
    let active = FakeController::start(Script::default()).await;
    let identity = NodeIdentity::new("another", BrokerId(1));
    let config = ControllerClientConfig::new(identity, vec![active.address.clone()]);
    let client = ControllerClient::new(config, ChannelPool::default());
    let error = client.describe_quorum(PATIENCE).await.unwrap_err();
    assert!(matches!(error, ControllerError::Impossible(RpcError::ForeignCluster { .. })), "{error}");
}

#[tokio::test]
async fn producer_ids_come_in_blocks_of_the_registration() {
    let active = FakeController::start(Script::default()).await;
    let block = client_of(&[&active]).allocate_producer_ids(BrokerEpoch(3), PATIENCE).await.unwrap();
    assert_eq!((block.first, block.length), (3_000, 1_000));
}
