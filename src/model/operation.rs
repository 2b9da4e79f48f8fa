//! An operator's change of leadership as an operation: identified, and told from what etcd holds of it. The key
//! `failover` has it until it is decided, the journal from then on, and the leader's own steps are what is under way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ChangeRequest, ClusterView, HandOverStep, JournalEntry, JournalRecord, JournalStep, MemberName, Reason,
    TermEnd, WallTime,
};

/// etcd's revision of the request: every way to request a change of leadership has one, and every member sees it.
pub type OperationId = i64;

/// A phase of a change of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationPhase {
    /// The leader asks the candidates, and chooses.
    Preflight,
    /// The leader's checkpoint while it serves, which makes its stop short.
    Checkpoint,
    /// PostgreSQL stops.
    Stop,
    /// The candidate is to have replayed the shutdown checkpoint. Until it has, the old primary can serve again.
    Verify,
    /// The leader key moves to the candidate.
    HandOver,
    /// The candidate's PostgreSQL is promoted.
    Promote,
}

impl HandOverStep {
    /// The phase that it belongs to.
    pub fn phase(&self) -> OperationPhase {
        match self {
            HandOverStep::Choosing => OperationPhase::Preflight,
            HandOverStep::Checkpoint { .. } => OperationPhase::Checkpoint,
            HandOverStep::Stopping { .. } => OperationPhase::Stop,
            HandOverStep::Proving { .. } => OperationPhase::Verify,
            HandOverStep::Moving { .. } => OperationPhase::HandOver,
        }
    }
}

impl Reason {
    /// The phase of a change of leadership that it stands for.
    pub fn phase(&self) -> Option<OperationPhase> {
        if let Reason::HandingOver(step) = self {
            return Some(step.phase());
        }
        (*self == Reason::Promoting).then_some(OperationPhase::Promote)
    }
}

/// The hand-over that this member performs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOverProgress {
    /// The request.
    pub id: OperationId,
    /// Its steps, each with its time.
    pub steps: Vec<JournalStep>,
    /// When it is given up, if the old primary can serve again by then.
    pub give_up_at: WallTime,
}

/// A switchover or failover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its identifier.
    pub id: OperationId,
    /// What was requested.
    pub request: ChangeRequest,
    /// Its state.
    pub state: OperationState,
    /// The leader that it led to.
    pub leader: Option<MemberName>,
    /// Why it was refused, or given up. The old primary serves then, in the same term.
    pub because: Option<String>,
    /// When it ended.
    pub ended_at: Option<WallTime>,
    /// When it is given up, while it is under way and this is known.
    pub give_up_at: Option<WallTime>,
    /// Its steps, in the order of the clocks, and the member that took each.
    pub steps: Vec<(MemberName, JournalStep)>,
}

/// The state of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It waits for its time.
    Scheduled,
    /// It is requested, or under way.
    UnderWay,
    /// The requested leader, or another one, serves.
    Done,
    /// It was refused, or given up.
    Refused,
}

impl Operation {
    fn new(id: OperationId, request: &ChangeRequest) -> Operation {
        Operation {
            id,
            request: request.clone(),
            state: OperationState::UnderWay,
            leader: None,
            because: None,
            ended_at: None,
            give_up_at: None,
            steps: Vec::new(),
        }
    }

    /// All operations that etcd has a trace of, the newest first. `records` are read after `view`: what is decided
    /// meanwhile is in them.
    pub fn all(view: &ClusterView, records: &[JournalRecord]) -> Vec<Operation> {
        let mut all = BTreeMap::new();
        if let Some(key) = &view.failover {
            let mut operation = Operation::new(key.mod_revision, &ChangeRequest::of(key));
            if key.request.scheduled_at.is_some() {
                operation.state = OperationState::Scheduled;
            }
            all.insert(operation.id, operation);
        }
        for record in records {
            let Some((id, request)) = record.request().and_then(|request| Some((request.id?, request)))
            else {
                continue;
            };
            all.entry(id).or_insert_with(|| Operation::new(id, request)).add(record);
        }
        let mut all: Vec<Operation> = all.into_values().rev().collect();
        for operation in &mut all {
            operation.steps.sort_by_key(|(_, step)| step.at);
        }
        all
    }

    fn add(&mut self, record: &JournalRecord) {
        let by = |step: &JournalStep| (record.by.clone(), step.clone());
        let of_phases = |steps: &[JournalStep]| -> Vec<_> {
            steps.iter().filter(|step| step.phase.is_some()).map(by).collect()
        };
        match &record.entry {
            JournalEntry::Began(began) => {
                self.steps.extend(of_phases(&began.steps));
                if self.state != OperationState::Refused {
                    self.state = OperationState::Done;
                    (self.leader, self.ended_at) = (Some(record.by.clone()), Some(record.at));
                }
            }
            JournalEntry::Ended(ended) => {
                self.steps.extend(of_phases(&ended.steps));
                if let TermEnd::HandedOver { to } = &ended.how
                    && self.leader.is_none()
                {
                    self.leader = Some(to.clone());
                }
                if self.state == OperationState::Scheduled {
                    self.state = OperationState::UnderWay;
                }
            }
            JournalEntry::Refused { why, steps, .. } => {
                self.steps = of_phases(steps);
                (self.state, self.leader) = (OperationState::Refused, None);
                (self.because, self.ended_at) = (Some(why.clone()), Some(record.at));
            }
            JournalEntry::Discarded { .. } => {}
        }
    }

    /// Adds what `member` does for it now.
    pub fn add_progress(&mut self, member: &MemberName, progress: &HandOverProgress) {
        if progress.id == self.id && self.ended_at.is_none() {
            self.state = OperationState::UnderWay;
            self.give_up_at = Some(progress.give_up_at);
            self.steps = progress.steps.iter().map(|step| (member.clone(), step.clone())).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailoverKey, FailoverRequest, Lsn, Term, TermEnded};

    fn name(text: &str) -> MemberName {
        MemberName::new(text).expect("a valid name")
    }

    fn key(mod_revision: i64) -> FailoverKey {
        let request = FailoverRequest { leader: Some(name("a")), ..FailoverRequest::default() };
        FailoverKey { request, mod_revision }
    }

    fn step(at: i64, phase: Option<OperationPhase>) -> JournalStep {
        JournalStep { phase, ..JournalStep::new(WallTime(at), "why") }
    }

    fn record(by: &str, at: i64, entry: JournalEntry) -> JournalRecord {
        JournalRecord { term: Term(3), by: name(by), at: WallTime(at), entry }
    }

    fn handed_over(id: i64) -> JournalRecord {
        let ended = TermEnded {
            how: TermEnd::HandedOver { to: name("b") },
            request: Some(ChangeRequest::of(&key(id))),
            seen: Vec::new(),
            steps: vec![
                step(20, Some(OperationPhase::Stop)),
                step(10, Some(OperationPhase::Preflight)),
                step(5, None),
            ],
            position: Lsn(1),
        };
        record("a", 30, JournalEntry::Ended(Box::new(ended)))
    }

    fn refused(id: i64) -> JournalRecord {
        let request = Some(ChangeRequest::of(&key(id)));
        let steps = vec![step(10, Some(OperationPhase::Preflight))];
        record("a", 40, JournalEntry::Refused { why: "it is far behind".to_owned(), request, steps })
    }

    #[test]
    fn an_operation_is_told_from_its_key_then_from_the_journal() {
        let mut view = ClusterView { failover: Some(key(7)), ..ClusterView::default() };
        let of = |view: &ClusterView, records: &[JournalRecord]| Operation::all(view, records);
        let [requested] = of(&view, &[]).try_into().expect("one");
        assert_eq!((requested.id, requested.state), (7, OperationState::UnderWay));

        let progress = HandOverProgress {
            id: 7,
            steps: vec![step(10, Some(OperationPhase::Checkpoint))],
            give_up_at: WallTime(99),
        };
        let mut live = requested.clone();
        live.add_progress(&name("a"), &HandOverProgress { id: 6, ..progress.clone() });
        assert_eq!(live, requested, "another operation's progress");
        live.add_progress(&name("a"), &progress);
        assert_eq!((live.steps.len(), live.give_up_at), (1, Some(WallTime(99))));

        view.failover = None;
        let [moved] = of(&view, &[handed_over(7)]).try_into().expect("one");
        assert_eq!(
            (moved.state, moved.leader, moved.ended_at),
            (OperationState::UnderWay, Some(name("b")), None)
        );
        let phases: Vec<_> = moved.steps.iter().filter_map(|(_, step)| step.phase).collect();
        assert_eq!(phases, [OperationPhase::Preflight, OperationPhase::Stop], "in order, and nothing else");

        let [given_up] = of(&view, &[refused(7)]).try_into().expect("one");
        assert_eq!((given_up.state, given_up.leader), (OperationState::Refused, None));
        assert_eq!(given_up.because.as_deref(), Some("it is far behind"));
    }

    #[test]
    fn the_newest_is_first_and_a_schedule_is_shown() {
        let mut scheduled = key(9);
        scheduled.request.scheduled_at = Some(WallTime(1000));
        let view = ClusterView { failover: Some(scheduled), ..ClusterView::default() };
        let all = Operation::all(&view, &[refused(5), handed_over(7)]);
        let states: Vec<_> = all.iter().map(|operation| (operation.id, operation.state)).collect();
        let expected =
            [(9, OperationState::Scheduled), (7, OperationState::UnderWay), (5, OperationState::Refused)];
        assert_eq!(states, expected);
    }
}
