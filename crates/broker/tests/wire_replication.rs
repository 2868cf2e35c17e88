//! Replication over sockets: the real fetchers, the real service, and connections that break.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod cluster;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, TOPIC, batch, options, until};
use klamm_broker::FetcherConfig;
use klamm_broker::partition::Acks;
use klamm_metadata::{ConfigResource, MetadataRecord, PartitionRegistration};
use klamm_pb::replication::v1 as pb;
use klamm_rpc::RpcError;
use klamm_types::{BrokerId, Offset, PartitionId};

const IDS: [i32; 3] = [1, 2, 3];

async fn three() -> Cluster {
    Cluster::wired(&IDS, FetcherConfig::default()).await
}

/// The bytes of a broker's whole log, as far as it is committed.
fn log_bytes(cluster: &Cluster, id: i32) -> Vec<u8> {
    let partition = cluster.partition(id);
    let mut bytes = Vec::new();
    let mut offset = partition.bounds().log_start_offset;
    while let Some(slice) = partition.read(&cluster::read_request(offset)).unwrap().outcome.slice {
        let read = slice.to_vec().unwrap();
        let mut batches = klamm_record::Batches::new(&read);
        while let Some(Ok(batch)) = batches.next() {
            offset = batch.header().next_offset();
        }
        bytes.extend_from_slice(&read[..batches.position()]);
    }
    bytes
}

fn assert_identical(cluster: &Cluster) {
    let first = log_bytes(cluster, 1);
    for id in &IDS[1..] {
        assert!(log_bytes(cluster, *id) == first, "the logs of brokers 1 and {id} differ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_copy_the_log_byte_for_byte() {
    let cluster = three().await;
    cluster.create_topic(&IDS, &[("min.insync.replicas", "3")]).await;
    for i in 0..50 {
        let appended = cluster.append(1, Acks::All, &[&format!("a{i}"), &format!("b{i}")]).await.unwrap();
        assert_eq!(appended.base_offset, Offset(2 * i));
    }
    cluster.until_committed(&IDS, 100).await;
    assert_identical(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_has_all_that_was_acknowledged_and_the_old_one_falls_into_line() {
    let mut cluster = three().await;
    cluster.create_topic(&IDS, &[("min.insync.replicas", "2")]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    let relay = cluster.wire.as_ref().unwrap().relay(1);
    relay.cut();
    cluster.partition(1).append(batch(&["lost"]), &options(Acks::Leader)).done().await.unwrap();
    cluster.elect(2, &[2, 3]).await;
    cluster.append(2, Acks::All, &["b"]).await.unwrap();
    relay.heal();
    cluster.until_isr(&IDS).await;
    cluster.append(2, Acks::All, &["c"]).await.unwrap();
    cluster.until_committed(&IDS, 3).await;
    for id in IDS {
        assert_eq!(cluster.read_all(id), ["a", "b", "c"], "broker {id}");
    }
    cluster.crash(2).await;
    cluster.elect(1, &[1, 3]).await;
    cluster.append(1, Acks::All, &["d"]).await.unwrap();
    cluster.start(2).await;
    cluster.until_isr(&IDS).await;
    cluster.until_committed(&IDS, 4).await;
    assert_identical(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_every_limit_still_moves() {
    let config = FetcherConfig { partition_bytes_max: 1000, ..FetcherConfig::default() };
    let cluster = Cluster::wired(&IDS, config).await;
    let settings = [("min.insync.replicas", "3"), ("max.message.bytes", "20000000")];
    cluster.create_topic(&IDS, &settings).await;
    let large = "x".repeat(5 << 20);
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.append(1, Acks::All, &[&large]).await.unwrap();
    cluster.append(1, Acks::All, &["b"]).await.unwrap();
    cluster.until_committed(&IDS, 3).await;
    assert_identical(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_anywhere_lose_and_repeat_nothing() {
    let cluster = three().await;
    cluster.create_topic(&IDS, &[("min.insync.replicas", "3")]).await;
    let relay = cluster.wire.as_ref().unwrap().relay(1);
    let filler = "y".repeat(20_000);
    let mut state: u64 = 42;
    let mut acknowledged = Vec::new();
    for round in 0..40 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        relay.cut_after(i64::try_from(state >> 33).unwrap() % 120_000);
        let values: Vec<_> = (0..4).map(|i| format!("{round}-{i}-{filler}")).collect();
        let partition = cluster.partition(1);
        let append = |value: &String| partition.append(batch(&[value]), &options(Acks::All));
        let pending: Vec<_> = values.iter().map(append).collect();
        for (appended, value) in pending.into_iter().zip(values) {
            appended.done().await.unwrap();
            acknowledged.push(value);
        }
    }
    assert!(relay.cuts() >= 20, "only {} connections broke", relay.cuts());
    relay.cut_after(i64::MAX);
    cluster.until_committed(&IDS, 160).await;
    for id in IDS {
        assert!(cluster.read_all(id) == acknowledged, "broker {id} has other records than were acknowledged");
    }
    assert_identical(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_partition_costs_nothing_on_the_wire() {
    let cluster = three().await;
    cluster.create_topic(&IDS, &[]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.until_committed(&IDS, 1).await;
    let relay = cluster.wire.as_ref().unwrap().relay(1);
    let mut quiet = (relay.bytes(), tokio::time::Instant::now());
    // Signs of life come every two seconds; fetches of a follower that polls would come more often than this.
    until("a silent wire", || {
        if relay.bytes() != quiet.0 {
            quiet = (relay.bytes(), tokio::time::Instant::now());
        }
        (quiet.1.elapsed() > Duration::from_millis(700)).then_some(())
    })
    .await;
    cluster.append(1, Acks::All, &["b"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_leader_is_noticed_and_its_orderly_end_is_no_death() {
    let mut cluster = three().await;
    cluster.create_topic(&IDS, &[("min.insync.replicas", "2")]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    let wire = Arc::clone(cluster.wire.as_ref().unwrap());
    wire.stop_serving(cluster.nodes[&1].attached.as_ref().unwrap()).await;
    cluster.elect(2, &[2, 3]).await;
    cluster.append(2, Acks::All, &["b"]).await.unwrap();
    assert_eq!(wire.broken(), [], "the end of a stream in good order");
    let epoch = cluster.image().cluster.broker(BrokerId(2)).unwrap().epoch;
    let started = tokio::time::Instant::now();
    cluster.crash(2).await;
    until("the report", || wire.broken().contains(&(BrokerId(2), epoch)).then_some(())).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_followers_delay_no_acknowledgement_of_others_and_catch_up() {
    let cluster = three().await;
    cluster.create_topic(&IDS, &[("min.insync.replicas", "1")]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.until_committed(&IDS, 1).await;
    cluster.fence(3, true).await;
    cluster.until_isr(&[1, 2]).await;
    cluster.fence(2, true).await;
    cluster.until_isr(&[1]).await;
    let relay = cluster.wire.as_ref().unwrap().relay(1);
    relay.set_rate(1 << 20);
    let value = "z".repeat(100_000);
    let before = relay.bytes();
    for _ in 0..20 {
        cluster.append(1, Acks::All, &[&value]).await.unwrap();
    }
    assert!(relay.bytes() - before < 3_500_000, "the followers keep up");
    relay.set_rate(0);
    cluster.fence(2, false).await;
    cluster.fence(3, false).await;
    cluster.until_isr(&IDS).await;
    cluster.until_committed(&IDS, 21).await;
    assert_identical(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_go_on_every_replica() {
    let cluster = three().await;
    cluster.create_topic(&IDS, &[]).await;
    for _ in 0..5 {
        cluster.append(1, Acks::All, &["a", "b"]).await.unwrap();
    }
    cluster.until_committed(&IDS, 10).await;
    let deleted = cluster.partition(1).delete_records(Some(Offset(5)), Duration::from_secs(10));
    assert_eq!(deleted.done().await.unwrap(), Offset(5));
    let starts: BTreeSet<_> = IDS.map(|id| cluster.partition(id).bounds().log_start_offset).into();
    assert_eq!(starts, BTreeSet::from([Offset(5)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_disk_refills_from_the_middle_of_a_batch() {
    let mut cluster = three().await;
    cluster.create_topic(&IDS, &[("min.insync.replicas", "2")]).await;
    for _ in 0..5 {
        cluster.append(1, Acks::All, &["a", "b", "c"]).await.unwrap();
    }
    cluster.until_committed(&IDS, 15).await;
    cluster.partition(1).delete_records(Some(Offset(7)), Duration::from_secs(10)).done().await.unwrap();
    cluster.fence(3, true).await;
    cluster.until_isr(&[1, 2]).await;
    cluster.crash(3).await;
    cluster.disks.insert(3, klamm_log::fs::MemoryFs::new());
    cluster.start(3).await;
    cluster.until_isr(&IDS).await;
    cluster.append(1, Acks::All, &["d"]).await.unwrap();
    cluster.until_committed(&IDS, 16).await;
    assert_eq!(cluster.partition(3).bounds().log_start_offset, Offset(7));
    assert_eq!(cluster.read_all(3), cluster.read_all(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttle_holds_up_those_who_are_not_in_sync_and_nobody_else() {
    let cluster = three().await;
    let settings = [("min.insync.replicas", "2"), ("leader.replication.throttled.replicas", "*")];
    cluster.create_topic(&IDS, &settings).await;
    let rate = |bytes: &str| MetadataRecord::ConfigChanged {
        resource: ConfigResource::Broker(BrokerId(1)),
        key: "leader.replication.throttled.rate".to_owned(),
        value: Some(bytes.to_owned()),
    };
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.fence(3, true).await;
    cluster.until_isr(&[1, 2]).await;
    cluster.publish(vec![rate("1")]).await;
    let value = "z".repeat(100_000);
    for _ in 0..10 {
        cluster.append(1, Acks::All, &[&value]).await.unwrap();
    }
    let behind = cluster.partition(3).bounds().log_end_offset;
    assert!(behind < Offset(8), "broker 3 is at {behind}, at one byte a second");
    cluster.publish(vec![rate("100000000")]).await;
    cluster.fence(3, false).await;
    cluster.until_isr(&IDS).await;
    cluster.until_committed(&IDS, 11).await;
    assert_identical(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_holds_its_throttled_fetches_and_sends_them_later() {
    let config = FetcherConfig { partition_bytes_max: 1000, ..FetcherConfig::default() };
    let cluster = Cluster::wired(&IDS, config).await;
    let settings = [("min.insync.replicas", "2"), ("follower.replication.throttled.replicas", "0:3")];
    cluster.create_topic(&IDS, &settings).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.until_committed(&IDS, 1).await;
    cluster.fence(3, true).await;
    cluster.until_isr(&[1, 2]).await;
    cluster.wire.as_ref().unwrap().set_follower_rate(Some(1));
    let value = "z".repeat(10_000);
    for _ in 0..10 {
        cluster.append(1, Acks::All, &[&value]).await.unwrap();
    }
    let behind = cluster.partition(3).bounds().log_end_offset;
    assert!(behind < Offset(8), "broker 3 is at {behind}, at one byte a second");
    cluster.wire.as_ref().unwrap().set_follower_rate(None);
    cluster.fence(3, false).await;
    cluster.until_isr(&IDS).await;
    cluster.until_committed(&IDS, 11).await;
    assert_identical(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let cluster = three().await;
    let wire = cluster.wire.as_ref().unwrap();
    let mut client = wire.client(1).await;
    let mut refusal = async |cluster_id: &str, to_broker: i32, from_broker: i32| {
        let opening = pb::FetchSessionOpening {
            cluster_id: cluster_id.to_owned(),
            from_broker,
            to_broker,
            partition_bytes_max: 1,
        };
        let request = pb::FetchRequest { opening: Some(opening), ..pb::FetchRequest::default() };
        client.fetch(tokio_stream::once(request)).await.err().map(RpcError::from)
    };
    assert!(matches!(refusal("another", 1, 2).await, Some(RpcError::ForeignCluster { .. })));
    assert!(matches!(refusal("test-cluster", 3, 2).await, Some(RpcError::WrongNode { .. })));
    assert!(matches!(refusal("test-cluster", -1, 2).await, Some(RpcError::Invalid { .. })));
    assert!(matches!(refusal("test-cluster", 1, -2).await, Some(RpcError::Invalid { .. })));
    assert_eq!(refusal("test-cluster", 1, 2).await, None);
    let unopened = client.fetch(tokio_stream::once(pb::FetchRequest::default())).await.err();
    assert!(matches!(unopened.map(RpcError::from), Some(RpcError::Invalid { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_share_the_streams_and_none_starves() {
    let config = FetcherConfig { streams_per_leader: 2, ..FetcherConfig::default() };
    let cluster = Cluster::wired(&IDS, config).await;
    cluster.create_topic(&IDS, &[("min.insync.replicas", "3")]).await;
    let replicas: Vec<_> = IDS.map(BrokerId).into();
    let created = |number| MetadataRecord::PartitionCreated {
        topic: TOPIC,
        partition: PartitionId(number),
        registration: PartitionRegistration::new(replicas.clone(), replicas.clone()),
    };
    cluster.publish((1..100).map(created).collect()).await;
    let leader = |number| cluster.nodes[&1].manager.partition(TOPIC, PartitionId(number)).unwrap();
    // One partition has far more to send than all others together.
    let hot = leader(0);
    let value = "h".repeat(500_000);
    let flood: Vec<_> = (0..20).map(|_| hot.append(batch(&[&value]), &options(Acks::All))).collect();
    let others: Vec<_> =
        (1..100).map(|number| leader(number).append(batch(&["a"]), &options(Acks::All))).collect();
    for appended in others.into_iter().chain(flood) {
        appended.done().await.unwrap();
    }
    for number in 1..100 {
        for id in IDS {
            let partition = cluster.nodes[&id].manager.partition(TOPIC, PartitionId(number)).unwrap();
            until("a high watermark", || (partition.bounds().high_watermark == Offset(1)).then_some(()))
                .await;
        }
    }
    cluster.until_committed(&IDS, 20).await;
    assert_identical(&cluster);
}
