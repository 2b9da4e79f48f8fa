//! The machine with answers from a list.

use super::*;
use crate::model::{LeaseId, MemberName, Term};

const EVERY: Duration = Duration::from_secs(10);

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn path(name: &str) -> String {
    Keys::new("/service/test").path(name)
}

fn leader(name: &str, revision: i64) -> StoredKey {
    StoredKey { value: name.as_bytes().to_vec(), lease: 7, mod_revision: revision, create_revision: revision }
}

/// A list in which this member leads.
fn list(name: &str, revision: i64, asked_at: u64) -> ListWatchAnswer {
    let keys = BTreeMap::from([(path("leader"), leader(name, 5))]);
    ListWatchAnswer::Listed(KeyList { keys, revision, cluster_id: 3, asked_at: at(asked_at) })
}

/// A check that shows the leader key written so, if at all.
fn check(written: Option<i64>, count: usize, revision: i64, asked_at: u64) -> ListWatchAnswer {
    let written = written.map(|revision| (path("leader"), revision)).into_iter().collect();
    ListWatchAnswer::Checked(KeyCheck { written, count, revision, cluster_id: 3, asked_at: at(asked_at) })
}

fn told(events: Vec<KeyEvent>) -> ListWatchAnswer {
    ListWatchAnswer::Told { cluster_id: Some(3), events }
}

fn written(name: &str, revision: i64) -> KeyEvent {
    KeyEvent { path: path("leader"), revision, now: Some(leader(name, revision)) }
}

fn failed() -> ListWatchAnswer {
    ListWatchAnswer::Failed("no answer".to_owned())
}

/// The machine, and the view that it showed last.
struct Driver {
    machine: ListWatch,
    shown: Option<View>,
    said: Vec<String>,
}

impl Driver {
    fn new() -> Driver {
        let machine = ListWatch::new(Keys::new("/service/test"));
        Driver { machine, shown: None, said: Vec::new() }
    }

    /// One that watches, after a list of 1 s in which `a` leads.
    fn watching() -> Driver {
        let mut driver = Driver::new();
        assert_eq!(driver.answer(ListWatchAnswer::Paused, 1_000), ListWatchQuestion::List);
        assert_eq!(driver.answer(list("a", 10, 1_000), 1_100), ListWatchQuestion::Watch { after: 10 });
        assert_eq!(driver.answer(ListWatchAnswer::Opened, 1_200), until(11_000));
        driver
    }

    fn answer(&mut self, answer: ListWatchAnswer, now: u64) -> ListWatchQuestion {
        let ListWatchNext { effects, ask } = self.machine.next(answer, EVERY, at(now));
        for effect in effects {
            match effect {
                ListWatchEffect::Show(view) => self.shown = Some(*view),
                ListWatchEffect::Say(trouble) => self.said.push(trouble),
            }
        }
        ask
    }

    fn shown(&self) -> &View {
        self.shown.as_ref().expect("a view is shown")
    }

    fn leader(&self) -> Option<(&str, Term)> {
        self.shown().cluster.leader.as_ref().map(|leader| (leader.name.as_str(), leader.term))
    }
}

fn until(millis: u64) -> ListWatchQuestion {
    ListWatchQuestion::Await { until: at(millis) }
}

fn pause(millis: u64) -> ListWatchQuestion {
    ListWatchQuestion::Pause(Duration::from_millis(millis))
}

#[test]
fn a_list_is_shown_before_the_watch_is_open() {
    let mut driver = Driver::new();
    driver.answer(ListWatchAnswer::Paused, 1_000);
    driver.answer(list("a", 10, 1_000), 1_100);
    let View { cluster, seen_at } = driver.shown();
    assert_eq!((*seen_at, cluster.revision, cluster.listed, cluster.cluster_id), (at(1_000), 10, 10, 3));
    let known = cluster.leader.as_ref().map(|leader| (leader.name.clone(), leader.lease));
    assert_eq!(known, Some((MemberName::new("a").expect("a valid name"), Some(LeaseId(7)))));
}

#[test]
fn a_watch_tells_news_sooner_and_makes_no_view_younger() {
    let mut driver = Driver::watching();
    assert_eq!(driver.answer(told(vec![written("b", 12)]), 4_000), until(11_000));
    assert_eq!(driver.leader(), Some(("b", Term(12))));
    let View { cluster, seen_at } = driver.shown();
    assert_eq!((*seen_at, cluster.revision, cluster.listed), (at(1_000), 12, 10));
    driver.answer(told(vec![KeyEvent { path: path("leader"), revision: 13, now: None }]), 5_000);
    assert_eq!((driver.leader(), driver.shown().cluster.revision), (None, 13));
}

#[test]
fn an_event_that_the_list_has_shown_already_is_no_news() {
    let mut driver = Driver::watching();
    driver.answer(told(vec![written("b", 9), written("c", 10)]), 4_000);
    assert_eq!((driver.leader(), driver.shown().cluster.revision), (Some(("a", Term(5))), 10));
    // Several keys change in one revision.
    let status = StoredKey { value: b"17".to_vec(), lease: 0, mod_revision: 12, create_revision: 12 };
    let both = [written("b", 12), KeyEvent { path: path("status"), revision: 12, now: Some(status) }];
    driver.answer(told(both.to_vec()), 4_100);
    assert!(driver.shown().cluster.status.is_some() && driver.leader() == Some(("b", Term(12))));
}

#[test]
fn a_list_that_shows_more_than_the_watch_told_opens_another() {
    let mut driver = Driver::watching();
    let due = driver.answer(ListWatchAnswer::ListDue, 11_000);
    assert_eq!(due, ListWatchQuestion::Check { after: 10 });
    assert_eq!(driver.answer(check(None, 1, 20, 11_000), 11_100), until(21_000), "it told everything");
    assert_eq!(driver.shown().seen_at, at(11_000));
    let due = driver.answer(ListWatchAnswer::ListDue, 21_000);
    assert_eq!(due, ListWatchQuestion::Check { after: 20 });
    assert_eq!(driver.answer(check(Some(25), 1, 30, 21_000), 21_100), ListWatchQuestion::List);
    assert_eq!(driver.shown().seen_at, at(11_000), "a check that shows news makes no view younger");
    let missed = driver.answer(list("b", 30, 21_100), 21_200);
    assert_eq!(missed, ListWatchQuestion::Watch { after: 30 });
    assert_eq!(driver.leader(), Some(("b", Term(5))));
}

#[test]
fn a_check_of_what_the_watch_has_told_needs_no_list() {
    let mut driver = Driver::watching();
    driver.answer(told(vec![written("b", 12)]), 4_000);
    driver.answer(ListWatchAnswer::ListDue, 11_000);
    assert_eq!(driver.answer(check(Some(12), 1, 20, 11_000), 11_100), until(21_000));
    let View { cluster, seen_at } = driver.shown();
    assert_eq!((*seen_at, cluster.revision, cluster.listed), (at(11_000), 20, 20));
    assert_eq!(driver.leader(), Some(("b", Term(12))));
}

#[test]
fn a_check_that_shows_anything_else_is_followed_by_a_list() {
    let foreign = |answer| match answer {
        ListWatchAnswer::Checked(check) => ListWatchAnswer::Checked(KeyCheck { cluster_id: 4, ..check }),
        other => other,
    };
    for (case, answer) in [
        ("a key was written", check(Some(13), 1, 20, 11_000)),
        ("a key was deleted", check(None, 0, 20, 11_000)),
        ("a key is new", check(None, 2, 20, 11_000)),
        ("the store was restored", check(None, 1, 11, 11_000)),
        ("it is another etcd", foreign(check(None, 1, 20, 11_000))),
    ] {
        let mut driver = Driver::watching();
        driver.answer(told(vec![written("b", 12)]), 4_000);
        driver.answer(ListWatchAnswer::ListDue, 11_000);
        assert_eq!(driver.answer(answer, 11_100), ListWatchQuestion::List, "{case}");
    }
}

#[test]
fn now_and_then_all_keys_are_read_all_the_same() {
    let mut driver = Driver::watching();
    let mut now = 1_000;
    let asked = loop {
        now += 10_000;
        match driver.answer(ListWatchAnswer::ListDue, now) {
            ListWatchQuestion::Check { .. } => driver.answer(check(None, 1, 20, now), now),
            other => break other,
        };
    };
    assert_eq!((asked, now), (ListWatchQuestion::List, 301_000));
    driver.answer(list("a", 30, now), now);
    let next = driver.answer(ListWatchAnswer::ListDue, now + 10_000);
    assert_eq!(next, ListWatchQuestion::Check { after: 30 });
}

#[test]
fn lists_are_as_frequent_as_is_wanted_now() {
    let mut driver = Driver::watching();
    let next = driver.machine.next(ListWatchAnswer::IntervalChanged, Duration::from_secs(2), at(2_000));
    assert_eq!(next, ListWatchNext { effects: Vec::new(), ask: until(3_000) });
}

#[test]
fn a_watch_that_ends_or_is_of_another_cluster_starts_from_a_list_again() {
    let foreign = ListWatchAnswer::Told { cluster_id: Some(4), events: vec![written("b", 12)] };
    for end in [ListWatchAnswer::Ended, foreign] {
        let mut driver = Driver::watching();
        assert_eq!(driver.answer(end, 4_000), pause(100));
        assert_eq!(driver.leader(), Some(("a", Term(5))), "the view that was shown grows old");
        assert_eq!(driver.answer(ListWatchAnswer::Paused, 4_100), ListWatchQuestion::List);
        assert!(driver.said.is_empty(), "that is no trouble");
    }
}

#[test]
fn a_nameless_leader_is_not_shown() {
    let mut driver = Driver::watching();
    assert_eq!(driver.answer(told(vec![written("", 12)]), 4_000), pause(100));
    assert_eq!((driver.leader(), driver.said.len()), (Some(("a", Term(5))), 1));
    driver.answer(ListWatchAnswer::Paused, 4_100);
    assert_eq!(driver.answer(list("", 12, 4_100), 4_200), pause(200), "nor from a list");
}

#[test]
fn trouble_is_told_once_and_followed_by_longer_pauses() {
    let mut driver = Driver::new();
    let mut now = 1_000;
    for span in [100, 200, 400, 800, 1_000, 1_000] {
        driver.answer(ListWatchAnswer::Paused, now);
        assert_eq!(driver.answer(failed(), now + 500), pause(span));
        now += 500 + span;
    }
    assert_eq!(driver.said, ["no answer"]);
    // What went well for a while begins anew.
    driver.answer(ListWatchAnswer::Paused, now);
    driver.answer(list("a", 10, now), now);
    driver.answer(ListWatchAnswer::Opened, now);
    assert_eq!(driver.answer(ListWatchAnswer::Ended, now + 2_000), pause(100));
    driver.answer(ListWatchAnswer::Paused, now + 2_100);
    assert_eq!(driver.answer(failed(), now + 2_200), pause(200));
    assert_eq!(driver.said.len(), 2, "it is another trouble");
}

#[test]
fn what_fails_at_any_question_starts_from_a_list_again() {
    let answers = [ListWatchAnswer::Paused, list("a", 10, 1_000), ListWatchAnswer::Opened];
    let relist = [ListWatchAnswer::ListDue];
    let all: Vec<ListWatchAnswer> = answers.into_iter().chain(relist).collect();
    for good in 1..=all.len() {
        let mut driver = Driver::new();
        for answer in &all[..good] {
            driver.answer(answer.clone(), 1_000);
        }
        assert_eq!(driver.answer(failed(), 1_500), pause(100), "after {good} answers");
        assert_eq!(driver.answer(ListWatchAnswer::Paused, 1_600), ListWatchQuestion::List);
    }
}
