//! Brokers that come, stay, fall silent, go and come back.

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::*;

use crate::context::*;

#[test]
fn a_registered_broker_is_fenced_until_it_has_applied_its_registration() {
    let mut cluster = Cluster::empty();
    let request = cluster.register_request(1, RecoveryVerdict::Clean);
    let epoch = cluster.register(&request).expect("a new broker");
    assert_eq!(epoch.0, cluster.image.provenance.last_offset.0, "the epoch is the offset of the entry");
    let behind = Offset(epoch.0 - 1);
    let mut heartbeat =
        HeartbeatRequest { broker: b(1), epoch, applied: behind, want_fence: false, want_shutdown: false };
    let standing = cluster.send_heartbeat(&heartbeat).expect("it is registered");
    assert!(standing.fenced && !standing.caught_up);
    (heartbeat.applied, heartbeat.want_fence) = (Offset(epoch.0), true);
    assert!(cluster.send_heartbeat(&heartbeat).expect("it is registered").fenced);
    heartbeat.want_fence = false;
    let standing = cluster.send_heartbeat(&heartbeat).expect("it is registered");
    assert!(!standing.fenced && standing.caught_up);
    assert!(cluster.image.cluster.is_active(b(1)));
    assert!(cluster.heartbeat_as(1, epoch, true, false).expect("it is registered").fenced);
    assert!(!cluster.heartbeat(1).fenced);
}

#[test]
fn heartbeats_of_strangers_are_refused() {
    let mut cluster = Cluster::new(1);
    let current = cluster.epoch(1);
    let error = cluster.heartbeat_as(2, current, false, false).expect_err("unknown");
    assert_eq!(error.refusal(), Refusal::BrokerIdNotRegistered);
    let found = BrokerEpoch(current.0 - 1);
    let error = cluster.heartbeat_as(1, found, false, false).expect_err("stale");
    assert_eq!(error, LifecycleError::StaleEpoch { broker: b(1), found, current });
    assert_eq!(error.refusal(), Refusal::StaleBrokerEpoch);
}

#[test]
fn impossible_registrations_are_refused() {
    let mut cluster = Cluster::new(1);
    let result =
        FeatureControl::new(&cluster.image, &cluster.config).bootstrap(klamm_types::QuorumId([1; 16]));
    cluster.commit(result);
    let good = cluster.register_request(2, RecoveryVerdict::Clean);
    let with = |change: fn(&mut RegisterRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (bad, refusal) in [
        (with(|r| r.broker = b(-1)), Refusal::InvalidRequest),
        (with(|r| r.endpoints.clear()), Refusal::InvalidRequest),
        (with(|r| r.endpoints.push(r.endpoints[0].clone())), Refusal::InvalidRequest),
        (with(|r| r.features.clear()), Refusal::UnsupportedVersion),
        (with(|r| (r.features[0].level_min, r.features[0].level_max) = (9, 9)), Refusal::UnsupportedVersion),
    ] {
        assert_eq!(cluster.register(&bad).expect_err("impossible").refusal(), refusal);
    }
    cluster.register(&good).expect("possible");
}

#[test]
fn a_second_process_waits_for_the_session_of_the_first() {
    let mut cluster = Cluster::new(1);
    let mut second = cluster.register_request(1, RecoveryVerdict::CrashedDurable);
    second.directory = DirectoryId([77; 16]);
    let error = cluster.register(&second).expect_err("the first lives");
    assert_eq!(error.refusal(), Refusal::DuplicateBrokerRegistration);
    assert!(error.is_retryable());
    cluster.now = cluster.now.plus_millis(3_001);
    let old = cluster.epoch(1);
    let new = cluster.register(&second).expect("the first is silent");
    assert!(new > old);
    assert!(cluster.heartbeat_as(1, old, false, false).is_err(), "the first has been replaced");
}

#[test]
fn who_comes_with_the_log_directory_of_the_first_need_not_wait() {
    let mut cluster = Cluster::new(3);
    let old = cluster.epoch(1);
    let second = cluster.register_request(1, RecoveryVerdict::CrashedDurable);
    let new = cluster.register(&second).expect("the first has let go of the directory's lock");
    assert!(new > old);
    assert!(cluster.image.cluster.broker(b(1)).expect("registered").fenced);
    assert!(cluster.heartbeat_as(1, old, false, false).is_err(), "the first has been replaced");
}

#[test]
fn evidence_of_death_frees_the_id_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.die(1);
    let next = cluster.register_request(1, RecoveryVerdict::CrashedDurable);
    let epoch = cluster.register(&next).expect("the first is dead");
    // It dies again while it is fenced.
    assert_eq!(cluster.find_dead(1, epoch), Suspicion::None, "there is nothing to fence");
    let next = cluster.register_request(1, RecoveryVerdict::CrashedDurable);
    cluster.register(&next).expect("the second is dead");
}

#[test]
fn a_registration_sent_again_gets_the_same_epoch() {
    let mut cluster = Cluster::empty();
    let mut request = cluster.register_request(1, RecoveryVerdict::Clean);
    let first = cluster.register(&request).expect("a new broker");
    let log = cluster.log.len();
    assert_eq!(cluster.register(&request), Ok(first));
    assert_eq!(cluster.log.len(), log);
    request.endpoints[0].port = 9093;
    assert!(cluster.register(&request).expect("the same process, moved") > first);
}

#[test]
fn a_broker_that_registers_again_leaves_every_isr() {
    use RecoveryVerdict::{Clean, CrashedDurable, Lossy};
    for (verdict, marker, same_disk, elr) in [
        (Clean, true, true, vec![1]),
        (Clean, false, true, vec![]),
        (CrashedDurable, false, true, vec![1]),
        (CrashedDurable, true, false, vec![]),
        (Lossy, true, true, vec![]),
    ] {
        let mut cluster = Cluster::new(2);
        cluster.topic("t", 2, &[&[1, 2]]);
        let mut request = cluster.register_request(1, verdict);
        if !marker {
            request.marker_epoch = Some(BrokerEpoch(request.marker_epoch.expect("it is registered").0 - 1));
        }
        if !same_disk {
            request.directory = DirectoryId([99; 16]);
        }
        cluster.now = cluster.now.plus_millis(60_000);
        cluster.heartbeat(2);
        cluster.register(&request).expect("the first is silent");
        let lost = if elr.is_empty() { vec![1] } else { vec![] };
        let expected = (Some(2), vec![2], elr, lost);
        assert_eq!(state(&cluster.partition("t", 0)), expected, "{verdict:?} {marker} {same_disk}");
    }
}

#[test]
fn a_controlled_shutdown_moves_leaderships_and_waits_for_the_others() {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 1, &[&[1, 2, 3], &[2, 1, 3]]);
    cluster.topic("u", 1, &[&[1]]);
    let epoch = cluster.epoch(1);
    let standing = cluster.heartbeat_as(1, epoch, false, true).expect("it is registered");
    assert!(!standing.may_shut_down && !standing.fenced);
    assert_eq!(state(&cluster.partition("t", 0)).1, [2, 3]);
    assert_eq!(state(&cluster.partition("t", 1)).1, [2, 3]);
    assert_eq!(
        state(&cluster.partition("u", 0)),
        (Some(1), vec![1], vec![], vec![]),
        "nobody else can lead it"
    );
    let standing = cluster.heartbeat_as(1, epoch, false, true).expect("it is registered");
    assert!(!standing.may_shut_down, "2 and 3 do not know yet");
    cluster.heartbeat(2);
    assert!(!cluster.heartbeat_as(1, epoch, false, true).expect("it is registered").may_shut_down);
    cluster.heartbeat(3);
    let standing = cluster.heartbeat_as(1, epoch, false, true).expect("it is registered");
    assert!(standing.may_shut_down && standing.fenced);
    assert_eq!(state(&cluster.partition("u", 0)), (None, vec![], vec![1], vec![]));
    // It asks again because the answer was lost, and lives on without asking: it stays out.
    assert!(cluster.heartbeat_as(1, epoch, false, true).expect("it is registered").may_shut_down);
    assert!(cluster.heartbeat(1).fenced);
    cluster.now = cluster.now.plus_millis(60_000);
    let request = cluster.register_request(1, RecoveryVerdict::Clean);
    cluster.register(&request).expect("the first has gone");
    assert!(!cluster.heartbeat(1).fenced);
    assert_eq!(state(&cluster.partition("u", 0)).0, Some(1));
}

/// A client that tried broker 2 in vain may not try it again for ten seconds.
#[test]
fn a_broker_that_came_back_a_moment_ago_leads_where_nobody_else_can() {
    for (millis, shut_down, leader) in
        [(2_000, false, 3), (2_000, true, 3), (20_000, false, 2), (20_000, true, 2)]
    {
        let mut cluster = Cluster::new(3);
        cluster.now = cluster.now.plus_millis(60_000);
        cluster.topic("t", 1, &[&[1, 2, 3]]);
        for id in 1..=3 {
            cluster.heartbeat(id);
        }
        cluster.die(2);
        cluster.start(2);
        cluster.set_isr("t", &[1, 3, 2]);
        let epoch = cluster.epoch(1);
        cluster.now = cluster.now.plus_millis(millis);
        if shut_down {
            cluster.heartbeat_as(1, epoch, false, true).expect("it is registered");
        } else {
            cluster.die(1);
        }
        assert_eq!(state(&cluster.partition("t", 0)).0, Some(leader), "{millis} {shut_down}");
    }
}

/// Otherwise the mark would not fit at the next start, and what was closed in order would count as lost.
#[test]
fn a_late_request_of_a_process_that_has_gone_does_not_outdate_the_mark_that_it_left() {
    let mut cluster = Cluster::empty();
    let request = cluster.register_request(1, RecoveryVerdict::CrashedDurable);
    let epoch = cluster.register(&request).expect("a new broker");
    assert!(!cluster.heartbeat(1).fenced);
    cluster.topic("t", 1, &[&[1]]);
    while !cluster.heartbeat_as(1, epoch, false, true).expect("it is registered").may_shut_down {}
    assert_eq!(cluster.register(&request), Ok(epoch));
    let mut next = cluster.register_request(1, RecoveryVerdict::Clean);
    next.marker_epoch = Some(epoch);
    cluster.register(&next).expect("the first has gone");
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![1], vec![]));
    assert!(!cluster.heartbeat(1).fenced);
    assert_eq!(state(&cluster.partition("t", 0)).0, Some(1));
}

#[test]
fn a_new_controller_lets_a_broker_go_only_after_everybody_was_heard() {
    let mut cluster = Cluster::new(2);
    let epoch = cluster.epoch(1);
    cluster.heartbeat_as(1, epoch, false, true).expect("it is registered");
    cluster.liveness = Liveness::take_over(&cluster.image, &cluster.config, cluster.now);
    for _ in 0..3 {
        assert!(!cluster.heartbeat_as(1, epoch, false, true).expect("it is registered").may_shut_down);
    }
    cluster.heartbeat(2);
    assert!(cluster.heartbeat_as(1, epoch, false, true).expect("it is registered").may_shut_down);
}

#[test]
fn an_unregistered_broker_leaves_its_sets() {
    let mut cluster = Cluster::new(2);
    cluster.topic("t", 2, &[&[1, 2]]);
    let unregister = |cluster: &mut Cluster, id| {
        let control =
            ClusterControl::new(&cluster.image, &cluster.config, cluster.next_offset(), cluster.now);
        let result = control.unregister(&mut cluster.liveness, b(id))?;
        cluster.commit(result);
        Ok::<_, LifecycleError>(())
    };
    unregister(&mut cluster, 1).expect("it is registered");
    assert_eq!(state(&cluster.partition("t", 0)), (Some(2), vec![2], vec![], vec![1]));
    let error = unregister(&mut cluster, 1).expect_err("it is gone");
    assert_eq!(error.refusal(), Refusal::BrokerIdNotRegistered);
}

/// Advances time in ticks, with heartbeats of `alive` every half second.
fn run(cluster: &mut Cluster, millis: i64, alive: &[i32]) -> Vec<BrokerId> {
    let mut fenced = Vec::new();
    for tick in 1..=millis / 100 {
        cluster.now = cluster.now.plus_millis(100);
        if tick % 5 == 0 {
            alive.iter().for_each(|id| {
                cluster.heartbeat(*id);
            });
        }
        let control =
            ClusterControl::new(&cluster.image, &cluster.config, cluster.next_offset(), cluster.now);
        let result = control.fence_silent(&mut cluster.liveness);
        fenced.extend(cluster.commit(result));
    }
    fenced
}

#[test]
fn silence_fences_after_the_session_and_not_before() {
    let mut cluster = Cluster::new(2);
    cluster.topic("t", 1, &[&[1, 2]]);
    cluster.heartbeat(1);
    cluster.heartbeat(2);
    assert_eq!(run(&mut cluster, 3_000, &[2]), []);
    assert_eq!(run(&mut cluster, 100, &[2]), [b(1)]);
    assert_eq!(state(&cluster.partition("t", 0)).0, Some(2));
    assert_eq!(run(&mut cluster, 60_000, &[2]), []);
}

#[test]
fn pauses_raise_the_session_timeout_for_a_while() {
    let mut cluster = Cluster::new(1);
    cluster.heartbeat(1);
    assert_eq!(run(&mut cluster, 2_000, &[]), []);
    assert_eq!(cluster.heartbeat(1).session_timeout_ms, 8_000);
    assert_eq!(run(&mut cluster, 2_900, &[]), []);
    assert_eq!(cluster.heartbeat(1).session_timeout_ms, 9_000, "the maximum");
    run(&mut cluster, 12 * 60_000, &[1]);
    assert_eq!(cluster.heartbeat(1).session_timeout_ms, 3_000, "forgotten");
}

#[test]
fn the_controllers_own_pause_counts_against_nobody() {
    let mut cluster = Cluster::new(2);
    run(&mut cluster, 500, &[1, 2]);
    cluster.now = cluster.now.plus_millis(60_000);
    assert_eq!(run(&mut cluster, 100, &[]), []);
    assert_eq!(run(&mut cluster, 60_000, &[1]), [b(2)], "but sessions go on from there");
}

#[test]
fn an_ended_stream_fences_after_two_refused_probes() {
    use Evidence::{Answered, ProbeRefused, StreamEnded};
    let mut cluster = Cluster::new(3);
    let epoch = cluster.epoch(1);
    let tell = |cluster: &mut Cluster, evidence, millis| {
        cluster.now = cluster.now.plus_millis(millis);
        cluster.liveness.on_evidence(&cluster.image, b(1), epoch, evidence, cluster.now)
    };
    assert_eq!(tell(&mut cluster, ProbeRefused, 0), Suspicion::None, "no stream has ended");
    let at = cluster.now;
    assert_eq!(tell(&mut cluster, StreamEnded, 0), Suspicion::Probe { at });
    assert_eq!(tell(&mut cluster, ProbeRefused, 0), Suspicion::Probe { at: at.plus_millis(10) });
    assert!(matches!(tell(&mut cluster, ProbeRefused, 9), Suspicion::Probe { .. }), "too early to count");
    assert_eq!(tell(&mut cluster, Answered, 0), Suspicion::None, "it is back");
    assert_eq!(tell(&mut cluster, ProbeRefused, 20), Suspicion::None);
    assert!(matches!(tell(&mut cluster, StreamEnded, 0), Suspicion::Probe { .. }));
    assert!(matches!(tell(&mut cluster, ProbeRefused, 0), Suspicion::Probe { .. }));
    assert_eq!(tell(&mut cluster, ProbeRefused, 10), Suspicion::Dead);
    let stale = BrokerEpoch(epoch.0 - 1);
    assert_eq!(cluster.find_dead(2, stale), Suspicion::None, "another process died");
}

#[test]
fn a_peers_report_makes_one_probe_enough() {
    let mut cluster = Cluster::new(3);
    for order in [
        [Evidence::PeerStreamEnded, Evidence::ProbeRefused],
        [Evidence::ProbeRefused, Evidence::PeerStreamEnded],
        [Evidence::PeerStreamEnded, Evidence::ProbeUnanswered],
        [Evidence::ProbeUnanswered, Evidence::PeerStreamEnded],
    ] {
        cluster.now = cluster.now.plus_millis(2_000);
        cluster.heartbeat(1);
        let epoch = cluster.epoch(1);
        let mut tell =
            |evidence| cluster.liveness.on_evidence(&cluster.image, b(1), epoch, evidence, cluster.now);
        assert!(matches!(tell(Evidence::StreamEnded), Suspicion::Probe { .. }));
        assert_ne!(tell(order[0]), Suspicion::Dead);
        assert_eq!(tell(order[1]), Suspicion::Dead);
    }
}

#[test]
fn silence_alone_is_no_evidence() {
    let mut cluster = Cluster::new(3);
    let epoch = cluster.epoch(1);
    let mut tell =
        |evidence| cluster.liveness.on_evidence(&cluster.image, b(1), epoch, evidence, cluster.now);
    assert_eq!(tell(Evidence::ProbeUnanswered), Suspicion::None);
    assert_eq!(tell(Evidence::PeerStreamEnded), Suspicion::None);
    assert_eq!(tell(Evidence::ProbeUnanswered), Suspicion::None, "its own stream goes on");
    cluster.now = cluster.now.plus_millis(2_000);
    cluster.heartbeat(1);
    let mut tell =
        |evidence| cluster.liveness.on_evidence(&cluster.image, b(1), epoch, evidence, cluster.now);
    assert!(matches!(tell(Evidence::StreamEnded), Suspicion::Probe { .. }));
    for _ in 0..10 {
        assert_eq!(tell(Evidence::ProbeUnanswered), Suspicion::None, "no peer has lost it");
    }
}

#[test]
fn evidence_fences_a_minority_at_a_time() {
    let mut cluster = Cluster::new(5);
    let certify = |cluster: &mut Cluster, id| {
        let epoch = cluster.epoch(id);
        let verdict = cluster.find_dead(id, epoch);
        if verdict == Suspicion::Dead {
            cluster.fence(id);
        }
        verdict
    };
    assert_eq!(certify(&mut cluster, 1), Suspicion::Dead);
    assert_eq!(certify(&mut cluster, 2), Suspicion::Dead);
    assert_eq!(certify(&mut cluster, 3), Suspicion::Braked);
    cluster.now = cluster.now.plus_millis(1_000);
    assert_eq!(certify(&mut cluster, 3), Suspicion::Dead);
    assert_eq!(certify(&mut cluster, 4), Suspicion::Braked);
    cluster.now = cluster.now.plus_millis(1_000);
    assert_eq!(certify(&mut cluster, 4), Suspicion::Dead);
    cluster.now = cluster.now.plus_millis(1_000);
    assert_eq!(certify(&mut cluster, 5), Suspicion::Dead, "one always goes");
}

#[test]
fn producer_ids_are_given_away_once() {
    let mut cluster = Cluster::new(2);
    for round in 0..3 {
        let control = ProducerIdControl::new(&cluster.image);
        let result = control.allocate(b(1), cluster.epoch(1)).expect("it is registered");
        assert_eq!(
            cluster.commit(result),
            ProducerIdBlock { first: ProducerId(round * 1_000), length: 1_000 }
        );
    }
    let stale = ProducerIdControl::new(&cluster.image).allocate(b(1), cluster.epoch(2));
    assert_eq!(stale.expect_err("stale").refusal(), Refusal::StaleBrokerEpoch);
    let record = MetadataRecord::ProducerIdsAllocated {
        broker: b(1),
        epoch: cluster.epoch(1),
        end: ProducerId(i64::MAX - 999),
    };
    cluster.commit(ControlResult::atomic(vec![record], ()));
    let exhausted = ProducerIdControl::new(&cluster.image).allocate(b(1), cluster.epoch(1));
    assert_eq!(exhausted.expect_err("none left").refusal(), Refusal::UnknownServerError);
}

#[test]
fn a_large_fence_is_split_into_entries_that_can_stand_alone() {
    let mut cluster = Cluster::new(2);
    let new = NewTopic {
        name: "t".to_owned(),
        partitions: Some(2_100),
        replication_factor: Some(2),
        ..NewTopic::default()
    };
    cluster.create(new).expect("there are brokers enough");
    let log = cluster.log.len();
    let request = cluster.register_request(1, RecoveryVerdict::Clean);
    cluster.now = cluster.now.plus_millis(10_000);
    cluster.heartbeat(2);
    let epoch = cluster.register(&request).expect("the first is silent");
    assert_eq!(cluster.log.len(), log + 3);
    assert_eq!(epoch.0, cluster.image.provenance.last_offset.0, "the entry that carries the registration");
}
