//! A listener in a process that has run out of file descriptors. Alone in its process: nothing else could open a file
//! meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test waits for the real clock, with a deadline")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use klamm_kafka_api::{ApiTable, FeatureSource, Features, Front, FrontConfig, Listener};

/// What every client may ask: ApiVersions in version 0, from a client without a name.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

struct NoFeatures;

impl FeatureSource for NoFeatures {
    fn features(&self) -> Features {
        Features { supported: Vec::new(), finalized: Vec::new(), finalized_epoch: -1 }
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "never came true: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn ask(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&API_VERSIONS).unwrap();
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut answer).unwrap();
    answer.starts_with(&[0, 0, 0, 1, 0, 0])
}

#[test]
fn w53_the_accept_loop_backs_off_when_descriptors_run_out_and_recovers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let table = ApiTable::builder().build(Arc::new(NoFeatures)).unwrap();
    let front = Front::new(FrontConfig::default(), table).unwrap();
    let listener = {
        let _entered = runtime.enter();
        Listener::bind(front.clone(), "127.0.0.1:0".parse().unwrap()).unwrap()
    };
    let address = listener.address();
    let running = listener.start(runtime.handle());

    let mut served = TcpStream::connect(address).unwrap();
    assert!(ask(&mut served));
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    // One descriptor for the client; there is none for the other end.
    drop(hoard.pop());
    let mut waiting = TcpStream::connect(address).unwrap();
    eventually("the listener backs off", || front.counts().accept_backoffs >= 3);
    assert!(ask(&mut served), "connections that are there are served meanwhile");
    assert_eq!(front.counts().connections_opened, 1);
    // It waits longer and longer instead of spinning: 10, 20, 40, 80, 160, 320 ms and so on.
    let (start, before) = (Instant::now(), front.counts().accept_backoffs);
    eventually("it tries again", || front.counts().accept_backoffs > before + 1);
    assert!(start.elapsed() > Duration::from_millis(40), "{:?}", start.elapsed());

    drop(hoard);
    assert!(ask(&mut waiting), "the client that waited is served");
    drop((served, waiting));
    runtime.block_on(running.shutdown());
}
