use std::sync::Mutex;

use futures_util::future::BoxFuture;
use klamm_metadata::{MetadataDelta, MetadataImage, MetadataProvenance, MetadataRecord};
use klamm_types::{TopicId, TopicName};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::controller_client::fake::{Call, FakeController, PATIENCE, Script, client_of};

fn topic(number: u8) -> MetadataRecord {
    let name = TopicName::new(&format!("topic-{number}")).unwrap();
    MetadataRecord::TopicCreated { id: TopicId([number; 16]), name }
}

/// Who heard of which offset, with what the cache had and said to be applied by then.
type Heard = Arc<Mutex<Vec<(&'static str, i64, i64, i64)>>>;

/// Notes what it hears, and what the cache had and said to be applied by then.
#[derive(Debug)]
struct Listener {
    name: &'static str,
    cache: Arc<MetadataCache>,
    heard: Heard,
}

impl MetadataPublisher for Listener {
    fn publish<'a>(
        &'a mut self,
        _: &'a Arc<MetadataDelta>,
        image: &'a Arc<MetadataImage>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async {
            tokio::task::yield_now().await;
            let cached = self.cache.image().provenance.last_offset.0;
            let applied = self.cache.applied_offset().0;
            self.heard.lock().unwrap().push((self.name, image.provenance.last_offset.0, cached, applied));
        })
    }
}

struct Running {
    cache: Arc<MetadataCache>,
    heard: Heard,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), LoaderFault>>,
}

fn follow(nodes: &[&FakeController]) -> Running {
    let cache = Arc::new(MetadataCache::new());
    let heard = Heard::default();
    let listener = |name| Listener { name, cache: Arc::clone(&cache), heard: Arc::clone(&heard) };
    let loader = MetadataLoader::new(client_of(nodes), Arc::clone(&cache))
        .with_publisher(listener("first"))
        .with_publisher(listener("second"));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(loader.run(async {
        let _ = stopped.await;
    }));
    Running { cache, heard, stop, task }
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

#[tokio::test]
async fn steps_reach_the_cache_and_then_everybody_in_order() {
    let controller = FakeController::start(Script::default()).await;
    controller.tell(|script| script.commit(&[topic(1)]));
    let running = follow(&[&controller]);
    running.cache.wait_for(Offset(0), soon()).await.unwrap();
    controller.tell(|script| script.commit(&[topic(2)]));
    running.cache.wait_for(Offset(1), soon()).await.unwrap();
    let heard = running.heard.lock().unwrap().clone();
    let expected = [("first", 0, 0, -1), ("second", 0, 0, -1), ("first", 1, 1, 0), ("second", 1, 1, 0)];
    assert_eq!(heard, expected);
    let image = running.cache.wait_until(|image| image.topics.topics().count() == 2, soon()).await.unwrap();
    assert_eq!(image.provenance.last_offset, Offset(1));
    let late = running.cache.wait_for(Offset(2), Deadline::after(Duration::from_millis(10))).await;
    assert_eq!(late, Err(crate::metadata::NotApplied { applied: Offset(1), wanted: Offset(2) }));
    running.stop.send(()).unwrap();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn after_a_death_another_is_followed_from_where_the_first_had_led() {
    let first = FakeController::start(Script::default()).await;
    let second = FakeController::start(Script::default()).await;
    for controller in [&first, &second] {
        controller.tell(|script| {
            script.commit(&[topic(1)]);
            script.commit(&[topic(2)]);
        });
    }
    let running = follow(&[&first, &second]);
    running.cache.wait_for(Offset(1), soon()).await.unwrap();
    second.tell(|script| script.commit(&[topic(3)]));
    first.kill().await;
    running.cache.wait_for(Offset(2), soon()).await.unwrap();
    let calls = second.script().calls;
    let Some(Call::Follow(request)) = calls.first() else { panic!("{calls:?}") };
    assert_eq!((request.from_offset, request.previous_epoch), (2, 1));
    assert_eq!(running.heard.lock().unwrap().last(), Some(&("second", 2, 2, 1)));
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn controllers_that_are_followed_in_turn_are_not_told_each_time() {
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
    let _collecting = tracing::subscriber::set_default(subscriber);
    let ending = || Script { feed_ends: true, ..Script::default() };
    let (first, second) = (FakeController::start(ending()).await, FakeController::start(ending()).await);
    let started = tokio::time::Instant::now();
    let running = follow(&[&first, &second]);
    for controller in [&first, &second] {
        controller.wait_for(|script| script.calls.len() >= 20).await;
    }
    let told = || {
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains("following the metadata")).count()
    };
    let most = 1 + started.elapsed().as_millis() / TOLD_INTERVAL.as_millis();
    assert!((1..=most).contains(&(told() as u128)), "{} lines, at most {most} are allowed", told());
    // Who then goes on to be followed is told when the time comes.
    second.tell(|script| script.feed_ends = false);
    first.kill().await;
    second.tell(|script| script.commit(&[topic(1)]));
    running.cache.wait_for(Offset(0), soon()).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_is_loaded_as_a_whole() {
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    (1..=200).for_each(|number| delta.replay(&topic(number)).unwrap());
    let image = delta.apply(MetadataProvenance { last_offset: Offset(500), last_epoch: 4 });
    let controller =
        FakeController::start(Script { snapshot: Some(image.clone()), ..Script::default() }).await;
    let running = follow(&[&controller]);
    running.cache.wait_for(Offset(500), soon()).await.unwrap();
    assert_eq!(*running.cache.image(), image);
    assert_eq!(running.heard.lock().unwrap().len(), 2);
    controller.tell(|script| script.commit(&[topic(201)]));
    running.cache.wait_for(Offset(501), soon()).await.unwrap();
}

#[tokio::test]
async fn metadata_that_is_not_understood_stops_the_loader_and_is_not_applied() {
    let controller = FakeController::start(Script::default()).await;
    controller.tell(|script| {
        script.commit(&[topic(1)]);
        script.commit(&[topic(2)]);
        let envelope = &mut script.entries[1].batch.as_mut().unwrap().records[0];
        envelope.version = 77;
    });
    let running = follow(&[&controller]);
    let fault = tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap_err();
    assert!(fault.source.is_fatal(), "{fault}");
    assert_eq!(running.cache.applied_offset(), fault.applied);
    assert!(running.cache.image().topics.topics().count() <= 1);
}
