//! What requests take of the machine's memory, not of our own count of it. Alone in its process: nothing else could
//! take memory meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use klamm_kafka_api::{
    Access, Answer, ApiTable, FeatureSource, Features, Front, FrontConfig, Handler, Listener, Operation,
    RequestContext, Ticket,
};
use klamm_protocol::VersionRange;
use klamm_protocol::messages::{ProduceRequest, ProduceResponse};

const CLIENTS: usize = 60;
const PAYLOAD_LEN: usize = 7 << 20;

struct NoFeatures;

impl FeatureSource for NoFeatures {
    fn features(&self) -> Features {
        Features { supported: Vec::new(), finalized: Vec::new(), finalized_epoch: -1 }
    }
}

/// Holds each request for a moment, as a disk would.
struct Disk;

impl Handler for Disk {
    type Request = ProduceRequest;

    const VERSIONS: VersionRange = ProduceRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Write);
    const KEEPS_FRAME: bool = true;

    fn handle(&self, _: RequestContext, request: ProduceRequest) -> Ticket<ProduceResponse> {
        Ticket::later(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(request);
            Answer::Response(ProduceResponse::default())
        })
    }
}

/// A line of the kernel's report on this process, in bytes.
fn process_memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    let kib: u64 = value.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib << 10
}

/// A Produce request of version 3 with one partition, up to its records.
fn produce_head() -> Vec<u8> {
    let mut body = vec![0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 9];
    body.extend_from_slice(&[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend_from_slice(&i32::try_from(PAYLOAD_LEN).unwrap().to_be_bytes());
    let len = i32::try_from(body.len() + PAYLOAD_LEN).unwrap();
    [len.to_be_bytes().to_vec(), body].concat()
}

/// Sends a large request in small parts, so that this side takes next to nothing, and reads the answer.
fn produce_once(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&produce_head()).unwrap();
    let part = [7; 16 << 10];
    for _ in 0..PAYLOAD_LEN / part.len() {
        stream.write_all(&part).unwrap();
    }
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..8], [0, 0, 0, 1]);
}

#[test]
fn the_process_stays_within_the_budget_for_requests() {
    let config = FrontConfig { request_bytes_max: 8 << 20, ..FrontConfig::default() };
    let config = FrontConfig { queued_request_bytes_max: config.queued_request_bytes_min(), ..config };
    let budget = config.queued_request_bytes_max;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let table = ApiTable::builder().handler(Disk).build(Arc::new(NoFeatures)).unwrap();
    let front = Front::new(config, table).unwrap();
    let listener = {
        let _entered = runtime.enter();
        Listener::bind(front.clone(), "127.0.0.1:0".parse().unwrap()).unwrap()
    };
    let address = listener.address();
    let running = listener.start(runtime.handle());

    produce_once(address);
    let before = process_memory("VmRSS:");
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(move || produce_once(address))).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let peak = process_memory("VmHWM:");

    let offered = (CLIENTS * PAYLOAD_LEN) as u64;
    assert!(offered > 4 * budget, "the budget is put to the test");
    assert!(front.counts().memory_waits > 0);
    assert!(peak - before <= budget + budget / 10, "{} bytes above {before}, of {budget}", peak - before);
    println!("resident {} bytes at most for a budget of {budget}; {:?}", peak - before, front.memory());
    runtime.block_on(running.shutdown());
}
