//! The same of our own client, which the command line uses.

use std::collections::BTreeSet;
use std::time::Duration;

use klamm_client::ProducerOptions;
use klamm_tests::cluster::Cluster;
use klamm_tests::workload::{Writers, verify};
use tokio::time::sleep;

use super::partitions;
use super::rig::{Rig, three};
use super::schedule::Kind;
use super::server::Server;

const SECOND: Duration = Duration::from_secs(1);

/// Each node in turn is killed while it leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_reordered_when_leaders_are_killed() {
    let unknown = each_in_turn(Kind::Leader).await;
    eprintln!("{unknown} records have an unknown fate");
}

/// Each node in turn is stopped in order and started again: writers see no fault, only retries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    assert_eq!(each_in_turn(Kind::Term).await, 0);
}

/// Gives the number of records of which the writers do not know what became.
async fn each_in_turn(kind: Kind) -> usize {
    let mut rig = Rig::new(Server::Klamm(Cluster::start(&three()).await.unwrap())).await;
    let client = rig.server.client();
    let partitions: Vec<_> = partitions().collect();
    let writers = Writers::start(&client, &ProducerOptions::default(), &partitions, Duration::from_millis(1));
    for victim in rig.server.ids() {
        rig.arrange(&BTreeSet::new()).await;
        sleep(SECOND).await;
        rig.strike(kind, victim).await;
        rig.wait_replaced(victim, kind != Kind::Term).await;
        rig.restore(kind, victim);
        rig.server.wait_ready().await;
    }
    rig.arrange(&BTreeSet::new()).await;
    let ledger = writers.stop().await;
    let verdict = verify(&rig.server.client(), &ledger).await.unwrap();
    assert_eq!((verdict.finding_count, verdict.refused), (0, 0), "{verdict:#?}");
    assert!(verdict.acknowledged > 500, "{verdict:?}");
    verdict.unknown
}
