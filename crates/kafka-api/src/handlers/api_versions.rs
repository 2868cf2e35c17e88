//! ApiVersions (18): which APIs this listener serves in which versions, and which features the cluster has.
//!
//! The list follows from the table of handlers, so it tells no more and no less than what is served (but for Produce,
//! see the table). A version that is not known is answered in the layout of version 0, as the client can read no
//! other, with the code of an unsupported version and the range of this API alone (KIP-511).

use std::sync::Arc;

use klamm_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::{
    ApiKey, ApiMessage, EncodeError, Encoded, VersionRange, Writer, encode_response_header,
};

use crate::context::RequestContext;
use crate::errors::ApiVersionsRefusal;
use crate::table::{Access, Answer, Handler, Ticket};

/// Below this version clients fail to read a feature whose least level is 0, so they are not told of it
/// (KAFKA-17011).
const FEATURES_FROM_LEVEL_0_SINCE: i16 = 4;

/// A feature that this build knows, and its levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    /// The name, for example `metadata.version`.
    pub name: String,
    /// The lowest level that this build can work with.
    pub level_min: i16,
    /// The highest one.
    pub level_max: i16,
}

/// A feature that the cluster has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalizedFeature {
    /// The name, for example `metadata.version`.
    pub name: String,
    /// The level that all nodes work with.
    pub level: i16,
}

/// The features at one moment (KIP-584).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// What this build knows.
    pub supported: Vec<SupportedFeature>,
    /// What the cluster has agreed on.
    pub finalized: Vec<FinalizedFeature>,
    /// The metadata offset that the agreement is as of; -1 as long as nothing is known.
    pub finalized_epoch: i64,
}

/// Knows the features; asked at each ApiVersions request, so it must answer from memory.
pub trait FeatureSource: Send + Sync {
    /// The features as of now.
    fn features(&self) -> Features;
}

/// The handler; the table makes it from its rows.
pub(crate) struct ApiVersionsHandler {
    advertised: Vec<ApiVersion>,
    features: Arc<dyn FeatureSource>,
}

impl ApiVersionsHandler {
    pub(crate) fn new(advertised: Vec<ApiVersion>, features: Arc<dyn FeatureSource>) -> Self {
        Self { advertised, features }
    }

    fn response(&self, version: i16) -> ApiVersionsResponse {
        let Features { mut supported, finalized, finalized_epoch } = self.features.features();
        if version < FEATURES_FROM_LEVEL_0_SINCE {
            supported.retain(|feature| feature.level_min > 0);
        }
        ApiVersionsResponse {
            api_keys: self.advertised.clone(),
            supported_features: supported.into_iter().map(supported_key).collect(),
            finalized_features_epoch: finalized_epoch,
            finalized_features: finalized.into_iter().map(finalized_key).collect(),
            ..ApiVersionsResponse::default()
        }
    }
}

fn supported_key(feature: SupportedFeature) -> SupportedFeatureKey {
    SupportedFeatureKey { name: feature.name, min_version: feature.level_min, max_version: feature.level_max }
}

fn finalized_key(feature: FinalizedFeature) -> FinalizedFeatureKey {
    // Kafka tells the level as both ends of the range.
    let FinalizedFeature { name, level } = feature;
    FinalizedFeatureKey { name, max_version_level: level, min_version_level: level }
}

impl Handler for ApiVersionsHandler {
    type Request = ApiVersionsRequest;

    const VERSIONS: VersionRange = ApiVersionsRequest::VERSIONS;
    const ACCESS: Access = Access::Anyone;

    fn handle(&self, context: RequestContext, request: ApiVersionsRequest) -> Ticket<ApiVersionsResponse> {
        let version = context.version;
        let is_valid = version < 3
            || (is_software_name(&request.client_software_name)
                && is_software_name(&request.client_software_version));
        let response = if is_valid {
            self.response(version)
        } else {
            let error_code = ApiVersionsRefusal::InvalidSoftwareName.code() as i16;
            ApiVersionsResponse { error_code, ..ApiVersionsResponse::default() }
        };
        Ticket::ready(Answer::Response(response))
    }
}

/// Letters and digits of ASCII, with `-` and `.` between them.
fn is_software_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let is_outer = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    is_outer(name.bytes().next()) && is_outer(name.bytes().next_back()) && name.bytes().all(inner)
}

/// The answer to an ApiVersions request of a version that is not served.
///
/// # Errors
/// None in practice: the layout can carry it.
pub(crate) fn answer_to_unknown_version(correlation_id: i32) -> Result<Encoded, EncodeError> {
    const LAYOUT: i16 = 0;
    let versions = ApiVersionsHandler::VERSIONS;
    let own = ApiVersion {
        api_key: ApiKey::ApiVersions.code(),
        min_version: versions.min(),
        max_version: versions.max(),
    };
    let response = ApiVersionsResponse {
        error_code: ApiVersionsRefusal::UnknownVersion.code() as i16,
        api_keys: vec![own],
        ..ApiVersionsResponse::default()
    };
    let mut writer = Writer::framed();
    encode_response_header(ApiKey::ApiVersions, LAYOUT, correlation_id, &mut writer)?;
    response.encode_into(LAYOUT, &mut writer)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_those_of_kip_511() {
        for name in ["a", "7", "apache-kafka-java", "4.3.1", "librdkafka", "a--.b"] {
            assert!(is_software_name(name), "{name}");
        }
        for name in ["", "-a", "a-", ".", "a b", "a_b", "ä", "a\n", "a/1"] {
            assert!(!is_software_name(name), "{name:?}");
        }
    }
}
