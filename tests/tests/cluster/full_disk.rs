//! A node whose disk is full, and then is not.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

use klamm_client::ProducerOptions;
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::workload::{Writers, verify};
use klamm_tests::{disk, skip};

use super::{SECOND, broker, create, follower, three};

/// How much room records leave on a disk of the harness: a twentieth of a gigabyte.
const RESERVE: u64 = (1 << 30) / 20;

/// Writes until only so much is left.
fn fill_but(path: &Path, left: u64) {
    let mut file = File::create(path).unwrap();
    let available = || {
        let found = rustix::fs::statvfs(path).unwrap();
        found.f_bavail * found.f_frsize
    };
    while available() > left {
        file.write_all(&[0; 1 << 20]).unwrap();
        // What is not on the disk yet may not be counted.
        file.sync_all().unwrap();
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for len in [1 << 20, 1 << 12, 1] {
        let block = vec![0; len];
        let refused = loop {
            if let Err(refused) = file.write_all(&block) {
                break refused;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
    }
}

/// It leads nothing until there is room, others do meanwhile, and it comes back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_hands_over_until_there_is_room() {
    let test = "a_leader_whose_disk_is_full_hands_over_until_there_is_room";
    let Some(()) = skip::unless(test, disk::available()) else { return };
    // The metadata log lies elsewhere.
    let spec = three().on_disks().with("metadata.log.dir", "metadata");
    hands_over(Cluster::start(&spec).await.unwrap(), fill).await;
}

/// Nobody else's files come into what records leave: the metadata log, which is on the same disk, goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_its_records_have_filled_stays_a_controller() {
    let test = "a_node_whose_disk_its_records_have_filled_stays_a_controller";
    let Some(()) = skip::unless(test, disk::available()) else { return };
    let cluster = Cluster::start(&three().on_disks()).await.unwrap();
    hands_over(cluster, |path| fill_but(path, RESERVE / 2)).await;
}

async fn hands_over(cluster: Cluster, fill: impl FnOnce(&Path)) {
    let admin = cluster.admin();
    let partitions = create(&admin, "orders", 3).await;
    let hurt = follower(&cluster).await;
    let before = admin.wait_for_leaders("orders").await.unwrap();
    assert!(before.partitions.iter().any(|partition| partition.leader == Some(broker(hurt))), "{before:?}");
    let client = cluster.client();
    let writers = Writers::start(&client, &ProducerOptions::default(), &partitions, Duration::from_millis(1));

    let filler = cluster.home(hurt).join("data").join("filler");
    fill(&filler);
    let led_elsewhere = wait_for("others lead", 30 * SECOND, async || {
        let topic = admin.wait_for_leaders("orders").await.map_err(|error| error.to_string())?;
        let still = topic.partitions.iter().find(|partition| partition.leader == Some(broker(hurt)));
        still.map_or(Ok(()), |partition| Err(format!("{partition:?}")))
    });
    led_elsewhere.await.unwrap();
    // Long before `replica.lag.time.max.ms` is over.
    let waited_for = wait_for("nobody waits for it", 10 * SECOND, async || {
        let topic = admin.wait_for_leaders("orders").await.map_err(|error| error.to_string())?;
        let still =
            topic.partitions.iter().find(|partition| partition.in_sync_replicas.contains(&broker(hurt)));
        still.map_or(Ok(()), |partition| Err(format!("{partition:?}")))
    });
    waited_for.await.unwrap();
    // The metadata goes on, and the node with it.
    for number in 0..20 {
        create(&admin, &format!("payments-{number}"), 12).await;
    }
    let endpoint = cluster.endpoint(hurt);
    tokio::net::TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.expect("the node listens");

    fs::remove_file(&filler).unwrap();
    let in_sync = wait_for("all replicas are in sync", 60 * SECOND, async || {
        let topic = admin.wait_for_leaders("orders").await.map_err(|error| error.to_string())?;
        let missing = topic.partitions.iter().find(|partition| partition.in_sync_replicas.len() < 3);
        missing.map_or(Ok(()), |partition| Err(format!("{partition:?}")))
    });
    in_sync.await.unwrap();
    let ledger = writers.stop().await;
    let verdict = verify(&client, &ledger).await.unwrap();
    assert_eq!((verdict.finding_count, verdict.refused), (0, 0), "{verdict:?}");
    assert!(verdict.acknowledged > 0, "{verdict:?}");
}
