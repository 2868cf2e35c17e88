//! The settings of a topic, by Kafka's names (version 4.3), typed and checked.
//!
//! One table, [`definitions`], says for every setting its name, type, default, bounds, meaning and the broker
//! property that its default comes from. A [`LogConfig`] is what a partition works with. It is plain data: the broker
//! derives it from its own properties and the topic's overrides, and shares it between partitions in an `Arc`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use klamm_record::{Codec, Compression, TimestampType};
use klamm_types::{BrokerId, PartitionId};

mod definitions;

use definitions::Refusal;
pub use definitions::{BrokerSynonym, ConfigKind, TopicConfigDef, definitions};

/// The settings of one topic. [`Default`] gives Kafka's defaults; [`check`](Self::check) tells what may be set.
///
/// Durations are in milliseconds, sizes in bytes. `i64::MAX` as a duration means "never".
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `cleanup.policy`: what happens to old records.
    pub cleanup_policy: CleanupPolicy,
    /// `compression.type`: the codec that batches are stored in; `None` keeps the producer's.
    pub compression_type: Option<Codec>,
    /// `compression.gzip.level`: 1..=9, or -1 for the library's choice.
    pub gzip_level: i32,
    /// `compression.lz4.level`: 1..=17.
    pub lz4_level: i32,
    /// `compression.zstd.level`: -131072..=22.
    pub zstd_level: i32,
    /// `delete.retention.ms`: how long a compacted topic keeps a tombstone, from 0.
    pub delete_retention_ms: i64,
    /// `file.delete.delay.ms`: how long a file that was taken out of a log stays on the disk, from 0.
    pub file_delete_delay_ms: i64,
    /// `flush.messages`: unflushed records of a partition that force a flush, from 1.
    pub flush_messages: u64,
    /// `flush.ms`: age of the oldest unflushed record that forces a flush, from 0.
    pub flush_ms: i64,
    /// `follower.replication.throttled.replicas`: where fetching by followers is throttled.
    pub follower_throttled_replicas: ThrottledReplicas,
    /// `index.interval.bytes`: bytes of the log between two index entries, from 0.
    pub index_interval_bytes: u32,
    /// `leader.replication.throttled.replicas`: where serving followers is throttled.
    pub leader_throttled_replicas: ThrottledReplicas,
    /// `max.compaction.lag.ms`: age at which a record must have been considered for compaction, from 1.
    pub max_compaction_lag_ms: i64,
    /// `max.message.bytes`: largest batch, its header included, that a producer may append.
    pub max_message_bytes: u32,
    /// `message.timestamp.after.max.ms`: how far past the broker's clock a record's time may be, from 0.
    pub message_timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`: how far before the broker's clock a record's time may be, from 0.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.type`: whose time a record carries.
    pub message_timestamp_type: TimestampType,
    /// `min.cleanable.dirty.ratio`: part of the log that must be uncompacted before compaction starts, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: age below which a record is not compacted, from 0.
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`: replicas that must have a record before `acks=all` is answered, from 1.
    pub min_insync_replicas: u32,
    /// `preallocate`: whether a new segment takes its whole space at once.
    pub preallocate: bool,
    /// `retention.bytes`: size above which the oldest segments of a partition go; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`: age at which segments go, from 0; `None` for no limit.
    pub retention_ms: Option<i64>,
    /// `segment.bytes`: size at which a segment is rolled, from 1 MiB if it comes from a setting.
    pub segment_bytes: u32,
    /// `segment.index.bytes`: largest size of an index file, from 4.
    pub segment_index_bytes: u32,
    /// `segment.jitter.ms`: most time by which rolling by age comes early, from 0.
    pub segment_jitter_ms: i64,
    /// `segment.ms`: age at which a segment is rolled, from 1.
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`: whether a replica that lacks acknowledged records may lead.
    pub unclean_leader_election: bool,
    /// `write.caching` (ours): acknowledge records that are in the page cache, as Kafka does, instead of on the disk.
    pub write_caching: bool,
}

/// What happens to old records; neither means that all are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanupPolicy {
    /// Segments past the retention limits are deleted.
    pub delete: bool,
    /// Only the newest record of each key is kept.
    pub compact: bool,
}

/// Replicas to which a replication quota applies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// All of the topic (`*`).
    All,
    /// These replicas.
    Some(Arc<[(PartitionId, BrokerId)]>),
}

/// Settings that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no setting of this name.
    #[error("unknown topic setting {name}{}", did_you_mean(*nearest))]
    UnknownName {
        /// The name, cut to [`ConfigError::TEXT_LEN_MAX`].
        name: String,
        /// The known name that looks most like it, if one does.
        nearest: Option<&'static str>,
    },
    /// The value is not of the setting's type, or out of its bounds.
    #[error("invalid value {value:?} for {name}: must be {allowed}")]
    InvalidValue {
        /// The topic setting, or the broker property that its default comes from.
        name: &'static str,
        /// The value, cut to [`ConfigError::TEXT_LEN_MAX`].
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The value means something in Kafka that is not built here.
    #[error("value {value:?} for {name} is not supported yet: only the default, {default}, is")]
    NotSupported {
        /// The setting.
        name: &'static str,
        /// The value.
        value: String,
        /// The only value that is supported.
        default: &'static str,
    },
    /// Records would have to be compacted before they may be.
    #[error("min.compaction.lag.ms ({min_ms}) is greater than max.compaction.lag.ms ({max_ms})")]
    CompactionLags {
        /// `min.compaction.lag.ms`.
        min_ms: i64,
        /// `max.compaction.lag.ms`.
        max_ms: i64,
    },
}

fn did_you_mean(nearest: Option<&'static str>) -> String {
    nearest.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// Kafka's hidden setting for its own tests, which may be smaller than `segment.bytes`, and wins over it.
const INTERNAL_SEGMENT_BYTES: &str = "internal.segment.bytes";

impl ConfigError {
    /// The most characters of a foreign text that an error repeats.
    pub const TEXT_LEN_MAX: usize = 256;

    /// Whether the same settings could be accepted later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    fn cut(text: &str) -> String {
        text.chars().take(Self::TEXT_LEN_MAX).collect()
    }

    fn unknown(name: &str) -> Self {
        Self::UnknownName { name: Self::cut(name), nearest: nearest_name(name) }
    }

    fn refused(refusal: Refusal, name: &'static str, value: &str, def: &TopicConfigDef) -> Self {
        let value = Self::cut(value);
        match refusal {
            Refusal::Invalid => Self::InvalidValue { name, value, allowed: def.allowed() },
            Refusal::NotSupported => Self::NotSupported { name, value, default: def.default },
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            compression_type: None,
            gzip_level: -1,
            lz4_level: 9,
            zstd_level: 3,
            delete_retention_ms: 86_400_000,
            file_delete_delay_ms: 60_000,
            flush_messages: i64::MAX as u64,
            flush_ms: i64::MAX,
            follower_throttled_replicas: ThrottledReplicas::None,
            index_interval_bytes: 4096,
            leader_throttled_replicas: ThrottledReplicas::None,
            max_compaction_lag_ms: i64::MAX,
            max_message_bytes: 1_048_588,
            message_timestamp_after_max_ms: 3_600_000,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_type: TimestampType::CreateTime,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            min_insync_replicas: 1,
            preallocate: false,
            retention_bytes: None,
            retention_ms: Some(604_800_000),
            segment_bytes: 1_073_741_824,
            segment_index_bytes: 10_485_760,
            segment_jitter_ms: 0,
            segment_ms: 604_800_000,
            unclean_leader_election: false,
            write_caching: false,
        }
    }
}

impl LogConfig {
    /// The settings `base` with a topic's own on top; of a name that is given twice, the last value holds. What does not
    /// read is left out, and both compaction lags where they contradict one another, but nothing else. Returns what was
    /// left out, too: it was refused when it was set, or should have been.
    pub fn from_overrides<'a>(
        base: &Self,
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Vec<ConfigError>) {
        let (mut config, mut errors) = (base.clone(), Vec::new());
        let mut internal_segment_bytes = None;
        for (name, value) in overrides {
            let set = match TopicConfigDef::find(name) {
                Some(def) => {
                    def.set(&mut config, value).map_err(|e| ConfigError::refused(e, def.name, value, def))
                }
                None if name == INTERNAL_SEGMENT_BYTES => {
                    let bytes = value.trim().parse::<i32>().ok().and_then(|bytes| u32::try_from(bytes).ok());
                    internal_segment_bytes = bytes.filter(|bytes| *bytes > 0);
                    Ok(())
                }
                None => Err(ConfigError::unknown(name)),
            };
            errors.extend(set.err());
        }
        config.segment_bytes = internal_segment_bytes.unwrap_or(config.segment_bytes);
        config.settle_lags(base, &mut errors);
        (config, errors)
    }

    /// Checks one setting of a topic by itself.
    ///
    /// # Errors
    /// [`ConfigError`]. A setting that is unknown here is none: others judge of its name.
    pub fn check(name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(def) = TopicConfigDef::find(name) else { return Ok(()) };
        let set = def.set(&mut Self::default(), value);
        set.map_err(|e| ConfigError::refused(e, def.name, value, def))
    }

    /// Checks one property of a broker by itself, if it gives topics a default.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check_broker_property(name: &str, value: &str) -> Result<(), ConfigError> {
        for def in definitions() {
            for synonym in def.broker_synonyms.iter().filter(|synonym| synonym.name == name) {
                let set = def.set_scaled(&mut Self::default(), value, synonym.millis);
                set.map_err(|e| ConfigError::refused(e, synonym.name, value, def))?;
            }
        }
        Ok(())
    }

    /// Where the lags contradict one another, those of `base` hold.
    fn settle_lags(&mut self, base: &Self, errors: &mut Vec<ConfigError>) {
        if let Err(error) = self.validate() {
            errors.push(error);
            self.min_compaction_lag_ms = base.min_compaction_lag_ms;
            self.max_compaction_lag_ms = base.max_compaction_lag_ms;
        }
    }

    /// The defaults of a broker: of each setting, the first of its [`TopicConfigDef::broker_synonyms`] that
    /// `properties` has, otherwise Kafka's default. Other properties are none of its business.
    ///
    /// # Errors
    /// The first [`ConfigError`], with the broker's name for the setting.
    pub fn from_broker_properties(properties: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let (config, errors) = Self::from_kept_broker_properties(properties);
        errors.into_iter().next().map_or(Ok(config), Err)
    }

    /// As [`from_broker_properties`](Self::from_broker_properties), for properties that are in force already: what
    /// does not read is left out, as by [`from_overrides`](Self::from_overrides).
    #[must_use]
    pub fn from_kept_broker_properties(properties: &BTreeMap<String, String>) -> (Self, Vec<ConfigError>) {
        let (mut config, mut errors) = (Self::default(), Vec::new());
        for def in definitions() {
            let given = |synonym: &'static BrokerSynonym| Some((synonym, properties.get(synonym.name)?));
            let Some((synonym, value)) = def.broker_synonyms.iter().find_map(given) else { continue };
            let set = def.set_scaled(&mut config, value, synonym.millis);
            errors.extend(set.map_err(|e| ConfigError::refused(e, synonym.name, value, def)).err());
        }
        config.settle_lags(&Self::default(), &mut errors);
        (config, errors)
    }

    /// The rules that involve more than one setting.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.min_compaction_lag_ms > self.max_compaction_lag_ms {
            let (min_ms, max_ms) = (self.min_compaction_lag_ms, self.max_compaction_lag_ms);
            return Err(ConfigError::CompactionLags { min_ms, max_ms });
        }
        Ok(())
    }

    /// What batches are stored in: codec and level, or `None` to store them as the producer compressed them.
    ///
    /// A level that the codec does not have (the fields are public) counts as the codec's default.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        let codec = self.compression_type?;
        let level = match codec {
            Codec::Gzip => self.gzip_level,
            Codec::Lz4 => self.lz4_level,
            Codec::Zstd => self.zstd_level,
            Codec::None | Codec::Snappy => 0,
        };
        Some(Compression::new(codec, level).unwrap_or_else(|_| codec.into()))
    }
}

/// The known name with the least edits to `name`, if they are at most a third of it.
fn nearest_name(name: &str) -> Option<&'static str> {
    const NAME_LEN_MAX: usize = 64;
    if name.len() > NAME_LEN_MAX {
        return None;
    }
    let edits =
        |def: &'static TopicConfigDef| (edit_distance(name.as_bytes(), def.name.as_bytes()), def.name);
    let (edits, nearest) = definitions().iter().map(edits).min()?;
    (3 * edits <= name.len()).then_some(nearest)
}

/// Insertions, deletions and replacements that turn one text into the other.
fn edit_distance(one: &[u8], other: &[u8]) -> usize {
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (b, cell) in other.iter().zip(1..) {
            let best = (diagonal + usize::from(a != b)).min(left + 1).min(above[cell] + 1);
            diagonal = above[cell];
            above[cell - 1] = left;
            left = best;
        }
        above[other.len()] = left;
    }
    above[other.len()]
}

impl fmt::Display for CleanupPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.compact, self.delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            (false, true) => "delete",
            (false, false) => "",
        })
    }
}

impl fmt::Display for ThrottledReplicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::All => f.write_str("*"),
            Self::Some(replicas) => {
                for (i, (partition, broker)) in replicas.iter().enumerate() {
                    write!(f, "{}{partition}:{broker}", if i == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
