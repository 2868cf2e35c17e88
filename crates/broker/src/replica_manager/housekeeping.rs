//! What the replicas of a broker need from time to time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_log::LogError;

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
        let mut known_offline = 0;
        loop {
            ticks.tick().await;
            // Before the first image a log may have other settings than its topic's: retention must not act on them.
            if !self.has_settings.load(Ordering::Acquire) {
                continue;
            }
            let (dirs, now) = (Arc::clone(&self.dirs), self.around.clock.wall());
            let tick = move || {
                dirs.try_remember();
                dirs.manager.tick(now)
            };
            match tokio::task::spawn_blocking(tick).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "upkeep of the logs failed"),
                Err(error) => tracing::error!(%error, "upkeep of the logs panicked"),
            }
            let (mut lacks_room, mut is_leaderless) = (false, false);
            for partition in self.partitions() {
                partition.tend();
                lacks_room |= partition.lacks_room();
                is_leaderless |= partition.role().leader.is_none();
            }
            if is_leaderless {
                self.leaderless_news.notify_one();
            }
            // A single log may have failed, or the step of a partition.
            let offline = self.count_offline();
            if offline > known_offline || lacks_room {
                self.look_for_offline();
            }
            known_offline = offline;
        }
    }

    /// Takes replicas out of service whose directory has failed.
    async fn watch_dirs(&self) {
        let mut known = self.dirs.statuses();
        loop {
            // First of all: a partition may be held up by the very disk that has failed.
            self.look_for_offline();
            for partition in self.partitions() {
                if partition.log().log_dir().check().is_err() {
                    partition.on_log_failed();
                }
            }
            known = self.dirs.changed_from(&known).await;
        }
    }

    /// Ends all replicas, then flushes and closes their logs, and leaves in each directory where all went well the mark
    /// of an orderly shutdown of this incarnation. Whoever still waits is told that the leadership is lost.
    ///
    /// # Errors
    /// The first that kept a directory from being closed in an orderly way. Nothing is lost by it: the next start
    /// recovers as after a crash.
    pub async fn shut_down(&self) -> Result<(), LogError> {
        self.around.lease.end();
        let (logs, epoch, partitions) =
            (Arc::clone(&self.dirs.manager), self.broker_epoch(), self.partitions());
        let closing = tokio::task::spawn_blocking(move || {
            // None of them writes after this: the mark must not be older than a record.
            partitions.iter().for_each(|partition| partition.close(None));
            logs.close(epoch)
        });
        match closing.await {
            Ok(closed) => closed,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going away, and the logs are as after a crash.
                Err(_) => Ok(()),
            },
        }
    }
}
