//! The transitions of mode quorum as a table, those of mode on, and a test that no order of events breaks the promise.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::standby::{names_of_next, next};
use super::{QuorumState, SyncStep, priority_step, quorum_steps};
use crate::model::{MemberName, SyncMode, SyncNames, SyncRecord, SyncSettings};

fn set(letters: &str) -> BTreeSet<MemberName> {
    letters.chars().map(|letter| MemberName::new(letter).expect("a name")).collect()
}

/// The state from the key's leader and me, then `q,V` · `n,S,confirmed` · active · wanted.
fn state(
    leaders: &str,
    promise: (usize, &str),
    names: (usize, &str, &str),
    active: &str,
    wanted: usize,
) -> QuorumState {
    let mut both = leaders.chars().map(|letter| MemberName::new(letter).expect("a name"));
    let leader = both.next();
    QuorumState {
        me: both.next().or(leader.clone()).expect("me"),
        record: SyncRecord { leader, quorum: promise.0, voters: set(promise.1) },
        names: SyncNames { any: names.0 > 0, count: names.0, names: set(names.1), wildcard: false },
        confirmed: set(names.2),
        active: set(active).into_iter().collect(),
        wanted,
        strict: false,
    }
}

fn text(steps: &[SyncStep]) -> String {
    let list = |names: &BTreeSet<MemberName>| names.iter().map(MemberName::as_str).collect::<String>();
    let word = |step: &SyncStep| match step {
        SyncStep::Promise(record) => format!("/sync {}:{}", record.quorum, list(&record.voters)),
        SyncStep::Name(names) => format!("GUC {}:{}", names.count, list(&names.names)),
        SyncStep::LookAgain => "again".to_owned(),
    };
    steps.iter().map(word).collect::<Vec<_>>().join(" → ")
}

#[test]
fn the_transitions_of_mode_quorum() {
    for (case, state, expected) in [
        ("first standby", state("a", (0, ""), (0, "", ""), "b", 1), "GUC 1:b → again"),
        ("set, unconfirmed", state("a", (0, ""), (1, "b", ""), "b", 1), "again"),
        ("confirmed", state("a", (0, ""), (1, "b", "b"), "b", 1), "/sync 0:b"),
        ("second standby", state("a", (0, "b"), (1, "b", "b"), "bc", 1), "/sync 1:bc → GUC 1:bc"),
        ("two at once", state("a", (0, ""), (0, "", ""), "bc", 1), "GUC 1:bc → again"),
        ("both confirmed", state("a", (0, ""), (1, "bc", "bc"), "bc", 1), "/sync 1:bc"),
        ("third standby", state("a", (0, "bc"), (2, "bc", "bc"), "bcd", 2), "/sync 1:bcd → GUC 2:bcd"),
        ("below the factor", state("a", (0, "b"), (1, "b", "b"), "bc", 2), "GUC 2:bc → /sync 1:bc"),
        ("raise", state("a", (2, "bcd"), (1, "bcd", "bcd"), "bcd", 2), "GUC 2:bcd → /sync 1:bcd"),
        ("lower", state("a", (1, "bcd"), (2, "bcd", "bcd"), "bcd", 1), "/sync 2:bcd → GUC 1:bcd"),
        ("d dies, q>0", state("a", (1, "bcd"), (2, "bcd", "bc"), "bc", 2), "GUC 2:bc → /sync 0:bc"),
        ("c dies, q=1", state("a", (1, "bc"), (1, "bc", "b"), "b", 1), "GUC 1:b → /sync 0:b"),
        ("c dies, q=0", state("a", (0, "bc"), (2, "bc", "b"), "b", 2), "/sync 0:b → GUC 1:b"),
        ("all die", state("a", (1, "bc"), (1, "bc", ""), "", 1), "/sync 0: → GUC 0:"),
        (
            "failover, c streams",
            state("ab", (1, "bc"), (1, "ac", ""), "c", 1),
            "/sync 1:ac → GUC 1:c → /sync 0:c",
        ),
        ("failover, none yet", state("ab", (1, "bc"), (1, "ac", ""), "", 1), "/sync 1:ac"),
        ("interrupted, S⊃V", state("a", (0, "b"), (1, "bc", "b"), "bc", 1), "/sync 1:bc"),
        ("interrupted, V⊃S", state("a", (1, "bc"), (1, "b", "b"), "bc", 1), "GUC 1:bc"),
    ] {
        assert_eq!(text(&quorum_steps(&state)), expected, "{case}");
    }
}

/// The only named standby died before it had confirmed anything, and so did one voter. A voter and another standby
/// stream. Commits waited for ever: the promise did not allow two more names, and one was not tried.
#[test]
fn voters_are_named_first_where_the_promise_limits_the_names() {
    let stuck = state("a", (2, "bce"), (1, "c", ""), "de", 1);
    let first = quorum_steps(&stuck).into_iter().next().expect("a step");
    let permitted = stuck.permit(first).expect("it goes on");
    assert_eq!(text(&[permitted]), "GUC 1:ce");
}

#[test]
fn the_transitions_of_mode_on() {
    let on = |leaders, voters, (names, confirmed): (&str, &str), active, wanted, strict| {
        let state = state(leaders, (0, voters), (names.len(), names, confirmed), active, wanted);
        QuorumState { strict, names: SyncNames { any: false, ..state.names.clone() }, ..state }
    };
    for (case, state, expected) in [
        ("another led", on("ab", "b", ("", ""), "c", 1, false), "/sync 0:"),
        ("first standby", on("a", "", ("", ""), "b", 1, false), "GUC 1:b"),
        ("unconfirmed", on("a", "", ("b", ""), "b", 1, false), "again"),
        ("confirmed", on("a", "", ("b", "b"), "b", 1, false), "/sync 0:b"),
        ("done", on("a", "b", ("b", "b"), "b", 1, false), ""),
        ("another is better", on("a", "b", ("b", "b"), "c", 1, false), "/sync 0:"),
        ("then it is named", on("a", "", ("b", "b"), "c", 1, false), "GUC 1:c"),
        ("two", on("a", "b", ("b", "b"), "bc", 2, false), "GUC 2:bc"),
        ("two confirmed", on("a", "b", ("bc", "bc"), "bc", 2, false), "/sync 0:bc"),
        ("one of two dies", on("a", "bc", ("bc", "b"), "b", 2, false), "/sync 0:b"),
        ("all die", on("a", "b", ("b", ""), "", 1, false), "/sync 0:"),
        ("all died", on("a", "", ("b", ""), "", 1, false), "GUC 0:"),
        ("all die, strict", on("a", "b", ("b", ""), "", 1, true), ""),
        ("nobody yet, strict", on("a", "", ("", ""), "", 1, true), "GUC 1:"),
    ] {
        let step = priority_step(&state);
        assert_eq!(text(&step.into_iter().collect::<Vec<_>>()), expected, "{case}");
    }
}

/// A primary with its standbys, as far as the promise is concerned: positions, acknowledged commits, and the two values
/// that the state machine controls.
struct World {
    on: bool,
    state: QuorumState,
    /// How far each member has flushed; for the leader, where its WAL ends.
    flushed: BTreeMap<MemberName, u64>,
    /// The newest commit that was acknowledged to a client.
    acknowledged: u64,
    /// Where the WAL ended when the names took effect.
    from: u64,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Commit,
    Stream { who: usize, how_much: u64 },
    Come { who: usize },
    Go { who: usize },
    Want { how_many: usize },
    Step,
    Fail { heir: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..5_usize;
    prop_oneof![
        3 => Just(Event::Commit),
        4 => (who.clone(), 1..20_u64).prop_map(|(who, how_much)| Event::Stream { who, how_much }),
        2 => who.clone().prop_map(|who| Event::Come { who }),
        2 => who.clone().prop_map(|who| Event::Go { who }),
        1 => (1..4_usize).prop_map(|how_many| Event::Want { how_many }),
        6 => Just(Event::Step),
        1 => who.prop_map(|heir| Event::Fail { heir }),
    ]
}

impl World {
    fn new(on: bool, strict: bool) -> World {
        let state = QuorumState { strict, ..state("a", (0, ""), (0, "", ""), "", 1) };
        let flushed = set("abcde").into_iter().map(|name| (name, 0)).collect();
        World { on, state, flushed, acknowledged: 0, from: 0 }
    }

    fn happens(&mut self, event: Event) {
        let name = |index: usize| set("abcde").into_iter().nth(index).expect("one of five");
        let end = self.flushed[&self.state.me];
        match event {
            Event::Commit => drop(self.flushed.insert(self.state.me.clone(), end + 1)),
            Event::Stream { who, how_much } => {
                let who = name(who);
                if self.state.active.contains(&who) {
                    let position = self.flushed.get_mut(&who).expect("a member");
                    *position = (*position + how_much).min(end);
                }
            }
            Event::Come { who } => {
                let who = name(who);
                if who != self.state.me && !self.state.active.contains(&who) {
                    self.state.active.push(who);
                }
            }
            Event::Go { who } => self.state.active.retain(|active| *active != name(who)),
            Event::Want { how_many } => self.state.wanted = how_many,
            Event::Step => self.step(),
            Event::Fail { heir } => self.fail_over(&name(heir)),
        }
        // Commits that waited for the standbys, and are confirmed now, are acknowledged.
        let end = self.flushed[&self.state.me];
        let names = &self.state.names;
        let mut positions: Vec<u64> = names.names.iter().map(|name| self.flushed[name]).collect();
        positions.sort_unstable();
        let confirmed = match names.count {
            0 => end,
            count => positions.iter().rev().nth(count - 1).copied().unwrap_or_default(),
        };
        self.acknowledged = self.acknowledged.max(confirmed);
        self.state.confirmed =
            names.names.iter().filter(|name| self.from <= self.flushed[*name]).cloned().collect();
    }

    fn step(&mut self) {
        let step = match self.on {
            true => priority_step(&self.state),
            false => quorum_steps(&self.state).into_iter().next(),
        };
        match step.and_then(|step| self.state.permit(step)) {
            Some(SyncStep::Promise(record)) => self.state.record = record,
            Some(SyncStep::Name(names)) => {
                self.state.names = names;
                self.from = self.flushed[&self.state.me];
            }
            Some(SyncStep::LookAgain) | None => {}
        }
    }

    /// `heir` takes over if the key allows it to lead, as in `eligible` and `standby`.
    fn fail_over(&mut self, heir: &MemberName) {
        let record = &self.state.record;
        let position = self.flushed[heir];
        let behind = |name: &&MemberName| name != &heir && self.flushed[*name] <= position;
        let votes = super::state::members(record).into_iter().filter(behind).count();
        let needed = record.quorum + usize::from(!record.is_voter(heir));
        let vouched = record.is_leader(heir) || ((!self.on || record.is_voter(heir)) && needed <= votes);
        if *heir == self.state.me || !record.is_in_force() || !vouched {
            return;
        }
        assert!(self.acknowledged <= position, "{heir} lacks a commit: {:?}", self.state);
        let mode = if self.on { SyncMode::On } else { SyncMode::Quorum };
        let settings = SyncSettings { mode, strict: self.state.strict, ..SyncSettings::default() };
        self.state.names = names_of_next(record, heir, &settings);
        self.state.record = next(record, heir, &settings);
        self.state.me = heir.clone();
        self.state.active.clear();
        self.from = position;
        // Standbys that are ahead on the old timeline are rewound.
        self.flushed.values_mut().for_each(|theirs| *theirs = (*theirs).min(position));
    }

    fn keeps_its_promise(&self) -> bool {
        let record = &self.state.record;
        let lacks = |name: &MemberName| self.flushed[name] < self.acknowledged;
        let lacking = super::state::members(record).into_iter().filter(|name| lacks(name)).count();
        let leader = record.leader.as_ref().is_none_or(|leader| !lacks(leader));
        leader && (record.voters.is_empty() || lacking <= record.quorum)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_order_of_events_breaks_the_promise(
        on: bool, strict: bool, events in proptest::collection::vec(event(), 1..120)
    ) {
        let mut world = World::new(on, strict);
        for event in events {
            world.happens(event);
            prop_assert!(world.keeps_its_promise(), "after {event:?}: {:?} {:?}", world.state, world.flushed);
        }
    }

    /// From any state, the machine reaches its steady state once all standbys have caught up.
    #[test]
    fn the_state_machine_reaches_its_steady_state(on: bool, events in proptest::collection::vec(event(), 1..80)) {
        let mut world = World::new(on, false);
        events.into_iter().for_each(|event| world.happens(event));
        let end = world.flushed[&world.state.me];
        for _ in 0..40 {
            let active = world.state.active.clone();
            active.into_iter().for_each(|name| *world.flushed.entry(name).or_default() = end);
            world.happens(Event::Step);
        }
        let active: BTreeSet<MemberName> = world.state.active.iter().cloned().collect();
        let wanted = world.state.wanted.min(active.len());
        let record = &world.state.record;
        match on {
            true => prop_assert_eq!((record.quorum, record.voters.len()), (0, wanted)),
            false => prop_assert_eq!((record.quorum, &record.voters), (active.len() - wanted, &active), "{:?}", world.state),
        }
        prop_assert_eq!(world.state.names.count, wanted, "{:?}", world.state);
    }
}
