//! Typed values.

use crate::Kind;

/// A value of a setting, of the setting's type.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number: 16, 32 or 64 bits, as the setting's type says.
    Integer(i64),
    /// A floating-point number; never NaN.
    Double(f64),
    /// A text, a class name or a secret.
    Text(String),
    /// Items without the commas and the blanks around them; none is empty.
    List(Vec<String>),
}

/// A value that a setting cannot have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name} cannot be {value:?}: it must be {allowed}")]
pub struct ValueError {
    /// The setting.
    pub name: &'static str,
    /// The value, cut to [`Self::TEXT_LEN_MAX`] characters; of a secret, no part of it.
    pub value: String,
    /// What is allowed, as the end of the sentence "it must be ...".
    pub allowed: String,
}

impl ValueError {
    /// The most characters of a foreign text that an error repeats.
    pub const TEXT_LEN_MAX: usize = 256;

    /// Never: another value is needed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    pub(crate) fn cut(text: &str) -> String {
        text.chars().take(Self::TEXT_LEN_MAX).collect()
    }
}

impl Value {
    /// Reads a text as Kafka reads it: blanks around it do not count. `None` if it is not of that type.
    pub(crate) fn read(kind: Kind, text: &str) -> Option<Self> {
        let text = text.trim();
        Some(match kind {
            Kind::Boolean if text.eq_ignore_ascii_case("true") => Self::Boolean(true),
            Kind::Boolean if text.eq_ignore_ascii_case("false") => Self::Boolean(false),
            Kind::Boolean => return None,
            Kind::Short => Self::Integer(text.parse::<i16>().ok()?.into()),
            Kind::Int => Self::Integer(text.parse::<i32>().ok()?.into()),
            Kind::Long => Self::Integer(text.parse().ok()?),
            Kind::Double => Self::Double(text.parse().ok().filter(|n: &f64| !n.is_nan())?),
            Kind::String | Kind::Class | Kind::Password => Self::Text(text.to_owned()),
            Kind::List => Self::List(items(text).map(str::to_owned).collect()),
        })
    }

    /// The number, if it is a whole one.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// The number, if it is one. Whole numbers above 2^53 are rounded.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Double(number) => Some(*number),
            #[expect(
                clippy::cast_precision_loss,
                reason = "a range check of settings, none of which is that large"
            )]
            Self::Integer(number) => Some(*number as f64),
            Self::Boolean(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The text, or the items of the list; empty for numbers.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(items) => items.iter().map(String::as_str).collect(),
            Self::Boolean(_) | Self::Integer(_) | Self::Double(_) => Vec::new(),
        }
    }
}

/// The items of a list, without blanks; empty ones are left out.
pub(crate) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
