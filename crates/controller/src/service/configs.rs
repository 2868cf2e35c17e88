//! Changes of settings, of feature levels and of who is registered: from the wire to a decision, and its outcome back.

use klamm_control::{
    AlterResource, ClusterControl, ConfigOperation, ConfigurationControl, FeatureControl, FeatureUpdate,
    FeatureUpdateKind, Refusal, ReplicationControl,
};
use klamm_metadata::ConfigResource;
use klamm_pb::controller::v1 as pb;
use klamm_pb::metadata::v1::ResourceType;
use klamm_types::{BrokerId, TopicName};
use pb::submit_response::Outcome;

use super::admin::{Decision, Items, unless_validating};
use super::lifecycle::outcome;
use super::refusal::{malformed, refusal, refusal_of};

pub(super) fn alter_configs(message: pb::AlterConfigs) -> Decision {
    let pb::AlterConfigs { resources, validate_only } = message;
    let items = Items::of(resources.iter().map(alter_resource));
    Box::new(move |desk| {
        let control = ReplicationControl::new(desk.image, desk.config);
        let result = ConfigurationControl::new(control, desk.schema).alter_configs(items.understood());
        unless_validating(result, validate_only).map(|outcomes| {
            let outcomes = outcomes.into_iter().map(|outcome| outcome.map_err(|error| refusal_of(&error)));
            let outcomes = items.weave(outcomes.collect());
            let resources =
                resources.into_iter().zip(outcomes).map(|(resource, outcome)| pb::AlteredResource {
                    resource_type: resource.resource_type,
                    resource_name: resource.resource_name,
                    refusal: outcome.err(),
                });
            Outcome::AlterConfigs(pb::AlterConfigsOutcome { resources: resources.collect() })
        })
    })
}

fn alter_resource(message: &pb::AlterResource) -> Result<AlterResource, pb::Refusal> {
    let operations = message.operations.iter().map(operation).collect::<Result<_, _>>()?;
    Ok(AlterResource { resource: resource(message)?, operations, replace_all: message.replace_all })
}

fn resource(message: &pb::AlterResource) -> Result<ConfigResource, pb::Refusal> {
    let name = message.resource_name.as_str();
    match message.resource_type() {
        ResourceType::Topic => {
            let unknown = |error: klamm_types::TopicNameError| {
                refusal(Refusal::UnknownTopicOrPartition, error.to_string())
            };
            TopicName::new(name).map(ConfigResource::Topic).map_err(unknown)
        }
        ResourceType::Broker if name.is_empty() => Ok(ConfigResource::BrokerDefault),
        ResourceType::Broker => match name.parse() {
            Ok(id @ 0..) => Ok(ConfigResource::Broker(BrokerId(id))),
            _ => Err(malformed(&format!("{name:?} is no broker id"))),
        },
        ResourceType::Group => Ok(ConfigResource::Group(name.to_owned())),
        ResourceType::ClientMetrics => Ok(ConfigResource::ClientMetrics(name.to_owned())),
        ResourceType::Unspecified => Err(malformed(&"a resource without a type")),
    }
}

fn operation(message: &pb::ConfigOperation) -> Result<(String, ConfigOperation), pb::Refusal> {
    use pb::config_operation::Kind;
    let value = || {
        let missing = || malformed(&format!("the operation on {} has no value", message.key));
        message.value.clone().ok_or_else(missing)
    };
    let operation = match message.kind() {
        Kind::Set => ConfigOperation::Set(value()?),
        Kind::Delete => ConfigOperation::Delete,
        Kind::Append => ConfigOperation::Append(value()?),
        Kind::Subtract => ConfigOperation::Subtract(value()?),
        Kind::Unspecified => return Err(malformed(&"an operation without a kind")),
    };
    Ok((message.key.clone(), operation))
}

pub(super) fn update_features(message: pb::UpdateFeatures) -> Decision {
    let pb::UpdateFeatures { updates, validate_only } = message;
    let understood: Result<Vec<_>, _> = updates.iter().map(feature_update).collect();
    Box::new(move |desk| {
        let decided = match &understood {
            Ok(updates) => {
                let result = FeatureControl::new(desk.image, desk.config).update_features(updates);
                outcome(result).map(|outcome| outcome.map_err(|error| refusal_of(&error)))
            }
            Err(refusal) => outcome(Err(refusal.clone())),
        };
        unless_validating(decided, validate_only).map(|outcome| match outcome {
            Ok(_) => {
                let features =
                    updates.into_iter().map(|update| pb::FeatureOutcome { name: update.name, refusal: None });
                Outcome::UpdateFeatures(pb::UpdateFeaturesOutcome { features: features.collect() })
            }
            Err(refusal) => Outcome::Refusal(refusal),
        })
    })
}

fn feature_update(message: &pb::FeatureUpdate) -> Result<FeatureUpdate, pb::Refusal> {
    use pb::feature_update::Kind;
    let kind = match message.kind() {
        Kind::Upgrade => FeatureUpdateKind::Upgrade,
        Kind::SafeDowngrade => FeatureUpdateKind::SafeDowngrade,
        Kind::UnsafeDowngrade => FeatureUpdateKind::UnsafeDowngrade,
        Kind::Unspecified => return Err(malformed(&"a feature update without a kind")),
    };
    let level =
        u16::try_from(message.level).map_err(|_| malformed(&format!("{} is no level", message.level)))?;
    Ok(FeatureUpdate { name: message.name.clone(), level, kind })
}

pub(super) fn unregister_broker(message: &pb::UnregisterBroker) -> Decision {
    let broker = BrokerId(message.broker_id);
    Box::new(move |desk| {
        let control = ClusterControl::new(desk.image, desk.config, desk.next_offset, desk.now);
        outcome(control.unregister(desk.liveness, broker)).map(|outcome| {
            let refusal = outcome.err().map(|error| refusal_of(&error));
            Outcome::UnregisterBroker(pb::UnregisterBrokerOutcome { refusal })
        })
    })
}
