//! The end of every run: the logs are held to what was told, and the replicas to each other.

use std::fmt;
use std::time::Duration;

use super::judge::{Logs, Verdict};
use super::producers::Producers;
use super::replicas;
use super::server::Server;

/// How long a node may take to end in order.
const END_TIME_MAX: Duration = Duration::from_secs(60);

/// What a run came to in which nothing was found wrong.
pub(crate) struct Reckoning {
    acknowledged: usize,
    pub(crate) logs: Logs,
    /// In each replica.
    bytes: u64,
}

/// Everybody stops. Fails if anything that was acknowledged is not where it was told, once and in order, or if a byte of a
/// replica differs.
pub(crate) async fn reckon(server: &mut Server, producers: Producers) -> Reckoning {
    let told = producers.stop().await;
    let logs = Logs::read(server).await;
    let verdict = Verdict::of(&told, &logs);
    assert_eq!(verdict.finding_count, 0, "{}", verdict.findings.join("\n"));
    replicas::high_watermarks_are(server, &logs.ends).await;
    if let Server::Klamm(cluster) = server {
        for id in cluster.ids() {
            cluster.node(id).terminate(END_TIME_MAX).await.unwrap();
        }
        for id in cluster.ids() {
            replicas::verify(&cluster.home(id).join("data")).await;
        }
    }
    let bytes = replicas::compare(server).unwrap_or_else(|difference| panic!("{difference}"));
    Reckoning { acknowledged: verdict.acknowledged, logs, bytes }
}

impl fmt::Display for Reckoning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, logs, bytes } = self;
        let in_logs = logs.count();
        write!(
            f,
            "{acknowledged} acknowledged, {in_logs} in the logs, {bytes} bytes in each replica; none lost, doubled or moved, no byte differs"
        )
    }
}
