//! The table: read once from the listings, one line per setting.
//!
//! A line has eight columns with `|` between them: name, type, default, allowed values, importance, scope, treatment,
//! meaning. The listings are part of the program, so a line that cannot be read is a bug, and a test reads them all.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::nearest::nearest;
use crate::setting::Allowed;
use crate::{Importance, Kind, Scope, Setting, Treatment};

/// Whose settings.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Table {
    /// Of a node: what `server.properties` can hold, and what can be changed for brokers while they run.
    Server,
    /// Of a topic.
    Topic,
    /// Of a group (the resource type GROUP).
    Group,
    /// Of a subscription to clients' metrics (KIP-714).
    ClientMetrics,
}

struct Listing {
    /// In the order of their names.
    settings: Vec<Setting>,
    by_name: HashMap<&'static str, usize>,
}

static SERVER: LazyLock<Listing> = LazyLock::new(|| {
    Listing::read(&[
        include_str!("../settings/server.table"),
        include_str!("../settings/security.table"),
        include_str!("../settings/klamm.table"),
    ])
});
static TOPIC: LazyLock<Listing> = LazyLock::new(|| Listing::read(&[include_str!("../settings/topic.table")]));
static GROUP: LazyLock<Listing> = LazyLock::new(|| Listing::read(&[include_str!("../settings/group.table")]));
static CLIENT_METRICS: LazyLock<Listing> =
    LazyLock::new(|| Listing::read(&[include_str!("../settings/client-metrics.table")]));

impl Table {
    fn listing(self) -> &'static Listing {
        match self {
            Self::Server => &SERVER,
            Self::Topic => &TOPIC,
            Self::Group => &GROUP,
            Self::ClientMetrics => &CLIENT_METRICS,
        }
    }

    /// All of its settings, in the order of their names.
    #[must_use]
    pub fn settings(self) -> &'static [Setting] {
        &self.listing().settings
    }

    /// The setting of this name.
    #[must_use]
    pub fn find(self, name: &str) -> Option<&'static Setting> {
        let listing = self.listing();
        listing.by_name.get(name).and_then(|at| listing.settings.get(*at))
    }

    /// The known name that looks most like `name`: at most a third of it differs. `None` if none does.
    #[must_use]
    pub fn nearest(self, name: &str) -> Option<&'static str> {
        self.nearest_with_edits(name).map(|(_, name)| name)
    }

    /// As [`nearest`](Self::nearest), with the number of edits between the two.
    pub(crate) fn nearest_with_edits(self, name: &str) -> Option<(usize, &'static str)> {
        nearest(name, self.settings().iter().filter(|setting| !setting.internal).map(|setting| setting.name))
    }
}

impl Listing {
    fn read(texts: &[&'static str]) -> Self {
        let lines = texts.iter().flat_map(|text| text.lines());
        let rows = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut settings: Vec<Setting> = rows
            .map(|line| {
                read_row(line).unwrap_or_else(|| panic!("the table of settings has a bad line: {line}"))
            })
            .collect();
        settings.sort_by_key(|setting| setting.name);
        let by_name = settings.iter().enumerate().map(|(at, setting)| (setting.name, at)).collect();
        Self { settings, by_name }
    }
}

fn read_row(line: &'static str) -> Option<Setting> {
    let columns: Vec<&'static str> = line.splitn(8, '|').map(str::trim).collect();
    let &[name, kind, default, allowed, importance, scope, treatment, doc] = columns.as_slice() else {
        return None;
    };
    let kind = read_kind(kind)?;
    let setting = Setting {
        name,
        kind,
        default: if matches!(default, "null" | "required") { None } else { Some(default) },
        required: default == "required",
        importance: read_importance(importance)?,
        scope: read_scope(scope.trim_end_matches("internal").trim())?,
        internal: scope.ends_with("internal"),
        treatment: read_treatment(treatment)?,
        doc: if doc.is_empty() { return None } else { doc },
        allowed: read_allowed(kind, allowed)?,
    };
    let default_fits = setting.default.is_none_or(|text| setting.parse(text).is_ok());
    default_fits.then_some(setting)
}

fn read_kind(text: &str) -> Option<Kind> {
    let kinds = [
        Kind::Boolean,
        Kind::Short,
        Kind::Int,
        Kind::Long,
        Kind::Double,
        Kind::String,
        Kind::List,
        Kind::Class,
        Kind::Password,
    ];
    kinds.into_iter().find(|kind| kind.to_string() == text)
}

fn read_importance(text: &str) -> Option<Importance> {
    Some(match text {
        "high" => Importance::High,
        "medium" => Importance::Medium,
        "low" => Importance::Low,
        _ => return None,
    })
}

fn read_scope(text: &str) -> Option<Scope> {
    Some(match text {
        "static" => Scope::ReadOnly,
        "broker" => Scope::PerBroker,
        "cluster" => Scope::ClusterWide,
        _ => return None,
    })
}

/// Why settings do nothing or cannot be used, by the word that stands in the table.
const REASONS: [(&str, &str); 22] = [
    ("threads", "work is spread over the machine's cores; there is no pool of this kind to size"),
    (
        "metrics",
        "metrics are served in Prometheus format; there are no samples, reporters or recording levels",
    ),
    ("purgatory", "parked requests are woken and removed one by one; there is nothing to purge"),
    ("grpc", "nodes speak gRPC to each other on connections of their own, which has its own limits"),
    ("raft", "the quorum replicates by its own Raft timing, which has no such step"),
    (
        "metadata-log",
        "snapshots of the metadata are made by number of records, and the log is cut behind them",
    ),
    ("buffers", "the system sizes the buffers of its sockets better"),
    ("groups", "consumer groups are not built yet; it will count when they are"),
    ("transactions", "transactions are not built yet; it will count when they are"),
    ("share", "share groups are not built yet; it will count when they are"),
    ("streams", "Streams groups are not built yet; it will count when they are"),
    ("compaction", "compaction is not built yet; it will count when it is"),
    ("tests", "Kafka has it for its own tests"),
    ("unbuilt", "this is not built yet"),
    ("security", "security is not built yet: connections are plain text, and everybody may do everything"),
    ("quotas", "quotas are not built yet"),
    ("tiering", "tiered storage is not built yet"),
    ("plugin", "there are no plug-in classes, and what they would decide would silently be missing"),
    ("steady", "leaderships go back a few every second, as klamm.leader.rebalance.moves.per.second says"),
    ("checkpoints", "it is noted together with log.flush.offset.checkpoint.interval.ms"),
    ("asked", "a change may take as long as the client that asks for it waits"),
    ("internals", "it steers an inner part of Kafka that Klamm does not have"),
];

fn read_treatment(text: &'static str) -> Option<Treatment> {
    if text == "used" {
        return Some(Treatment::Used);
    }
    let (word, reason) = text.split_once(' ')?;
    let (_, reason) = REASONS.iter().find(|(key, _)| *key == reason)?;
    match word {
        "ignored" => Some(Treatment::Ignored(reason)),
        "refused" => Some(Treatment::Refused(reason)),
        _ => None,
    }
}

fn read_allowed(kind: Kind, text: &'static str) -> Option<Allowed> {
    let (least_of_kind, most_of_kind) = match kind {
        Kind::Short => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Kind::Int => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let end = |text: &str, otherwise: i64| if text.is_empty() { Some(otherwise) } else { text.parse().ok() };
    if let Some(texts) = text.strip_prefix('{') {
        return Some(match texts.strip_suffix("}~") {
            Some(texts) => Allowed::OneOfAnyCase(texts.split(',').collect()),
            None => Allowed::OneOf(texts.strip_suffix('}')?.split(',').collect()),
        });
    }
    match text {
        "any" => return Some(Allowed::Any),
        "filled" => return Some(Allowed::NonEmpty),
        "throttled" => return Some(Allowed::ThrottledReplicas),
        "reset" => return Some(Allowed::OffsetReset),
        _ => {}
    }
    let (range, other) = match text.split_once(" or ") {
        Some((range, other)) => (range, Some(other.parse().ok()?)),
        None => (text, None),
    };
    let (least, most) = range.split_once("..")?;
    if kind == Kind::Double {
        return Some(Allowed::Fraction(least.parse().ok()?, most.parse().ok()?));
    }
    let (least, most) = (end(least, least_of_kind)?, end(most, most_of_kind)?);
    Some(match other {
        Some(other) => Allowed::RangeOr(least, most, other),
        None => Allowed::Range(least, most),
    })
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
