//! Other names under which a setting can be given.

/// Another name for a setting, and what its unit is in the setting's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synonym {
    /// The other name: a setting of [`crate::Table::Server`].
    pub name: &'static str,
    /// A value of the other setting times this is one of the setting: 1, or the milliseconds of a minute or an hour.
    pub factor: i64,
}

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

macro_rules! one {
    ($name:literal) => {
        const { &[same($name)] }
    };
}

const LOG_DIRS: &[Synonym] = &[same("log.dirs"), same("log.dir")];
const RETENTION: &[Synonym] = &[
    same("log.retention.ms"),
    Synonym { name: "log.retention.minutes", factor: MINUTE_MS },
    Synonym { name: "log.retention.hours", factor: HOUR_MS },
];
const ROLL: &[Synonym] = &[same("log.roll.ms"), Synonym { name: "log.roll.hours", factor: HOUR_MS }];
const ROLL_JITTER: &[Synonym] =
    &[same("log.roll.jitter.ms"), Synonym { name: "log.roll.jitter.hours", factor: HOUR_MS }];
const FLUSH: &[Synonym] = &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")];

/// Where the default of a topic's setting comes from: settings of the server, the one that wins first. Empty for a
/// setting that only topics have.
#[must_use]
pub fn topic_synonyms(name: &str) -> &'static [Synonym] {
    match name {
        "cleanup.policy" => one!("log.cleanup.policy"),
        "compression.gzip.level" => one!("compression.gzip.level"),
        "compression.lz4.level" => one!("compression.lz4.level"),
        "compression.type" => one!("compression.type"),
        "compression.zstd.level" => one!("compression.zstd.level"),
        "delete.retention.ms" => one!("log.cleaner.delete.retention.ms"),
        "file.delete.delay.ms" => one!("log.segment.delete.delay.ms"),
        "flush.messages" => one!("log.flush.interval.messages"),
        "flush.ms" => FLUSH,
        "index.interval.bytes" => one!("log.index.interval.bytes"),
        "local.retention.bytes" => one!("log.local.retention.bytes"),
        "local.retention.ms" => one!("log.local.retention.ms"),
        "max.compaction.lag.ms" => one!("log.cleaner.max.compaction.lag.ms"),
        "max.message.bytes" => one!("message.max.bytes"),
        "message.timestamp.after.max.ms" => one!("log.message.timestamp.after.max.ms"),
        "message.timestamp.before.max.ms" => one!("log.message.timestamp.before.max.ms"),
        "message.timestamp.type" => one!("log.message.timestamp.type"),
        "min.cleanable.dirty.ratio" => one!("log.cleaner.min.cleanable.ratio"),
        "min.compaction.lag.ms" => one!("log.cleaner.min.compaction.lag.ms"),
        "min.insync.replicas" => one!("min.insync.replicas"),
        "preallocate" => one!("log.preallocate"),
        "retention.bytes" => one!("log.retention.bytes"),
        "retention.ms" => RETENTION,
        "segment.bytes" => one!("log.segment.bytes"),
        "segment.index.bytes" => one!("log.index.size.max.bytes"),
        "segment.jitter.ms" => ROLL_JITTER,
        "segment.ms" => ROLL,
        "unclean.leader.election.enable" => one!("unclean.leader.election.enable"),
        "write.caching" => one!("klamm.write.caching"),
        _ => &[],
    }
}

/// The names under which a setting of the server can be given, the one that wins first: its own, and those of other
/// units. Empty for a setting that is known by its own name alone.
#[must_use]
pub fn server_synonyms(name: &str) -> &'static [Synonym] {
    match name {
        "log.retention.ms" => RETENTION,
        "log.roll.ms" => ROLL,
        "log.roll.jitter.ms" => ROLL_JITTER,
        "log.flush.interval.ms" => FLUSH,
        "log.dirs" => LOG_DIRS,
        _ => &[],
    }
}
