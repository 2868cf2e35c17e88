//! Why bytes are no message, and why a message cannot become bytes.

use crate::VersionRange;

/// Bytes that are not the message they claim to be. `at` is the offset in the body (or frame) that was given to
/// the [`Reader`](crate::Reader), where the offending value begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The version is not one that Kafka 4.3 serves.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// The message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// The bytes end inside a value.
    #[error("{needed} bytes needed at {at}, {remaining} left")]
    Truncated {
        /// Where the value begins.
        at: usize,
        /// Its length.
        needed: usize,
        /// What there is.
        remaining: usize,
    },
    /// A length below -1; -1 alone means null.
    #[error("length {length} at {at}")]
    NegativeLength {
        /// Where the length stands.
        at: usize,
        /// The length.
        length: i32,
    },
    /// Null for a field that is never null in this version.
    #[error("null at {at} where a value is required")]
    NullNotAllowed {
        /// Where the length stands.
        at: usize,
    },
    /// More array elements than the remaining bytes can hold. Nothing was allocated for them.
    #[error("{count} elements of at least {len_min} bytes at {at}, {remaining} bytes left")]
    ArrayTooLong {
        /// Where the elements would begin.
        at: usize,
        /// The declared number of elements.
        count: usize,
        /// The least length of one element in this version; 0 for a structure without fields.
        len_min: usize,
        /// What there is.
        remaining: usize,
    },
    /// The message would need more memory, or more array elements, than its budget allows.
    #[error("{elements} elements of {element_bytes} bytes in memory at {at} are beyond the budget")]
    OverBudget {
        /// Where the value begins.
        at: usize,
        /// The number of elements.
        elements: usize,
        /// The memory that one element takes, in bytes.
        element_bytes: usize,
    },
    /// A text longer than 32,767 bytes.
    #[error("text of {length} bytes at {at}")]
    StringTooLong {
        /// Where the text begins.
        at: usize,
        /// Its declared length.
        length: usize,
    },
    /// A text that is not UTF-8.
    #[error("text at {at} is not UTF-8")]
    InvalidUtf8 {
        /// Where the text begins.
        at: usize,
    },
    /// A variable-length number that does not fit 32 bits, or has a sixth byte.
    #[error("variable-length number at {at} is too long")]
    VarintTooLong {
        /// Where the number begins.
        at: usize,
    },
    /// Too many tagged fields that this build does not know.
    #[error("more than {max} unknown tagged fields at {at}")]
    TooManyTaggedFields {
        /// Where the first superfluous one stands.
        at: usize,
        /// How many are skipped at most.
        max: usize,
    },
    /// Tags that do not ascend strictly.
    #[error("tag {tag} after tag {previous} at {at}")]
    TagOrder {
        /// Where the value of the tag would begin.
        at: usize,
        /// The tag.
        tag: u32,
        /// The tag before it.
        previous: u32,
    },
    /// A known tagged field that does not fill its declared size.
    #[error("tagged field {tag} ends {unread} bytes before its declared end, at {at}")]
    TagSize {
        /// Where the field's value really ends.
        at: usize,
        /// The tag.
        tag: u32,
        /// How many bytes are left of its declared size.
        unread: usize,
    },
    /// Bytes behind the end of a message.
    #[error("{remaining} bytes behind the message, at {at}")]
    TrailingBytes {
        /// Where the message ends.
        at: usize,
        /// How many bytes follow.
        remaining: usize,
    },
}

impl DecodeError {
    pub(crate) fn check_version(
        message: &'static str,
        version: i16,
        served: VersionRange,
    ) -> Result<(), Self> {
        if served.contains(version) { Ok(()) } else { Err(Self::UnsupportedVersion { message, version }) }
    }

    /// Never: the same bytes are refused again.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A message that the chosen version cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The version is not one that Kafka 4.3 serves.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// The message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field has a value other than its default, the version lacks the field, and dropping the value would
    /// change what the message means.
    #[error("version {version} cannot carry {field}")]
    FieldAbsent {
        /// Message, structure and field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A null that the version has no encoding for.
    #[error("{field} may not be null in version {version}")]
    NullNotAllowed {
        /// Message, structure and field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A text, array or byte field longer than its length prefix can tell.
    #[error("value of length {length}, at most {max} can be written")]
    TooLong {
        /// The length.
        length: usize,
        /// The most that the prefix can tell.
        max: usize,
    },
}

impl EncodeError {
    pub(crate) fn check_version(
        message: &'static str,
        version: i16,
        served: VersionRange,
    ) -> Result<(), Self> {
        if served.contains(version) { Ok(()) } else { Err(Self::UnsupportedVersion { message, version }) }
    }

    pub(crate) fn check_absent(is_default: bool, field: &'static str, version: i16) -> Result<(), Self> {
        if is_default { Ok(()) } else { Err(Self::FieldAbsent { field, version }) }
    }

    pub(crate) fn check_present<T>(value: Option<T>, field: &'static str, version: i16) -> Result<T, Self> {
        value.ok_or(Self::NullNotAllowed { field, version })
    }

    /// Never: the same message is refused again.
    pub fn is_retryable(&self) -> bool {
        false
    }
}
