//! Each promise is seen to be broken once.

use super::*;

fn ack(w: u32, n: i64, m: usize, l: u32, a: u64) -> Event {
    Event::Ack { w, n, m, l, a, b: a + 5 }
}

fn judge(mode: Mode, events: &[Event]) -> Oracle {
    let mut oracle = Oracle::default();
    oracle.see(&Event::Run { system: "x".into(), mode, seed: 1 });
    for event in events {
        oracle.see(event);
    }
    oracle.finish();
    oracle
}

fn end(rows: &[(u32, i64, i64)]) -> [Event; 2] {
    [Event::Mark { at: 900, end: true }, Event::Present { at: 910, rows: rows.to_vec() }]
}

#[test]
fn an_acknowledged_write_that_is_gone_is_lost() {
    let mut events = vec![ack(1, 1, 0, 2, 10), ack(1, 2, 0, 2, 20)];
    events.extend(end(&[(1, 1, 1)]));
    let oracle = judge(Mode::Quorum, &events);
    assert_eq!(oracle.verdict().lost, 1);
    assert_eq!(oracle.violations(), ["1 rows lost"]);
    // Asynchronous replication promises nothing about it; it is counted all the same.
    let oracle = judge(Mode::Async, &events);
    assert_eq!((oracle.verdict().lost, oracle.violations().len()), (1, 0));
}

#[test]
fn a_row_for_which_no_standby_was_named_is_counted_apart() {
    let sync = |at, named| Event::Sync { at, named };
    let mut events = vec![sync(0, true), ack(1, 1, 0, 2, 10), ack(1, 2, 0, 2, 300_000)];
    // The key has changed a little before that is seen.
    events.extend([ack(1, 3, 0, 2, 500_000), sync(550_000, false), ack(1, 4, 0, 2, 600_000)]);
    events.extend([sync(2_000_000, true), ack(1, 5, 0, 2, 2_100_000)]);
    events.extend(end(&[(1, 1, 2)]));
    let oracle = judge(Mode::On, &events);
    let verdict = oracle.verdict();
    assert_eq!((verdict.unpromised, verdict.lost, verdict.lost_unpromised), (2, 3, 2));
    assert_eq!(oracle.violations(), ["3 rows lost", "2 of them not promised, and said so"]);
}

#[test]
fn asynchronous_replication_may_lose_only_what_was_on_its_way() {
    let mut events = vec![ack(1, 1, 0, 2, 10)];
    let mark = Event::Mark { at: 15, end: false };
    events.extend([mark, Event::Present { at: 18, rows: vec![(1, 1, 1)] }, ack(1, 2, 0, 2, 20)]);
    let late: Vec<Event> = events.iter().cloned().chain(end(&[(1, 1, 1)])).collect();
    assert!(judge(Mode::Async, &late).violations().is_empty());
    events.extend(end(&[(1, 2, 2)]));
    let violations = judge(Mode::Async, &events).violations();
    assert_eq!(violations, ["1 rows lost that every standby had had the time to receive"]);
}

#[test]
fn a_row_of_which_nobody_told_may_be_there_or_not() {
    let mut events = vec![
        Event::Unknown { w: 1, n: 1, m: 0, a: 1, b: 2 },
        Event::Unknown { w: 1, n: 2, m: 0, a: 3, b: 4 },
    ];
    events.extend(end(&[(1, 2, 2)]));
    assert!(judge(Mode::Quorum, &events).violations().is_empty());
}

#[test]
fn a_failed_write_that_is_there_is_a_phantom() {
    let mut events = vec![Event::Failed { w: 1, n: 1, to: 3, m: 0, a: 1, b: 2, why: "25006".into() }];
    events.extend(end(&[(1, 2, 2)]));
    assert_eq!(judge(Mode::Async, &events).violations(), ["1 phantom rows"]);
}

#[test]
fn two_primaries_are_seen() {
    let events = [ack(1, 1, 0, 2, 10), ack(2, 1, 1, 3, 20), ack(1, 2, 0, 2, 50)];
    let oracle = judge(Mode::Async, &events);
    assert_eq!((oracle.verdict().doubly_led, oracle.verdict().overlap_us), (1, 25));
    assert_eq!(oracle.violations(), ["1 rows acknowledged while another member led"]);
}

#[test]
fn two_answers_of_primary_are_seen() {
    let says = |m, l, first, last| Event::Primary { m, l, first, last };
    let one_after_the_other = [says(0, 2, 10, 10), says(0, 2, 10, 90), says(1, 3, 120, 120)];
    assert!(judge(Mode::Async, &one_after_the_other).violations().is_empty());
    let both = [says(0, 2, 10, 10), says(1, 3, 50, 50), says(0, 2, 10, 90)];
    assert_eq!(judge(Mode::Async, &both).violations(), ["1 times /primary said so of two members"]);
}

#[test]
fn a_read_that_misses_a_row_is_stale_unless_the_row_is_lost() {
    let mut events = vec![
        ack(1, 1, 0, 2, 10),
        ack(1, 2, 0, 2, 20),
        Event::Read { m: 1, a: 22, b: 30, max: vec![1] },
        Event::Read { m: 1, a: 40, b: 50, max: vec![1] },
    ];
    let lost: Vec<Event> = events.iter().cloned().chain(end(&[(1, 1, 1)])).collect();
    assert_eq!(judge(Mode::Quorum, &lost).violations(), ["1 rows lost"]);
    // Only the second read began after the acknowledgement.
    events.extend(end(&[(1, 1, 2)]));
    assert_eq!(judge(Mode::QuorumLease, &events).violations(), ["1 stale reads"]);
}

#[test]
fn a_register_that_goes_back_is_seen() {
    let write = |v, a| Event::Register { id: 1, write: Some(v), read: None, m: 0, a, b: Some(a + 5) };
    let read = |v, a| Event::Register { id: 1, write: None, read: v, m: 0, a, b: Some(a + 5) };
    let fine = [read(None, 1), write(7, 10), read(Some(7), 20)];
    assert!(judge(Mode::Quorum, &fine).violations().is_empty());
    let back = [write(7, 10), read(Some(7), 20), read(None, 30)];
    assert_eq!(judge(Mode::Quorum, &back).violations(), ["1 registers out of order"]);
    assert!(judge(Mode::Async, &back).violations().is_empty());
}

#[test]
fn a_window_measures_what_happened_in_it() {
    let mut oracle = judge(Mode::Async, &[ack(1, 1, 0, 2, 10), ack(1, 2, 0, 2, 500_000)]);
    oracle.begin_window(600_000);
    oracle.see(&ack(1, 3, 0, 2, 700_000));
    assert_eq!(oracle.window(710_000).outage_us, 100_005);
    assert_eq!(oracle.window(900_005).outage_us, 200_000);
}
