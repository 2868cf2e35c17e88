//! What the disks of all nodes have of each partition at the end.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use klamm_tests::cluster::wait_for;
use klamm_tests::node_process::binary;
use tokio::process::Command;

use super::server::Server;
use super::{PARTITIONS, TOPIC};

/// Longer than it takes a node to note its high watermarks again.
const NOTE_TIME_MAX: Duration = Duration::from_secs(30);

/// Waits until all nodes have noted these ends as the high watermarks of all partitions.
pub(crate) async fn high_watermarks_are(server: &Server, ends: &[i64; PARTITIONS]) {
    wait_for("all high watermarks are the ends of the logs", NOTE_TIME_MAX, async || {
        for id in server.ids() {
            let noted = high_watermarks(&server.data(id))?;
            if noted != ends.map(Some) {
                return Err(format!("node {id}: {noted:?}, not {ends:?}"));
            }
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// The high watermarks that a node has noted for itself; the file is Kafka's.
fn high_watermarks(data: &Path) -> Result<[Option<i64>; PARTITIONS], String> {
    let file = data.join("replication-offset-checkpoint");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut noted = [None; PARTITIONS];
    for line in text.lines() {
        if let [TOPIC, partition, offset] = line.split(' ').collect::<Vec<_>>()[..]
            && let Some(place) = partition.parse().ok().and_then(|partition: usize| noted.get_mut(partition))
        {
            *place = offset.parse().ok();
        }
    }
    Ok(noted)
}

/// What differs between the replicas of each partition; gives the number of bytes that were compared for each replica.
pub(crate) fn compare(server: &Server) -> Result<u64, String> {
    let replicas = |partition| {
        let directory = |id| server.data(id).join(format!("{TOPIC}-{partition}"));
        server.ids().into_iter().map(directory).collect::<Vec<_>>()
    };
    (0..PARTITIONS).map(|partition| klamm_tests::replicas::compare(&replicas(partition))).sum()
}

/// Has `klamm log verify` read all that a stopped node has.
pub(crate) async fn verify(data: &Path) {
    let mut command = Command::new(binary().unwrap());
    command.args(["log", "verify"]).arg(data).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}: {}", data.display(), String::from_utf8_lossy(&output.stdout));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_watermarks_are_read_from_the_note() {
        let directory = tempfile::tempdir().unwrap();
        let note = format!("0\n3\n{TOPIC} 0 17\n{TOPIC} 2 5\nanother 1 9\n");
        fs::write(directory.path().join("replication-offset-checkpoint"), note).unwrap();
        assert_eq!(high_watermarks(directory.path()).unwrap(), [Some(17), None, Some(5)]);
    }
}
