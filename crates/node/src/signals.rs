//! What tells a node to stop.

use std::process;

use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a process that a second signal ended.
pub const EXIT_FORCED: i32 = 130;

/// Why the node stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// SIGINT: somebody pressed Ctrl-C.
    Interrupt,
    /// SIGTERM: an operator or a supervisor.
    Terminate,
    /// Standard input ended: the process that started this one is gone.
    ParentGone,
}

impl StopReason {
    /// As it stands in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::ParentGone => "end of standard input",
        }
    }
}

/// Waits for the first reason to stop; a signal after that ends the process at once.
///
/// # Errors
/// If the system does not let signals be caught.
pub async fn stop_reason(follow_stdin: bool) -> std::io::Result<StopReason> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let reason = tokio::select! {
        _ = interrupt.recv() => StopReason::Interrupt,
        _ = terminate.recv() => StopReason::Terminate,
        () = end_of_stdin(follow_stdin) => StopReason::ParentGone,
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("a second signal: exiting at once, the next start recovers as after a crash");
        process::exit(EXIT_FORCED);
    });
    Ok(reason)
}

/// Every wish that the process stops, as it comes: for a program that waits in its own way. Called once.
///
/// # Errors
/// If the system does not let signals be caught, or gives no thread.
pub fn stop_requests() -> std::io::Result<std::sync::mpsc::Receiver<StopReason>> {
    let (sender, requests) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _within = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let forward = async move {
        loop {
            let reason = tokio::select! {
                _ = interrupt.recv() => StopReason::Interrupt,
                _ = terminate.recv() => StopReason::Terminate,
            };
            if sender.send(reason).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(forward))?;
    Ok(requests)
}

/// Completes when nobody can write to standard input any more.
async fn end_of_stdin(follow: bool) {
    if !follow {
        return std::future::pending().await;
    }
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: a read of standard input cannot be given up, and must not keep a runtime from ending.
    let reading = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let read = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        if let Err(error) = read {
            tracing::debug!(%error, "standard input cannot be read");
        }
        // An error means that the node stops already.
        let _ = ended.send(());
    });
    match reading {
        Ok(_) => drop(end.await),
        Err(error) => {
            tracing::warn!(%error, "standard input is not watched");
            std::future::pending::<()>().await;
        }
    }
}
