//! The leader: appends, acknowledgements, fetches of followers, the high watermark, deletions.

mod solo;

use klamm_replica::{
    Acks, AppendError, AppendTicket, BrokerState, DeletionError, DeletionRequest, DeletionTicket, Durability,
    Effect, Event, FetchBounds, FetchRefusal, FetchTicket, FlushToken, LogPosition, ReadRefusal,
    ReplicaConfig,
};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, Timestamp};
use solo::{
    FOREVER, Solo, acknowledged, advances, brokers, config, configured, entry, image, log, registration, set,
};

fn refused(ticket: u64, refusal: AppendError) -> Vec<Effect> {
    vec![Effect::CompleteAppend { ticket: AppendTicket(ticket), outcome: Err(refusal) }]
}

#[test]
fn a_new_leader_records_where_its_epoch_starts() {
    let mut solo = Solo::new(config(), log(0, 3, 8, &[(0, 0)]));
    let effects = solo.step(image(registration(1, &[1, 2, 3], 4, 9)));
    assert_eq!(effects, [Effect::RecordEpochStart(entry(4, 8))]);
    assert_eq!(solo.epochs(), [(0, 0), (4, 8)]);
    assert_eq!(solo.high_watermark(), 3);
}

#[test]
fn an_append_is_acknowledged_once_all_in_sync_hold_it_on_disk() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    let token = FlushToken { end_offset: Offset(2), generation: 0 };
    assert_eq!(solo.append(1, 2), [Effect::AdvanceLogEnd(Offset(2)), Effect::Flush(token)]);
    assert_eq!(solo.fetch(2, 2, 1).len(), 1);
    assert_eq!(solo.fetch(3, 2, 1).len(), 1);
    assert_eq!((solo.high_watermark(), solo.replica.pending_append_count()), (0, 1));
    assert_eq!(solo.flush(), [advances(2), acknowledged(1, 0)]);
    assert_eq!((solo.high_watermark(), solo.replica.pending_append_count()), (2, 0));
}

#[test]
fn a_slow_follower_holds_the_acknowledgement_back() {
    let mut solo = Solo::leading(&[1, 2, 3]);
    solo.append(1, 2);
    assert_eq!(solo.flush(), []);
    assert_eq!(solo.fetch(2, 2, 1).len(), 1);
    let effects = solo.fetch(3, 1, 1);
    assert_eq!(effects[0], advances(1));
    assert_eq!(solo.replica.pending_append_count(), 1);
    assert_eq!(solo.fetch(3, 2, 1)[..2], [advances(2), acknowledged(1, 0)]);
}

#[test]
fn page_cache_mode_waits_for_no_flush() {
    let mut solo =
        Solo::new(ReplicaConfig { durability: Durability::PageCache, ..config() }, LogPosition::empty());
    solo.step(image(registration(1, &[1, 2], 1, 1)));
    assert_eq!(solo.append(1, 1), [Effect::AdvanceLogEnd(Offset(1))]);
    assert_eq!(solo.fetch(2, 1, 1)[..2], [advances(1), acknowledged(1, 0)]);
    assert_eq!(solo.replica.log().flushed_end_offset(), Offset(0));
}

#[test]
fn acks_none_and_leader_are_answered_at_the_write() {
    for (ticket, acks) in [(1, Acks::None), (2, Acks::Leader)] {
        let mut solo = Solo::leading(&[1]);
        let request = solo.request(ticket, acks);
        solo.step(Event::AppendRequested(request));
        let ticket_of = AppendTicket(ticket);
        let event = Event::Appended { ticket: ticket_of, base_offset: Offset(0), end_offset: Offset(1) };
        assert_eq!(solo.step(event).last(), Some(&acknowledged(ticket, 0)));
        assert_eq!((solo.high_watermark(), solo.log_end()), (0, 1));
    }
}

#[test]
fn an_append_is_refused_before_anything_is_written() {
    let mut solo = Solo::new(config(), LogPosition::empty());
    let request = solo.request(1, Acks::All);
    let not_leader = |leader: Option<i32>, epoch| AppendError::NotLeader {
        leader: leader.map(BrokerId),
        leader_epoch: LeaderEpoch(epoch),
    };
    assert_eq!(solo.step(Event::AppendRequested(request)), refused(1, not_leader(None, -1)));
    solo.step(image(registration(2, &[1, 2, 3], 1, 1)));
    assert_eq!(solo.step(Event::AppendRequested(request)), refused(1, not_leader(Some(2), 1)));
    solo.step(image(registration(1, &[1], 2, 2)));
    let too_few = AppendError::NotEnoughReplicas { in_sync: 1, required: 2 };
    assert_eq!(solo.step(Event::AppendRequested(request)), refused(1, too_few));
    solo.step(image(registration(1, &[1, 2], 2, 3)));
    let mut of_epoch = |epoch: i32| {
        let request = klamm_replica::AppendRequest { leader_epoch: Some(LeaderEpoch(epoch)), ..request };
        solo.step(Event::AppendRequested(request))
    };
    let (requested, current) = (LeaderEpoch(1), LeaderEpoch(2));
    assert_eq!(of_epoch(1), refused(1, AppendError::FencedLeaderEpoch { requested, current }));
    let requested = LeaderEpoch(3);
    assert_eq!(of_epoch(3), refused(1, AppendError::UnknownLeaderEpoch { requested, current }));
    let expired = klamm_replica::AppendRequest { lease_until: Timestamp(solo.now), ..request };
    assert_eq!(solo.step(Event::AppendRequested(expired)), refused(1, AppendError::LeaseExpired));
    solo.step(Event::LogFailed);
    let failed = AppendError::LogFailed { appended: false };
    assert_eq!(solo.step(Event::AppendRequested(request)), refused(1, failed));
    assert!(failed.is_definite() && !AppendError::LogFailed { appended: true }.is_definite());
    assert_eq!(solo.log_end(), 0);
}

#[test]
fn an_append_that_the_log_refuses_leaves_no_trace() {
    let mut solo = Solo::leading(&[1, 2]);
    let request = solo.request(1, Acks::All);
    solo.step(Event::AppendRequested(request));
    assert_eq!(solo.step(Event::AppendDropped { ticket: AppendTicket(1) }), []);
    assert_eq!((solo.log_end(), solo.replica.pending_append_count()), (0, 0));
    solo.append(2, 1);
}

#[test]
fn a_batch_that_the_log_knows_is_acknowledged_where_it_is() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 2);
    solo.append(2, 3);
    solo.flush();
    assert_eq!(solo.append_at(3, 0, 2), []);
    assert_eq!(
        solo.fetch(2, 5, 1)[..4],
        [advances(5), acknowledged(1, 0), acknowledged(3, 0), acknowledged(2, 2)]
    );
    assert_eq!(solo.append_at(4, 2, 5), [acknowledged(4, 2)]);
}

#[test]
fn too_few_left_in_sync_ends_the_wait() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 1);
    let effects = solo.step(image(registration(1, &[1], 1, 2)));
    assert_eq!(effects, refused(1, AppendError::NotEnoughReplicasAfterAppend { in_sync: 1, required: 2 }));
    solo.flush();
    assert_eq!(solo.high_watermark(), 0, "I1: the high watermark stands still");
    solo.step(image(registration(1, &[1, 2], 1, 3)));
    solo.append(2, 1);
    let stricter = ReplicaConfig { min_in_sync_replicas: 3, ..config() };
    let effects = solo.step(configured(stricter, registration(1, &[1, 2], 1, 3)));
    assert_eq!(effects, refused(2, AppendError::NotEnoughReplicasAfterAppend { in_sync: 2, required: 3 }));
}

/// A lower minimum may have come long after another was elected: what was not committed is not, for whoever is told of both
/// at once.
#[test]
fn a_deposed_leader_does_not_count_by_the_minimum_of_its_successor() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 1);
    solo.flush();
    solo.step(image(registration(1, &[1], 1, 2)));
    assert_eq!(solo.high_watermark(), 0, "too few are in sync");
    let laxer = ReplicaConfig { min_in_sync_replicas: 1, ..config() };
    solo.step(configured(laxer, registration(2, &[2], 2, 3)));
    assert_eq!(solo.high_watermark(), 0, "another leads");
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 1);
    solo.flush();
    solo.step(image(registration(1, &[1], 1, 2)));
    assert_eq!(solo.step(configured(laxer, registration(1, &[1], 1, 3))), [advances(1)], "it leads still");
}

#[test]
fn more_required_than_there_are_replicas_means_all() {
    let mut solo = Solo::new(ReplicaConfig { min_in_sync_replicas: 9, ..config() }, LogPosition::empty());
    let mut alone = registration(1, &[1], 1, 1);
    alone.replicas = vec![BrokerId(1)];
    solo.step(image(alone));
    solo.append(1, 1);
    assert_eq!(solo.flush(), [advances(1), acknowledged(1, 0)]);
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 1);
    assert_eq!(
        solo.replica.next_wakeup(Timestamp(0)),
        Some(Timestamp(11_001)),
        "the follower's lag window ends first"
    );
    solo.flush();
    solo.now += 30_000;
    solo.fetch(2, 0, -1);
    let effects = solo.step(Event::Tick);
    assert!(effects.contains(&refused(1, AppendError::TimedOut)[0]), "{effects:?}");
    assert_eq!(solo.replica.pending_append_count(), 0);
}

#[test]
fn a_deadline_is_for_the_followers_alone() {
    let mut solo = Solo::new(ReplicaConfig { min_in_sync_replicas: 1, ..config() }, LogPosition::empty());
    let mut alone = registration(1, &[1], 1, 1);
    alone.replicas = vec![BrokerId(1)];
    solo.step(image(alone));
    solo.append(1, 1);
    assert_eq!(
        solo.replica.next_wakeup(Timestamp(0)),
        Some(Timestamp(36_000)),
        "its own sync may take longer"
    );
    solo.now += 30_000;
    assert_eq!(solo.step(Event::Tick), []);
    assert_eq!(solo.flush(), [advances(1), acknowledged(1, 0)]);
    solo.append(2, 1);
    solo.now += 34_999;
    assert_eq!(solo.step(Event::Tick), []);
    solo.now += 1;
    assert_eq!(solo.step(Event::Tick), refused(2, AppendError::TimedOut), "but not for ever");

    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 1);
    solo.now += 30_000;
    solo.fetch(2, 0, -1);
    assert_eq!(solo.step(Event::Tick), []);
    solo.flush();
    assert!(solo.step(Event::Tick).contains(&refused(1, AppendError::TimedOut)[0]));
}

#[test]
fn whoever_waits_learns_that_leadership_was_lost() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 1);
    let effects = solo.step(image(registration(2, &[1, 2], 2, 2)));
    let lost = AppendError::LeadershipLost { leader: Some(BrokerId(2)), leader_epoch: LeaderEpoch(2) };
    assert_eq!(effects, refused(1, lost));
    assert!(!lost.is_definite());
    assert!(!solo.replica.is_leader());
}

#[test]
fn a_leader_that_leads_again_keeps_who_waits() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 1);
    solo.flush();
    assert_eq!(
        solo.step(image(registration(1, &[1, 2], 3, 3))),
        [Effect::RecordEpochStart(entry(3, 1))],
        "the epoch between wrote nothing here"
    );
    assert_eq!(solo.fetch(2, 1, 1)[..2], [advances(1), acknowledged(1, 0)]);
}

#[test]
fn a_failed_log_ends_everything() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 1);
    let request = solo.request(2, Acks::All);
    solo.step(Event::AppendRequested(request));
    let failed = AppendError::LogFailed { appended: true };
    assert_eq!(solo.step(Event::LogFailed), [refused(2, failed), refused(1, failed)].concat());
    assert!(solo.replica.is_failed());
    assert_eq!(solo.step(image(registration(1, &[1, 2], 2, 2))), []);
    let refusal = FetchRefusal::LogFailed;
    let fetch = klamm_replica::FollowerFetch { leader_epoch: LeaderEpoch(1), ..solo.fetch_of(2, 0, -1) };
    let ticket = FetchTicket(7);
    let effects = solo.step(Event::FollowerFetched { ticket, fetch });
    assert_eq!(effects, [Effect::RefuseFetch { ticket, refusal }]);
    assert_eq!(solo.replica.read_bounds(Timestamp(0), FOREVER), Err(ReadRefusal::LogFailed));
    assert_eq!(solo.replica.next_wakeup(Timestamp(0)), None);
}

#[test]
fn a_fetch_is_answered_with_what_is_true_after_it() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 3);
    solo.flush();
    let bounds = FetchBounds {
        offset: Offset(3),
        log_end_offset: Offset(3),
        high_watermark: Offset(3),
        log_start_offset: Offset(0),
    };
    let effects = solo.fetch(2, 3, 1);
    assert_eq!(effects.last(), Some(&Effect::AnswerFetch { ticket: FetchTicket(7), bounds }));
    assert_eq!(solo.replica.check_fetch(&solo.fetch_of(2, 3, 1)), Ok(bounds));
}

/// A leader of epoch 6 whose log is `20..60`, of epochs 2 up to 40 and 4 up to 60, and idle in 6.
fn leader_of_a_long_log() -> Solo {
    let mut solo = Solo::new(config(), log(20, 30, 60, &[(2, 20), (4, 40)]));
    solo.step(image(registration(1, &[1, 2, 3], 6, 6)));
    solo
}

#[test]
fn a_fetch_is_checked_in_order_and_a_refused_one_says_nothing() {
    let range = FetchRefusal::OffsetOutOfRange { log_start_offset: Offset(20), log_end_offset: Offset(60) };
    let diverging = |epoch, end| FetchRefusal::Diverging {
        epoch: LeaderEpoch(epoch),
        end_offset: Offset(end),
        high_watermark: Offset(30),
    };
    let current = LeaderEpoch(6);
    for (what, (leader_epoch, broker, broker_epoch), (offset, last_epoch), refusal) in [
        ("an old epoch", (5, 2, 12), (10, 3), FetchRefusal::FencedLeaderEpoch { current }),
        ("a new epoch", (7, 9, 12), (10, 3), FetchRefusal::UnknownLeaderEpoch { current }),
        ("a stranger", (6, 9, 19), (10, 3), FetchRefusal::NotReplica),
        ("itself", (6, 1, 11), (10, 3), FetchRefusal::NotReplica),
        (
            "a past incarnation",
            (6, 2, 11),
            (10, 3),
            FetchRefusal::StaleBrokerEpoch { current: BrokerEpoch(12) },
        ),
        ("below the start, diverging too", (6, 2, 12), (19, 3), range),
        ("an epoch between", (6, 2, 12), (50, 3), diverging(2, 40)),
        ("past the end of its epoch", (6, 2, 12), (50, 2), diverging(2, 40)),
        ("past the end, diverging", (6, 2, 12), (70, 4), diverging(4, 60)),
        ("an epoch before all", (6, 2, 12), (25, 1), diverging(1, 20)),
        ("at the start, of an epoch that is gone", (6, 2, 12), (20, 1), range),
        ("an epoch past all", (6, 2, 12), (50, 9), range),
        ("past the end, of no epoch", (6, 2, 12), (61, -1), range),
    ] {
        let mut solo = leader_of_a_long_log();
        let fetch = klamm_replica::FollowerFetch {
            broker: BrokerId(broker),
            broker_epoch: BrokerEpoch(broker_epoch),
            leader_epoch: LeaderEpoch(leader_epoch),
            ..solo.fetch_of(2, offset, last_epoch)
        };
        let ticket = FetchTicket(1);
        let effects = solo.step(Event::FollowerFetched { ticket, fetch });
        assert_eq!(effects, [Effect::RefuseFetch { ticket, refusal }], "{what}");
        assert_eq!(solo.replica.follower(BrokerId(2)).and_then(|f| f.fetched()), None, "{what}");
        assert_eq!(solo.high_watermark(), 30, "{what}");
    }
}

#[test]
fn only_a_leader_answers_fetches() {
    let mut solo = Solo::following(LogPosition::empty());
    let effects = solo.fetch(3, 0, -1);
    assert_eq!(effects, [Effect::RefuseFetch { ticket: FetchTicket(7), refusal: FetchRefusal::NotLeader }]);
}

#[test]
fn a_fetch_at_either_end_of_the_log_is_served() {
    let mut solo = leader_of_a_long_log();
    for (offset, last_epoch) in [(20, -1), (20, 2), (40, 2), (60, 4)] {
        let effects = solo.fetch(2, offset, last_epoch);
        assert!(matches!(effects.last(), Some(Effect::AnswerFetch { .. })), "{offset}: {effects:?}");
        let fetched = solo.replica.follower(BrokerId(2)).and_then(|f| f.fetched());
        assert_eq!(fetched.map(|f| f.end_offset), Some(Offset(offset)));
    }
}

#[test]
fn the_high_watermark_does_not_fall_when_a_follower_does() {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 3);
    solo.flush();
    solo.fetch(2, 3, 1);
    solo.fetch(2, 1, 1);
    assert_eq!(solo.high_watermark(), 3);
}

#[test]
fn a_close_follower_that_may_not_join_holds_nobody_back() {
    let mut solo = Solo::leading(&[1, 2]);
    let mut states = brokers();
    states.entry(BrokerId(3)).and_modify(|state| state.shutting_down = true);
    let registration = registration(1, &[1, 2], 1, 2);
    solo.step(Event::RegistrationChanged { config: None, registration, brokers: states });
    solo.fetch(3, 0, -1);
    solo.append(1, 1);
    solo.flush();
    assert_eq!(solo.fetch(2, 1, 1)[0], advances(1));
}

/// It held everything when its node died, a moment ago. Now it has a gigabyte to copy, or all.
#[test]
fn a_follower_that_comes_back_far_behind_holds_nobody_back() {
    for missed in [0, 3] {
        let mut solo = Solo::leading(&[1, 2, 3]);
        solo.append(1, 3);
        solo.flush();
        solo.fetch(2, 3, 1);
        solo.fetch(3, 3, 1);
        assert_eq!(solo.high_watermark(), 3);
        solo.now += 1_000;
        let mut states = brokers();
        states.entry(BrokerId(3)).and_modify(|state| state.fenced = true);
        let without = registration(1, &[1, 2], 1, 2);
        solo.step(Event::RegistrationChanged {
            config: None,
            registration: without.clone(),
            brokers: states,
        });
        solo.now += 1_000;
        solo.append(2, 5);
        solo.flush();
        solo.fetch(2, 8, 1);
        assert_eq!(solo.high_watermark(), 8, "it is out of the set");
        solo.now += 1_000;
        solo.step(Event::RegistrationChanged { config: None, registration: without, brokers: brokers() });
        solo.fetch(3, missed, if missed == 0 { -1 } else { 1 });
        solo.append(3, 1);
        solo.flush();
        assert_eq!(solo.fetch(2, 9, 1)[0], advances(9), "it has {missed} of 9");
        // Once it is close, it is waited for, and joins.
        solo.now += 1_000;
        solo.append(4, 1);
        solo.flush();
        solo.fetch(3, 9, 1);
        assert_eq!(solo.maximal_isr(), set(&[1, 2, 3]));
        solo.fetch(2, 10, 1);
        assert_eq!(solo.high_watermark(), 9);
    }
}

#[test]
fn a_follower_about_to_join_is_waited_for() {
    let mut solo = Solo::new(config(), LogPosition::empty());
    let mut of_four = registration(1, &[1, 2], 1, 1);
    of_four.replicas.push(BrokerId(4));
    let mut states = brokers();
    states.insert(BrokerId(4), BrokerState { epoch: BrokerEpoch(14), fenced: false, shutting_down: false });
    solo.step(Event::RegistrationChanged { config: None, registration: of_four, brokers: states });
    solo::proposal(&solo.fetch(3, 0, -1));
    solo.fetch(4, 0, -1);
    assert_eq!(solo.maximal_isr(), set(&[1, 2, 3]), "one change at a time");
    solo.append(1, 1);
    solo.flush();
    solo.fetch(2, 1, 1);
    solo.fetch(3, 1, 1);
    assert_eq!(solo.high_watermark(), 0, "broker 4 held everything a moment ago");
    assert_eq!(solo.replica.next_wakeup(Timestamp(0)), Some(Timestamp(11_001)));
    solo.now += 10_001;
    assert_eq!(solo.step(Event::Tick)[0], advances(1), "broker 4 has had its chance");
}

#[test]
fn the_latest_offset_is_unknown_until_the_epoch_start_is_committed() {
    let mut solo = Solo::new(config(), log(0, 1, 3, &[(0, 0)]));
    assert_eq!(solo.replica.read_bounds(Timestamp(0), FOREVER), Err(ReadRefusal::NotServing));
    solo.step(image(registration(0, &[], 3, 3)));
    assert_eq!(solo.replica.read_bounds(Timestamp(0), FOREVER), Err(ReadRefusal::NotServing));
    solo.step(image(registration(1, &[1, 2], 4, 4)));
    let bounds = |solo: &Solo| solo.replica.read_bounds(Timestamp(5), Timestamp(6));
    assert_eq!(bounds(&solo).map(|b| (b.high_watermark, b.is_latest_known)), Ok((Offset(1), false)));
    assert_eq!(solo.replica.read_bounds(Timestamp(6), Timestamp(6)), Err(ReadRefusal::LeaseExpired));
    solo.fetch(2, 3, 0);
    assert_eq!(bounds(&solo).map(|b| (b.high_watermark, b.is_latest_known)), Ok((Offset(3), true)));
    solo.step(image(registration(2, &[1, 2], 5, 5)));
    assert_eq!(bounds(&solo).map(|b| (b.high_watermark, b.is_latest_known)), Ok((Offset(3), false)));
}

fn deletion(ticket: u64, offset: i64) -> Event {
    let ticket = Some(DeletionTicket(ticket));
    Event::DeletionRequested(DeletionRequest { ticket, offset: Offset(offset), deadline: Timestamp(50_000) })
}

fn deleted(ticket: u64, outcome: Result<i64, DeletionError>) -> Effect {
    Effect::CompleteDeletion { ticket: DeletionTicket(ticket), outcome: outcome.map(Offset) }
}

/// A leader of `0..4`, of which 3 are committed.
fn leader_with_committed() -> Solo {
    let mut solo = Solo::leading(&[1, 2]);
    solo.append(1, 4);
    solo.flush();
    solo.fetch(2, 3, 1);
    assert_eq!(solo.high_watermark(), 3);
    solo
}

#[test]
fn a_deletion_is_answered_when_live_replicas_have_followed() {
    let mut solo = leader_with_committed();
    let mut states = brokers();
    states.entry(BrokerId(3)).and_modify(|state| state.fenced = true);
    let same = registration(1, &[1, 2], 1, 1);
    solo.step(Event::RegistrationChanged { config: None, registration: same, brokers: states });
    assert_eq!(solo.step(deletion(1, 2)), [Effect::AdvanceLogStart(Offset(2))]);
    assert_eq!(solo.epochs(), [(1, 2)]);
    let fetch = klamm_replica::FollowerFetch { log_start_offset: Offset(2), ..solo.fetch_of(2, 3, 1) };
    let effects = solo.step(Event::FollowerFetched { ticket: FetchTicket(1), fetch });
    assert_eq!(effects[0], deleted(1, Ok(2)));
    assert_eq!(solo.step(deletion(2, 1)), [deleted(2, Ok(2))], "that is gone already");
}

#[test]
fn a_deletion_is_refused_or_times_out() {
    let mut solo = leader_with_committed();
    let past = DeletionError::OffsetOutOfRange { offset: Offset(4), high_watermark: Offset(3) };
    assert_eq!(solo.step(deletion(1, 4)), [deleted(1, Err(past))]);
    assert_eq!(solo.replica.log().log_start_offset(), Offset(0));
    solo.step(deletion(2, 2));
    solo.now = 50_000;
    assert!(solo.step(Event::Tick).contains(&deleted(2, Err(DeletionError::TimedOut))));
    solo.now = 1_000;
    solo.step(deletion(3, 3));
    let effects = solo.step(image(registration(2, &[1, 2], 2, 2)));
    assert_eq!(effects[0], deleted(3, Err(DeletionError::NotLeader)));
    assert_eq!(solo.step(deletion(4, 3)), [deleted(4, Err(DeletionError::NotLeader))]);
    solo.step(Event::LogFailed);
    assert_eq!(solo.step(deletion(5, 3)), [deleted(5, Err(DeletionError::LogFailed))]);
}

#[test]
#[should_panic(expected = "has not finished")]
fn the_body_must_finish_a_write_before_the_next_event() {
    let mut solo = Solo::leading(&[1, 2]);
    let request = solo.request(1, Acks::All);
    solo.step(Event::AppendRequested(request));
    solo.step(image(registration(2, &[1, 2], 2, 2)));
}
