//! Replicas that move.

use klamm_control::*;
use klamm_types::*;

use crate::context::*;

fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

#[test]
fn nobody_leaves_before_the_newcomers_are_in_sync() {
    let mut cluster = Cluster::new(5);
    cluster.topic("t", 2, &[&[1, 2, 3]]);
    cluster.reassign("t", Some(&[3, 4, 5])).expect("possible");
    let partition = cluster.partition("t", 0);
    assert_eq!(numbers(&partition.replicas), [3, 4, 5, 1, 2]);
    assert_eq!((numbers(&partition.adding), numbers(&partition.removing)), (vec![4, 5], vec![1, 2]));
    assert_eq!((partition.leader, partition.leader_epoch), (Some(b(1)), LeaderEpoch(0)));
    cluster.set_isr("t", &[1, 2, 3, 4]);
    assert!(cluster.partition("t", 0).is_reassigning());
    let request = cluster.proposal("t", &[1, 2, 3, 4, 5]);
    let IsrAnswer::NewLeaderElected(answer) = cluster.alter(&request) else { panic!("1 has left") };
    let partition = cluster.partition("t", 0);
    assert_eq!(*answer.registration, partition);
    assert_eq!(numbers(&partition.replicas), [3, 4, 5]);
    assert_eq!(state(&partition), (Some(3), vec![3, 4, 5], vec![], vec![]));
    assert_eq!(partition.leader_epoch, LeaderEpoch(1));
    assert!(!partition.is_reassigning());
}

#[test]
fn a_reassignment_waits_until_enough_of_the_target_is_in_sync() {
    let mut cluster = Cluster::new(4);
    cluster.topic("t", 2, &[&[1, 2, 3]]);
    cluster.set_isr("t", &[1, 2]);
    cluster.reassign("t", Some(&[3, 4])).expect("possible");
    cluster.set_isr("t", &[1, 2, 4]);
    assert!(cluster.partition("t", 0).is_reassigning(), "4 alone is fewer than the minimum");
    let request = cluster.proposal("t", &[1, 2, 3, 4]);
    assert!(matches!(cluster.alter(&request), IsrAnswer::NewLeaderElected(_)));
    assert_eq!(state(&cluster.partition("t", 0)).1, [3, 4]);
}

#[test]
fn a_removal_that_leaves_the_leader_raises_the_epoch() {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 1, &[&[1, 2, 3]]);
    cluster.reassign("t", Some(&[1, 2])).expect("possible");
    let partition = cluster.partition("t", 0);
    assert_eq!((numbers(&partition.replicas), numbers(&partition.isr)), (vec![1, 2], vec![1, 2]));
    assert_eq!((partition.leader, partition.leader_epoch), (Some(b(1)), LeaderEpoch(1)));
    cluster.reassign("t", Some(&[2, 1])).expect("another order");
    let partition = cluster.partition("t", 0);
    assert_eq!((partition.leader, partition.leader_epoch), (Some(b(1)), LeaderEpoch(1)));
    assert_eq!(partition.preferred_leader(), Some(b(2)));
}

#[test]
fn a_cancelled_reassignment_goes_back() {
    let mut cluster = Cluster::new(4);
    cluster.topic("t", 1, &[&[1, 2]]);
    assert_eq!(cluster.reassign("t", None), Err(ReassignmentError::NotInProgress));
    cluster.reassign("t", Some(&[3, 4])).expect("possible");
    cluster.set_isr("t", &[1, 2, 3]);
    cluster.reassign("t", None).expect("it is under way");
    let partition = cluster.partition("t", 0);
    assert_eq!(numbers(&partition.replicas), [1, 2]);
    assert_eq!(state(&partition), (Some(1), vec![1, 2], vec![], vec![]));
    assert!(!partition.is_reassigning());
    assert_eq!(partition.leader_epoch, LeaderEpoch(1), "3 and 4 were replicas");
}

#[test]
fn the_last_complete_replica_is_not_dropped() {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 1, &[&[1]]);
    cluster.reassign("t", Some(&[2, 3])).expect("possible");
    cluster.set_isr("t", &[1, 2]);
    cluster.die(1);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(2), vec![2], vec![], vec![]));
    assert_eq!(cluster.reassign("t", None), Err(ReassignmentError::NothingLeft));
    cluster.die(2);
    assert_eq!(cluster.reassign("t", None), Err(ReassignmentError::NothingLeft));
}

#[test]
fn impossible_reassignments_are_refused() {
    let mut cluster = Cluster::new(4);
    cluster.topic("t", 1, &[&[1, 2]]);
    for (replicas, refusal) in [
        (&[][..], Refusal::InvalidReplicaAssignment),
        (&[1, 1], Refusal::InvalidReplicaAssignment),
        (&[1, 9], Refusal::InvalidReplicaAssignment),
    ] {
        assert_eq!(cluster.reassign("t", Some(replicas)).expect_err("impossible").refusal(), refusal);
    }
    assert_eq!(cluster.reassign("u", None).expect_err("unknown").refusal(), Refusal::UnknownTopicOrPartition);
    let wanted = Reassignment { partition: topic_partition("t", 0), replicas: Some(ids(&[1, 2, 3])) };
    let result = cluster.replication().alter_reassignments(&[wanted], false);
    assert_eq!(result.response, [Err(ReassignmentError::ReplicationFactorChange { current: 2, wanted: 3 })]);
}

#[test]
fn a_reassignment_can_be_redirected() {
    let mut cluster = Cluster::new(4);
    cluster.topic("t", 1, &[&[1, 2]]);
    cluster.reassign("t", Some(&[2, 3])).expect("possible");
    cluster.set_isr("t", &[1, 2]);
    cluster.reassign("t", Some(&[2, 4])).expect("possible");
    let partition = cluster.partition("t", 0);
    assert_eq!(numbers(&partition.replicas), [2, 4, 1]);
    assert_eq!((numbers(&partition.adding), numbers(&partition.removing)), (vec![4], vec![1]));
}
