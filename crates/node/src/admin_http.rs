//! `/metrics`, `/livez`, `/readyz` and `/metadata` over HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last: who scrapes comes again.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// How long the listener rests when the system cannot give it a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told of the node.
pub trait NodeView: Send + Sync + 'static {
    /// All metrics in the text format of `OpenMetrics`.
    fn metrics(&self) -> String;

    /// Whether the process works, and the reason, as a line.
    fn liveness(&self) -> (bool, String);

    /// Whether the node can do its work now, and why not, as lines.
    fn readiness(&self) -> (bool, String);

    /// How far the broker follows the metadata, and a digest of all that it knows there, as a line; `None` if the node
    /// is no broker. Nodes that have come to the same offset tell the same.
    fn metadata(&self) -> Option<String>;
}

/// The bound socket.
#[derive(Debug)]
pub struct AdminListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl AdminListener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where it listens, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopped` turns true.
    pub async fn run(self, view: Arc<dyn NodeView>, mut stopped: watch::Receiver<bool>) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                // An error means that whoever could stop it is gone.
                _ = stopped.wait_for(|stopped| *stopped) => return,
                accepted = self.accept(&connections) => accepted,
            };
            let Some((socket, permit)) = accepted else { continue };
            let view = view.clone();
            tokio::spawn(async move {
                serve(socket, view).await;
                drop(permit);
            });
        }
    }

    async fn accept(
        &self,
        connections: &Arc<Semaphore>,
    ) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let permit = connections.clone().acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((socket, _)) => Some((socket, permit)),
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

async fn serve(socket: TcpStream, view: Arc<dyn NodeView>) {
    let service = service_fn(move |request| {
        let view = view.clone();
        async move { Ok::<_, Infallible>(answer(&request, view).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(socket), service);
    match tokio::time::timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of the admin listener ended"),
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

async fn answer(request: &Request<Incoming>, view: Arc<dyn NodeView>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
    }
    let by_health = |(healthy, mut text): (bool, String)| {
        text.push('\n');
        let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(status, TEXT, text)
    };
    match request.uri().path() {
        "/metrics" => response(StatusCode::OK, OPEN_METRICS, view.metrics()),
        "/livez" => by_health(view.liveness()),
        "/readyz" => by_health(view.readiness()),
        "/metadata" => match tokio::task::spawn_blocking(move || view.metadata()).await {
            Ok(Some(line)) => response(StatusCode::OK, TEXT, format!("{line}\n")),
            Ok(None) | Err(_) => response(StatusCode::NOT_FOUND, TEXT, "no broker runs here\n".to_owned()),
        },
        _ => response(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are /metrics, /livez, /readyz and /metadata\n".to_owned(),
        ),
    }
}

fn response(status: StatusCode, kind: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Fixed;

    impl NodeView for Fixed {
        fn metrics(&self) -> String {
            "klamm_up 1\n# EOF\n".to_owned()
        }

        fn liveness(&self) -> (bool, String) {
            (true, "alive".to_owned())
        }

        fn readiness(&self) -> (bool, String) {
            (false, "broker: Fenced".to_owned())
        }

        fn metadata(&self) -> Option<String> {
            Some("offset=1".to_owned())
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn all_pages_are_served() {
        let listener = AdminListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(listener.run(Arc::new(Fixed), stopped));
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        for (request, status, body) in [
            (get("/metrics"), "200", "klamm_up 1\n# EOF\n"),
            (get("/livez"), "200", "alive\n"),
            (get("/readyz"), "503", "broker: Fenced\n"),
            (get("/metadata"), "200", "offset=1\n"),
            (get("/other"), "404", "there are /metrics, /livez, /readyz and /metadata\n"),
            (get("/livez").replace("GET", "DELETE"), "405", "only GET\n"),
        ] {
            let told = ask(address, &request).await;
            assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
            assert!(told.ends_with(body), "{told}");
        }
        assert!(!ask(address, "nonsense\r\n\r\n").await.contains("200 OK"));
        stop.send_replace(true);
        running.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
