//! Changes, and what becomes of them when controllers die.

use klamm_metadata::MetadataImage;
use klamm_rpc::RpcError;
use klamm_types::Offset;

use crate::fixture::*;

#[test]
fn one_node_is_a_quorum_and_keeps_what_it_accepted() {
    let mut cluster = Cluster::start(1);
    let offset = accepted(cluster.submit(set("m", "key", "value")));
    let (image, _) = cluster.image(1, MetadataImage::empty(), offset);
    assert_eq!(value(&image, "m", "key"), Some("value"));
    assert_eq!(image.features.level("metadata.version"), 4, "a new cluster starts at the highest level");
    cluster.kill(1);
    cluster.start_node(1);
    let later = accepted(cluster.submit(set("m", "other", "value")));
    assert!(later > offset);
    let (image, _) = cluster.image(1, MetadataImage::empty(), later);
    assert_eq!(value(&image, "m", "key"), Some("value"));
}

#[test]
fn what_was_accepted_outlives_every_leader_once() {
    let mut cluster = Cluster::start(3);
    let mut acknowledged = Vec::new();
    let mut unknown = Vec::new();
    let mut last = Offset(-1);
    for round in 0..4 {
        for number in 0..20 {
            let name = format!("round-{round}-{number}");
            match cluster.submit(set("m", &name, &name)) {
                Ok(response) => {
                    last = accepted(Ok(response));
                    acknowledged.push((name, last));
                }
                Err(error) => {
                    assert!(!error.is_without_effect(), "{error}");
                    unknown.push(name);
                }
            }
        }
        let leader = cluster.active();
        cluster.kill(leader);
        last = accepted(cluster.submit(set("m", "without", &leader.to_string())));
        cluster.start_node(leader);
    }
    let images: Vec<_> = (1..=3).map(|id| cluster.image(id, MetadataImage::empty(), last).0).collect();
    for image in &images {
        for (name, _) in &acknowledged {
            assert_eq!(value(image, "m", name), Some(name.as_str()));
        }
    }
    let offsets: Vec<_> = acknowledged.iter().map(|(_, offset)| *offset).collect();
    assert!(
        offsets.windows(2).all(|pair| pair[0] < pair[1]),
        "each change has an entry of its own: {offsets:?}"
    );
    // Followers may be further than `last`; what they hold at one offset is the same.
    let end = images.iter().map(|image| image.provenance.last_offset).max().unwrap();
    let images: Vec<_> = (1..=3).map(|id| cluster.image(id, MetadataImage::empty(), end).0).collect();
    let equal: Vec<_> =
        images.iter().filter(|image| image.provenance.last_offset == end).map(bytes).collect();
    assert!(equal.windows(2).all(|pair| pair[0] == pair[1]), "images at {end} differ");
    assert!(unknown.is_empty(), "nothing was interrupted here: {unknown:?}");
}

#[test]
fn a_follower_names_the_active_controller() {
    let cluster = Cluster::start(3);
    let active = cluster.active();
    let follower = (1..=3).find(|id| *id != active).unwrap();
    cluster.wait_for(follower, |status| status.leader.is_some());
    let error = cluster.submit_to(follower, set("m", "k", "v")).unwrap_err();
    let RpcError::NotActiveController { hint: Some(hint) } = error else { panic!("{error}") };
    assert_eq!((hint.node_id.0, hint.address), (active, cluster.addresses[&active].clone()));
}

#[test]
fn a_leader_that_shuts_down_hands_over() {
    let mut cluster = Cluster::start(3);
    accepted(cluster.submit(set("m", "k", "1")));
    let active = cluster.active();
    cluster.nodes.remove(&active).unwrap().shut_down();
    let offset = accepted(cluster.submit(set("m", "k", "2")));
    let next = cluster.active();
    assert_ne!(next, active);
    assert_eq!(value(&cluster.image(next, MetadataImage::empty(), offset).0, "m", "k"), Some("2"));
}

#[test]
fn the_quorum_describes_itself() {
    let cluster = Cluster::start(3);
    let offset = accepted(cluster.submit(set("m", "k", "v")));
    let active = cluster.active();
    let quorum = cluster.describe();
    assert_eq!(quorum.leader_id, active);
    assert!(quorum.high_watermark > offset.0);
    assert_eq!(quorum.voters.iter().map(|voter| voter.node_id).collect::<Vec<_>>(), [1, 2, 3]);
    let leader = quorum.voters.iter().find(|voter| voter.node_id == active).unwrap();
    assert!(leader.log_end_offset >= quorum.high_watermark);
    assert!(leader.last_fetch_timestamp_ms > 0);
    assert!(quorum.voters.iter().all(|voter| voter.port > 0 && voter.host == "127.0.0.1"));
}

/// One that is away might not know the records of the level, and could never come back.
#[test]
fn a_feature_level_is_set_only_when_all_controllers_say_that_they_support_it() {
    use klamm_pb::controller::v1 as pb;
    let mut cluster = Cluster::start(3);
    cluster.active();
    let set = || {
        pb::submit_request::Change::UpdateFeatures(pb::UpdateFeatures {
            updates: vec![pb::FeatureUpdate {
                name: "metadata.version".to_owned(),
                level: 4,
                kind: pb::feature_update::Kind::Upgrade.into(),
            }],
            validate_only: false,
        })
    };
    accepted(cluster.submit(set()));
    let away = (1..=3).find(|id| *id != cluster.active()).unwrap();
    cluster.kill(away);
    let answer = cluster.submit(set()).unwrap();
    let Some(pb::submit_response::Outcome::Refusal(refusal)) = answer.outcome else { panic!("{answer:?}") };
    assert_eq!(refusal.code, i32::from(pb::RefusalCode::FeatureUpdateFailed));
    assert!(refusal.message.starts_with(&format!("controller {away} does not say")), "{refusal:?}");
}
