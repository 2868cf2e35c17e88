//! What the cluster knows about one broker.

use std::fmt;

use klamm_types::{BrokerEpoch, BrokerId};

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

identity!(
    /// Names one start of a broker's process: 128 random bits, drawn anew at every start.
    IncarnationId
);
identity!(
    /// Names one formatted log directory: 128 random bits. A wiped disk comes back with another.
    DirectoryId
);

/// How bytes on a listener are protected and callers proven.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SecurityProtocol {
    /// Neither encryption nor authentication.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL on a bare connection.
    SaslPlaintext,
    /// SASL inside TLS.
    SaslSsl,
}

/// An address at which a broker can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Listener name, unique within a broker.
    pub listener: String,
    /// Host name or address as advertised.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protection of the listener.
    pub security_protocol: SecurityProtocol,
}

/// The levels of one feature that a binary supports; both ends inclusive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeatureRange {
    /// For example `metadata.version`.
    pub name: String,
    /// The lowest level.
    pub level_min: u16,
    /// The highest level; at least `level_min`.
    pub level_max: u16,
}

impl FeatureRange {
    /// Whether a cluster at `level` can use the binary. Level 0, "off", is always supported.
    #[must_use]
    pub fn supports(&self, level: u16) -> bool {
        level == 0 || (self.level_min..=self.level_max).contains(&level)
    }
}

/// One broker as registered.
///
/// ```text
///   (unknown) --register--> fenced --unfence--> active --wants to stop--> shutting down --go--> fenced
///                             ^                    |                                              |
///                             +-------fence--------+              register again <----------------+
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerRegistration {
    /// The broker.
    pub id: BrokerId,
    /// Index of the metadata log entry that registered this incarnation; unique in the cluster.
    pub epoch: BrokerEpoch,
    /// The process that registered.
    pub incarnation: IncarnationId,
    /// The log directory it serves from.
    pub directory: DirectoryId,
    /// Where to reach it, in the order in which the broker named them.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`, for rack-aware placement.
    pub rack: Option<String>,
    /// Supported features, ordered by name.
    pub features: Vec<FeatureRange>,
    /// A fenced broker serves no client, leads nothing and is in no ISR.
    pub fenced: bool,
    /// A broker on its way out may finish leading what nobody else can lead, and is elected to nothing.
    pub shutting_down: bool,
    /// No new replica is placed on it (KIP-1066).
    pub cordoned: bool,
}

impl BrokerRegistration {
    /// Whether the broker may be elected and may join an ISR.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.shutting_down
    }

    /// The endpoint of `listener`.
    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }

    /// The range of `feature`, `None` if the binary does not know it.
    #[must_use]
    pub fn feature(&self, feature: &str) -> Option<&FeatureRange> {
        self.features.iter().find(|range| range.name == feature)
    }
}
