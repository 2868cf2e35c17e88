//! The metadata feed, snapshots and purges.

use klamm_log::fs::CrashPlan;
use klamm_metadata::MetadataImage;
use klamm_rpc::stubs::metadata::v1::metadata_feed_client::MetadataFeedClient;
use klamm_types::Offset;

use crate::fixture::*;

/// Snapshots often, small segments: purging frees whole ones.
fn small(options: &mut klamm_controller::ControllerOptions) {
    options.snapshot_entries = 20;
    options.segment_bytes = 1_024;
}

fn write(cluster: &Cluster, range: std::ops::Range<u32>) -> Offset {
    let mut last = Offset(-1);
    for number in range {
        last = accepted(cluster.submit(set("m", &format!("key-{}", number % 7), &number.to_string())));
    }
    last
}

/// Waits until the log of a node no longer reaches back to its start.
fn wait_for_purge(cluster: &Cluster, id: i32) {
    let started = tokio::time::Instant::now();
    loop {
        let names = klamm_log::fs::LogFs::list(
            &cluster.disks[&id],
            std::path::Path::new("/data/__cluster_metadata-0"),
        );
        let names = names.unwrap();
        let first = names.iter().find(|entry| entry.name.ends_with(".log")).unwrap().name.clone();
        let snapshots = names.iter().filter(|entry| entry.name.ends_with(".checkpoint")).count();
        if first != "00000000000000000000.log" && snapshots == 1 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "node {id} keeps {first} and {snapshots} snapshots");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_follower_that_is_behind_the_log_gets_a_snapshot() {
    let cluster = Cluster::start_with(1, small);
    let first = write(&cluster, 0..1);
    let (old, used_snapshot) = cluster.image(1, MetadataImage::empty(), first);
    assert!(!used_snapshot);
    let last = write(&cluster, 1..100);
    wait_for_purge(&cluster, 1);
    let (from_start, used_snapshot) = cluster.image(1, MetadataImage::empty(), last);
    assert!(used_snapshot, "the log does not reach back to the start");
    let (from_old, used_snapshot) = cluster.image(1, old, last);
    assert!(used_snapshot);
    assert_eq!(bytes(&from_start), bytes(&from_old));
    assert_eq!(value(&from_start, "m", "key-1"), Some("99"));
    // What is in step gets entries.
    let next = write(&cluster, 100..101);
    let (by_entries, used_snapshot) = cluster.image(1, from_start, next);
    assert!(!used_snapshot);
    assert_eq!(value(&by_entries, "m", "key-2"), Some("100"));
}

#[test]
fn a_node_starts_from_its_snapshot() {
    let mut cluster = Cluster::start_with(1, small);
    let last = write(&cluster, 0..100);
    wait_for_purge(&cluster, 1);
    let (before, _) = cluster.image(1, MetadataImage::empty(), last);
    cluster.kill(1);
    cluster.start_node(1);
    let next = write(&cluster, 100..101);
    let (after, _) = cluster.image(1, MetadataImage::empty(), next);
    assert_eq!(value(&after, "m", "key-2"), Some("100"));
    assert_eq!(value(&after, "m", "key-1"), value(&before, "m", "key-1"));
}

#[test]
fn a_node_that_is_behind_the_log_of_its_leader_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(3, small);
    write(&cluster, 0..5);
    let active = cluster.active();
    let away = (1..=3).find(|id| *id != active).unwrap();
    cluster.kill(away);
    let last = write(&cluster, 5..150);
    wait_for_purge(&cluster, active);
    cluster.start_node(away);
    let (image, _) = cluster.image(away, MetadataImage::empty(), last);
    let (leaders, _) = cluster.image(active, MetadataImage::empty(), image.provenance.last_offset);
    assert_eq!(leaders.provenance, image.provenance);
    assert_eq!(bytes(&leaders), bytes(&image));
    // It keeps that over a restart, and goes on from there.
    cluster.kill(away);
    cluster.start_node(away);
    let last = write(&cluster, 150..151);
    let (image, _) = cluster.image(away, MetadataImage::empty(), last);
    assert_eq!(value(&image, "m", "key-3"), Some("150"));
}

/// Somebody whose entry is of another term than the quorum's has another history.
#[test]
fn another_history_is_replaced() {
    let cluster = Cluster::start(1);
    let last = write(&cluster, 0..5);
    let (mut image, _) = cluster.image(1, MetadataImage::empty(), last);
    let truth = bytes(&image);
    image.provenance.last_epoch += 1;
    let next = Offset(last.0 + 1);
    let mut client = MetadataFeedClient::new(cluster.channel(1));
    let follow = follow_request(&image);
    let replaced = cluster.calls.block_on(async {
        let mut stream = client.follow(follow).await.unwrap().into_inner();
        let mut follower = Follower { image, snapshot: None, used_snapshot: false };
        while !follower.used_snapshot {
            follower.take(stream.message().await.unwrap().unwrap());
        }
        follower.image
    });
    assert_eq!(bytes(&replaced), truth);
    assert_eq!(replaced.provenance.last_offset.next(), next);
}

/// A feed says now and then that it lives, and how far the log is committed.
#[test]
fn a_quiet_feed_gives_signs_of_life() {
    use klamm_pb::metadata::v1::follow_event::Event;
    let cluster = Cluster::start(1);
    let last = write(&cluster, 0..1);
    let (image, _) = cluster.image(1, MetadataImage::empty(), last);
    let mut client = MetadataFeedClient::new(cluster.channel(1));
    let event = cluster.calls.block_on(async {
        let mut stream = client.follow(follow_request(&image)).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap().event
    });
    let Some(Event::Idle(idle)) = event else { panic!("{event:?}") };
    assert_eq!(idle.committed_end_offset, last.next().0);
}

/// The disk was replaced by an older copy of itself: the quorum is the same by its id, and its terms begin again.
#[test]
fn a_follower_of_what_the_quorum_has_lost_is_told_so() {
    use klamm_pb::metadata::v1::follow_event::Event;
    let mut cluster = Cluster::start(1);
    let kept = write(&cluster, 0..3);
    let copy = cluster.disks[&1].crash_point().power_cut(&CrashPlan::nothing_pending());
    let lost = write(&cluster, 3..30);
    let (image, _) = cluster.image(1, MetadataImage::empty(), lost);
    cluster.kill(1);
    cluster.disks.insert(1, copy);
    cluster.start_node(1);
    let mut client = MetadataFeedClient::new(cluster.channel(1));
    let (told, end) = cluster.calls.block_on(async {
        let mut stream = loop {
            // Refused until it has caught up with itself.
            if let Ok(stream) = client.follow(follow_request(&image)).await {
                break stream.into_inner();
            }
        };
        let told = loop {
            match stream.message().await.unwrap().unwrap().event {
                Some(Event::Idle(_)) => {}
                event => break event,
            }
        };
        (told, stream.message().await)
    });
    let Some(Event::Behind(behind)) = told else { panic!("{told:?}") };
    assert!((kept.0..lost.0).contains(&behind.committed_end_offset), "{behind:?}, {kept} to {lost}");
    assert_eq!(end.unwrap_err().code(), tonic::Code::DataLoss);
}
