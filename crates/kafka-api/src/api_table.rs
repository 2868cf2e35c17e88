//! Which APIs a broker serves: the one place where handlers get their rows.

use std::sync::Arc;

use klamm_metadata::FeatureRange;

use crate::cluster::Cluster;
use crate::config_change::ConfigChanges;
use crate::data_rows::DataParts;
use crate::errors::TableError;
use crate::features::ClusterFeatures;
use crate::handlers::add_raft_voter::AddRaftVoterHandler;
use crate::handlers::alter_configs::AlterConfigsHandler;
use crate::handlers::alter_partition_reassignments::AlterPartitionReassignmentsHandler;
use crate::handlers::create_partitions::CreatePartitionsHandler;
use crate::handlers::create_topics::CreateTopicsHandler;
use crate::handlers::delete_topics::DeleteTopicsHandler;
use crate::handlers::describe_cluster::DescribeClusterHandler;
use crate::handlers::describe_configs::DescribeConfigsHandler;
use crate::handlers::describe_quorum::DescribeQuorumHandler;
use crate::handlers::describe_topic_partitions::DescribeTopicPartitionsHandler;
use crate::handlers::elect_leaders::ElectLeadersHandler;
use crate::handlers::find_coordinator::FindCoordinatorHandler;
use crate::handlers::incremental_alter_configs::IncrementalAlterConfigsHandler;
use crate::handlers::list_config_resources::ListConfigResourcesHandler;
use crate::handlers::list_groups::ListGroupsHandler;
use crate::handlers::list_partition_reassignments::ListPartitionReassignmentsHandler;
use crate::handlers::metadata::MetadataHandler;
use crate::handlers::remove_raft_voter::RemoveRaftVoterHandler;
use crate::handlers::unregister_broker::UnregisterBrokerHandler;
use crate::handlers::update_features::UpdateFeaturesHandler;
use crate::ports::LogLevels;
use crate::table::ApiTable;

/// What the handlers of a broker work with.
pub struct ApiParts {
    /// The metadata, the way to the controller, and who this broker is.
    pub cluster: Arc<Cluster>,
    /// The levels of this node's loggers.
    pub log_levels: Arc<dyn LogLevels>,
    /// The features that this build supports ([`klamm_metadata::supported_features`]).
    pub supported_features: Vec<FeatureRange>,
    /// The partitions, and what else the APIs need that touch records.
    pub data: DataParts,
}

/// The table of a broker's listeners.
///
/// # Errors
/// Two handlers for one API, or one for versions that do not exist.
pub fn api_table(parts: ApiParts) -> Result<ApiTable, TableError> {
    let ApiParts { cluster, log_levels, supported_features, data } = parts;
    let changes = Arc::new(ConfigChanges::new(cluster.clone(), log_levels.clone()));
    let features = ClusterFeatures::new(cluster.clone(), supported_features);
    let plane = data.plane.clone();
    data.add_rows(ApiTable::builder())
        .handler(MetadataHandler::new(cluster.clone()))
        .handler(DescribeClusterHandler::new(cluster.clone()))
        .handler(FindCoordinatorHandler)
        .handler(ListGroupsHandler)
        .handler(CreateTopicsHandler::new(cluster.clone()))
        .handler(DeleteTopicsHandler::new(cluster.clone()))
        .handler(CreatePartitionsHandler::new(cluster.clone()))
        .handler(DescribeConfigsHandler::new(cluster.clone(), log_levels))
        .handler(AlterConfigsHandler::new(changes.clone()))
        .handler(IncrementalAlterConfigsHandler::new(changes))
        .handler(ListConfigResourcesHandler::new(cluster.clone()))
        .handler(DescribeTopicPartitionsHandler::new(cluster.clone()))
        .handler(ElectLeadersHandler::new(cluster.clone()))
        .handler(AlterPartitionReassignmentsHandler::new(cluster.clone()))
        .handler(ListPartitionReassignmentsHandler::new(cluster.clone()))
        .handler(DescribeQuorumHandler::new(cluster.clone(), plane))
        .handler(AddRaftVoterHandler::new(cluster.clone()))
        .handler(RemoveRaftVoterHandler::new(cluster.clone()))
        .handler(UpdateFeaturesHandler::new(cluster.clone()))
        .handler(UnregisterBrokerHandler::new(cluster))
        .build(Arc::new(features))
}

#[cfg(test)]
#[path = "api_table_test.rs"]
mod tests;
