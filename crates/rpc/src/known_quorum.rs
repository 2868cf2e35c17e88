//! Which quorum this node belongs to.

use std::sync::Arc;

use bytes::Bytes;
use klamm_types::QuorumId;
use tokio::sync::watch;

/// The quorum whose metadata this node has taken, shared by all its parts. Clones are the same node's.
///
/// # Invariants
/// - QUORUM-1: a node belongs to one quorum in its life. One founded anew, with the metadata of the former lost, begins
///   again at term 1 and offset 0: to go on with it as if it were the former would take its metadata for a
///   continuation, and lose what had been acknowledged without a word.
#[derive(Clone, Debug, Default)]
pub struct KnownQuorum(Arc<watch::Sender<Option<QuorumId>>>);

/// This node belongs to another quorum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the metadata is of quorum {found}, and this node belongs to quorum {known}")]
pub struct ForeignQuorum {
    /// The quorum of the metadata.
    pub found: QuorumId,
    /// This node's.
    pub known: QuorumId,
}

impl KnownQuorum {
    /// That of a node whose directories name `quorum`.
    #[must_use]
    pub fn new(quorum: Option<QuorumId>) -> Self {
        Self(Arc::new(watch::Sender::new(quorum)))
    }

    /// The quorum; `None` for a node that has taken nobody's metadata yet.
    #[must_use]
    pub fn get(&self) -> Option<QuorumId> {
        *self.0.borrow()
    }

    /// The node takes metadata of `quorum`, and belongs to it from now on.
    ///
    /// # Errors
    /// [`ForeignQuorum`] if it belongs to another one.
    pub fn settle(&self, quorum: QuorumId) -> Result<(), ForeignQuorum> {
        self.0.send_if_modified(|known| {
            let is_new = known.is_none();
            known.get_or_insert(quorum);
            is_new
        });
        match self.get() {
            Some(known) if known != quorum => Err(ForeignQuorum { found: quorum, known }),
            _ => Ok(()),
        }
    }

    /// Waits until the node belongs to a quorum.
    pub async fn settled(&self) -> QuorumId {
        let mut known = self.0.subscribe();
        loop {
            if let Some(quorum) = *known.borrow_and_update() {
                return quorum;
            }
            if known.changed().await.is_err() {
                // Nobody is left who could settle it.
                return std::future::pending().await;
            }
        }
    }

    /// As calls carry it.
    pub(crate) fn to_bytes(&self) -> Bytes {
        self.get().map_or_else(Bytes::new, |quorum| Bytes::copy_from_slice(&quorum.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_belongs_to_the_first_quorum_that_it_takes_metadata_of() {
        let (first, other) = (QuorumId([1; 16]), QuorumId([2; 16]));
        let known = KnownQuorum::default();
        assert_eq!((known.get(), known.to_bytes()), (None, Bytes::new()));
        assert_eq!(known.settle(first), Ok(()));
        assert_eq!(known.settle(first), Ok(()));
        assert_eq!(known.settle(other), Err(ForeignQuorum { found: other, known: first }));
        assert_eq!((known.get(), known.to_bytes()), (Some(first), Bytes::from_static(&[1; 16])));
    }
}
