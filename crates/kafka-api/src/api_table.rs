//! Which APIs a broker serves: the one place where handlers get their rows.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::data_rows::DataParts;
use crate::errors::TableError;
use crate::handlers::api_versions::{FeatureSource, Features, FinalizedFeature, SupportedFeature};
use crate::handlers::describe_cluster::DescribeClusterHandler;
use crate::handlers::find_coordinator::FindCoordinatorHandler;
use crate::handlers::metadata::MetadataHandler;
use crate::table::ApiTable;

/// What the handlers of a broker work with.
pub struct ApiParts {
    /// The metadata, the way to the controller, and who this broker is.
    pub cluster: Arc<Cluster>,
    /// The features that this binary supports, as ApiVersions tells them.
    pub supported_features: Vec<SupportedFeature>,
    /// The partitions, and what else the APIs need that touch records.
    pub data: DataParts,
}

/// The table of a broker's listeners.
///
/// # Errors
/// Two handlers for one API, or one for versions that do not exist.
pub fn api_table(parts: ApiParts) -> Result<ApiTable, TableError> {
    let ApiParts { cluster, supported_features, data } = parts;
    data.add_rows(ApiTable::builder())
        .handler(MetadataHandler::new(cluster.clone()))
        .handler(DescribeClusterHandler::new(cluster.clone()))
        .handler(FindCoordinatorHandler)
        .build(Arc::new(ImageFeatures { cluster, supported: supported_features }))
}

/// The features as the image has them.
struct ImageFeatures {
    cluster: Arc<Cluster>,
    supported: Vec<SupportedFeature>,
}

impl FeatureSource for ImageFeatures {
    fn features(&self) -> Features {
        let image = self.cluster.metadata.image();
        let finalized = image.features.levels().map(|(name, level)| FinalizedFeature {
            name: name.to_owned(),
            level: i16::try_from(level).unwrap_or(i16::MAX),
        });
        Features {
            supported: self.supported.clone(),
            finalized: finalized.collect(),
            finalized_epoch: image.provenance.last_offset.0,
        }
    }
}
