//! `meta.properties`: whose log directory this is (KIP-858).

use std::path::Path;

use klamm_types::{BrokerId, QuorumId};
use uuid::Uuid;

use super::table::read_text;
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFs, replace_file};

/// The identity of a log directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaProperties {
    /// The cluster it belongs to.
    pub cluster_id: String,
    /// The node it belongs to.
    pub node_id: BrokerId,
    /// The directory itself: a wiped and formatted disk gets another one.
    pub directory_id: Uuid,
    /// The quorum whose metadata says what lies in the directory (`quorum.id`, which Kafka does not know and leaves
    /// out); `None` until the node has taken any.
    pub quorum_id: Option<QuorumId>,
}

impl MetaProperties {
    /// The name of the file in a log directory.
    pub const FILE: &str = "meta.properties";

    /// Reads the file of `dir`; `None` if there is none.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if a property is missing or wrong; the disk's errors.
    pub fn read(fs: &dyn LogFs, dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(Self::FILE);
        let Some(text) = read_text(fs, &path)? else { return Ok(None) };
        let damaged = |what: &str| LogError::Damaged {
            path: path.clone(),
            reason: format!("{what} is missing or wrong"),
        };
        let property = |name: &str| {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            let mut pairs = lines.filter_map(|line| line.split_once('='));
            pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        if property("version") != Some("1") {
            return Err(damaged("version (1)"));
        }
        let cluster_id = property("cluster.id").ok_or_else(|| damaged("cluster.id"))?.to_owned();
        let node_id = property("node.id").and_then(|id| id.parse().ok()).ok_or_else(|| damaged("node.id"))?;
        let directory_id =
            property("directory.id").and_then(parse_id).ok_or_else(|| damaged("directory.id"))?;
        let quorum_id = property("quorum.id").map(|id| id.parse().map_err(|_| damaged("quorum.id")));
        Ok(Some(Self {
            cluster_id,
            node_id: BrokerId(node_id),
            directory_id,
            quorum_id: quorum_id.transpose()?,
        }))
    }

    /// Replaces the file of `dir`. Durable on return.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn write(&self, fs: &dyn LogFs, dir: &Path) -> Result<(), LogError> {
        let path = dir.join(Self::FILE);
        let Self { cluster_id, node_id, directory_id, quorum_id } = self;
        let directory_id = id_text(*directory_id);
        let mut text =
            format!("version=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={directory_id}\n");
        if let Some(quorum_id) = quorum_id {
            text.push_str(&format!("quorum.id={quorum_id}\n"));
        }
        Ok(replace_file(fs, &path, text.as_bytes()).describe("replace", &path)?)
    }
}

/// A directory id has the text form of a topic id.
pub(super) fn id_text(id: Uuid) -> String {
    klamm_types::TopicId(*id.as_bytes()).to_string()
}

pub(super) fn parse_id(text: &str) -> Option<Uuid> {
    let id: klamm_types::TopicId = text.parse().ok()?;
    Some(Uuid::from_bytes(id.0))
}
