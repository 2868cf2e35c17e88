//! Feature levels.

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::QuorumId;

use crate::context::*;

fn range(name: &str, level_min: u16, level_max: u16) -> FeatureRange {
    FeatureRange { name: name.to_owned(), level_min, level_max }
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::empty();
    cluster.config.features = vec![range("group.version", 1, 2), range(METADATA_VERSION, 1, 3)];
    cluster.start(1);
    cluster
}

fn update(name: &str, level: u16, kind: FeatureUpdateKind) -> FeatureUpdate {
    FeatureUpdate { name: name.to_owned(), level, kind }
}

#[test]
fn a_new_cluster_starts_at_the_highest_levels_once() {
    let mut cluster = cluster();
    let result = FeatureControl::new(&cluster.image, &cluster.config).bootstrap(QuorumId([1; 16]));
    cluster.commit(result);
    assert_eq!(cluster.image.quorum_id, Some(QuorumId([1; 16])));
    assert_eq!(
        cluster.image.features.levels().collect::<Vec<_>>(),
        [("group.version", 2), (METADATA_VERSION, 3)]
    );
    cluster.config.features[1].level_max = 4;
    assert!(
        FeatureControl::new(&cluster.image, &cluster.config).bootstrap(QuorumId([2; 16])).records.is_empty()
    );
}

/// A cluster whose first binary knew no ids gets one as soon as all of its binaries do.
#[test]
fn a_quorum_without_an_id_gets_it_at_the_level_that_has_ids() {
    let mut cluster = cluster();
    for (level, id) in [(2, None), (3, Some(QuorumId([7; 16])))] {
        cluster.commit(ControlResult::atomic(
            vec![MetadataRecord::FeatureLevelSet { name: METADATA_VERSION.to_owned(), level }],
            (),
        ));
        let result = FeatureControl::new(&cluster.image, &cluster.config).bootstrap(QuorumId([7; 16]));
        cluster.commit(result);
        assert_eq!(cluster.image.quorum_id, id, "level {level}");
    }
}

#[test]
fn levels_move_when_everybody_supports_them() {
    use FeatureUpdateKind::{SafeDowngrade, UnsafeDowngrade, Upgrade};
    let mut cluster = cluster();
    let mut apply = |updates: &[FeatureUpdate]| {
        let result = FeatureControl::new(&cluster.image, &cluster.config).update_features(updates);
        result.map(|result| cluster.commit(result)).map_err(|error| error.refusal())
    };
    let both = [update("group.version", 1, Upgrade), update(METADATA_VERSION, 2, Upgrade)];
    assert_eq!(apply(&both), Ok(vec!["group.version".to_owned(), METADATA_VERSION.to_owned()]));
    assert_eq!(apply(&both), Ok(vec![]), "they are there already");
    let invalid = Err(Refusal::InvalidUpdateVersion);
    assert_eq!(apply(&[update("group.version", 3, Upgrade)]), invalid);
    assert_eq!(apply(&[update("no.such.thing", 1, Upgrade)]), invalid);
    assert_eq!(apply(&[update("group.version", 2, SafeDowngrade)]), invalid);
    assert_eq!(apply(&[update("group.version", 0, Upgrade)]), invalid);
    assert_eq!(apply(&[update(METADATA_VERSION, 1, UnsafeDowngrade)]), Err(Refusal::FeatureUpdateFailed));
    let twice = [update("group.version", 2, Upgrade), update("group.version", 2, Upgrade)];
    assert_eq!(apply(&twice), Err(Refusal::InvalidRequest));
    assert_eq!(apply(&[update("group.version", 0, SafeDowngrade)]), Ok(vec!["group.version".to_owned()]));
    assert_eq!(cluster.image.features.level("group.version"), 0);
}

#[test]
fn one_old_broker_holds_a_level_back() {
    let mut cluster = cluster();
    let mut old = cluster.register_request(2, RecoveryVerdict::Clean);
    old.features = vec![range(METADATA_VERSION, 1, 2)];
    cluster.register(&old).expect("nothing is finalized");
    let update = |name, level| {
        let updates = [update(name, level, FeatureUpdateKind::Upgrade)];
        FeatureControl::new(&cluster.image, &cluster.config)
            .update_features(&updates)
            .map(|result| result.response)
    };
    assert_eq!(update(METADATA_VERSION, 2), Ok(vec![METADATA_VERSION.to_owned()]));
    let held =
        |name: &str, level| FeatureError::UnsupportedByBroker { broker: b(2), name: name.to_owned(), level };
    assert_eq!(update(METADATA_VERSION, 3), Err(held(METADATA_VERSION, 3)));
    assert_eq!(update("group.version", 1), Err(held("group.version", 1)));
}
