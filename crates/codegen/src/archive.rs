//! Just enough of the ZIP format to read small files out of a JAR: the central directory, then stored or
//! deflated entries. No ZIP64, no encryption.

use std::io::Read as _;

use crate::error::SchemaError;

const END_OF_DIRECTORY: &[u8] = b"PK\x05\x06";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
/// No schema file is near this size; a bigger one is refused instead of unpacked.
const ENTRY_BYTES_MAX: u64 = 4 << 20;

/// The files of a ZIP archive whose names `wanted` accepts, with their contents, in directory order.
///
/// # Errors
/// [`SchemaError::BadArchive`] when a structure is cut short or an entry is compressed in an unknown way.
pub(crate) fn read_entries(
    archive: &[u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Vec<u8>)>, SchemaError> {
    let end = archive
        .windows(END_OF_DIRECTORY.len())
        .rposition(|window| window == END_OF_DIRECTORY)
        .ok_or(SchemaError::BadArchive { problem: "no central directory", at: archive.len() })?;
    let count = number(archive, end + 10, 2)?;
    let mut at = number(archive, end + 16, 4)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        if part(archive, at, 4)? != DIRECTORY_ENTRY {
            return Err(SchemaError::BadArchive { problem: "not a directory entry", at });
        }
        let name_len = number(archive, at + 28, 2)?;
        let name = String::from_utf8_lossy(part(archive, at + 46, name_len)?).into_owned();
        if wanted(&name) {
            entries.push((name, unpack(archive, at)?));
        }
        at += 46 + name_len + number(archive, at + 30, 2)? + number(archive, at + 32, 2)?;
    }
    Ok(entries)
}

/// The contents of the entry whose directory record is at `at`.
fn unpack(archive: &[u8], at: usize) -> Result<Vec<u8>, SchemaError> {
    let method = number(archive, at + 10, 2)?;
    let packed_len = number(archive, at + 20, 4)?;
    let local = number(archive, at + 42, 4)?;
    let start = local + 30 + number(archive, local + 26, 2)? + number(archive, local + 28, 2)?;
    let packed = part(archive, start, packed_len)?;
    match method {
        0 => Ok(packed.to_vec()),
        8 => {
            let mut plain = Vec::new();
            flate2::read::DeflateDecoder::new(packed)
                .take(ENTRY_BYTES_MAX)
                .read_to_end(&mut plain)
                .map_err(|_| SchemaError::BadArchive { problem: "broken deflate stream", at: start })?;
            Ok(plain)
        }
        _ => Err(SchemaError::BadArchive { problem: "unknown compression method", at }),
    }
}

fn part(archive: &[u8], at: usize, len: usize) -> Result<&[u8], SchemaError> {
    at.checked_add(len)
        .and_then(|end| archive.get(at..end))
        .ok_or(SchemaError::BadArchive { problem: "cut short", at })
}

/// The little-endian number of `len` bytes at `at`.
fn number(archive: &[u8], at: usize, len: usize) -> Result<usize, SchemaError> {
    Ok(part(archive, at, len)?.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with one stored file, written by hand from the format's description.
    fn stored(name: &str, contents: &[u8]) -> Vec<u8> {
        let len = u32::try_from(contents.len()).unwrap().to_le_bytes();
        let name_len = u16::try_from(name.len()).unwrap().to_le_bytes();
        let mut archive = b"PK\x03\x04".to_vec();
        archive.extend_from_slice(&[0; 14]);
        archive.extend_from_slice(&len);
        archive.extend_from_slice(&len);
        archive.extend_from_slice(&name_len);
        archive.extend_from_slice(&[0; 2]);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(contents);
        let directory = u32::try_from(archive.len()).unwrap().to_le_bytes();
        archive.extend_from_slice(DIRECTORY_ENTRY);
        archive.extend_from_slice(&[0; 16]);
        archive.extend_from_slice(&len);
        archive.extend_from_slice(&len);
        archive.extend_from_slice(&name_len);
        archive.extend_from_slice(&[0; 16]);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(END_OF_DIRECTORY);
        archive.extend_from_slice(&[0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
        archive.extend_from_slice(&directory);
        archive.extend_from_slice(&[0; 2]);
        archive
    }

    #[test]
    fn reads_the_wanted_entry_only() {
        let archive = stored("a/b.json", b"{}");
        let all = read_entries(&archive, |_| true).unwrap();
        assert_eq!(all, [("a/b.json".to_owned(), b"{}".to_vec())]);
        assert_eq!(read_entries(&archive, |name| name == "c").unwrap(), []);
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let archive = stored("a/b.json", b"{}");
        for len in 0..archive.len() - 2 {
            assert!(read_entries(&archive[..len], |_| true).is_err(), "cut at {len}");
        }
    }
}
