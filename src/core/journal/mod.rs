//! The journal's records, from what each decision saw and gave. Pure, and beside the decision: nothing in it changes
//! what a member does.
//!
//! ```text
//!  observation, decision ──► Journal::note ──► watch: the leader before, its last signs of life
//!                                         ├──► taking: what was known when I decided to lead
//!                                         └──► leading: until PostgreSQL serves ──► Began
//!                                                       until the term ends     ──► Ended
//! ```

mod began;
mod ended;
mod watch;

use std::collections::VecDeque;
use std::time::Duration;

use self::began::{Taking, Vacancy};
use self::ended::Trouble;
use self::watch::WatchedLeader;
use crate::decide::{Decision, HandOver, Leadership, Memory};
use crate::model::{
    Action, ChangeRequest, Finished, HandOverRefusal, Job, JobKind, JournalEntry, JournalRecord, JournalStep,
    Lsn, Moment, Observation, OperationId, Outcome, Reason, Term, TermBegan, TermEnd, WallTime,
    short_sentence,
};

/// Reasons that are remembered.
const STEPS_MAX: usize = 24;
/// Steps of one record.
const STEPS_SHOWN_MAX: usize = 12;

/// The machine.
#[derive(Debug, Default)]
pub struct Journal {
    watched: Option<WatchedLeader>,
    vacancy: Option<Vacancy>,
    taking: Option<Taking>,
    leading: Option<LeadingIn>,
    steps: VecDeque<(Moment, Reason)>,
    trouble: Trouble,
    refused: Option<HandOverRefusal>,
    /// The last request that was refused.
    refused_request: Option<OperationId>,
}

/// A term of mine.
#[derive(Debug)]
struct LeadingIn {
    term: Term,
    since: Moment,
    /// The record of its beginning, until PostgreSQL serves.
    pending: Option<Box<TermBegan>>,
    /// The key is being given away; the outcome may be known later than its effect.
    gives: Option<TermEnd>,
    /// The request for that.
    request: Option<ChangeRequest>,
    /// The key was released, or moved.
    is_over: bool,
    position: Lsn,
}

/// What one tick gives the journal.
struct Note<'a> {
    seen: &'a Observation,
    decision: &'a Decision,
    now: Moment,
}

impl Note<'_> {
    /// The wall-clock time of an earlier moment, by the difference of the two clocks now.
    fn wall(&self, at: Moment) -> WallTime {
        earlier(at, (self.now, self.seen.wall))
    }

    /// The request of this revision, while it stands in etcd.
    fn request(&self, id: OperationId) -> Option<ChangeRequest> {
        let key = self.seen.view.as_ref()?.cluster.failover.as_ref()?;
        (key.mod_revision == id).then(|| ChangeRequest::of(key))
    }

    fn record(&self, term: Term, entry: JournalEntry) -> JournalRecord {
        JournalRecord { term, by: self.seen.me.name.clone(), at: self.seen.wall, entry }
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.decision.actions.iter().filter_map(|action| match action {
            Action::Start(job) => Some(job),
            _ => None,
        })
    }

    fn has_ended(&self, jobs: [JobKind; 2]) -> bool {
        let done = |it: &Finished| jobs.contains(&it.job) && it.outcome == Outcome::Done;
        self.seen.finished.iter().any(done)
    }

    fn serves(&self) -> bool {
        let Some(sql) = self.seen.postgres.answering() else { return false };
        sql.is_primary() || self.seen.settings.standby_cluster.is_some()
    }
}

impl Journal {
    /// Takes note of one decision. `wake_by`: when the tick was to come at the latest.
    pub fn note(
        &mut self,
        seen: &Observation,
        decision: &Decision,
        wake_by: Moment,
        now: Moment,
    ) -> Vec<JournalRecord> {
        let note = Note { seen, decision, now };
        let leadership = Leadership::of(seen, now);
        self.step(&note);
        self.trouble.note(&note, &leadership, wake_by);
        let mut records = Vec::new();
        records.extend(self.end(&note, &leadership));
        self.look(&note, &leadership);
        self.begin(&note, &leadership);
        records.extend(self.serve(&note));
        records.extend(self.refusal(&note, &decision.memory));
        records.extend(discarded(&note, &leadership));
        records
    }

    fn step(&mut self, note: &Note<'_>) {
        let because = &note.decision.because;
        if let Reason::Busy(_) = because {
            return;
        }
        if self.steps.back().is_none_or(|(_, last)| last != because) {
            self.steps.push_back((note.now, because.clone()));
        }
        if STEPS_MAX < self.steps.len() {
            self.steps.pop_front();
        }
    }

    /// The decisions since then, the newest last.
    fn steps_since(&self, note: &Note<'_>, since: Moment) -> Vec<JournalStep> {
        let steps = self.steps.iter().filter(|(at, _)| since <= *at);
        let steps: Vec<_> = steps.map(|(at, because)| step(note.wall(*at), because)).collect();
        let surplus = steps.len().saturating_sub(STEPS_SHOWN_MAX);
        steps.into_iter().skip(surplus).collect()
    }

    /// The steps of a hand-over that began then. `wall` is the time now.
    pub fn hand_over_steps(&self, since: Moment, (now, wall): (Moment, WallTime)) -> Vec<JournalStep> {
        let steps = self.steps.iter().filter(|(at, because)| since <= *at && because.phase().is_some());
        steps.map(|(at, because)| step(earlier(*at, (now, wall)), because)).collect()
    }

    /// When this member last served undisturbed.
    fn served_at(&self) -> Moment {
        let served = self.steps.iter().rposition(|(_, because)| *because == Reason::Leading);
        served.and_then(|index| self.steps.get(index + 1)).map_or(Moment::default(), |(at, _)| *at)
    }

    /// Another member leads, or none does.
    fn look(&mut self, note: &Note<'_>, leadership: &Leadership) {
        match leadership {
            Leadership::Other(leader) | Leadership::FormerSelf(leader) => {
                let before = self.watched.take().filter(|watched| watched.term == leader.term);
                self.watched = Some(WatchedLeader::of(leader, before, note));
                self.vacancy = None;
                self.taking.take_if(|taking| taking.of_term != Some(leader.term));
            }
            Leadership::Nobody if self.vacancy.is_none() => {
                self.vacancy = Some(Vacancy::of(note, self.watched.as_ref()));
            }
            Leadership::Nobody
            | Leadership::Mine(_)
            | Leadership::Expiring(_)
            | Leadership::Unconfirmed
            | Leadership::Unknown => {}
        }
        let failed = |it: &Finished| {
            it.job == JobKind::TakeLeadership && !matches!(it.outcome, Outcome::Done | Outcome::Unknown(_))
        };
        self.taking.take_if(|_| note.seen.finished.iter().any(failed));
        let takes = note.jobs().find_map(|job| match job {
            Job::TakeLeadership { by } => Some(by.deposes),
            _ => None,
        });
        if let Some(deposes) = takes {
            self.taking = Some(Taking::of(note, deposes));
        }
    }

    /// My term begins. A term that only continues another one of mine, because the key moved between leases or was
    /// written anew, is no change of leadership.
    fn begin(&mut self, note: &Note<'_>, leadership: &Leadership) {
        let Leadership::Mine(term) = *leadership else { return };
        match &mut self.leading {
            Some(leading) if leading.is_over && leading.term == term => {}
            Some(leading) => (leading.term, leading.is_over) = (term, false),
            None => {
                let facts = (self.watched.take(), self.vacancy.take(), self.taking.take());
                let since = began::since(note, &facts);
                let pending = began::term(note, facts, self.steps_since(note, since));
                self.leading = Some(LeadingIn {
                    term,
                    since: note.now,
                    pending: Some(Box::new(pending)),
                    gives: None,
                    request: None,
                    is_over: false,
                    position: Lsn(0),
                });
            }
        }
        let Some(leading) = &mut self.leading else { return };
        if let Some(sql) = note.seen.postgres.answering() {
            leading.position = sql.lsn();
        }
        for job in note.jobs() {
            match job {
                Job::HandOver { to, .. } => {
                    leading.gives = Some(TermEnd::HandedOver { to: to.clone() });
                    let id = note.decision.memory.hand_over.as_ref().and_then(HandOver::operation);
                    leading.request = id.and_then(|id| note.request(id));
                }
                Job::ReleaseLeadership { .. } => leading.gives = Some(TermEnd::Released),
                Job::ReclaimLeadership { .. } => leading.gives = None,
                _ => {}
            }
        }
    }

    /// PostgreSQL serves: the record of the beginning is complete.
    fn serve(&mut self, note: &Note<'_>) -> Option<JournalRecord> {
        let leading = self.leading.as_mut().filter(|leading| !leading.is_over && note.serves())?;
        let mut began = leading.pending.take()?;
        let (term, since) = (leading.term, leading.since);
        began.steps.extend(self.steps_since(note, since + Duration::from_nanos(1)));
        began.timeline = note.seen.postgres.answering().and_then(|sql| sql.timeline);
        Some(note.record(term, JournalEntry::Began(began)))
    }

    /// A term of mine has ended.
    fn end(&mut self, note: &Note<'_>, leadership: &Leadership) -> Option<JournalRecord> {
        let leading = self.leading.as_ref()?;
        let released = note.has_ended([JobKind::HandOver, JobKind::ReleaseLeadership]);
        let how = match leadership {
            _ if released && !leading.is_over => leading.gives.clone().unwrap_or(TermEnd::Released),
            Leadership::Mine(term) if leading.is_over && *term == leading.term => return None,
            Leadership::Mine(_) | Leadership::Expiring(_) | Leadership::Unconfirmed | Leadership::Unknown => {
                return None;
            }
            Leadership::Other(_) | Leadership::Nobody | Leadership::FormerSelf(_) if leading.is_over => {
                self.leading = None;
                return None;
            }
            Leadership::Other(_) | Leadership::Nobody | Leadership::FormerSelf(_) => {
                let given = leading.gives.clone().filter(|gives| is_shown(gives, leadership));
                given.unwrap_or_else(|| ended::how(note, leadership, &self.trouble))
            }
        };
        let term = leading.term;
        let entry = ended::term(
            how,
            note,
            &self.trouble,
            (leading.request.clone(), leading.position),
            self.steps_since(note, self.trouble.since(self.served_at())),
        );
        self.watched = Some(WatchedLeader::myself(term, note, leading.position));
        (self.vacancy, self.taking) = (None, None);
        match (released, &mut self.leading) {
            (true, Some(leading)) => leading.is_over = true,
            (_, leading) => *leading = None,
        }
        self.trouble = Trouble::default();
        Some(note.record(term, JournalEntry::Ended(Box::new(entry))))
    }

    /// A hand-over of mine does not happen.
    fn refusal(&mut self, note: &Note<'_>, memory: &Memory) -> Option<JournalRecord> {
        let before = std::mem::replace(&mut self.refused, memory.hand_over_refused.clone());
        // The request is cleared in the same tick, and again later if it still exists.
        let cleared = memory.failover_done.filter(|(_, at)| *at == note.now).map(|(id, _)| id);
        let request = cleared.filter(|id| self.refused_request != Some(*id)).and_then(|id| note.request(id));
        let again = request.is_some() && matches!(note.decision.because, Reason::HandOverRefused(_));
        let is_new = |why: &&HandOverRefusal| again || before.as_ref() != Some(*why);
        let why = self.refused.as_ref().filter(is_new)?;
        self.refused_request = request.as_ref().and_then(|request| request.id).or(self.refused_request);
        let term = self.leading.as_ref()?.term;
        let why = short_sentence(&why.to_string());
        let steps = self.steps_since(note, self.served_at());
        Some(note.record(term, JournalEntry::Refused { why, request, steps }))
    }
}

fn earlier(at: Moment, (now, wall): (Moment, WallTime)) -> WallTime {
    WallTime(wall.0 - i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX))
}

fn step(at: WallTime, because: &Reason) -> JournalStep {
    JournalStep { phase: because.phase(), ..JournalStep::new(at, &because.to_string()) }
}

/// Whether etcd shows what giving the key away leads to.
fn is_shown(gives: &TermEnd, leadership: &Leadership) -> bool {
    match (gives, leadership) {
        (TermEnd::HandedOver { to }, Leadership::Other(leader)) => leader.name == *to,
        (TermEnd::Released, Leadership::Nobody | Leadership::Other(_)) => true,
        (_, _) => false,
    }
}

/// I discard WAL of mine that the leader does not have.
fn discarded(note: &Note<'_>, leadership: &Leadership) -> Option<JournalRecord> {
    let Leadership::Other(leader) = leadership else { return None };
    let fork = note.jobs().find_map(|job| match job {
        Job::Rewind { fork: (_, from), .. } => Some(*from),
        _ => None,
    })?;
    let to = note.seen.postgres.control().map(|control| control.checkpoint.max(control.min_recovery))?;
    Some(note.record(leader.term, JournalEntry::Discarded { from: fork, to: to.max(fork) }))
}
