//! Tells the controller how far this broker's logs reach of partitions that lost all their complete replicas, so that the
//! longest log can lead (KIP-966).
//!
//! Told again every few seconds for as long as nobody leads: the controller that was told before may be gone, and so may the
//! registration of another broker that has to be heard.

use std::sync::Arc;
use std::time::Duration;

use klamm_types::BrokerEpoch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::ReplicaManager;
use crate::controller_client::ControllerClient;

/// The most logs in one report.
const LOGS_MAX: usize = 10_000;
/// How long what was said holds.
const SAY_AGAIN: Duration = Duration::from_secs(5);
/// How long a report may wait for a controller and its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Reports logs that nobody can lead.
#[derive(Debug)]
pub(crate) struct LogReporter {
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) client: ControllerClient,
}

impl LogReporter {
    /// Reports until `shutdown` completes.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = shutdown => {}
            () = self.report() => {}
        }
    }

    async fn report(&self) {
        let (mut said, mut said_at) = ((BrokerEpoch::NONE, Vec::new()), Instant::now());
        loop {
            self.replicas.leaderless_news().await;
            let image = self.replicas.image();
            let now = (self.replicas.broker_epoch(), self.replicas.lost_logs(&image));
            if now == said && said_at.elapsed() < SAY_AGAIN {
                continue;
            }
            if now.1.len() != said.1.len() {
                info!(partitions = now.1.len(), "partitions here wait for their longest log to be found");
            }
            (said, said_at) = (now, Instant::now());
            for logs in said.1.chunks(LOGS_MAX) {
                if let Err(error) = self.client.report_logs(said.0, logs.to_vec(), REQUEST_TIMEOUT).await {
                    warn!(%error, "the controller has not heard how far logs reach that nobody can lead");
                    break;
                }
            }
        }
    }
}
