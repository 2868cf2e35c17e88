//! Payload bytes that travel beside a message without being copied into it.

use bytes::Bytes;

/// Bytes that the encoder never sees: only their length is written, and the place where they belong is marked
/// in the output, so that whoever sends it can put, for example, a range of a file there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct External {
    /// What the sender finds the bytes by; it means nothing here.
    pub token: u64,
    /// How many bytes it will send, exactly.
    pub len: usize,
}

/// A part of a record payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Bytes in memory, shared by reference count.
    Bytes(Bytes),
    /// Bytes that lie elsewhere.
    External(External),
}

impl Payload {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External(external) => external.len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The value of a `records` field: record batches, one after the other, uninterpreted.
///
/// A decoded field is always one piece of memory, a slice of the frame. For encoding it may consist of several
/// pieces, in memory or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// All bytes in one place.
    One(Payload),
    /// The bytes of all parts, in order.
    Parts(Vec<Payload>),
}

impl Records {
    /// Bytes that the sender will put in place of `token`.
    pub fn external(token: u64, len: usize) -> Self {
        Self::One(Payload::External(External { token, len }))
    }

    /// The number of bytes of all parts.
    pub fn len(&self) -> usize {
        self.parts().iter().map(Payload::len).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts in order.
    pub fn parts(&self) -> &[Payload] {
        match self {
            Self::One(payload) => std::slice::from_ref(payload),
            Self::Parts(parts) => parts,
        }
    }

    /// The bytes, if they are in memory and in one piece, as those of a decoded message are.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::One(Payload::Bytes(bytes)) => Some(bytes),
            Self::One(Payload::External(_)) | Self::Parts(_) => None,
        }
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::One(Payload::Bytes(Bytes::new()))
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::One(Payload::Bytes(bytes))
    }
}
