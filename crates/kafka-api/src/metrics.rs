//! What the front counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::errors::CloseCause;
use crate::table::{ApiTable, ServedVersion};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counters of one front, since its start. They only grow.
        #[derive(Debug, Default)]
        pub struct FrontMetrics {
            $($name: AtomicU64,)*
        }

        /// The counters at one moment; each is exact, but they are not read all at once.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct FrontCounts {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl FrontMetrics {
            /// Reads every counter.
            pub fn counts(&self) -> FrontCounts {
                FrontCounts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections that were accepted and served.
    connections_opened,
    /// Of those, the ones that ended.
    connections_closed,
    /// Connections that were closed at once because of `max.connections.per.ip`.
    connections_refused_per_ip,
    /// Connections of a shared listener that were closed at once because of `max.connections`, or because too many
    /// had not shown their protocol.
    connections_refused_full,
    /// Failures to accept after which the listener waited, as file descriptors or memory ran out.
    accept_backoffs,
    /// Requests whose handler was entered.
    requests_received,
    /// Answers handed to the socket in full or in part.
    responses_sent,
    /// Bytes read from clients.
    bytes_in,
    /// Bytes taken by clients' sockets.
    bytes_out,
    /// Times that a connection had to wait for memory before it could read.
    memory_waits,
    /// Connections that ended because of something that is no request which is served.
    closed_refused,
    /// Connections that ended in the middle of a request.
    closed_within_request,
    /// Connections that ended because of an answer that could not be sent, or by a handler's wish.
    closed_unanswerable,
    /// Connections that ended after `connections.max.idle.ms`.
    closed_idle,
    /// Connections that ended because a request did not arrive in time.
    closed_slow_request,
    /// Connections that ended because answers were not taken in time.
    closed_slow_reader,
    /// Connections that ended because their socket failed.
    closed_socket,
    /// Connections that ended because records of an answer could not be read.
    closed_unreadable,
    /// Connections that ended because of a defect in a handler.
    closed_panicked,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl FrontMetrics {
    pub(crate) fn opened(&self) {
        add(&self.connections_opened, 1);
    }

    pub(crate) fn refused_per_ip(&self) {
        add(&self.connections_refused_per_ip, 1);
    }

    pub(crate) fn refused_full(&self) {
        add(&self.connections_refused_full, 1);
    }

    pub(crate) fn accept_backed_off(&self) {
        add(&self.accept_backoffs, 1);
    }

    pub(crate) fn request_received(&self) {
        add(&self.requests_received, 1);
    }

    pub(crate) fn response_sent(&self) {
        add(&self.responses_sent, 1);
    }

    pub(crate) fn read(&self, bytes: u64) {
        add(&self.bytes_in, bytes);
    }

    pub(crate) fn written(&self, bytes: u64) {
        add(&self.bytes_out, bytes);
    }

    pub(crate) fn memory_waited(&self) {
        add(&self.memory_waits, 1);
    }

    pub(crate) fn panicked(&self) {
        add(&self.closed_panicked, 1);
        add(&self.connections_closed, 1);
    }

    pub(crate) fn closed(&self, cause: &CloseCause) {
        match cause {
            CloseCause::Client | CloseCause::Shutdown => {}
            CloseCause::ClientWithinRequest => add(&self.closed_within_request, 1),
            CloseCause::Socket(_) => add(&self.closed_socket, 1),
            CloseCause::Unreadable(_) => add(&self.closed_unreadable, 1),
            CloseCause::Refused(_) => add(&self.closed_refused, 1),
            CloseCause::Unanswerable(_) => add(&self.closed_unanswerable, 1),
            CloseCause::Idle => add(&self.closed_idle, 1),
            CloseCause::SlowRequest => add(&self.closed_slow_request, 1),
            CloseCause::SlowReader => add(&self.closed_slow_reader, 1),
        }
        add(&self.connections_closed, 1);
    }
}

/// Requests that were answered, by row and version of a table.
#[derive(Debug)]
pub(crate) struct AnsweredRequests(Box<[AtomicU64]>);

impl AnsweredRequests {
    /// Nothing counted yet of what `table` serves.
    pub(crate) fn of(table: &ApiTable) -> Self {
        Self(table.served_versions().map(|_| AtomicU64::new(0)).collect())
    }

    /// Counts a request that its handler took and that needs no answer any more. One that no handler took counts
    /// for no version.
    pub(crate) fn count(&self, served: Option<ServedVersion>) {
        if let Some(counter) = served.and_then(|ServedVersion(place)| self.0.get(place)) {
            add(counter, 1);
        }
    }

    /// The counters in the order of [`ApiTable::served_versions`].
    pub(crate) fn counts(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed))
    }
}
