//! Whose directories these are: `meta.properties`, made at the first start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klamm_log::checkpoint::MetaProperties;
use klamm_log::fs::LogFs;
use klamm_log::{LogError, METADATA_DIR};
use klamm_types::{BrokerId, QuorumId};
use uuid::Uuid;

use crate::node_config::NodeConfig;

/// Where Kafka keeps its metadata, next to the partitions; Klamm never does.
const KAFKA_METADATA_DIR: &str = "__cluster_metadata-0";

/// Directories that this node cannot use.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A directory cannot be made or read.
    #[error("log directory {} cannot be used: {source}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: LogError,
    },
    /// A directory holds what another node wrote.
    #[error("{path} belongs to node {theirs}, and this is node {ours}; give node {ours} another directory (log.dirs)", path = path.display())]
    OfAnotherNode {
        /// The directory.
        path: PathBuf,
        /// Its node.
        theirs: BrokerId,
        /// This node.
        ours: BrokerId,
    },
    /// Directories of several clusters, or of another one than the settings name.
    #[error("{path} belongs to cluster {theirs}, and this node to {ours}; use the directory of {ours}, or set CLUSTER_ID={theirs}", path = path.display())]
    OfAnotherCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        theirs: String,
        /// The cluster of this node.
        ours: String,
    },
    /// A directory holds the metadata of Apache Kafka, which is in another format.
    #[error("{path} holds the metadata of Apache Kafka; give this node a new directory (log.dirs)", path = path.display())]
    OfKafka {
        /// The directory.
        path: PathBuf,
    },
    /// Directories that belong to different quorums: they cannot be of one node.
    #[error("{path} belongs to quorum {theirs}, and another directory of this node to {ours}: one of them was written by a cluster that was founded anew; take it out of log.dirs", path = path.display())]
    OfAnotherQuorum {
        /// The directory.
        path: PathBuf,
        /// Its quorum.
        theirs: QuorumId,
        /// The quorum of the others.
        ours: QuorumId,
    },
    /// Nobody said which cluster this is, and others must agree on it.
    #[error(
        "the id of the cluster is missing: set the variable CLUSTER_ID (or klamm.cluster.id) to the same value on every node, for example CLUSTER_ID={example}"
    )]
    NoClusterId {
        /// A new id that could be used.
        example: String,
    },
}

impl StorageError {
    /// Never: the operator must act.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Who this node is, as its directories say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredIdentity {
    /// The cluster.
    pub cluster_id: String,
    /// The directory of the metadata log.
    pub metadata_directory_id: Uuid,
    /// The quorum whose metadata the node has taken, if it has.
    pub quorum_id: Option<QuorumId>,
    /// Directories that were made or formatted now.
    pub formatted: Vec<PathBuf>,
}

/// 16 random bytes in the form of Kafka's ids; none begins with a dash, which command lines would take for an option.
#[must_use]
pub fn random_cluster_id() -> String {
    loop {
        let id = klamm_types::TopicId(*Uuid::new_v4().as_bytes()).to_string();
        if !id.starts_with('-') {
            return id;
        }
    }
}

/// Reads `meta.properties` of all directories of the node, and writes it where there is none.
///
/// # Errors
/// [`StorageError`]. A broker's directory that cannot be read is no error as long as another one can: the broker
/// reports it as failed.
pub fn format_directories(fs: &dyn LogFs, config: &NodeConfig) -> Result<StoredIdentity, StorageError> {
    let metadata_dir = config.metadata_dir.as_path();
    let mut known = Vec::new();
    let mut failed = Vec::new();
    for dir in directories(config) {
        match read(fs, dir) {
            Ok(properties) => known.push((dir, properties)),
            Err(source) if dir == metadata_dir && config.roles.controller => {
                return Err(StorageError::Unusable { path: dir.to_owned(), source });
            }
            Err(source) => failed.push(StorageError::Unusable { path: dir.to_owned(), source }),
        }
    }
    if known.is_empty()
        && let Some(error) = failed.pop()
    {
        return Err(error);
    }
    for (dir, _) in &known {
        let of_kafka = fs.stat(&dir.join(KAFKA_METADATA_DIR)).is_ok_and(|found| found.is_some());
        let is_own = *dir == metadata_dir && !config.log_dirs.iter().any(|log_dir| log_dir == dir);
        if of_kafka && !is_own {
            return Err(StorageError::OfKafka { path: (*dir).to_owned() });
        }
    }
    let cluster_id = cluster_id(config, &known)?;
    let quorum_id = quorum_id(&known)?;
    let mut identity =
        StoredIdentity { cluster_id, metadata_directory_id: Uuid::nil(), quorum_id, formatted: Vec::new() };
    for (dir, properties) in known {
        let properties = match properties {
            Some(properties) => properties,
            None => {
                identity.formatted.push(dir.to_owned());
                format(fs, config, dir, &identity)?
            }
        };
        if dir == metadata_dir {
            identity.metadata_directory_id = properties.directory_id;
        }
    }
    Ok(identity)
}

/// Takes `meta.properties` out of directories again that were new at this start, for a broker that no controller has ever
/// taken: so far they hold nothing that anybody wrote.
pub(crate) fn take_back(fs: &dyn LogFs, formatted: &[PathBuf]) {
    for dir in formatted {
        let path = dir.join(MetaProperties::FILE);
        let removed = fs.remove_file(&path).and_then(|()| fs.sync_dir(dir));
        let path = path.display();
        if let Err(error) = removed {
            tracing::warn!(%path, %error, "cannot be removed; remove it before this node joins another cluster");
        } else {
            tracing::info!(%path, "taken back, since the cluster refused this node");
        }
    }
}

/// Writes into every directory of the node that lacks it to which quorum the node belongs.
pub(crate) fn keep_quorum(fs: &dyn LogFs, config: &NodeConfig, quorum_id: QuorumId) {
    for dir in directories(config) {
        let kept = MetaProperties::read(fs, dir).and_then(|found| match found {
            Some(found) if found.quorum_id.is_none() => {
                MetaProperties { quorum_id: Some(quorum_id), ..found }.write(fs, dir)
            }
            _ => Ok(()),
        });
        if let Err(error) = kept {
            // The next start tries again; a directory that has failed is told of elsewhere.
            tracing::warn!(dir = %dir.display(), %error, "cannot keep the id of the quorum");
        }
    }
}

/// Where the controller keeps its log: apart from the partitions.
#[must_use]
pub fn controller_dir(config: &NodeConfig) -> PathBuf {
    let dir = &config.metadata_dir;
    if config.log_dirs.contains(dir) { dir.join(METADATA_DIR) } else { dir.clone() }
}

fn read(fs: &dyn LogFs, dir: &Path) -> Result<Option<MetaProperties>, LogError> {
    let made = fs.create_dir_all(dir);
    made.map_err(|source| klamm_log::StorageError { verb: "create", path: dir.to_owned(), source })?;
    MetaProperties::read(fs, dir)
}

fn format(
    fs: &dyn LogFs,
    config: &NodeConfig,
    dir: &Path,
    identity: &StoredIdentity,
) -> Result<MetaProperties, StorageError> {
    let properties = MetaProperties {
        cluster_id: identity.cluster_id.clone(),
        node_id: config.node_id,
        directory_id: Uuid::new_v4(),
        quorum_id: identity.quorum_id,
    };
    let written = properties.write(fs, dir);
    written.map_err(|source| StorageError::Unusable { path: dir.to_owned(), source })?;
    Ok(properties)
}

/// All directories of the node, each once.
fn directories(config: &NodeConfig) -> BTreeSet<&Path> {
    let dirs = config.log_dirs.iter().map(PathBuf::as_path);
    dirs.chain([config.metadata_dir.as_path()]).collect()
}

/// The quorum of the directories, which must be one.
fn quorum_id(known: &[(&Path, Option<MetaProperties>)]) -> Result<Option<QuorumId>, StorageError> {
    let mut ours = None;
    for (dir, properties) in known {
        let Some(theirs) = properties.as_ref().and_then(|properties| properties.quorum_id) else { continue };
        let ours = *ours.get_or_insert(theirs);
        if ours != theirs {
            return Err(StorageError::OfAnotherQuorum { path: (*dir).to_owned(), theirs, ours });
        }
    }
    Ok(ours)
}

/// The id that was given, or that of the directories; a new one only for a cluster of one node.
fn cluster_id(
    config: &NodeConfig,
    known: &[(&Path, Option<MetaProperties>)],
) -> Result<String, StorageError> {
    let mut cluster_id = config.cluster_id.clone();
    for (dir, properties) in known {
        let Some(properties) = properties else { continue };
        if properties.node_id != config.node_id {
            let (theirs, ours) = (properties.node_id, config.node_id);
            return Err(StorageError::OfAnotherNode { path: (*dir).to_owned(), theirs, ours });
        }
        let ours = cluster_id.get_or_insert_with(|| properties.cluster_id.clone());
        if *ours != properties.cluster_id {
            let (theirs, ours) = (properties.cluster_id.clone(), ours.clone());
            return Err(StorageError::OfAnotherCluster { path: (*dir).to_owned(), theirs, ours });
        }
    }
    let is_alone = config.roles.controller && config.quorum.voters.len() == 1;
    match cluster_id {
        Some(id) => Ok(id),
        None if is_alone => Ok(random_cluster_id()),
        None => Err(StorageError::NoClusterId { example: random_cluster_id() }),
    }
}

#[cfg(test)]
#[path = "storage_test.rs"]
mod tests;
