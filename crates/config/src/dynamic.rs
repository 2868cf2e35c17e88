//! Which values can be set while the cluster runs.

use crate::{Scope, Setting, Table, Treatment, Value, ValueError};

/// A setting that cannot be changed that way.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DynamicError {
    /// Nobody knows it.
    #[error("there is no setting {name}")]
    Unknown {
        /// The name, cut.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// It cannot have that value.
    #[error(transparent)]
    BadValue(#[from] ValueError),
    /// It is read when the node starts, or cannot be one value for all brokers.
    #[error("{name} {}", if *for_all { "cannot be set for all brokers at once" } else { "can only be set where the broker is started" })]
    NotDynamic {
        /// The setting.
        name: &'static str,
        /// Whether it could be set for one broker.
        for_all: bool,
    },
}

impl DynamicError {
    /// Never: another change is needed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Checks a value that shall be set for one broker, or for all of them.
///
/// # Errors
/// [`DynamicError`]: unknown, out of range, or not changeable there.
pub fn check_dynamic_server(name: &str, value: &str, for_all: bool) -> Result<(), DynamicError> {
    let setting = find(Table::Server, name)?;
    match setting.scope {
        Scope::ReadOnly => return Err(DynamicError::NotDynamic { name: setting.name, for_all: false }),
        Scope::PerBroker if for_all => {
            return Err(DynamicError::NotDynamic { name: setting.name, for_all: true });
        }
        Scope::PerBroker | Scope::ClusterWide => {}
    }
    check_value(setting, value)
}

/// Checks a value that shall be set for a topic.
///
/// # Errors
/// [`DynamicError`]: unknown, or out of range.
pub fn check_topic(name: &str, value: &str) -> Result<(), DynamicError> {
    check_value(find(Table::Topic, name)?, value)
}

/// Checks a value that shall be set for a group ([`Table::Group`]) or a subscription ([`Table::ClientMetrics`]).
///
/// # Errors
/// [`DynamicError`]: unknown, or out of range.
pub fn check_group(table: Table, name: &str, value: &str) -> Result<(), DynamicError> {
    check_value(find(table, name)?, value)
}

fn find(table: Table, name: &str) -> Result<&'static Setting, DynamicError> {
    table
        .find(name)
        .ok_or_else(|| DynamicError::Unknown { name: ValueError::cut(name), nearest: table.nearest(name) })
}

/// A value that is in range, and whose effect exists.
fn check_value(setting: &'static Setting, text: &str) -> Result<(), DynamicError> {
    let value = setting.parse(text)?;
    match setting.treatment {
        Treatment::Refused(reason) if setting.default_value().as_ref() != Some(&value) => {
            let shown = if setting.is_sensitive() { "[hidden]".to_owned() } else { ValueError::cut(text) };
            let only = setting.default.unwrap_or("unset");
            let allowed = format!("{only}, since {reason}");
            Err(ValueError { name: setting.name, value: shown, allowed }.into())
        }
        Treatment::Used | Treatment::Ignored(_) | Treatment::Refused(_) => {
            let _: Value = value;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_is_changed() {
        assert_eq!(check_dynamic_server("log.retention.ms", "5", true), Ok(()));
        assert_eq!(check_dynamic_server("log.retention.ms", "5", false), Ok(()));
        let not_dynamic = DynamicError::NotDynamic { name: "num.partitions", for_all: false };
        assert_eq!(check_dynamic_server("num.partitions", "5", false), Err(not_dynamic));
        let for_all = DynamicError::NotDynamic { name: "sasl.enabled.mechanisms", for_all: true };
        assert_eq!(check_dynamic_server("sasl.enabled.mechanisms", "PLAIN", true), Err(for_all));
        assert!(matches!(
            check_dynamic_server("log.segment.bytes", "1", true),
            Err(DynamicError::BadValue(_))
        ));
        assert!(matches!(check_dynamic_server("no.such", "1", true), Err(DynamicError::Unknown { .. })));
    }

    #[test]
    fn topics_take_what_has_an_effect() {
        assert_eq!(check_topic("retention.ms", "-1"), Ok(()));
        assert_eq!(check_topic("remote.storage.enable", "false"), Ok(()));
        let tiered = check_topic("remote.storage.enable", "true").unwrap_err();
        assert!(tiered.to_string().contains("tiered storage is not built yet"), "{tiered}");
        assert!(check_topic("retention.ms", "-2").is_err());
        assert_eq!(check_group(Table::Group, "share.isolation.level", "read_committed"), Ok(()));
        assert!(check_group(Table::ClientMetrics, "interval.ms", "soon").is_err());
    }
}
