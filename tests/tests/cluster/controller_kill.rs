//! The active controller is killed under a stream of changes.

use std::collections::HashSet;

use klamm_tests::cluster::Cluster;
use klamm_tests::distribution::Distribution;
use tokio::time::Instant;

use super::changes::{Change, Changes, Outcome};
use super::digests::Digests;
use super::views::{self, View};
use super::{SECOND, create, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_accepted_change_is_lost_when_active_controllers_are_killed() {
    let times = run(3, 5).await;
    eprintln!("from the kill of the active controller to the first accepted change: {times}");
    assert!(times.max() < 20 * SECOND, "{times}");
}

/// The figures of `docs/benchmarks.md`.
#[ignore = "takes minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_active_controllers_are_killed() {
    let times = run(50, 1_000).await;
    println!("from the kill of the active controller to the first accepted change: {times}");
}

async fn run(kills: usize, topics: usize) -> Distribution {
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let admin = cluster.admin();
    for number in 0..topics {
        create(&admin, &format!("before-{number}"), 3).await;
    }
    let mut changes = Changes::start(&cluster, 4);
    changes.first_accepted_after(Instant::now()).await;
    let mut times = Distribution::default();
    let mut digests = Digests::default();
    for _ in 0..kills {
        let active = cluster.active_controller().await.unwrap();
        let moment = Instant::now();
        cluster.node(active).kill().unwrap();
        let taken = changes.first_accepted_after(moment).await - moment;
        eprintln!("node {active} was killed: a change was accepted after {taken:?}");
        times.add(taken);
        cluster.node(active).restart().unwrap();
        cluster.wait_ready().await.unwrap();
        digests.collect(&cluster).await;
    }
    let changes = changes.stop().await;
    digests.settle(&cluster).await;
    assert!(digests.compared >= 2, "{digests:?}");
    let view = views::agreed(&cluster).await;
    assert_eq!(view.topics.keys().filter(|name| name.starts_with("before-")).count(), topics);
    check(&changes, &view);
    times
}

/// Every accepted change is there, once, as it was accepted; nothing is there that nobody asked for.
fn check(changes: &[Change], view: &View) {
    let (mut accepted, mut deleted) = (0, 0);
    let of_deletion =
        |change: &&Change| matches!(change.outcome, Outcome::Deleted | Outcome::PerhapsDeleted(_));
    let may_be_gone: HashSet<&str> =
        changes.iter().filter(of_deletion).map(|change| change.name.as_str()).collect();
    for change in changes {
        let found = view.topics.get(&change.name);
        match (&change.outcome, found) {
            (Outcome::Deleted, Some(_)) => panic!("{change:?} is there again"),
            (Outcome::Deleted, None) => deleted += 1,
            (Outcome::PerhapsDeleted(_), _) => {}
            (Outcome::Accepted(_), None) if may_be_gone.contains(change.name.as_str()) => {}
            (Outcome::Accepted(id), Some((found, partitions))) => {
                assert_eq!(found, id, "{} was created twice", change.name);
                assert_eq!(partitions.len(), change.partitions as usize, "{}", change.name);
                accepted += 1;
            }
            (Outcome::Accepted(_), None) => panic!("{change:?} is lost"),
            (Outcome::Refused(_), Some(_)) => panic!("{change:?} was done all the same"),
            (Outcome::Refused(_), None) | (Outcome::Unknown(_), _) => {}
        }
    }
    assert!(accepted > 0, "no change was accepted: {:?}", changes.first());
    println!("{accepted} topics that were created are there, {deleted} that were deleted are not");
    let asked = |name: &String| changes.iter().any(|change| change.name == *name);
    let stray = view.topics.keys().find(|name| name.starts_with("change-") && !asked(name));
    assert_eq!(stray, None, "nobody asked for it");
}
