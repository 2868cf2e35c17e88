//! The validation table of ISR changes, row by row, and what an accepted change does.

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::*;

use crate::context::*;

fn refused(cluster: &mut Cluster, request: &AlterPartitionRequest) -> IsrRefusal {
    let before = cluster.image.clone();
    match cluster.alter(request) {
        IsrAnswer::Refused(refusal) => {
            assert_eq!(cluster.image, before, "a refusal changes nothing");
            refusal
        }
        accepted => panic!("accepted: {accepted:?}"),
    }
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(4);
    cluster.topic("t", 2, &[&[1, 2, 3]]);
    cluster
}

#[test]
fn a_sender_of_another_epoch_is_stale() {
    let cluster = cluster();
    let mut request = cluster.proposal("t", &[1, 2]);
    request.broker_epoch = BrokerEpoch(request.broker_epoch.0 + 1);
    let error = cluster.replication().alter_partition(&request).expect_err("another epoch");
    assert_eq!(error.refusal(), Refusal::StaleBrokerEpoch);
    request.broker = b(9);
    assert!(cluster.replication().alter_partition(&request).is_err());
}

#[test]
fn an_unknown_topic_or_partition_is_refused() {
    let mut cluster = cluster();
    let mut request = cluster.proposal("t", &[1, 2]);
    request.proposals[0].partition = PartitionId(1);
    assert_eq!(refused(&mut cluster, &request).refusal(), Refusal::UnknownTopicOrPartition);
    request.proposals[0].topic = TopicId([9; 16]);
    assert_eq!(refused(&mut cluster, &request).refusal(), Refusal::UnknownTopicId);
}

#[test]
fn a_controller_that_knows_less_says_it_is_not_the_controller() {
    let mut cluster = cluster();
    for (leader_epoch, partition_epoch) in [(1, 0), (0, 1), (1, 1)] {
        let mut request = cluster.proposal("t", &[1, 2]);
        request.proposals[0].leader_epoch = LeaderEpoch(leader_epoch);
        request.proposals[0].partition_epoch = PartitionEpoch(partition_epoch);
        assert_eq!(refused(&mut cluster, &request).refusal(), Refusal::NotController);
    }
}

#[test]
fn older_epochs_are_fenced_and_outdated() {
    let mut cluster = cluster();
    let first = cluster.proposal("t", &[1, 2]);
    cluster.set_isr("t", &[1, 2]);
    assert_eq!(refused(&mut cluster, &first).refusal(), Refusal::InvalidUpdateVersion);
    cluster.die(1);
    assert_eq!(cluster.partition("t", 0).leader, Some(b(2)));
    cluster.start(1);
    let mut zombie = cluster.proposal("t", &[1, 2]);
    (zombie.broker, zombie.broker_epoch) = (b(1), cluster.epoch(1));
    assert_eq!(refused(&mut cluster, &zombie), IsrRefusal::NotLeader { broker: b(1) });
    zombie.proposals[0].leader_epoch = LeaderEpoch(0);
    assert_eq!(refused(&mut cluster, &zombie).refusal(), Refusal::FencedLeaderEpoch);
}

#[test]
fn the_isr_is_a_set_of_replicas_with_the_leader() {
    let mut cluster = cluster();
    for (isr, refusal) in [
        (&[1, 2, 2][..], IsrRefusal::BadMember { broker: b(2) }),
        (&[1, 4], IsrRefusal::BadMember { broker: b(4) }),
        (&[2, 3], IsrRefusal::LeaderMissing { leader: b(1) }),
    ] {
        let request = cluster.proposal("t", isr);
        let answer = refused(&mut cluster, &request);
        assert_eq!((answer, answer.refusal()), (refusal, Refusal::InvalidRequest));
    }
}

#[test]
fn an_empty_isr_is_refused() {
    let mut cluster = cluster();
    let request = cluster.proposal("t", &[]);
    assert_eq!(refused(&mut cluster, &request), IsrRefusal::LeaderMissing { leader: b(1) });
}

#[test]
fn a_recovered_leader_does_not_go_back_to_recovering() {
    let mut cluster = cluster();
    let mut request = cluster.proposal("t", &[1]);
    request.proposals[0].recovery = LeaderRecovery::Recovering;
    assert_eq!(refused(&mut cluster, &request), IsrRefusal::BadRecovery { members: 1 });
}

#[test]
fn a_recovering_leader_is_alone_until_it_confirms() {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 1, &[&[1, 2]]);
    cluster.set_isr("t", &[1]);
    cluster.die(1);
    cluster.elect(ElectionKind::Unclean, "t").expect("2 is active");
    assert_eq!(cluster.partition("t", 0).recovery, LeaderRecovery::Recovering);
    cluster.start(1);
    let mut request = cluster.proposal("t", &[2, 1]);
    request.proposals[0].recovery = LeaderRecovery::Recovering;
    assert_eq!(refused(&mut cluster, &request), IsrRefusal::BadRecovery { members: 2 });
    cluster.set_isr("t", &[2]);
    assert_eq!(cluster.partition("t", 0).recovery, LeaderRecovery::Recovered);
    cluster.set_isr("t", &[2, 1]);
}

#[test]
fn a_fenced_or_departing_member_is_refused() {
    let mut cluster = cluster();
    cluster.die(2);
    let request = cluster.proposal("t", &[1, 3, 2]);
    assert_eq!(refused(&mut cluster, &request).refusal(), Refusal::IneligibleReplica);
    cluster.start(2);
    cluster.set_isr("t", &[1, 3, 2]);
    cluster.heartbeat_as(2, cluster.epoch(2), false, true).expect("it is registered");
    assert_eq!(state(&cluster.partition("t", 0)).1, [1, 3]);
    let request = cluster.proposal("t", &[1, 3, 2]);
    assert_eq!(refused(&mut cluster, &request).refusal(), Refusal::IneligibleReplica);
}

#[test]
fn a_member_that_restarted_is_refused() {
    let mut cluster = cluster();
    cluster.set_isr("t", &[1, 3]);
    let request = cluster.proposal("t", &[1, 3, 2]);
    let old = cluster.epoch(2);
    cluster.start(2);
    let refusal = refused(&mut cluster, &request);
    assert_eq!(refusal, IsrRefusal::IneligibleReplica { broker: b(2), epoch: old });
    assert!(refusal.is_retryable());
}

#[test]
fn a_proposal_sent_again_changes_nothing_twice() {
    let mut cluster = cluster();
    let request = cluster.proposal("t", &[1, 2]);
    assert!(matches!(cluster.alter(&request), IsrAnswer::Accepted(_)));
    let after = cluster.image.clone();
    assert_eq!(refused(&mut cluster, &request).refusal(), Refusal::InvalidUpdateVersion);
    assert_eq!(cluster.image, after);
}

/// A leader tells by the partition epoch alone whether an answer is that of its proposal.
#[test]
fn an_accepted_proposal_raises_the_partition_epoch_even_if_it_changes_nothing() {
    let mut cluster = cluster();
    let before = cluster.partition("t", 0);
    let members: Vec<i32> = before.isr.iter().map(|member| member.0).collect();
    let same = cluster.proposal("t", &members);
    let IsrAnswer::Accepted(answer) = cluster.alter(&same) else { panic!("refused") };
    let after = cluster.partition("t", 0);
    let partition_epoch = PartitionEpoch(before.partition_epoch.0 + 1);
    assert_eq!(after, PartitionRegistration { partition_epoch, ..before });
    assert_eq!(*answer.registration, after);
    assert_eq!(refused(&mut cluster, &same).refusal(), Refusal::InvalidUpdateVersion);
}

#[test]
fn a_shrinking_isr_keeps_epoch_and_eligible_replicas() {
    let mut cluster = cluster();
    let request = cluster.proposal("t", &[1]);
    let IsrAnswer::Accepted(answer) = cluster.alter(&request) else { panic!("refused") };
    assert_eq!(answer.min_insync_replicas, 2);
    let partition = cluster.partition("t", 0);
    assert_eq!(*answer.registration, partition);
    assert_eq!(state(&partition), (Some(1), vec![1], vec![2, 3], vec![]));
    assert_eq!((partition.leader_epoch, partition.partition_epoch), (LeaderEpoch(0), PartitionEpoch(1)));
}

#[test]
fn a_full_isr_forgets_the_elr() {
    let mut cluster = cluster();
    cluster.set_isr("t", &[1]);
    cluster.set_isr("t", &[1, 2]);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(1), vec![1, 2], vec![], vec![]));
}

#[test]
fn proposals_stand_alone() {
    let mut cluster = cluster();
    let mut request = cluster.proposal("t", &[1, 2]);
    let mut bad = request.proposals[0].clone();
    bad.partition = PartitionId(7);
    request.proposals.insert(0, bad);
    request.proposals.push(request.proposals[1].clone());
    let result = cluster.replication().alter_partition(&request).expect("the sender is registered");
    assert_eq!(result.records.len(), 1);
    let answers = cluster.commit_vouched(result);
    assert!(matches!(answers[0], IsrAnswer::Refused(IsrRefusal::UnknownPartition { .. })));
    assert!(matches!(answers[1], IsrAnswer::Accepted(_)));
    assert!(matches!(answers[2], IsrAnswer::Refused(IsrRefusal::OldPartitionEpoch { .. })));
}
