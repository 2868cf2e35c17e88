//! The table of topic settings.

use klamm_record::{Codec, TimestampType};
use klamm_types::{BrokerId, PartitionId};

use super::{CleanupPolicy, LogConfig, ThrottledReplicas};

/// The type of a setting, as DescribeConfigs tells it to clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// 32 bits, signed.
    Int,
    /// 64 bits, signed.
    Long,
    /// A floating-point number of 64 bits.
    Double,
    /// A text.
    String,
    /// Texts with commas between them.
    List,
}

/// A broker property that gives a topic setting its default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrokerSynonym {
    /// The property's name.
    pub name: &'static str,
    /// What its unit is in the setting's: 1, or the milliseconds in a minute or an hour.
    pub millis: i64,
}

/// One topic setting.
#[derive(Debug)]
pub struct TopicConfigDef {
    /// Its name in Kafka.
    pub name: &'static str,
    /// Its default where no broker property gives another, as text.
    pub default: &'static str,
    /// The broker properties that give its default, the one that wins first. Empty if none does.
    pub broker_synonyms: &'static [BrokerSynonym],
    /// What it means.
    pub doc: &'static str,
    slot: Slot,
}

/// Why a value is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Invalid,
    NotSupported,
}

/// How the text of a setting is read, and where its value is kept.
#[derive(Debug)]
enum Slot {
    Flag {
        get: fn(&LogConfig) -> bool,
        set: fn(&mut LogConfig, bool),
    },
    Number {
        kind: ConfigKind,
        least: i64,
        most: i64,
        get: fn(&LogConfig) -> i64,
        set: fn(&mut LogConfig, i64),
    },
    GzipLevel,
    DirtyRatio,
    Cleanup,
    CompressionType,
    TimestampKind,
    Throttle {
        get: fn(&LogConfig) -> &ThrottledReplicas,
        set: fn(&mut LogConfig, ThrottledReplicas),
    },
    /// Belongs to tiered storage: a value of this kind, and only the default is supported.
    Tiering {
        kind: ConfigKind,
        least: i64,
    },
}

const CODECS: [(&str, Option<Codec>); 6] = [
    ("uncompressed", Some(Codec::None)),
    ("zstd", Some(Codec::Zstd)),
    ("lz4", Some(Codec::Lz4)),
    ("snappy", Some(Codec::Snappy)),
    ("gzip", Some(Codec::Gzip)),
    ("producer", None),
];
const TIMESTAMP_TYPES: [(&str, TimestampType); 2] =
    [("CreateTime", TimestampType::CreateTime), ("LogAppendTime", TimestampType::LogAppendTime)];

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
const INT_MAX: i64 = i32::MAX as i64;

impl TopicConfigDef {
    /// The setting of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        definitions().iter().find(|def| def.name == name)
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ConfigKind {
        match self.slot {
            Slot::Flag { .. } => ConfigKind::Boolean,
            Slot::Number { kind, .. } | Slot::Tiering { kind, .. } => kind,
            Slot::GzipLevel => ConfigKind::Int,
            Slot::DirtyRatio => ConfigKind::Double,
            Slot::CompressionType | Slot::TimestampKind => ConfigKind::String,
            Slot::Cleanup | Slot::Throttle { .. } => ConfigKind::List,
        }
    }

    /// Which values are allowed, as the end of the sentence "must be ...".
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.slot {
            Slot::Flag { .. } | Slot::Tiering { kind: ConfigKind::Boolean, .. } => "true or false".to_owned(),
            Slot::Number { kind, least, most, .. } => range_text(kind, least, most),
            Slot::Tiering { kind, least } => range_text(kind, least, i64::MAX),
            Slot::GzipLevel => "an integer from 1 to 9, or -1".to_owned(),
            Slot::DirtyRatio => "a number from 0 to 1".to_owned(),
            Slot::Cleanup => "a list of compact and delete, or empty".to_owned(),
            Slot::CompressionType => format!("one of {}", CODECS.map(|(name, _)| name).join(", ")),
            Slot::TimestampKind => format!("one of {}", TIMESTAMP_TYPES.map(|(name, _)| name).join(", ")),
            Slot::Throttle { .. } => "a list of partition:broker pairs, or *".to_owned(),
        }
    }

    /// Its value in `config`, as text.
    #[must_use]
    pub fn value_in(&self, config: &LogConfig) -> String {
        match &self.slot {
            Slot::Flag { get, .. } => get(config).to_string(),
            Slot::Number { get, .. } => get(config).to_string(),
            Slot::GzipLevel => config.gzip_level.to_string(),
            Slot::DirtyRatio => config.min_cleanable_dirty_ratio.to_string(),
            Slot::Cleanup => config.cleanup_policy.to_string(),
            Slot::CompressionType => name_of(&CODECS, config.compression_type),
            Slot::TimestampKind => name_of(&TIMESTAMP_TYPES, config.message_timestamp_type),
            Slot::Throttle { get, .. } => get(config).to_string(),
            Slot::Tiering { .. } => self.default.to_owned(),
        }
    }

    /// Sets its value in `config`.
    pub(super) fn set(&self, config: &mut LogConfig, text: &str) -> Result<(), Refusal> {
        self.set_scaled(config, text, 1)
    }

    /// Sets its value in `config` from one that is given in units of `scale`.
    pub(super) fn set_scaled(&self, config: &mut LogConfig, text: &str, scale: i64) -> Result<(), Refusal> {
        let text = text.trim();
        match &self.slot {
            Slot::Flag { set, .. } => set(config, flag(text)?),
            Slot::Number { kind, least, most, set, .. } => {
                let number = scaled(integer(*kind, text)?, scale);
                set(config, within(number, *least, *most)?);
            }
            Slot::GzipLevel => {
                let level = integer(ConfigKind::Int, text)?;
                config.gzip_level = if level == -1 { -1 } else { within(level, 1, 9)? as i32 };
            }
            Slot::DirtyRatio => {
                let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
                config.min_cleanable_dirty_ratio = ratio.ok_or(Refusal::Invalid)?;
            }
            Slot::Cleanup => config.cleanup_policy = cleanup_policy(text)?,
            Slot::CompressionType => config.compression_type = choice(&CODECS, text)?,
            Slot::TimestampKind => config.message_timestamp_type = choice(&TIMESTAMP_TYPES, text)?,
            Slot::Throttle { set, .. } => set(config, throttled_replicas(text)?),
            Slot::Tiering { kind, least } => self.check_tiering(*kind, *least, text)?,
        }
        Ok(())
    }

    fn check_tiering(&self, kind: ConfigKind, least: i64, text: &str) -> Result<(), Refusal> {
        let canonical = match kind {
            ConfigKind::Boolean => flag(text)?.to_string(),
            _ => within(integer(kind, text)?, least, i64::MAX)?.to_string(),
        };
        if canonical == self.default { Ok(()) } else { Err(Refusal::NotSupported) }
    }
}

fn range_text(kind: ConfigKind, least: i64, most: i64) -> String {
    match (kind, least, most) {
        (ConfigKind::Int, _, INT_MAX) => format!("an integer of 32 bits, at least {least}"),
        (_, i64::MIN, i64::MAX) => "an integer of 64 bits".to_owned(),
        (_, _, i64::MAX) => format!("an integer of 64 bits, at least {least}"),
        _ => format!("an integer from {least} to {most}"),
    }
}

fn name_of<T: PartialEq>(names: &[(&str, T)], value: T) -> String {
    names.iter().find(|(_, named)| *named == value).map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

fn choice<T: Copy>(names: &[(&str, T)], text: &str) -> Result<T, Refusal> {
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or(Refusal::Invalid)
}

fn flag(text: &str) -> Result<bool, Refusal> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(Refusal::Invalid),
    }
}

fn integer(kind: ConfigKind, text: &str) -> Result<i64, Refusal> {
    let parsed = if kind == ConfigKind::Int { text.parse::<i32>().map(i64::from) } else { text.parse() };
    parsed.map_err(|_| Refusal::Invalid)
}

fn within(number: i64, least: i64, most: i64) -> Result<i64, Refusal> {
    if (least..=most).contains(&number) { Ok(number) } else { Err(Refusal::Invalid) }
}

/// A number of minutes or hours in milliseconds; any negative one is -1, "no limit", as in Kafka.
fn scaled(number: i64, scale: i64) -> i64 {
    if scale > 1 && number < 0 { -1 } else { number.saturating_mul(scale) }
}

/// The parts of a list. An empty part is refused, an empty text is the empty list.
fn list(text: &str) -> Result<Vec<&str>, Refusal> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let part = |part: &'_ str| !part.trim().is_empty();
    if text.split(',').all(part) {
        Ok(text.split(',').map(str::trim).collect())
    } else {
        Err(Refusal::Invalid)
    }
}

fn cleanup_policy(text: &str) -> Result<CleanupPolicy, Refusal> {
    let mut policy = CleanupPolicy { delete: false, compact: false };
    for part in list(text)? {
        match part {
            "delete" => policy.delete = true,
            "compact" => policy.compact = true,
            _ => return Err(Refusal::Invalid),
        }
    }
    Ok(policy)
}

fn throttled_replicas(text: &str) -> Result<ThrottledReplicas, Refusal> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i32>().ok().filter(|_| digits)
    };
    let replica = |part: &str| {
        let (partition, broker) = part.split_once(':')?;
        Some((PartitionId(number(partition)?), BrokerId(number(broker)?)))
    };
    // Commas with nothing between them are Kafka's, too.
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => Ok(ThrottledReplicas::None),
        ["*"] => Ok(ThrottledReplicas::All),
        parts => {
            let replicas: Option<Vec<_>> = parts.iter().map(|part| replica(part)).collect();
            Ok(ThrottledReplicas::Some(replicas.ok_or(Refusal::Invalid)?.into()))
        }
    }
}

macro_rules! number {
    ($kind:ident, $field:ident: $int:ty, $least:expr, $most:expr) => {
        Slot::Number {
            kind: ConfigKind::$kind,
            least: $least,
            most: $most,
            get: |config| i64::from(config.$field),
            set: |config, number| config.$field = number as $int,
        }
    };
}

macro_rules! int {
    ($field:ident, $least:expr) => {
        number!(Int, $field: u32, $least, INT_MAX)
    };
}

macro_rules! long {
    ($field:ident, $least:expr) => {
        number!(Long, $field: i64, $least, i64::MAX)
    };
}

macro_rules! flag {
    ($field:ident) => {
        Slot::Flag { get: |config| config.$field, set: |config, flag| config.$field = flag }
    };
}

macro_rules! throttle {
    ($field:ident) => {
        Slot::Throttle { get: |config| &config.$field, set: |config, replicas| config.$field = replicas }
    };
}

macro_rules! table {
    ($($name:literal $default:literal $(<- $($broker:literal $(* $millis:ident)?),+)? ; $slot:expr ; $doc:literal)+) => {
        &[$(TopicConfigDef {
            name: $name,
            default: $default,
            broker_synonyms: &[$($(BrokerSynonym { name: $broker, millis: 1 $(* $millis)? }),+)?],
            doc: $doc,
            slot: $slot,
        }),+]
    };
}

/// All topic settings, sorted by name: those of Kafka 4.3, and `write.caching` of our own.
#[must_use]
pub fn definitions() -> &'static [TopicConfigDef] {
    DEFINITIONS
}

/// Name, default, broker properties; type, bounds and place; meaning.
static DEFINITIONS: &[TopicConfigDef] = table! {
    "cleanup.policy" "delete" <- "log.cleanup.policy"; Slot::Cleanup;
    "What happens to old records: delete drops segments past the retention limits, compact keeps the newest record \
     of each key. Both may be given. Empty keeps everything."

    "compression.gzip.level" "-1" <- "compression.gzip.level"; Slot::GzipLevel;
    "Level at which compression.type=gzip compresses; -1 is the library's choice."

    "compression.lz4.level" "9" <- "compression.lz4.level"; number!(Int, lz4_level: i32, 1, 17);
    "Level at which compression.type=lz4 compresses."

    "compression.type" "producer" <- "compression.type"; Slot::CompressionType;
    "Codec that batches are stored in. producer keeps what the producer chose."

    "compression.zstd.level" "3" <- "compression.zstd.level"; number!(Int, zstd_level: i32, -131_072, 22);
    "Level at which compression.type=zstd compresses."

    "delete.retention.ms" "86400000" <- "log.cleaner.delete.retention.ms"; long!(delete_retention_ms, 0);
    "Milliseconds for which a compacted topic keeps a tombstone, so that a reader from the start sees it."

    "file.delete.delay.ms" "60000" <- "log.segment.delete.delay.ms"; long!(file_delete_delay_ms, 0);
    "Milliseconds for which a deleted segment's files stay on the disk."

    "flush.messages" "9223372036854775807" <- "log.flush.interval.messages";
    Slot::Number {
        kind: ConfigKind::Long,
        least: 1,
        most: i64::MAX,
        get: |config| i64::try_from(config.flush_messages).unwrap_or(i64::MAX),
        set: |config, number| config.flush_messages = number.unsigned_abs(),
    };
    "Unflushed records of a partition that force a flush. Matters where write.caching is on."

    "flush.ms" "9223372036854775807" <- "log.flush.interval.ms", "log.flush.scheduler.interval.ms";
    long!(flush_ms, 0);
    "Milliseconds after which an unflushed record forces a flush. Matters where write.caching is on."

    "follower.replication.throttled.replicas" ""; throttle!(follower_throttled_replicas);
    "Replicas whose fetching counts against the follower's replication quota: partition:broker pairs, or * for all."

    "index.interval.bytes" "4096" <- "log.index.interval.bytes"; int!(index_interval_bytes, 0);
    "Bytes of the log between two entries of the offset index."

    "leader.replication.throttled.replicas" ""; throttle!(leader_throttled_replicas);
    "Replicas whose serving counts against the leader's replication quota: partition:broker pairs, or * for all."

    "local.retention.bytes" "-2" <- "log.local.retention.bytes";
    Slot::Tiering { kind: ConfigKind::Long, least: -2 };
    "Bytes of a partition that tiered storage keeps on the broker; -2 stands for retention.bytes."

    "local.retention.ms" "-2" <- "log.local.retention.ms"; Slot::Tiering { kind: ConfigKind::Long, least: -2 };
    "Milliseconds for which tiered storage keeps segments on the broker; -2 stands for retention.ms."

    "max.compaction.lag.ms" "9223372036854775807" <- "log.cleaner.max.compaction.lag.ms";
    long!(max_compaction_lag_ms, 1);
    "Milliseconds after which a record of a compacted topic must become eligible for compaction."

    "max.message.bytes" "1048588" <- "message.max.bytes"; int!(max_message_bytes, 0);
    "Largest batch that is accepted, in bytes, after compression and with its header."

    "message.timestamp.after.max.ms" "3600000" <- "log.message.timestamp.after.max.ms";
    long!(message_timestamp_after_max_ms, 0);
    "Milliseconds by which a record's CreateTime may be ahead of the broker's clock."

    "message.timestamp.before.max.ms" "9223372036854775807" <- "log.message.timestamp.before.max.ms";
    long!(message_timestamp_before_max_ms, 0);
    "Milliseconds by which a record's CreateTime may be behind the broker's clock."

    "message.timestamp.type" "CreateTime" <- "log.message.timestamp.type"; Slot::TimestampKind;
    "Whose time records carry: the producer's (CreateTime) or the broker's (LogAppendTime)."

    "min.cleanable.dirty.ratio" "0.5" <- "log.cleaner.min.cleanable.ratio"; Slot::DirtyRatio;
    "Part of a compacted log, by bytes, that must be uncompacted before compaction starts."

    "min.compaction.lag.ms" "0" <- "log.cleaner.min.compaction.lag.ms"; long!(min_compaction_lag_ms, 0);
    "Milliseconds for which a record stays uncompacted."

    "min.insync.replicas" "1" <- "min.insync.replicas"; int!(min_insync_replicas, 1);
    "Replicas, the leader included, that must have a record before acks=all is answered; with fewer in sync, such \
     writes are refused."

    "preallocate" "false" <- "log.preallocate"; flag!(preallocate);
    "Whether a new segment takes its whole space on the disk at once."

    "remote.log.copy.disable" "false"; Slot::Tiering { kind: ConfigKind::Boolean, least: 0 };
    "Whether tiered storage stops copying this topic's segments."

    "remote.log.delete.on.disable" "false"; Slot::Tiering { kind: ConfigKind::Boolean, least: 0 };
    "Whether remote segments are deleted when tiered storage is switched off for the topic."

    "remote.storage.enable" "false"; Slot::Tiering { kind: ConfigKind::Boolean, least: 0 };
    "Whether the topic uses tiered storage."

    "retention.bytes" "-1" <- "log.retention.bytes";
    Slot::Number {
        kind: ConfigKind::Long,
        least: i64::MIN,
        most: i64::MAX,
        get: |config| config.retention_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        set: |config, number| config.retention_bytes = u64::try_from(number).ok(),
    };
    "Size of a partition, in bytes, above which its oldest segments are deleted; negative for no limit."

    "retention.ms" "604800000" <- "log.retention.ms", "log.retention.minutes" * MINUTE_MS,
        "log.retention.hours" * HOUR_MS;
    Slot::Number {
        kind: ConfigKind::Long,
        least: -1,
        most: i64::MAX,
        get: |config| config.retention_ms.unwrap_or(-1),
        set: |config, number| config.retention_ms = (number >= 0).then_some(number),
    };
    "Milliseconds after which a segment is deleted, counted from its newest record; -1 for no limit."

    "segment.bytes" "1073741824" <- "log.segment.bytes"; int!(segment_bytes, 1 << 20);
    "Size at which a segment is closed and the next begun, in bytes."

    "segment.index.bytes" "10485760" <- "log.index.size.max.bytes"; int!(segment_index_bytes, 4);
    "Largest size of an index file, in bytes; a full index rolls the segment."

    "segment.jitter.ms" "0" <- "log.roll.jitter.ms", "log.roll.jitter.hours" * HOUR_MS;
    long!(segment_jitter_ms, 0);
    "Most milliseconds by which rolling by segment.ms comes early, so that not all partitions roll at once."

    "segment.ms" "604800000" <- "log.roll.ms", "log.roll.hours" * HOUR_MS; long!(segment_ms, 1);
    "Milliseconds after which a segment is closed even if it is not full, so that retention can delete it."

    "unclean.leader.election.enable" "false" <- "unclean.leader.election.enable"; flag!(unclean_leader_election);
    "Whether a replica that lacks acknowledged records may become leader when no other is left. Loses data."

    "write.caching" "false" <- "klamm.write.caching"; flag!(write_caching);
    "Whether records are acknowledged from the page cache, before they are on the disk. Faster, and a power cut of \
     all replicas may lose acknowledged records."
};
