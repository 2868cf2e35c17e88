//! Whether all controllers can follow a change of feature levels.
//!
//! What brokers support, their registrations say. Controllers do not register: they are asked. One that does not know the
//! records of a level stops at the first of them, and a majority of such ones is the end of the quorum.

use futures_util::future::join_all;
use klamm_metadata::{FeatureRange, RecordError, feature_from_pb};
use klamm_pb::controller::v1 as pb;
use klamm_pb::metadata::v1::FeatureRange as PbRange;

use super::ServiceParts;
use crate::raft::WatchReceiver as _;

/// Why the controllers cannot follow `updates`; `None` if all of them say that they can, and on a controller that is not
/// the active one, which decides nothing.
pub(super) async fn unsupported(parts: &ServiceParts, updates: &[pb::FeatureUpdate]) -> Option<pb::Refusal> {
    if !parts.status.borrow().is_active {
        return None;
    }
    let others: Vec<_> = {
        let metrics = parts.raft.metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        let others = nodes.filter(|(id, _)| **id != metrics.id);
        others.map(|(id, node)| (*id, node.clone())).collect()
    };
    let asked = others.iter().map(|(id, node)| async { (*id, parts.transport.recall(*id, node).await) });
    for (id, answer) in join_all(asked).await {
        let problem = match answer {
            Ok(answer) => match understood(answer.features) {
                Ok(supported) => problem_of(&supported, updates),
                Err(error) => Some(format!("says of what it supports what cannot be: {error}")),
            },
            Err(error) => Some(format!("does not say what it supports: {error}")),
        };
        if let Some(problem) = problem {
            let code = pb::RefusalCode::FeatureUpdateFailed.into();
            return Some(pb::Refusal { code, message: format!("controller {id} {problem}") });
        }
    }
    None
}

fn understood(features: Vec<PbRange>) -> Result<Vec<FeatureRange>, RecordError> {
    features.into_iter().map(feature_from_pb).collect()
}

fn problem_of(supported: &[FeatureRange], updates: &[pb::FeatureUpdate]) -> Option<String> {
    let is_supported = |update: &pb::FeatureUpdate| {
        let range = supported.iter().find(|range| range.name == update.name);
        let level = u16::try_from(update.level);
        update.level == 0 || range.is_some_and(|range| level.is_ok_and(|level| range.supports(level)))
    };
    let unsupported = updates.iter().find(|update| !is_supported(update))?;
    Some(format!("does not support level {} of {}", unsupported.level, unsupported.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_needs_every_controller() {
        let supported = [FeatureRange { name: "metadata.version".to_owned(), level_min: 1, level_max: 2 }];
        let update = |name: &str, level| pb::FeatureUpdate { name: name.to_owned(), level, kind: 0 };
        let problem = |update| problem_of(&supported, &[update]);
        assert_eq!(problem(update("metadata.version", 2)), None);
        assert_eq!(problem(update("other", 0)), None);
        let told = problem(update("metadata.version", 3));
        assert_eq!(told.as_deref(), Some("does not support level 3 of metadata.version"));
        assert!(problem(update("other", 1)).is_some());
        // A binary that does not answer this yet supports nothing new.
        assert!(problem_of(&[], &[update("metadata.version", 2)]).is_some());
    }
}
