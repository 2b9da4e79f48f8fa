//! Mode quorum: a commit waits for the fastest of the named standbys, and a candidate has to find enough voters that
//! are not ahead of it. The steps and their order follow Patroni's; [`QuorumState::may_promise`] and
//! [`QuorumState::may_name`] make each of them safe.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::state::{QuorumState, SyncStep, members};
use crate::model::{MemberName, SyncNames, SyncRecord};

type Names = BTreeSet<MemberName>;

/// The changes that lead to the steady state, in order. In that state voters, named standbys and active standbys are
/// the same set, as many as wanted confirm each commit, and the quorum is the rest.
pub fn steps(state: &QuorumState) -> Vec<SyncStep> {
    let mut plan = QuorumPlan::of(state);
    // The last step of a plan that stops early tells the reason.
    let _stopped = plan.make();
    plan.steps
}

/// A plan under construction. Each part gives `None` when it has to wait for a new observation.
struct QuorumPlan<'a> {
    state: &'a QuorumState,
    leader: Option<MemberName>,
    quorum: usize,
    voters: Names,
    any: bool,
    count: usize,
    names: Names,
    active: Names,
    wanted: usize,
    steps: Vec<SyncStep>,
}

impl QuorumPlan<'_> {
    fn of(state: &QuorumState) -> QuorumPlan<'_> {
        let SyncNames { any, count, names, wildcard } = state.names.clone();
        let (count, names) = if wildcard { (0, Names::new()) } else { (count.min(names.len()), names) };
        QuorumPlan {
            state,
            leader: state.record.leader.clone(),
            quorum: state.record.quorum,
            voters: state.record.voters.clone(),
            any,
            count,
            names,
            active: state.active.iter().cloned().collect(),
            wanted: state.wanted.max(1),
            steps: Vec::new(),
        }
    }

    fn make(&mut self) -> Option<()> {
        if self.leader.is_none() {
            self.promise(0, Names::new(), false)?;
        }
        if self.active.is_empty() && self.state.strict {
            return self.wait_strictly();
        }
        self.start_soundly()?;
        self.approach()
    }

    /// Makes me the leader of a promise that the names keep.
    fn start_soundly(&mut self) -> Option<()> {
        if self.leader.as_ref() != Some(&self.state.me) {
            self.take_over()?;
        }
        if !self.is_sound() {
            let (names, quorum) = (self.names.clone(), self.names.len() - self.count);
            self.promise(quorum, names, true)?;
        }
        Some(())
    }

    /// From a sound promise to the steady state.
    fn approach(&mut self) -> Option<()> {
        self.go_on_after_an_interruption()?;
        self.use_what_is_too_much()?;
        self.remove()?;
        self.add()?;
        self.change_count()?;
        self.normalize_names()
    }

    /// Writes names of another writer in the form of a quorum, if they have the right meaning.
    fn normalize_names(&mut self) -> Option<()> {
        let foreign = self.state.names.wildcard || (!self.any && self.count > 0);
        if foreign && self.steps.is_empty() {
            self.any = false;
            return self.name(self.count, self.names.clone());
        }
        Some(())
    }

    /// Commits wait for the named standbys, or for a name that no standby has; the promise stays.
    fn wait_strictly(&mut self) -> Option<()> {
        let names = if self.names.is_empty() { self.voters.clone() } else { self.names.clone() };
        let kept = SyncNames { any: true, count: self.state.names.count.max(1), names, wildcard: false };
        if self.state.names != kept {
            self.steps.push(SyncStep::Name(kept));
        }
        None
    }

    /// The former leader becomes a voter, and I become the leader. No other member is added or dropped in the same
    /// step.
    fn take_over(&mut self) -> Option<()> {
        let me = &self.state.me;
        let mut voters: Names = self.voters.iter().chain(&self.leader).cloned().collect();
        voters.remove(me);
        if self.names.is_empty() && !voters.is_empty() {
            let all = members(&self.state.record).into_iter().chain([me]).collect::<BTreeSet<_>>().len();
            self.name(all.saturating_sub(self.quorum + 1), voters.clone())?;
        }
        self.leader = Some(me.clone());
        let quorum = self.quorum.min(voters.len().saturating_sub(1));
        (self.quorum, self.voters) = (quorum, voters.clone());
        self.steps.push(SyncStep::Promise(self.state.promise(quorum, voters)));
        // Standbys need a moment to connect to me: a missing one is not dropped yet.
        if self.active.is_empty() { None } else { Some(()) }
    }

    /// Whether the names keep the promise, and one of the two sets contains the other.
    fn is_sound(&self) -> bool {
        let all = (&self.voters | &self.names).len() + 1;
        let overlap = self.voters.is_empty() || all <= self.quorum + self.count + 1;
        let nested = self.voters.is_subset(&self.names) || self.names.is_subset(&self.voters);
        overlap && nested && (self.quorum == 0 || self.quorum < self.voters.len())
    }

    /// Makes both sets equal when an earlier run ended between two steps.
    fn go_on_after_an_interruption(&mut self) -> Option<()> {
        match self.voters.len().cmp(&self.names.len()) {
            Ordering::Greater => self.bring_voters_to_names(),
            Ordering::Less => self.bring_names_to_voters(),
            Ordering::Equal => Some(()),
        }
    }

    fn bring_voters_to_names(&mut self) -> Option<()> {
        let dead = &(&self.voters - &self.names) - &self.active;
        if !dead.is_empty() {
            let voters = &self.voters - &dead;
            self.promise(voters.len().saturating_sub(self.count), voters, false)?;
        }
        let alive = &(&self.voters & &self.active) - &self.names;
        if !alive.is_empty() {
            self.name(self.count, &self.names | &alive)?;
        }
        Some(())
    }

    fn bring_names_to_voters(&mut self) -> Option<()> {
        let dead = &(&self.names - &self.voters) - &self.active;
        self.drop_names(&dead)?;
        let alive = &(&self.names & &self.active) - &self.voters;
        if !alive.is_empty() {
            let voters = &self.voters | &alive;
            self.promise(voters.len().saturating_sub(self.count), voters, true)?;
        }
        let rest = &self.names - &self.voters;
        self.drop_names(&rest)
    }

    fn drop_names(&mut self, which: &Names) -> Option<()> {
        if which.is_empty() {
            return Some(());
        }
        let names = &self.names - which;
        self.name(self.count, names)
    }

    /// Uses a promise, or confirmations, beyond what the sets need.
    fn use_what_is_too_much(&mut self) -> Option<()> {
        let sure = self.quorum + self.count.min(self.confirmed());
        if sure <= self.voters.len() {
            return Some(());
        }
        if self.wanted < self.count {
            let count = self.wanted.max(self.voters.len() - self.quorum);
            self.name(count, self.names.clone())
        } else {
            self.promise(self.names.len() - self.count, self.voters.clone(), true)
        }
    }

    /// Drops standbys that are gone.
    fn remove(&mut self) -> Option<()> {
        let gone = &(&self.names | &self.voters) - &self.active;
        if gone.is_empty() {
            return Some(());
        }
        if gone == self.names {
            self.promise(0, Names::new(), false)?;
            return self.name(0, Names::new());
        }
        let rest = if self.quorum > 0 { self.remove_from_quorum(gone)? } else { gone };
        self.remove_confirming(&rest)
    }

    /// Drops as many as the quorum allows to lack a commit, and returns the rest.
    fn remove_from_quorum(&mut self, gone: Names) -> Option<Names> {
        let first: Names = gone.iter().rev().take(self.quorum).cloned().collect();
        let names = &self.names - &first;
        let count = self.count.max(self.wanted.min(names.len()));
        self.name(count, names)?;
        let rest = &gone & &self.names;
        let voters = &self.voters - &first;
        self.promise(voters.len().saturating_sub(self.count), voters, rest.is_empty())?;
        Some(rest)
    }

    /// Drops standbys that commits wait for.
    fn remove_confirming(&mut self, gone: &Names) -> Option<()> {
        if gone.is_empty() {
            return Some(());
        }
        let (names, voters) = (&self.names - gone, &self.voters - gone);
        let count = self.count.saturating_sub(gone.len()).max(1);
        let too_many = count.saturating_sub(self.wanted.min(names.len()));
        let quorum = too_many.min(voters.len().saturating_sub(1));
        self.promise(quorum, voters, false)?;
        self.name(count, names)
    }

    /// Adds new standbys.
    fn add(&mut self) -> Option<()> {
        let came = &self.active - &self.names;
        if came.is_empty() {
            return Some(());
        }
        let missing = self.wanted.saturating_sub(self.count);
        let first: Names = match (missing, self.names.is_empty()) {
            (0, _) => Names::new(),
            (_, true) => came.clone(),
            (missing, false) => came.iter().take(missing).cloned().collect(),
        };
        self.add_confirming(&first, missing)?;
        self.add_to_quorum(&(&came - &first))
    }

    /// Too few standbys confirm each commit: adds `count` more.
    fn add_confirming(&mut self, first: &Names, count: usize) -> Option<()> {
        if first.is_empty() {
            return Some(());
        }
        let names = &self.names | first;
        self.name(self.count + count.min(first.len()), names)?;
        let voters = &self.voters | first;
        self.promise(voters.len().saturating_sub(self.count), voters, true)
    }

    /// Enough standbys confirm: these are additional ones to choose from.
    fn add_to_quorum(&mut self, rest: &Names) -> Option<()> {
        if rest.is_empty() {
            return Some(());
        }
        let voters = &self.voters | rest;
        self.promise(voters.len().saturating_sub(self.count), voters, self.count > self.confirmed())?;
        self.name(self.count, &self.names | rest)
    }

    /// Changes the number of standbys that confirm each commit.
    fn change_count(&mut self) -> Option<()> {
        let count = self.wanted.min(self.names.len());
        if count > self.count {
            self.name(count, self.names.clone())?;
            self.promise(self.voters.len().saturating_sub(count), self.voters.clone(), true)
        } else if count < self.count {
            self.promise(self.voters.len().saturating_sub(count), self.voters.clone(), false)?;
            self.name(count, self.names.clone())
        } else {
            Some(())
        }
    }

    fn confirmed(&self) -> usize {
        self.state.confirmed.intersection(&self.names).count()
    }

    /// With `adjust`, a named standby that has not confirmed yet counts as one more that may lack a commit.
    fn promise(&mut self, quorum: usize, voters: Names, adjust: bool) -> Option<()> {
        let unsure = if adjust { self.count.saturating_sub(self.confirmed()) } else { 0 };
        let first = self.voters.is_empty() && !voters.is_empty();
        if adjust && first && self.confirmed() == 0 {
            self.steps.push(SyncStep::LookAgain);
            return None;
        }
        let quorum = (quorum + unsure).min(voters.len().saturating_sub(1));
        let promised = self.leader.as_ref().map(|_| (self.quorum, &self.voters));
        if promised == Some((quorum, &voters)) {
            return Some(());
        }
        self.leader = Some(self.state.me.clone());
        (self.quorum, self.voters) = (quorum, voters.clone());
        self.push_promise(SyncRecord { leader: self.leader.clone(), quorum, voters });
        Some(())
    }

    /// Of two promises in a row only the last is written.
    fn push_promise(&mut self, record: SyncRecord) {
        match self.steps.last_mut() {
            Some(SyncStep::Promise(last)) => *last = record,
            Some(SyncStep::Name(_) | SyncStep::LookAgain) | None => {
                self.steps.push(SyncStep::Promise(record))
            }
        }
    }

    fn name(&mut self, count: usize, names: Names) -> Option<()> {
        let count = count.min(names.len());
        if count == self.count && names == self.names && self.any {
            return Some(());
        }
        (self.any, self.count, self.names) = (true, count, names.clone());
        let names = SyncNames { any: count > 0, count, names, wildcard: false };
        match self.steps.last_mut() {
            Some(SyncStep::Name(last)) => *last = names,
            Some(SyncStep::Promise(_) | SyncStep::LookAgain) | None => self.steps.push(SyncStep::Name(names)),
        }
        Some(())
    }
}
