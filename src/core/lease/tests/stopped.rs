//! A supervisor that is frozen, or killed and started again, between any two lines.

use std::collections::BTreeMap;

use super::*;

/// Questions of one run: long enough for two changes of the TTL.
const QUESTIONS: usize = 60;
/// What a request takes there, and back.
const WAY: Duration = Duration::from_millis(20);

/// How the run is disturbed, once.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    /// Before this question is carried out.
    at: usize,
    /// Or behind it: etcd has done it, and nobody has heard of it.
    unheard: bool,
    freeze: Duration,
    kill: bool,
}

/// An etcd with leases and a leader key, and a guard.
struct Place {
    now: Moment,
    leases: BTreeMap<LeaseId, (Duration, Moment)>,
    leader: Option<(LeaseId, Term)>,
    revision: i64,
    /// When it kills.
    guard: Option<Moment>,
    moves: usize,
    disturbance: Disturbance,
}

impl Place {
    fn new(disturbance: Disturbance) -> Place {
        let now = Moment::from_millis(1_000);
        let leases = BTreeMap::new();
        Place { now, leases, leader: None, revision: 10, guard: None, moves: 0, disturbance }
    }

    fn passes(&mut self, span: Duration) {
        self.now = self.now + span;
        let ended = self.leases.extract_if(.., |_, (_, ends_at)| *ends_at <= self.now);
        for (lease, (_, ends_at)) in ended.collect::<Vec<_>>() {
            if self.leader.is_some_and(|(owner, _)| owner == lease) {
                assert!(self.guard.is_none_or(|at| at <= ends_at), "killed too late: {:?}", self.disturbance);
                // Another member leads at once.
                self.revision += 1;
                (self.leader, self.guard) = (Some((LeaseId(1_000), Term(self.revision))), None);
            }
        }
    }

    fn carry_out(&mut self, effect: &LeaseEffect, rounds: &LeaseRounds) {
        match effect {
            LeaseEffect::TellGuard => self.guard = rounds.facts().deadline,
            LeaseEffect::AskMembers { .. } | LeaseEffect::Publish | LeaseEffect::Say(_) => {}
        }
    }

    /// No deadline that anybody rests on lies behind the end of the lease that the leader key hangs on.
    fn check(&self, rounds: &LeaseRounds) {
        let facts = rounds.facts();
        if facts.leading_at(self.now).is_some() {
            let (owner, _) = self.leader.expect("there is a leader");
            assert!(facts.owns(owner), "{facts:?} leads, and the key is on {owner}: {:?}", self.disturbance);
            assert!(facts.deadline <= Some(self.leases[&owner].1), "{facts:?}: {:?}", self.disturbance);
        }
    }

    fn answer(&mut self, number: usize, ask: LeaseQuestion, rounds: &LeaseRounds) -> LeaseAnswer {
        let stops = self.disturbance.at == number;
        if stops && !self.disturbance.unheard {
            self.passes(self.disturbance.freeze);
        }
        let answer = self.answer_at_once(number, ask, rounds);
        if stops && self.disturbance.unheard {
            self.passes(self.disturbance.freeze);
        }
        self.passes(WAY);
        answer
    }

    fn answer_at_once(&mut self, number: usize, ask: LeaseQuestion, rounds: &LeaseRounds) -> LeaseAnswer {
        let sent_at = self.now;
        match ask {
            LeaseQuestion::Wait { until } => {
                self.passes(self.now.until(until));
                return woke(wanted(number));
            }
            LeaseQuestion::AskGuard => {
                self.guard = rounds.facts().deadline;
                return LeaseAnswer::GuardHolds(true);
            }
            ref _request => self.passes(WAY),
        }
        self.revision += 1;
        match ask {
            LeaseQuestion::Grant { ttl } => {
                let lease = LeaseId(self.revision);
                self.leases.insert(lease, (ttl, self.now + ttl));
                // The loop of the only member takes leadership.
                self.leader = self.leader.or(Some((lease, Term(self.revision))));
                LeaseAnswer::Granted(lease)
            }
            LeaseQuestion::KeepAlive { lease, .. } => match self.leases.get_mut(&lease) {
                Some((ttl, ends_at)) => {
                    *ends_at = self.now + *ttl;
                    LeaseAnswer::Renewed(KeepAliveAnswer { lease, sent_at, ttl: *ttl, raft_term: 2 })
                }
                None => LeaseAnswer::Failed(WriteError::LeaseNotFound),
            },
            LeaseQuestion::Commit(txn) => self.commit(&txn),
            _read => LeaseAnswer::Leader(LeaderRead { raft_term: 2, leader: self.leader }),
        }
    }

    fn commit(&mut self, txn: &Txn) -> LeaseAnswer {
        let leader = self.leader.expect("there is a leader");
        let to = self.leases.keys().find(|to| keys().move_leadership((leader.1, leader.0), **to) == *txn);
        let Some(to) = to else { return LeaseAnswer::Moved(Cas::Lost) };
        assert!(self.guard <= Some(self.leases[to].1), "moved before the guard: {:?}", self.disturbance);
        (self.leader, self.moves) = (Some((*to, Term(self.revision))), self.moves + 1);
        LeaseAnswer::Moved(Cas::Done(self.revision))
    }
}

/// Another TTL, and the first again.
fn wanted(question: usize) -> Duration {
    if (8..30).contains(&question) { SHORT } else { LONG }
}

fn run(disturbance: Disturbance) -> Place {
    let mut place = Place::new(disturbance);
    let mut rounds = rounds(None);
    let mut answer = woke(LONG);
    for number in 0..QUESTIONS {
        let LeaseNext { effects, ask } = rounds.next(answer, place.now);
        effects.iter().for_each(|effect| place.carry_out(effect, &rounds));
        place.check(&rounds);
        answer = place.answer(number, ask, &rounds);
        if disturbance.kill && disturbance.at == number {
            let resumed =
                place.leader.map(|(lease, _)| lease).filter(|lease| place.leases.contains_key(lease));
            rounds = LeaseRounds::new(keys(), wanted(number), resumed);
            answer = woke(wanted(number));
        }
    }
    assert!(rounds.facts().deadline.is_some_and(|at| place.now < at), "it goes on: {disturbance:?}");
    place
}

#[test]
fn no_deadline_outlives_its_lease_wherever_the_supervisor_stops() {
    for at in 0..QUESTIONS - 20 {
        for freeze in [0, 1, 5, 19, 100].map(Duration::from_secs) {
            for (unheard, kill) in [(false, false), (true, false), (false, true), (true, true)] {
                run(Disturbance { at, unheard, freeze, kill });
            }
        }
    }
}

#[test]
fn leadership_moves_with_the_ttl_and_back_again() {
    let undisturbed = Disturbance { at: QUESTIONS, unheard: false, freeze: Duration::ZERO, kill: false };
    assert_eq!(run(undisturbed).moves, 2);
}
