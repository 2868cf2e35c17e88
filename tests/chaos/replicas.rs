//! Compares the replicas of each partition on the disks of all nodes, byte for byte.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
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
    let mut compared = 0;
    for partition in 0..PARTITIONS {
        let mut replicas = server.ids().into_iter().map(|id| {
            let directory = server.data(id).join(format!("{TOPIC}-{partition}"));
            Replica::open(&directory).map_err(|error| format!("{}: {error}", directory.display()))
        });
        let mut first = replicas.next().ok_or("no node")??;
        let mut others = replicas.collect::<Result<Vec<_>, _>>()?;
        compared += same(partition, &mut first, &mut others)?;
    }
    Ok(compared)
}

/// How many bytes each of these replicas has, if all have the same.
fn same(partition: usize, first: &mut Replica, others: &mut [Replica]) -> Result<u64, String> {
    let mut at = 0;
    loop {
        let expected = first.next().map_err(|error| error.to_string())?;
        for (place, other) in others.iter_mut().enumerate() {
            let found = other.next().map_err(|error| error.to_string())?;
            if found != expected {
                let differing = found.iter().zip(&expected).take_while(|(found, expected)| found == expected);
                let byte = at + differing.count() as u64;
                return Err(format!(
                    "partition {partition}: replicas 1 and {} differ from byte {byte} on ({} and {} bytes there)",
                    place + 2,
                    expected.len(),
                    found.len()
                ));
            }
        }
        if expected.is_empty() {
            return Ok(at);
        }
        at += expected.len() as u64;
    }
}

/// The records of a replica, segment after segment: where one begins is each node's own affair.
struct Replica(Box<dyn Read>);

impl Replica {
    fn open(directory: &Path) -> std::io::Result<Self> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(directory)? {
            segments.push(entry?.path());
        }
        segments.retain(|path: &PathBuf| path.extension().is_some_and(|extension| extension == "log"));
        segments.sort();
        let mut all: Box<dyn Read> = Box::new(std::io::empty());
        for segment in segments {
            all = Box::new(all.chain(BufReader::new(File::open(segment)?)));
        }
        Ok(Self(all))
    }

    /// The next bytes: as many as any other replica gives, as long as there are any.
    fn next(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.by_ref().take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
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

    fn replica(segments: &[&str]) -> Replica {
        let directory = tempfile::tempdir().unwrap();
        for (number, text) in segments.iter().enumerate() {
            fs::write(directory.path().join(format!("{number:020}.log")), text).unwrap();
            fs::write(directory.path().join(format!("{number:020}.index")), "of its own").unwrap();
        }
        Replica::open(directory.path()).unwrap()
    }

    fn compared(first: &[&str], second: &[&str]) -> Result<u64, String> {
        same(0, &mut replica(first), &mut [replica(second)])
    }

    #[test]
    fn a_byte_that_differs_is_found() {
        assert_eq!(compared(&["one", "two"], &["onet", "wo"]), Ok(6));
        assert!(compared(&["one", "two"], &["one", "tw0"]).unwrap_err().contains("from byte 5"));
        assert!(compared(&["one", "two"], &["one"]).unwrap_err().contains("from byte 3"));
        assert!(compared(&["one"], &["one", "two"]).unwrap_err().contains("from byte 3"));
    }

    #[test]
    fn high_watermarks_are_read_from_the_note() {
        let directory = tempfile::tempdir().unwrap();
        let note = format!("0\n3\n{TOPIC} 0 17\n{TOPIC} 2 5\nanother 1 9\n");
        fs::write(directory.path().join("replication-offset-checkpoint"), note).unwrap();
        assert_eq!(high_watermarks(directory.path()).unwrap(), [Some(17), None, Some(5)]);
    }
}
