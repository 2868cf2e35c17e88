//! Changing settings: what AlterConfigs and IncrementalAlterConfigs have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_pb::controller::v1::config_operation::Kind;
use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::{AlterConfigs, AlterResource, AlteredResource, ConfigOperation};
use klamm_protocol::ErrorCode;

use crate::cluster::Cluster;
use crate::config_resource::{ResourceKind, broker_of};
use crate::ports::{GatewayError, LogLevels};
use crate::submission::{Refused, item_result, submit};

/// How long a change of settings may take; the request cannot say it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Wanted changes of one resource.
#[derive(Clone, Debug)]
pub(crate) struct ResourceChange {
    /// A number that may stand for no kind.
    pub(crate) kind: i8,
    pub(crate) name: String,
    pub(crate) operations: Vec<Operation>,
    /// Settings that are not named lose their values.
    pub(crate) replace_all: bool,
}

/// A wanted change of one setting. The number of the operation may stand for none.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) kind: i8,
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl Operation {
    /// The setting gets a value.
    pub(crate) fn set(key: String, value: Option<String>) -> Self {
        Self { kind: SET, key, value }
    }
}

/// What became of one resource's change.
pub(crate) type ChangeOutcome = (i8, String, Result<(), Refused>);

/// Where changes go.
pub(crate) struct ConfigChanges {
    cluster: Arc<Cluster>,
    loggers: Arc<dyn LogLevels>,
}

impl ConfigChanges {
    pub(crate) fn new(cluster: Arc<Cluster>, loggers: Arc<dyn LogLevels>) -> Self {
        Self { cluster, loggers }
    }

    /// Makes the changes, or only checks them; each resource is changed or refused alone. The outcomes are in the
    /// order of the changes, but a resource that is named twice has one.
    pub(crate) async fn apply(
        &self,
        changes: Vec<ResourceChange>,
        validate_only: bool,
    ) -> Vec<ChangeOutcome> {
        let mut times = BTreeMap::<_, usize>::new();
        for change in &changes {
            *times.entry((change.kind, change.name.clone())).or_default() += 1;
        }
        let mut outcomes = Vec::with_capacity(changes.len());
        // Where in the outcomes the controller's answers go.
        let (mut places, mut resources) = (Vec::new(), Vec::new());
        for change in changes {
            let Some(times) = times.remove(&(change.kind, change.name.clone())) else { continue };
            let (kind, name) = (change.kind, change.name.clone());
            let result = match self.prepare(change, times, validate_only) {
                Ok(Some(resource)) => {
                    places.push(outcomes.len());
                    resources.push(resource);
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(refused) => Err(refused),
            };
            outcomes.push((kind, name, result));
        }
        let results = self.submit(resources, validate_only).await;
        for (place, result) in places.into_iter().zip(results) {
            if let Some(outcome) = outcomes.get_mut(place) {
                outcome.2 = result;
            }
        }
        outcomes
    }

    /// What the controller is asked for; `None` if this node alone is concerned and the change is made.
    fn prepare(
        &self,
        change: ResourceChange,
        times: usize,
        validate_only: bool,
    ) -> Result<Option<AlterResource>, Refused> {
        let invalid = |reason: String| Err(Refused::new(ErrorCode::InvalidRequest, reason));
        if times > 1 {
            return invalid("Each resource must appear at most once.".to_owned());
        }
        check_keys(&change.operations)?;
        let Some(kind) = ResourceKind::from_code(change.kind) else {
            return invalid(format!("Unknown resource type {}.", change.kind));
        };
        match kind {
            ResourceKind::BrokerLogger if change.replace_all => {
                return invalid("Unknown resource type BROKER_LOGGER.".to_owned());
            }
            ResourceKind::BrokerLogger => {
                self.change_loggers(&change, validate_only)?;
                return Ok(None);
            }
            ResourceKind::Topic if change.name.is_empty() => {
                return invalid("Default topic resources are not allowed.".to_owned());
            }
            ResourceKind::Broker if !change.name.is_empty() => drop(broker_of(&change.name)?),
            _ => {}
        }
        let operations = change.operations.into_iter().map(operation).collect::<Result<_, _>>()?;
        let resource_type = kind.to_pb().map_or(0, i32::from);
        Ok(Some(AlterResource {
            resource_type,
            resource_name: change.name,
            operations,
            replace_all: change.replace_all,
        }))
    }

    fn change_loggers(&self, change: &ResourceChange, validate_only: bool) -> Result<(), Refused> {
        let invalid = |reason: String| Refused::new(ErrorCode::InvalidRequest, reason);
        let (own, asked) = (self.cluster.broker, broker_of(&change.name)?);
        if own != asked {
            return Err(invalid(format!("Unexpected broker id, expected {own}, but received {asked}")));
        }
        let mut levels = Vec::with_capacity(change.operations.len());
        for operation in &change.operations {
            match operation.kind {
                SET => levels.push((operation.key.clone(), operation.value.clone())),
                DELETE => levels.push((operation.key.clone(), None)),
                _ => {
                    return Err(invalid(format!(
                        "operation {} is not allowed for the loggers of a broker",
                        operation.kind
                    )));
                }
            }
        }
        let changed = if validate_only { self.loggers.check(&levels) } else { self.loggers.set(&levels) };
        changed.map_err(|error| Refused::new(ErrorCode::InvalidConfig, error.to_string()))
    }

    async fn submit(&self, resources: Vec<AlterResource>, validate_only: bool) -> Vec<Result<(), Refused>> {
        let count = resources.len();
        if count == 0 {
            return Vec::new();
        }
        let change = Change::AlterConfigs(AlterConfigs { resources, validate_only });
        let outcome = submit(&self.cluster, change, TIMEOUT).await.and_then(|outcome| match outcome {
            Outcome::AlterConfigs(outcome) if outcome.resources.len() == count => Ok(outcome.resources),
            _ => Err(GatewayError::BadAnswer.into()),
        });
        match outcome {
            Ok(resources) => {
                resources.into_iter().map(|AlteredResource { refusal, .. }| item_result(refusal)).collect()
            }
            Err(refused) => vec![Err(refused); count],
        }
    }
}

/// No setting may be named twice, and only removals have no value.
fn check_keys(operations: &[Operation]) -> Result<(), Refused> {
    let mut keys = BTreeSet::new();
    if operations.iter().any(|operation| !keys.insert(operation.key.as_str())) {
        return Err(Refused::new(ErrorCode::InvalidRequest, "Error due to duplicate config keys"));
    }
    let nulls = operations.iter().filter(|operation| operation.kind != DELETE && operation.value.is_none());
    let nulls: Vec<_> = nulls.map(|operation| operation.key.as_str()).collect();
    if nulls.is_empty() {
        return Ok(());
    }
    let reason = format!("Null value not supported for : {}", nulls.join(","));
    Err(Refused::new(ErrorCode::InvalidRequest, reason))
}

fn operation(operation: Operation) -> Result<ConfigOperation, Refused> {
    let Operation { kind, key, value } = operation;
    let kind = match kind {
        SET => Kind::Set,
        DELETE => Kind::Delete,
        APPEND => Kind::Append,
        SUBTRACT => Kind::Subtract,
        _ => {
            let reason = format!("Unknown operation type {kind}");
            return Err(Refused::new(ErrorCode::InvalidRequest, reason));
        }
    };
    let value = value.filter(|_| kind != Kind::Delete);
    Ok(ConfigOperation { kind: kind.into(), key, value })
}

#[cfg(test)]
#[path = "config_change_test.rs"]
mod tests;
