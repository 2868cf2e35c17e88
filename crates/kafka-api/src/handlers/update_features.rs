//! UpdateFeatures (57): what all nodes agree to use (KIP-584, KIP-778); all updates of a request happen, or none.

use std::sync::Arc;

use klamm_pb::controller::v1::feature_update::Kind;
use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::{FeatureOutcome, FeatureUpdate, UpdateFeatures};
use klamm_protocol::messages::update_features_request::FeatureUpdateKey;
use klamm_protocol::messages::update_features_response::UpdatableFeatureResult;
use klamm_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use klamm_protocol::{ErrorCode, VersionRange};

use crate::cluster::{Cluster, timeout};
use crate::context::RequestContext;
use crate::features::meant_level;
use crate::ports::GatewayError;
use crate::submission::{Refused, item_result, submit, told};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// From this version on the outcome is one for all.
const ONE_OUTCOME_SINCE: i16 = 2;

/// Serves UpdateFeatures.
pub(crate) struct UpdateFeaturesHandler {
    cluster: Arc<Cluster>,
}

impl UpdateFeaturesHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for UpdateFeaturesHandler {
    type Request = UpdateFeaturesRequest;

    const VERSIONS: VersionRange = UpdateFeaturesRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Alter);

    fn handle(
        &self,
        context: RequestContext,
        request: UpdateFeaturesRequest,
    ) -> Ticket<UpdateFeaturesResponse> {
        let cluster = self.cluster.clone();
        Ticket::later(async move { Answer::Response(update(&cluster, context.version, request).await) })
    }
}

async fn update(
    cluster: &Arc<Cluster>,
    version: i16,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let names: Vec<_> = request.feature_updates.iter().map(|update| update.feature.clone()).collect();
    let results = submit_updates(cluster, version, request).await.and_then(|features| {
        let results: Vec<_> = features.into_iter().map(|feature| item_result(feature.refusal)).collect();
        // The first refusal is that of all.
        match results.iter().find_map(|result| result.as_ref().err()) {
            Some(refused) => Err(refused.clone()),
            None => Ok(()),
        }
    });
    let results_by_name = if version < ONE_OUTCOME_SINCE && results.is_ok() { names } else { Vec::new() };
    let (error_code, error_message) = told(results);
    UpdateFeaturesResponse {
        throttle_time_ms: 0,
        error_code,
        error_message,
        results: results_by_name
            .into_iter()
            .map(|feature| UpdatableFeatureResult { feature, error_code: 0, error_message: None })
            .collect(),
    }
}

async fn submit_updates(
    cluster: &Arc<Cluster>,
    version: i16,
    request: UpdateFeaturesRequest,
) -> Result<Vec<FeatureOutcome>, Refused> {
    let wanted = request.feature_updates.into_iter().map(|wanted| feature_update(version, wanted));
    let updates: Vec<_> = wanted.collect::<Result<_, _>>()?;
    let change = UpdateFeatures { updates, validate_only: version >= 1 && request.validate_only };
    match submit(cluster, Change::UpdateFeatures(change), timeout(request.timeout_ms)).await? {
        Outcome::UpdateFeatures(outcome) => Ok(outcome.features),
        _ => Err(GatewayError::BadAnswer.into()),
    }
}

fn feature_update(version: i16, wanted: FeatureUpdateKey) -> Result<FeatureUpdate, Refused> {
    let name = wanted.feature;
    let invalid = |reason: String| Refused::new(ErrorCode::InvalidRequest, reason);
    let kind = match (version, wanted.upgrade_type) {
        (0, _) if wanted.allow_downgrade => Kind::SafeDowngrade,
        (0, _) | (_, 1) => Kind::Upgrade,
        (_, 2) => Kind::SafeDowngrade,
        (_, 3) => Kind::UnsafeDowngrade,
        (_, kind) => return Err(invalid(format!("{name}: there is no upgrade type {kind}"))),
    };
    let level = meant_level(&name, wanted.max_version_level).ok_or_else(|| {
        let reason = format!("{name} has no level {} here", wanted.max_version_level);
        Refused::new(ErrorCode::InvalidUpdateVersion, reason)
    })?;
    Ok(FeatureUpdate { name, level: level.into(), kind: kind.into() })
}

#[cfg(test)]
mod tests {
    use klamm_pb::controller::v1::{Refusal, UpdateFeaturesOutcome};

    use super::*;
    use crate::fixture::{Bed, answer, context_of};

    fn ask(bed: &Arc<Bed>, version: i16, updates: Vec<FeatureUpdateKey>) -> UpdateFeaturesResponse {
        let request =
            UpdateFeaturesRequest { timeout_ms: 1_000, feature_updates: updates, validate_only: true };
        let handler = UpdateFeaturesHandler::new(bed.cluster());
        answer(handler.handle(context_of::<UpdateFeaturesRequest>(version), request))
    }

    fn wanted(level: i16, kind: i8, allow_downgrade: bool) -> FeatureUpdateKey {
        FeatureUpdateKey {
            feature: "f".to_owned(),
            max_version_level: level,
            allow_downgrade,
            upgrade_type: kind,
        }
    }

    fn outcome(code: ErrorCode) -> Outcome {
        let refusal = Some(Refusal { code: i32::from(code.code()), message: String::new() });
        let features = vec![FeatureOutcome { name: "f".to_owned(), refusal }];
        Outcome::UpdateFeatures(UpdateFeaturesOutcome { features })
    }

    #[test]
    fn each_version_says_in_its_own_way_what_kind_of_update_it_is() {
        for (version, wanted, kind) in [
            (0, wanted(1, 1, false), Kind::Upgrade),
            (0, wanted(1, 1, true), Kind::SafeDowngrade),
            (1, wanted(1, 1, false), Kind::Upgrade),
            (2, wanted(1, 2, false), Kind::SafeDowngrade),
            (2, wanted(1, 3, false), Kind::UnsafeDowngrade),
        ] {
            let bed = Bed::with_brokers(&[(1, false)]);
            bed.reply(Ok(outcome(ErrorCode::None)));
            let response = ask(&bed, version, vec![wanted]);
            assert_eq!((response.error_code, response.results.len()), (0, usize::from(version < 2)));
            let [Change::UpdateFeatures(change)] = &bed.changes()[..] else { panic!("one change") };
            assert_eq!((change.updates[0].kind(), change.validate_only), (kind, version >= 1));
        }
    }

    #[test]
    fn one_refusal_refuses_all() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.reply(Ok(outcome(ErrorCode::InvalidUpdateVersion)));
        let response = ask(&bed, 1, vec![wanted(9, 1, false)]);
        assert_eq!(
            (response.error_code, response.results.len()),
            (ErrorCode::InvalidUpdateVersion.code(), 0)
        );
    }

    #[test]
    fn what_makes_no_sense_is_not_passed_on() {
        let bed = Bed::with_brokers(&[(1, false)]);
        let old = FeatureUpdateKey { feature: "metadata.version".to_owned(), ..wanted(21, 2, false) };
        let (request, version) = (ErrorCode::InvalidRequest, ErrorCode::InvalidUpdateVersion);
        for (update, code) in [
            (wanted(1, 0, false), request),
            (wanted(1, 4, false), request),
            (wanted(-1, 1, false), version),
            (old, version),
        ] {
            assert_eq!(ask(&bed, 2, vec![update]).error_code, code.code());
        }
        assert!(bed.changes().is_empty());
    }
}
