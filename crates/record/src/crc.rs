//! CRC-32C of a batch, and its correction when a few bytes at the front change.
//!
//! A CRC is a remainder of polynomials over GF(2), and so linear: if two texts of equal length differ only in their
//! heads `a` and `b`, and share a tail of `n` bytes, their CRCs differ by `(crc(a) ^ crc(b)) * x^(8n) mod P`. That
//! product needs about `log2(n)` steps and none of the tail.

/// The Castagnoli polynomial, bit-reversed: the highest coefficient is the lowest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// `x^0` in the same order.
const ONE: u32 = 1 << 31;

/// `x^(8 * 2^i) mod P`: the factor for a tail of `2^i` bytes.
const TAIL_FACTORS: [u32; 32] = {
    let mut factors = [0; 32];
    let mut factor = ONE >> 8;
    let mut i = 0;
    while i < factors.len() {
        factors[i] = factor;
        factor = multiply(factor, factor);
        i += 1;
    }
    factors
};

/// The product of two polynomials modulo P.
const fn multiply(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    while a != 0 {
        if a & ONE != 0 {
            product ^= b;
        }
        a <<= 1;
        b = (b >> 1) ^ if b & 1 == 0 { 0 } else { POLYNOMIAL };
    }
    product
}

/// The CRC of `new_head` and a tail, from `crc`, the CRC of `old_head` and the same tail of `tail_len` bytes.
///
/// The heads must be equally long, and `tail_len` below 2^32: a batch has no more than 2^31 bytes.
pub(crate) fn replace_head(crc: u32, old_head: &[u8], new_head: &[u8], tail_len: u32) -> u32 {
    debug_assert_eq!(old_head.len(), new_head.len(), "a CRC is corrected for heads of equal length");
    let mut difference = crc32c::crc32c(old_head) ^ crc32c::crc32c(new_head);
    for (i, factor) in TAIL_FACTORS.iter().enumerate() {
        if tail_len >> i & 1 != 0 {
            difference = multiply(*factor, difference);
        }
    }
    crc ^ difference
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_corrected_crc_is_the_recomputed_one(
            heads in (1..64usize).prop_flat_map(|n| (
                prop::collection::vec(any::<u8>(), n),
                prop::collection::vec(any::<u8>(), n),
            )),
            tail in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let whole = |head: &[u8]| crc32c::crc32c(&[head, &tail[..]].concat());
            let corrected = replace_head(whole(&heads.0), &heads.0, &heads.1, tail.len() as u32);
            prop_assert_eq!(corrected, whole(&heads.1));
            let combined = crc32c::crc32c_combine(crc32c::crc32c(&heads.1), crc32c::crc32c(&tail), tail.len());
            prop_assert_eq!(corrected, combined);
        }
    }

    #[test]
    fn the_largest_tail_has_a_factor() {
        let (old, new) = (*b"old", *b"new");
        let shifted = |head: &[u8]| crc32c::crc32c_combine(crc32c::crc32c(head), 0, u32::MAX as usize);
        assert_eq!(replace_head(shifted(&old), &old, &new, u32::MAX), shifted(&new));
    }
}
