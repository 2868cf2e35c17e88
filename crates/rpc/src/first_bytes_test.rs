use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Both ends of a connection: the caller's and the listener's.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    caller.set_nodelay(true).unwrap();
    (caller, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn the_preface_is_http2_and_stays_in_the_socket() {
    let (mut caller, mut accepted) = connection().await;
    caller.write_all(PREFACE).await.unwrap();
    caller.write_all(b"more").await.unwrap();
    assert_eq!(first_bytes(&accepted, PATIENCE).await.unwrap(), Protocol::Http2);
    let mut read = [0; 28];
    accepted.read_exact(&mut read).await.unwrap();
    assert_eq!(&read[..24], PREFACE);
}

#[tokio::test]
async fn a_length_is_kafka_by_its_first_byte() {
    let (mut caller, accepted) = connection().await;
    caller.write_all(&[0]).await.unwrap();
    assert_eq!(first_bytes(&accepted, PATIENCE).await.unwrap(), Protocol::Kafka);
}

#[tokio::test]
async fn bytes_that_come_one_by_one_are_waited_for() {
    let (mut caller, accepted) = connection().await;
    let decided = tokio::spawn(async move { first_bytes(&accepted, PATIENCE).await });
    for byte in PREFACE {
        assert!(!decided.is_finished());
        caller.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(decided.await.unwrap().unwrap(), Protocol::Http2);
}

#[tokio::test]
async fn what_leaves_the_preface_late_is_kafka() {
    let (mut caller, accepted) = connection().await;
    caller.write_all(b"PRI ").await.unwrap();
    let decided = tokio::spawn(async move { first_bytes(&accepted, PATIENCE).await });
    tokio::task::yield_now().await;
    caller.write_all(b"!").await.unwrap();
    assert_eq!(decided.await.unwrap().unwrap(), Protocol::Kafka);
}

#[tokio::test]
async fn a_caller_that_says_nothing_or_too_little_is_given_up() {
    let (mut caller, accepted) = connection().await;
    let timeout = Duration::from_millis(30);
    let silent = first_bytes(&accepted, timeout).await.unwrap_err();
    assert!(matches!(silent, FirstBytesError::Silent { .. }), "{silent}");
    caller.write_all(b"PRI * HTTP/2").await.unwrap();
    let silent = first_bytes(&accepted, timeout).await.unwrap_err();
    assert!(matches!(silent, FirstBytesError::Silent { .. }), "{silent}");
}

#[tokio::test]
async fn a_caller_that_leaves_early_is_noticed() {
    for said in [&b""[..], b"PRI"] {
        let (mut caller, accepted) = connection().await;
        caller.write_all(said).await.unwrap();
        drop(caller);
        let closed = first_bytes(&accepted, PATIENCE).await.unwrap_err();
        assert!(matches!(closed, FirstBytesError::Closed), "{said:?}: {closed}");
    }
}

#[tokio::test]
async fn strangers_are_known_by_how_they_begin() {
    for (said, protocol) in [
        (&b"GET / HTTP/1.1\r\n"[..], "HTTP/1"),
        (&[0x16, 0x03, 0x01, 0x02, 0x00], "TLS"),
        (&[0, 0, 0, 20, 0, 18, 0, 4], "Kafka's protocol"),
        (&[0xa5; 8], "no known protocol"),
    ] {
        let (mut caller, accepted) = connection().await;
        caller.write_all(said).await.unwrap();
        assert_eq!(first_bytes(&accepted, PATIENCE).await.unwrap(), Protocol::Kafka);
        assert!(likely_protocol(&accepted).starts_with(protocol), "{said:?}");
    }
}
