//! The log directories of a broker: what is in service, and what has failed.

use std::path::PathBuf;
use std::sync::Arc;

use klamm_log::fs::LogFs;
use klamm_log::{
    DirContent, FailureListener, LogConfig, LogManager, ManagerError, ManagerOptions, ProducerLimits,
    StartReport,
};
use klamm_metadata::DirectoryId;
use klamm_types::{BrokerEpoch, Timestamp};
use tokio::sync::watch;

use crate::config::BrokerConfig;

/// One log directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogDirStatus {
    /// Where it is.
    pub path: PathBuf,
    /// Its identity, unless it could not be read.
    pub id: Option<DirectoryId>,
    /// Why it is out of service, if it is.
    pub failure: Option<String>,
}

/// The log directories of this broker, opened.
#[derive(Debug)]
pub struct LogDirs {
    pub(crate) manager: Arc<LogManager>,
    statuses: watch::Sender<Vec<LogDirStatus>>,
    previous_broker_epoch: Option<BrokerEpoch>,
    recovery: RecoveryVerdict,
    is_complete: bool,
    all_opened: bool,
}

/// What the start found in the log directories, for the broker's registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoveryVerdict {
    /// All was closed in an orderly way.
    Clean,
    /// A crash, but everything that was on disk is there and whole.
    CrashedDurable,
    /// Something that was acknowledged may be gone: a directory is missing or was replaced by an empty one, a log does not
    /// open, flushed bytes are damaged.
    Lossy,
}

impl LogDirs {
    /// Opens the directories and recovers every log in them. Takes as long as the disks do: for a thread that may wait.
    ///
    /// Topics' settings are not known yet; the logs get them with the first image.
    ///
    /// # Errors
    /// [`ManagerError`] if no directory can be brought into service.
    pub fn open(fs: Arc<dyn LogFs>, config: &BrokerConfig, now: Timestamp) -> Result<Self, ManagerError> {
        let mut options =
            ManagerOptions::new(config.log_dirs.clone(), config.node_id, config.cluster_id.as_str());
        options.open_files_max = config.open_files_max;
        options.recovery_threads_per_dir = config.recovery_threads_per_dir;
        options.flush_threads_per_dir = config.flush_threads_per_dir;
        options.checkpoint_interval_ms = config.checkpoint_interval_ms;
        options.high_watermark_interval_ms = config.high_watermark_interval_ms;
        options.retention_interval_ms = config.retention_interval_ms;
        options.producers =
            ProducerLimits { expiration_ms: config.producer_id_expiration_ms, ..ProducerLimits::default() };
        let defaults = Arc::new(LogConfig::from_broker_properties(&config.properties).unwrap_or_default());
        let (manager, report) = LogManager::open(fs, options, &|_| Arc::clone(&defaults), now)?;
        log_report(&report);
        let statuses = watch::Sender::new(statuses_of(&manager, &report));
        let dirs = Self {
            manager: Arc::new(manager),
            statuses,
            previous_broker_epoch: previous_broker_epoch(&report),
            recovery: recovery_verdict(&report),
            is_complete: report.dirs.iter().all(|dir| dir.result.is_ok()),
            all_opened: report.dirs.iter().all(|dir| dir.result.as_ref().is_ok_and(is_opened)),
        };
        dirs.listen();
        Ok(dirs)
    }

    /// Has failures of directories published.
    fn listen(&self) {
        for (dir, _) in self.manager.directories() {
            let statuses = self.statuses.clone();
            let listener = move |offline: &klamm_log::DirOffline| {
                tracing::error!(dir = %offline.dir.display(), reason = %offline.reason, "a log directory has failed");
                statuses.send_modify(|statuses| {
                    for status in statuses.iter_mut().filter(|status| status.path == offline.dir) {
                        status.failure = Some(offline.reason.clone());
                    }
                });
            };
            dir.set_failure_listener(FailureListener(Arc::new(listener)));
        }
    }

    /// All directories, as they are now.
    #[must_use]
    pub fn statuses(&self) -> Vec<LogDirStatus> {
        self.statuses.borrow().clone()
    }

    /// Returns once the directories are not as `known` any more, with how they are then.
    pub async fn changed_from(&self, known: &[LogDirStatus]) -> Vec<LogDirStatus> {
        let mut statuses = self.statuses.subscribe();
        let changed = statuses.wait_for(|now| now.as_slice() != known).await.map(|now| now.clone());
        // The sender lives as long as `self`.
        changed.unwrap_or_else(|_| self.statuses())
    }

    /// The identity that the broker registers with: that of its first directory in service.
    #[must_use]
    pub fn registration_id(&self) -> Option<DirectoryId> {
        self.statuses.borrow().iter().find(|dir| dir.failure.is_none()).and_then(|dir| dir.id)
    }

    /// The broker epoch that last shut down in an orderly way, if *every* directory says so (KIP-966): `None` after a
    /// crash, and at the first start.
    #[must_use]
    pub fn previous_broker_epoch(&self) -> Option<BrokerEpoch> {
        self.previous_broker_epoch
    }

    /// What the start found.
    #[must_use]
    pub fn recovery_verdict(&self) -> RecoveryVerdict {
        self.recovery
    }

    /// The controller knows what the start found: a directory that is lost is no news any more.
    pub(crate) fn remember(&self) {
        if let Err(error) = self.manager.remember_dirs() {
            tracing::warn!(%error, "not every log directory remembers yet which others there are");
        }
    }

    /// Tries again what [`remember`](Self::remember) could not do.
    pub(crate) fn try_remember(&self) {
        // It was said once.
        let _ = self.manager.remember_dirs();
    }

    /// Whether a directory has failed or is missing.
    pub(crate) fn has_failed(&self) -> bool {
        self.statuses.borrow().iter().any(|dir| dir.failure.is_some())
    }

    /// Whether every log could be opened at the start, and no directory has failed since.
    pub(crate) fn is_whole(&self) -> bool {
        self.all_opened && !self.has_failed()
    }

    /// Whether all configured directories came into service at the start.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }
}

/// Whether every log in the directory could be opened.
fn is_opened(content: &DirContent) -> bool {
    content.logs.iter().all(|log| log.result.is_ok())
}

fn log_report(report: &StartReport) {
    if report.lacks_dir {
        tracing::error!(
            "a log directory that was there before is not there any more, or is empty: its logs are lost"
        );
    }
    for dir in &report.dirs {
        match &dir.result {
            Err(error) => {
                tracing::error!(dir = %dir.path.display(), %error, "a log directory is not in service");
            }
            Ok(content) => {
                for log in &content.logs {
                    if let Err(error) = &log.result {
                        tracing::error!(partition = %log.partition, %error, "a log cannot be opened");
                    }
                }
                for stray in &content.strays {
                    tracing::warn!(dir = %dir.path.display(), %stray, "a directory is no partition's");
                }
            }
        }
    }
}

fn statuses_of(manager: &LogManager, report: &StartReport) -> Vec<LogDirStatus> {
    let in_service = manager.directories();
    let status = |start: &klamm_log::DirStart| {
        let dir = in_service.iter().find(|(dir, _)| dir.path() == start.path);
        let properties = dir.and_then(|(dir, _)| manager.properties(dir));
        LogDirStatus {
            path: start.path.clone(),
            id: properties.map(|found| DirectoryId(found.directory_id.into_bytes())),
            failure: match (&start.result, dir) {
                (Err(error), _) => Some(error.to_string()),
                (Ok(_), Some((_, Err(offline)))) => Some(offline.reason.clone()),
                (Ok(_), _) => None,
            },
        }
    };
    report.dirs.iter().map(status).collect()
}

fn previous_broker_epoch(report: &StartReport) -> Option<BrokerEpoch> {
    let epoch_of = |dir: &klamm_log::DirStart| {
        let content = dir.result.as_ref().ok()?;
        content.clean_shutdown.as_ref().map(|mark| mark.broker_epoch)
    };
    let mut epochs = report.dirs.iter().map(epoch_of);
    let first = epochs.next()??;
    epochs.all(|epoch| epoch == Some(first)).then_some(first).filter(|epoch| *epoch != BrokerEpoch::NONE)
}

fn recovery_verdict(report: &StartReport) -> RecoveryVerdict {
    let is_whole = |dir: &klamm_log::DirStart| {
        let content = dir.result.as_ref().ok();
        content.is_some_and(|content| {
            let mut logs = content.logs.iter().map(|log| log.result.as_ref());
            logs.all(|log| log.is_ok_and(|report| report.damage.is_empty()))
        })
    };
    match !report.lacks_dir && report.dirs.iter().all(is_whole) {
        false => RecoveryVerdict::Lossy,
        true if previous_broker_epoch(report).is_some() => RecoveryVerdict::Clean,
        true => RecoveryVerdict::CrashedDurable,
    }
}
