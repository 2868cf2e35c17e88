//! Variable-length integers: seven bits a byte, least significant first, signed ones in zigzag order.

use crate::error::RecordError;

/// The most bytes an `i32` takes.
pub(crate) const VARINT_LEN_MAX: usize = 5;
/// The most bytes an `i64` takes.
pub(crate) const VARLONG_LEN_MAX: usize = 10;

/// Whether the bytes at hand were enough.
pub(crate) enum Decoded<T> {
    /// The value, and how many bytes it took.
    Value(T, usize),
    /// The value goes on past the bytes at hand.
    Partial,
}

/// Decodes an `i32` at the start of `bytes`.
///
/// # Errors
/// [`RecordError::Varint`] if it takes more than five bytes, or has bits past the 32nd, which decoders disagree about.
#[inline]
pub(crate) fn decode_varint(bytes: &[u8]) -> Result<Decoded<i32>, RecordError> {
    if let Some(&byte) = bytes.first()
        && byte < 0x80
    {
        return Ok(Decoded::Value(unzigzag(u64::from(byte)) as i32, 1));
    }
    match decode_long(bytes, VARINT_LEN_MAX)? {
        Decoded::Value(bits, _) if bits > u64::from(u32::MAX) => Err(RecordError::Varint),
        Decoded::Value(bits, len) => Ok(Decoded::Value(unzigzag(bits) as i32, len)),
        Decoded::Partial => Ok(Decoded::Partial),
    }
}

/// Decodes an `i64` at the start of `bytes`.
///
/// # Errors
/// [`RecordError::Varint`] if it takes more than ten bytes, or has bits past the 64th.
#[inline]
pub(crate) fn decode_varlong(bytes: &[u8]) -> Result<Decoded<i64>, RecordError> {
    match decode_long(bytes, VARLONG_LEN_MAX)? {
        Decoded::Value(bits, len) => Ok(Decoded::Value(unzigzag(bits), len)),
        Decoded::Partial => Ok(Decoded::Partial),
    }
}

#[inline]
fn decode_long(bytes: &[u8], len_max: usize) -> Result<Decoded<u64>, RecordError> {
    let mut bits = 0u64;
    for (i, &byte) in bytes.iter().take(len_max).enumerate() {
        // The tenth byte has room for one bit.
        if i + 1 == VARLONG_LEN_MAX && byte > 1 {
            return Err(RecordError::Varint);
        }
        bits |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok(Decoded::Value(bits, i + 1));
        }
    }
    if bytes.len() < len_max { Ok(Decoded::Partial) } else { Err(RecordError::Varint) }
}

#[inline]
fn unzigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

#[inline]
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// Appends `value`; an `i32` takes the same bytes as an `i64` of that value.
pub(crate) fn put_varlong(output: &mut Vec<u8>, value: i64) {
    let mut bits = zigzag(value);
    while bits >= 0x80 {
        output.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    output.push(bits as u8);
}

/// How many bytes [`put_varlong`] appends.
pub(crate) fn varlong_len(value: i64) -> usize {
    let bits = 64 - zigzag(value).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(value: i64) -> Vec<u8> {
        let mut output = Vec::new();
        put_varlong(&mut output, value);
        output
    }

    proptest! {
        #[test]
        fn every_value_reads_back(value: i64, small in -200_000_000_000i64..200_000_000_000) {
            for value in [value, small, i64::from(value as i32)] {
                let bytes = encoded(value);
                prop_assert_eq!(bytes.len(), varlong_len(value));
                let Ok(Decoded::Value(read, len)) = decode_varlong(&bytes) else { panic!("no value") };
                prop_assert_eq!((read, len), (value, bytes.len()));
                for cut in 0..bytes.len() {
                    prop_assert!(matches!(decode_varlong(&bytes[..cut]), Ok(Decoded::Partial)));
                }
                if let Ok(value) = i32::try_from(value) {
                    let Ok(Decoded::Value(read, len)) = decode_varint(&bytes) else { panic!("no value") };
                    prop_assert_eq!((read, len), (value, bytes.len()));
                } else {
                    prop_assert!(matches!(decode_varint(&bytes), Err(RecordError::Varint)));
                }
            }
        }
    }

    #[test]
    fn the_extremes_take_the_most_bytes() {
        assert_eq!(encoded(i64::MIN).len(), VARLONG_LEN_MAX);
        assert_eq!(encoded(i64::from(i32::MIN)).len(), VARINT_LEN_MAX);
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(-1), [1]);
        assert_eq!(encoded(150), [0xac, 0x02]);
    }

    #[test]
    fn an_overlong_value_is_refused() {
        for bytes in [&[0x80; 5][..], &[0x80, 0x80, 0x80, 0x80, 0x10], &[0xff; 12]] {
            assert!(matches!(decode_varint(bytes), Err(RecordError::Varint)));
        }
        let past_64_bits = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02];
        assert!(matches!(decode_varlong(&past_64_bits), Err(RecordError::Varint)));
        assert!(matches!(decode_varlong(&[0x80; 10]), Err(RecordError::Varint)));
    }
}
