//! Tells the controller which replicas this broker cannot serve, so that others lead them; and which are in sync although
//! their disk is full.
//!
//! What is to be told is what is offline here and not marked so in the metadata. Nothing else is kept: an answer that is
//! lost, another active controller, a new registration all come to the same.
//!
//! ```text
//!   a replica goes offline ──▶ report, in parts ──▶ the metadata has it ──▶ nothing is left to tell
//!                                  ▲      │ no answer, or refused
//!                                  └──────┘
//! ```
//! Below level 4 of `metadata.version` single replicas cannot be marked: the broker asks to be fenced as a whole for as
//! long as a directory is out of service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_metadata::{METADATA_VERSION, OFFLINE_REPLICAS_LEVEL};
use klamm_pb::controller::v1 as pb;
use klamm_rpc::{Backoff, Deadline};
use tracing::{info, warn};

use crate::ReplicaManager;
use crate::controller_client::ControllerClient;
use crate::lifecycle::BrokerLifecycle;
use crate::metadata::MetadataCache;
use crate::replica_manager::UnreportedReplica;

/// The most replicas in one report.
const REPLICAS_MAX: usize = 1_000;
/// How long a report may wait for a controller and its answer before it is made anew.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the metadata may take to show what was answered before the report is made anew.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest pause after a report that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Reports what cannot be served.
#[derive(Debug)]
pub(crate) struct OfflineReporter {
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) client: ControllerClient,
    pub(crate) metadata: Arc<MetadataCache>,
    pub(crate) lifecycle: BrokerLifecycle,
}

/// What one look came to.
enum Looked {
    /// Nothing is to be done before there is news.
    Settled,
    /// Another look is due: there may be more to report.
    Reported,
    /// The controller did not take the report.
    Failed,
}

impl OfflineReporter {
    /// Reports until `shutdown` completes.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = shutdown => {}
            () = self.report() => {}
        }
    }

    async fn report(&self) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            match self.look().await {
                Looked::Settled => {
                    backoff.reset();
                    self.replicas.offline_news().await;
                }
                Looked::Reported => backoff.reset(),
                Looked::Failed => tokio::time::sleep(backoff.next_pause()).await,
            }
        }
    }

    async fn look(&self) -> Looked {
        if !self.replicas.is_caught_up() {
            return Looked::Settled;
        }
        let (image, epoch) = (self.replicas.image(), self.replicas.broker_epoch());
        let full = self.replicas.take_full(&image, REPLICAS_MAX);
        let marks = image.features.level(METADATA_VERSION) >= OFFLINE_REPLICAS_LEVEL;
        if !marks {
            self.lifecycle.set_wants_fence(self.replicas.log_dirs().has_failed());
        }
        let unreported = if marks { self.replicas.take_unreported(&image, REPLICAS_MAX) } else { Vec::new() };
        if unreported.is_empty() && full.is_empty() {
            if !marks {
                return Looked::Settled;
            }
            // A registration that is newer than what was looked at starts with a fence of its own.
            if self.lifecycle.state().epoch == epoch {
                self.lifecycle.set_wants_fence(false);
            }
            return Looked::Settled;
        }
        let (count, without_room) = (unreported.len(), full.len());
        let replicas = unreported.into_iter().map(to_pb).collect();
        let full = full.into_iter().map(to_pb).collect();
        match self.client.report_offline_replicas(epoch, (replicas, full), REQUEST_TIMEOUT).await {
            Ok(offset) => {
                info!(offline = count, without_room, "the controller knows of replicas that take no records");
                // By then each is marked, or is no longer this broker's.
                match self.metadata.wait_for(offset, Deadline::after(APPLY_TIMEOUT)).await {
                    Ok(()) => Looked::Reported,
                    Err(_) => Looked::Failed,
                }
            }
            Err(error) => {
                warn!(%error, offline = count, without_room, "the controller has not taken note of replicas that take no records");
                Looked::Failed
            }
        }
    }
}

fn to_pb(replica: UnreportedReplica) -> pb::OfflineReplica {
    pb::OfflineReplica {
        topic_id: Bytes::copy_from_slice(&replica.topic.0),
        partition_id: replica.partition.0,
        leader_epoch: replica.leader_epoch.0,
    }
}

#[cfg(test)]
#[path = "offline_reporter_test.rs"]
mod tests;
