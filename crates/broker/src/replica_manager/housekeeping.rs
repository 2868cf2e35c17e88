//! What the replicas of a broker need from time to time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_types::BrokerEpoch;

use super::ReplicaManager;

/// How often the logs are looked at.
const TICK: Duration = Duration::from_secs(1);

impl ReplicaManager {
    /// Runs the timers of the replicas and the upkeep of the logs (retention, checkpoints, removal of deleted files),
    /// for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.wakeups.run(), self.tend_logs(), self.watch_dirs());
    }

    async fn tend_logs(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Before the first image a log may have other settings than its topic's: retention must not act on them.
            if !self.has_settings.load(Ordering::Acquire) {
                continue;
            }
            let (logs, now) = (Arc::clone(&self.dirs.manager), self.around.clock.wall());
            match tokio::task::spawn_blocking(move || logs.tick(now)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "upkeep of the logs failed"),
                Err(error) => tracing::error!(%error, "upkeep of the logs panicked"),
            }
            for partition in self.partitions() {
                partition.on_retention();
            }
        }
    }

    /// Takes replicas out of service whose directory has failed.
    async fn watch_dirs(&self) {
        let mut known = self.dirs.statuses();
        loop {
            known = self.dirs.changed_from(&known).await;
            for partition in self.partitions() {
                if partition.log().log_dir().check().is_err() {
                    partition.on_log_failed();
                }
            }
        }
    }

    /// Flushes and closes all logs, and leaves the mark of an orderly shutdown of `broker_epoch`. Appends are refused
    /// from here on.
    pub async fn shut_down(&self, broker_epoch: BrokerEpoch) {
        self.around.lease.end();
        let logs = Arc::clone(&self.dirs.manager);
        match tokio::task::spawn_blocking(move || logs.close(broker_epoch)).await {
            Ok(Ok(())) => tracing::info!("all logs are closed"),
            Ok(Err(error)) => tracing::error!(%error, "not all logs were closed in an orderly way"),
            Err(error) => tracing::error!(%error, "closing the logs panicked"),
        }
    }
}
