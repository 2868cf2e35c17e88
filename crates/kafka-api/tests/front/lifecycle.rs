//! How connections and listeners end.

use std::thread;

use klamm_kafka_api::{Drained, FrontConfig};
use klamm_protocol::messages::MetadataResponse;

use crate::harness::{Client, TestFront, config, eventually, produce, script};

#[test]
fn w54_a_client_that_leaves_within_a_request_leaves_nothing() {
    let test = TestFront::start(config());
    test.assert_serves();
    let request = produce(1, None, 100_000);
    for cut in [1, 3, 4, 5, 12, 30, 4_000, 99_000] {
        let mut client = test.connect();
        client.send(&request[..cut]);
        drop(client);
    }
    eventually("all are counted", || test.counts().closed_within_request == 8);
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn w54_a_client_that_leaves_within_an_answer_leaves_nothing() {
    let test = TestFront::start(config());
    test.assert_serves();
    for _ in 0..10 {
        let mut client = test.connect();
        client.send(&script("large:6000000", 1));
        let mut first = [0; 1000];
        std::io::Read::read_exact(&mut client.stream, &mut first).unwrap();
        drop(client);
    }
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn w54_a_client_that_closes_its_side_still_gets_its_answers() {
    let test = TestFront::start(config());
    test.assert_serves();
    let mut client = test.connect();
    client.send(&[script("park:a", 1), script("now", 2)].concat());
    client.end_of_input();
    eventually("both are taken", || test.stage.entered().len() == 2);
    test.stage.open("a");
    assert_eq!(client.scripted_answer(1), "park:a");
    assert_eq!(client.scripted_answer(2), "now");
    client.assert_closed();
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn w54_a_parked_request_of_a_client_that_is_gone_ends_with_the_drain_time() {
    let test = TestFront::start(FrontConfig { drain_timeout_ms: 100, ..config() });
    let mut client = test.connect();
    client.send(&script("park:never", 1));
    eventually("it is parked", || test.stage.entered().len() == 1);
    drop(client);
    test.assert_nothing_left();
    test.assert_serves();
}

#[test]
fn shutdown_answers_what_is_under_way_and_takes_no_more() {
    let mut test = TestFront::start(config());
    let (mut busy, mut idle) = (test.connect(), test.connect());
    busy.send(&script("park:a", 1));
    idle.send(&script("now", 1));
    idle.scripted_answer(1);
    eventually("one is parked", || test.stage.entered().len() == 2);
    let shutdown = test.shutdown_aside();
    idle.assert_closed();
    // What comes now is not taken any more.
    busy.try_send(&script("now", 2));
    assert!(!shutdown.is_finished());
    test.stage.open("a");
    assert_eq!(busy.scripted_answer(1), "park:a");
    busy.assert_closed();
    assert_eq!(shutdown.join().unwrap(), Drained::Fully);
    assert_eq!(test.stage.entered().len(), 2);
    assert!(std::net::TcpStream::connect(test.address).is_err(), "the socket is closed");
    test.assert_nothing_left();
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let mut test = TestFront::start(FrontConfig { drain_timeout_ms: 100, ..config() });
    let mut client = test.connect();
    client.send(&script("park:never", 1));
    eventually("it is parked", || test.stage.entered().len() == 1);
    assert_eq!(test.shutdown(), Drained::Fully);
    client.assert_closed();
    test.assert_nothing_left();
}

#[test]
fn clients_that_come_and_go_under_load_leave_nothing() {
    let test = TestFront::start(config());
    let address = test.address;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for round in 0..50 {
                    let mut client = Client::connect(address);
                    client.send(&[script("now", 1), produce(1, None, 50_000), script("now", 2)].concat());
                    if round % 3 > 0 {
                        client.scripted_answer(1);
                        assert!(client.frame().is_some());
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    test.assert_serves();
    test.assert_nothing_left();
    assert_eq!(test.counts().closed_panicked, 0);
}

#[test]
fn answers_on_their_way_survive_a_refusal_and_the_bytes_behind_it() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    let refused = i32::MAX.to_be_bytes();
    let junk = vec![0x55; 300_000];
    client.send(&[&script("large:600000", 1)[..], &refused, &junk].concat());
    // All of it is in the kernel's hands, and the client has read nothing.
    eventually("the answer is written", || test.counts().bytes_out > 600_000);
    assert_eq!(client.answer::<MetadataResponse>(12, 1).brokers.len(), 20);
    client.assert_closed();
    test.assert_serves();
    drop(client);
    test.assert_nothing_left();
}
