//! The log: where it goes, in which form, and from which level on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use crate::node_config::LogFormat;

/// The name of the level of all that has none of its own.
const ROOT: &str = "root";
/// The parts of a node that log, as they are offered to operators.
const PARTS: [&str; 8] = [
    "klamm_broker",
    "klamm_control",
    "klamm_controller",
    "klamm_kafka_api",
    "klamm_log",
    "klamm_node",
    "klamm_replica",
    "klamm_rpc",
];
/// Libraries that say too much for the operator of a node, with the level from which on they may. What openraft warns
/// of at every heartbeat that fails, the controller says once. Its parts around the core call it an error that the core
/// is gone, which belongs to every orderly end; when the core fails, it says why itself.
const QUIET: [(&str, LevelFilter); 8] = [
    ("h2", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    ("hyper_util", LevelFilter::WARN),
    ("openraft", LevelFilter::ERROR),
    ("openraft::core::heartbeat", LevelFilter::OFF),
    ("openraft::raft", LevelFilter::OFF),
    ("openraft::storage::callback", LevelFilter::OFF),
    ("tower", LevelFilter::WARN),
];
/// The most loggers with a level of their own.
const LEVELS_MAX: usize = 200;

/// From which level on each part logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Levels {
    root: LevelFilter,
    own: BTreeMap<String, LevelFilter>,
}

/// A level that cannot be set.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LevelError {
    /// It is none.
    #[error("{text:?} is no level; levels are error, warn, info, debug, trace and off")]
    NoLevel {
        /// What was given, cut.
        text: String,
    },
    /// The name is no logger's.
    #[error("{text:?} is no logger")]
    NoLogger {
        /// What was given, cut.
        text: String,
    },
    /// There are levels enough.
    #[error("there are {LEVELS_MAX} levels already")]
    TooMany,
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Reads a level by the names of Kafka's loggers and of ours.
fn level(text: &str) -> Result<LevelFilter, LevelError> {
    let lower = text.trim().to_ascii_lowercase();
    Ok(match lower.as_str() {
        "off" => LevelFilter::OFF,
        "fatal" | "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" | "all" => LevelFilter::TRACE,
        _ => return Err(LevelError::NoLevel { text: cut(text) }),
    })
}

fn is_logger(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'.' | b'-' | b'$');
    !name.is_empty() && name.len() <= 200 && name.bytes().all(fits)
}

impl Levels {
    /// Reads `klamm.log.level`: a level for all, and `module=level` for parts, with commas between them.
    ///
    /// # Errors
    /// The first item that is neither.
    pub fn read(text: &str) -> Result<Self, LevelError> {
        let own = QUIET.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
        let mut levels = Self { root: LevelFilter::INFO, own };
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match item.split_once('=') {
                Some((name, text)) => levels.set(name.trim(), Some(text))?,
                None => levels.root = level(item)?,
            }
        }
        Ok(levels)
    }

    /// Sets a logger's level; without one, it follows the root again.
    ///
    /// # Errors
    /// No level, no logger, or too many.
    pub fn set(&mut self, name: &str, text: Option<&str>) -> Result<(), LevelError> {
        match (name, text) {
            (ROOT, Some(text)) => self.root = level(text)?,
            (ROOT, None) => self.root = LevelFilter::INFO,
            (name, _) if !is_logger(name) => return Err(LevelError::NoLogger { text: cut(name) }),
            (name, Some(text)) => {
                let level = level(text)?;
                if !self.own.contains_key(name) && self.own.len() >= LEVELS_MAX {
                    return Err(LevelError::TooMany);
                }
                self.own.insert(name.to_owned(), level);
            }
            (name, None) => drop(self.own.remove(name)),
        }
        Ok(())
    }

    /// Whether something logs under this name, or it has a level.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        let part = name.split("::").next().unwrap_or(name);
        name == ROOT
            || PARTS.contains(&part)
            || QUIET.iter().any(|(quiet, _)| *quiet == part)
            || self.own.contains_key(name)
    }

    /// All loggers that have a level or are offered one, with the level that holds, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, String)> {
        let mut all: BTreeMap<&str, LevelFilter> = PARTS.iter().map(|part| (*part, self.root)).collect();
        all.extend(self.own.iter().map(|(name, level)| (name.as_str(), *level)));
        all.insert(ROOT, self.root);
        all.into_iter()
            .map(|(name, level)| (name.to_owned(), level.to_string().to_ascii_uppercase()))
            .collect()
    }

    fn filter(&self) -> Targets {
        let own = self.own.iter().map(|(name, level)| (name.clone(), *level));
        Targets::new().with_targets(own).with_default(self.root)
    }
}

/// The log of this process.
#[derive(Debug)]
pub struct Telemetry {
    levels: Mutex<Levels>,
    filter: reload::Handle<Targets, Registry>,
}

impl Telemetry {
    /// Sends what is logged from now on to standard error. In a process that logs elsewhere already, as tests do, that
    /// stays as it is.
    #[must_use]
    pub fn start(format: LogFormat, levels: Levels) -> Self {
        let (filter, handle) = reload::Layer::new(levels.filter());
        let lines = match format {
            LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
            LogFormat::Json => fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).boxed(),
        };
        if tracing_subscriber::registry().with(filter).with(lines).try_init().is_err() {
            tracing::debug!("this process logs elsewhere already");
        }
        Self { levels: Mutex::new(levels), filter: handle }
    }

    /// The levels that hold.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes levels, all or none.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be set.
    pub fn change(&self, changes: &[(String, Option<String>)]) -> Result<(), LevelError> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = levels.clone();
        for (name, level) in changes {
            next.set(name, level.as_deref())?;
        }
        if self.filter.reload(next.filter()).is_err() {
            tracing::debug!("this process logs elsewhere");
        }
        *levels = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_for_all_and_for_parts() {
        let levels = Levels::read("warn, klamm_log=debug").unwrap();
        let all = levels.all();
        let level_of =
            |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, level)| level.clone());
        assert_eq!(level_of("root").as_deref(), Some("WARN"));
        assert_eq!(level_of("klamm_log").as_deref(), Some("DEBUG"));
        assert_eq!(level_of("klamm_broker").as_deref(), Some("WARN"));
        assert_eq!(Levels::read("loud"), Err(LevelError::NoLevel { text: "loud".to_owned() }));
        assert_eq!(Levels::read("a b=info"), Err(LevelError::NoLogger { text: "a b".to_owned() }));
    }

    /// openraft calls it an error when a call comes to its core after the end, which every orderly stop can bring.
    #[test]
    fn only_what_fails_in_the_core_of_the_quorum_is_an_error() {
        use tracing::Level;
        let filter = Levels::read("info").unwrap().filter();
        for part in ["openraft::core::raft_core", "openraft::core::sm::worker", "openraft::storage::helper"] {
            assert!(
                filter.would_enable(part, &Level::ERROR) && !filter.would_enable(part, &Level::WARN),
                "{part}"
            );
        }
        for part in ["openraft::raft", "openraft::raft::raft_inner", "openraft::storage::callback"] {
            assert!(!filter.would_enable(part, &Level::ERROR), "{part}");
        }
    }

    #[test]
    fn changes_are_made_all_or_none() {
        let telemetry = Telemetry::start(LogFormat::Text, Levels::read("info").unwrap());
        let change = |name: &str, level: Option<&str>| (name.to_owned(), level.map(str::to_owned));
        let before = telemetry.levels();
        let bad = [change("klamm_log", Some("debug")), change("klamm_rpc", Some("loud"))];
        assert!(telemetry.change(&bad).is_err());
        assert_eq!(telemetry.levels(), before);
        telemetry.change(&[change("klamm_log", Some("DEBUG"))]).unwrap();
        assert_ne!(telemetry.levels(), before);
        telemetry.change(&[change("klamm_log", None)]).unwrap();
        assert_eq!(telemetry.levels(), before);
    }

    #[test]
    fn the_number_of_levels_is_bounded() {
        let mut levels = Levels::read("info").unwrap();
        let added =
            (0..2 * LEVELS_MAX).filter(|n| levels.set(&format!("l{n}"), Some("info")).is_ok()).count();
        assert_eq!(added, LEVELS_MAX - QUIET.len());
    }
}
