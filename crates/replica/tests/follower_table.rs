//! The follower: fetching, appending, truncating, and what it does with every refusal.

mod solo;

use klamm_replica::{
    Alarm, Durability, Effect, Event, FetchAnswer, FetchId, FetchRefusal, FetchedRecords, FlushToken,
    FollowerFetch, LogPosition, Registration, ReplicaConfig,
};
use klamm_types::{BrokerEpoch, BrokerId, EpochEntry, LeaderEpoch, Offset, Timestamp};
use solo::{Solo, advances, brokers, config, configured, entry, image, log, registration};

/// The fetch that broker 1 sends as follower of epoch `epoch`.
fn fetch(epoch: i32, offset: i64, last_epoch: i32, log_start: i64, high_watermark: i64) -> FollowerFetch {
    FollowerFetch {
        broker: BrokerId(1),
        broker_epoch: BrokerEpoch(11),
        leader_epoch: LeaderEpoch(epoch),
        offset: Offset(offset),
        last_epoch: LeaderEpoch(last_epoch),
        log_start_offset: Offset(log_start),
        high_watermark: Offset(high_watermark),
    }
}

fn fetches(id: u64, leader: i32, fetch: FollowerFetch) -> Effect {
    Effect::Fetch { id: FetchId(id), leader: BrokerId(leader), fetch }
}

fn answered(id: u64, answer: FetchAnswer) -> Event {
    Event::FetchAnswered { fetch: FetchId(id), answer }
}

fn refused(id: u64, refusal: FetchRefusal) -> Event {
    answered(id, FetchAnswer::Refused(refusal))
}

fn records(end: i64, epoch_starts: &[(i32, i64)], high_watermark: i64, log_start: i64) -> FetchedRecords {
    let epoch_starts: Vec<EpochEntry> = epoch_starts.iter().map(|&(e, s)| entry(e, s)).collect();
    FetchedRecords {
        end_offset: Offset(end),
        epoch_starts,
        high_watermark: Offset(high_watermark),
        log_start_offset: Offset(log_start),
    }
}

fn diverging(epoch: i32, end: i64, high_watermark: i64) -> FetchRefusal {
    FetchRefusal::Diverging {
        epoch: LeaderEpoch(epoch),
        end_offset: Offset(end),
        high_watermark: Offset(high_watermark),
    }
}

fn out_of_range(log_start: i64, log_end: i64) -> FetchRefusal {
    FetchRefusal::OffsetOutOfRange { log_start_offset: Offset(log_start), log_end_offset: Offset(log_end) }
}

fn truncated(log_end: i64) -> Event {
    Event::Truncated { log_end_offset: Offset(log_end) }
}

fn appended(log_end: i64) -> Event {
    Event::AppendedAsFollower { log_end_offset: Offset(log_end) }
}

/// Epochs 1 (0..4), 3 (4..7), 4 (7..10); 2 are known to be committed.
fn three_epochs() -> LogPosition {
    log(0, 2, 10, &[(1, 0), (3, 4), (4, 7)])
}

#[test]
fn a_follower_asks_for_what_comes_after_all_it_holds() {
    let mut solo = Solo::new(config(), three_epochs());
    let effects = solo.step(image(registration(2, &[1, 2, 3], 5, 5)));
    assert_eq!(effects, [fetches(1, 2, fetch(5, 10, 4, 0, 2))], "it truncates nothing on its own");
    assert_eq!((solo.log_end(), solo.high_watermark()), (10, 2));
}

#[test]
fn asking_again_acknowledges_so_it_waits_for_the_flush() {
    let mut solo = Solo::following(three_epochs());
    let more = records(12, &[(4, 10), (5, 11)], 11, 0);
    let effects = solo.step(answered(1, FetchAnswer::Records(more)));
    assert_eq!(effects, [Effect::AppendAsFollower { fetch: FetchId(1) }]);
    let token = FlushToken { end_offset: Offset(12), generation: 0 };
    assert_eq!(
        solo.step(appended(12)),
        [Effect::AdvanceLogEnd(Offset(12)), Effect::Flush(token), advances(10)],
        "what is not on disk is not held"
    );
    assert_eq!(solo.epochs(), [(1, 0), (3, 4), (4, 7), (5, 11)]);
    assert_eq!(solo.step(Event::Flushed(token)), [advances(11), fetches(2, 2, fetch(5, 12, 5, 0, 11))]);
    assert_eq!(
        solo.step(answered(2, FetchAnswer::Records(records(12, &[], 12, 0)))),
        [advances(12), fetches(3, 2, fetch(5, 12, 5, 0, 12))]
    );
}

#[test]
fn page_cache_mode_asks_again_at_the_write() {
    let mut solo =
        Solo::new(ReplicaConfig { durability: Durability::PageCache, ..config() }, LogPosition::empty());
    solo.step(image(registration(2, &[1, 2], 5, 5)));
    solo.step(answered(1, FetchAnswer::Records(records(1, &[(5, 0)], 1, 0))));
    let effects = solo.step(appended(1));
    assert_eq!(effects, [Effect::AdvanceLogEnd(Offset(1)), advances(1), fetches(2, 2, fetch(5, 1, 5, 0, 1))]);
    let durable = configured(config(), registration(2, &[1, 2], 5, 6));
    let token = FlushToken { end_offset: Offset(1), generation: 0 };
    assert_eq!(solo.step(durable), [Effect::Flush(token)]);
}

#[test]
fn a_log_that_is_not_on_disk_is_not_asked_from() {
    let position = three_epochs().with_flushed_end(Offset(8)).expect("within the log");
    let mut solo = Solo::new(config(), position);
    assert_eq!(solo.step(image(registration(2, &[1, 2, 3], 5, 5))), []);
    assert_eq!(solo.flush(), [fetches(1, 2, fetch(5, 10, 4, 0, 2))]);
}

#[test]
fn a_new_epoch_replaces_the_fetch_even_of_the_same_leader() {
    let mut solo = Solo::following(three_epochs());
    assert_eq!(solo.step(image(registration(2, &[1, 2], 5, 6))), [], "the same epoch changes nothing");
    let effects = solo.step(image(registration(2, &[1, 2], 6, 7)));
    assert_eq!(effects, [Effect::CancelFetch(FetchId(1)), fetches(2, 2, fetch(6, 10, 4, 0, 2))]);
    for stale in [
        FetchAnswer::Records(records(12, &[(5, 10)], 12, 0)),
        FetchAnswer::Refused(diverging(1, 4, 4)),
        FetchAnswer::Unreachable,
    ] {
        assert_eq!(solo.step(answered(1, stale)), []);
    }
    assert_eq!(solo.log_end(), 10);
}

#[test]
fn nobody_is_asked_while_nobody_leads() {
    let mut solo = Solo::following(three_epochs());
    let effects = solo.step(image(registration(0, &[], 6, 6)));
    assert_eq!(effects, [Effect::CancelFetch(FetchId(1))]);
    assert_eq!(solo.step(Event::Tick), []);
    assert_eq!(solo.replica.next_wakeup(Timestamp(0)), None);
    let mut elsewhere = registration(2, &[2, 3], 7, 7);
    elsewhere.replicas.remove(0);
    assert_eq!(solo.step(image(elsewhere)), []);
    assert_eq!(solo.step(image(registration(3, &[3], 8, 8))), [fetches(2, 3, fetch(8, 10, 4, 0, 2))]);
}

#[test]
fn a_diverging_log_is_cut_where_both_agree() {
    let mut solo = Solo::following(three_epochs());
    assert_eq!(solo.step(refused(1, diverging(3, 6, 9))), [Effect::TruncateTo { offset: Offset(6) }]);
    assert_eq!(solo.high_watermark(), 2, "the leader's high watermark is of another history");
    let effects = solo.step(truncated(6));
    assert_eq!(effects, [Effect::AdvanceLogEnd(Offset(6)), fetches(2, 2, fetch(5, 6, 3, 0, 2))]);
    assert_eq!(solo.epochs(), [(1, 0), (3, 4)]);
}

#[test]
fn an_epoch_that_only_the_leader_has_takes_another_round() {
    let mut solo = Solo::following(three_epochs());
    // The leader had epoch 2 from 3 to 8: here epoch 1 ends at 4, but that is only where 3 began.
    assert_eq!(solo.step(refused(1, diverging(2, 8, 8))), [Effect::TruncateTo { offset: Offset(4) }]);
    assert_eq!(solo.step(truncated(4))[1], fetches(2, 2, fetch(5, 4, 1, 0, 2)));
    assert_eq!(solo.step(refused(2, diverging(1, 3, 8))), [Effect::TruncateTo { offset: Offset(3) }]);
    assert_eq!(solo.step(truncated(3))[1], fetches(3, 2, fetch(5, 3, 1, 0, 2)));
}

#[test]
fn a_truncation_that_ends_at_a_batch_boundary_below_is_fine() {
    let mut solo = Solo::following(three_epochs());
    solo.step(refused(1, diverging(3, 6, 9)));
    assert_eq!(solo.step(truncated(5))[1], fetches(2, 2, fetch(5, 5, 3, 0, 2)));
}

#[test]
fn a_flush_from_before_a_truncation_is_not_believed() {
    let mut solo = Solo::following(three_epochs());
    solo.step(answered(1, FetchAnswer::Records(records(12, &[(5, 10)], 2, 0))));
    let before = solo.replica.flush_token();
    solo.step(appended(12));
    let stale = FlushToken { end_offset: Offset(12), ..before };
    solo.step(image(registration(3, &[1, 3], 6, 6)));
    solo.step(Event::Flushed(stale));
    solo.step(refused(2, diverging(4, 9, 2)));
    solo.step(truncated(9));
    solo.step(answered(3, FetchAnswer::Records(records(13, &[(6, 9)], 2, 0))));
    assert!(
        solo.step(appended(13)).iter().any(|effect| matches!(effect, Effect::Flush(t) if t.generation == 1))
    );
    assert_eq!(solo.step(Event::Flushed(stale)), []);
    assert_eq!(solo.replica.log().flushed_end_offset(), Offset(9));
    assert_eq!(solo.flush().len(), 1);
    assert_eq!(solo.replica.log().flushed_end_offset(), Offset(13));
}

#[test]
fn committed_records_are_not_dropped_without_an_unclean_election() {
    let mut solo = Solo::following(log(0, 6, 10, &[(1, 0), (3, 4), (4, 7)]));
    let alarm = Alarm::CommittedTruncation { target: Offset(4), high_watermark: Offset(6) };
    assert_eq!(solo.step(refused(1, diverging(1, 5, 5))), [Effect::RaiseAlarm(alarm)]);
    assert_eq!((solo.log_end(), solo.high_watermark()), (10, 6));
    solo.now += 60_000;
    assert_eq!(solo.step(Event::Tick), []);
    let effects = solo.step(image(registration(3, &[1, 3], 6, 6)));
    assert_eq!(effects, [fetches(2, 3, fetch(6, 10, 4, 0, 6))], "the next epoch is another chance");
}

fn unclean(leader_epoch: i32, last_unclean_epoch: i32) -> Registration {
    let last_unclean_epoch = Some(LeaderEpoch(last_unclean_epoch));
    Registration { last_unclean_epoch, ..registration(2, &[2], leader_epoch, leader_epoch) }
}

#[test]
fn an_unclean_election_explains_the_loss_of_older_records_only() {
    for (last_unclean, explained) in [(5, true), (4, true), (3, false), (2, false)] {
        let mut solo = Solo::new(config(), log(0, 6, 10, &[(1, 0), (3, 4), (4, 7)]));
        solo.step(image(unclean(5, last_unclean)));
        let effects = solo.step(refused(1, diverging(1, 5, 5)));
        let truncates = effects == [Effect::TruncateTo { offset: Offset(4) }];
        assert_eq!(truncates, explained, "the record at 5 is of epoch 3; {effects:?}");
        if explained {
            let effects = solo.step(truncated(4));
            assert_eq!(effects[1], Effect::LowerHighWatermark(Offset(4)));
            assert_eq!((solo.log_end(), solo.high_watermark()), (4, 4));
        }
    }
}

#[test]
fn a_log_that_starts_past_the_agreement_starts_anew() {
    let mut solo = Solo::new(config(), log(5, 6, 10, &[(3, 5)]));
    solo.step(image(unclean(5, 5)));
    let effects = solo.step(refused(1, diverging(1, 3, 3)));
    assert_eq!(effects, [Effect::TruncateFullyAndStartAt { offset: Offset(3) }]);
    let effects = solo.step(truncated(3));
    assert_eq!(effects[1..], [Effect::LowerHighWatermark(Offset(3)), fetches(2, 2, fetch(5, 3, -1, 3, 3))]);
}

#[test]
fn what_the_leader_has_deleted_is_skipped() {
    let mut solo = Solo::following(three_epochs());
    let effects = solo.step(refused(1, out_of_range(15, 20)));
    assert_eq!(effects, [Effect::TruncateFullyAndStartAt { offset: Offset(15) }]);
    assert_eq!(
        solo.step(truncated(15)),
        [Effect::AdvanceLogEnd(Offset(15)), advances(15), fetches(2, 2, fetch(5, 15, -1, 15, 15))]
    );
    assert_eq!((solo.replica.log().log_start_offset(), solo.high_watermark()), (Offset(15), 15));
    assert_eq!(solo.epochs(), []);
}

#[test]
fn a_log_that_ends_where_the_leaders_starts_is_dropped_if_the_leader_cannot_vouch_for_it() {
    let mut solo = Solo::following(three_epochs());
    let effects = solo.step(refused(1, out_of_range(10, 20)));
    assert_eq!(effects, [Effect::TruncateFullyAndStartAt { offset: Offset(10) }]);
    assert_eq!(solo.step(truncated(10)).last(), Some(&fetches(2, 2, fetch(5, 10, -1, 10, 10))));
    assert_eq!(solo.step(refused(2, out_of_range(10, 20))), [], "once is enough");
}

#[test]
fn a_log_past_the_leaders_end_is_cut() {
    let mut solo = Solo::following(three_epochs());
    assert_eq!(solo.step(refused(1, out_of_range(0, 8))), [Effect::TruncateTo { offset: Offset(8) }]);
    assert_eq!(solo.step(truncated(8))[1], fetches(2, 2, fetch(5, 8, 4, 0, 2)));
    let alarm = Alarm::CommittedTruncation { target: Offset(1), high_watermark: Offset(2) };
    assert_eq!(solo.step(refused(2, out_of_range(0, 1))), [Effect::RaiseAlarm(alarm)]);
}

#[test]
fn an_offset_that_came_into_range_is_asked_for_again() {
    let mut solo = Solo::following(three_epochs());
    assert_eq!(solo.step(refused(1, out_of_range(0, 10))), []);
    solo.now += 5;
    assert_eq!(solo.step(Event::Tick).len(), 1);
}

#[test]
fn a_refusal_that_time_heals_backs_off() {
    for refusal in [
        FetchRefusal::UnknownLeaderEpoch { current: LeaderEpoch(4) },
        FetchRefusal::NotLeader,
        FetchRefusal::NotReplica,
        FetchRefusal::StaleBrokerEpoch { current: BrokerEpoch(12) },
        FetchRefusal::LogFailed,
    ] {
        let mut solo = Solo::following(three_epochs());
        for (id, wait_ms) in (1..).zip([5, 10, 20, 40, 80, 160, 200, 200]) {
            assert_eq!(solo.step(refused(id, refusal)), [], "{refusal:?}");
            assert_eq!(solo.replica.next_wakeup(Timestamp(0)), Some(Timestamp(solo.now + wait_ms)));
            solo.now += wait_ms - 1;
            assert_eq!(solo.step(Event::Tick), []);
            solo.now += 1;
            assert_eq!(solo.step(Event::Tick), [fetches(id + 1, 2, fetch(5, 10, 4, 0, 2))]);
        }
    }
}

#[test]
fn news_of_the_metadata_end_a_back_off() {
    let mut solo = Solo::following(three_epochs());
    solo.step(answered(1, FetchAnswer::Unreachable));
    let effects = solo.step(image(registration(2, &[1, 2, 3], 5, 5)));
    assert_eq!(effects, [fetches(2, 2, fetch(5, 10, 4, 0, 2))]);
    solo.step(answered(2, FetchAnswer::Records(records(10, &[], 2, 0))));
    solo.step(answered(3, FetchAnswer::Unreachable));
    assert_eq!(
        solo.replica.next_wakeup(Timestamp(0)),
        Some(Timestamp(solo.now + 5)),
        "success starts the count anew"
    );
}

#[test]
fn a_fenced_follower_waits_for_its_next_epoch() {
    let mut solo = Solo::following(three_epochs());
    let current = LeaderEpoch(6);
    assert_eq!(solo.step(refused(1, FetchRefusal::FencedLeaderEpoch { current })), []);
    solo.now += 60_000;
    assert_eq!(solo.step(Event::Tick), []);
    assert_eq!(solo.step(image(registration(2, &[1, 2, 3], 5, 6))), []);
    assert_eq!(solo.step(image(registration(3, &[1, 3], 6, 7))), [fetches(2, 3, fetch(6, 10, 4, 0, 2))]);
}

#[test]
fn an_answer_that_makes_no_sense_is_not_taken() {
    for (what, answer) in [
        ("ends before it starts", FetchAnswer::Records(records(9, &[], 2, 0))),
        ("names no epoch", FetchAnswer::Records(records(11, &[], 2, 0))),
        ("names an epoch for nothing", FetchAnswer::Records(records(10, &[(5, 10)], 2, 0))),
        ("an epoch before ours", FetchAnswer::Records(records(11, &[(3, 10)], 2, 0))),
        ("an epoch past the leader's", FetchAnswer::Records(records(11, &[(6, 10)], 2, 0))),
        ("an epoch outside", FetchAnswer::Records(records(11, &[(5, 11)], 2, 0))),
        ("an epoch before", FetchAnswer::Records(records(11, &[(5, 9)], 2, 0))),
        ("epochs out of order", FetchAnswer::Records(records(13, &[(5, 10), (4, 12)], 2, 0))),
        ("starts past what is committed", FetchAnswer::Records(records(11, &[(5, 10)], 2, 3))),
        ("diverges past our end", FetchAnswer::Refused(diverging(4, 10, 2))),
        ("diverges in an epoch past ours", FetchAnswer::Refused(diverging(5, 10, 2))),
        ("a range upside down", FetchAnswer::Refused(out_of_range(20, 15))),
    ] {
        let mut solo = Solo::following(three_epochs());
        let alarm = Effect::RaiseAlarm(Alarm::MalformedFetchAnswer { offset: Offset(10) });
        assert_eq!(solo.step(answered(1, answer)), [alarm], "{what}");
        assert_eq!(solo.log_end(), 10, "{what}");
        assert_eq!(solo.replica.next_wakeup(Timestamp(0)), Some(Timestamp(solo.now + 5)), "{what}");
    }
}

#[test]
fn the_log_start_follows_as_far_as_it_is_committed_here() {
    let mut solo = Solo::following(three_epochs());
    let effects = solo.step(answered(1, FetchAnswer::Records(records(10, &[], 8, 7))));
    assert_eq!(effects[..2], [advances(8), Effect::AdvanceLogStart(Offset(7))]);
    assert_eq!(solo.epochs(), [(4, 7)]);
    let position = log(0, 2, 10, &[(1, 0)]);
    let mut solo = Solo::following(position);
    solo.step(answered(1, FetchAnswer::Records(records(12, &[(5, 10)], 12, 11))));
    assert!(solo.step(appended(12)).contains(&Effect::AdvanceLogStart(Offset(10))));
    assert_eq!(solo.replica.log().log_start_offset(), Offset(10), "not past what is on disk");
}

#[test]
fn a_leader_that_wrote_nothing_forgets_its_epoch_as_follower() {
    let mut solo = Solo::new(config(), log(0, 2, 4, &[(1, 0)]));
    solo.step(image(registration(1, &[1, 2], 3, 3)));
    assert_eq!(solo.epochs(), [(1, 0), (3, 4)]);
    let effects = solo.step(image(registration(2, &[1, 2], 5, 5)));
    assert_eq!(effects, [Effect::TruncateTo { offset: Offset(4) }]);
    let effects = solo.step(truncated(4));
    assert_eq!(effects[1..], [fetches(1, 2, fetch(5, 4, 1, 0, 2))]);
    assert_eq!(solo.epochs(), [(1, 0)]);
    // The new leader may have records of an epoch between.
    solo.step(answered(1, FetchAnswer::Records(records(6, &[(2, 4), (5, 5)], 2, 0))));
    solo.step(appended(6));
    assert_eq!(solo.epochs(), [(1, 0), (2, 4), (5, 5)]);
}

#[test]
fn an_image_from_before_the_registration_makes_no_leader() {
    let mut solo = Solo::new(config(), three_epochs());
    let mut states = brokers();
    states.entry(BrokerId(1)).and_modify(|state| state.epoch = BrokerEpoch(8));
    let registration = registration(1, &[1, 2], 5, 5);
    assert_eq!(solo.step(Event::RegistrationChanged { config: None, registration, brokers: states }), []);
    assert!(!solo.replica.is_leader());
}

#[test]
fn an_epoch_that_the_log_has_seen_is_not_led_again() {
    let mut solo = Solo::new(config(), three_epochs());
    let effects = solo.step(image(registration(1, &[1, 2], 4, 5)));
    assert_eq!(effects, [Effect::RaiseAlarm(Alarm::EpochReused { epoch: LeaderEpoch(4) })]);
    assert!(!solo.replica.is_leader());
}

#[test]
fn metadata_that_goes_back_is_not_followed() {
    let mut solo = Solo::following(three_epochs());
    assert_eq!(solo.step(image(registration(3, &[3], 4, 4))), [], "an image skipped over");
    let alarm = Alarm::LeaderEpochWentBack { known: LeaderEpoch(5), received: LeaderEpoch(4) };
    assert_eq!(solo.step(image(registration(3, &[3], 4, 9))), [Effect::RaiseAlarm(alarm)]);
    assert_eq!(solo.replica.leader_epoch(), LeaderEpoch(5));
}

#[test]
fn a_follower_with_a_failed_log_is_silent() {
    let mut solo = Solo::following(three_epochs());
    assert_eq!(solo.step(Event::LogFailed), [Effect::CancelFetch(FetchId(1))]);
    assert_eq!(solo.step(answered(1, FetchAnswer::Records(records(12, &[(5, 10)], 2, 0)))), []);
    assert_eq!(solo.step(image(registration(3, &[3], 9, 9))), []);
    assert_eq!(solo.step(Event::Tick), []);
}

#[test]
fn a_recovered_log_must_be_sound() {
    use klamm_replica::LogPositionError as E;
    let epochs = klamm_types::LeaderEpochCache::new;
    let (start, end) = (Offset(5), Offset(4));
    let error = LogPosition::recovered(start, Offset(0), end, epochs()).err();
    assert_eq!(error, Some(E::EndBeforeStart { log_start_offset: start, log_end_offset: end }));
    let past = klamm_types::LeaderEpochCache::from_entries(vec![entry(2, 9)]).expect("in order");
    let error = LogPosition::recovered(Offset(0), Offset(0), Offset(8), past).err();
    assert_eq!(error, Some(E::EpochPastEnd { epoch: LeaderEpoch(2), log_end_offset: Offset(8) }));
    let error = three_epochs().with_flushed_end(Offset(11)).err();
    let flushed = E::FlushedPastEnd { flushed_end_offset: Offset(11), log_end_offset: Offset(10) };
    assert_eq!(error, Some(flushed));
    assert_eq!(log(3, 0, 8, &[(1, 3)]).high_watermark(), Offset(3), "the hint is brought within the log");
    assert_eq!(log(3, 99, 8, &[(1, 3)]).high_watermark(), Offset(8));
}

#[test]
fn records_that_the_log_does_not_take_are_asked_for_again() {
    let mut solo = Solo::following(three_epochs());
    for (id, wait_ms) in (1..).zip([5, 10, 20]) {
        let effects = solo.step(answered(id, FetchAnswer::Records(records(12, &[(5, 10)], 2, 0))));
        assert_eq!(effects, [Effect::AppendAsFollower { fetch: FetchId(id) }]);
        assert_eq!(solo.step(Event::FollowerAppendDropped), []);
        assert_eq!(solo.log_end(), 10);
        assert_eq!(solo.replica.next_wakeup(Timestamp(0)), Some(Timestamp(solo.now + wait_ms)));
        solo.now += wait_ms;
        assert_eq!(solo.step(Event::Tick), [fetches(id + 1, 2, fetch(5, 10, 4, 0, 2))]);
    }
}
