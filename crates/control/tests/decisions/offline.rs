//! Replicas that a broker in service cannot serve.

use std::collections::BTreeMap;

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::*;

use crate::context::*;

/// Partition 0 of `t` is led by 1, partition 1 by 2; both have three replicas.
fn cluster(min_isr: u16) -> Cluster {
    let mut cluster = Cluster::new(4);
    cluster.topic("t", min_isr, &[&[1, 2, 3], &[2, 1, 3]]);
    cluster.set_level(4);
    cluster
}

#[test]
fn a_replica_that_is_lost_is_led_and_followed_elsewhere_and_others_stay() {
    let mut cluster = cluster(2);
    let (led, followed) = (cluster.partition("t", 0), cluster.partition("t", 1));
    assert_eq!(cluster.lose(1, &[("t", 0)]), 1);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(2), vec![2, 3], vec![], vec![]));
    assert_eq!(cluster.partition("t", 0).leader_epoch.0, led.leader_epoch.0 + 1);
    assert_eq!(cluster.partition("t", 1), followed, "the broker's other replicas stay as they are");
    assert!(cluster.image.cluster.is_active(b(1)));
    let before = cluster.image.clone();
    assert_eq!(cluster.lose(1, &[("t", 0)]), 0);
    assert_eq!(cluster.image, before, "what is known changes nothing");
    assert_eq!(cluster.lose(1, &[("t", 0), ("t", 1)]), 1, "a follower only leaves the in-sync set");
    assert_eq!(state(&cluster.partition("t", 1)), (Some(2), vec![2, 3], vec![], vec![]));
    assert_eq!(cluster.partition("t", 1).leader_epoch, followed.leader_epoch);
}

#[test]
fn a_replica_that_is_lost_neither_joins_nor_leads_before_its_broker_starts_anew() {
    let mut cluster = cluster(1);
    cluster.lose(1, &[("t", 0)]);
    let proposal = cluster.proposal("t", &[1, 2, 3]);
    let answer = cluster.alter(&proposal);
    let IsrAnswer::Refused(refusal) = answer else { panic!("accepted: {answer:?}") };
    assert_eq!(refusal.refusal(), Refusal::IneligibleReplica);
    assert_eq!(
        cluster.elect(ElectionKind::Preferred, "t"),
        Err(ElectionError::PreferredNotAvailable),
        "the preferred leader cannot serve"
    );
    cluster.die(3);
    cluster.die(2);
    assert_eq!(cluster.partition("t", 0).leader, None, "nobody is left");
    assert_eq!(cluster.elect(ElectionKind::Unclean, "t"), Err(ElectionError::EligibleNotAvailable));
    let result = cluster.replication().elect_leaderless();
    cluster.commit(result);
    assert_eq!(cluster.partition("t", 0).leader, None);
    cluster.restart(1, RecoveryVerdict::CrashedDurable);
    assert!(cluster.image.offline.is_empty(), "another incarnation has said nothing yet");
    cluster.start(2);
    assert_eq!(cluster.partition("t", 0).leader, Some(b(2)));
    cluster.set_isr("t", &[2, 1]);
}

#[test]
fn who_has_just_come_back_is_elected_last() {
    for (newcomers, leader) in [(&[2][..], 3), (&[2, 3], 2), (&[], 2)] {
        let mut cluster = cluster(1);
        let report = cluster.offline_report(1, &[("t", 0)]);
        let result = cluster.replication().replicas_offline(&report, &ids(newcomers));
        cluster.commit(result.expect("it is registered"));
        assert_eq!(cluster.partition("t", 0).leader, Some(b(leader)));
    }
}

#[test]
fn the_last_member_stays_eligible_and_leads_again_after_a_restart() {
    let mut cluster = cluster(1);
    cluster.set_isr("t", &[1]);
    cluster.lose(1, &[("t", 0)]);
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![1], vec![]));
    // A heartbeat that unfences elects wherever it can.
    let epoch = cluster.epoch(1);
    cluster.heartbeat_as(1, epoch, true, false).expect("it is registered");
    cluster.heartbeat(1);
    assert_eq!(cluster.partition("t", 0).leader, None);
    cluster.restart(1, RecoveryVerdict::CrashedDurable);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(1), vec![1], vec![], vec![]));
}

#[test]
fn an_unclean_election_takes_nobody_who_cannot_serve() {
    let mut cluster = cluster(1);
    cluster.set_isr("t", &[1]);
    cluster.lose(2, &[("t", 0)]);
    let resource = ConfigResource::Topic(name("t"));
    cluster.set_config(resource, UNCLEAN_LEADER_ELECTION_ENABLE, "true").expect("it is known");
    cluster.lose(1, &[("t", 0)]);
    assert_eq!(cluster.partition("t", 0).leader, Some(b(3)));
}

/// A partition that lost all its complete replicas waits for each that it remembers, and one that cannot be served cannot
/// be asked.
#[test]
fn a_recovery_waits_for_who_cannot_serve() {
    let mut cluster = cluster(1);
    cluster.set_isr("t", &[1]);
    cluster.restart(1, RecoveryVerdict::Lossy);
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![], vec![1]));
    cluster.lose(1, &[("t", 0)]);
    let reports = |cluster: &Cluster| -> BTreeMap<_, _> {
        let report = |(id, end)| {
            let (broker_epoch, last_epoch) = (cluster.epoch(id), LeaderEpoch(0));
            let leader_epoch = cluster.partition("t", 0).leader_epoch;
            (b(id), LogReport { leader_epoch, broker_epoch, last_epoch, log_end_offset: Offset(end) })
        };
        [(1, 5), (2, 4), (3, 4)].map(report).into()
    };
    let wanted = topic_partition("t", 0);
    let refused = cluster.replication().recover_partition(&wanted, &reports(&cluster), false);
    assert_eq!(refused.map(|_| ()), Err(ElectionError::EligibleNotAvailable));
    cluster.restart(1, RecoveryVerdict::CrashedDurable);
    let recovered = cluster.replication().recover_partition(&wanted, &reports(&cluster), false);
    let recovered = recovered.expect("it can be asked now");
    assert_eq!(cluster.commit(recovered), b(1));
}

#[test]
fn a_report_of_an_earlier_epoch_is_left_alone() {
    let mut cluster = cluster(1);
    let early = cluster.offline_report(3, &[("t", 0)]);
    cluster.reassign("t", Some(&[1, 2])).expect("it can be moved");
    cluster.reassign("t", Some(&[1, 2, 3])).expect("it can be moved back");
    cluster.set_isr("t", &[1, 2, 3]);
    let before = cluster.image.clone();
    let result = cluster.replication().replicas_offline(&early, &[]).expect("it is registered");
    assert_eq!(cluster.commit(result), 0);
    assert_eq!(cluster.image, before);
    assert_eq!(cluster.lose(3, &[("t", 0)]), 1);
    // What is taken away takes along what was known of it.
    cluster.reassign("t", Some(&[1, 2])).expect("it can be moved");
    assert!(cluster.image.offline.is_empty());
}

#[test]
fn reports_of_strangers_and_of_what_is_not_there_change_nothing() {
    let mut cluster = cluster(1);
    let good = cluster.offline_report(1, &[("t", 0)]);
    let mut stale = good.clone();
    stale.epoch = BrokerEpoch(stale.epoch.0 + 1);
    let mut unknown = good.clone();
    unknown.broker = b(9);
    for report in [stale, unknown] {
        let refused = cluster.replication().replicas_offline(&report, &[]).expect_err("not registered so");
        assert_eq!(refused.refusal(), Refusal::StaleBrokerEpoch);
    }
    let replica = good.replicas[0];
    let mut report = good.clone();
    report.broker = b(4);
    report.epoch = cluster.epoch(4);
    report.replicas.push(OfflineReplica { partition: PartitionId(7), ..replica });
    report.replicas.push(OfflineReplica { topic: TopicId([9; 16]), ..replica });
    let result = cluster.replication().replicas_offline(&report, &[]).expect("it is registered");
    assert_eq!((result.records.len(), result.response), (0, 0));
    report.replicas = vec![replica; 3];
    (report.broker, report.epoch) = (good.broker, good.epoch);
    let result = cluster.replication().replicas_offline(&report, &[]).expect("it is registered");
    assert_eq!(cluster.commit(result), 1, "one that is named thrice counts once");
}

#[test]
fn below_its_level_single_replicas_are_not_known() {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 1, &[&[1, 2, 3]]);
    for level in [1, 3] {
        cluster.set_level(level);
        let report = cluster.offline_report(1, &[("t", 0)]);
        let refused = cluster.replication().replicas_offline(&report, &[]).expect_err("the level is too low");
        assert_eq!(refused.refusal(), Refusal::UnsupportedVersion);
    }
}

#[test]
fn ten_thousand_replicas_at_once_leave_by_entries_of_bounded_size() {
    let mut cluster = cluster(1);
    let assignments: Vec<&[i32]> = vec![&[1, 2, 3]; 5_000];
    cluster.topic("u", 1, &assignments);
    cluster.topic("v", 1, &assignments);
    let mut report = cluster.offline_report(1, &[]);
    for topic in ["u", "v"] {
        let topic = cluster.image.topics.topic_by_name(&name(topic)).expect("it exists");
        report.replicas.extend(topic.partitions().map(|(partition, registration)| OfflineReplica {
            topic: topic.id,
            partition,
            leader_epoch: registration.leader_epoch,
        }));
    }
    let result = cluster.replication().replicas_offline(&report, &[]).expect("it is registered");
    assert_eq!((result.response, result.atomic), (10_000, false));
    let (entries, _) = result.into_entries();
    assert_eq!(entries.len(), 11);
    let mut delta = MetadataDelta::new(cluster.image.clone());
    for entry in entries {
        assert!(encode_batch(&entry).len() < 1 << 20);
        entry.iter().for_each(|record| delta.replay(record).expect("it follows"));
        check_image(delta.image(), &cluster.config);
    }
    assert_eq!(delta.image().offline.len(), 10_000);
    assert_eq!(delta.image().topics.load(b(1)).leaders, 1, "partition 0 of t");
}

#[test]
fn leaderships_come_back_to_a_broker_that_has_lost_other_replicas() {
    let mut cluster = cluster(1);
    cluster.lose(1, &[("t", 1)]);
    cluster.die(1);
    cluster.start(1);
    cluster.lose(1, &[("t", 1)]);
    assert_eq!(cluster.partition("t", 0).leader, Some(b(2)));
    cluster.set_isr("t", &[1, 2, 3]);
    let mut balancer = LeaderBalancer::new();
    for _ in 0..2 {
        let result = balancer.tick(&cluster.replication(), &cluster.config, cluster.now);
        cluster.commit(result);
        cluster.now = cluster.now.plus_millis(i64::from(cluster.config.rebalance_settle_ms) + 1_000);
    }
    assert_eq!(cluster.partition("t", 0).leader, Some(b(1)));
    assert_eq!(cluster.partition("t", 1).leader, Some(b(2)));
}

#[test]
fn a_leader_without_room_hands_over_where_another_can_lead() {
    let mut cluster = cluster(2);
    let lacks_room = |cluster: &mut Cluster, partition| {
        let report = cluster.offline_report(1, &[("t", partition)]);
        let report = OfflineReport { full: report.replicas, replicas: Vec::new(), ..report };
        let result = cluster.replication().replicas_offline(&report, &[]).expect("it is registered");
        assert_eq!(cluster.commit(result), 0, "nothing is marked");
    };
    lacks_room(&mut cluster, 0);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(2), vec![2, 3], vec![], vec![]));
    cluster.set_isr("t", &[2, 3, 1]);
    assert_eq!(state(&cluster.partition("t", 0)).1, [2, 3, 1], "it has room again");
    cluster.elect(ElectionKind::Preferred, "t").expect("the preferred leader is in sync");
    cluster.die(2);
    cluster.die(3);
    let alone = cluster.partition("t", 0);
    assert_eq!(alone.leader, Some(b(1)));
    lacks_room(&mut cluster, 0);
    assert_eq!(cluster.partition("t", 0), alone, "nobody else can lead, and it can still be read");
    // A mixed cluster, too, moves leaderships.
    cluster.start(2);
    cluster.set_isr("t", &[1, 2]);
    cluster.set_level(3);
    lacks_room(&mut cluster, 0);
    assert_eq!(cluster.partition("t", 0).leader, Some(b(2)));
}

#[test]
fn a_follower_without_room_is_waited_for_no_longer() {
    let mut cluster = cluster(2);
    let lacks_room = |cluster: &mut Cluster, broker| {
        let report = cluster.offline_report(broker, &[("t", 0)]);
        let report = OfflineReport { full: report.replicas, replicas: Vec::new(), ..report };
        let result = cluster.replication().replicas_offline(&report, &[]).expect("it is registered");
        cluster.commit(result);
    };
    lacks_room(&mut cluster, 2);
    let without = cluster.partition("t", 0);
    assert_eq!(state(&without), (Some(1), vec![1, 3], vec![], vec![]));
    lacks_room(&mut cluster, 2);
    assert_eq!(cluster.partition("t", 0), without, "once is enough");
    lacks_room(&mut cluster, 3);
    assert_eq!(cluster.partition("t", 0), without, "with one nobody could write");
}

#[test]
fn a_replica_that_lacked_room_and_then_failed_is_decided_about_once() {
    let mut cluster = cluster(2);
    let report = cluster.offline_report(1, &[("t", 0)]);
    let report = OfflineReport { full: report.replicas.clone(), ..report };
    let result = cluster.replication().replicas_offline(&report, &[]).expect("it is registered");
    assert_eq!(cluster.commit(result), 1);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(2), vec![2, 3], vec![], vec![]));
}
