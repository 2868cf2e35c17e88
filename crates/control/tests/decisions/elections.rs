//! Who leads when somebody is gone.

use std::collections::BTreeMap;

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::*;

use crate::context::*;

#[test]
fn the_first_live_member_of_the_isr_leads() {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 2, &[&[1, 2, 3]]);
    cluster.die(1);
    let partition = cluster.partition("t", 0);
    assert_eq!(state(&partition), (Some(2), vec![2, 3], vec![], vec![]));
    assert_eq!(partition.leader_epoch, LeaderEpoch(1));
    cluster.die(3);
    let partition = cluster.partition("t", 0);
    assert_eq!(state(&partition), (Some(2), vec![2], vec![3], vec![]));
    assert_eq!(partition.leader_epoch, LeaderEpoch(1), "a loss of a follower is no new epoch");
}

#[test]
fn an_eligible_replica_leads_only_when_the_isr_is_empty() {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 2, &[&[1, 2, 3]]);
    cluster.set_isr("t", &[1]);
    cluster.die(1);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(2), vec![2], vec![1, 3], vec![]));
}

#[test]
fn a_partition_waits_for_its_eligible_replicas() {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 2, &[&[1, 2, 3]]);
    cluster.set_isr("t", &[1, 2]);
    cluster.die(2);
    cluster.die(1);
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![1, 2], vec![]));
    cluster.start(3);
    assert_eq!(cluster.partition("t", 0).leader, None, "3 was not complete");
    cluster.restart(2, RecoveryVerdict::CrashedDurable);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(2), vec![2], vec![1], vec![]));
}

/// What was acknowledged from the page cache may be gone after a crash, so whoever crashed is not eligible before it has
/// everything again, unless nobody else has it either.
#[test]
fn a_crash_ends_the_eligibility_for_topics_that_are_acknowledged_from_the_page_cache() {
    for (resource, key) in [
        (ConfigResource::Topic(name("t")), WRITE_CACHING),
        (ConfigResource::BrokerDefault, DEFAULT_WRITE_CACHING),
    ] {
        let mut cluster = Cluster::new(3);
        cluster.topic("t", 2, &[&[1, 2, 3]]);
        cluster.set_config(resource, key, "true").unwrap();
        cluster.set_isr("t", &[1, 2]);
        cluster.die(2);
        assert_eq!(state(&cluster.partition("t", 0)), (Some(1), vec![1], vec![2], vec![]));
        cluster.restart(2, RecoveryVerdict::CrashedDurable);
        assert_eq!(state(&cluster.partition("t", 0)), (Some(1), vec![1], vec![], vec![2]), "{key}");
        // The last one that has everything.
        cluster.restart(1, RecoveryVerdict::CrashedDurable);
        assert_eq!(state(&cluster.partition("t", 0)), (Some(1), vec![1], vec![], vec![2]), "{key}");
    }
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 2, &[&[1, 2, 3]]);
    cluster.set_config(ConfigResource::Topic(name("t")), WRITE_CACHING, "true").unwrap();
    cluster.set_isr("t", &[1, 2]);
    cluster.restart(2, RecoveryVerdict::Clean);
    assert_eq!(
        state(&cluster.partition("t", 0)),
        (Some(1), vec![1], vec![2], vec![]),
        "an orderly end loses nothing"
    );
}

#[test]
fn a_lossy_last_leader_is_not_elected_again() {
    let mut cluster = Cluster::new(2);
    cluster.topic("t", 1, &[&[1, 2]]);
    cluster.set_isr("t", &[1]);
    cluster.restart(1, RecoveryVerdict::Lossy);
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![], vec![1]));
}

fn lost() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 2, &[&[1, 2, 3]]);
    cluster.set_isr("t", &[1, 2]);
    cluster.restart(2, RecoveryVerdict::Lossy);
    cluster.restart(1, RecoveryVerdict::Lossy);
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![], vec![1, 2]), "INV8");
    cluster
}

fn report(cluster: &Cluster, id: i32, epoch: i32, end: i64) -> (BrokerId, LogReport) {
    let broker_epoch = cluster.epoch(id);
    let leader_epoch = cluster.partition("t", 0).leader_epoch;
    let (last_epoch, log_end_offset) = (LeaderEpoch(epoch), Offset(end));
    (b(id), LogReport { leader_epoch, broker_epoch, last_epoch, log_end_offset })
}

#[test]
fn the_longest_log_that_is_left_leads() {
    for (ends, leader) in [
        ([(1, 50), (1, 60), (1, 55)], 2),
        ([(2, 10), (1, 60), (1, 55)], 1),
        ([(1, 9), (1, 9), (1, 9)], 1),
        // Both that had everything come back empty, and the third had been behind.
        ([(-1, 0), (-1, 0), (1, 40)], 3),
    ] {
        let mut cluster = lost();
        let reports = (1..=3)
            .zip(ends)
            .map(|(id, (epoch, end))| report(&cluster, id, epoch, end))
            .collect::<BTreeMap<_, _>>();
        let result = cluster.replication().recover_partition(&topic_partition("t", 0), &reports, false);
        assert_eq!(cluster.commit(result.expect("all have reported")), b(leader));
        let partition = cluster.partition("t", 0);
        assert_eq!(state(&partition), (Some(leader), vec![leader], vec![], vec![]));
        assert_eq!(partition.recovery, LeaderRecovery::Recovering);
    }
}

#[test]
fn a_dead_last_known_replica_is_not_elected() {
    let mut cluster = lost();
    cluster.die(3);
    let reports: BTreeMap<_, _> = [report(&cluster, 1, 1, 50), report(&cluster, 2, 1, 60)].into();
    cluster.die(2);
    let recover = |cluster: &Cluster, reports| {
        cluster
            .replication()
            .recover_partition(&topic_partition("t", 0), reports, false)
            .expect_err("nothing to elect")
    };
    assert_eq!(recover(&cluster, &reports), ElectionError::EligibleNotAvailable);
    cluster.restart(2, RecoveryVerdict::Clean);
    assert_eq!(recover(&cluster, &reports), ElectionError::EligibleNotAvailable, "2 must be asked again");
    let only_one = [report(&cluster, 1, 1, 50)].into();
    assert_eq!(recover(&cluster, &only_one), ElectionError::EligibleNotAvailable);
    let both = [report(&cluster, 1, 1, 50), report(&cluster, 2, 1, 60)].into();
    cluster.die(1);
    cluster.die(2);
    assert_eq!(
        recover(&cluster, &both),
        ElectionError::EligibleNotAvailable,
        "both died since they reported"
    );
}

/// What brokers say of partition 0 of the topic `t`.
struct Reports(LogReports);

impl Reports {
    fn tell(&mut self, cluster: &mut Cluster, id: i32, end: i64) -> Result<Vec<Recovered>, LifecycleError> {
        let (epoch, leader_epoch) = (cluster.epoch(id), cluster.partition("t", 0).leader_epoch);
        self.tell_in(cluster, id, (epoch, leader_epoch), end)
    }

    fn tell_in(
        &mut self,
        cluster: &mut Cluster,
        id: i32,
        (epoch, leader_epoch): (BrokerEpoch, LeaderEpoch),
        end: i64,
    ) -> Result<Vec<Recovered>, LifecycleError> {
        let topic = cluster.image.topics.topic_by_name(&name("t")).expect("it exists").id;
        let (last_epoch, log_end_offset) = (LeaderEpoch(0), Offset(end));
        let log = LostLog { topic, partition: PartitionId(0), leader_epoch, last_epoch, log_end_offset };
        let unknown = LostLog { partition: PartitionId(9), ..log };
        let told = LostLogs { broker: b(id), epoch, logs: vec![unknown, log] };
        let result = cluster.replication().logs_reported(&mut self.0, &told, cluster.now)?;
        Ok(cluster.commit(result))
    }
}

fn recovered(leader: i32, end: i64) -> Vec<Recovered> {
    vec![Recovered { partition: topic_partition("t", 0), leader: b(leader), log_end_offset: Offset(end) }]
}

#[test]
fn a_lost_partition_is_recovered_once_all_have_told_of_their_logs() {
    let (mut cluster, mut reports) = (lost(), Reports(LogReports::default()));
    assert_eq!(reports.tell(&mut cluster, 1, 50), Ok(vec![]));
    let stale = (BrokerEpoch(cluster.epoch(2).0 - 1), cluster.partition("t", 0).leader_epoch);
    let refused = reports.tell_in(&mut cluster, 2, stale, 60);
    assert!(matches!(refused, Err(LifecycleError::StaleEpoch { .. })), "{refused:?}");
    assert_eq!(reports.tell(&mut cluster, 2, 60), Ok(vec![]), "3 is there, too");
    // What 1 said before it registered anew is void.
    cluster.restart(1, RecoveryVerdict::Clean);
    assert_eq!(reports.tell(&mut cluster, 3, 55), Ok(vec![]));
    assert_eq!(reports.tell(&mut cluster, 1, 50), Ok(recovered(2, 60)));
    let after = cluster.partition("t", 0);
    assert_eq!(state(&after), (Some(2), vec![2], vec![], vec![]));
    assert_eq!(reports.tell(&mut cluster, 3, 99), Ok(vec![]), "it is not lost any more");
    assert_eq!(cluster.partition("t", 0), after);
    // Lost once more: what was said then, of logs that have grown since, says nothing now.
    let before = after.leader_epoch;
    cluster.restart(2, RecoveryVerdict::Lossy);
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![], vec![2]));
    let epoch = cluster.epoch(1);
    assert_eq!(reports.tell_in(&mut cluster, 1, (epoch, before), 999), Ok(vec![]));
    assert_eq!(reports.tell(&mut cluster, 2, 0), Ok(vec![]));
    assert_eq!(reports.tell(&mut cluster, 3, 70), Ok(vec![]));
    assert_eq!(reports.tell(&mut cluster, 1, 60), Ok(recovered(3, 70)));
}

#[test]
fn a_replica_that_may_be_starting_is_waited_for_but_not_for_ever() {
    for comes_back in [true, false] {
        let (mut cluster, mut reports) = (lost(), Reports(LogReports::default()));
        cluster.die(3);
        assert_eq!(reports.tell(&mut cluster, 1, 0), Ok(vec![]));
        assert_eq!(reports.tell(&mut cluster, 2, 0), Ok(vec![]), "3 may have more");
        if comes_back {
            cluster.restart(3, RecoveryVerdict::CrashedDurable);
            assert_eq!(reports.tell(&mut cluster, 3, 40), Ok(recovered(3, 40)));
        } else {
            cluster.now = cluster.now.plus_millis(30_000);
            assert_eq!(reports.tell(&mut cluster, 2, 0), Ok(recovered(1, 0)));
        }
    }
}

#[test]
fn a_partition_with_complete_replicas_is_not_recovered() {
    let mut cluster = Cluster::new(2);
    cluster.topic("t", 1, &[&[1, 2]]);
    let recover = |cluster: &Cluster| {
        cluster
            .replication()
            .recover_partition(&topic_partition("t", 0), &BTreeMap::new(), false)
            .expect_err("not lost")
    };
    assert_eq!(recover(&cluster), ElectionError::NotLost);
    cluster.set_isr("t", &[1]);
    cluster.die(1);
    assert_eq!(recover(&cluster).refusal(), Refusal::ElectionNotNeeded);
}

#[test]
fn an_unclean_election_happens_only_where_it_is_allowed() {
    let mut cluster = Cluster::new(2);
    cluster.topic("t", 1, &[&[1, 2]]);
    cluster.set_isr("t", &[1]);
    cluster.die(1);
    assert_eq!(state(&cluster.partition("t", 0)), (None, vec![], vec![1], vec![]));
    let none = cluster.replication().elect_leaderless();
    assert_eq!((none.records.len(), none.response), (0, 0));
    cluster.set_config(ConfigResource::BrokerDefault, UNCLEAN_LEADER_ELECTION_ENABLE, "true").expect("known");
    let result = cluster.replication().elect_leaderless();
    assert_eq!(cluster.commit(result), 1);
    let partition = cluster.partition("t", 0);
    assert_eq!(state(&partition), (Some(2), vec![2], vec![], vec![]));
    assert_eq!(partition.recovery, LeaderRecovery::Recovering);
    assert_eq!(
        partition.last_unclean_epoch, None,
        "nothing of metadata.version 2 is written below that level"
    );
}

/// A replica that was away during an unclean election learns from it that it may have to drop what was committed.
#[test]
fn the_last_unclean_election_is_remembered() {
    let mut cluster = Cluster::new(2);
    let levels =
        FeatureControl::new(&cluster.image, &cluster.config).bootstrap(klamm_types::QuorumId([1; 16]));
    cluster.commit(levels);
    cluster.topic("t", 1, &[&[1, 2]]);
    cluster.set_isr("t", &[1]);
    cluster.die(1);
    assert_eq!(cluster.partition("t", 0).last_unclean_epoch, None);
    assert_eq!(cluster.elect(ElectionKind::Unclean, "t"), Ok(()));
    let elected = cluster.partition("t", 0);
    assert_eq!((elected.leader, elected.last_unclean_epoch), (Some(b(2)), Some(elected.leader_epoch)));
    cluster.start(1);
    cluster.set_isr("t", &[2, 1]);
    cluster.die(2);
    let later = cluster.partition("t", 0);
    assert_eq!((later.leader, later.recovery), (Some(b(1)), LeaderRecovery::Recovered));
    assert!(later.leader_epoch > elected.leader_epoch);
    assert_eq!(later.last_unclean_epoch, elected.last_unclean_epoch, "a clean election forgets nothing");
}

#[test]
fn asked_for_elections_answer_each_partition() {
    use ElectionKind::{Preferred, Unclean};
    let mut cluster = Cluster::new(3);
    cluster.topic("t", 1, &[&[1, 2, 3]]);
    assert_eq!(cluster.elect(Preferred, "u"), Err(ElectionError::UnknownPartition));
    assert_eq!(cluster.elect(Preferred, "t"), Err(ElectionError::NotNeeded { leader: b(1) }));
    assert_eq!(cluster.elect(Unclean, "t"), Err(ElectionError::NotNeeded { leader: b(1) }));
    cluster.die(1);
    assert_eq!(cluster.elect(Preferred, "t"), Err(ElectionError::PreferredNotAvailable));
    cluster.start(1);
    assert_eq!(cluster.elect(Preferred, "t"), Err(ElectionError::PreferredNotAvailable), "it is not in sync");
    cluster.set_isr("t", &[2, 3, 1]);
    assert_eq!(cluster.elect(Preferred, "t"), Ok(()));
    assert_eq!(cluster.partition("t", 0).leader, Some(b(1)));
    (1..=3).for_each(|id| cluster.die(id));
    assert_eq!(cluster.elect(Unclean, "t"), Err(ElectionError::EligibleNotAvailable));
    let all = cluster.replication().elect_all_leaders(Unclean);
    assert_eq!(all.response, [(topic_partition("t", 0), Err(ElectionError::EligibleNotAvailable))]);
}

#[test]
fn the_balancer_waits_until_a_broker_has_settled_and_then_goes_slowly() {
    let mut cluster = Cluster::new(2);
    cluster.config.rebalance_moves_per_second = 2;
    cluster.topic("t", 1, &[&[1, 2][..]; 5]);
    cluster.die(1);
    cluster.start(1);
    let mut balancer = LeaderBalancer::new();
    let mut tick = |cluster: &mut Cluster, millis| {
        cluster.now = cluster.now.plus_millis(millis);
        let result = balancer.tick(&cluster.replication(), &cluster.config, cluster.now);
        cluster.commit(result)
    };
    assert_eq!(tick(&mut cluster, 0), 0);
    assert_eq!(tick(&mut cluster, 60_000), 0, "1 is not in sync");
    let mut request = cluster.proposal("t", &[2, 1]);
    for partition in 0..5 {
        request.proposals[0].partition = PartitionId(partition);
        cluster.alter(&request);
    }
    assert_eq!(tick(&mut cluster, 1_000), 0, "it has just become whole");
    assert_eq!(tick(&mut cluster, 29_999), 0);
    assert_eq!(tick(&mut cluster, 1), 0, "no time for a single move has passed");
    assert_eq!(tick(&mut cluster, 999), 2);
    assert_eq!(tick(&mut cluster, 1_000), 2);
    assert_eq!(tick(&mut cluster, 500), 1);
    assert_eq!(tick(&mut cluster, 1_000), 0);
    assert!((0..5).all(|partition| cluster.partition("t", partition).leader == Some(b(1))));
}
