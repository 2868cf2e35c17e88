//! What 100,000 partitions cost a quorum: figures for `docs/benchmarks.md`, run by hand on an idle machine.

use std::time::Duration;

use klamm_control::{ControlConfig, LeaderBalancer, ReplicationControl};
use klamm_controller::{ControllerOptions, RaftTiming};
use klamm_metadata::MetadataImage;
use klamm_pb::controller::v1 as pb;
use klamm_types::{Offset, Timestamp};
use tokio::time::Instant;

use crate::failover::report;
use crate::fixture::*;

const CONTROLLERS: i32 = 3;
const BROKERS: i32 = 6;
const TOPICS: usize = 1_000;
const PARTITIONS_PER_TOPIC: usize = 100;
const TOPICS_PER_REQUEST: usize = 10;
const FAILOVERS: usize = 20;

/// A snapshot comes soon after the last topic, and segments are small enough for the log to be purged behind it.
fn options(options: &mut ControllerOptions) {
    options.timing = RaftTiming::default();
    options.snapshot_entries = (TOPICS / TOPICS_PER_REQUEST + 50) as u64;
    options.segment_bytes = 1 << 20;
    // The brokers here are threads beside builds: what is measured is not when they are taken for dead.
    options.control.session_timeout_ms = 60_000;
    options.control.session_timeout_max_ms = 60_000;
}

/// Memory of this process that is in RAM, in kB.
fn resident_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

fn create_topics(first: usize) -> pb::submit_request::Change {
    let topic = |number: usize| pb::NewTopic {
        name: format!("a-topic-with-a-name-of-usual-length-{number:06}"),
        partitions: PARTITIONS_PER_TOPIC.try_into().unwrap(),
        replication_factor: 3,
        ..pb::NewTopic::default()
    };
    let topics = (first..first + TOPICS_PER_REQUEST).map(topic).collect();
    pb::submit_request::Change::CreateTopics(pb::CreateTopics { topics, validate_only: false })
}

/// Creates every topic, one request after the other; the time that each took, and the last offset.
fn create_all(cluster: &Cluster) -> (Vec<Duration>, Offset) {
    let mut times = Vec::new();
    let mut last = Offset(-1);
    for first in (0..TOPICS).step_by(TOPICS_PER_REQUEST) {
        let started = Instant::now();
        let response = cluster.submit(create_topics(first)).unwrap();
        times.push(started.elapsed());
        let Some(pb::submit_response::Outcome::CreateTopics(outcome)) = response.outcome else { panic!() };
        assert_eq!(outcome.topics.len(), TOPICS_PER_REQUEST);
        assert!(outcome.topics.iter().all(|topic| topic.refusal.is_none()), "{:?}", outcome.topics);
        last = Offset(response.applied.unwrap().offset);
    }
    (times, last)
}

impl Cluster {
    /// Waits until every node has applied `offset`.
    fn wait_for_all(&self, offset: Offset) {
        for id in self.nodes.keys() {
            self.wait_for(*id, |status| status.is_ready && status.committed_end_offset > offset);
        }
    }

    /// The files of a node's log whose names end so, with their sizes.
    fn files(&self, id: i32, suffix: &str) -> Vec<(String, u64)> {
        let directory = self.real_directory(id).unwrap().join("__cluster_metadata-0");
        let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
        let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry));
        // A file that is removed meanwhile is not there.
        let sized = named.filter_map(|(name, entry)| Some((name, entry.metadata().ok()?.len())));
        let mut files: Vec<_> = sized.filter(|(name, _)| name.ends_with(suffix)).collect();
        files.sort();
        files
    }

    /// Makes changes until the log of every node starts behind its snapshot; the size of the snapshot of one.
    fn fill_up_to_a_snapshot(&self) -> u64 {
        let started = Instant::now();
        let is_purged = |id: &i32| {
            let logs = self.files(*id, ".log");
            logs.first().is_some_and(|(name, _)| name != "00000000000000000000.log")
        };
        let mut value = 0;
        while !self.nodes.keys().all(is_purged) {
            let files = || self.files(1, "");
            assert!(started.elapsed() < 2 * PATIENCE, "no snapshot replaces the log: {:?}", files());
            // A value that is there already would change nothing, and add no entry.
            value += 1;
            accepted(self.submit(set("m", "k", &value.to_string())));
        }
        self.files(1, ".checkpoint").last().unwrap().1
    }
}

fn check(image: &MetadataImage) {
    let partitions = image.topics.partitions().map(|(_, _, partition)| partition);
    assert_eq!(image.topics.partition_count(), TOPICS * PARTITIONS_PER_TOPIC);
    assert_eq!(image.topics.topic_count(), TOPICS);
    assert!(partitions.into_iter().all(|p| p.replicas.len() == 3 && p.isr.len() == 3 && p.leader.is_some()));
}

/// Reads the feed of `id` from offset 0, as a broker does that starts.
fn load(cluster: &Cluster, id: i32, last: Offset, by_snapshot: bool) -> (MetadataImage, Duration) {
    let started = Instant::now();
    let (image, used_snapshot) = cluster.image(id, MetadataImage::empty(), last);
    let elapsed = started.elapsed();
    assert_eq!(used_snapshot, by_snapshot);
    check(&image);
    (image, elapsed)
}

/// Kills active controllers; the times to the next accepted change, and those in which the killed were back.
fn fail_over(cluster: &mut Cluster) -> (Vec<Duration>, Vec<Duration>) {
    let mut times = (Vec::new(), Vec::new());
    for round in 0..FAILOVERS {
        let last = accepted(cluster.submit(set("m", "round", &round.to_string())));
        cluster.wait_for_all(last);
        let active = cluster.active();
        let killed = Instant::now();
        cluster.kill(active);
        let last = accepted(cluster.submit(set("m", "without", &active.to_string())));
        times.0.push(killed.elapsed());
        let started = Instant::now();
        cluster.start_node(active);
        cluster.wait_for(active, |status| status.is_ready && status.committed_end_offset > last);
        times.1.push(started.elapsed());
    }
    times
}

/// How long the active controller looks over all partitions for leaderships that are not at home (every second) and
/// for partitions that nobody leads (every 5 s). There are none.
fn look_over(image: &MetadataImage) -> (Duration, Duration) {
    let config = ControlConfig::default();
    let control = ReplicationControl::new(image, &config);
    let mut balancer = LeaderBalancer::new();
    let started = Instant::now();
    assert_eq!(balancer.tick(&control, &config, Timestamp(1_000)).response, 0);
    let balanced = started.elapsed();
    assert_eq!(control.elect_leaderless().response, 0);
    (balanced, started.elapsed() - balanced)
}

#[test]
#[ignore = "a measurement, which needs an idle machine"]
fn a_quorum_of_100_000_partitions() {
    let mut cluster = Cluster::start_on_real_disks(CONTROLLERS, options);
    let _brokers: Vec<_> = (11..11 + BROKERS).map(|id| cluster.broker(id)).collect();
    let empty = resident_kb();
    let (times, last) = create_all(&cluster);
    cluster.wait_for_all(last);
    let full = resident_kb();
    let sum = |times: &[Duration]| times.iter().sum::<Duration>();
    let tenth = times.len() / 10;
    println!(
        "created in {:?}; the first tenth took {:?}, the last {:?}",
        sum(&times),
        sum(&times[..tenth]),
        sum(&times[times.len() - tenth..])
    );
    println!("memory of this process: {empty} kB before, {full} kB after");
    println!("per controller: {} kB", full.saturating_sub(empty) / usize::try_from(CONTROLLERS).unwrap());
    let logs: u64 = cluster.files(1, ".log").iter().map(|(_, bytes)| bytes).sum();
    println!("log: {logs} bytes");

    let follower = *cluster.nodes.keys().find(|id| **id != cluster.active()).unwrap();
    let (by_entries, elapsed) = load(&cluster, follower, last, false);
    println!("a broker loads it from entries in {elapsed:?}");
    println!("its image: {} kB", resident_kb().saturating_sub(full));

    println!("snapshot: {} bytes", cluster.fill_up_to_a_snapshot());
    println!("memory of this process after the snapshots: {} kB", resident_kb());
    let last = accepted(cluster.submit(set("m", "last", "v")));
    cluster.wait_for_all(last);
    let (by_snapshot, elapsed) = load(&cluster, follower, last, true);
    println!("a broker loads it from a snapshot in {elapsed:?}");
    assert_eq!(by_entries.topics, by_snapshot.topics);
    println!("a look over all partitions, by the balancer and for leaders: {:?}", look_over(&by_snapshot));

    let (failovers, restarts) = fail_over(&mut cluster);
    report("end of the active controller to the next accepted change", failovers);
    report("start of a controller until it has caught up", restarts);
    let last = accepted(cluster.submit(set("m", "last", "w")));
    cluster.wait_for_all(last);
    let images: Vec<_> = (1..=CONTROLLERS).map(|id| load(&cluster, id, last, true).0).collect();
    for image in &images {
        assert_eq!(image.topics, by_snapshot.topics);
        assert_eq!(image.provenance, images[0].provenance, "nothing was changed meanwhile");
        assert_eq!(bytes(image), bytes(&images[0]));
    }
}
