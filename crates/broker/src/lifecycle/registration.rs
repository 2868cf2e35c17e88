//! The registration of the broker with the controller.

use bytes::Bytes;
use klamm_metadata::{DirectoryId, Endpoint, FeatureRange, IncarnationId, endpoint_to_pb, feature_to_pb};
use klamm_pb::controller::v1 as pb;
use klamm_types::BrokerEpoch;
use tracing::{info, warn};

use super::{DUPLICATE_PAUSE, REGISTER_TIMEOUT};
use crate::controller_client::{ControllerClient, ControllerError};
use crate::log_dirs::RecoveryVerdict;

/// What a broker says of itself when it registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistrationFacts {
    /// Drawn at this start of the process.
    pub incarnation: IncarnationId,
    /// The log directory that it serves from.
    pub directory: DirectoryId,
    /// Where clients and brokers reach it; at least one.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// What its binary supports.
    pub features: Vec<FeatureRange>,
    /// Whether new replicas are unwelcome (KIP-1066).
    pub cordoned: bool,
    /// The epoch in its clean-shutdown marker, if there was one.
    pub marker_epoch: Option<BrokerEpoch>,
    /// What it found in its log directories.
    pub verdict: RecoveryVerdict,
}

/// Registers one process, as often as it takes.
#[derive(Debug)]
pub(super) struct Registrar {
    facts: RegistrationFacts,
    /// The controller has once taken this incarnation. From then on the state of the logs at the start is history:
    /// what this process has acknowledged since, it still has.
    was_taken: bool,
}

impl Registrar {
    pub(super) fn new(facts: RegistrationFacts) -> Self {
        Self { facts, was_taken: false }
    }

    /// Registers; waits for a controller, and for the end of the session of a former process with the same id.
    ///
    /// # Errors
    /// [`ControllerError`] if the broker will never be taken.
    pub(super) async fn register(
        &mut self,
        client: &ControllerClient,
    ) -> Result<pb::Registered, ControllerError> {
        let mut pauses = client.backoff();
        let mut last_code = pb::RefusalCode::None;
        loop {
            let error = match client.register(self.message(client), REGISTER_TIMEOUT).await {
                Ok(registered) => {
                    self.was_taken = true;
                    info!(broker_epoch = registered.broker_epoch, "registered");
                    return Ok(registered);
                }
                Err(error) => error,
            };
            match &error {
                ControllerError::Refused { code, .. } if is_passing(*code) => {
                    if *code != last_code {
                        warn!(%error, "not registered yet");
                        last_code = *code;
                    }
                    tokio::time::sleep(DUPLICATE_PAUSE).await;
                }
                ControllerError::Refused { .. } | ControllerError::Impossible(_) => return Err(error),
                ControllerError::NotFound { .. } | ControllerError::OutcomeUnknown { .. } => {
                    warn!(%error, "no controller to register with yet");
                    tokio::time::sleep(pauses.next_pause()).await;
                }
                ControllerError::BadAnswer { .. } => {
                    warn!(%error, "the controller's answer to the registration makes no sense");
                    tokio::time::sleep(DUPLICATE_PAUSE).await;
                }
            }
        }
    }

    fn message(&self, client: &ControllerClient) -> pb::RegisterRequest {
        let facts = &self.facts;
        let verdict = match facts.verdict {
            _ if self.was_taken => pb::RecoveryVerdict::Clean,
            RecoveryVerdict::Clean => pb::RecoveryVerdict::Clean,
            RecoveryVerdict::CrashedDurable => pb::RecoveryVerdict::CrashedDurable,
            RecoveryVerdict::Lossy => pb::RecoveryVerdict::Lossy,
        };
        let marker_epoch = facts.marker_epoch.filter(|_| !self.was_taken);
        pb::RegisterRequest {
            caller: Some(client.identity().caller()),
            incarnation_id: Bytes::copy_from_slice(&facts.incarnation.0),
            directory_id: Bytes::copy_from_slice(&facts.directory.0),
            endpoints: facts.endpoints.iter().map(endpoint_to_pb).collect(),
            rack: facts.rack.clone(),
            features: facts.features.iter().map(feature_to_pb).collect(),
            cordoned: facts.cordoned,
            marker_epoch: marker_epoch.map(|epoch| epoch.0),
            verdict: verdict.into(),
        }
    }
}

/// Whether the refusal ends by itself: a former process is still in session, or the controller has just changed.
fn is_passing(code: pb::RefusalCode) -> bool {
    matches!(
        code,
        pb::RefusalCode::DuplicateBrokerRegistration
            | pb::RefusalCode::NotController
            | pb::RefusalCode::RequestTimedOut
            | pb::RefusalCode::UnknownServerError
    )
}
