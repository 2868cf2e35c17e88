//! The settings that a node was started with: checked, and read by name.

use std::collections::BTreeMap;

use crate::nearest::nearest;
use crate::synonyms::{Synonym, server_synonyms};
use crate::{Setting, Table, Treatment, Value, ValueError};

/// The settings that a node was started with, on top of the defaults of the table.
///
/// Every value was checked against its setting. Reading a setting that is not in the table, or as another type than it
/// has, is a bug of the caller and panics; a test of every caller's names shows it at once.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServerSettings {
    given: BTreeMap<&'static str, String>,
}

/// Settings that a node cannot start with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingError {
    /// Nobody knows it.
    #[error("there is no setting {name}{}", meant(nearest.as_deref()))]
    Unknown {
        /// The name, cut to [`ValueError::TEXT_LEN_MAX`] characters.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<String>,
    },
    /// It cannot have that value.
    #[error(transparent)]
    BadValue(#[from] ValueError),
    /// Kafka knows it, and only its default can be had here.
    #[error("{name} cannot be {value:?}: {reason}; leave it out{}", or_default(*default))]
    Refused {
        /// The setting.
        name: &'static str,
        /// The value, cut.
        value: String,
        /// Why.
        reason: &'static str,
        /// The only value that is accepted, if it is not `null`.
        default: Option<&'static str>,
    },
}

impl SettingError {
    /// Never: the settings must change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

fn or_default(default: Option<&'static str>) -> String {
    default.map(|text| format!(" or set it to {text:?}")).unwrap_or_default()
}

/// A setting that was accepted without having an effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The setting.
    pub name: String,
    /// Why it has none.
    pub reason: &'static str,
}

impl ServerSettings {
    /// Checks one setting and takes it over. Of a name that is given twice, the last value holds.
    ///
    /// # Errors
    /// [`SettingError`]; the settings stay as they were.
    pub fn set(&mut self, name: &str, value: &str) -> Result<Option<Notice>, SettingError> {
        let Some(setting) = Table::Server.find(name) else { return self.set_unknown(name, value) };
        let parsed = setting.parse(value)?;
        self.given.insert(setting.name, value.trim().to_owned());
        match setting.treatment {
            Treatment::Used => Ok(None),
            Treatment::Ignored(reason) => Ok(Some(Notice { name: name.to_owned(), reason })),
            Treatment::Refused(_) if is_default(setting, &parsed) => Ok(None),
            Treatment::Refused(reason) => {
                self.given.remove(setting.name);
                Err(refused(setting, value, reason))
            }
        }
    }

    fn set_unknown(&self, name: &str, value: &str) -> Result<Option<Notice>, SettingError> {
        match setting_of_listener(name) {
            Some(setting) => match setting.treatment {
                Treatment::Used => {
                    let reason =
                        "settings of single listeners are not built yet; the one for all listeners counts";
                    Ok(Some(Notice { name: name.to_owned(), reason }))
                }
                Treatment::Ignored(reason) => Ok(Some(Notice { name: name.to_owned(), reason })),
                Treatment::Refused(reason) => Err(refused(setting, value, reason)),
            },
            None => Err(SettingError::Unknown {
                name: ValueError::cut(name),
                nearest: nearest_of_listener(name).or_else(|| Table::Server.nearest(name).map(str::to_owned)),
            }),
        }
    }

    /// The names of settings that must be given and are not.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = |setting: &&Setting| setting.required && !self.given.contains_key(setting.name);
        Table::Server.settings().iter().filter(missing).map(|setting| setting.name).collect()
    }

    /// The text that was given for a setting by just this name.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// All that was given, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.given.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The value: what was given, by its own name or a synonym, else the default. `None` is Kafka's `null`.
    ///
    /// # Panics
    /// If the table has no such setting.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<Value> {
        let setting = known(name);
        let in_own_unit = |factor: i64, text: &str| {
            scaled(setting, factor, text).and_then(|text| setting.parse(&text).ok())
        };
        let given = |synonym: Synonym| in_own_unit(synonym.factor, self.given(synonym.name)?);
        let default =
            |synonym: Synonym| in_own_unit(synonym.factor, Table::Server.find(synonym.name)?.default?);
        synonyms_of(setting).find_map(given).or_else(|| synonyms_of(setting).find_map(default))
    }

    /// A `boolean`.
    ///
    /// # Panics
    /// If the setting has another type, or the value `null`.
    #[must_use]
    pub fn boolean(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Boolean(value)) => value,
            other => panic!("{name} is read as a boolean, and is {other:?}"),
        }
    }

    /// A `short`, `int` or `long`; `None` is `null`.
    ///
    /// # Panics
    /// If the setting has another type.
    #[must_use]
    pub fn integer_or_null(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Integer(value)) => Some(value),
            None => None,
            other => panic!("{name} is read as a number, and is {other:?}"),
        }
    }

    /// A `short`, `int` or `long` that is never `null`.
    ///
    /// # Panics
    /// If the setting has another type, or the value `null`.
    #[must_use]
    pub fn integer(&self, name: &str) -> i64 {
        self.integer_or_null(name).unwrap_or_else(|| panic!("{name} has no value"))
    }

    /// A number that is never negative: what is below zero counts as zero.
    ///
    /// # Panics
    /// If the setting has another type, or the value `null`.
    #[must_use]
    pub fn unsigned(&self, name: &str) -> u64 {
        u64::try_from(self.integer(name)).unwrap_or(0)
    }

    /// A `string`, `class` or `password`; `None` is `null`.
    ///
    /// # Panics
    /// If the setting has another type.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            None => None,
            other => panic!("{name} is read as a text, and is {other:?}"),
        }
    }

    /// The items of a `list`; none if it is `null`.
    ///
    /// # Panics
    /// If the setting has another type.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(items)) => items,
            None => Vec::new(),
            other => panic!("{name} is read as a list, and is {other:?}"),
        }
    }
}

fn known(name: &str) -> &'static Setting {
    Table::Server.find(name).unwrap_or_else(|| panic!("the table has no setting {name}"))
}

/// The names under which a setting may be given, its own first.
pub(crate) fn synonyms_of(setting: &'static Setting) -> impl Iterator<Item = Synonym> {
    let own = [Synonym { name: setting.name, factor: 1 }];
    let others = server_synonyms(setting.name);
    let own = own.into_iter().filter(|_| others.is_empty());
    own.chain(others.iter().copied())
}

/// `text` of a synonym in the unit of `setting`; a time that means "never" stays what it is.
pub(crate) fn scaled(setting: &Setting, factor: i64, text: &str) -> Option<String> {
    if factor == 1 {
        return Some(text.to_owned());
    }
    let Some(Value::Integer(number)) = Value::read(crate::Kind::Long, text) else { return None };
    let product = if number < 0 { number } else { number.saturating_mul(factor) };
    setting.parse(&product.to_string()).ok().map(|_| product.to_string())
}

fn is_default(setting: &Setting, value: &Value) -> bool {
    match setting.default_value() {
        Some(default) => default == *value,
        None => matches!(value, Value::Text(text) if text.is_empty()),
    }
}

fn refused(setting: &'static Setting, value: &str, reason: &'static str) -> SettingError {
    let value = if setting.is_sensitive() { "[hidden]".to_owned() } else { ValueError::cut(value) };
    SettingError::Refused { name: setting.name, value, reason, default: setting.default }
}

/// `listener.name.NAME.SETTING`, with or without a SASL mechanism before the setting.
fn setting_of_listener(name: &str) -> Option<&'static Setting> {
    let (_listener, rest) = name.strip_prefix("listener.name.")?.split_once('.')?;
    let with_mechanism = || rest.split_once('.').and_then(|(_mechanism, rest)| Table::Server.find(rest));
    Table::Server.find(rest).or_else(with_mechanism)
}

/// The known name that a misspelt `listener.name.NAME.SETTING` was meant to be; the name of the listener stays as it is.
fn nearest_of_listener(name: &str) -> Option<String> {
    const PREFIX: &str = "listener.name";
    let (listener, first_dot) = (name.match_indices('.').nth(1)?.0, name.match_indices('.').nth(2)?.0);
    let (prefix, rest) = (name.get(..listener)?, name.get(first_dot + 1..)?);
    nearest(prefix, std::iter::once(PREFIX))?;
    let listener = name.get(listener + 1..first_dot)?;
    let plain =
        Table::Server.nearest_with_edits(rest).map(|(edits, setting)| (edits, String::new(), setting));
    let with_mechanism = rest.split_once('.').and_then(|(mechanism, rest)| {
        let (edits, setting) = Table::Server.nearest_with_edits(rest)?;
        Some((edits, format!("{mechanism}."), setting))
    });
    let (_, mechanism, setting) = plain.into_iter().chain(with_mechanism).min_by_key(|(edits, ..)| *edits)?;
    Some(format!("{PREFIX}.{listener}.{mechanism}{setting}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_checked_and_wins_over_defaults() {
        let mut settings = ServerSettings::default();
        assert_eq!(settings.integer("num.partitions"), 1);
        assert_eq!(settings.set("num.partitions", " 12 "), Ok(None));
        assert_eq!(settings.integer("num.partitions"), 12);
        assert!(matches!(settings.set("num.partitions", "none"), Err(SettingError::BadValue(_))));
        assert_eq!(settings.integer("num.partitions"), 12);
        assert_eq!(settings.missing(), ["controller.listener.names", "node.id", "process.roles"]);
    }

    #[test]
    fn other_units_count_where_the_finest_is_not_given() {
        let mut settings = ServerSettings::default();
        assert_eq!(settings.integer("log.retention.ms"), 604_800_000);
        settings.set("log.retention.hours", "2").unwrap();
        assert_eq!(settings.integer("log.retention.ms"), 7_200_000);
        settings.set("log.retention.minutes", "-1").unwrap();
        assert_eq!(settings.integer("log.retention.ms"), -1);
        settings.set("log.retention.ms", "5").unwrap();
        assert_eq!(settings.integer("log.retention.ms"), 5);
        assert_eq!(settings.list("log.dirs"), ["/tmp/klamm-logs"]);
        settings.set("log.dirs", "/a, /b").unwrap();
        assert_eq!(settings.list("log.dirs"), ["/a", "/b"]);
    }

    #[test]
    fn what_has_no_effect_is_said_or_refused() {
        let mut settings = ServerSettings::default();
        let notice = settings.set("num.io.threads", "4").unwrap().unwrap();
        assert_eq!(notice.name, "num.io.threads");
        let refused = settings.set("authorizer.class.name", "a.B").unwrap_err();
        assert!(matches!(refused, SettingError::Refused { name: "authorizer.class.name", .. }), "{refused}");
        assert_eq!(settings.set("authorizer.class.name", ""), Ok(None));
        assert_eq!(settings.set("remote.log.storage.system.enable", "false"), Ok(None));
        let secret = settings.set("ssl.key.password", "hunter2").unwrap_err().to_string();
        assert!(!secret.contains("hunter2") && secret.contains("ssl.key.password"), "{secret}");
        assert_eq!(settings.given("ssl.key.password"), None);
    }

    #[test]
    fn unknown_names_get_the_nearest_known_one() {
        let mut settings = ServerSettings::default();
        let unknown = settings.set("num.partition", "3").unwrap_err();
        assert_eq!(unknown.to_string(), "there is no setting num.partition, did you mean num.partitions?");
        assert_eq!(
            settings.set("nothing.like.it.at.all", "3").unwrap_err().to_string(),
            "there is no setting nothing.like.it.at.all"
        );
        for (misspelt, meant) in [
            ("listener.name.client.num.network.thread", "listener.name.client.num.network.threads"),
            ("listener.name.client.plain.sasl.jaas.confg", "listener.name.client.plain.sasl.jaas.config"),
            ("listner.name.client.ssl.client.auth", "listener.name.client.ssl.client.auth"),
            ("listener.names.a.ssl.client.auht", "listener.name.a.ssl.client.auth"),
        ] {
            let told = settings.set(misspelt, "3").unwrap_err().to_string();
            assert_eq!(told, format!("there is no setting {misspelt}, did you mean {meant}?"));
        }
        let told = settings.set("listener.name.client.nothing.like.it", "3").unwrap_err().to_string();
        assert_eq!(told, "there is no setting listener.name.client.nothing.like.it");
        assert!(settings.set("listener.name.client.ssl.client.auth", "required").is_err());
        assert!(settings.set("listener.name.client.plain.sasl.jaas.config", "x").is_err());
        assert!(settings.set("listener.name.client.num.network.threads", "3").unwrap().is_some());
    }
}
