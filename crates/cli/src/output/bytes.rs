//! Bytes that may be text.

use std::fmt::{self, Write as _};

use serde::Serializer;
use serde::ser::SerializeMap as _;

/// A key or a value. In JSON it is text where it is UTF-8 and base64 (RFC 4648, padded) where not, with a field beside
/// it that says which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a>(pub(crate) Option<&'a [u8]>);

impl Bytes<'_> {
    /// The most bytes that a table shows.
    const SHOWN_MAX: usize = 200;

    /// As the fields `key` and `key_encoding`.
    pub(crate) fn as_key<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer, "key", "key_encoding")
    }

    /// As the fields `value` and `value_encoding`.
    pub(crate) fn as_value<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer, "value", "value_encoding")
    }

    fn serialize<S: Serializer>(
        &self,
        serializer: S,
        field: &'static str,
        encoding: &'static str,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => {
                map.serialize_entry(field, &None::<&str>)?;
                map.serialize_entry(encoding, &None::<&str>)?;
            }
            Some((_, Ok(text))) => {
                map.serialize_entry(field, text)?;
                map.serialize_entry(encoding, "utf8")?;
            }
            Some((bytes, Err(_))) => {
                map.serialize_entry(field, &base64(bytes))?;
                map.serialize_entry(encoding, "base64")?;
            }
        }
        map.end()
    }
}

/// For the table: quoted and escaped text, or hexadecimal digits; the front of it, if it is long.
impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0 else { return f.write_str("null") };
        let shown = bytes.get(..Self::SHOWN_MAX).unwrap_or(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                f.write_char('"')?;
                for c in text.char_indices().take_while(|(at, _)| *at < shown.len()).map(|(_, c)| c) {
                    write!(f, "{}", c.escape_debug())?;
                }
                f.write_char('"')?;
            }
            Err(_) => {
                f.write_str("0x")?;
                for byte in shown {
                    write!(f, "{byte:02x}")?;
                }
            }
        }
        if shown.len() < bytes.len() {
            write!(f, "... ({} bytes)", bytes.len())?;
        }
        Ok(())
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            // Of n bytes, n + 1 characters carry bits.
            if i <= chunk.len() {
                let six = (bits >> (18 - 6 * i)) & 0x3f;
                text.push(char::from(ALPHABET[six as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd, 0x00]), "//79AA==");
    }

    #[test]
    fn the_table_shows_the_front_of_what_is_long() {
        assert_eq!(Bytes(None).to_string(), "null");
        assert_eq!(Bytes(Some(b"a\n\"")).to_string(), r#""a\n\"""#);
        assert_eq!(Bytes(Some(&[0xff, 1])).to_string(), "0xff01");
        let long = "x".repeat(300);
        assert_eq!(Bytes(Some(long.as_bytes())).to_string(), format!("\"{}\"... (300 bytes)", &long[..200]));
    }
}
