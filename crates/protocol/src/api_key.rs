//! What follows from an API's key and version.

use std::fmt;

use crate::{ApiKey, VersionRange};

impl ApiKey {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The versions that Kafka 4.3 shows by default. Only InitProducerId has a newer one, which is hidden
    /// because two-phase commit (KIP-939) is not finished.
    ///
    /// What a broker really advertises follows from its handlers, not from this.
    pub const fn stable_versions(self) -> VersionRange {
        VersionRange::new(self.versions().min(), self.stable_max())
    }

    /// The first version with compact lengths and tagged fields (KIP-482), `None` if there is none.
    pub const fn flexible_from(self) -> Option<i16> {
        match self.flexible_min() {
            i16::MAX => None,
            version => Some(version),
        }
    }

    /// Whether `version` has compact lengths and tagged fields; also answers for versions yet unknown.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.flexible_min()
    }

    /// The version of the header before a request of this `version`: 2 if it is flexible, else 1.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the header before a response of this `version`: 1 if it is flexible, else 0. The answer
    /// to ApiVersions always has version 0, as its reader does not know yet what the broker speaks (KIP-511).
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            Self::ApiVersions => 0,
            _ if self.is_flexible(version) => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_codes_are_one_to_one() {
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::from_code(key.code()), Some(*key));
        }
        assert_eq!(ApiKey::ALL.len(), 89, "92 keys, less the four that 4.0 removed and one");
        for code in [-1, 4, 5, 6, 7, 93, i16::MAX, i16::MIN] {
            assert_eq!(ApiKey::from_code(code), None, "{code}");
        }
    }

    #[test]
    fn header_versions_follow_flexibility() {
        assert_eq!(ApiKey::Produce.request_header_version(8), 1);
        assert_eq!(ApiKey::Produce.request_header_version(9), 2);
        assert_eq!(ApiKey::Produce.response_header_version(8), 0);
        assert_eq!(ApiKey::Produce.response_header_version(9), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.request_header_version(i16::MAX), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
        assert_eq!(ApiKey::SaslHandshake.flexible_from(), None);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
    }

    #[test]
    fn only_init_producer_id_has_a_hidden_version() {
        let hidden: Vec<_> =
            ApiKey::ALL.iter().filter(|key| key.versions() != key.stable_versions()).collect();
        assert_eq!(hidden, [&ApiKey::InitProducerId]);
        assert_eq!(ApiKey::InitProducerId.stable_versions(), VersionRange::new(0, 5));
    }

    #[test]
    fn every_api_is_served_somewhere() {
        let broker = ApiKey::ALL.iter().filter(|key| key.is_on_broker()).count();
        let controller = ApiKey::ALL.iter().filter(|key| key.is_on_controller()).count();
        assert_eq!((broker, controller), (77, 41));
        assert!(ApiKey::ALL.iter().all(|key| key.is_on_broker() || key.is_on_controller()));
    }
}
