//! Serving calls of other nodes on connections that somebody else accepted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::channel::{FRAME_BYTES_MAX, HEADER_BYTES_MAX};
use crate::{Lane, RefusedCalls};

/// Settings of [`serve`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// The most calls that one connection may have open at a time; more wait at the caller. Default 1,024.
    pub streams_per_connection_max: u32,
    /// How long a connection may be silent before it is asked for a sign of life. Default 2 s.
    pub keep_alive_interval: Duration,
    /// How long that sign may take before the connection is cut. Default 4 s.
    pub keep_alive_timeout: Duration,
    /// How long calls may go on after the shutdown has begun; then their connections are cut. Streams that know
    /// nothing of the shutdown last that long. Default 1 s.
    pub shutdown_grace: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            streams_per_connection_max: 1_024,
            keep_alive_interval: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(4),
            shutdown_grace: Duration::from_secs(1),
        }
    }
}

/// How many calls of one connection may have been given up by their caller before this side has looked at them. A process
/// that was stopped for a while finds many such, and must not take its peers for attackers.
const RESET_STREAMS_MAX: usize = 1_024;

/// The server could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve calls of other nodes")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves `routes` on the connections of `incoming`, until `shutdown` completes or `incoming` ends, and all
/// connections are closed; those that are still open `shutdown_grace` later are cut.
///
/// Whoever accepted a connection may have looked at its first bytes
/// ([`first_bytes`](crate::first_bytes)), but must not have taken any. A connection that fails is dropped without
/// harm to the others. Calls that are refused for what they are get a line in the log ([`RefusedCalls`]).
///
/// # Errors
/// [`ServeError`] if the server cannot be set up.
pub async fn serve(
    routes: Routes,
    incoming: impl Stream<Item = io::Result<TcpStream>>,
    shutdown: impl Future<Output = ()>,
    config: ServerConfig,
) -> Result<(), ServeError> {
    let (cut, cut_seen) = watch::channel(false);
    let (stopping, mut stopping_seen) = watch::channel(false);
    let incoming = incoming.map(|accepted| accepted.map(|stream| Severable::new(stream, cut_seen.clone())));
    let grace = config.shutdown_grace;
    let until_shutdown = async {
        shutdown.await;
        stopping.send_replace(true);
    };
    let mut server = builder(&config).layer(RefusedCalls::new());
    let served = server.add_routes(routes).serve_with_incoming_shutdown(incoming, until_shutdown);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        outcome = &mut served => return Ok(outcome?),
        () = grace_after(&mut stopping_seen, grace) => cut.send_replace(true),
    };
    Ok(served.await?)
}

async fn grace_after(stopping: &mut watch::Receiver<bool>, grace: Duration) {
    // An error means that the server is gone, and with it who waits here.
    if stopping.wait_for(|stopping| *stopping).await.is_ok() {
        tokio::time::sleep(grace).await;
    }
}

fn builder(config: &ServerConfig) -> Server {
    // Nobody can tell the lanes apart before the first call: every connection gets the windows of the widest.
    let limits = Lane::Bulk.limits();
    Server::builder()
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(config.streams_per_connection_max)
        .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS_MAX))
        .http2_keepalive_interval(Some(config.keep_alive_interval))
        .http2_keepalive_timeout(Some(config.keep_alive_timeout))
}

/// A connection that can be cut from outside.
struct Severable {
    stream: TcpStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
}

impl Severable {
    fn new(stream: TcpStream, mut cut: watch::Receiver<bool>) -> Self {
        // Without it small answers wait for the acknowledgement of the one before. A connection that refuses the
        // option is dead, which its first read will tell.
        let _ = stream.set_nodelay(true);
        let cut = Box::pin(async move {
            // An error means that nobody is left to cut: the connection ends by itself.
            if cut.wait_for(|cut| *cut).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        Self { stream, cut, is_cut: false }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || self.cut.as_mut().poll(cx).is_ready();
        if self.is_cut { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Severable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Severable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Severable {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
