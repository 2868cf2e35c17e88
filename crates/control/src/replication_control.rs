//! Who has, leads and follows which partition.

use std::sync::Arc;

use klamm_metadata::{
    METADATA_VERSION, MetadataImage, MetadataRecord, PartitionRegistration, TopicImage, UNCLEAN_EPOCH_LEVEL,
};
use klamm_types::{BrokerId, PartitionId, TopicId};

use crate::ControlConfig;
use crate::draft::Draft;
use crate::partition_change::{Election, PartitionChangeBuilder};
use crate::settings::{min_insync_replicas, unclean_election_enabled, write_caching};

/// Decisions about topics and partitions, on one image.
///
/// Its methods stand in files by operation: creation and deletion in `topics`, ISR changes in `alter_partition`,
/// elections in `election`, reassignment in `reassignment`.
#[derive(Clone, Copy, Debug)]
pub struct ReplicationControl<'a> {
    pub(crate) image: &'a MetadataImage,
    pub(crate) config: &'a ControlConfig,
}

/// One partition of an image, with the minimum that its topic asks for.
#[derive(Clone, Copy)]
pub(crate) struct Located<'a> {
    pub(crate) topic: &'a Arc<TopicImage>,
    pub(crate) partition: PartitionId,
    pub(crate) registration: &'a Arc<PartitionRegistration>,
    pub(crate) min_isr: usize,
}

/// Who may lead and who may go on leading, as far as one decision is concerned.
pub(crate) struct Standing<'a> {
    pub(crate) may_lead: &'a dyn Fn(BrokerId) -> bool,
    pub(crate) may_stay: &'a dyn Fn(BrokerId) -> bool,
}

/// What a broker that leaves its ISRs may have lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// Nothing.
    Nothing,
    /// What was not on its disk: of topics with `write.caching` something that it had acknowledged. Its replica stays
    /// eligible where no other is complete: whoever chose that setting prefers an old end to none.
    Cached,
    /// Anything.
    Anything,
}

impl<'a> ReplicationControl<'a> {
    /// Decisions on `image`, the newest one, under `config`.
    #[must_use]
    pub fn new(image: &'a MetadataImage, config: &'a ControlConfig) -> Self {
        Self { image, config }
    }

    /// The effective `min.insync.replicas` of every partition, and the partition itself, in the order of topic ids.
    pub(crate) fn partitions(self) -> impl Iterator<Item = Located<'a>> {
        self.image.topics.topics().flat_map(move |topic| {
            let min_isr = min_insync_replicas(self.image, self.config, &topic.name);
            let located =
                move |(partition, registration)| Located { topic, partition, registration, min_isr };
            topic.partitions().map(located)
        })
    }

    /// One partition, by the topic's id.
    pub(crate) fn locate_id(self, topic: TopicId, partition: PartitionId) -> Option<Located<'a>> {
        let topic = self.image.topics.topic(topic)?;
        let registration = topic.partition(partition)?;
        let min_isr = min_insync_replicas(self.image, self.config, &topic.name);
        Some(Located { topic, partition, registration, min_isr })
    }

    pub(crate) fn builder<'b>(
        self,
        located: Located<'b>,
        standing: &Standing<'b>,
    ) -> PartitionChangeBuilder<'b> {
        let Located { topic, partition, registration, min_isr } = located;
        let is_offline = |broker: &BrokerId| self.image.offline.contains(*broker, topic.id, partition);
        let unclean = unclean_election_enabled(self.image, self.config, &topic.name);
        PartitionChangeBuilder {
            topic: topic.id,
            partition,
            old: registration,
            target: registration.as_ref().clone(),
            min_isr,
            election: if unclean { Election::Unclean } else { Election::Clean },
            lossy: None,
            always: false,
            remembers_unclean: self.image.features.level(METADATA_VERSION) >= UNCLEAN_EPOCH_LEVEL,
            forget_elr: false,
            newcomers: &[],
            offline: registration.replicas.iter().copied().filter(is_offline).collect(),
            may_lead: standing.may_lead,
            may_stay: standing.may_stay,
        }
    }

    /// Takes `broker` out of every ISR and, if it may have lost something, out of every ELR, and elects, `newcomers`
    /// last.
    pub(crate) fn remove_from_isr(
        draft: &mut Draft,
        config: &ControlConfig,
        broker: BrokerId,
        loss: Loss,
        newcomers: &[BrokerId],
    ) {
        let image = draft.image().clone();
        let control = ReplicationControl::new(&image, config);
        for located in control.partitions() {
            let lossy = match loss {
                Loss::Nothing => false,
                Loss::Cached => {
                    let complete = located.registration.isr.iter().chain(&located.registration.elr);
                    write_caching(&image, config, &located.topic.name)
                        && complete.copied().any(|other| other != broker)
                }
                Loss::Anything => true,
            };
            let in_isr = located.registration.isr.contains(&broker);
            let untrusted = lossy && located.registration.elr.contains(&broker);
            if !in_isr && !untrusted {
                continue;
            }
            let record = control.without_member(located, broker, lossy, newcomers);
            record.into_iter().for_each(|record| draft.push(record));
        }
    }

    /// Takes `broker` out of one ISR and, if it is `lossy`, out of the ELR, and elects, `newcomers` last.
    pub(crate) fn without_member(
        self,
        located: Located<'_>,
        broker: BrokerId,
        lossy: bool,
        newcomers: &[BrokerId],
    ) -> Option<MetadataRecord> {
        let may_lead = |other| other != broker && self.image.cluster.is_active(other);
        let may_stay = |other| other != broker && is_unfenced(self.image, other);
        let mut builder = self.builder(located, &Standing { may_lead: &may_lead, may_stay: &may_stay });
        builder.target.isr.retain(|member| *member != broker);
        builder.lossy = lossy.then_some(broker);
        builder.newcomers = newcomers;
        builder.build()
    }

    /// Takes `broker`, which is to lead no longer although it can, out of one ISR and elects, `newcomers` last; nothing
    /// if nobody else can lead.
    pub(crate) fn handed_over(
        self,
        located: Located<'_>,
        broker: BrokerId,
        newcomers: &[BrokerId],
    ) -> Option<MetadataRecord> {
        let may_lead = |other| other != broker && self.image.cluster.is_active(other);
        let may_stay = |other| other != broker && is_unfenced(self.image, other);
        let mut builder = self.builder(located, &Standing { may_lead: &may_lead, may_stay: &may_stay });
        builder.election = Election::Clean;
        builder.newcomers = newcomers;
        builder.target.isr.retain(|member| *member != broker);
        builder.build().filter(|record| match record {
            MetadataRecord::PartitionChanged(change) => {
                change.merge_into(located.registration).leader.is_some()
            }
            _ => false,
        })
    }

    /// Elects wherever nobody leads and `broker`, which has just become active, has a replica.
    pub(crate) fn elect_for_newcomer(draft: &mut Draft, config: &ControlConfig, broker: BrokerId) {
        let image = draft.image().clone();
        let control = ReplicationControl::new(&image, config);
        let records = control.elect_where(|partition| partition.replicas.contains(&broker));
        records.into_iter().for_each(|record| draft.push(record));
    }

    /// One election for every partition without a leader that `wanted` picks.
    pub(crate) fn elect_where(self, wanted: impl Fn(&PartitionRegistration) -> bool) -> Vec<MetadataRecord> {
        let may_lead = |broker| self.image.cluster.is_active(broker);
        let may_stay = |broker| is_unfenced(self.image, broker);
        let standing = Standing { may_lead: &may_lead, may_stay: &may_stay };
        let leaderless =
            self.partitions().filter(|p| p.registration.leader.is_none() && wanted(p.registration));
        leaderless.filter_map(|located| self.builder(located, &standing).build()).collect()
    }
}

pub(crate) fn is_unfenced(image: &MetadataImage, broker: BrokerId) -> bool {
    image.cluster.broker(broker).is_some_and(|registration| !registration.fenced)
}
