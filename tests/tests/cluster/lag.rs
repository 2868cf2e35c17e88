//! What an operator sees of a cluster that ails: followers that lag, partitions that nobody leads, elections.

use std::process::Stdio;

use bytes::Bytes;
use klamm_client::{
    Acks, ConfigOperation, ConfigResource, Endpoint, NewTopic, OwnedRecord, Producer, ProducerOptions,
};
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::node_process::binary;
use klamm_tests::requests::admin_page;
use klamm_types::{Timestamp, TopicPartition};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{SECOND, broker, create, create_with, three};

const RECORDS: u64 = 12;

/// Samples of a node by name, as `/metrics` tells them.
async fn metrics(at: &Endpoint) -> Result<Vec<(String, u64)>, String> {
    let told = admin_page(at, "/metrics").await.map_err(|error| error.to_string())?;
    let samples = told.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Ok(samples.filter_map(sample).collect())
}

/// What a node tells under this name.
pub(super) async fn metric(at: &Endpoint, name: &str) -> Result<u64, String> {
    let found = metrics(at).await?.into_iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value).ok_or_else(|| format!("no {name}"))
}

/// What `klamm topic describe` prints when it begins at one node.
async fn describe(at: &Endpoint, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(binary().map_err(|error| error.to_string())?);
    command.args(["topic", "describe", "--bootstrap-server", &at.to_string()]).args(args);
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{output:?}"))
    }
}

/// What `klamm topic describe` tells of the followers of the only partition of a topic.
async fn described_lag(at: &Endpoint, topic: &str) -> Result<Vec<Value>, String> {
    let told = describe(at, &[topic, "--json"]).await?;
    let row: Value = serde_json::from_str(&told).map_err(|error| error.to_string())?;
    row["lag"].as_array().cloned().ok_or_else(|| format!("no lag: {row}"))
}

async fn produce(cluster: &Cluster, leader: u16, partition: &TopicPartition) {
    let options = ProducerOptions { acks: Acks::Leader, ..ProducerOptions::default() };
    let producer = Producer::new(cluster.client_at(leader), options);
    for number in 0..RECORDS {
        let value = Some(Bytes::from(number.to_string()));
        let timestamp = Timestamp(1_700_000_000_000);
        let record = OwnedRecord { timestamp, key: None, value, headers: Vec::new() };
        producer.send(partition, record).await.unwrap().wait().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_held_lags_until_it_goes_on() {
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let admin = cluster.admin();
    let orders = create(&admin, "orders", 1).await;
    let topic = admin.wait_for_leaders("orders").await.unwrap();
    let leader = u16::try_from(topic.partitions[0].leader.unwrap().0).unwrap();
    let active = cluster.active_controller().await.unwrap();
    let held = cluster.ids().find(|id| ![leader, active].contains(id)).unwrap();
    let other = cluster.ids().find(|id| ![leader, held].contains(id)).unwrap();
    let (at, admin_at) = (cluster.endpoint(leader), cluster.admin_endpoint(leader));
    let nobody_lags = async || {
        for name in ["records_max", "milliseconds_max"] {
            let value = metric(&admin_at, &format!("klamm_broker_replica_lag_{name}")).await?;
            if value > 0 {
                return Err(format!("{name} is {value}"));
            }
        }
        let samples = metrics(&admin_at).await?;
        let named: Vec<_> =
            samples.iter().filter(|(name, _)| name.contains("lag") && name.contains('{')).collect();
        let lag = described_lag(&at, "orders").await?;
        let all_there = lag.len() == 2 && lag.iter().all(|row| row["records"] == 0 && row["ms"] == 0);
        if named.is_empty() && all_there { Ok(()) } else { Err(format!("{named:?}, {lag:?}")) }
    };
    wait_for("nobody lags", 30 * SECOND, nobody_lags).await.unwrap();

    cluster.node(held).pause().unwrap();
    produce(&cluster, leader, &orders[0]).await;
    let labels = format!("{{topic=\"orders\",partition=\"0\",replica=\"{held}\"}}");
    wait_for("the metrics name the follower", 30 * SECOND, async || {
        let records = metric(&admin_at, &format!("klamm_broker_replica_lag_records{labels}")).await?;
        let millis = metric(&admin_at, &format!("klamm_broker_replica_lag_milliseconds{labels}")).await?;
        let lagging = metric(&admin_at, "klamm_broker_lagging_replicas").await?;
        let found = (records, millis > 1_000, lagging);
        if found == (RECORDS, true, 1) { Ok(()) } else { Err(format!("{found:?}, {millis} ms")) }
    })
    .await
    .unwrap();
    assert_eq!(metric(&admin_at, "klamm_broker_replica_lag_records_max").await, Ok(RECORDS));
    assert_eq!(metric(&cluster.admin_endpoint(other), "klamm_broker_lagging_replicas").await, Ok(0));
    let lag = described_lag(&at, "orders").await.unwrap();
    let of = |id: u16| lag.iter().find(|row| row["replica"] == id).unwrap();
    assert_eq!(of(held)["records"], RECORDS, "{lag:?}");
    assert!(of(held)["ms"].as_u64().unwrap() > 1_000, "{lag:?}");
    assert_eq!(of(other), &json!({ "replica": other, "records": 0, "ms": 0 }));
    let text = describe(&at, &["orders"]).await.unwrap();
    assert!(text.contains(&format!(" {held}: {RECORDS} records, ")), "{text}");

    cluster.node(held).resume().unwrap();
    wait_for("nobody lags any more", 30 * SECOND, nobody_lags).await.unwrap();
    assert!(describe(&at, &["orders", "--under-min-isr"]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_without_a_leader_and_elections_are_counted() {
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let admin = cluster.admin();
    create(&admin, "orders", 3).await;
    create_with(&admin, "single", 1, 1).await;
    let topic = admin.wait_for_leaders("single").await.unwrap();
    let killed = u16::try_from(topic.partitions[0].leader.unwrap().0).unwrap();
    let survivors: Vec<_> = cluster.ids().filter(|id| *id != killed).collect();
    let shown = async |id: u16| -> Result<[u64; 3], String> {
        let at = cluster.admin_endpoint(id);
        Ok([
            metric(&at, "klamm_controller_offline_partitions").await?,
            metric(&at, "klamm_controller_leader_elections_total").await?,
            metric(&at, "klamm_controller_unclean_leader_elections_total").await?,
        ])
    };
    let led = admin.wait_for_leaders("orders").await.unwrap().partitions;
    let led = led.iter().filter(|partition| partition.leader == Some(super::broker(killed))).count() as u64;
    assert!(led > 0, "three partitions have leaders on three brokers");
    let mut before = Vec::new();
    for id in &survivors {
        before.push(shown(*id).await.unwrap()[1]);
    }
    assert_eq!(shown(survivors[0]).await.unwrap()[0], 0);

    cluster.node(killed).kill().unwrap();
    for (id, before) in survivors.iter().zip(before) {
        let at = cluster.admin_endpoint(*id);
        wait_for("the controller shows what happened", 30 * SECOND, async || {
            let offline = metric(&at, "klamm_controller_offline_partitions").await?;
            let elections = metric(&at, "klamm_controller_leader_elections_total").await?;
            let found = (offline, elections - before);
            if found == (1, led) { Ok(()) } else { Err(format!("{found:?}, of {led}")) }
        })
        .await
        .unwrap();
        assert_eq!(metric(&at, "klamm_controller_unclean_leader_elections_total").await, Ok(0));
        assert_eq!(metric(&at, "klamm_controller_fenced_brokers").await, Ok(1));
    }
    let at = cluster.endpoint(survivors[0]);
    let text = describe(&at, &["--unavailable"]).await.unwrap();
    assert!(text.contains("1 without a leader") && text.contains("NO LEADER"), "{text}");
    assert!(text.contains("single") && !text.contains("orders"), "{text}");
}

/// Partitions that node 1 leads and that are short of replicas, at their minimum, below it; in-sync sets there that shrank
/// and grew.
async fn shortage(cluster: &Cluster) -> Result<[u64; 5], String> {
    let mut counts = [0; 5];
    let names = [
        "under_replicated_partitions",
        "at_min_isr_partitions",
        "under_min_isr_partitions",
        "isr_shrinks_total",
        "isr_expands_total",
    ];
    for (count, name) in counts.iter_mut().zip(names) {
        *count = metric(&cluster.admin_endpoint(1), &format!("klamm_broker_{name}")).await?;
    }
    Ok(counts)
}

async fn until_short(cluster: &Cluster, expected: [u64; 5]) {
    wait_for("node 1 counts what it leads", 60 * SECOND, async || {
        let found = shortage(cluster).await?;
        // A node that stood still for a while may have left, and come back, once more.
        let is_so = found[..3] == expected[..3] && found[3] >= expected[3] && found[4] >= expected[4];
        if is_so { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_short_of_replicas_is_counted_where_it_is_led() {
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let admin = cluster.admin();
    let assignment = [[1, 2, 3], [1, 3, 2]].map(|replicas| replicas.map(broker).to_vec()).to_vec();
    let topic = NewTopic { assignment, ..NewTopic::named("orders") };
    for (name, result) in admin.create_topics(&[topic], false).await.unwrap() {
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    admin.wait_for_leaders("orders").await.unwrap();
    until_short(&cluster, [0, 0, 0, 0, 0]).await;
    cluster.node(3).kill().unwrap();
    until_short(&cluster, [2, 2, 0, 2, 0]).await;
    let minimum = ("min.insync.replicas".to_owned(), ConfigOperation::Set("3".to_owned()));
    admin.alter_configs(&ConfigResource::Topic("orders".to_owned()), &[minimum]).await.unwrap();
    until_short(&cluster, [2, 0, 2, 2, 0]).await;
    cluster.node(3).restart().unwrap();
    cluster.wait_ready().await.unwrap();
    until_short(&cluster, [0, 2, 0, 2, 2]).await;
}
