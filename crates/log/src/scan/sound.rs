//! Walking a segment file that may be damaged: which batches to believe, and where to go on behind damage.
//!
//! A batch's checksum does not cover its base offset, length, leader epoch and magic byte. A batch is therefore
//! believed only once its successor agrees with it; where two neighbours contradict each other, those that follow
//! decide. Behind bytes that do not parse the walk goes on where the damaged batch would have ended, or one flipped
//! bit of its length would have it end; only then bytes are searched, since a record may hold what looks like a batch.

use std::collections::VecDeque;
use std::io;

use klamm_record::{BatchError, BatchHeader, HEADER_LEN, LOG_OVERHEAD};
use klamm_types::{LeaderEpoch, LeaderEpochCache, Offset};

use super::{BatchScanner, ScanError, Scanned};
use crate::fs::{LogFile, read_up_to_at};

/// Where in a batch its length is.
const LENGTH_AT: u64 = 8;
/// Where in a batch its checksum is, and right after it what it covers.
const CRC_AT: u64 = 17;
/// Where in a batch its magic byte is.
const MAGIC_AT: usize = 16;
/// The magic byte of a batch.
const MAGIC: u8 = 2;
/// So many batches that follow each other are no accident.
const CHAIN_MAX: usize = 64;
/// A walk spends at most this many times the file's size on looking for a way on ...
const SEARCH_FACTOR: u64 = 4;
/// ... and this many bytes, whatever the size.
const SEARCH_FLOOR: u64 = 16 << 20;

/// What the next batch has to fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    /// Its base offset is not below this.
    pub(crate) expected: Offset,
    /// Nor is its leader epoch below this.
    pub(crate) epoch: LeaderEpoch,
    /// Its last offset is below this, the base of the next segment.
    pub(crate) end: Option<Offset>,
}

impl Fit {
    fn takes(&self, header: &BatchHeader) -> bool {
        header.base_offset() >= self.expected
            && header.leader_epoch() >= self.epoch
            && self.end.is_none_or(|end| header.last_offset() < end)
    }

    fn after(&self, header: &BatchHeader) -> Self {
        Self { expected: header.next_offset(), epoch: header.leader_epoch(), end: self.end }
    }

    fn is_continued_by(&self, header: &BatchHeader) -> bool {
        header.base_offset() == self.expected
            && (header.leader_epoch() == self.epoch || self.epoch == LeaderEpoch::NONE)
    }
}

/// Which bytes were promised, so that damage to them is rot and never the end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Promise {
    /// All of them.
    Everything,
    /// Those of the offsets below this.
    Below(Offset),
    /// Those that whole batches follow.
    IfFollowed,
}

/// What a [`SoundScanner`] comes by.
#[derive(Debug)]
pub(crate) enum Sound {
    /// A batch to believe.
    Batch(Scanned),
    /// Damage to promised bytes. What comes next is the batch behind it, more damage, or the end.
    Damage { position: u64, reason: BatchError },
    /// The promised bytes end here, and what follows is not whole. Nothing comes next.
    Torn { position: u64, followed: bool },
}

/// Batches that follow each other.
struct Chain {
    len: usize,
    end: u64,
    fit: Fit,
    /// It reaches the end of the file, or is long enough to be believed.
    is_full: bool,
}

/// Walks a segment file past damage.
pub(crate) struct SoundScanner<'f> {
    file: &'f dyn LogFile,
    scanner: BatchScanner<'f>,
    size: u64,
    buffer_capacity: usize,
    verify: bool,
    promise: Promise,
    epochs: Option<&'f LeaderEpochCache>,
    /// What the batch in `held` had to fit, and what comes next if that is not believed.
    fit: Fit,
    /// The batch whose successor has not been seen.
    held: Option<Scanned>,
    ready: VecDeque<Sound>,
    is_done: bool,
    /// The first batch is known to be where it should, though nothing is known of what comes before it.
    is_start_known: bool,
    budget: u64,
}

impl<'f> SoundScanner<'f> {
    /// A walk over `range` of the file, which starts with a batch that should fit `fit`. Checksums are not checked
    /// and everything is taken to be promised, unless [`promised`](Self::promised) says otherwise.
    pub(crate) fn new(
        file: &'f dyn LogFile,
        range: std::ops::Range<u64>,
        fit: Fit,
        buffer_capacity: usize,
    ) -> Self {
        Self {
            file,
            scanner: BatchScanner::new(file, range.start, range.end, buffer_capacity),
            size: range.end,
            buffer_capacity,
            verify: false,
            promise: Promise::Everything,
            epochs: None,
            fit,
            held: None,
            ready: VecDeque::with_capacity(3),
            is_done: false,
            is_start_known: false,
            budget: range.end.saturating_mul(SEARCH_FACTOR).saturating_add(SEARCH_FLOOR),
        }
    }

    /// Checks checksums, and takes `promise` to tell rot from a torn tail. `epochs` are those stored for the log.
    pub(crate) fn promised(mut self, promise: Promise, epochs: Option<&'f LeaderEpochCache>) -> Self {
        self.verify = true;
        self.promise = promise;
        self.epochs = epochs;
        self
    }

    /// Believes the base offset of the first batch: it is that of an index entry.
    pub(crate) fn starting_known(mut self, is_known: bool) -> Self {
        self.is_start_known = is_known;
        self
    }

    /// What comes next; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Sound>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.is_done {
                return Ok(None);
            }
            self.step()?;
        }
    }

    fn step(&mut self) -> io::Result<()> {
        let position = self.scanner.position();
        let read = match self.scanner.next() {
            Ok(Some(batch)) if self.verify => verify(&mut self.scanner, &batch).map(|()| Some(batch)),
            read => read,
        };
        if std::mem::take(&mut self.is_start_known)
            && let Ok(Some(batch)) = &read
        {
            self.fit.expected.advance_to(batch.header.base_offset());
        }
        match read {
            Ok(None) => {
                self.settle_last();
                self.is_done = true;
            }
            Ok(Some(batch)) if self.ahead().takes(&batch.header) => {
                self.settle();
                self.held = Some(batch);
            }
            Ok(Some(batch)) => self.on_contradiction(batch)?,
            Err(ScanError::Damaged { reason, .. }) => self.on_damage(position, reason)?,
            Err(ScanError::Io(error)) => return Err(error),
        }
        Ok(())
    }

    /// What the batch after the held one has to fit.
    fn ahead(&self) -> Fit {
        self.held.as_ref().map_or(self.fit, |held| self.fit.after(&held.header))
    }

    /// Believes the held batch.
    fn settle(&mut self) {
        if let Some(held) = self.held.take() {
            self.fit = self.fit.after(&held.header);
            self.ready.push_back(Sound::Batch(held));
        }
    }

    /// Believes the held batch, which no whole one follows, unless what is known of the log speaks against it.
    fn settle_last(&mut self) {
        match self.held.take() {
            Some(held) if self.is_displaced(&held.header) => self.report(&held),
            held => {
                self.held = held;
                self.settle();
            }
        }
    }

    fn report(&mut self, batch: &Scanned) {
        let reason = BatchError::OffsetRange {
            base_offset: batch.header.base_offset(),
            last_offset_delta: batch.header.last_offset_delta(),
        };
        self.ready.push_back(Sound::Damage { position: batch.position, reason });
    }

    /// Whether the last batch contradicts the flush point (with one bit less it would end right there) or the stored
    /// leader epochs, which are durable before any batch below the flush point.
    fn is_displaced(&self, header: &BatchHeader) -> bool {
        let Promise::Below(promised) = self.promise else { return false };
        let (base, expected) = (header.base_offset(), self.fit.expected);
        let is_moved = base > expected
            && (base.0 ^ expected.0).count_ones() == 1
            && expected.checked_plus(i64::from(header.last_offset_delta()) + 1) == Some(promised);
        is_moved || header.last_offset() < promised && self.is_foreign(header)
    }

    /// Whether the batch is of a newer leader epoch than the batches before it and than the stored ones say.
    fn is_foreign(&self, header: &BatchHeader) -> bool {
        let base = header.base_offset();
        let stored = |epochs: &LeaderEpochCache| {
            epochs.entries().iter().rfind(|entry| entry.start_offset <= base).map(|entry| entry.epoch)
        };
        header.leader_epoch() > self.fit.epoch
            && self.epochs.and_then(stored).is_some_and(|epoch| epoch < header.leader_epoch())
    }

    fn is_promised(&self, offset: Offset) -> bool {
        match self.promise {
            Promise::Below(promised) => offset < promised,
            Promise::Everything | Promise::IfFollowed => true,
        }
    }

    /// Whether damage behind all that is settled is rot.
    fn is_rot(&self, followed: bool) -> bool {
        // The bug of cutting the log at any damage: everything after a flipped bit is gone.
        if cfg!(mutant = "B29") && self.verify {
            return false;
        }
        match self.promise {
            Promise::Everything => true,
            Promise::Below(promised) => self.fit.expected < promised,
            Promise::IfFollowed => followed,
        }
    }

    /// A whole batch goes back in offset or epoch: it is wrong, or the one before it.
    fn on_contradiction(&mut self, batch: Scanned) -> io::Result<()> {
        if let Some(held) = self.held
            && self.is_promised(self.fit.expected)
            && self.is_wrong(&held, &batch)?
        {
            self.report(&held);
            self.held = Some(batch);
            return Ok(());
        }
        self.settle();
        let followed = self.chain(batch.end(), self.fit)?.len > 0;
        if self.is_rot(followed) {
            self.report(&batch);
        } else {
            self.ready.push_back(Sound::Torn { position: batch.position, followed });
            self.is_done = true;
        }
        Ok(())
    }

    /// Whether it is `held` that is wrong, and not the `next` that contradicts it: more of what follows agrees with
    /// `next`, or as much and `held` does not continue what was before.
    fn is_wrong(&mut self, held: &Scanned, next: &Scanned) -> io::Result<bool> {
        if !self.fit.takes(&next.header) {
            return Ok(false);
        }
        let with_held = self.chain(next.end(), self.fit.after(&held.header))?.len;
        let with_next = self.chain(next.end(), self.fit.after(&next.header))?.len;
        let is_odd = !self.fit.is_continued_by(&held.header) || self.is_foreign(&held.header);
        Ok(with_next > with_held || with_next == with_held && is_odd)
    }

    /// No whole batch stands at `position`.
    fn on_damage(&mut self, position: u64, reason: BatchError) -> io::Result<()> {
        let mut found = self.next_whole(position, self.ahead())?;
        if let Some(held) = self.held
            && found.is_none()
            && self.is_promised(self.fit.expected)
            && !self.fit.is_continued_by(&held.header)
        {
            // What follows may be hidden only by what the held batch claims.
            found = self.next_whole(position, self.fit)?;
            if found.is_some() {
                self.report(&held);
                self.held = None;
            }
        }
        self.settle_last();
        if !self.is_rot(found.is_some()) {
            self.ready.push_back(Sound::Torn { position, followed: found.is_some() });
            self.is_done = true;
            return Ok(());
        }
        self.ready.push_back(Sound::Damage { position, reason });
        match found {
            Some(batch) => {
                self.scanner = BatchScanner::new(self.file, batch.end(), self.size, self.buffer_capacity);
                self.held = Some(batch);
            }
            None => self.is_done = true,
        }
        Ok(())
    }

    /// Follows the batches from `position` on for as long as each fits.
    fn chain(&mut self, position: u64, mut fit: Fit) -> io::Result<Chain> {
        let mut scanner = BatchScanner::new(self.file, position, self.size, BatchScanner::LOOKUP_BUFFER);
        let (mut len, mut end) = (0, position);
        while len < CHAIN_MAX && end < self.size {
            match scanner.next() {
                Ok(Some(batch)) if fit.takes(&batch.header) => {
                    let read = (batch.header.size() as u64).min(BatchScanner::LOOKUP_BUFFER as u64);
                    self.budget = self.budget.saturating_sub(read);
                    fit = fit.after(&batch.header);
                    end = batch.end();
                    len += 1;
                }
                Ok(_) | Err(ScanError::Damaged { .. }) => break,
                Err(ScanError::Io(error)) => return Err(error),
            }
        }
        Ok(Chain { len, end, fit, is_full: len == CHAIN_MAX || end == self.size })
    }

    /// The whole batch at which to go on behind the one that is damaged at `position`.
    fn next_whole(&mut self, position: u64, fit: Fit) -> io::Result<Option<Scanned>> {
        let mut field = [0; 4];
        let read = read_up_to_at(self.file, &mut field, position + LENGTH_AT)?;
        let stored = if read == field.len() { u32::from_be_bytes(field) } else { 0 };
        // The length as it is stored, then with each bit flipped.
        let lengths = std::iter::once(stored).chain((0..u32::BITS - 1).map(|bit| stored ^ (1 << bit)));
        let ends = lengths.map(|length| position + LOG_OVERHEAD as u64 + u64::from(length));
        let ends = ends.filter(|end| *end >= position + HEADER_LEN as u64);
        let mut best: Option<(Scanned, Chain)> = None;
        let mut is_last = false;
        for (i, end) in ends.enumerate() {
            is_last |= end == self.size;
            let Some(batch) = self.whole_at(end, &fit)? else { continue };
            if self.has_crc(position, end)? {
                return Ok(Some(batch));
            }
            let chain = self.chain(batch.end(), fit.after(&batch.header))?;
            let is_better = |known: &Chain| chain.is_full && !known.is_full;
            if i == 0 || chain.is_full && best.as_ref().is_none_or(|(_, known)| is_better(known)) {
                best = Some((batch, chain));
            }
        }
        match best {
            Some((batch, chain)) if chain.is_full => Ok(Some(batch)),
            None if is_last => Ok(None),
            best => self.search(position + 1, fit, best),
        }
    }

    /// Whether the batch at `position` has the right checksum if it ends at `end`.
    fn has_crc(&mut self, position: u64, end: u64) -> io::Result<bool> {
        let Some(left) = self.budget.checked_sub(end - position) else { return Ok(false) };
        self.budget = left;
        let mut stored = [0; 4];
        let mut buffer = vec![0; BatchScanner::BULK_BUFFER];
        let (mut at, mut computed) = (position + CRC_AT + stored.len() as u64, 0);
        read_up_to_at(self.file, &mut stored, position + CRC_AT)?;
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = read_up_to_at(self.file, &mut buffer[..room], at)?;
            if read == 0 {
                return Ok(false);
            }
            computed = crc32c::crc32c_append(computed, &buffer[..read]);
            at += read as u64;
        }
        Ok(computed == u32::from_be_bytes(stored))
    }

    /// Searches byte by byte. The first batch found is the one to go on at, unless batches follow that contradict it:
    /// then it stands within a record.
    fn search(
        &mut self,
        mut position: u64,
        fit: Fit,
        mut best: Option<(Scanned, Chain)>,
    ) -> io::Result<Option<Scanned>> {
        if let Some((_, chain)) = &best {
            position = chain.end;
        }
        while let Some(batch) = self.candidate(position, &fit)? {
            let chain = self.chain(batch.end(), fit.after(&batch.header))?;
            position = chain.end;
            match &best {
                Some((first, known)) if known.fit.takes(&batch.header) => return Ok(Some(*first)),
                Some((_, known)) if chain.len < known.len && !chain.is_full => {}
                _ if chain.is_full => return Ok(Some(batch)),
                _ => best = Some((batch, chain)),
            }
        }
        Ok(best.map(|(batch, _)| batch))
    }

    /// The first whole batch at or past `position` that fits.
    fn candidate(&mut self, mut position: u64, fit: &Fit) -> io::Result<Option<Scanned>> {
        let mut buffer = vec![0; BatchScanner::BULK_BUFFER];
        while position + HEADER_LEN as u64 <= self.size && self.budget > 0 {
            let room = usize::try_from(self.size - position).unwrap_or(usize::MAX).min(buffer.len());
            let read = read_up_to_at(self.file, &mut buffer[..room], position)?;
            let windows = buffer[..read].windows(HEADER_LEN);
            let searched = windows.len() as u64;
            for (at, window) in (position..).zip(windows) {
                if window[MAGIC_AT] == MAGIC
                    && BatchHeader::parse(window).is_ok()
                    && let Some(batch) = self.whole_at(at, fit)?
                {
                    return Ok(Some(batch));
                }
            }
            if searched == 0 {
                break;
            }
            self.budget = self.budget.saturating_sub(searched);
            position += searched;
        }
        Ok(None)
    }

    /// The batch at `position`, if one stands there that is whole and fits.
    fn whole_at(&mut self, position: u64, fit: &Fit) -> io::Result<Option<Scanned>> {
        if position + HEADER_LEN as u64 > self.size {
            return Ok(None);
        }
        let mut scanner = BatchScanner::new(self.file, position, self.size, BatchScanner::LOOKUP_BUFFER);
        let batch = match scanner.next() {
            Ok(Some(batch)) if fit.takes(&batch.header) && self.is_near(fit, &batch.header) => batch,
            Ok(_) | Err(ScanError::Damaged { .. }) => return Ok(None),
            Err(ScanError::Io(error)) => return Err(error),
        };
        // Bytes that look like many overlapping batches must not make this take for ever.
        let Some(left) = self.budget.checked_sub(batch.header.size() as u64) else { return Ok(None) };
        self.budget = left;
        let mut scanner = BatchScanner::new(self.file, position, batch.end(), BatchScanner::BULK_BUFFER);
        match verify(&mut scanner, &batch) {
            Ok(()) => Ok(Some(batch)),
            Err(ScanError::Damaged { .. }) => Ok(None),
            Err(ScanError::Io(error)) => Err(error),
        }
    }

    /// Whether what is missing before the batch can be missing: below the flush point, not past it.
    fn is_near(&self, fit: &Fit, header: &BatchHeader) -> bool {
        match self.promise {
            Promise::Below(promised) if fit.expected < promised => header.base_offset() <= promised,
            _ => fit.expected.distance_to(header.base_offset()) <= u64::from(u32::MAX),
        }
    }
}

/// Checks a batch's checksum. A file that has become too short for it, as a truncation makes it, has no such batch.
fn verify(scanner: &mut BatchScanner<'_>, batch: &Scanned) -> Result<(), ScanError> {
    match scanner.verify_crc(batch) {
        Err(ScanError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let reason = BatchError::Truncated { have: 0, need: batch.header.size() };
            Err(ScanError::Damaged { position: batch.position, reason })
        }
        verified => verified,
    }
}
