//! A producer and a consumer against a broker that does wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broker;

use std::time::Duration;

use bytes::Bytes;
use klamm_client::{
    Acks, Consumer, ConsumerOptions, Delivered, OwnedRecord, Position, ProduceError, Producer,
    ProducerOptions,
};
use klamm_protocol::ErrorCode;
use klamm_types::{Offset, Timestamp};

use broker::{Broker, Fault, partition};

/// Small batches, so that many are under way at once.
fn small() -> ProducerOptions {
    ProducerOptions { batch_bytes: 200, ..ProducerOptions::default() }
}

type Fate = Result<Delivered, ProduceError>;

/// Sends `count` numbered records, all before the first answer is looked at.
async fn send(broker: &Broker, options: ProducerOptions, count: u64) -> Vec<Fate> {
    let producer = Producer::new(broker.cluster(), options);
    let mut deliveries = Vec::new();
    for number in 0..count {
        let value = Bytes::copy_from_slice(&number.to_be_bytes());
        let record = OwnedRecord::of_value(Timestamp(1), value);
        deliveries.push(producer.send(&partition(), record).await.unwrap());
    }
    let mut fates = Vec::new();
    for delivery in deliveries {
        fates.push(delivery.wait().await);
    }
    fates
}

/// The numbers in the log, by ascending offset.
async fn numbers(broker: &Broker, count: usize) -> Vec<u64> {
    let mut consumer = Consumer::new(&broker.cluster(), ConsumerOptions::default());
    consumer.assign(partition(), Position::Beginning);
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let records = consumer.poll(Duration::from_secs(10)).await.unwrap();
        assert!(!records.is_empty(), "only {} of {count} records came", numbers.len());
        for record in records {
            assert_eq!(record.offset, Offset(numbers.len() as i64));
            numbers.push(u64::from_be_bytes(record.value.unwrap().as_ref().try_into().unwrap()));
        }
    }
    numbers
}

async fn all_arrive_in_order(faults: &[Fault]) {
    let broker = Broker::start(faults).await;
    let fates = send(&broker, small(), 100).await;
    for (offset, fate) in (0..).zip(&fates) {
        assert_eq!(fate.as_ref().unwrap().offset, Some(Offset(offset)), "{faults:?}");
    }
    assert_eq!(numbers(&broker, 100).await, (0..100).collect::<Vec<_>>(), "{faults:?}");
    assert!(broker.requests() > faults.len());
}

#[tokio::test]
async fn nothing_is_lost_doubled_or_reordered_whatever_passes() {
    use Fault::*;
    all_arrive_in_order(&[]).await;
    all_arrive_in_order(&[HangUpBefore]).await;
    all_arrive_in_order(&[HangUpAfter]).await;
    all_arrive_in_order(&[None, None, HangUpAfter, HangUpBefore, HangUpAfter]).await;
    all_arrive_in_order(&[Refuse(ErrorCode::NotLeaderOrFollower)]).await;
    all_arrive_in_order(&[None, Refuse(ErrorCode::NotEnoughReplicas), None, None]).await;
    all_arrive_in_order(&[WriteAndRefuse(ErrorCode::NotEnoughReplicasAfterAppend)]).await;
    all_arrive_in_order(&[None, WriteAndRefuse(ErrorCode::RequestTimedOut), HangUpAfter]).await;
}

/// Random plans; each seed is a plan of its own.
#[tokio::test]
async fn nothing_is_lost_doubled_or_reordered_under_many_faults() {
    let kinds = [
        Fault::None,
        Fault::None,
        Fault::HangUpBefore,
        Fault::HangUpAfter,
        Fault::Refuse(ErrorCode::NotLeaderOrFollower),
        Fault::WriteAndRefuse(ErrorCode::RequestTimedOut),
    ];
    for seed in 1..=20_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let plan: Vec<_> = (0..30)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                kinds[(state % kinds.len() as u64) as usize]
            })
            .collect();
        all_arrive_in_order(&plan).await;
    }
}

#[tokio::test]
async fn a_refusal_for_good_fails_its_batch_and_says_which_others_may_be_lost() {
    let broker = Broker::start(&[Fault::None, Fault::Refuse(ErrorCode::MessageTooLarge)]).await;
    let fates = send(&broker, small(), 100).await;
    let refused: Vec<_> = fates.iter().filter_map(|fate| fate.as_ref().err()).collect();
    assert!(refused.iter().any(|error| error.is_definite() && !error.is_retryable()), "{refused:?}");
    // What was acknowledged is there, at the offset that was told, and nothing else is.
    let acknowledged: Vec<_> =
        (0..).zip(&fates).filter_map(|(number, fate)| Some((number, fate.as_ref().ok()?.offset?))).collect();
    let found = numbers(&broker, acknowledged.len()).await;
    for (number, offset) in &acknowledged {
        assert_eq!(found[offset.0 as usize], *number);
    }
    assert_eq!(found.len(), acknowledged.len());
    assert!(acknowledged.len() + refused.len() == 100 && !acknowledged.is_empty());
    assert!(fates.last().unwrap().is_ok(), "later records go on under a new producer id");
}

#[tokio::test]
async fn time_that_is_over_is_told_as_such() {
    let always = [Fault::Refuse(ErrorCode::NotEnoughReplicas); 10_000];
    let broker = Broker::start(&always).await;
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(50), ..small() };
    let fates = send(&broker, options, 1).await;
    let error = fates[0].as_ref().unwrap_err();
    assert!(matches!(error, ProduceError::TimedOut { .. }) && !error.is_definite(), "{error}");
}

#[tokio::test]
async fn without_acknowledgements_records_still_arrive() {
    for acks in [Acks::None, Acks::Leader] {
        let broker = Broker::start(&[]).await;
        let fates = send(&broker, ProducerOptions { acks, ..small() }, 50).await;
        assert!(fates.iter().all(|fate| fate.as_ref().unwrap().offset.is_some() == (acks == Acks::Leader)));
        assert_eq!(numbers(&broker, 50).await.len(), 50);
    }
}
