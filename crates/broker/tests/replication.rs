//! Replica managers that replicate to one another.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, LAG_MAX_MS, batch, options, sequenced, until};
use klamm_broker::partition::{
    Acks, AppendError, AppendFailure, DeletionError, DeletionFailure, Interest, NotServing, OffsetQuery,
    ReadIsolation, WakeUp,
};
use klamm_broker::replica_manager::ReplicaLags;
use klamm_types::{BrokerId, LeaderEpoch, Offset};

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_by_all_is_on_every_disk() {
    let mut cluster = Cluster::of(&[1, 2, 3]).await;
    cluster.create_topic(&[1, 2, 3], &[("min.insync.replicas", "3")]).await;
    for i in 0..20 {
        let appended = cluster.append(1, Acks::All, &[&format!("v{i}")]).await.unwrap();
        assert_eq!(appended.base_offset, Offset(i));
    }
    for id in [1, 2, 3] {
        cluster.crash(id).await;
    }
    for id in [1, 2, 3] {
        cluster.start(id).await;
    }
    for id in [1, 2, 3] {
        assert_eq!(cluster.partition(id).bounds().log_end_offset, Offset(20), "a power cut of all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_hold_what_the_leader_has_and_know_what_is_committed() {
    let cluster = Cluster::of(&[1, 2, 3]).await;
    cluster.create_topic(&[1, 2, 3], &[]).await;
    cluster.append(1, Acks::All, &["a", "b"]).await.unwrap();
    cluster.append(1, Acks::Leader, &["c"]).await.unwrap();
    cluster.until_committed(&[1, 2, 3], 3).await;
    for id in [1, 2, 3] {
        assert_eq!(cluster.read_all(id), ["a", "b", "c"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_has_all_that_was_acknowledged_and_the_old_one_falls_into_line() {
    let mut cluster = Cluster::of(&[1, 2, 3]).await;
    cluster.create_topic(&[1, 2, 3], &[("min.insync.replicas", "2")]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.network.cut(1);
    let orphan = cluster.partition(1).append(batch(&["lost"]), &options(Acks::Leader));
    orphan.done().await.unwrap();
    let waiting = cluster.partition(1).append(batch(&["unknown"]), &options(Acks::All));
    cluster.elect(2, &[2, 3]).await;
    let error = waiting.done().await.unwrap_err();
    assert!(
        matches!(
            error,
            AppendFailure::Replica(AppendError::LeadershipLost { leader: Some(BrokerId(2)), .. })
        ),
        "{error}"
    );
    cluster.append(2, Acks::All, &["b"]).await.unwrap();
    cluster.network.heal(1);
    cluster.until_isr(&[1, 2, 3]).await;
    cluster.append(2, Acks::All, &["c"]).await.unwrap();
    cluster.until_committed(&[1, 2, 3], 3).await;
    for id in [1, 2, 3] {
        assert_eq!(cluster.read_all(id), ["a", "b", "c"], "broker {id}");
    }
    let refused = cluster.append(1, Acks::Leader, &["d"]).await.unwrap_err();
    assert!(matches!(refused, AppendFailure::Replica(AppendError::NotLeader { .. })), "{refused}");
    cluster.crash(2).await;
    cluster.elect(1, &[1, 3]).await;
    cluster.append(1, Acks::All, &["d"]).await.unwrap();
    cluster.start(2).await;
    cluster.until_isr(&[1, 2, 3]).await;
    cluster.until_committed(&[2], 4).await;
    assert_eq!(cluster.read_all(2), ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_falls_silent_leaves_the_set_and_comes_back() {
    let cluster = Cluster::of(&[1, 2, 3]).await;
    cluster.create_topic(&[1, 2, 3], &[]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.network.cut(3);
    let started = tokio::time::Instant::now();
    cluster.append(1, Acks::All, &["b"]).await.unwrap();
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(LAG_MAX_MS.unsigned_abs() / 2), "{waited:?}");
    cluster.until_isr(&[1, 2]).await;
    let metrics = cluster.nodes[&1].manager.metrics();
    assert!(metrics.isr_shrinks.get() >= 1);
    let expansions = metrics.isr_expands.get();
    assert_eq!(cluster.nodes[&1].manager.gauges().under_replicated, 1);
    cluster.network.heal(3);
    cluster.until_isr(&[1, 2, 3]).await;
    until("the expansion is counted", || (metrics.isr_expands.get() > expansions).then_some(())).await;
    until("all are in sync", || (cluster.nodes[&1].manager.gauges().under_replicated == 0).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_tells_how_far_each_follower_is_behind() {
    let cluster = Cluster::of(&[1, 2, 3]).await;
    cluster.create_topic(&[1, 2, 3], &[]).await;
    cluster.append(1, Acks::All, &["a", "b"]).await.unwrap();
    let (manager, partition) = (&cluster.nodes[&1].manager, cluster.partition(1));
    until("all followers hold all", || {
        let view = partition.leader_view().unwrap();
        view.followers.iter().all(|follower| follower.end_offset == Some(Offset(2))).then_some(())
    })
    .await;
    assert_eq!(manager.replica_lags(0, 10), ReplicaLags::default());

    cluster.network.cut(3);
    cluster.append(1, Acks::Leader, &["c"]).await.unwrap();
    cluster.append(1, Acks::Leader, &["d"]).await.unwrap();
    let lags = until("the follower lags for 50 ms", || {
        Some(manager.replica_lags(50, 10)).filter(|lags| lags.lagging == 1 && lags.millis_max < 10_000)
    })
    .await;
    assert_eq!((lags.records_max, lags.worst.len()), (2, 1));
    let worst = &lags.worst[0];
    assert_eq!((worst.broker, worst.lag.records, worst.lag.millis), (BrokerId(3), 2, lags.millis_max));
    assert!(lags.millis_max > 50);
    assert!(manager.replica_lags(50, 0).worst.is_empty());
    let view = until("the silent follower leaves the set", || {
        let view = partition.leader_view().unwrap();
        view.followers.iter().any(|follower| !follower.is_in_sync).then_some(view)
    })
    .await;
    let ends: Vec<_> = view.followers.iter().map(|f| (f.broker.0, f.end_offset, f.is_in_sync)).collect();
    assert_eq!(ends, [(2, Some(Offset(4)), true), (3, Some(Offset(2)), false)]);
    let silent = cluster.partition(2).leader_view().unwrap_err();
    assert!(matches!(silent, NotServing::NotLeader { leader: Some(BrokerId(1)), .. }), "{silent}");

    cluster.network.heal(3);
    until("nobody lags", || (manager.replica_lags(0, 10) == ReplicaLags::default()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_follower_leaves_the_set_at_once() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[]).await;
    cluster.network.cut(2);
    cluster.fence(2, true).await;
    cluster.until_isr(&[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_in_sync_replicas_refuse_an_append() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[("min.insync.replicas", "2")]).await;
    cluster.network.cut(2);
    cluster.fence(2, true).await;
    cluster.until_isr(&[1]).await;
    until("the leader knows", || (cluster.partition(1).role().in_sync_replicas.len() == 1).then_some(()))
        .await;
    let error = cluster.append(1, Acks::All, &["a"]).await.unwrap_err();
    assert!(error.is_definite());
    assert!(
        matches!(error, AppendFailure::Replica(AppendError::NotEnoughReplicas { in_sync: 1, required: 2 })),
        "{error}"
    );
    cluster.set("min.insync.replicas", "1").await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
}

/// A client that had more under way to two leaders than a log remembers cannot be told an offset, but that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_forgotten_is_acknowledged_once_it_is_committed() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[]).await;
    let append = |acks, sequence| cluster.partition(1).append(sequenced(sequence), &options(acks));
    append(Acks::All, 0).done().await.unwrap();
    cluster.network.cut(2);
    for sequence in 1..8 {
        append(Acks::Leader, sequence).done().await.unwrap();
    }
    let committed = append(Acks::All, 0).done();
    let not_committed = append(Acks::All, 2);
    assert!(not_committed.known().is_none());
    cluster.network.heal(2);
    for pending in [not_committed.done().await, committed.await] {
        assert!(matches!(pending, Err(AppendFailure::Forgotten)), "{pending:?}");
    }
    assert!(cluster.partition(1).bounds().high_watermark >= Offset(3), "what was not committed is no news");
    assert_eq!(append(Acks::All, 3).done().await.unwrap().base_offset, Offset(3));
    let early = append(Acks::All, 9).done().await.unwrap_err();
    assert!(matches!(early, AppendFailure::Log(_)), "{early}");
    cluster.until_committed(&[1, 2], 8).await;
    assert_eq!(cluster.read_all(1), ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

/// What is missing may be under way to the leader before.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_has_a_producer_fill_a_gap_first() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[]).await;
    let append = async |id: i32, sequence| {
        cluster.partition(id).append(sequenced(sequence), &options(Acks::All)).done().await
    };
    append(1, 0).await.unwrap();
    let out_of_order = |error: &AppendFailure| matches!(error, AppendFailure::Log(klamm_log::AppendError::Producer(error)) if error.is_gap());
    let error = append(1, 2).await.unwrap_err();
    assert!(out_of_order(&error), "nobody else has led: {error}");
    cluster.elect(2, &[1, 2]).await;
    let error = append(2, 2).await.unwrap_err();
    assert!(matches!(error, AppendFailure::Early(_)) && error.is_definite(), "{error}");
    append(2, 1).await.unwrap();
    append(2, 2).await.unwrap();
    // It is not there after a while: it will not come.
    let started = tokio::time::Instant::now();
    while !out_of_order(&append(2, 9).await.unwrap_err()) {
        assert!(started.elapsed() < Duration::from_secs(20), "a gap counts as one that closes for good");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = append(2, 0).await.map(|appended| appended.base_offset);
    assert_eq!(error.unwrap(), Offset(0), "sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_woken_by_what_is_committed() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[]).await;
    let partition = cluster.partition(1);
    let wake_up = WakeUp::new();
    let watch = partition.watch(Interest::Committed, &wake_up);
    let reader = tokio::spawn({
        let (partition, wake_up) = (partition.clone(), wake_up.clone());
        async move {
            loop {
                let values = cluster::read_from(&partition, Offset::ZERO);
                if !values.is_empty() {
                    return values;
                }
                wake_up.woken().await;
            }
        }
    });
    cluster.append(1, Acks::Leader, &["a"]).await.unwrap();
    let values = tokio::time::timeout(Duration::from_secs(10), reader).await.unwrap().unwrap();
    assert_eq!(values, ["a"]);
    drop(watch);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_deleted_on_every_replica() {
    let mut cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[]).await;
    cluster.append(1, Acks::All, &["a", "b", "c"]).await.unwrap();
    cluster.append(1, Acks::All, &["d"]).await.unwrap();
    let timeout = Duration::from_secs(10);
    let beyond = cluster.partition(1).delete_records(Some(Offset(9)), timeout).done().await;
    let out_of_range = DeletionError::OffsetOutOfRange { offset: Offset(9), high_watermark: Offset(4) };
    assert_eq!(beyond, Err(DeletionFailure::Replica(out_of_range)));
    let start = cluster.partition(1).delete_records(Some(Offset(2)), timeout).done().await.unwrap();
    assert_eq!(start, Offset(2));
    for id in [1, 2] {
        assert_eq!(cluster.partition(id).bounds().log_start_offset, Offset(2));
        assert_eq!(cluster.read_all(id), ["c", "d"]);
    }
    // A replica that is new starts within a batch, as the leader's log does.
    cluster.disks.insert(3, klamm_log::fs::MemoryFs::new());
    cluster.start(3).await;
    cluster.change(|partition| partition.replicas.push(BrokerId(3))).await;
    cluster.until_isr(&[1, 2, 3]).await;
    cluster.until_committed(&[3], 4).await;
    assert_eq!(cluster.partition(3).bounds().log_start_offset, Offset(2));
    assert_eq!(cluster.read_all(3), ["c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_is_full_goes_on_once_there_is_room() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    let disk = &cluster.disks[&2];
    disk.set_capacity(Some(disk.space_used()));
    let large = "x".repeat(64 * 1024);
    cluster.append(1, Acks::All, &[&large]).await.unwrap();
    cluster.until_isr(&[1]).await;
    disk.set_capacity(None);
    cluster.until_isr(&[1, 2]).await;
    cluster.until_committed(&[2], 2).await;
    assert_eq!(cluster.read_all(2), ["a", &large]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_listed_by_name_time_and_epoch() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[]).await;
    cluster.append(1, Acks::All, &["a", "b"]).await.unwrap();
    cluster.elect(2, &[1, 2]).await;
    cluster.append(2, Acks::All, &["c"]).await.unwrap();
    let partition = cluster.partition(2);
    let list = |query| partition.list_offset(query, ReadIsolation::ReadUncommitted, None).unwrap();
    let earliest = list(OffsetQuery::Earliest).unwrap();
    assert_eq!((earliest.offset, earliest.leader_epoch), (Offset(0), LeaderEpoch(0)));
    let latest = list(OffsetQuery::Latest).unwrap();
    assert_eq!((latest.offset, latest.leader_epoch), (Offset(3), LeaderEpoch(1)));
    let newest = list(OffsetQuery::MaxTimestamp).unwrap();
    assert_eq!(list(OffsetQuery::At(newest.timestamp)).unwrap().timestamp, newest.timestamp);
    assert_eq!(list(OffsetQuery::At(newest.timestamp.plus_millis(1))), None);
    assert_eq!(list(OffsetQuery::LatestTiered), None);
    let ends = |epoch| partition.epoch_end_offset(LeaderEpoch(epoch), None).unwrap();
    assert_eq!(ends(0).map(|end| (end.epoch, end.end_offset)), Some((LeaderEpoch(0), Offset(2))));
    assert_eq!(ends(1).map(|end| (end.epoch, end.end_offset)), Some((LeaderEpoch(1), Offset(3))));
    assert_eq!(ends(2), None);
    assert!(cluster.partition(1).epoch_end_offset(LeaderEpoch(0), None).is_err(), "only the leader tells");
    assert!(partition.epoch_end_offset(LeaderEpoch(0), Some(LeaderEpoch(0))).is_err(), "a fenced epoch");
}
