//! A stream of changes, and what became of each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use klamm_client::{Admin, NewTopic};
use klamm_protocol::Uuid;
use klamm_tests::cluster::Cluster;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How many finished changes may wait to be looked at.
const FINISHED_MAX: usize = 1 << 16;
/// How many topics each stream lets live: the cluster stays as large as it is, however long the stream is.
const LIVING_MAX: usize = 50;

/// A topic that someone tried to create or to delete, once.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) submitted: Instant,
    pub(crate) finished: Instant,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Accepted(Uuid),
    /// It was deleted.
    Deleted,
    /// It says why; nothing was done.
    Refused(String),
    /// It may have been done.
    Unknown(String),
    /// It may have been deleted.
    PerhapsDeleted(String),
}

/// Some who make changes at once, each one change after the other, each under a name of its own.
pub(crate) struct Changes {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    finished: mpsc::Receiver<Change>,
    seen: Vec<Change>,
}

impl Changes {
    pub(crate) fn start(cluster: &Cluster, streams: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, finished) = mpsc::channel(FINISHED_MAX);
        let number = Arc::new(AtomicU64::new(0));
        let tasks = (0..streams).map(|_| {
            let stream = Stream {
                admin: cluster.admin(),
                number: Arc::clone(&number),
                stop: Arc::clone(&stop),
                finished: sender.clone(),
            };
            tokio::spawn(stream.run())
        });
        let tasks = tasks.collect();
        Self { stop, tasks, finished, seen: Vec::new() }
    }

    /// Waits for the first change that was submitted after `moment` and accepted.
    pub(crate) async fn first_accepted_after(&mut self, moment: Instant) -> Instant {
        loop {
            let change = self.finished.recv().await.unwrap();
            let found = (change.submitted > moment
                && matches!(change.outcome, Outcome::Accepted(_) | Outcome::Deleted))
            .then_some(change.finished);
            self.seen.push(change);
            if let Some(finished) = found {
                return finished;
            }
        }
    }

    /// Lets everybody finish, and gives all changes.
    pub(crate) async fn stop(mut self) -> Vec<Change> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(change) = self.finished.recv().await {
            self.seen.push(change);
        }
        for task in self.tasks {
            task.await.unwrap();
        }
        self.seen
    }
}

struct Stream {
    admin: Admin,
    number: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    finished: mpsc::Sender<Change>,
}

impl Stream {
    async fn run(self) {
        let mut living = VecDeque::new();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let partitions = 1 + (number % 3) as i32;
            let name = format!("change-{number}");
            let topic = NewTopic {
                partitions: Some(partitions),
                replication_factor: Some(3),
                ..NewTopic::named(&name)
            };
            let submitted = Instant::now();
            let outcome = self.create(topic).await;
            if matches!(outcome, Outcome::Accepted(_)) {
                living.push_back((name.clone(), partitions));
            }
            let change = Change { name, partitions, submitted, finished: Instant::now(), outcome };
            if self.finished.send(change).await.is_err() {
                return;
            }
            if living.len() <= LIVING_MAX {
                continue;
            }
            let Some((name, partitions)) = living.pop_front() else { continue };
            let submitted = Instant::now();
            let outcome = self.delete(&name).await;
            let change = Change { name, partitions, submitted, finished: Instant::now(), outcome };
            if self.finished.send(change).await.is_err() {
                return;
            }
        }
    }

    async fn create(&self, topic: NewTopic) -> Outcome {
        match self.admin.create_topics(&[topic], false).await {
            Ok(results) => match results.into_iter().next() {
                Some((_, Ok(created))) => Outcome::Accepted(created.topic_id),
                // It may be that the broker asked twice on our behalf, so that this was done before.
                Some((_, Err(error))) if error.is_retryable() => Outcome::Unknown(error.to_string()),
                Some((_, Err(error))) if error.code == klamm_protocol::ErrorCode::TopicAlreadyExists => {
                    Outcome::Unknown(error.to_string())
                }
                Some((_, Err(error))) => Outcome::Refused(error.to_string()),
                None => Outcome::Unknown("an empty answer".to_owned()),
            },
            Err(error) => Outcome::Unknown(error.to_string()),
        }
    }

    async fn delete(&self, name: &str) -> Outcome {
        match self.admin.delete_topics(&[name.to_owned()]).await {
            Ok(results) => match results.into_iter().next() {
                Some((_, Ok(_))) => Outcome::Deleted,
                Some((_, Err(error))) => Outcome::PerhapsDeleted(error.to_string()),
                None => Outcome::PerhapsDeleted("an empty answer".to_owned()),
            },
            Err(error) => Outcome::PerhapsDeleted(error.to_string()),
        }
    }
}
