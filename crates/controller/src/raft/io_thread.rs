//! The thread that owns the order of what reaches the disk: flushes, votes, truncations, purges, one after the other.
//!
//! Appends are written to the page cache by their caller and become durable here. Those that wait share one flush; a
//! vote, a truncation or a purge is preceded by the flush of all that was appended before it. So on the disk nothing
//! overtakes anything, and completions come in order.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use klamm_types::Offset;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::entry::offset_of;
use super::error::{EntryError, LogStoreError};
use super::shared::{NO_TIME, Shared};
use super::types::{LogId, TypeConfig, Vote};
use super::vote::{Lost, QuorumState};

/// How many calls may wait. Openraft has one call under way at a time, but for appends.
const QUEUE_LEN: usize = 256;
/// Bytes of the log after which the recovery point moves.
const CHECKPOINT_BYTES: u64 = 1 << 20;
/// How many entries the committed index in the file may be behind: it is written with every vote and purge, after so
/// many entries, and when the store closes.
pub(super) const COMMITTED_LAG_MAX: u64 = 1000;

/// The answer to a call that waits for the disk.
pub(super) type Done = oneshot::Sender<Result<(), LogStoreError>>;

/// One call, in the order of the disk.
pub(super) enum Command {
    /// Flush what has been appended and tell so.
    Flush(IOFlushed<TypeConfig>),
    /// Save a vote.
    SaveVote(Vote, Done),
    /// Remove the entries from this index on.
    TruncateFrom(u64, Done),
    /// Remove the entries up to this one.
    Purge(LogId, Done),
    /// Write the committed entry, which nobody waits for.
    SaveCommitted,
    /// Save what was lost, or that nothing is lost any more: then all that was appended is on the disk.
    SaveLost(Lost, Done),
}

/// The way to say what was lost, for others than Raft. It does not keep the thread alive.
#[derive(Clone, Debug)]
pub(crate) struct LostRecord {
    commands: mpsc::WeakSender<Command>,
}

impl LostRecord {
    /// Writes it; durable on return.
    ///
    /// # Errors
    /// [`LogStoreError::Stopped`], and what the disk says.
    pub(crate) async fn save(&self, lost: Lost) -> Result<(), LogStoreError> {
        let commands = self.commands.upgrade().ok_or(LogStoreError::Stopped)?;
        let (done, answer) = oneshot::channel();
        commands.send(Command::SaveLost(lost, done)).await.map_err(|_| LogStoreError::Stopped)?;
        drop(commands);
        answer.await.unwrap_or(Err(LogStoreError::Stopped))
    }
}

/// The thread and the way to it. Dropping it does what is queued, writes the committed entry and the recovery point,
/// and waits for that.
pub(super) struct IoThread {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    /// Starts the thread. `lock` is held until it ends.
    pub(super) fn start(
        shared: Arc<Shared>,
        lock: Box<dyn Send + Sync>,
        written_committed: Option<LogId>,
    ) -> Result<Self, LogStoreError> {
        let (sender, commands) = mpsc::channel(QUEUE_LEN);
        let worker = Worker { shared, commands, flushed: Vec::new(), written_committed, _lock: lock };
        let builder = std::thread::Builder::new().name("metadata-log".to_owned());
        let thread = builder.spawn(move || worker.run()).map_err(LogStoreError::Thread)?;
        Ok(Self { commands: Some(sender), thread: Some(thread) })
    }

    /// A place in the queue: once it is had, the call cannot be lost.
    pub(super) async fn reserve(&self) -> Result<mpsc::Permit<'_, Command>, LogStoreError> {
        let commands = self.commands.as_ref().ok_or(LogStoreError::Stopped)?;
        commands.reserve().await.map_err(|_| LogStoreError::Stopped)
    }

    pub(super) fn lost_record(&self) -> Result<LostRecord, LogStoreError> {
        let commands = self.commands.as_ref().ok_or(LogStoreError::Stopped)?;
        Ok(LostRecord { commands: commands.downgrade() })
    }

    /// Asks for the committed entry to be written, unless the queue is full: then somebody else will ask again.
    pub(super) fn request_save_committed(&self) {
        if let Some(commands) = &self.commands {
            let _ = commands.try_send(Command::SaveCommitted);
        }
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so; whoever waited for it was told that it stopped.
            let _ = thread.join();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    /// Whom the next flush has to tell.
    flushed: Vec<IOFlushed<TypeConfig>>,
    /// The committed entry in the file.
    written_committed: Option<LogId>,
    _lock: Box<dyn Send + Sync>,
}

impl Worker {
    fn run(mut self) {
        while let Some(first) = self.commands.blocking_recv() {
            let mut next = Some(first);
            while let Some(command) = next {
                self.on_command(command);
                next = if self.flushed.len() < QUEUE_LEN { self.commands.try_recv().ok() } else { None };
            }
            self.flush();
            self.maybe_checkpoint(CHECKPOINT_BYTES);
        }
        self.save_committed(1);
        self.maybe_checkpoint(1);
    }

    fn on_command(&mut self, command: Command) {
        if let Command::Flush(flushed) = command {
            self.flushed.push(flushed);
            return;
        }
        // The bug of a truncation that overtakes the completions of the appends before it: openraft then takes
        // entries for flushed that are not there any more.
        if !(cfg!(mutant = "B41") && matches!(command, Command::TruncateFrom(..))) {
            self.flush();
        }
        match command {
            Command::Flush(_) => {}
            Command::SaveVote(vote, done) => self.on_save_vote(vote, done),
            Command::TruncateFrom(end, done) => answer(done, self.truncate_from(end)),
            Command::Purge(log_id, done) => answer(done, self.purge(log_id)),
            Command::SaveCommitted => self.save_committed(COMMITTED_LAG_MAX),
            Command::SaveLost(lost, done) => answer(done, self.save_lost(lost)),
        }
    }

    /// Makes everything appended durable, and tells those who wait for it.
    fn flush(&mut self) {
        if self.flushed.is_empty() {
            return;
        }
        // The bug of an acknowledgement that does not wait for the log's flush.
        if cfg!(mutant = "B40") {
            self.flushed.drain(..).for_each(|flushed| flushed.io_completed(Ok(())));
        }
        let result = self.shared.log.flush();
        for flushed in self.flushed.drain(..) {
            flushed.io_completed(match &result {
                Ok(_) => Ok(()),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            });
        }
    }

    fn on_save_vote(&mut self, vote: Vote, done: Done) {
        // The bug of a vote that is granted before it is on the disk.
        if cfg!(mutant = "B40-vote") {
            self.shared.state().vote = Some(vote);
            answer(done, Ok(()));
            let _ = self.save_state(|state| state.vote = Some(vote));
            return;
        }
        let checked = self.shared.state().vote.map_or(Ok(()), |saved| check_vote(&vote, &saved));
        answer(done, checked.and_then(|()| self.save_state(|state| state.vote = Some(vote))));
    }

    /// Changes the state file by `change`, and then what readers see.
    fn save_state(&mut self, change: impl Fn(&mut QuorumState)) -> Result<(), LogStoreError> {
        let mut next = *self.shared.state();
        change(&mut next);
        // The file promises that what it calls committed has been flushed here; a quorum may be ahead of this disk.
        let flushed_end = self.shared.log.flushed_end_offset().0.cast_unsigned();
        let known = next.committed.filter(|committed| committed.index < flushed_end);
        next.committed = known.or(self.written_committed);
        self.shared.state_file.write(&next)?;
        self.written_committed = next.committed;
        // A newer committed entry may have come meanwhile: only the change is taken over.
        change(&mut self.shared.state());
        Ok(())
    }

    /// Writes the committed entry if the file is `lag` entries or more behind.
    fn save_committed(&mut self, lag: u64) {
        let index = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index.saturating_add(1));
        let committed = self.shared.state().committed;
        if index(committed).saturating_sub(index(self.written_committed)) >= lag {
            // Nobody waits for it; a failure has taken the directory out of service, which the next call finds.
            let _ = self.save_state(|_| ());
        }
    }

    /// What was appended is flushed first, also what nobody has asked to be flushed yet: from then on the log speaks for
    /// itself.
    fn save_lost(&mut self, lost: Lost) -> Result<(), LogStoreError> {
        self.shared.log.flush()?;
        self.save_state(|state| state.lost = lost)
    }

    fn truncate_from(&mut self, end: u64) -> Result<(), LogStoreError> {
        let log = &self.shared.log;
        let log_end = log.log_end_offset();
        // What was purged is gone already; what was never there need not go.
        let end = offset_of(end).unwrap_or(log_end).clamp(log.log_start_offset(), log_end);
        let keep_end = end.0.cast_unsigned();
        let committed = self.shared.state().committed.map(|committed| committed.index);
        if let Some(committed) = committed.filter(|committed| end < log_end && *committed >= keep_end) {
            return Err(LogStoreError::TruncatesCommitted { keep_end, committed });
        }
        let _cut = self.shared.cut.write().unwrap_or_else(PoisonError::into_inner);
        log.truncate_to(end, NO_TIME)?;
        Ok(())
    }

    /// First the file says what is purged, then it goes: after a crash in between, opening goes on.
    fn purge(&mut self, log_id: LogId) -> Result<(), LogStoreError> {
        let index = log_id.index;
        let end = offset_of(index)
            .map(|offset| offset.plus(1))
            .ok_or(LogStoreError::Entry { index, source: EntryError::Index { index } })?;
        if self.shared.state().last_purged.is_some_and(|purged| purged.index >= index) {
            return Ok(());
        }
        // The bug of removing entries before it is known that they may be missing.
        if cfg!(mutant = "B40-purge") {
            remove_before(&self.shared, end)?;
        }
        self.save_state(|state| state.last_purged = Some(log_id))?;
        remove_before(&self.shared, end)
    }

    /// Moves the recovery point if `bytes` or more were appended since it last moved.
    fn maybe_checkpoint(&self, bytes: u64) {
        let log = &self.shared.log;
        if log.bytes_since_checkpoint() < bytes {
            return;
        }
        // Only recovery after a crash takes longer without it. A failing disk is found by the next call.
        if let Ok(point) = log.checkpoint() {
            let _ = log.log_dir().store_recovery_points([(log.partition().clone(), Some(point))]);
        }
    }
}

/// Removes the entries before `end` from the log, which may end before it.
pub(super) fn remove_before(shared: &Shared, end: Offset) -> Result<(), LogStoreError> {
    let log = &shared.log;
    let _cut = shared.cut.write().unwrap_or_else(PoisonError::into_inner);
    if end > log.log_end_offset() {
        log.truncate_fully_and_start_at(end, NO_TIME)?;
    } else {
        log.advance_high_watermark(end);
        log.advance_log_start(end)?;
        log.apply_retention(NO_TIME)?;
    }
    log.remove_deleted(NO_TIME)?;
    Ok(())
}

/// A node votes once in a term; for another node only when that has the votes of a quorum already.
fn check_vote(vote: &Vote, saved: &Vote) -> Result<(), LogStoreError> {
    let (term, node_id) = (vote.leader_id().term, vote.leader_id().voted_for);
    let (saved_term, saved_for) = (saved.leader_id().term, saved.leader_id().voted_for);
    if term < saved_term {
        return Err(LogStoreError::VoteWentBack { term, saved: saved_term });
    }
    if term == saved_term && node_id != saved_for && !vote.is_committed() {
        return Err(LogStoreError::VotedTwice { term, node_id, saved_for });
    }
    Ok(())
}

fn answer(done: Done, result: Result<(), LogStoreError>) {
    // Whoever asked may have been cancelled.
    let _ = done.send(result);
}
