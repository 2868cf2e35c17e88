//! What brokers know of the metadata, compared byte for byte.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_client::Endpoint;
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::requests::admin_page;
use tokio::time::timeout;

use super::SECOND;

/// The digests that were told for each offset, and who told them.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    by_offset: BTreeMap<i64, (u16, String)>,
    pub(crate) compared: usize,
}

impl Digests {
    /// Asks every node that answers how far it is, and compares with what others told of the same offset.
    pub(crate) async fn collect(&mut self, cluster: &Cluster) {
        for id in cluster.ids() {
            let Ok((offset, line)) = ask(&cluster.admin_endpoint(id)).await else { continue };
            match self.by_offset.get(&offset) {
                None => drop(self.by_offset.insert(offset, (id, line))),
                Some((other, told)) => {
                    assert_eq!(*told, line, "nodes {other} and {id} differ at offset {offset}");
                    self.compared += usize::from(*other != id);
                }
            }
        }
    }

    /// Waits until all nodes have come to the same offset, where they must be equal.
    pub(crate) async fn settle(&mut self, cluster: &Cluster) {
        wait_for("all nodes come to the same offset", 30 * SECOND, async || {
            let mut lines = Vec::new();
            for id in cluster.ids() {
                lines.push(ask(&cluster.admin_endpoint(id)).await?);
            }
            let first = lines.first().map(|(offset, _)| *offset);
            if lines.iter().all(|(offset, _)| Some(*offset) == first) {
                Ok(())
            } else {
                Err(format!("{lines:?}"))
            }
        })
        .await
        .unwrap();
        self.collect(cluster).await;
    }
}

/// The offset that a node has come to, and its line.
async fn ask(at: &Endpoint) -> Result<(i64, String), String> {
    let told = timeout(Duration::from_secs(5), admin_page(at, "/metadata"))
        .await
        .map_err(|_| "no answer".to_owned())?;
    let told = told.map_err(|error| error.to_string())?;
    let line = told.lines().next_back().unwrap_or_default().to_owned();
    let offset = line.strip_prefix("offset=").and_then(|rest| rest.split(' ').next()?.parse().ok());
    match offset {
        Some(offset) if line.contains("crc32c=") => Ok((offset, line)),
        _ => Err(told),
    }
}
