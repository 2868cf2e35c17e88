//! One row of the table, and how a text becomes a value of it.

use std::fmt;

use crate::value::{Value, ValueError};

/// The type of a setting, as `DescribeConfigs` tells it to clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Boolean,
    /// 16 bits, signed.
    Short,
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
    /// The name of a Java class.
    Class,
    /// A secret: never shown.
    Password,
}

/// How much a setting matters, as Kafka ranks it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Importance {
    /// Most operators look at it.
    High,
    /// Some do.
    Medium,
    /// Few do.
    Low,
}

/// When a setting may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Read when the node starts.
    ReadOnly,
    /// May change while the cluster runs, for one broker at a time.
    PerBroker,
    /// May change while the cluster runs, for one broker or for all.
    ClusterWide,
}

/// What Klamm does with a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// It has the effect that it names.
    Used,
    /// It is accepted and does nothing; the text says why.
    Ignored(&'static str),
    /// Only its default is accepted, since a user would miss the effect of anything else; the text says why.
    Refused(&'static str),
}

/// Which values a setting can have, beyond its type.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Allowed {
    /// Every value of the type.
    Any,
    /// Numbers from the first to the second, both included.
    Range(i64, i64),
    /// A range, or this one number outside it.
    RangeOr(i64, i64, i64),
    /// Floating-point numbers from the first to the second.
    Fraction(f64, f64),
    /// One of these texts; of a list, every item is one of them.
    OneOf(Vec<&'static str>),
    /// As [`Self::OneOf`], in any case.
    OneOfAnyCase(Vec<&'static str>),
    /// A text that is not empty.
    NonEmpty,
    /// Pairs of partition and broker, or `*`.
    ThrottledReplicas,
    /// `latest`, `earliest` or `by_duration:` and an ISO 8601 duration.
    OffsetReset,
}

/// A setting: one row of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// Its name in Kafka, or one that starts with `klamm.`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its value where nobody gives one, as text. `None` is Kafka's `null`.
    pub default: Option<&'static str>,
    /// Whether a node does not start without it.
    pub required: bool,
    /// How much it matters.
    pub importance: Importance,
    /// When it may change. Settings of topics, groups and subscriptions always may.
    pub scope: Scope,
    /// Whether Kafka keeps it out of its documentation and of `DescribeConfigs`.
    pub internal: bool,
    /// What Klamm does with it.
    pub treatment: Treatment,
    /// What it means, in one sentence or two.
    pub doc: &'static str,
    pub(crate) allowed: Allowed,
}

impl Setting {
    /// Whether its value must not be shown.
    #[must_use]
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// Reads a value, and checks it against the type and the range.
    ///
    /// # Errors
    /// [`ValueError`]; it says what is allowed.
    pub fn parse(&self, text: &str) -> Result<Value, ValueError> {
        let value = Value::read(self.kind, text).ok_or_else(|| self.refuse(text))?;
        if self.allows(&value) { Ok(value) } else { Err(self.refuse(text)) }
    }

    /// The default as a value. `None` if it is `null`.
    #[must_use]
    pub fn default_value(&self) -> Option<Value> {
        self.default.and_then(|text| Value::read(self.kind, text))
    }

    fn refuse(&self, text: &str) -> ValueError {
        let value = if self.is_sensitive() { "[hidden]".to_owned() } else { ValueError::cut(text) };
        ValueError { name: self.name, value, allowed: self.allowed_text() }
    }

    fn allows(&self, value: &Value) -> bool {
        match &self.allowed {
            Allowed::Any => true,
            Allowed::Range(least, most) => value.as_i64().is_some_and(|n| (*least..=*most).contains(&n)),
            Allowed::RangeOr(least, most, other) => {
                value.as_i64().is_some_and(|n| n == *other || (*least..=*most).contains(&n))
            }
            Allowed::Fraction(least, most) => value.as_f64().is_some_and(|n| (*least..=*most).contains(&n)),
            Allowed::OneOf(texts) => value.texts().iter().all(|text| texts.contains(text)),
            Allowed::OneOfAnyCase(texts) => {
                value.texts().iter().all(|text| texts.iter().any(|known| known.eq_ignore_ascii_case(text)))
            }
            Allowed::NonEmpty => value.texts().iter().any(|text| !text.trim().is_empty()),
            Allowed::ThrottledReplicas => is_throttled_replicas(&value.texts()),
            Allowed::OffsetReset => value.texts().iter().all(|text| is_offset_reset(text)),
        }
    }

    /// Which values are allowed, as the end of the sentence "must be ...".
    #[must_use]
    pub fn allowed_text(&self) -> String {
        match &self.allowed {
            Allowed::Any => match self.kind {
                Kind::Boolean => "true or false".to_owned(),
                Kind::Short => format!("an integer from {} to {}", i16::MIN, i16::MAX),
                Kind::Int => format!("an integer from {} to {}", i32::MIN, i32::MAX),
                Kind::Long => "an integer of 64 bits".to_owned(),
                Kind::Double => "a number".to_owned(),
                Kind::List => "a list with commas between its items".to_owned(),
                Kind::String | Kind::Password => "a text".to_owned(),
                Kind::Class => "the name of a class".to_owned(),
            },
            Allowed::Range(least, most) => self.range_text(*least, *most),
            Allowed::RangeOr(least, most, other) => format!("{}, or {other}", self.range_text(*least, *most)),
            Allowed::Fraction(least, most) => format!("a number from {least} to {most}"),
            Allowed::OneOf(texts) | Allowed::OneOfAnyCase(texts) if self.kind == Kind::List => {
                format!("a list of {}", texts.join(", "))
            }
            Allowed::OneOf(texts) | Allowed::OneOfAnyCase(texts) => format!("one of {}", texts.join(", ")),
            Allowed::NonEmpty => "a text that is not empty".to_owned(),
            Allowed::ThrottledReplicas => "a list of partition:broker pairs, or *".to_owned(),
            Allowed::OffsetReset => "latest, earliest or by_duration:PnDTnHnMn.nS".to_owned(),
        }
    }

    fn range_text(&self, least: i64, most: i64) -> String {
        let no_end = matches!(self.kind, Kind::Long | Kind::Double) && most == i64::MAX;
        if no_end { format!("at least {least}") } else { format!("from {least} to {most}") }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "boolean",
            Self::Short => "short",
            Self::Int => "int",
            Self::Long => "long",
            Self::Double => "double",
            Self::String => "string",
            Self::List => "list",
            Self::Class => "class",
            Self::Password => "password",
        })
    }
}

fn is_throttled_replicas(items: &[&str]) -> bool {
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i32>().is_ok();
    let is_pair = |item: &&str| item.split_once(':').is_some_and(|(p, b)| is_number(p) && is_number(b));
    matches!(items, ["*"]) || items.iter().all(is_pair)
}

fn is_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        Some(duration) => is_duration(duration),
        None => matches!(text, "latest" | "earliest"),
    }
}

/// `PnDTnHnMn.nS`: every part may be missing, one must be there, and none is negative.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('P') else { return false };
    let (days, time) = match rest.split_once('T') {
        Some((days, time)) => (days, Some(time)),
        None => (rest, None),
    };
    let no_parts = |text: &str| text.is_empty();
    let days_fit = no_parts(days) || parts_fit(days, "D");
    let time_fits = time.is_none_or(|time| parts_fit(time, "HMS"));
    days_fit && time_fits && !(no_parts(days) && time.is_none())
}

/// Whether `text` is numbers, each with its unit, in the order of `units`, and at least one.
fn parts_fit(text: &str, units: &str) -> bool {
    let mut left = units;
    let mut number = String::new();
    let mut parts = 0;
    for c in text.chars() {
        if c.is_ascii_digit() || (c == '.' && !number.contains('.')) {
            number.push(c);
            continue;
        }
        let Some(at) = left.find(c) else { return false };
        let fits = if c == 'S' { number.parse::<f64>().is_ok() } else { number.parse::<u32>().is_ok() };
        if !fits {
            return false;
        }
        left = left.get(at + c.len_utf8()..).unwrap_or_default();
        number.clear();
        parts += 1;
    }
    parts > 0 && number.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_iso_8601() {
        for good in ["P1D", "PT1H", "PT5M", "PT0.5S", "P1DT2H3M4.5S", "PT1H30S"] {
            assert!(is_offset_reset(&format!("by_duration:{good}")), "{good}");
        }
        for bad in ["", "P", "PT", "1D", "P1H", "PT1D", "PT1S1M", "PTS", "PT1", "P-1D", "PT1.5H", "P1DT"] {
            assert!(!is_offset_reset(&format!("by_duration:{bad}")), "{bad}");
        }
        assert!(is_offset_reset("latest") && is_offset_reset("earliest") && !is_offset_reset("none"));
    }

    #[test]
    fn throttled_replicas_are_pairs_or_a_star() {
        assert!(is_throttled_replicas(&[]) && is_throttled_replicas(&["*"]));
        assert!(is_throttled_replicas(&["0:1", "12:3"]));
        for bad in
            [vec!["*", "0:1"], vec!["0"], vec!["0:"], vec![":1"], vec!["-1:1"], vec!["0:1:2"], vec!["a:b"]]
        {
            assert!(!is_throttled_replicas(&bad), "{bad:?}");
        }
    }
}
