//! The least that a leader of three replicas does: what comes once is written once and sent twice.
//!
//! One thread, which waits for the client and both followers at once. What it passes on leaves in one write for each
//! follower, however many batches it is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use anyhow::ensure;
use rustix::event::{PollFd, PollFlags, poll};

use super::{BareLog, Inbox};

/// How many acknowledgements one read takes.
const ANSWERS_MAX: usize = 4096;

/// A sink that has passed on what it took.
struct Follower {
    socket: TcpStream,
    acknowledged: u64,
}

impl Follower {
    /// Reads once.
    fn take_answers(&mut self) -> anyhow::Result<()> {
        let arrived = self.socket.read(&mut [0; ANSWERS_MAX])?;
        ensure!(arrived > 0, "a follower closed the connection");
        self.acknowledged += arrived as u64;
        Ok(())
    }
}

/// Serves one client until it closes.
pub(super) fn relay(mut client: TcpStream, followers: [TcpStream; 2], path: &PathBuf) -> anyhow::Result<()> {
    let mut log = BareLog::create(path)?;
    let mut inbox = Inbox::new();
    let mut followers = followers.map(|socket| Follower { socket, acknowledged: 0 });
    let mut answered = 0;
    loop {
        let (is_client_ready, are_followers_ready) = wait(&client, &followers)?;
        for (follower, is_ready) in followers.iter_mut().zip(are_followers_ready) {
            if is_ready {
                follower.take_answers()?;
            }
        }
        let acknowledged = followers.iter().map(|follower| follower.acknowledged).min().unwrap_or_default();
        if acknowledged > answered {
            client.write_all(&vec![1; usize::try_from(acknowledged - answered)?])?;
            answered = acknowledged;
        }
        if is_client_ready {
            if !inbox.fill(&mut client)? {
                return Ok(());
            }
            let whole = inbox.whole();
            // The followers begin while this file is written.
            for follower in &mut followers {
                follower.socket.write_all(whole)?;
            }
            log.append(whole)?;
            let len = whole.len();
            inbox.drop_front(len);
        }
    }
}

/// Waits until something can be read; tells of the client, and of each follower, whether it is from there.
fn wait(client: &TcpStream, followers: &[Follower; 2]) -> anyhow::Result<(bool, [bool; 2])> {
    let [first, second] = followers;
    let mut sockets =
        [client, &first.socket, &second.socket].map(|socket| PollFd::new(socket, PollFlags::IN));
    poll(&mut sockets, None)?;
    let [client, first, second] = sockets.map(|socket| !socket.revents().is_empty());
    Ok((client, [first, second]))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::super::{batch, connect, send, sink};
    use super::*;

    fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[test]
    fn what_is_acknowledged_is_in_three_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (mut sinks, mut followers) = (Vec::new(), Vec::new());
        for name in ["first", "second"] {
            let ((listener, port), path) = (listener(), path(name));
            sinks.push(thread::spawn(move || sink(listener.accept().unwrap().0, &path)));
            followers.push(connect(port).unwrap());
        }
        let (listener, port) = listener();
        let followers = followers.try_into().unwrap();
        let leader_path = path("leader");
        let leader = thread::spawn(move || relay(listener.accept().unwrap().0, followers, &leader_path));
        let sent = send(port, &batch(100, 1000).unwrap(), 5, 1000).unwrap();
        leader.join().unwrap().unwrap();
        for sink in sinks {
            sink.join().unwrap().unwrap();
        }
        let stored = |name: &str| std::fs::read(path(name)).unwrap();
        assert_eq!(stored("leader").len() as u64, sent.bytes);
        assert!(stored("first") == stored("leader") && stored("second") == stored("leader"));
    }

    #[test]
    fn without_a_follower_nothing_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let silent = [listener(), listener()];
        let followers = [connect(silent[0].1).unwrap(), connect(silent[1].1).unwrap()];
        let (listener, port) = listener();
        let path = dir.path().join("leader");
        let leader = thread::spawn(move || relay(listener.accept().unwrap().0, followers, &path));
        let client = thread::spawn(move || send(port, &batch(100, 1000).unwrap(), 1, 10));
        // Both take what comes; only one answers, then the other one goes.
        let [mut first, second] = silent.map(|(listener, _)| listener.accept().unwrap().0);
        first.read_exact(&mut [0; 100]).unwrap();
        first.write_all(&[1]).unwrap();
        drop(second);
        assert!(leader.join().unwrap().is_err());
        assert!(client.join().unwrap().is_err());
    }
}
