//! Who leads, and who must not.

use std::time::Duration;

use klamm_log::fs::CrashPlan;
use klamm_metadata::MetadataImage;
use klamm_rpc::RpcError;

use tokio::time::Instant;

use crate::fixture::*;

#[test]
fn a_leader_whose_process_is_gone_is_replaced_without_waiting_for_its_silence() {
    // Silence alone would take ten seconds at the least.
    let mut cluster = Cluster::start_with(3, |options| {
        options.timing.election_timeout_min_ms = 10_000;
        options.timing.election_timeout_max_ms = 20_000;
    });
    for _ in 0..3 {
        accepted(cluster.submit(set("m", "k", "v")));
        // A follower has to know its leader to watch it.
        for id in 1..=3 {
            cluster.wait_for(id, |status| status.leader.is_some() && status.is_ready);
        }
        let active = cluster.active();
        let killed = Instant::now();
        cluster.kill(active);
        accepted(cluster.submit(set("m", "without", &active.to_string())));
        assert!(killed.elapsed() < Duration::from_secs(8), "accepted after {:?}", killed.elapsed());
        cluster.start_node(active);
    }
}

#[test]
fn a_follower_that_was_away_deposes_nobody() {
    let cluster = Cluster::start(3);
    accepted(cluster.submit(set("m", "k", "v")));
    let active = cluster.active();
    let follower = (1..=3).find(|id| *id != active).unwrap();
    let term = cluster.wait_for(active, |status| status.is_active).term;
    // Longer than twice the longest election timeout.
    cluster.nodes[&follower].pause(Duration::from_millis(2_500));
    let last = accepted(cluster.submit(set("m", "k", "2")));
    cluster.wait_for(follower, |status| status.committed_end_offset > last);
    for _ in 0..20 {
        accepted(cluster.submit(set("m", "k", "3")));
    }
    assert_eq!(cluster.active(), active);
    assert_eq!(cluster.wait_for(active, |status| status.is_active).term, term);
}

#[test]
fn a_follower_that_comes_back_without_its_disk_is_filled_again_and_harms_no_leader() {
    let mut cluster = Cluster::start(3);
    for n in 0..20 {
        accepted(cluster.submit(set("m", "k", &n.to_string())));
    }
    let active = cluster.active();
    let follower = (1..=3).find(|id| *id != active).unwrap();
    cluster.kill(follower);
    let meanwhile = accepted(cluster.submit(set("m", "k", "meanwhile")));
    cluster.disks.insert(follower, disk());
    cluster.start_node(follower);
    cluster.wait_for(follower, |status| status.committed_end_offset > meanwhile);
    let last = accepted(cluster.submit(set("m", "k", "after")));
    for id in 1..=3 {
        let status = cluster.wait_for(id, |status| status.committed_end_offset > last);
        assert_eq!(status.failure, None, "node {id}");
    }
    let images: Vec<_> =
        (1..=3).map(|id| bytes(&cluster.image(id, MetadataImage::empty(), last).0)).collect();
    assert!(images.iter().all(|image| *image == images[0]));
}

#[test]
fn a_leader_that_reaches_no_quorum_resigns() {
    let mut cluster = Cluster::start(3);
    accepted(cluster.submit(set("m", "k", "v")));
    let active = cluster.active();
    let followers: Vec<i32> = (1..=3).filter(|id| *id != active).collect();
    for follower in &followers {
        cluster.kill(*follower);
    }
    cluster.wait_for(active, |status| !status.is_active);
    let error = cluster.submit_to(active, set("m", "k", "2")).unwrap_err();
    assert!(matches!(error, RpcError::NotActiveController { .. }), "{error}");
    cluster.start_node(followers[0]);
    let offset = accepted(cluster.submit(set("m", "k", "3")));
    let (image, _) = cluster.image(cluster.active(), MetadataImage::empty(), offset);
    assert_eq!(value(&image, "m", "k"), Some("3"));
}

#[test]
fn a_change_that_a_leader_alone_appended_is_not_acknowledged() {
    let mut cluster = Cluster::start(3);
    accepted(cluster.submit(set("m", "k", "v")));
    let active = cluster.active();
    let followers: Vec<i32> = (1..=3).filter(|id| *id != active).collect();
    for follower in &followers {
        cluster.kill(*follower);
    }
    // Either it was appended and its fate is open, or it was not.
    let error = cluster.submit_to(active, set("m", "alone", "v")).unwrap_err();
    assert!(
        matches!(error, RpcError::Lost { .. } | RpcError::TimedOut | RpcError::NotActiveController { .. }),
        "{error}"
    );
}

/// A power cut leaves entries on the disk of which the node does not know that they are committed: before they are
/// applied it must decide nothing.
#[test]
fn a_leader_that_starts_again_decides_on_all_that_was_committed() {
    let mut cluster = Cluster::start(1);
    for item in 0..40 {
        accepted(cluster.submit(append("m", &item.to_string())));
    }
    let cut = cluster.disks[&1].crash_point().power_cut(&CrashPlan::nothing_pending());
    cluster.kill(1);
    cluster.disks.insert(1, cut);
    cluster.start_node(1);
    let offset = accepted(cluster.submit(append("m", "last")));
    let (image, _) = cluster.image(1, MetadataImage::empty(), offset);
    let expected: Vec<String> = (0..40).map(|item| item.to_string()).chain(["last".to_owned()]).collect();
    assert_eq!(value(&image, "m", "list"), Some(expected.join(",").as_str()));
}

#[test]
fn what_was_accepted_outlives_a_power_cut_of_all() {
    let mut cluster = Cluster::start(3);
    let mut last = accepted(cluster.submit(append("m", "0")));
    for item in 1..20 {
        last = accepted(cluster.submit(append("m", &item.to_string())));
    }
    let cuts: Vec<_> = (1..=3)
        .map(|id| (id, cluster.disks[&id].crash_point().power_cut(&CrashPlan::nothing_pending())))
        .collect();
    for (id, cut) in cuts {
        cluster.kill(id);
        cluster.disks.insert(id, cut);
    }
    for id in 1..=3 {
        cluster.start_node(id);
    }
    let offset = accepted(cluster.submit(append("m", "20")));
    assert!(offset > last);
    let expected: Vec<String> = (0..=20).map(|item| item.to_string()).collect();
    for id in 1..=3 {
        let (image, _) = cluster.image(id, MetadataImage::empty(), offset);
        assert_eq!(value(&image, "m", "list"), Some(expected.join(",").as_str()), "node {id}");
    }
}
