//! Three nodes find together and serve.

use std::time::Duration;

use klamm_client::ProducerOptions;
use klamm_tests::cluster::Cluster;
use klamm_tests::workload::{Writers, verify};

use super::{SECOND, create, three, views};

#[tokio::test]
async fn three_nodes_elect_serve_and_come_back() {
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let admin = cluster.admin();
    let quorum = admin.describe_quorum().await.unwrap();
    assert_eq!(quorum.voters.len(), 3, "{quorum:?}");

    let partitions = create(&admin, "orders", 6).await;
    let client = cluster.client();
    let writers = Writers::start(&client, &ProducerOptions::default(), &partitions, Duration::from_millis(1));
    tokio::time::sleep(SECOND).await;
    let ledger = writers.stop().await;
    let verdict = verify(&client, &ledger).await.unwrap();
    assert_eq!((verdict.finding_count, verdict.unknown, verdict.refused), (0, 0, 0), "{verdict:?}");
    assert!(verdict.acknowledged > 0 && verdict.read == verdict.acknowledged, "{verdict:?}");

    let before = views::agreed(&cluster).await;
    for id in cluster.ids() {
        cluster.node(id).terminate(60 * SECOND).await.unwrap();
    }
    for id in cluster.ids() {
        cluster.node(id).restart().unwrap();
    }
    cluster.wait_ready().await.unwrap();
    admin.wait_for_leaders("orders").await.unwrap();
    let verdict = verify(&cluster.client(), &ledger).await.unwrap();
    assert_eq!(verdict.finding_count, 0, "{verdict:?}");
    let after = views::agreed(&cluster).await;
    assert_eq!(
        after.topics.get("orders").map(|topic| topic.0),
        before.topics.get("orders").map(|topic| topic.0)
    );
}
