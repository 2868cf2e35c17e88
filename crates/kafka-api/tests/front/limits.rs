//! What clients may take: memory, connections, time.

use std::thread;
use std::time::Duration;

use klamm_kafka_api::FrontConfig;
use klamm_protocol::messages::MetadataResponse;

use crate::harness::{Client, TestFront, api_versions, config, eventually, produce, script};

#[test]
fn many_large_requests_share_the_memory_and_all_get_through() {
    let test = TestFront::start(config());
    let request = produce(1, None, 900 << 10);
    let (head, tail) = request.split_at(request.len() / 2);
    let mut clients: Vec<_> = (0..40).map(|_| test.connect()).collect();
    // Halves of 18 MiB in a budget of 12 MiB: without a way out nobody could finish.
    let senders: Vec<_> = clients
        .iter_mut()
        .map(|client| Client { stream: client.stream.try_clone().unwrap() })
        .map(|mut client| {
            let (head, tail) = (head.to_vec(), tail.to_vec());
            thread::spawn(move || {
                client.send(&head);
                client.send(&tail);
            })
        })
        .collect();
    for client in &mut clients {
        assert!(client.frame().is_some());
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let memory = test.front.memory();
    assert!(memory.used_peak <= memory.limit, "{memory:?}");
    assert!(test.counts().memory_waits > 0, "the budget was never spent");
    drop(clients);
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn halves_of_requests_spend_the_memory_and_are_finished_one_by_one() {
    let test = TestFront::start(config());
    let request = produce(1, None, 900 << 10);
    let half = request.len() / 2;
    let mut clients: Vec<_> = (0..30).map(|_| test.connect()).collect();
    for client in &mut clients {
        client.stream.set_nonblocking(true).unwrap();
    }
    // Each client sends its first half as far as the broker takes it, before any sends the second.
    let mut sent = vec![0; clients.len()];
    push_until(&mut clients, &request, &mut sent, half);
    push_until(&mut clients, &request, &mut sent, request.len());
    for client in &mut clients {
        client.stream.set_nonblocking(false).unwrap();
        assert!(client.frame().is_some());
    }
    let memory = test.front.memory();
    assert!(memory.used_peak <= memory.limit, "{memory:?}");
    drop(clients);
    test.assert_nothing_left();
}

#[test]
fn who_finishes_on_the_reserve_may_not_dawdle() {
    let test = TestFront::start(FrontConfig { request_read_timeout_ms: 300, ..config() });
    let request = produce(1, None, 900 << 10);
    let mut holder = test.connect();
    holder.send(&produce(1, Some("hold"), 500 << 10));
    eventually("half of the memory is held", || test.stage.entered().len() == 1);
    assert_eq!(test.counts().memory_waits, 0);
    // This one gets through the rest of the memory into the reserve, and stops there. It sends enough in each
    // window to be no slow client otherwise.
    let mut dawdler = test.connect();
    dawdler.send(&request[..400 << 10]);
    eventually("the reserve is taken", || test.counts().memory_waits > 0);
    let mut sent = 400 << 10;
    while sent < request.len() && dawdler.try_send(&request[sent..request.len().min(sent + (32 << 10))]) {
        sent += 32 << 10;
        thread::sleep(Duration::from_millis(70));
    }
    dawdler.assert_closed();
    eventually("it is cut off", || test.counts().closed_slow_request == 1);
    // The next in line has the reserve now.
    let mut next = test.connect();
    next.send(&produce(1, None, 900 << 10));
    assert!(next.frame().is_some());
    test.stage.open("hold");
    assert!(holder.frame().is_some());
    drop((holder, next));
    test.assert_nothing_left();
}

/// Sends to all clients in turn until each has sent `end` bytes of the request, or, before the last part, until none
/// of the sockets takes more.
fn push_until(clients: &mut [Client], request: &[u8], sent: &mut [usize], end: usize) {
    use std::io::Write;
    let is_last = end == request.len();
    let mut idle_rounds = 0;
    while sent.iter().any(|sent| *sent < end) && (is_last || idle_rounds < 200) {
        let mut moved = false;
        for (client, sent) in clients.iter_mut().zip(sent.iter_mut()) {
            if let Ok(count) = client.stream.write(&request[*sent..end.max(*sent)]) {
                *sent += count;
                moved |= count > 0;
            }
        }
        idle_rounds = if moved { 0 } else { idle_rounds + 1 };
        thread::yield_now();
    }
}

#[test]
fn a_connection_has_so_many_requests_in_flight_and_no_more() {
    let test = TestFront::start(FrontConfig { requests_in_flight_max: 3, ..config() });
    let mut client = test.connect();
    let requests: Vec<_> = (0..8).map(|id| script("park:a", id)).collect();
    client.send(&requests.concat());
    eventually("three are in flight", || test.stage.entered().len() == 3);
    test.assert_serves();
    assert_eq!(test.stage.entered().len(), 3);
    test.stage.open("a");
    for id in 0..8 {
        client.scripted_answer(id);
    }
}

#[test]
fn parked_requests_that_let_go_hold_no_memory() {
    let test = TestFront::start(config());
    let mut clients: Vec<_> = (0..100).map(|_| test.connect()).collect();
    for client in &mut clients {
        client.send(&script("park:a", 1));
    }
    eventually("all are parked", || test.stage.entered().len() == 100);
    eventually("their buffers are given back", || test.front.memory().used == 0);
    test.stage.open("a");
    for client in &mut clients {
        client.scripted_answer(1);
    }
}

#[test]
fn idle_connections_are_reaped_and_parked_ones_spared() {
    let test = TestFront::start(FrontConfig { connections_idle_max_ms: 150, ..config() });
    let (mut parked, mut idle, mut used) = (test.connect(), test.connect(), test.connect());
    parked.send(&script("park:a", 1));
    eventually("one is parked", || test.stage.entered().len() == 1);
    used.send(&script("now", 1));
    used.scripted_answer(1);
    idle.assert_closed();
    used.assert_closed();
    // Several idle times pass for the parked one: each of these connections lives for one.
    for _ in 0..3 {
        test.connect().assert_closed();
    }
    eventually("five were reaped", || test.counts().closed_idle == 5);
    test.stage.open("a");
    assert_eq!(parked.scripted_answer(1), "park:a");
    parked.assert_closed();
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn an_idle_time_without_end_reaps_nobody() {
    let never = i64::MAX.unsigned_abs();
    let test = TestFront::start(FrontConfig { connections_idle_max_ms: never, ..config() });
    let mut client = test.connect();
    for id in 0..3 {
        client.send(&script("now", id));
        client.scripted_answer(id);
    }
    test.assert_serves();
}

#[test]
fn slow_readers_are_cut_off_and_what_waits_for_them_is_bounded() {
    let test = TestFront::start(FrontConfig {
        response_write_timeout_ms: 300,
        responses_queued_bytes_max: 1 << 20,
        ..config()
    });
    let mut clients: Vec<_> = (0..10).map(|_| test.connect()).collect();
    let requests: Vec<_> = (0..60).map(|id| script("large:3000000", id)).collect();
    for client in &mut clients {
        client.send(&requests.concat());
    }
    eventually("all are cut off", || test.counts().closed_slow_reader == 10);
    // The kernel takes some megabytes; the handlers were not asked for much more than that.
    let entered = test.stage.entered().len();
    assert!(entered < 10 * 12, "{entered} answers of 3 MB were made for nobody");
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn a_reader_that_goes_on_reading_gets_answers_of_any_size() {
    let test = TestFront::start(FrontConfig { responses_queued_bytes_max: 1 << 20, ..config() });
    let mut client = test.connect();
    let requests: Vec<_> = (0..20).map(|id| script("large:6000000", id)).collect();
    client.send(&requests.concat());
    for id in 0..20 {
        assert_eq!(client.answer::<MetadataResponse>(12, id).brokers.len(), 200);
    }
}

#[test]
fn w53_no_more_connections_than_allowed_and_the_next_one_waits() {
    let test = TestFront::start(FrontConfig { connections_max: 5, ..config() });
    let mut clients: Vec<_> = (0..5).map(|_| test.connect()).collect();
    for client in &mut clients {
        client.send(&script("now", 1));
        client.scripted_answer(1);
    }
    // The kernel completes it; nobody serves it.
    let mut waiting = test.connect();
    waiting.send(&script("now", 9));
    clients[0].send(&script("now", 2));
    clients[0].scripted_answer(2);
    assert_eq!(test.counts().connections_opened, 5);
    drop(clients.pop());
    assert_eq!(waiting.scripted_answer(9), "now");
    drop((clients, waiting));
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn w53_connections_of_one_address_are_limited() {
    let test = TestFront::start(FrontConfig { connections_per_ip_max: 2, ..config() });
    let mut clients = [test.connect(), test.connect()];
    for client in &mut clients {
        client.send(&script("now", 1));
        client.scripted_answer(1);
    }
    for _ in 0..10 {
        test.connect().assert_closed();
    }
    assert_eq!(test.counts().connections_refused_per_ip, 10);
    let [first, _second] = clients;
    drop(first);
    eventually("a place is free again", || test.counts().connections_closed == 1);
    test.assert_serves();
}

#[test]
fn w53_a_thousand_idle_connections_and_as_many_short_ones() {
    // With a short backlog the kernel lets clients wait for seconds, which is not what is tested here.
    let test = TestFront::start(FrontConfig { listen_backlog: 4_096, ..config() });
    test.assert_serves();
    let mut idle: Vec<_> = (0..1_000).map(|_| test.connect()).collect();
    eventually("all are open", || test.counts().connections_opened == 1_001);
    for _ in 0..1_000 {
        drop(test.connect());
    }
    test.assert_serves();
    let last = idle.last_mut().unwrap();
    last.send(&api_versions(0, 1));
    assert!(last.frame().is_some());
    eventually("idle connections hold no memory", || test.front.memory().used == 0);
    drop(idle);
    test.assert_nothing_left();
}
