//! The bytes of one file: sparse, and shared between copies until one of them changes.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a disk writes in one piece.
pub(super) const SECTOR_LEN: u64 = 512;

/// What a disk allocates in one piece.
pub(super) const BLOCK_LEN: u64 = 4096;

type Block = [u8; BLOCK_LEN as usize];

/// A file's bytes. Blocks that were never written read as zeros and take no space.
///
/// Invariant: in the last block, the bytes from `len` on are zero, so that the file can be extended.
#[derive(Clone, Default)]
pub(super) struct Content {
    blocks: BTreeMap<u64, Arc<Block>>,
    len: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Space that is taken, in bytes.
    pub(super) fn allocated(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_LEN
    }

    /// How many of `len` bytes can be written at `position` if at most `blocks_free` new blocks may be taken.
    pub(super) fn writable(&self, position: u64, len: u64, blocks_free: u64) -> u64 {
        let mut left = blocks_free;
        for block in position / BLOCK_LEN..(position + len).div_ceil(BLOCK_LEN) {
            if self.blocks.contains_key(&block) {
                continue;
            }
            if left == 0 {
                return (block * BLOCK_LEN).saturating_sub(position);
            }
            left -= 1;
        }
        len
    }

    /// Copies bytes from `position` into `buf`; returns how many there were before the end of the file.
    pub(super) fn read(&self, buf: &mut [u8], position: u64) -> usize {
        let available = self.len.saturating_sub(position).min(buf.len() as u64) as usize;
        for (at, piece) in pieces(position, available) {
            let part = &mut buf[piece.clone()];
            match self.blocks.get(&(at / BLOCK_LEN)) {
                Some(block) => {
                    let start = (at % BLOCK_LEN) as usize;
                    part.copy_from_slice(&block[start..start + part.len()]);
                }
                None => part.fill(0),
            }
        }
        available
    }

    /// Writes `bytes` at `position` and extends the file to their end if it is shorter.
    pub(super) fn write(&mut self, bytes: &[u8], position: u64) {
        for (at, piece) in pieces(position, bytes.len()) {
            let block =
                self.blocks.entry(at / BLOCK_LEN).or_insert_with(|| Arc::new([0; BLOCK_LEN as usize]));
            let start = (at % BLOCK_LEN) as usize;
            Arc::make_mut(block)[start..start + piece.len()].copy_from_slice(&bytes[piece]);
        }
        self.len = self.len.max(position + bytes.len() as u64);
    }

    /// Writes those sectors of a write that `sectors` selects: bit `i % 64` stands for its `i`th sector.
    /// The file grows to the end of the write if `extends`, otherwise to the end of the last selected sector.
    pub(super) fn write_torn(&mut self, bytes: &[u8], position: u64, sectors: u64, extends: bool) {
        let end = position + bytes.len() as u64;
        let first = position / SECTOR_LEN;
        for sector in first..end.div_ceil(SECTOR_LEN) {
            if sectors >> ((sector - first) % 64) & 1 == 0 {
                continue;
            }
            let start = (sector * SECTOR_LEN).max(position);
            let stop = ((sector + 1) * SECTOR_LEN).min(end);
            self.write(&bytes[(start - position) as usize..(stop - position) as usize], start);
        }
        if extends {
            self.len = self.len.max(end);
        }
    }

    /// Cuts the file, or extends it with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.blocks.split_off(&len.div_ceil(BLOCK_LEN));
            let kept = (len % BLOCK_LEN) as usize;
            if kept > 0
                && let Some(block) = self.blocks.get_mut(&(len / BLOCK_LEN))
            {
                Arc::make_mut(block)[kept..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Cuts `len` bytes from `position` at the borders of blocks: where each piece starts in the file, and its range
/// among the bytes.
fn pieces(position: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = position + done as u64;
        let piece = ((BLOCK_LEN - at % BLOCK_LEN) as usize).min(len - done);
        let range = done..done + piece;
        done += piece;
        Some((at, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(content: &Content) -> Vec<u8> {
        let mut bytes = vec![7; content.len() as usize];
        assert_eq!(content.read(&mut bytes, 0), bytes.len());
        bytes
    }

    #[test]
    fn holes_and_cut_tails_read_as_zeros() {
        let mut content = Content::default();
        content.write(&[1; 10], 5000);
        assert_eq!(content.allocated(), BLOCK_LEN);
        assert_eq!(all(&content)[..5000], [0; 5000]);
        content.set_len(5004);
        content.set_len(9000);
        let bytes = all(&content);
        assert_eq!(bytes[5000..5004], [1; 4]);
        assert!(bytes[5004..].iter().all(|b| *b == 0));
        content.set_len(0);
        assert_eq!(content.allocated(), 0);
    }

    #[test]
    fn a_torn_write_leaves_old_bytes_or_zeros() {
        let mut content = Content::default();
        content.write(&[1; 700], 0);
        let mut kept = content.clone();
        kept.write_torn(&[2; 1000], 600, 0b010, true);
        let mut wanted = vec![1; 700];
        wanted.resize(1600, 0);
        wanted[1024..1536].fill(2);
        assert_eq!(all(&kept), wanted);
        content.write_torn(&[2; 1000], 600, 0b001, false);
        assert_eq!(all(&content), [vec![1; 600], vec![2; 424]].concat());
    }

    #[test]
    fn space_is_counted_in_blocks() {
        let mut content = Content::default();
        content.write(&[1; 100], 0);
        assert_eq!(content.writable(50, 10_000, 0), 4046);
        assert_eq!(content.writable(50, 10_000, 1), 8142);
        assert_eq!(content.writable(50, 10_000, 2), 10_000);
        assert_eq!(content.writable(8192, 1, 0), 0);
    }
}
