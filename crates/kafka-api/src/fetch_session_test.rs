use bytes::Bytes;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// No partition was answered.
const NONE: [i32; 0] = [];

fn sessions(sessions_max: usize) -> FetchSessions {
    FetchSessions::new(SessionLimits { sessions_max, bytes_max: 100_000, protected_for: 2 * MINUTE })
}

fn key(topic: &str, partition: i32) -> PartitionKey {
    PartitionKey { topic: TopicKey::Name(topic.into()), partition }
}

fn wish(fetch_offset: i64) -> FetchWish {
    FetchWish { current_leader_epoch: -1, fetch_offset, last_fetched_epoch: -1, bytes_max: 1000 }
}

fn data(partition_index: i32, high_watermark: i64, records: &'static [u8]) -> PartitionData {
    PartitionData {
        partition_index,
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: 0,
        records: Some(Bytes::from_static(records).into()),
        ..PartitionData::default()
    }
}

fn request(id: i32, epoch: i32) -> SessionRequest {
    SessionRequest { id, epoch, by_id: false }
}

/// Opens a session on partitions `0..count` of `topic`; each was told the high watermark 10.
fn open(sessions: &FetchSessions, topic: &str, count: i32, now: Instant) -> i32 {
    let wishes: Vec<_> = (0..count).map(|i| (key(topic, i), wish(0))).collect();
    let plan = sessions.begin(request(0, 0), wishes, &[], now).unwrap();
    let fetched = (0..count).map(|i| (key(topic, i), data(i, 10, b""))).collect();
    let (id, answer) = sessions.finish(&plan.context, &plan.wishes, fetched, now).unwrap();
    assert_eq!(answer.len(), usize::try_from(count).unwrap(), "a full request is answered in full");
    id
}

/// One step of a session in which every partition gives `answers`; tells which of them were sent.
fn step(sessions: &FetchSessions, id: i32, epoch: i32, answers: Vec<Fetched>) -> Vec<i32> {
    let now = Instant::now();
    let plan = sessions.begin(request(id, epoch), Vec::new(), &[], now).unwrap();
    let (same, answer) = sessions.finish(&plan.context, &plan.wishes, answers, now).unwrap();
    assert_eq!(same, id);
    answer.iter().map(|(key, _)| key.partition).collect()
}

#[test]
fn a_client_is_told_only_what_changed() {
    let sessions = sessions(10);
    let id = open(&sessions, "t", 3, Instant::now());
    assert!(id > 0);
    let answers = |second: PartitionData| {
        vec![(key("t", 0), data(0, 10, b"")), (key("t", 1), second), (key("t", 2), data(2, 10, b""))]
    };
    assert_eq!(step(&sessions, id, 1, answers(data(1, 10, b""))), NONE);
    assert_eq!(step(&sessions, id, 2, answers(data(1, 11, b""))), [1]);
    assert_eq!(step(&sessions, id, 3, answers(data(1, 11, b"records"))), [1]);
    let moved = PartitionData { log_start_offset: 5, ..data(1, 11, b"") };
    assert_eq!(step(&sessions, id, 4, answers(moved.clone())), [1]);
    let fault = PartitionData { error_code: 6, high_watermark: -1, log_start_offset: -1, ..moved.clone() };
    assert_eq!(step(&sessions, id, 5, answers(fault.clone())), [1]);
    assert_eq!(step(&sessions, id, 6, answers(fault)), [1], "an error is told each time");
    assert_eq!(step(&sessions, id, 7, answers(moved.clone())), [1], "and so is its end");
    assert_eq!(step(&sessions, id, 8, answers(moved)), NONE);
}

#[test]
fn who_was_given_records_is_served_last_the_next_time() {
    let sessions = sessions(10);
    let now = Instant::now();
    let id = open(&sessions, "t", 3, now);
    let answers = vec![(key("t", 0), data(0, 11, b"r")), (key("t", 1), data(1, 10, b""))];
    assert_eq!(step(&sessions, id, 1, answers), [0]);
    let plan = sessions.begin(request(id, 2), Vec::new(), &[], now).unwrap();
    let order: Vec<i32> = plan.wishes.iter().map(|(key, _)| key.partition).collect();
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn a_request_changes_adds_and_forgets_partitions() {
    let sessions = sessions(10);
    let now = Instant::now();
    let id = open(&sessions, "t", 2, now);
    let changes = vec![(key("t", 1), wish(7)), (key("u", 0), wish(1))];
    let plan = sessions.begin(request(id, 1), changes, &[key("t", 0)], now).unwrap();
    assert_eq!(plan.wishes, [(key("t", 1), wish(7)), (key("u", 0), wish(1))]);
    let gone = [key("t", 1), key("u", 0)];
    let plan = sessions.begin(request(id, 2), Vec::new(), &gone, now).unwrap();
    assert!(matches!(plan.context, FetchContext::Sessionless) && plan.wishes.is_empty());
    assert_eq!((sessions.len(), sessions.bytes.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn epochs_and_ids_that_do_not_fit_are_refused() {
    let sessions = sessions(10);
    let now = Instant::now();
    let id = open(&sessions, "t", 1, now);
    let refusal = |request| sessions.begin(request, Vec::new(), &[], now).unwrap_err();
    assert_eq!(refusal(request(id ^ 1, 1)), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(refusal(request(id, 2)), ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(refusal(request(id, i32::MIN)), ErrorCode::InvalidFetchSessionEpoch);
    let by_id = SessionRequest { id, epoch: 1, by_id: true };
    assert_eq!(refusal(by_id), ErrorCode::FetchSessionTopicIdError);
    // None of these moved the session on.
    assert_eq!(step(&sessions, id, 1, Vec::new()), NONE);
}

#[test]
fn the_answer_to_a_request_that_was_given_up_is_an_error() {
    let sessions = sessions(10);
    let now = Instant::now();
    let id = open(&sessions, "t", 1, now);
    let first = sessions.begin(request(id, 1), Vec::new(), &[], now).unwrap();
    sessions.begin(request(id, 2), Vec::new(), &[], now).unwrap();
    let late = sessions.finish(&first.context, &first.wishes, Vec::new(), now);
    assert_eq!(late.unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
}

#[test]
fn a_full_request_ends_the_session_it_names() {
    let sessions = sessions(10);
    let now = Instant::now();
    let id = open(&sessions, "t", 1, now);
    sessions.begin(request(id, -1), Vec::new(), &[], now).unwrap();
    assert_eq!(sessions.len(), 0);
    let id = open(&sessions, "t", 1, now);
    sessions.begin(request(id, 0), vec![(key("t", 0), wish(0))], &[], now).unwrap();
    assert_eq!(sessions.len(), 0, "the new one opens with the answer");
}

#[test]
fn when_there_is_no_room_the_unused_and_the_small_make_way() {
    let sessions = sessions(2);
    let start = Instant::now();
    let small = open(&sessions, "t", 1, start);
    let large = open(&sessions, "t", 5, start);
    assert!(small > 0 && large > 0);
    assert_eq!(open(&sessions, "t", 9, start + MINUTE), NO_SESSION, "everybody is protected at first");
    // Both are used, so that neither is forgotten; they are old now.
    let later = start + 3 * MINUTE;
    for id in [small, large] {
        sessions.begin(request(id, 1), Vec::new(), &[], later).unwrap();
    }
    assert_eq!(open(&sessions, "t", 1, later), NO_SESSION, "no smaller one is there");
    let third = open(&sessions, "t", 2, later);
    assert!(third > 0);
    let gone = sessions.begin(request(small, 2), Vec::new(), &[], later).unwrap_err();
    assert_eq!(gone, ErrorCode::FetchSessionIdNotFound);
    // Nobody has used the others for long: even a small one is let in.
    assert!(open(&sessions, "t", 1, later + 3 * MINUTE) > 0);
    assert_eq!(sessions.len(), 2);
}

#[test]
fn sessions_take_no_more_than_their_memory() {
    let sessions = sessions(1000);
    let now = Instant::now();
    let opened = (0..100).filter(|_| open(&sessions, "t", 20, now) != NO_SESSION).count();
    assert!((10..20).contains(&opened), "{opened} sessions of some 6 KiB");
    assert!(sessions.bytes.load(Ordering::Relaxed) <= 100_000);
    let long = "n".repeat(32_000);
    let id = open(&sessions, &long, 4, now);
    assert_eq!(id, NO_SESSION, "long names count");
}

#[test]
fn a_session_that_grows_without_bound_ends() {
    let sessions = sessions(10);
    let now = Instant::now();
    let id = open(&sessions, "t", 1, now);
    let many = (0..10_000).map(|i| (key("t", i), wish(0))).collect();
    let refusal = sessions.begin(request(id, 1), many, &[], now).unwrap_err();
    assert_eq!(refusal, ErrorCode::FetchSessionIdNotFound);
    assert_eq!((sessions.len(), sessions.bytes.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn ids_do_not_repeat_and_are_positive() {
    let sessions = sessions(1000);
    let now = Instant::now();
    let mut ids: Vec<i32> = (0..200).map(|_| open(&sessions, "t", 1, now)).collect();
    assert!(ids.iter().all(|id| *id > 0));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 200);
}

#[test]
fn the_epoch_wraps_around_zero() {
    let mut session = Session::new(false, &[(key("t", 0), wish(0))], &[]);
    assert_eq!(session.epoch(), 1);
    session.update(Vec::new(), &[]);
    assert_eq!(session.epoch(), 2);
    session.set_epoch(i32::MAX);
    session.update(Vec::new(), &[]);
    assert_eq!(session.epoch(), 1);
}
