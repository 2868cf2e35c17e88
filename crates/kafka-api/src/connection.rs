//! One client connection: requests in, answers out in the order of the requests.
//!
//! ```text
//!  socket --Intake--> frame --memory--> dispatch --> handler --> PendingAnswer
//!                                          |  accepted              |  done, in any order
//!                              next frame <+                        v
//!                                              socket <--Outbox-- answers in order
//! ```
//!
//! All of it runs in one task. The task reads only while nothing of the connection overflows (requests in flight,
//! bytes of answers not taken) and memory is free; it writes whenever the socket takes bytes. After the end of
//! input, a refusal or the shutdown it reads no more, answers what it has taken, and closes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::config::as_u64;
use crate::deadlines::{ProgressWindow, Timer};
use crate::dispatch::{Peer, decode_bytes_of, dispatch};
use crate::errors::{CloseCause, RequestError};
use crate::front::{Front, Phase};
use crate::intake::{Frame, Intake, ReadOutcome};
use crate::memory::{Acquire, MemoryPermit};
use crate::outbox::Outbox;
use crate::table::{BoxFuture, Dispatched, PendingAnswer, Sealed, ServedVersion};

/// How long a quiet connection keeps its read buffer.
const BUFFER_KEPT: Duration = Duration::from_secs(1);
/// How long, and for how many bytes, a connection that is closed over a refusal still reads if it has sent anything:
/// unread bytes would cause a reset, which destroys answers that are on their way.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What the reading side waits for.
enum Gate {
    /// Bytes.
    Bytes,
    /// Memory to read them into.
    ReadMemory(Acquire),
    /// Memory to decode this request.
    DecodeMemory(Acquire, Option<Frame>),
    /// The handler to fix the order of the request that it took last.
    Order(BoxFuture<()>),
}

/// What came of it.
enum Opened {
    Readable(std::io::Result<()>),
    ReadMemory(MemoryPermit),
    DecodeMemory(MemoryPermit),
    Ordered,
}

impl Gate {
    async fn opened(&mut self, socket: &TcpStream) -> Opened {
        match self {
            Self::Bytes => Opened::Readable(socket.readable().await),
            Self::ReadMemory(acquire) => Opened::ReadMemory(acquire.await),
            Self::DecodeMemory(acquire, _) => Opened::DecodeMemory(acquire.await),
            Self::Order(accepted) => {
                accepted.await;
                Opened::Ordered
            }
        }
    }
}

/// An answer that counts the bytes it came out with, from the moment it is ready until they are sent.
struct Counted {
    answer: PendingAnswer,
    served: Option<ServedVersion>,
    ready_bytes: Arc<AtomicUsize>,
}

impl Counted {
    /// An answer that is there already counts at once, or a client that takes none would get many of them made
    /// before the first is looked at.
    fn new(answer: PendingAnswer, served: Option<ServedVersion>, ready_bytes: &Arc<AtomicUsize>) -> Self {
        if let PendingAnswer::Now(Some(Ok(Some(encoded)))) = &answer {
            ready_bytes.fetch_add(encoded.len(), Ordering::Relaxed);
        }
        Self { answer, served, ready_bytes: ready_bytes.clone() }
    }
}

impl Future for Counted {
    type Output = (Option<ServedVersion>, Sealed);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let is_counted = matches!(self.answer, PendingAnswer::Now(_));
        let polled = Pin::new(&mut self.answer).poll(context);
        if let (false, Poll::Ready(Ok(Some(encoded)))) = (is_counted, &polled) {
            self.ready_bytes.fetch_add(encoded.len(), Ordering::Relaxed);
        }
        polled.map(|sealed| (self.served, sealed))
    }
}

/// The connection's state, owned by its task.
pub(crate) struct Connection {
    front: Arc<Front>,
    socket: TcpStream,
    peer: Peer,
    intake: Intake,
    gate: Gate,
    answers: FuturesOrdered<Counted>,
    outbox: Outbox,
    /// Bytes of answers that are ready, in order or not, and not sent.
    ready_bytes: Arc<AtomicUsize>,
    /// Why the connection takes no more requests, and when it stops waiting for answers.
    closing: Option<(CloseCause, Instant)>,
    /// Whether the client was sent anything.
    has_answered: bool,
    last_active: Instant,
    request_window: Option<ProgressWindow>,
    response_window: Option<ProgressWindow>,
    timer: Timer,
}

impl Connection {
    pub(crate) fn new(front: Arc<Front>, socket: TcpStream, peer: Peer) -> Self {
        let now = Instant::now();
        Self {
            intake: Intake::new(front.config.request_bytes_max, &front.request_memory),
            front,
            socket,
            peer,
            gate: Gate::Bytes,
            answers: FuturesOrdered::new(),
            outbox: Outbox::default(),
            ready_bytes: Arc::default(),
            closing: None,
            has_answered: false,
            last_active: now,
            request_window: None,
            response_window: None,
            timer: Timer::new(now),
        }
    }

    /// Serves the client until there is a reason to stop.
    pub(crate) async fn run(mut self, mut phase: watch::Receiver<Phase>) -> CloseCause {
        let cause = loop {
            self.take_buffered_frames();
            self.arm_timer();
            if let Some(cause) = self.finished() {
                break cause;
            }
            let (may_take, gate_counts) = (self.may_take(), self.gate_counts());
            let is_open = self.closing.is_none();
            let stop = tokio::select! {
                biased;
                changed = phase.wait_for(|phase| *phase == Phase::Draining), if is_open => {
                    // An error means that the listener is gone altogether.
                    drop(changed);
                    self.close(CloseCause::Shutdown)
                }
                writable = self.socket.writable(), if self.outbox.is_ready() => {
                    writable.map_err(CloseCause::from).and_then(|()| self.write())
                }
                loaded = self.outbox.loaded(), if self.outbox.is_loading() => {
                    loaded.and_then(|()| self.write())
                }
                Some(answer) = self.answers.next(), if may_take => self.on_answer(answer),
                opened = self.gate.opened(&self.socket), if gate_counts => self.on_opened(opened),
                () = self.timer.fired() => self.on_timer(),
            };
            if let Err(cause) = stop {
                break cause;
            }
        };
        self.say_goodbye(&cause).await;
        cause
    }

    /// Whether more bytes or frames are wanted.
    fn may_read(&self) -> bool {
        let config = &self.front.config;
        self.closing.is_none()
            && self.answers.len() < config.requests_in_flight_max
            && self.ready_bytes.load(Ordering::Relaxed) < config.responses_queued_bytes_max
    }

    /// Whether answers are collected: not before the client has taken those that it has.
    fn may_take(&self) -> bool {
        !self.answers.is_empty() && self.outbox.len() < self.front.config.responses_queued_bytes_max
    }

    fn gate_counts(&self) -> bool {
        match self.gate {
            Gate::Bytes => self.may_read(),
            Gate::ReadMemory(_) | Gate::DecodeMemory(..) | Gate::Order(_) => true,
        }
    }

    fn is_reading(&self) -> bool {
        matches!(self.gate, Gate::Bytes) && self.may_read()
    }

    /// The end, once a reason to close is there and all answers are out.
    fn finished(&mut self) -> Option<CloseCause> {
        if self.answers.is_empty() && self.outbox.is_empty() {
            self.closing.take().map(|(cause, _)| cause)
        } else {
            None
        }
    }

    /// Takes no more requests; those that handlers have are still answered. The first reason stays.
    fn close(&mut self, cause: CloseCause) -> Result<(), CloseCause> {
        if self.closing.is_none() {
            let drain = Duration::from_millis(self.front.config.drain_timeout_ms);
            self.closing = Some((cause, Instant::now() + drain));
            self.intake.release();
            if matches!(self.gate, Gate::ReadMemory(_) | Gate::DecodeMemory(..)) {
                self.gate = Gate::Bytes;
            }
        }
        Ok(())
    }

    fn take_buffered_frames(&mut self) {
        while matches!(self.gate, Gate::Bytes) && self.may_read() {
            let frame = match self.intake.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => return self.refuse(error.into()),
            };
            let bytes = as_u64(decode_bytes_of(&self.front.table, &frame.bytes));
            match self.front.decode_memory.take(bytes).try_now() {
                Ok(decoded) => self.dispatch(frame, decoded),
                Err(waiting) => {
                    self.front.metrics.memory_waited();
                    self.gate = Gate::DecodeMemory(waiting, Some(frame));
                }
            }
        }
    }

    fn refuse(&mut self, error: RequestError) {
        let _: Result<(), CloseCause> = self.close(error.into());
    }

    fn dispatch(&mut self, frame: Frame, decoded: MemoryPermit) {
        match dispatch(&self.front.table, &self.peer, frame, decoded) {
            Ok(Dispatched { accepted, answer, served }) => {
                self.front.metrics.request_received();
                self.answers.push_back(Counted::new(answer, served, &self.ready_bytes));
                if let Some(accepted) = accepted {
                    self.gate = Gate::Order(accepted);
                }
            }
            Err(error) => self.refuse(error),
        }
    }

    fn on_opened(&mut self, opened: Opened) -> Result<(), CloseCause> {
        match opened {
            Opened::Readable(readable) => {
                readable?;
                match self.intake.acquire().try_now() {
                    Ok(permit) => self.read(permit),
                    Err(waiting) => {
                        self.front.metrics.memory_waited();
                        self.gate = Gate::ReadMemory(waiting);
                        Ok(())
                    }
                }
            }
            Opened::ReadMemory(permit) => {
                self.gate = Gate::Bytes;
                self.read(permit)
            }
            Opened::DecodeMemory(decoded) => {
                if let Gate::DecodeMemory(_, Some(frame)) = std::mem::replace(&mut self.gate, Gate::Bytes) {
                    self.dispatch(frame, decoded);
                }
                Ok(())
            }
            Opened::Ordered => {
                self.gate = Gate::Bytes;
                Ok(())
            }
        }
    }

    fn read(&mut self, permit: MemoryPermit) -> Result<(), CloseCause> {
        match self.intake.read(&self.socket, permit)? {
            ReadOutcome::NotYet => Ok(()),
            ReadOutcome::End if self.intake.is_between_frames() => self.close(CloseCause::Client),
            ReadOutcome::End => self.close(CloseCause::ClientWithinRequest),
            ReadOutcome::Arrived(count) => {
                let now = Instant::now();
                self.front.metrics.read(as_u64(count));
                self.last_active = now;
                if let Some(window) = self.request_window.as_mut().filter(|_| !self.intake.is_on_reserve()) {
                    window.moved(now, count);
                }
                Ok(())
            }
        }
    }

    /// Puts the answer, and those that are ready behind it, into the outbox, and sends what the socket takes.
    fn on_answer(&mut self, answer: (Option<ServedVersion>, Sealed)) -> Result<(), CloseCause> {
        let mut next = Some(answer);
        while let Some((served, answer)) = next {
            match answer {
                Ok(Some(encoded)) => self.outbox.push(encoded).map(|()| self.front.metrics.response_sent()),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            }
            .map(|()| self.front.answered.count(served))
            .or_else(|error| {
                // Later answers must not follow: they would be taken for this one.
                self.answers = FuturesOrdered::new();
                self.gate = Gate::Bytes;
                self.close(error.into())
            })?;
            next = if self.may_take() { self.answers.next().now_or_never().flatten() } else { None };
        }
        self.last_active = Instant::now();
        self.write()
    }

    fn write(&mut self) -> Result<(), CloseCause> {
        let written = self.outbox.write(&self.socket)?;
        if written > 0 {
            self.has_answered = true;
            let now = Instant::now();
            self.front.metrics.written(as_u64(written));
            self.ready_bytes.fetch_sub(written, Ordering::Relaxed);
            self.last_active = now;
            if let Some(window) = &mut self.response_window {
                window.moved(now, written);
            }
        }
        Ok(())
    }

    /// Whether the client owes nothing and is owed nothing.
    fn is_idle(&self) -> bool {
        self.answers.is_empty()
            && self.outbox.is_empty()
            && self.intake.is_between_frames()
            && matches!(self.gate, Gate::Bytes)
    }

    fn idle_end(&self) -> Option<Instant> {
        let idle_max = Duration::from_millis(self.front.config.connections_idle_max_ms);
        self.is_idle().then(|| self.last_active.checked_add(idle_max)).flatten()
    }

    fn buffer_end(&self) -> Option<Instant> {
        self.intake.has_spare_memory().then(|| self.last_active + BUFFER_KEPT)
    }

    /// Opens and closes the windows, and sets the timer to the next deadline.
    fn arm_timer(&mut self) {
        let now = Instant::now();
        let config = &self.front.config;
        if self.is_reading() && !self.intake.is_between_frames() {
            let length = Duration::from_millis(config.request_read_timeout_ms);
            self.request_window.get_or_insert_with(|| ProgressWindow::open(now, length));
        } else {
            self.request_window = None;
        }
        if self.outbox.is_empty() {
            self.response_window = None;
        } else {
            let length = Duration::from_millis(config.response_write_timeout_ms);
            self.response_window.get_or_insert_with(|| ProgressWindow::open(now, length));
        }
        let deadlines = [
            self.request_window.as_ref().map(ProgressWindow::ends),
            self.response_window.as_ref().map(ProgressWindow::ends),
            self.closing.as_ref().map(|(_, end)| *end),
            self.idle_end(),
            self.buffer_end(),
        ];
        self.timer.arm(now, deadlines);
    }

    fn on_timer(&mut self) -> Result<(), CloseCause> {
        let now = Instant::now();
        let is_over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        if is_over(self.response_window.as_ref().map(ProgressWindow::ends)) {
            return Err(CloseCause::SlowReader);
        }
        if self.closing.as_ref().is_some_and(|(_, end)| *end <= now) {
            return Err(self.closing.take().map_or(CloseCause::Shutdown, |(cause, _)| cause));
        }
        if is_over(self.request_window.as_ref().map(ProgressWindow::ends)) {
            return Err(CloseCause::SlowRequest);
        }
        if is_over(self.idle_end()) {
            return Err(CloseCause::Idle);
        }
        if is_over(self.buffer_end()) {
            self.intake.release();
        }
        Ok(())
    }

    /// Closes the socket so that answers that are still on their way arrive.
    async fn say_goodbye(mut self, cause: &CloseCause) {
        let lingers =
            matches!(cause, CloseCause::Refused(_) | CloseCause::Unanswerable(_) | CloseCause::Shutdown);
        if !lingers || !self.has_answered || self.socket.shutdown().await.is_err() {
            return;
        }
        // Nothing is left to do if the client never closes its side: the socket is closed then.
        let _: Result<(), tokio::time::error::Elapsed> = timeout(LINGER, discard(&self.socket)).await;
    }
}

/// Reads until the end of input, a failure, or too many bytes.
async fn discard(socket: &TcpStream) {
    let mut scratch = [0; 1 << 10];
    let mut left = LINGER_BYTES_MAX;
    while left > 0 && socket.readable().await.is_ok() {
        match socket.try_read(&mut scratch) {
            Ok(0) => return,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
