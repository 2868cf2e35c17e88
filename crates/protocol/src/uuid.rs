//! The wire's 128-bit identifier.

use std::fmt;

use klamm_types::TopicId;

/// Sixteen bytes that name a topic, a log directory, a member or a client instance. Its text form is that of
/// [`TopicId`]: URL-safe base64 without padding.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// "None" on the wire.
    pub const ZERO: Self = Self([0; 16]);

    /// Whether this is [`Self::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl From<TopicId> for Uuid {
    fn from(id: TopicId) -> Self {
        Self(id.0)
    }
}

impl From<Uuid> for TopicId {
    fn from(id: Uuid) -> Self {
        Self(id.0)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TopicId(self.0).fmt(f)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_a_topic_id_does() {
        let id = Uuid([0xfb; 16]);
        assert_eq!(id.to_string(), TopicId::from(id).to_string());
        assert_eq!(Uuid::from(TopicId::from(id)), id);
        assert!(Uuid::ZERO.is_zero() && !id.is_zero());
    }
}
