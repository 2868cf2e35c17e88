use std::collections::BTreeSet;

use super::*;
use crate::raft::CommittedLeaderId;

fn node(id: u64) -> ControllerNode {
    ControllerNode { host: format!("c{id}"), port: 9093, directory_id: [0; 16] }
}

fn founders(ids: &[u64]) -> BTreeMap<u64, ControllerNode> {
    ids.iter().map(|id| (*id, node(*id))).collect()
}

fn membership(ids: &[u64]) -> Membership {
    Membership::new(vec![ids.iter().copied().collect::<BTreeSet<_>>()], founders(ids)).unwrap()
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

fn blank() -> Memory {
    Memory::default()
}

/// It follows `leader` in `term` and has entries of it up to `index`.
fn follower(term: u64, leader: u64, index: u64, voters: &[u64]) -> Memory {
    Memory {
        vote: Some(new_vote(term, leader, true)),
        last: Some(log_id(term, index)),
        membership: Some(membership(voters)),
        quorum: None,
    }
}

fn of_blank(this: u64, others: &[(u64, Memory)]) -> Decision {
    decide(this, &founders(&[1, 2, 3]), &blank(), &others.iter().cloned().collect())
}

#[test]
fn a_quorum_is_founded_only_when_all_founders_have_nothing() {
    assert_eq!(of_blank(1, &[]), Decision::Ask(founders(&[2, 3])));
    assert_eq!(of_blank(1, &[(2, blank())]), Decision::Ask(founders(&[3])));
    assert_eq!(of_blank(1, &[(2, blank()), (3, blank())]), Decision::Found);
    assert_eq!(decide(1, &founders(&[1]), &blank(), &BTreeMap::new()), Decision::Found);
    let all_blank = [(1, blank()), (2, blank()), (3, blank())];
    assert_eq!(of_blank(4, &all_blank), Decision::WaitForFounders);
}

#[test]
fn between_two_quorums_only_the_operator_can_choose() {
    let of =
        |quorum, term| Memory { quorum: Some(QuorumId([quorum; 16])), ..follower(term, 2, 10, &[1, 2, 3]) };
    let split = Decision::Split([(2, QuorumId([1; 16])), (3, QuorumId([2; 16]))]);
    assert_eq!(of_blank(1, &[(2, of(1, 1)), (3, of(2, 9))]), split);
    let recalled = of_blank(1, &[(2, of(1, 1)), (3, of(1, 1))]);
    assert!(matches!(recalled, Decision::Recall { .. }), "{recalled:?}");
}

#[test]
fn a_node_is_bound_by_the_quorum_of_a_majority_that_has_its_metadata() {
    let of = |quorum| Memory { quorum: Some(QuorumId([quorum; 16])), ..follower(1, 2, 10, &[1, 2, 3]) };
    let orphan = || Memory { quorum: Some(QuorumId([1; 16])), ..blank() };
    let bound = |others: &[(u64, Memory)]| {
        quorum_of_majority(&founders(&[1, 2, 3]), &others.iter().cloned().collect())
    };
    assert_eq!(bound(&[(2, of(1)), (3, of(1))]), Some(QuorumId([1; 16])));
    assert_eq!(bound(&[(2, of(1))]), None);
    assert_eq!(bound(&[(2, of(1)), (3, of(2))]), None);
    assert_eq!(bound(&[(2, of(1)), (3, orphan())]), None);
    assert_eq!(bound(&[(2, of(1)), (9, of(1))]), None, "9 is no founder");
    // The first to be heard of need not be the one.
    let five =
        |others: [Memory; 4]| quorum_of_majority(&founders(&[1, 2, 3, 4, 5]), &(2..).zip(others).collect());
    assert_eq!(five([of(2), of(1), of(1), of(1)]), Some(QuorumId([1; 16])));
}

#[test]
fn no_quorum_is_founded_where_one_has_been_lost() {
    let orphan = Memory { quorum: Some(QuorumId([1; 16])), ..blank() };
    let decision = of_blank(1, &[(2, blank()), (3, orphan)]);
    assert_eq!(decision, Decision::Orphaned { id: 3, quorum: QuorumId([1; 16]) });
}

#[test]
fn an_emptied_voter_is_bound_by_the_newest_of_what_all_others_have() {
    let (old, new) = (follower(3, 1, 7, &[1, 2, 3]), follower(4, 3, 6, &[1, 2, 3]));
    assert_eq!(of_blank(2, &[(3, new.clone())]), Decision::Ask(founders(&[1])));
    let decided = of_blank(2, &[(1, old), (3, new)]);
    let (until, vote) = (Some(log_id(4, 6)), Some(new_vote(4, 3, false)));
    assert_eq!(decided, Decision::Recall { until, vote });
}

#[test]
fn a_vote_that_may_have_been_given_is_not_contradicted() {
    let candidate = |id| Memory { vote: Some(new_vote(5, id, false)), ..follower(4, 1, 7, &[1, 2, 3]) };
    let vote_after = |others: &[(u64, Memory)]| match of_blank(2, others) {
        Decision::Recall { vote, .. } => vote,
        other => panic!("{other:?}"),
    };
    // One candidate: the vote was for it, or for nobody.
    assert_eq!(vote_after(&[(1, candidate(3)), (3, candidate(3))]), Some(new_vote(5, 3, false)));
    // Two: nobody knows for which.
    assert_eq!(vote_after(&[(1, candidate(1)), (3, candidate(3))]), Some(new_vote(5, 2, false)));
    // One of them has won.
    let leader = Memory { vote: Some(new_vote(5, 1, true)), ..candidate(1) };
    assert_eq!(vote_after(&[(1, leader), (3, candidate(3))]), Some(new_vote(5, 1, false)));
}

#[test]
fn whoever_has_the_newest_log_knows_the_voters() {
    let three = follower(3, 1, 7, &[1, 2, 3]);
    let four = follower(3, 1, 9, &[1, 2, 4]);
    assert_eq!(of_blank(2, &[(1, four.clone()), (3, three.clone())]), Decision::Ask(founders(&[4])));
    assert_eq!(of_blank(3, &[(1, four.clone()), (2, three.clone()), (4, four.clone())]), Decision::Join);
    // A node that is about to join, and has never been a voter, needs a majority of them.
    assert_eq!(of_blank(5, &[(1, four.clone())]), Decision::Ask(founders(&[2, 4])));
    assert_eq!(of_blank(5, &[(1, four.clone()), (2, blank())]), Decision::Ask(founders(&[4])));
    assert_eq!(of_blank(5, &[(1, four.clone()), (2, three)]), Decision::Join);
    assert_eq!(of_blank(5, &[(1, four.clone()), (4, four)]), Decision::Join);
}

#[test]
fn a_log_that_was_cut_is_held_against_the_others() {
    let own = follower(3, 1, 5, &[1, 2, 3]);
    let others = |memories: &[(u64, Memory)]| memories.iter().cloned().collect::<BTreeMap<_, _>>();
    let decided = |memories: &[(u64, Memory)]| decide(2, &founders(&[1, 2, 3]), &own, &others(memories));
    assert_eq!(decided(&[]), Decision::Ask(founders(&[1, 3])));
    let (one, three) = (follower(3, 1, 8, &[1, 2, 3]), follower(3, 1, 4, &[1, 2, 3]));
    let until = Some(log_id(3, 8));
    assert_eq!(
        decided(&[(1, one), (3, three)]),
        Decision::Recall { until, vote: Some(new_vote(3, 1, false)) }
    );
    // Nobody else has anything: there is nothing to be had from them.
    let nothing = Decision::Recall { until: None, vote: None };
    assert_eq!(decided(&[(1, blank()), (3, blank())]), nothing);
    let alone = follower(3, 2, 5, &[2]);
    assert_eq!(decide(2, &founders(&[2]), &alone, &BTreeMap::new()), nothing);
}
