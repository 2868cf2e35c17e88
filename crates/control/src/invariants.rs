//! What must hold of every partition, whatever was decided. See `docs/invariants.md`.

use klamm_metadata::{MetadataImage, PartitionRegistration};

use crate::ControlConfig;
use crate::settings::min_insync_replicas;

/// Asserts INV7 and INV8 on one partition, given `min.insync.replicas` as configured.
///
/// # Panics
/// If they do not hold: a decision was wrong, and must not reach the log.
pub fn check_partition(partition: &PartitionRegistration, min_isr: usize) {
    let PartitionRegistration { isr, elr, last_known_elr, .. } = partition;
    if let Err(broken) = partition.check() {
        panic!("INV7: {broken}: {partition:?}");
    }
    let full = isr.len() >= partition.effective_min_isr(min_isr);
    assert!(!full || elr.is_empty(), "INV7: an elr beside a full isr: {partition:?}");
    assert!(!full || last_known_elr.is_empty(), "INV7: a last known elr beside a full isr: {partition:?}");
    let forgotten = isr.is_empty() && elr.is_empty() && last_known_elr.is_empty();
    assert!(!forgotten, "INV8: nobody is left to recover from: {partition:?}");
}

/// Asserts INV7 and INV8 on a whole image, with what one partition alone cannot tell: no fenced or unknown broker
/// and no replica that is offline is in an ISR, and nobody leads who must not. For tests and the simulation, after every step.
///
/// # Panics
/// If they do not hold.
pub fn check_image(image: &MetadataImage, config: &ControlConfig) {
    for (broker, topic, id) in image.offline.iter() {
        let partition = image.topics.partition(topic, id);
        assert!(
            image.cluster.broker(broker).is_some()
                && partition.is_some_and(|partition| partition.replicas.contains(&broker)),
            "INV7: {topic}-{id} has no replica on {broker} that could be offline: {partition:?}"
        );
    }
    for (topic, id, partition) in image.topics.partitions() {
        check_partition(partition, min_insync_replicas(image, config, &topic.name));
        for member in &partition.isr {
            let fenced = image.cluster.broker(*member).is_none_or(|broker| broker.fenced);
            let offline = image.offline.contains(*member, topic.id, id);
            assert!(
                !offline,
                "INV7: {}-{id} has the offline replica of {member} in its isr: {partition:?}",
                topic.name
            );
            assert!(
                !fenced,
                "INV7: {}-{id} has the fenced broker {member} in its isr: {partition:?}",
                topic.name
            );
        }
    }
}
