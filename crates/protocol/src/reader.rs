//! The one way from bytes to values: every length is checked against what is left, every allocation is charged
//! before it is made.

use std::mem::size_of;

use bytes::Bytes;

use crate::{DecodeError, Records, Uuid};

/// The longest text of the protocol, in bytes, whatever its length prefix could tell.
pub(crate) const STRING_LEN_MAX: usize = i16::MAX as usize;
/// How many tagged fields of one structure may be unknown to us.
const UNKNOWN_TAGS_MAX: usize = 64;

/// What decoding one message may allocate at most. Bytes that stay in the frame (records, and the byte fields
/// marked `shared` in the schema) cost nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    bytes: usize,
    elements: usize,
}

impl Budget {
    /// How many array elements one request may have in all its arrays together.
    pub const REQUEST_ELEMENTS_MAX: usize = 500_000;
    /// What a request may allocate at most, whatever its length: 64 MiB.
    pub const REQUEST_BYTES_MAX: usize = 64 << 20;

    /// At most `bytes` of memory and `elements` array elements.
    pub const fn new(bytes: usize, elements: usize) -> Self {
        Self { bytes, elements }
    }

    /// For a request that arrived in a frame of `frame_len` bytes: eight times its length and 64 KiB, as the
    /// structures of a request with many short names take up to six times its length; at most
    /// [`Self::REQUEST_BYTES_MAX`].
    pub fn for_request(frame_len: usize) -> Self {
        let bytes = frame_len.saturating_mul(8).saturating_add(64 << 10).min(Self::REQUEST_BYTES_MAX);
        Self::new(bytes, Self::REQUEST_ELEMENTS_MAX)
    }

    /// For an answer from a broker that the caller chose to talk to: 32 times its length and 64 KiB.
    pub fn for_response(frame_len: usize) -> Self {
        Self::new(frame_len.saturating_mul(32).saturating_add(64 << 10), usize::MAX)
    }
}

/// Reads the values of the wire protocol, front to back.
#[derive(Debug)]
pub struct Reader<'a> {
    /// What is left of the message, or of the tagged field that is being read.
    rest: &'a [u8],
    /// What follows `rest`: the part of the message behind the tagged field that is being read.
    behind: usize,
    total: usize,
    frame: Option<&'a Bytes>,
    budget: Budget,
    /// How many bytes may be left at the end.
    ignored_max: usize,
}

impl<'a> Reader<'a> {
    /// Reads from borrowed bytes; payloads are copied (and charged).
    pub fn new(bytes: &'a [u8], budget: Budget) -> Self {
        Self { rest: bytes, behind: 0, total: bytes.len(), frame: None, budget, ignored_max: 0 }
    }

    /// Reads from a shared frame; payloads become slices of it and keep it alive.
    pub fn shared(frame: &'a Bytes, budget: Budget) -> Self {
        Self { frame: Some(frame), ..Self::new(frame, budget) }
    }

    /// Lets up to `bytes` bytes be left behind the message: for senders that are known to err.
    #[must_use]
    pub fn ignoring_behind(self, bytes: usize) -> Self {
        Self { ignored_max: bytes, ..self }
    }

    /// How many bytes were read so far.
    pub fn position(&self) -> usize {
        self.total - self.behind - self.rest.len()
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] if something is left, beyond what is ignored.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            ignored if ignored <= self.ignored_max => Ok(()),
            remaining => Err(DecodeError::TrailingBytes { at: self.position(), remaining }),
        }
    }

    /// The next `len` bytes.
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Truncated {
                at: self.position(),
                needed: len,
                remaining: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated {
                at: self.position(),
                needed: N,
                remaining: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes `elements` of `element_bytes` from the budget.
    fn charge(&mut self, elements: usize, element_bytes: usize) -> Result<(), DecodeError> {
        let over = DecodeError::OverBudget { at: self.position(), elements, element_bytes };
        let bytes = elements.checked_mul(element_bytes).ok_or(over)?;
        self.budget.bytes = self.budget.bytes.checked_sub(bytes).ok_or(over)?;
        Ok(())
    }

    /// One byte; every value but zero is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.int8()? != 0)
    }

    /// One byte, signed.
    pub fn int8(&mut self) -> Result<i8, DecodeError> {
        self.array_of().map(i8::from_be_bytes)
    }

    /// Two bytes, signed.
    pub fn int16(&mut self) -> Result<i16, DecodeError> {
        self.array_of().map(i16::from_be_bytes)
    }

    /// Two bytes, unsigned.
    pub fn uint16(&mut self) -> Result<u16, DecodeError> {
        self.array_of().map(u16::from_be_bytes)
    }

    /// Four bytes, signed.
    pub fn int32(&mut self) -> Result<i32, DecodeError> {
        self.array_of().map(i32::from_be_bytes)
    }

    /// Eight bytes, signed.
    pub fn int64(&mut self) -> Result<i64, DecodeError> {
        self.array_of().map(i64::from_be_bytes)
    }

    /// Eight bytes, IEEE 754.
    pub fn float64(&mut self) -> Result<f64, DecodeError> {
        self.array_of().map(f64::from_be_bytes)
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.array_of().map(Uuid)
    }

    /// An unsigned number of up to 32 bits in one to five bytes, seven bits in each, the lowest first.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let at = self.position();
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array_of()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0xf {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong { at })
    }

    /// The length of an array or byte field, `None` for null.
    fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            let length = self.unsigned_varint()?;
            return Ok(length.checked_sub(1).map(|length| length as usize));
        }
        let at = self.position();
        match self.int32()? {
            -1 => Ok(None),
            length => {
                usize::try_from(length).map(Some).map_err(|_| DecodeError::NegativeLength { at, length })
            }
        }
    }

    /// The length of a text, `None` for null.
    fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return self.length(true);
        }
        let at = self.position();
        match self.int16()? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::NegativeLength { at, length: i32::from(length) }),
        }
    }

    /// Turns null into an error that names the place of the length.
    fn required<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Option<T>, DecodeError>,
    ) -> Result<T, DecodeError> {
        let at = self.position();
        read(self)?.ok_or(DecodeError::NullNotAllowed { at })
    }

    /// A text; `flexible` tells its length prefix.
    pub fn string(&mut self, flexible: bool) -> Result<String, DecodeError> {
        self.required(|reader| reader.optional_string(flexible))
    }

    /// A text or null.
    pub fn optional_string(&mut self, flexible: bool) -> Result<Option<String>, DecodeError> {
        let Some(length) = self.string_length(flexible)? else {
            return Ok(None);
        };
        let at = self.position();
        if length > STRING_LEN_MAX {
            return Err(DecodeError::StringTooLong { at, length });
        }
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8 { at })?;
        self.charge(length, 1)?;
        Ok(Some(text.to_owned()))
    }

    /// Bytes, copied out of the frame.
    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        self.required(|reader| reader.optional_bytes(flexible))
    }

    /// Bytes, copied out of the frame, or null. The copy lets what is kept for long (a member's metadata, say)
    /// not keep a whole request alive.
    pub fn optional_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.length(flexible)? else {
            return Ok(None);
        };
        let bytes = self.take(length)?;
        self.charge(length, 1)?;
        Ok(Some(Bytes::copy_from_slice(bytes)))
    }

    /// Bytes that stay in the frame.
    pub fn shared_bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        self.required(|reader| reader.optional_shared_bytes(flexible))
    }

    /// Bytes that stay in the frame, or null.
    pub fn optional_shared_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.length(flexible)? else {
            return Ok(None);
        };
        let bytes = self.take(length)?;
        match self.frame {
            // `bytes` is a part of the frame, so this only counts one reference more.
            Some(frame) => Ok(Some(frame.slice_ref(bytes))),
            None => {
                self.charge(length, 1)?;
                Ok(Some(Bytes::copy_from_slice(bytes)))
            }
        }
    }

    /// Record batches, which stay in the frame.
    pub fn records(&mut self, flexible: bool) -> Result<Records, DecodeError> {
        self.shared_bytes(flexible).map(Records::from)
    }

    /// Record batches, which stay in the frame, or null.
    pub fn optional_records(&mut self, flexible: bool) -> Result<Option<Records>, DecodeError> {
        Ok(self.optional_shared_bytes(flexible)?.map(Records::from))
    }

    /// A structure behind a byte that is negative for null.
    pub fn optional_struct<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.int8()? < 0 { Ok(None) } else { read(self).map(Some) }
    }

    /// An array whose elements take at least `len_min` bytes each.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        len_min: usize,
        read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.required(|reader| reader.optional_array(flexible, len_min, read))
    }

    /// An array, or null. The number of elements is checked against the remaining bytes and charged to the
    /// budget before anything is allocated.
    pub fn optional_array<T>(
        &mut self,
        flexible: bool,
        len_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(flexible)? else {
            return Ok(None);
        };
        self.admit_elements(count, len_min, size_of::<T>())?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(read(self)?);
        }
        Ok(Some(elements))
    }

    fn admit_elements(
        &mut self,
        count: usize,
        len_min: usize,
        element_bytes: usize,
    ) -> Result<(), DecodeError> {
        let (at, remaining) = (self.position(), self.rest.len());
        if count.checked_mul(len_min).is_none_or(|needed| needed > remaining) {
            return Err(DecodeError::ArrayTooLong { at, count, len_min, remaining });
        }
        let over = DecodeError::OverBudget { at, elements: count, element_bytes };
        self.budget.elements = self.budget.elements.checked_sub(count).ok_or(over)?;
        self.charge(count, element_bytes)
    }

    /// The tagged section of a structure that has no tagged fields we know.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(false))
    }

    /// The tagged section of a structure: `read` gets the tag and a reader that ends where the field ends, and
    /// answers whether it knew the tag. Unknown fields are skipped and forgotten, at most 64 of them.
    pub fn tagged_fields(
        &mut self,
        mut read: impl FnMut(u32, &mut Self) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.unsigned_varint()?;
        let mut previous = None;
        let mut unknown = 0;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let at = self.position();
            if let Some(previous) = previous.filter(|previous| *previous >= tag) {
                return Err(DecodeError::TagOrder { at, tag, previous });
            }
            previous = Some(tag);
            if !self.tagged_field(tag, size, &mut read)? {
                unknown += 1;
                if unknown > UNKNOWN_TAGS_MAX {
                    return Err(DecodeError::TooManyTaggedFields { at, max: UNKNOWN_TAGS_MAX });
                }
            }
        }
        Ok(())
    }

    fn tagged_field(
        &mut self,
        tag: u32,
        size: usize,
        read: &mut impl FnMut(u32, &mut Self) -> Result<bool, DecodeError>,
    ) -> Result<bool, DecodeError> {
        let value = self.take(size)?;
        let after = std::mem::replace(&mut self.rest, value);
        self.behind += after.len();
        let known = read(tag, self)?;
        let unread = if known { self.rest.len() } else { 0 };
        if unread > 0 {
            return Err(DecodeError::TagSize { at: self.position(), tag, unread });
        }
        self.behind -= after.len();
        self.rest = after;
        Ok(known)
    }
}
