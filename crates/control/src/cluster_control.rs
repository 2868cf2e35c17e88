//! The life of brokers, as the controller decides it.
//!
//! | state | register | heartbeat, well | wants fence | wants shutdown | dead or silent |
//! |---|---|---|---|---|---|
//! | unknown | fenced | refused | refused | refused | - |
//! | fenced | fenced, new epoch | active once it has applied its registration | stays | may go | - |
//! | active | refused while it has a session, unless from the same log directory; then fenced, new epoch | stays | fenced | shutting down | fenced |
//! | shutting down | as active | stays | fenced | fenced and may go, once nobody needs it | fenced |
//!
//! A broker that was let go is fenced *and* shutting down: only a new registration brings it back.

use std::collections::BTreeSet;

use klamm_metadata::{
    BrokerChanged, BrokerRegistration, DirectoryId, Endpoint, FeatureRange, IncarnationId, MetadataImage,
    MetadataRecord,
};
use klamm_types::{BrokerEpoch, BrokerId, Offset, Timestamp};

use crate::draft::Draft;
use crate::replication_control::Loss;
use crate::result::last_entry_offset;
use crate::{ControlConfig, ControlResult, Liveness, Refusal, Refused, ReplicationControl};

/// Decisions about brokers, on one image.
#[derive(Clone, Copy, Debug)]
pub struct ClusterControl<'a> {
    image: &'a MetadataImage,
    config: &'a ControlConfig,
    /// The offset that the next entry will get.
    next_offset: Offset,
    now: Timestamp,
}

/// A broker's request to take part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegisterRequest {
    /// The broker.
    pub broker: BrokerId,
    /// This start of its process.
    pub incarnation: IncarnationId,
    /// Its log directory.
    pub directory: DirectoryId,
    /// Where to reach it; at least one.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// What its binary supports.
    pub features: Vec<FeatureRange>,
    /// Whether new replicas are unwelcome.
    pub cordoned: bool,
    /// The epoch in its clean-shutdown marker.
    pub marker_epoch: Option<BrokerEpoch>,
    /// What it found in its log directory.
    pub verdict: RecoveryVerdict,
}

/// What a broker says about the log that it comes back with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoveryVerdict {
    /// It shut down cleanly.
    Clean,
    /// It crashed, but acknowledges only what is flushed, and found nothing damaged below the flush point.
    CrashedDurable,
    /// Something that it acknowledged may be gone.
    Lossy,
}

/// The answer to a registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registered {
    /// Names this registration: the offset of the entry that carries it.
    pub epoch: BrokerEpoch,
}

/// A sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeartbeatRequest {
    /// The broker.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// The last offset of the metadata log that it has applied; -1 for none.
    pub applied: Offset,
    /// It cannot serve.
    pub want_fence: bool,
    /// It wants to go.
    pub want_shutdown: bool,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrokerStanding {
    /// It has applied its own registration.
    pub caught_up: bool,
    /// It may not serve.
    pub fenced: bool,
    /// It may flush, write its marker and exit.
    pub may_shut_down: bool,
    /// How long it may be silent, and how long its lease lasts.
    pub session_timeout_ms: u32,
}

/// Why a broker's request is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LifecycleError {
    /// `DUPLICATE_BROKER_REGISTRATION`: another process with this id, and another log directory, lives.
    #[error("broker {broker} is registered by the living process {incarnation}")]
    Duplicate {
        /// The broker.
        broker: BrokerId,
        /// The other process.
        incarnation: IncarnationId,
    },
    /// `INVALID_REQUEST`.
    #[error("broker {broker} has no endpoint, or two of one name")]
    BadEndpoints {
        /// The broker.
        broker: BrokerId,
    },
    /// `INVALID_REQUEST`.
    #[error("{broker} is no broker id")]
    BadId {
        /// The id.
        broker: BrokerId,
    },
    /// `UNSUPPORTED_VERSION`: the cluster uses a feature at a level that the broker's binary does not support.
    #[error("broker {broker} does not support {feature} at level {level}")]
    UnsupportedFeature {
        /// The broker.
        broker: BrokerId,
        /// The feature.
        feature: String,
        /// The finalized level.
        level: u16,
    },
    /// `BROKER_ID_NOT_REGISTERED`.
    #[error("broker {broker} is not registered")]
    NotRegistered {
        /// The broker.
        broker: BrokerId,
    },
    /// `STALE_BROKER_EPOCH`.
    #[error("broker {broker} is registered under epoch {current}, not {found}")]
    StaleEpoch {
        /// The broker.
        broker: BrokerId,
        /// The epoch in the request.
        found: BrokerEpoch,
        /// The epoch of the registration.
        current: BrokerEpoch,
    },
}

impl Refused for LifecycleError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Duplicate { .. } => Refusal::DuplicateBrokerRegistration,
            Self::BadEndpoints { .. } | Self::BadId { .. } => Refusal::InvalidRequest,
            Self::UnsupportedFeature { .. } => Refusal::UnsupportedVersion,
            Self::NotRegistered { .. } => Refusal::BrokerIdNotRegistered,
            Self::StaleEpoch { .. } => Refusal::StaleBrokerEpoch,
        }
    }
}

impl<'a> ClusterControl<'a> {
    /// Decisions on `image`, the newest one, at `now` (monotonic), to be appended from `next_offset` on.
    #[must_use]
    pub fn new(
        image: &'a MetadataImage,
        config: &'a ControlConfig,
        next_offset: Offset,
        now: Timestamp,
    ) -> Self {
        Self { image, config, next_offset, now }
    }

    /// Registers a broker, fenced, under a new epoch. Before that it leaves every ISR, and every ELR if its log may
    /// have lost something. The same process asking again gets the epoch that it has.
    ///
    /// # Errors
    /// [`LifecycleError`]; a duplicate is worth another try once the other process's session is over.
    pub fn register(
        &self,
        liveness: &mut Liveness,
        request: &RegisterRequest,
    ) -> Result<ControlResult<Registered>, LifecycleError> {
        self.validate_registration(request)?;
        let previous = self.image.cluster.broker(request.broker);
        if let Some(previous) = previous {
            if previous.incarnation == request.incarnation && is_same(previous, request) {
                return Ok(ControlResult::stepwise(Vec::new(), Registered { epoch: previous.epoch }));
            }
            // A process holds the lock of its log directory for as long as it lives: who comes with the same one has
            // survived the other.
            let other_directory = previous.directory != request.directory;
            let living = other_directory && liveness.has_session(request.broker, self.now);
            if previous.incarnation != request.incarnation && living {
                let incarnation = previous.incarnation;
                return Err(LifecycleError::Duplicate { broker: request.broker, incarnation });
            }
        }
        let mut draft = Draft::new(self.image);
        if let Some(previous) = previous {
            let loss = match verdict(previous, request) {
                RecoveryVerdict::Clean => Loss::Nothing,
                RecoveryVerdict::CrashedDurable if previous.incarnation == request.incarnation => {
                    Loss::Nothing
                }
                RecoveryVerdict::CrashedDurable => Loss::Cached,
                RecoveryVerdict::Lossy => Loss::Anything,
            };
            let newcomers = liveness.newcomers(self.now);
            ReplicationControl::remove_from_isr(&mut draft, self.config, request.broker, loss, &newcomers);
        }
        let epoch = BrokerEpoch(last_entry_offset(self.next_offset, draft.records.len() + 1).0);
        draft.push(MetadataRecord::BrokerRegistered(registration(request, epoch)));
        liveness.on_registered(request.broker, epoch, self.now);
        Ok(ControlResult::stepwise(draft.records, Registered { epoch }))
    }

    fn validate_registration(&self, request: &RegisterRequest) -> Result<(), LifecycleError> {
        let broker = request.broker;
        if broker.0 < 0 {
            return Err(LifecycleError::BadId { broker });
        }
        let names: BTreeSet<_> = request.endpoints.iter().map(|endpoint| &endpoint.listener).collect();
        if names.is_empty() || names.len() != request.endpoints.len() {
            return Err(LifecycleError::BadEndpoints { broker });
        }
        for (feature, level) in self.image.features.levels() {
            let range = request.features.iter().find(|range| range.name == feature);
            if range.is_none_or(|range| !range.supports(level)) {
                let feature = feature.to_owned();
                return Err(LifecycleError::UnsupportedFeature { broker, feature, level });
            }
        }
        Ok(())
    }

    /// Takes a heartbeat, and decides what the broker may do.
    ///
    /// # Errors
    /// [`LifecycleError::NotRegistered`] or [`LifecycleError::StaleEpoch`]: the broker must register.
    pub fn heartbeat(
        &self,
        liveness: &mut Liveness,
        request: &HeartbeatRequest,
    ) -> Result<ControlResult<BrokerStanding>, LifecycleError> {
        let &HeartbeatRequest { broker, epoch, applied, want_fence, want_shutdown } = request;
        let registration = self.current(broker, epoch)?;
        liveness.on_heartbeat(broker, epoch, applied, self.now);
        let caught_up = applied.0 >= epoch.0;
        let mut draft = Draft::new(self.image);
        let mut may_shut_down = false;
        if want_shutdown {
            may_shut_down = self.shut_down(&mut draft, liveness, registration);
        } else if registration.fenced {
            if caught_up && !want_fence && !registration.shutting_down {
                self.unfence(&mut draft, registration);
            }
        } else if want_fence {
            self.fence_into(&mut draft, liveness, broker);
        }
        let fenced = draft.image().cluster.broker(broker).is_none_or(|broker| broker.fenced);
        let session_timeout_ms = liveness.session_timeout_ms(broker, self.now);
        if may_shut_down {
            liveness.end_session(broker);
        }
        let standing = BrokerStanding { caught_up, fenced, may_shut_down, session_timeout_ms };
        Ok(ControlResult::stepwise(draft.records, standing))
    }

    fn current(
        &self,
        broker: BrokerId,
        found: BrokerEpoch,
    ) -> Result<&'a BrokerRegistration, LifecycleError> {
        let registration =
            self.image.cluster.broker(broker).ok_or(LifecycleError::NotRegistered { broker })?;
        let current = registration.epoch;
        if current == found {
            Ok(registration)
        } else {
            Err(LifecycleError::StaleEpoch { broker, found, current })
        }
    }

    fn unfence(&self, draft: &mut Draft, registration: &BrokerRegistration) {
        let change = BrokerChanged { fenced: Some(false), ..BrokerChanged::of(registration) };
        draft.push(MetadataRecord::BrokerChanged(change));
        ReplicationControl::elect_for_newcomer(draft, self.config, registration.id);
    }

    /// One step of a controlled shutdown; tells whether the broker may go now.
    ///
    /// What it leads moves to whoever else can lead; what nobody else can, it keeps to the last. It may go when
    /// nothing more can move and every other broker in service has applied the metadata that says so, for until then
    /// clients are sent to it.
    fn shut_down(
        &self,
        draft: &mut Draft,
        liveness: &mut Liveness,
        registration: &BrokerRegistration,
    ) -> bool {
        if registration.fenced {
            return true;
        }
        if !registration.shutting_down {
            let change = BrokerChanged { shutting_down: Some(true), ..BrokerChanged::of(registration) };
            draft.push(MetadataRecord::BrokerChanged(change));
        }
        self.move_leaderships(draft, liveness, registration.id);
        let last_offset = last_entry_offset(self.next_offset, draft.records.len());
        if !draft.records.is_empty() || liveness.shutdown_offset(registration.id).is_none() {
            liveness.require_for_shutdown(registration.id, last_offset);
            return false;
        }
        let required = liveness.shutdown_offset(registration.id).unwrap_or(last_offset);
        let others = self.image.cluster.brokers().filter(|other| other.is_active());
        let mut applied = others.map(|other| liveness.applied(other.id).unwrap_or(Offset(-1)));
        if !applied.all(|applied| applied >= required) {
            return false;
        }
        self.fence_into(draft, liveness, registration.id);
        true
    }

    /// Takes a broker on its way out off every ISR that can do without it, and so out of every leadership that
    /// another can take over.
    fn move_leaderships(&self, draft: &mut Draft, liveness: &Liveness, broker: BrokerId) {
        let newcomers = liveness.newcomers(self.now);
        let image = draft.image().clone();
        let control = ReplicationControl::new(&image, self.config);
        for located in control.partitions().filter(|located| located.registration.isr.contains(&broker)) {
            let record = control.handed_over(located, broker, &newcomers);
            record.into_iter().for_each(|record| draft.push(record));
        }
    }

    /// Fences `broker`, which is dead, silent or asked for it: it leaves every ISR, others are elected, and last of
    /// all it is marked, so that no prefix of the records has a fenced member in an ISR. A broker that is fenced
    /// already, or not registered, is left alone.
    pub fn fence(&self, liveness: &Liveness, broker: BrokerId) -> ControlResult<()> {
        let mut draft = Draft::new(self.image);
        self.fence_into(&mut draft, liveness, broker);
        ControlResult::stepwise(draft.records, ())
    }

    /// Fences everybody who has been silent for too long; tells who that was. See [`Liveness::silent`].
    pub fn fence_silent(&self, liveness: &mut Liveness) -> ControlResult<Vec<BrokerId>> {
        let silent = liveness.silent(self.image, self.now);
        let mut draft = Draft::new(self.image);
        silent.iter().for_each(|broker| self.fence_into(&mut draft, liveness, *broker));
        ControlResult::stepwise(draft.records, silent)
    }

    fn fence_into(&self, draft: &mut Draft, liveness: &Liveness, broker: BrokerId) {
        let Some(registration) = self.image.cluster.broker(broker).filter(|broker| !broker.fenced) else {
            return;
        };
        let newcomers = liveness.newcomers(self.now);
        ReplicationControl::remove_from_isr(draft, self.config, broker, Loss::Nothing, &newcomers);
        let change = BrokerChanged { fenced: Some(true), ..BrokerChanged::of(registration) };
        draft.push(MetadataRecord::BrokerChanged(change));
    }

    /// Forgets `broker` for good. It leaves every ISR and, as nobody expects it back, every ELR; it remains a replica of
    /// its partitions until they are reassigned.
    ///
    /// # Errors
    /// [`LifecycleError::NotRegistered`].
    pub fn unregister(
        &self,
        liveness: &mut Liveness,
        broker: BrokerId,
    ) -> Result<ControlResult<()>, LifecycleError> {
        let registration =
            self.image.cluster.broker(broker).ok_or(LifecycleError::NotRegistered { broker })?;
        let mut draft = Draft::new(self.image);
        let newcomers = liveness.newcomers(self.now);
        ReplicationControl::remove_from_isr(&mut draft, self.config, broker, Loss::Anything, &newcomers);
        draft.push(MetadataRecord::BrokerUnregistered { broker, epoch: registration.epoch });
        liveness.end_session(broker);
        Ok(ControlResult::stepwise(draft.records, ()))
    }
}

/// What to believe of a broker's verdict on its own log. The same process has lost nothing by asking again.
fn verdict(previous: &BrokerRegistration, request: &RegisterRequest) -> RecoveryVerdict {
    let same_directory = previous.directory == request.directory;
    match request.verdict {
        _ if !same_directory => RecoveryVerdict::Lossy,
        RecoveryVerdict::Clean if previous.incarnation == request.incarnation => RecoveryVerdict::Clean,
        RecoveryVerdict::Clean if request.marker_epoch == Some(previous.epoch) => RecoveryVerdict::Clean,
        RecoveryVerdict::Clean => RecoveryVerdict::Lossy,
        other => other,
    }
}

/// Whether the request says what is registered already. That goes for a process on its way out, too: it never comes back
/// as itself, so its request is a late one, and another epoch would not be that in the mark which it leaves on its disk.
fn is_same(previous: &BrokerRegistration, request: &RegisterRequest) -> bool {
    let again = registration(request, previous.epoch);
    let BrokerRegistration { fenced, shutting_down, .. } = *previous;
    BrokerRegistration { fenced, shutting_down, ..again } == *previous
}

fn registration(request: &RegisterRequest, epoch: BrokerEpoch) -> BrokerRegistration {
    let mut features = request.features.clone();
    features.sort_by(|a, b| a.name.cmp(&b.name));
    BrokerRegistration {
        id: request.broker,
        epoch,
        incarnation: request.incarnation,
        directory: request.directory,
        endpoints: request.endpoints.clone(),
        rack: request.rack.clone(),
        features,
        fenced: true,
        shutting_down: false,
        cordoned: request.cordoned,
    }
}
