use super::*;

const WELL: Standing = Standing { fenced: false, may_shut_down: false, session_timeout_ms: 3_000 };
const CALM: Wishes = Wishes { fence: false, shutdown: false };
const LEAVING: Wishes = Wishes { fence: false, shutdown: true };

fn session() -> Session {
    Session::new(500, 3_000)
}

#[test]
fn the_lease_counts_from_when_the_heartbeat_was_sent() {
    let mut session = session();
    let first = session.heartbeat(Timestamp(1_000), Offset(7), CALM);
    let second = session.heartbeat(Timestamp(1_500), Offset(7), CALM);
    let answered = session.on_answer(first.sequence, WELL).unwrap();
    assert_eq!(answered, Answered { phase: BrokerPhase::Active, lease_until: Some(Timestamp(4_000)) });
    // The timeout that the answer names is in force.
    let longer = Standing { session_timeout_ms: 9_000, ..WELL };
    let answered = session.on_answer(second.sequence, longer).unwrap();
    assert_eq!(answered.lease_until, Some(Timestamp(10_500)));
}

#[test]
fn a_fenced_broker_has_no_lease() {
    let mut session = session();
    let beat = session.heartbeat(Timestamp(0), Offset(-1), CALM);
    let answered = session.on_answer(beat.sequence, Standing { fenced: true, ..WELL }).unwrap();
    assert_eq!(answered, Answered { phase: BrokerPhase::Fenced, lease_until: None });
}

#[test]
fn answers_out_of_turn_are_not_taken() {
    let mut session = session();
    assert_eq!(session.on_answer(0, WELL), None);
    let first = session.heartbeat(Timestamp(0), Offset(0), CALM);
    let second = session.heartbeat(Timestamp(500), Offset(0), CALM);
    assert_eq!(session.on_answer(second.sequence, WELL), None);
    // An answer from a stream that is gone is not for what was sent since.
    session.on_stream_ended();
    let third = session.heartbeat(Timestamp(900), Offset(0), CALM);
    assert_eq!(session.on_answer(first.sequence, WELL), None);
    assert_ne!(third.sequence, first.sequence);
}

#[test]
fn heartbeats_are_due_at_once_on_a_new_stream_then_at_intervals_and_earlier_with_news() {
    let mut session = session();
    assert_eq!(session.due_at(Offset(3), CALM), Some(Timestamp(i64::MIN)));
    session.heartbeat(Timestamp(100), Offset(3), CALM);
    assert_eq!(session.due_at(Offset(3), CALM), Some(Timestamp(600)));
    assert_eq!(session.due_at(Offset(4), CALM), Some(Timestamp(120)));
    assert_eq!(session.due_at(Offset(3), LEAVING), Some(Timestamp(120)));
    assert_eq!(session.due_at(Offset(3), Wishes { fence: true, ..CALM }), Some(Timestamp(120)));
    session.heartbeat(Timestamp(120), Offset(3), LEAVING);
    assert_eq!(session.due_at(Offset(3), LEAVING), Some(Timestamp(170)));
    session.on_stream_ended();
    assert_eq!(session.due_at(Offset(3), LEAVING), Some(Timestamp(i64::MIN)));
}

#[test]
fn heartbeats_wait_when_too_many_are_unanswered_and_silence_ends_the_stream() {
    let mut session = session();
    assert_eq!(session.silent_at(), None);
    let sent: Vec<_> = (0..OUTSTANDING_MAX)
        .map(|number| session.heartbeat(Timestamp(number as i64 * 500), Offset(0), CALM))
        .collect();
    assert_eq!(session.due_at(Offset(9), LEAVING), None);
    // A third of the session, at most a second.
    assert_eq!(session.silent_at(), Some(Timestamp(1_000)));
    session.on_answer(sent[0].sequence, WELL).unwrap();
    assert_eq!(session.silent_at(), Some(Timestamp(1_500)));
    assert!(session.due_at(Offset(9), LEAVING).is_some());
}

#[test]
fn a_broker_that_wants_to_go_serves_until_it_may() {
    let mut session = session();
    let beat = session.heartbeat(Timestamp(0), Offset(0), LEAVING);
    let answered = session.on_answer(beat.sequence, WELL).unwrap();
    assert_eq!(answered.phase, BrokerPhase::ShuttingDown);
    assert_eq!(answered.lease_until, Some(Timestamp(3_000)));
    let released = Standing { may_shut_down: true, fenced: true, ..WELL };
    let beat = session.heartbeat(Timestamp(50), Offset(0), LEAVING);
    let answered = session.on_answer(beat.sequence, released).unwrap();
    assert_eq!(answered, Answered { phase: BrokerPhase::Released, lease_until: None });
    // Nobody goes who did not ask for it.
    let beat = session.heartbeat(Timestamp(100), Offset(0), CALM);
    let answered = session.on_answer(beat.sequence, Standing { may_shut_down: true, ..WELL }).unwrap();
    assert_eq!(answered.phase, BrokerPhase::Active);
}
