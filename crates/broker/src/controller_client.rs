//! Asks of the active controller: finds it among the quorum, follows it, and repeats only what may be repeated.

mod quorum;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_pb::controller::v1 as pb;
use klamm_rpc::stubs::controller::v1::admin_client::AdminClient;
use klamm_rpc::stubs::controller::v1::broker_lifecycle_client::BrokerLifecycleClient;
use klamm_rpc::stubs::controller::v1::partition_control_client::PartitionControlClient;
use klamm_rpc::stubs::controller::v1::quorum_client::QuorumClient;
use klamm_rpc::{Backoff, ChannelPool, Deadline, Lane, NodeAddress, NodeIdentity, RpcError};
use klamm_types::{BrokerEpoch, BrokerId, Offset};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Response, Status};

use quorum::Quorum;

/// The stub `$client` on `$channel`, with the message sizes of the control lane.
macro_rules! limited {
    ($client:ident, $channel:expr) => {
        $client::new($channel).max_decoding_message_size(Lane::Control.limits().message_bytes_max)
    };
}

/// How many hints are followed at once before a pause.
const FOLLOWS_MAX: u32 = 3;

/// How long a report of a death is worth bringing: by then the broker's silence tells.
const REPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of a [`ControllerClient`].
#[derive(Clone, Debug)]
pub struct ControllerClientConfig {
    /// This node.
    pub identity: NodeIdentity,
    /// Where controllers listen (`controller.quorum.voters` or `controller.quorum.bootstrap.servers`), at least one.
    /// Others are learnt from them.
    pub quorum: Vec<NodeAddress>,
    /// How long one node may take to answer a request that may be repeated elsewhere. Default 1 s.
    pub attempt_timeout: Duration,
    /// The first and the longest pause between two rounds of asking. Default 5 and 50 ms: a failover waits for them.
    pub pauses: (Duration, Duration),
}

impl ControllerClientConfig {
    /// Defaults for a node that knows these controllers.
    #[must_use]
    pub fn new(identity: NodeIdentity, quorum: Vec<NodeAddress>) -> Self {
        let pauses = (Duration::from_millis(5), Duration::from_millis(50));
        Self { identity, quorum, attempt_timeout: Duration::from_secs(1), pauses }
    }
}

/// Why the active controller did not do what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControllerError {
    /// It refused, by a rule of its own; nothing was changed.
    #[error("the controller refused: {code:?}: {message}")]
    Refused {
        /// Kafka's name for the reason.
        code: pb::RefusalCode,
        /// The reason in words.
        message: String,
    },
    /// No active controller was found in time; nothing was changed.
    #[error("no active controller in time: {last}")]
    NotFound {
        /// What the last node that was asked said.
        last: RpcError,
    },
    /// The request was sent and not answered: it may have been carried out, or still be.
    #[error("the controller did not answer: {cause}")]
    OutcomeUnknown {
        /// What happened instead.
        cause: RpcError,
    },
    /// The request can succeed at no controller.
    #[error("the request cannot be made")]
    Impossible(#[source] RpcError),
    /// An answer without what it must hold.
    #[error("the controller's answer lacks its {missing}")]
    BadAnswer {
        /// What is missing.
        missing: &'static str,
    },
}

impl ControllerError {
    /// Whether it is certain that nothing was changed.
    #[must_use]
    pub const fn is_without_effect(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::NotFound { .. } => true,
            Self::OutcomeUnknown { .. } | Self::BadAnswer { .. } => false,
            Self::Impossible(error) => error.is_without_effect(),
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::OutcomeUnknown { .. })
    }
}

/// What became of a change that was carried out.
#[derive(Clone, PartialEq, Debug)]
pub struct Submitted {
    /// Whoever has applied the metadata up to here sees the change; [`MetadataCache::wait_for`](crate::metadata::MetadataCache::wait_for)
    /// waits for it.
    pub applied: Offset,
    /// The outcome of each item, in the order of the request; never a refusal of the whole.
    pub outcome: pb::submit_response::Outcome,
}

/// What of a request's fate allows to send it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repeat {
    /// Sending it twice does no harm: lost answers are asked for again, elsewhere too.
    Always,
    /// It is sent again only if it is certain that it was not carried out.
    IfWithoutEffect,
}

/// A way to the active controller. Clones share what they have learnt about where it is.
#[derive(Clone, Debug)]
pub struct ControllerClient {
    config: Arc<ControllerClientConfig>,
    pool: ChannelPool,
    quorum: Arc<Mutex<Quorum>>,
    /// Who last acted as the active controller.
    active: Arc<watch::Sender<Option<NodeAddress>>>,
}

impl ControllerClient {
    /// A client that looks for the active controller at the addresses of `config`.
    #[must_use]
    pub fn new(config: ControllerClientConfig, pool: ChannelPool) -> Self {
        let quorum = Arc::new(Mutex::new(Quorum::new(config.quorum.clone())));
        Self { config: Arc::new(config), pool, quorum, active: Arc::default() }
    }

    /// This node, as it presents itself.
    #[must_use]
    pub fn identity(&self) -> &NodeIdentity {
        &self.config.identity
    }

    /// Has a change made that an administrator asked for. A change that may have been made is never sent twice:
    /// [`ControllerError::OutcomeUnknown`] tells that its fate is not known (Kafka: `REQUEST_TIMED_OUT`).
    ///
    /// # Errors
    /// [`ControllerError`]; of a request with several items, those that were refused are in the outcome.
    pub async fn submit(
        &self,
        change: pb::submit_request::Change,
        timeout: Duration,
    ) -> Result<Submitted, ControllerError> {
        let deadline = Deadline::after(timeout);
        let caller = Some(self.config.identity.caller());
        let answer = self
            .call(Repeat::IfWithoutEffect, deadline, |channel, attempt| {
                let timeout_ms = millis(attempt.remaining());
                let message =
                    pb::SubmitRequest { caller: caller.clone(), timeout_ms, change: Some(change.clone()) };
                let request = attempt.request(message);
                let mut client = limited!(AdminClient, channel);
                async move { client.submit(request).await }
            })
            .await?;
        let outcome = answer.outcome.ok_or(ControllerError::BadAnswer { missing: "outcome" })?;
        if let pb::submit_response::Outcome::Refusal(refusal) = outcome {
            return Err(refused(refusal));
        }
        let applied = answer.applied.ok_or(ControllerError::BadAnswer { missing: "offset" })?;
        Ok(Submitted { applied: Offset(applied.offset), outcome })
    }

    /// Brings proposals of in-sync sets to the active controller, at most once: an answer that is lost is not asked
    /// for again.
    ///
    /// # Errors
    /// [`ControllerError`]; a refusal of single proposals is in the answer.
    pub async fn alter_partition(
        &self,
        broker_epoch: BrokerEpoch,
        proposals: Vec<pb::IsrProposal>,
        timeout: Duration,
    ) -> Result<Vec<pb::IsrAnswer>, ControllerError> {
        let deadline = Deadline::after(timeout);
        let caller = Some(self.config.identity.caller());
        let message = pb::AlterPartitionRequest { caller, broker_epoch: broker_epoch.0, proposals };
        let answer = self
            .call(Repeat::IfWithoutEffect, deadline, |channel, attempt| {
                let request = attempt.request(message.clone());
                let mut client = limited!(PartitionControlClient, channel);
                async move { client.alter_partition(request).await }
            })
            .await?;
        accepted(answer.refusal)?;
        Ok(answer.answers)
    }

    /// Gets a block of producer ids. If the answer is lost, so are the ids: there are enough.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub async fn allocate_producer_ids(
        &self,
        broker_epoch: BrokerEpoch,
        timeout: Duration,
    ) -> Result<pb::ProducerIdBlock, ControllerError> {
        use pb::allocate_producer_ids_response::Result as Allocated;
        let caller = Some(self.config.identity.caller());
        let message = pb::AllocateProducerIdsRequest { caller, broker_epoch: broker_epoch.0 };
        let answer = self
            .call(Repeat::Always, Deadline::after(timeout), |channel, attempt| {
                let request = attempt.request(message.clone());
                let mut client = limited!(PartitionControlClient, channel);
                async move { client.allocate_producer_ids(request).await }
            })
            .await?;
        match answer.result {
            Some(Allocated::Block(block)) => Ok(block),
            Some(Allocated::Refusal(refusal)) => Err(refused(refusal)),
            None => Err(ControllerError::BadAnswer { missing: "result" }),
        }
    }

    /// Registers this broker. The same registration may be sent again: the controller knows the incarnation.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub(crate) async fn register(
        &self,
        message: pb::RegisterRequest,
        timeout: Duration,
    ) -> Result<pb::Registered, ControllerError> {
        use pb::register_response::Result as Outcome;
        let answer = self
            .call(Repeat::Always, Deadline::after(timeout), |channel, attempt| {
                let request = attempt.request(message.clone());
                let mut client = limited!(BrokerLifecycleClient, channel);
                async move { client.register(request).await }
            })
            .await?;
        match answer.result {
            Some(Outcome::Registered(registered)) => Ok(registered),
            Some(Outcome::Refusal(refusal)) => Err(refused(refusal)),
            None => Err(ControllerError::BadAnswer { missing: "result" }),
        }
    }

    /// Tells the active controller which replicas this broker cannot serve, and which are in sync although their disk is
    /// full. Who has applied the metadata up to the offset in the answer sees what became of each. The same may be said
    /// again: what is known changes nothing.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub(crate) async fn report_offline_replicas(
        &self,
        broker_epoch: BrokerEpoch,
        (replicas, full): (Vec<pb::OfflineReplica>, Vec<pb::OfflineReplica>),
        timeout: Duration,
    ) -> Result<Offset, ControllerError> {
        use pb::report_offline_replicas_response::Result as Outcome;
        let caller = Some(self.config.identity.caller());
        let message =
            pb::ReportOfflineReplicasRequest { caller, broker_epoch: broker_epoch.0, replicas, full };
        let answer = self
            .call(Repeat::Always, Deadline::after(timeout), |channel, attempt| {
                let request = attempt.request(message.clone());
                let mut client = limited!(BrokerLifecycleClient, channel);
                async move { client.report_offline_replicas(request).await }
            })
            .await?;
        match answer.result {
            Some(Outcome::Applied(applied)) => Ok(Offset(applied.offset)),
            Some(Outcome::Refusal(refusal)) => Err(refused(refusal)),
            None => Err(ControllerError::BadAnswer { missing: "result" }),
        }
    }

    /// Tells the active controller how far logs reach of partitions that nobody can lead. Who has applied the metadata up to
    /// the offset in the answer sees what became of each. The same may be said again.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub(crate) async fn report_logs(
        &self,
        broker_epoch: BrokerEpoch,
        logs: Vec<pb::LostLog>,
        timeout: Duration,
    ) -> Result<Offset, ControllerError> {
        use pb::report_logs_response::Result as Outcome;
        let caller = Some(self.config.identity.caller());
        let message = pb::ReportLogsRequest { caller, broker_epoch: broker_epoch.0, logs };
        let answer = self
            .call(Repeat::Always, Deadline::after(timeout), |channel, attempt| {
                let request = attempt.request(message.clone());
                let mut client = limited!(BrokerLifecycleClient, channel);
                async move { client.report_logs(request).await }
            })
            .await?;
        match answer.result {
            Some(Outcome::Applied(applied)) => Ok(Offset(applied.offset)),
            Some(Outcome::Refusal(refusal)) => Err(refused(refusal)),
            None => Err(ControllerError::BadAnswer { missing: "result" }),
        }
    }

    /// Tells the active controller what speaks for the death of `broker`.
    ///
    /// # Errors
    /// [`ControllerError`]; nobody need care, as the controller has means of its own.
    pub async fn report_death(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
        evidence: pb::DeathEvidence,
    ) -> Result<(), ControllerError> {
        let message = pb::ReportDeathRequest {
            caller: Some(self.config.identity.caller()),
            broker_id: broker.0,
            broker_epoch: broker_epoch.0,
            evidence: evidence.into(),
        };
        // The node that died may have been the active controller as well: its successor is to hear of it.
        let deadline = Deadline::after(REPORT_TIMEOUT);
        self.call(Repeat::Always, deadline, |channel, attempt| {
            let request = attempt.request(message.clone());
            let mut client = limited!(BrokerLifecycleClient, channel);
            async move { client.report_death(request).await }
        })
        .await?;
        Ok(())
    }

    /// Who votes in the quorum, and how far everybody is.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub async fn describe_quorum(
        &self,
        timeout: Duration,
    ) -> Result<pb::DescribeQuorumResponse, ControllerError> {
        let message = pb::DescribeQuorumRequest { caller: Some(self.config.identity.caller()) };
        self.call(Repeat::Always, Deadline::after(timeout), |channel, attempt| {
            let request = attempt.request(message.clone());
            let mut client = limited!(QuorumClient, channel);
            async move { client.describe(request).await }
        })
        .await
    }

    /// Adds a controller to the voters (KIP-853). The caller and the timeout of `voter` are filled in here.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub async fn add_voter(
        &self,
        voter: pb::AddVoterRequest,
        timeout: Duration,
    ) -> Result<(), ControllerError> {
        let caller = Some(self.config.identity.caller());
        let answer = self
            .call(Repeat::IfWithoutEffect, Deadline::after(timeout), |channel, attempt| {
                let timeout_ms = millis(attempt.remaining());
                let message = pb::AddVoterRequest { caller: caller.clone(), timeout_ms, ..voter.clone() };
                let request = attempt.request(message);
                let mut client = limited!(QuorumClient, channel);
                async move { client.add_voter(request).await }
            })
            .await?;
        accepted(answer.refusal)
    }

    /// Takes a controller off the voters (KIP-853). The caller and the timeout of `voter` are filled in here.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub async fn remove_voter(
        &self,
        voter: pb::RemoveVoterRequest,
        timeout: Duration,
    ) -> Result<(), ControllerError> {
        let caller = Some(self.config.identity.caller());
        let answer = self
            .call(Repeat::IfWithoutEffect, Deadline::after(timeout), |channel, attempt| {
                let timeout_ms = millis(attempt.remaining());
                let message = pb::RemoveVoterRequest { caller: caller.clone(), timeout_ms, ..voter.clone() };
                let request = attempt.request(message);
                let mut client = limited!(QuorumClient, channel);
                async move { client.remove_voter(request).await }
            })
            .await?;
        accepted(answer.refusal)
    }
}

impl ControllerClient {
    /// Whom to ask now, and a channel to it. Streams that last are opened by their owners.
    pub(crate) fn target(&self) -> Result<(NodeAddress, Channel), RpcError> {
        let address = self.lock().target().clone();
        let channel = self.channel(&address)?;
        Ok((address, channel))
    }

    /// `address` did not serve: others are asked next. A silent node also loses its connection, which may lead
    /// nowhere. Tells whether the next one is worth asking at once, because somebody has named it.
    pub(crate) fn on_failure(&self, address: &NodeAddress, error: &RpcError) -> bool {
        if matches!(error, RpcError::TimedOut) {
            self.pool.forget(address, Lane::Control);
        }
        let hint = match error {
            RpcError::NotActiveController { hint } => hint.as_ref(),
            _ => None,
        };
        self.lock().on_failure(address, hint)
    }

    /// `address` has done what only the active controller does.
    pub(crate) fn on_served(&self, address: &NodeAddress) {
        self.active.send_if_modified(|active| {
            let is_new = active.as_ref() != Some(address);
            if is_new {
                *active = Some(address.clone());
            }
            is_new
        });
    }

    /// Changes of who acts as the active controller, from now on.
    pub(crate) fn active_changes(&self) -> ActiveChanges {
        let mut active = self.active.subscribe();
        active.mark_unchanged();
        ActiveChanges(active)
    }

    /// The pauses between attempts to find the active controller.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.config.pauses.0, self.config.pauses.1)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Quorum> {
        self.quorum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self, address: &NodeAddress) -> Result<Channel, RpcError> {
        let invalid = |error: klamm_rpc::AddressError| RpcError::Unreachable { reason: error.to_string() };
        self.pool.channel(address, Lane::Control).map_err(invalid)
    }

    /// Calls the active controller until it answers, the deadline is over, or the call must not be repeated.
    async fn call<T, F>(
        &self,
        repeat: Repeat,
        deadline: Deadline,
        mut send: impl FnMut(Channel, Deadline) -> F,
    ) -> Result<T, ControllerError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut backoff = self.backoff();
        let mut follows = 0;
        loop {
            let address = self.lock().target().clone();
            let attempt = match repeat {
                Repeat::Always => deadline.min(Deadline::after(self.config.attempt_timeout)),
                Repeat::IfWithoutEffect => deadline,
            };
            let error = match self.channel(&address) {
                Ok(channel) => match attempt.run(send(channel, attempt)).await {
                    Ok(answer) => {
                        self.on_served(&address);
                        return Ok(answer);
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let is_named = self.on_failure(&address, &error);
            if !error.is_retryable() {
                return Err(ControllerError::Impossible(error));
            }
            if repeat != Repeat::Always && !error.is_without_effect() {
                return Err(ControllerError::OutcomeUnknown { cause: error });
            }
            // Two nodes that name each other must not be asked without a pause.
            follows = if is_named { (follows + 1) % FOLLOWS_MAX } else { 0 };
            let pause = if follows > 0 { Duration::ZERO } else { backoff.next_pause() };
            if deadline.remaining() <= pause {
                return Err(ControllerError::NotFound { last: error });
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// See [`ControllerClient::active_changes`].
#[derive(Debug)]
pub(crate) struct ActiveChanges(watch::Receiver<Option<NodeAddress>>);

impl ActiveChanges {
    /// Waits until another node than `address` has newly acted as the active controller. Nothing is lost if the wait
    /// is given up and begun again.
    pub(crate) async fn away_from(&mut self, address: &NodeAddress) {
        loop {
            if self.0.changed().await.is_err() {
                // Nobody is left who could ask a controller.
                return std::future::pending().await;
            }
            if self.0.borrow_and_update().as_ref().is_some_and(|active| active != address) {
                return;
            }
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn refused(refusal: pb::Refusal) -> ControllerError {
    ControllerError::Refused { code: refusal.code(), message: refusal.message }
}

fn accepted(refusal: Option<pb::Refusal>) -> Result<(), ControllerError> {
    match refusal {
        Some(refusal) if refusal.code() != pb::RefusalCode::None => Err(refused(refusal)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "controller_client/fake.rs"]
pub(crate) mod fake;

#[cfg(test)]
#[path = "controller_client_test.rs"]
mod tests;
