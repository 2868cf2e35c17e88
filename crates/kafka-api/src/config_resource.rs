//! Whose settings a request is about, as the protocol names it.

use klamm_pb::metadata::v1::ResourceType as PbType;
use klamm_protocol::ErrorCode;
use klamm_types::BrokerId;

use crate::submission::Refused;

/// The kinds of resources that have settings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum ResourceKind {
    Topic = 2,
    Broker = 4,
    /// The loggers of one broker.
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl ResourceKind {
    /// All, in the order of their numbers.
    pub(crate) const ALL: [Self; 5] =
        [Self::Topic, Self::Broker, Self::BrokerLogger, Self::ClientMetrics, Self::Group];

    /// The kind of this number.
    pub(crate) fn from_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Its number in the protocol.
    pub(crate) const fn code(self) -> i8 {
        self as i8
    }

    /// What the controller calls it. Loggers are no business of the controller.
    pub(crate) fn to_pb(self) -> Option<PbType> {
        match self {
            Self::Topic => Some(PbType::Topic),
            Self::Broker => Some(PbType::Broker),
            Self::BrokerLogger => None,
            Self::ClientMetrics => Some(PbType::ClientMetrics),
            Self::Group => Some(PbType::Group),
        }
    }
}

/// The broker that a resource's name stands for.
///
/// # Errors
/// A name that is no number.
pub(crate) fn broker_of(name: &str) -> Result<BrokerId, Refused> {
    let refused = || {
        let name: String = name.chars().take(64).collect();
        Refused::new(ErrorCode::InvalidRequest, format!("Node id must be an integer, but it is: {name}"))
    };
    name.parse().map(BrokerId).map_err(|_| refused())
}
