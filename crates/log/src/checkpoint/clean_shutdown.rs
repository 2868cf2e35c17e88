//! `.kafka_cleanshutdown`: the mark of an orderly shutdown (KIP-966).

use std::path::{Path, PathBuf};

use klamm_types::BrokerEpoch;
use serde::{Deserialize, Serialize};

use super::table::read_text;
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFs, replace_file};

/// Says that every log of a directory was flushed and closed, and which incarnation of the broker did so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanShutdown {
    /// The epoch of the broker that closed the directory; [`BrokerEpoch::NONE`] if it had none.
    pub broker_epoch: BrokerEpoch,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    version: i32,
    broker_epoch: i64,
}

impl CleanShutdown {
    const FILE: &str = ".kafka_cleanshutdown";

    fn path(dir: &Path) -> PathBuf {
        dir.join(Self::FILE)
    }

    /// Reads the mark of `dir` and removes it, durably, so that a crash during the start that follows is seen as
    /// one (KAFKA-10471). A mark that does not read counts as none.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn take(fs: &dyn LogFs, dir: &Path) -> Result<Option<Self>, LogError> {
        let path = Self::path(dir);
        let text = match read_text(fs, &path) {
            Ok(None) => return Ok(None),
            Ok(Some(text)) => text,
            Err(LogError::Damaged { .. }) => String::new(),
            Err(e) => return Err(e),
        };
        fs.remove_file(&path).describe("remove", &path)?;
        fs.sync_dir(dir).describe("sync", dir)?;
        let content: Option<Content> = serde_json::from_str(&text).ok();
        Ok(content.map(|content| Self { broker_epoch: BrokerEpoch(content.broker_epoch) }))
    }

    /// Leaves the mark in `dir`. Durable on return.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn write(self, fs: &dyn LogFs, dir: &Path) -> Result<(), LogError> {
        let path = Self::path(dir);
        let text = format!(r#"{{"version":0,"brokerEpoch":{}}}"#, self.broker_epoch);
        Ok(replace_file(fs, &path, text.as_bytes()).describe("replace", &path)?)
    }
}
