//! The tasks of a controller: none of them may be missing without the node knowing.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::status::ControllerStatus;

/// Spawns the parts of one controller. One that panics takes the controller with it: it would go on as a voter that does
/// a part of its work.
pub(crate) struct Parts {
    /// Where the failure is told.
    pub(crate) status: watch::Sender<ControllerStatus>,
}

impl Parts {
    /// Spawns `work`, which is `part` in the failure if it panics. To be called within a tokio runtime.
    pub(crate) fn spawn(
        &self,
        part: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let guard = FailsIfItPanics { part, status: self.status.clone() };
        tokio::spawn(async move {
            let _guard = guard;
            work.await;
        })
    }
}

struct FailsIfItPanics {
    part: &'static str,
    status: watch::Sender<ControllerStatus>,
}

impl Drop for FailsIfItPanics {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.status.send_modify(|status| {
                status.failure.get_or_insert_with(|| format!("{} has panicked", self.part));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_a_failure_and_one_that_is_stopped_is_none() {
        let (status, mut seen) = watch::channel(ControllerStatus::NEW);
        let parts = Parts { status };
        let stopped = parts.spawn("one that is stopped", std::future::pending());
        stopped.abort();
        assert!(stopped.await.unwrap_err().is_cancelled());
        assert_eq!(seen.borrow_and_update().failure, None);
        let panicking = parts.spawn("one that panics", async { panic!("as a bug would") });
        assert!(panicking.await.unwrap_err().is_panic());
        assert_eq!(seen.borrow_and_update().failure.as_deref(), Some("one that panics has panicked"));
    }
}
