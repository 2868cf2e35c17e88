//! A listener that shares its socket with another protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use klamm_kafka_api::{BoxFuture, ConnectionSorter, Drained, FrontConfig};
use tokio::net::TcpStream;

use crate::harness::{TestFront, config, eventually};

/// What the other protocol of these tests begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Keeps what begins as the other protocol does.
#[derive(Default)]
struct FirstByte {
    kept: Arc<AtomicUsize>,
}

impl ConnectionSorter for FirstByte {
    fn sort(&self, socket: TcpStream) -> BoxFuture<Option<TcpStream>> {
        let kept = self.kept.clone();
        Box::pin(async move {
            let mut first = [0; 1];
            let is_kafka = socket.peek(&mut first).await.is_ok_and(|_| first != [b'P']);
            if !is_kafka {
                kept.fetch_add(1, Ordering::Relaxed);
            }
            is_kafka.then_some(socket)
        })
    }
}

fn shared(config: FrontConfig) -> (TestFront, Arc<AtomicUsize>) {
    let sorter = FirstByte::default();
    let kept = sorter.kept.clone();
    let test = TestFront::start_as(config, |listener| listener.named("INTERNAL").shared(Arc::new(sorter)));
    (test, kept)
}

#[test]
fn each_protocol_finds_its_server() {
    let (mut test, kept) = shared(config());
    test.assert_serves();
    let mut other = test.connect();
    other.send(PREFACE);
    eventually("the other protocol is kept", || kept.load(Ordering::Relaxed) == 1);
    test.assert_serves();
    assert_eq!(test.counts().connections_opened, 2);
    test.assert_nothing_left();
    assert_eq!(test.shutdown(), Drained::Fully);
}

#[test]
fn other_nodes_are_served_when_clients_are_too_many() {
    let (test, kept) = shared(FrontConfig { connections_max: 1, ..config() });
    let mut client = test.connect();
    client.send(&crate::harness::api_versions(4, 1));
    eventually("the client is served", || test.counts().responses_sent == 1);
    // One more client is too many, and is closed at once.
    let mut second = test.connect();
    second.send(&crate::harness::api_versions(4, 1));
    second.assert_closed();
    assert_eq!(test.counts().connections_refused_full, 1);
    let mut other = test.connect();
    other.send(PREFACE);
    eventually("the other protocol is kept", || kept.load(Ordering::Relaxed) == 1);
    drop(client);
    eventually("the client is gone", || test.counts().connections_closed == 1);
    test.assert_serves();
}

#[test]
fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let (mut test, _) = shared(config());
    let silent = test.connect();
    test.assert_serves();
    let ending = test.shutdown_aside();
    assert_eq!(ending.join().unwrap(), Drained::Fully);
    drop(silent);
    assert_eq!(test.front.memory().used, 0);
}
