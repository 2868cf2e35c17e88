//! Why a node cannot start with the settings it has.

use std::io;
use std::path::PathBuf;

use klamm_config::{PropertiesError, SettingError};

use crate::sources::Origin;

/// Settings that a node cannot start with. Each is one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path is that of a directory.
    #[error("{} is a directory; name the file in it", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The file is no configuration.
    #[error("{} has {bytes} bytes, no configuration is that long", path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Anybody can change the file.
    #[error("{path} can be written by anybody; run: chmod o-w {path}", path = path.display())]
    WritableByAll {
        /// The file.
        path: PathBuf,
    },
    /// The file is not in the properties format.
    #[error("{} {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where it is not.
        source: PropertiesError,
    },
    /// An override without a value.
    #[error("--override {text:?} must be name=value")]
    Override {
        /// What was given.
        text: String,
    },
    /// One setting cannot be used.
    #[error("{origin}: {source}")]
    Setting {
        /// Where it was written.
        origin: Origin,
        /// Why.
        source: SettingError,
    },
    /// A setting must be there.
    #[error("{name} is missing: {fix}")]
    Missing {
        /// The setting.
        name: &'static str,
        /// What to write.
        fix: String,
    },
    /// A setting does not fit in with others, or has a form of its own that it is not in.
    #[error("{origin}: {name} {problem}")]
    Unfit {
        /// The setting.
        name: &'static str,
        /// Where it was written.
        origin: Origin,
        /// What is wrong, and what to do, as the end of a sentence that starts with the name.
        problem: String,
    },
}

impl ConfigError {
    /// Never: the settings must change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}
