//! What the handlers of a broker are given.

use std::sync::Arc;

use klamm_broker::broker::Broker;
use klamm_kafka_api::{
    ApiParts, CachedMetadata, Cluster, DataParts, DataPlane, Front, LogLevelError, LogLevels, api_table,
};

use crate::config_error::ConfigError;
use crate::derived::DerivedSettings;
use crate::error::NodeError;
use crate::node_config::NodeConfig;
use crate::telemetry::{LevelError, Telemetry};

/// The parts of a node that handlers work with.
pub(crate) struct HandlerParts<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) derived: &'a DerivedSettings,
    pub(crate) cluster_id: &'a str,
    pub(crate) broker: &'a Broker,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// The front with all handlers.
///
/// # Errors
/// Handlers that do not fit together.
pub(crate) fn front(parts: HandlerParts<'_>) -> Result<Arc<Front>, NodeError> {
    let HandlerParts { config, derived, cluster_id, broker, telemetry } = parts;
    let cluster = Arc::new(Cluster {
        broker: config.node_id,
        cluster_id: cluster_id.into(),
        metadata: Arc::new(CachedMetadata(broker.metadata().clone())),
        controller: Arc::new(broker.controller().clone()),
        settings: config.settings.clone(),
    });
    let (replicas, producer_ids) = (broker.replicas().clone(), broker.producer_ids().clone());
    let plane = DataPlane::new(derived.data, replicas, cluster.clone());
    let table = api_table(ApiParts {
        cluster,
        log_levels: Arc::new(LevelsOfNode(telemetry)),
        supported_features: derived.control.features.clone(),
        data: DataParts { plane, producer_ids },
    })?;
    let front = Front::new(derived.front.clone(), table);
    front.map_err(|error| {
        ConfigError::Unfit { name: error.name, origin: crate::Origin::Default, problem: error.to_string() }
            .into()
    })
}

/// The levels of the node's log, as clients change them (the resource type BROKER_LOGGER).
struct LevelsOfNode(Arc<Telemetry>);

impl LevelsOfNode {
    fn refuse(logger: &str, error: &LevelError) -> LogLevelError {
        match error {
            LevelError::NoLevel { text } => {
                LogLevelError::UnknownLevel { logger: logger.to_owned(), level: text.clone() }
            }
            LevelError::NoLogger { text } => LogLevelError::UnknownLogger { logger: text.clone() },
            LevelError::TooMany => LogLevelError::UnknownLogger { logger: logger.to_owned() },
        }
    }

    fn first_refusal(&self, changes: &[(String, Option<String>)]) -> Result<(), LogLevelError> {
        let mut levels = self.0.levels();
        for (logger, level) in changes {
            if logger == "root" && level.is_none() {
                return Err(LogLevelError::RootRemoved);
            }
            if !levels.knows(logger) {
                return Err(LogLevelError::UnknownLogger { logger: logger.chars().take(100).collect() });
            }
            levels.set(logger, level.as_deref()).map_err(|error| Self::refuse(logger, &error))?;
        }
        Ok(())
    }
}

impl LogLevels for LevelsOfNode {
    fn levels(&self) -> Vec<(String, String)> {
        self.0.levels().all()
    }

    fn check(&self, changes: &[(String, Option<String>)]) -> Result<(), LogLevelError> {
        self.first_refusal(changes)
    }

    fn set(&self, changes: &[(String, Option<String>)]) -> Result<(), LogLevelError> {
        self.first_refusal(changes)?;
        self.0.change(changes).map_err(|error| Self::refuse("", &error))
    }
}
