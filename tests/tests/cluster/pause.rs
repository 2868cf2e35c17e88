//! A broker is held for a while, as a virtual machine or an overloaded host may.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{ClientOptions, Connection};
use klamm_protocol::messages::ProduceRequest;
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::{ApiKey, ErrorCode, Records};
use klamm_record::{BatchBuilder, Compression, NewRecord};
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_types::Timestamp;
use tokio::time::{Instant, sleep};

use super::views::{Viewer, agreed};
use super::{SECOND, broker, create, follower, three};

/// Long enough for a session that is refreshed too rarely to end, and far shorter than the session's timeout.
const SHORT: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_held_for_a_moment_keeps_its_leaderships() {
    pulses(5, Duration::ZERO, Pulse::is_held).await;
}

#[ignore = "takes an hour, and root to starve others"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_held_or_starved_again_and_again_keeps_its_leaderships() {
    let kind = |number| if number % 2 == 0 { Pulse::Held } else { Pulse::Starved };
    pulses(3_600, 3_600 * SECOND, kind).await;
}

/// What happens to a broker for a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pulse {
    /// Its process is stopped.
    Held,
    /// Nothing else on the machine runs: real-time processes have all processors.
    Starved,
}

impl Pulse {
    const fn is_held(_: usize) -> Self {
        Self::Held
    }
}

/// Takes all processors for a moment. Whoever waits for the end is starved, too, so each of them ends by itself.
fn starve() -> Vec<Child> {
    let seconds = SHORT.as_secs_f64();
    let busy = format!("import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass");
    let processors = std::thread::available_parallelism().unwrap().get();
    let hog = || {
        let mut command = Command::new("chrt");
        command.args(["--fifo", "1", "python3", "-c", &busy]).stdin(Stdio::null()).spawn().unwrap()
    };
    std::iter::repeat_with(hog).take(processors).collect()
}

/// So many pulses at least, and for so long.
async fn pulses(count: usize, time: Duration, pulse: impl Fn(usize) -> Pulse) {
    let mut cluster = Cluster::start(&three()).await.unwrap();
    create(&cluster.admin(), "orders", 6).await;
    let before = agreed(&cluster).await;
    let active = cluster.active_controller().await.unwrap();
    let held = follower(&cluster).await;
    let admin = klamm_client::Admin::new(cluster.client_at(active));
    let started = Instant::now();
    for number in (0..).take_while(|number| *number < count || started.elapsed() < time) {
        if number % 300 == 299 {
            let minutes = started.elapsed().as_secs() / 60;
            println!("after {number} pulses in {minutes} minutes nobody was fenced");
        }
        let pulse = pulse(number);
        let hogs = match pulse {
            Pulse::Held => {
                cluster.node(held).pause().unwrap();
                Vec::new()
            }
            Pulse::Starved => starve(),
        };
        let end = Instant::now() + SHORT;
        while Instant::now() < end {
            let brokers = admin.describe_cluster().await.unwrap().brokers;
            let fenced = brokers.iter().find(|description| description.is_fenced);
            assert_eq!(fenced, None, "a moment is no reason to fence");
            sleep(Duration::from_millis(20)).await;
        }
        if pulse == Pulse::Held {
            cluster.node(held).resume().unwrap();
        }
        for mut hog in hogs {
            assert!(hog.wait().unwrap().success(), "only root may starve others");
        }
        sleep(SHORT).await;
    }
    let after = agreed(&cluster).await;
    assert_eq!(after.brokers, before.brokers);
    for (name, (_, partitions)) in &before.topics {
        for (index, partition) in partitions {
            let now = &after.topics[name].1[index];
            assert_eq!(
                (now.leader_id, now.leader_epoch),
                (partition.leader_id, partition.leader_epoch),
                "{name}-{index}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_held_beyond_its_session_is_fenced_and_acknowledges_nothing_as_leader() {
    let mut cluster = Cluster::start(&three().with("broker.session.timeout.ms", "1500")).await.unwrap();
    create(&cluster.admin(), "orders", 6).await;
    let view = agreed(&cluster).await;
    let active = cluster.active_controller().await.unwrap();
    let held = follower(&cluster).await;
    let (topic_id, partitions) = view.topics["orders"].clone();
    let led = partitions.values().find(|partition| partition.leader_id == i32::from(held)).unwrap().clone();

    let stale = Connection::open(cluster.endpoint(held), &ClientOptions::default()).await.unwrap();
    cluster.node(held).pause().unwrap();
    // It lies in the socket until the broker goes on, and is the first thing that it then finds.
    let version = stale.newest(ApiKey::Produce, i16::MAX).unwrap();
    let request = produce(topic_id, led.partition_index);
    let answer = stale.start(&request, version, 60 * SECOND).await.unwrap();

    let viewer = Viewer::open(cluster.endpoint(active)).await.unwrap();
    wait_for("another leader", 30 * SECOND, async || {
        let view = viewer.look().await?;
        let now = &view.topics["orders"].1[&led.partition_index];
        if now.leader_id >= 0 && now.leader_id != led.leader_id { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await
    .unwrap();
    let admin = klamm_client::Admin::new(cluster.client_at(active));
    let brokers = admin.describe_cluster().await.unwrap().brokers;
    let description = brokers.iter().find(|description| description.id == broker(held));
    assert!(description.is_none_or(|description| description.is_fenced), "{brokers:?}");

    cluster.node(held).resume().unwrap();
    // That it hangs up is as good as that it says so.
    if let Ok(answer) = answer.wait().await {
        let partition = &answer.responses[0].partition_responses[0];
        assert_ne!(partition.error_code, ErrorCode::None.code(), "acknowledged by a leader of the past");
    }
    cluster.wait_ready().await.unwrap();
    super::broker_kill::all_in_sync(&cluster).await;
}

/// One record, for which the leader's word is enough.
fn produce(topic_id: klamm_protocol::Uuid, partition: i32) -> ProduceRequest {
    let mut batch = BatchBuilder::new(Compression::NONE);
    batch.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(b"stale"))).unwrap();
    let records = Records::from(Bytes::from(batch.build().unwrap()));
    let partition = PartitionProduceData { index: partition, records: Some(records) };
    let topic = TopicProduceData { name: "orders".to_owned(), topic_id, partition_data: vec![partition] };
    ProduceRequest { transactional_id: None, acks: 1, timeout_ms: 5_000, topic_data: vec![topic] }
}
