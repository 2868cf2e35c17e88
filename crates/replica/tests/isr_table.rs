//! The in-sync set: who is proposed, what every answer means, and how the metadata settles it.

mod solo;

use klamm_replica::{
    Acks, Alarm, BrokerStates, Delivery, Effect, Event, FetchTicket, IsrAnswer, IsrChange, IsrRefusal,
    LeaderRecovery, ProposalId,
};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, Timestamp};
use solo::{Solo, acknowledged, advances, brokers, config, image, log, members, proposal, registration, set};

/// Leads epoch 1 with 1 and 2 in sync; broker 3 has caught up and is proposed.
fn expanding() -> (Solo, klamm_replica::IsrProposal) {
    let mut solo = Solo::leading(&[1, 2]);
    let proposed = proposal(&solo.fetch(3, 0, -1));
    (solo, proposed)
}

fn answer(id: ProposalId, answer: IsrAnswer) -> Event {
    Event::IsrProposalAnswered { proposal: id, answer }
}

fn refuse(id: ProposalId, refusal: IsrRefusal) -> Event {
    answer(id, IsrAnswer::Refused(refusal))
}

fn accept(id: ProposalId, leader_epoch: i32, partition_epoch: i32, isr: &[i32]) -> Event {
    let accepted = IsrAnswer::Accepted {
        leader_epoch: LeaderEpoch(leader_epoch),
        partition_epoch: PartitionEpoch(partition_epoch),
        in_sync_replicas: set(isr),
        min_in_sync_replicas: 2,
    };
    answer(id, accepted)
}

fn with_broker(id: i32, change: impl Fn(&mut klamm_replica::BrokerState)) -> BrokerStates {
    let mut states = brokers();
    states.entry(BrokerId(id)).and_modify(change);
    states
}

fn is_pending(solo: &Solo) -> Option<(IsrChange, Delivery)> {
    solo.replica.isr().and_then(|isr| isr.pending()).map(|pending| (pending.change(), pending.delivery()))
}

#[test]
fn a_follower_that_has_caught_up_is_proposed_and_waited_for_at_once() {
    let (mut solo, proposed) = expanding();
    assert_eq!(members(&proposed), [(1, 11), (2, 12), (3, 13)]);
    assert_eq!((proposed.leader_epoch, proposed.partition_epoch), (LeaderEpoch(1), PartitionEpoch(1)));
    assert_eq!(proposed.broker_epoch, BrokerEpoch(11));
    assert_eq!((solo.committed_isr(), solo.maximal_isr()), (set(&[1, 2]), set(&[1, 2, 3])));
    solo.append(1, 1);
    solo.flush();
    solo.fetch(2, 1, 1);
    solo.now += 20_000;
    solo.fetch(2, 1, 1);
    assert_eq!(solo.high_watermark(), 0, "the controller may have the larger set by now");
    assert_eq!(solo.fetch(3, 1, 1)[..2], [advances(1), acknowledged(1, 0)]);
}

#[test]
fn a_follower_joins_from_the_start_of_the_epoch_not_from_the_high_watermark() {
    let mut solo = Solo::new(config(), log(0, 1, 5, &[(0, 0)]));
    solo.step(image(registration(1, &[1, 2], 1, 1)));
    solo.fetch(3, 4, 0);
    assert_eq!(is_pending(&solo), None);
    let effects = solo.fetch(3, 5, 0);
    assert_eq!(members(&proposal(&effects)), [(1, 11), (2, 12), (3, 13)]);
}

#[test]
fn a_follower_joins_only_with_a_fetch_of_this_epoch() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    solo.fetch(3, 0, -1);
    // Removed, added again and elected again, all in one image.
    let effects = solo.step(image(registration(1, &[1, 2], 4, 4)));
    assert_eq!(is_pending(&solo), None, "{effects:?}");
    assert_eq!(solo.replica.follower(BrokerId(3)).and_then(|f| f.fetched()), None);
    solo.fetch(2, 0, -1);
    assert_eq!(is_pending(&solo), None);
    proposal(&solo.fetch(3, 0, -1));
}

#[test]
fn whoever_the_metadata_counts_out_is_not_proposed() {
    for (what, states) in [
        ("fenced", with_broker(3, |state| state.fenced = true)),
        ("leaving", with_broker(3, |state| state.shutting_down = true)),
        ("not yet registered as it is", with_broker(3, |state| state.epoch = BrokerEpoch(9))),
        ("unknown", brokers().into_iter().filter(|(id, _)| *id != BrokerId(3)).collect()),
    ] {
        let mut solo = Solo::leading(&[1, 2]);
        let same = registration(1, &[1, 2], 1, 1);
        solo.step(Event::RegistrationChanged { config: None, registration: same.clone(), brokers: states });
        solo.fetch(3, 0, -1);
        assert_eq!(is_pending(&solo), None, "{what}");
        let effects = solo.step(image(same));
        assert_eq!(members(&proposal(&effects))[2], (3, 13), "once it is not {what}");
    }
}

#[test]
fn a_new_incarnation_does_not_join_on_what_the_old_one_held() {
    let mut solo = Solo::leading(&[1, 2]);
    let same = registration(1, &[1, 2], 1, 1);
    let fenced = with_broker(3, |state| state.fenced = true);
    solo.step(Event::RegistrationChanged { config: None, registration: same.clone(), brokers: fenced });
    solo.fetch(3, 0, -1);
    let states = with_broker(3, |state| state.epoch = BrokerEpoch(23));
    solo.step(Event::RegistrationChanged { config: None, registration: same, brokers: states });
    assert_eq!(is_pending(&solo), None);
    let fetch = klamm_replica::FollowerFetch { broker_epoch: BrokerEpoch(23), ..solo.fetch_of(3, 0, -1) };
    let effects = solo.step(Event::FollowerFetched { ticket: FetchTicket(1), fetch });
    assert_eq!(members(&proposal(&effects))[2], (3, 23));
}

#[test]
fn a_lost_proposal_is_sent_again_as_it_was() {
    let (mut solo, proposed) = expanding();
    for wait_ms in [5, 10, 20, 40, 80, 160, 200, 200] {
        assert_eq!(solo.step(answer(proposed.id, IsrAnswer::Lost)), []);
        assert_eq!(solo.maximal_isr(), set(&[1, 2, 3]), "it may have been applied");
        assert_eq!(solo.replica.next_wakeup(Timestamp(0)), Some(Timestamp(solo.now + wait_ms)));
        solo.now += wait_ms - 1;
        assert_eq!(solo.step(Event::Tick), []);
        solo.now += 1;
        assert_eq!(solo.step(Event::Tick), [Effect::ProposeIsr(proposed.clone())]);
    }
}

#[test]
fn a_node_that_cannot_decide_is_asked_again() {
    for refusal in [IsrRefusal::NotController, IsrRefusal::StaleBrokerEpoch] {
        let (mut solo, proposed) = expanding();
        assert_eq!(solo.step(refuse(proposed.id, refusal)), []);
        solo.now += 5;
        assert_eq!(solo.step(Event::Tick), [Effect::ProposeIsr(proposed)], "{refusal:?}");
    }
}

#[test]
fn a_refusal_for_ineligibility_takes_the_only_attempt_back() {
    let (mut solo, proposed) = expanding();
    assert_eq!(solo.step(refuse(proposed.id, IsrRefusal::IneligibleReplica)), []);
    assert_eq!((is_pending(&solo), solo.maximal_isr()), (None, set(&[1, 2])));
}

#[test]
fn taking_a_proposal_back_sets_the_high_watermark_free() {
    let (mut solo, proposed) = expanding();
    solo.append(1, 1);
    solo.flush();
    solo.fetch(2, 1, 1);
    solo.now += 20_000;
    solo.fetch(2, 1, 1);
    let effects = solo.step(refuse(proposed.id, IsrRefusal::IneligibleReplica));
    assert_eq!(effects, [advances(1), acknowledged(1, 0)]);
}

#[test]
fn a_refusal_after_a_lost_attempt_takes_a_change_to_take_back() {
    let (mut solo, proposed) = expanding();
    solo.step(answer(proposed.id, IsrAnswer::Lost));
    solo.now += 5;
    solo.step(Event::Tick);
    let withdrawal = proposal(&solo.step(refuse(proposed.id, IsrRefusal::IneligibleReplica)));
    assert_eq!(members(&withdrawal), [(1, 11), (2, 12)]);
    assert_eq!(withdrawal.partition_epoch, proposed.partition_epoch, "only one of the two can be applied");
    assert!(withdrawal.id > proposed.id);
    assert_eq!(solo.maximal_isr(), set(&[1, 2, 3]), "the lost attempt may yet arrive");
    assert_eq!(solo.step(accept(proposed.id, 1, 2, &[1, 2, 3])), [], "that question is closed");
    // Taken without a change it would prove nothing.
    solo.step(accept(withdrawal.id, 1, 1, &[1, 2]));
    assert_eq!(solo.maximal_isr(), set(&[1, 2, 3]));
    solo.now += 5;
    assert_eq!(solo.step(Event::Tick), [Effect::ProposeIsr(withdrawal.clone())]);
    let registration = registration(1, &[1, 2], 1, 1);
    let states = with_broker(3, |state| state.fenced = true);
    solo.step(Event::RegistrationChanged { config: None, registration, brokers: states });
    solo.step(accept(withdrawal.id, 1, 2, &[1, 2]));
    assert_eq!((is_pending(&solo), solo.maximal_isr()), (None, set(&[1, 2])));
}

#[test]
fn a_withdrawal_that_is_refused_waits_for_the_metadata() {
    let (mut solo, proposed) = expanding();
    solo.step(answer(proposed.id, IsrAnswer::Lost));
    solo.now += 5;
    solo.step(Event::Tick);
    let withdrawal = proposal(&solo.step(refuse(proposed.id, IsrRefusal::IneligibleReplica)));
    solo.step(refuse(withdrawal.id, IsrRefusal::IneligibleReplica));
    assert_eq!(is_pending(&solo), Some((IsrChange::Withdraw, Delivery::AwaitingMetadata)));
    assert_eq!(solo.maximal_isr(), set(&[1, 2, 3]));
}

#[test]
fn a_decision_that_the_leader_cannot_know_waits_for_the_metadata() {
    for refusal in [
        IsrRefusal::FencedLeaderEpoch,
        IsrRefusal::InvalidUpdateVersion,
        IsrRefusal::UnknownTopicOrPartition,
        IsrRefusal::NewLeaderElected,
        IsrRefusal::InvalidRequest,
    ] {
        let (mut solo, proposed) = expanding();
        let effects = solo.step(refuse(proposed.id, refusal));
        let alarmed = effects.contains(&Effect::RaiseAlarm(Alarm::InvalidProposal));
        assert_eq!(alarmed, refusal == IsrRefusal::InvalidRequest, "{refusal:?}");
        assert_eq!(is_pending(&solo), Some((IsrChange::Expand, Delivery::AwaitingMetadata)));
        assert_eq!(solo.maximal_isr(), set(&[1, 2, 3]), "{refusal:?}");
        solo.now += 60_000;
        assert!(!solo.step(Event::Tick).iter().any(|effect| matches!(effect, Effect::ProposeIsr(_))));
        solo.step(image(registration(1, &[1, 2], 1, 2)));
        assert_ne!(is_pending(&solo), Some((IsrChange::Expand, Delivery::AwaitingMetadata)));
    }
}

#[test]
fn an_accepted_proposal_is_known_before_the_metadata_comes() {
    let (mut solo, proposed) = expanding();
    solo.step(accept(proposed.id, 1, 2, &[1, 2, 3]));
    assert_eq!((is_pending(&solo), solo.committed_isr()), (None, set(&[1, 2, 3])));
    assert_eq!(solo.replica.registration().map(|r| r.partition_epoch), Some(PartitionEpoch(2)));
    solo.step(image(registration(1, &[1, 2], 1, 1)));
    assert_eq!(solo.committed_isr(), set(&[1, 2, 3]), "an older image comes late");
    solo.step(image(registration(1, &[1, 2, 3], 1, 2)));
    assert_eq!(solo.committed_isr(), set(&[1, 2, 3]));
}

#[test]
fn an_answer_of_another_epoch_or_proposal_changes_nothing() {
    let (mut solo, proposed) = expanding();
    assert_eq!(solo.step(accept(ProposalId(99), 1, 2, &[1, 2, 3])), []);
    assert_eq!(is_pending(&solo), Some((IsrChange::Expand, Delivery::Sent)));
    solo.step(accept(proposed.id, 2, 2, &[1, 2, 3]));
    assert_eq!(is_pending(&solo), Some((IsrChange::Expand, Delivery::AwaitingMetadata)));
    assert_eq!(solo.committed_isr(), set(&[1, 2]));
    let mut solo = Solo::following(klamm_replica::LogPosition::empty());
    assert_eq!(solo.step(accept(ProposalId(1), 5, 6, &[1])), []);
}

#[test]
fn an_image_that_says_nothing_new_keeps_the_proposal() {
    let (mut solo, proposed) = expanding();
    assert_eq!(solo.step(image(registration(1, &[1, 2], 1, 1))), []);
    assert_eq!(is_pending(&solo), Some((IsrChange::Expand, Delivery::Sent)));
    assert_eq!(solo.maximal_isr(), set(&[1, 2, 3]));
    solo.step(accept(proposed.id, 1, 2, &[1, 2, 3]));
    assert_eq!(solo.committed_isr(), set(&[1, 2, 3]));
}

#[test]
fn a_newer_image_settles_the_proposal_either_way() {
    for isr in [&[1, 2][..], &[1, 2, 3]] {
        let (mut solo, proposed) = expanding();
        let mut states = brokers();
        states.remove(&BrokerId(3));
        let registration = registration(1, isr, 1, 2);
        solo.step(Event::RegistrationChanged { config: None, registration, brokers: states });
        let expected = set(isr);
        assert_eq!(solo.committed_isr(), expected);
        assert_eq!(solo.step(refuse(proposed.id, IsrRefusal::InvalidUpdateVersion)), []);
        assert_eq!(solo.committed_isr(), expected);
    }
}

#[test]
fn a_smaller_committed_set_moves_the_high_watermark_at_once() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    solo.append(1, 1);
    solo.flush();
    solo.fetch(2, 1, 1);
    assert_eq!(solo.high_watermark(), 0);
    let mut states = brokers();
    states.remove(&BrokerId(3));
    let registration = registration(1, &[1, 2], 1, 2);
    let effects = solo.step(Event::RegistrationChanged { config: None, registration, brokers: states });
    assert_eq!(effects, [advances(1), acknowledged(1, 0)]);
}

#[test]
fn a_larger_committed_set_moves_the_high_watermark_at_once() {
    let mut solo = Solo::leading(&[1]);
    let request = solo.request(1, Acks::Leader);
    solo.step(Event::AppendRequested(request));
    solo.step(Event::Appended { ticket: request.ticket, base_offset: Offset(0), end_offset: Offset(1) });
    solo.flush();
    let proposed = proposal(&solo.fetch(2, 1, 1));
    assert_eq!(solo.high_watermark(), 0, "one in sync is too few");
    assert_eq!(solo.step(accept(proposed.id, 1, 2, &[1, 2])), [advances(1)]);
}

fn proposes(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::ProposeIsr(_)))
}

/// KAFKA-7128: a new leader's high watermark may be behind what is committed, which reaches up to where its epoch began at most.
#[test]
fn a_follower_joins_no_sooner_than_where_the_epoch_began() {
    let mut solo = Solo::new(config(), log(0, 2, 5, &[(1, 0)]));
    solo.step(image(registration(1, &[1, 2], 2, 2)));
    // It was in sync when the epoch began, and has left since.
    solo.step(image(registration(1, &[1], 2, 3)));
    assert!(!proposes(&solo.fetch(2, 3, 1)), "past the high watermark, and not enough");
    assert_eq!(members(&proposal(&solo.fetch(2, 5, 1))), [(1, 11), (2, 12)]);
}

/// With too few in sync the high watermark stands still, so that who lags is never behind it.
#[test]
fn who_lags_does_not_come_back_before_it_has_caught_up() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.fetch(2, 0, -1);
    solo.append(1, 1);
    solo.flush();
    solo.now += 20_000;
    let shrink = proposal(&solo.step(Event::Tick));
    assert_eq!(members(&shrink), [(1, 11)]);
    solo.step(accept(shrink.id, 1, 2, &[1]));
    assert_eq!(solo.high_watermark(), 0);
    assert!(!proposes(&solo.fetch(2, 0, -1)), "it would have to leave at once");
    assert_eq!(members(&proposal(&solo.fetch(2, 1, 1))), [(1, 11), (2, 12)]);
}

#[test]
fn a_member_that_lags_is_proposed_to_leave_and_waited_for_until_it_has() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    solo.append(1, 1);
    solo.flush();
    solo.fetch(2, 1, 1);
    solo.now += 10_000;
    assert_eq!(solo.step(Event::Tick), []);
    assert_eq!(solo.replica.next_wakeup(Timestamp(0)), Some(Timestamp(solo.now + 1)));
    solo.now += 1;
    let proposed = proposal(&solo.step(Event::Tick));
    assert_eq!(members(&proposed), [(1, 11), (2, 12)]);
    assert_eq!((solo.maximal_isr(), solo.high_watermark()), (set(&[1, 2, 3]), 0));
    let effects = solo.step(accept(proposed.id, 1, 2, &[1, 2]));
    assert_eq!(effects, [advances(1), acknowledged(1, 0)]);
}

#[test]
fn a_minimum_that_was_raised_holds_from_the_answer_on() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    solo.append(1, 1);
    solo.flush();
    solo.fetch(2, 1, 1);
    solo.now += 10_001;
    let proposed = proposal(&solo.step(Event::Tick));
    let accepted = IsrAnswer::Accepted {
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(2),
        in_sync_replicas: set(&[1, 2]),
        min_in_sync_replicas: 3,
    };
    let effects = solo.step(answer(proposed.id, accepted));
    let too_few = klamm_replica::AppendError::NotEnoughReplicasAfterAppend { in_sync: 2, required: 3 };
    let ticket = klamm_replica::AppendTicket(1);
    assert_eq!(effects, [Effect::CompleteAppend { ticket, outcome: Err(too_few) }]);
    assert_eq!(solo.high_watermark(), 0, "broker 3 stays eligible: it has to hold what is committed");
    solo.step(image(registration(1, &[1, 2], 1, 1)));
    assert_eq!(solo.high_watermark(), 0, "an image from before");
    solo.step(image(registration(1, &[1, 2], 1, 2)));
    assert_eq!(solo.high_watermark(), 1, "the metadata of that epoch speak for themselves");
}

#[test]
fn an_idle_partition_needs_no_clock() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    solo.fetch(2, 0, -1);
    solo.fetch(3, 0, -1);
    assert_eq!(solo.replica.next_wakeup(Timestamp(0)), None);
    solo.now += 1_000_000;
    assert_eq!(solo.step(Event::Tick), []);
}

/// A follower's fetch waits at the leader for as long as the partition is idle. By its age the follower was late with
/// the first record after that.
#[test]
fn an_idle_partition_keeps_its_members_at_the_first_append() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    solo.fetch(2, 0, -1);
    solo.fetch(3, 0, -1);
    solo.now += 1_000_000;
    let proposes = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::ProposeIsr(_)));
    assert!(!proposes(&solo.append(1, 1)) && !proposes(&solo.flush()) && !proposes(&solo.fetch(2, 1, 1)));
    assert_eq!(solo.step(Event::Tick), []);
    solo.now += 10_000;
    assert_eq!(solo.step(Event::Tick), []);
    solo.now += 1;
    assert_eq!(members(&proposal(&solo.step(Event::Tick))), [(1, 11), (2, 12)]);
}

#[test]
fn a_fenced_member_is_proposed_to_leave() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    let registration = registration(1, &[1, 2, 3], 1, 1);
    let states = with_broker(2, |state| state.fenced = true);
    let effects = solo.step(Event::RegistrationChanged { config: None, registration, brokers: states });
    assert_eq!(members(&proposal(&effects)), [(1, 11), (3, 13)]);
}

#[test]
fn an_uncleanly_elected_leader_confirms_before_anybody_joins() {
    let mut solo = Solo::new(config(), log(0, 1, 5, &[(0, 0)]));
    let mut unclean = registration(1, &[1], 3, 3);
    unclean.recovery = LeaderRecovery::Recovering;
    unclean.last_unclean_epoch = Some(LeaderEpoch(3));
    let confirmation = proposal(&solo.step(image(unclean)));
    assert_eq!(members(&confirmation), [(1, 11)]);
    assert_eq!(is_pending(&solo), Some((IsrChange::ConfirmRecovery, Delivery::Sent)));
    assert_eq!(solo.fetch(2, 5, 0).len(), 1, "an answer, no proposal");
    let effects = solo.step(accept(confirmation.id, 3, 4, &[1]));
    assert_eq!(members(&proposal(&effects)), [(1, 11), (2, 12)]);
}

#[test]
fn a_follower_that_is_out_asks_for_one_tick_only() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.fetch(2, 0, -1);
    solo.append(1, 1);
    solo.flush();
    solo.now += 10_001;
    let proposed = proposal(&solo.step(Event::Tick));
    let proposed_at = solo.now;
    assert_eq!(
        solo.replica.next_wakeup(Timestamp(proposed_at)),
        Some(Timestamp(31_000)),
        "the append's deadline"
    );
    solo.step(accept(proposed.id, 1, 2, &[1]));
    assert_eq!(solo.replica.next_wakeup(Timestamp(proposed_at)), None, "a tick could change nothing");
}

#[test]
fn a_member_that_was_away_while_nothing_happened_has_its_time_from_the_first_append_on() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.fetch(2, 0, -1);
    solo.now += 1_000_000;
    assert_eq!(solo.step(Event::Tick), []);
    let ticked_at = solo.now;
    solo.now += 5;
    solo.append(1, 1);
    let due = solo.replica.next_wakeup(Timestamp(ticked_at));
    assert_eq!(due, Some(Timestamp(solo.now + 10_001)));
    assert_eq!(solo.step(Event::Tick), []);
    solo.now += 10_001;
    assert_eq!(members(&proposal(&solo.step(Event::Tick))), [(1, 11)]);
}
