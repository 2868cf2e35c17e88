//! The walk over a record that lies at hand and is well formed, as nearly every record is.
//!
//! It tells good from not so simple, and no more: on `None` the caller takes the walk that names the fault. Without
//! errors to carry and pieces to join, it is several times as fast, and the walk is what validation costs beside the CRC.

use super::Shape;
use crate::varint::{self, Decoded};

/// Walks over the record at the start of `bytes`; returns also its size, length field included.
#[inline]
pub(super) fn next(bytes: &[u8]) -> Option<(Shape, usize)> {
    let mut at = 0;
    let len = usize::try_from(int(bytes, &mut at)?).ok()?;
    let end = at + len;
    let record = bytes.get(..end)?;
    // The attributes, which have no meaning.
    at += 1;
    let timestamp_delta = long(record, &mut at)?;
    let offset_delta = int(record, &mut at)?;
    let key_len = int(record, &mut at)?;
    skip(key_len, &mut at)?;
    let value_len = int(record, &mut at)?;
    skip(value_len, &mut at)?;
    let mut headers = int(record, &mut at)?;
    if headers < 0 {
        return None;
    }
    while headers > 0 {
        let key_len = int(record, &mut at)?;
        at += usize::try_from(key_len).ok()?;
        let value_len = int(record, &mut at)?;
        skip(value_len, &mut at)?;
        headers -= 1;
    }
    let shape = Shape { timestamp_delta, offset_delta, has_key: key_len >= 0 };
    (at == end).then_some((shape, end))
}

/// Passes over a field that may be null.
#[inline(always)]
fn skip(len: i32, at: &mut usize) -> Option<()> {
    match len {
        -1 => Some(()),
        len => {
            *at += usize::try_from(len).ok()?;
            Some(())
        }
    }
}

#[inline(always)]
fn int(bytes: &[u8], at: &mut usize) -> Option<i32> {
    match short(bytes, at)? {
        Short::Bits(bits) => Some((bits >> 1) as i32 ^ -((bits & 1) as i32)),
        Short::Longer => match varint::decode_varint(bytes.get(*at..)?) {
            Ok(Decoded::Value(value, len)) => {
                *at += len;
                Some(value)
            }
            _ => None,
        },
    }
}

#[inline(always)]
fn long(bytes: &[u8], at: &mut usize) -> Option<i64> {
    match short(bytes, at)? {
        Short::Bits(bits) => Some(i64::from(bits >> 1) ^ -i64::from(bits & 1)),
        Short::Longer => match varint::decode_varlong(bytes.get(*at..)?) {
            Ok(Decoded::Value(value, len)) => {
                *at += len;
                Some(value)
            }
            _ => None,
        },
    }
}

enum Short {
    /// The integer, still in zigzag order.
    Bits(u32),
    /// It has more than three bytes, and `at` has not moved.
    Longer,
}

/// Reads an integer of up to three bytes: a length below 1 MiB.
#[inline(always)]
fn short(bytes: &[u8], at: &mut usize) -> Option<Short> {
    let first = u32::from(*bytes.get(*at)?);
    if first < 0x80 {
        *at += 1;
        return Some(Short::Bits(first));
    }
    let second = u32::from(*bytes.get(*at + 1)?);
    let bits = first & 0x7f | (second & 0x7f) << 7;
    if second < 0x80 {
        *at += 2;
        return Some(Short::Bits(bits));
    }
    let third = u32::from(*bytes.get(*at + 2)?);
    if third < 0x80 {
        *at += 3;
        return Some(Short::Bits(bits | third << 14));
    }
    Some(Short::Longer)
}
