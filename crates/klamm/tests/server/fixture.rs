//! Nodes as processes, and ways to ask them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take on a starved machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

pub(crate) fn klamm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
    command.stdin(Stdio::null());
    command
}

pub(crate) fn server(settings: &[(&str, &str)]) -> Command {
    with_settings(klamm(), settings)
}

/// `command`, which ends with the program, as a server with these settings.
pub(crate) fn with_settings(mut command: Command, settings: &[(&str, &str)]) -> Command {
    command.arg("server").arg("--ignore-environment");
    for (name, value) in settings {
        command.arg("--override").arg(format!("{name}={value}"));
    }
    command
}

/// Ports on loopback that nobody listens on, and that no other test of this process was given. They lie below the range
/// from which the system takes the ports of outgoing connections, which might otherwise be in the way.
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 8_000;
    let offset = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    [(); N].map(|()| {
        let mut candidates = std::iter::repeat_with(|| {
            FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT
        });
        candidates.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
    })
}

/// A node that is broker and controller, alone.
pub(crate) struct Alone {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
    pub(crate) client_port: u16,
    pub(crate) controller_port: u16,
    pub(crate) admin_port: u16,
}

impl Alone {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_by(klamm(), dir, &[])
    }

    /// Starts it by `command`, with `more` settings.
    pub(crate) fn start_by(command: Command, dir: &Path, more: &[(&str, &str)]) -> Self {
        let [client_port, controller_port, admin_port] = ports();
        let listeners =
            format!("PLAINTEXT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_port}");
        let (voters, admin) = (format!("1@127.0.0.1:{controller_port}"), format!("127.0.0.1:{admin_port}"));
        let mut settings = vec![
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("listeners", &listeners),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.voters", &voters),
            ("log.dirs", dir.to_str().unwrap()),
            ("klamm.admin.listener", &admin),
        ];
        settings.extend(more);
        let mut command = with_settings(command, &settings);
        let log = dir.with_extension("log");
        let stderr = File::create(&log).unwrap();
        let child = command.arg("--stop-with-stdin").stdin(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut node = Self { child, log, client_port, controller_port, admin_port };
        node.wait_until_ready();
        node
    }

    pub(crate) fn wait_until_ready(&mut self) {
        let started = Instant::now();
        while !get(self.admin_port, "/readyz").starts_with("HTTP/1.1 200") {
            assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.logged());
            assert!(started.elapsed() < PATIENCE, "{}", self.logged());
            std::thread::sleep(TICK);
        }
    }

    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Has it stop in order, and returns its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // An error says that it has ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer of an admin listener; empty if there is none.
pub(crate) fn get(port: u16, path: &str) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut answer = String::new();
    let asked = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    if asked.is_ok() { answer } else { String::new() }
}

pub(crate) fn topic(bootstrap: &str, args: &[&str]) -> Output {
    klamm().arg("topic").args(args).arg("--bootstrap-server").arg(bootstrap).output().unwrap()
}

/// A process that does not outlive the test.
pub(crate) struct Reaped(pub(crate) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(TICK);
    }
}
