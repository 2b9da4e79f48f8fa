//! The known facts about the local PostgreSQL, and the times of the next queries.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Levels, LookAnswer};
use crate::model::{DataDirectory, JobKind, Moment, PostgresFacts, Process, SqlFacts, TimelineHistory};

/// A look younger than this is not repeated: events come in bursts.
const FRESH_FOR: Duration = Duration::from_millis(10);
/// The data directory of a stopped PostgreSQL is read again after this.
const DATA_FRESH_FOR: Duration = Duration::from_secs(5);

/// A decision waits this long for a look. One that takes longer goes on while decisions are made without it, to which
/// PostgreSQL is one that does not answer: it is longer than a PostgreSQL that works may take.
pub(super) const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// And so much longer where what can wait is asked for as well.
pub(super) const PENDING_PATIENCE: Duration = Duration::from_secs(3);

/// An answer of PostgreSQL that takes longer counts as none, and the next look asks again.
pub const LOOK_WITHIN: Duration = Duration::from_millis(1500);
/// The same for the data directory.
pub const DATA_WITHIN: Duration = Duration::from_secs(1);
/// PostgreSQL is asked when the statements that were decided before are over. Where this time has passed it counts as
/// one that does not answer.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// One look. An answer names the look that it belongs to, and with it the postmaster that was asked: what a postmaster
/// says that was replaced meanwhile does not count, and neither does what was asked before a long action ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookId {
    number: u64,
    postmaster: Option<PostmasterId>,
}

/// One run of PostgreSQL: a process number may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PostmasterId {
    pid: i32,
    since: Moment,
}

/// PostgreSQL's answer.
#[derive(Clone, Debug)]
pub struct AskedPostgres {
    /// Its state.
    pub sql: Result<SqlFacts, PostgresTrouble>,
    /// Per parameter the old and the new value that needs a restart, where it was asked for and answered.
    pub pending_restart: Option<BTreeMap<String, (String, String)>>,
    /// Roles and databases whose commits wait for no standby, where it was asked for and answered.
    pub unsynchronous: Option<Vec<String>>,
}

impl AskedPostgres {
    /// It gave no answer.
    pub fn silent(why: String) -> AskedPostgres {
        let trouble = PostgresTrouble { turned_away: false, why };
        AskedPostgres { sql: Err(trouble), pending_restart: None, unsynchronous: None }
    }
}

/// Why PostgreSQL gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTrouble {
    /// For operators.
    pub why: String,
    /// The server turns everybody away although it neither recovers nor is full.
    pub turned_away: bool,
}

/// What is asked for next.
pub(super) enum Look {
    Prepare,
    Ask { pending: bool },
    Read,
    Awaits,
    Over,
}

/// How far the look under way is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LookProgress {
    #[default]
    Over,
    ToPrepare,
    Preparing,
    ToPlan,
    ToAsk {
        pending: bool,
    },
    Asking {
        pending: bool,
    },
    ToRead,
    Reading,
    Looked,
}

/// How a look is made.
pub(super) struct LookPlan {
    /// The long action of PostgreSQL under way.
    pub(super) job: Option<JobKind>,
    /// Whatever the age of the last look.
    pub(super) anew: bool,
    /// What can wait is left for the next time.
    pub(super) hurry: bool,
    /// How often what can wait is asked for.
    pub(super) pending_every: Duration,
    pub(super) now: Moment,
}

/// What is known, and from when.
#[derive(Default)]
pub(super) struct Looks {
    id: LookId,
    progress: LookProgress,
    begun_at: Moment,
    /// When the newest look began that is over.
    looked_at: Option<Moment>,
    data: DataDirectory,
    history: TimelineHistory,
    data_seen_at: Option<Moment>,
    sql: Option<SqlFacts>,
    sql_trouble: Option<String>,
    turned_away_since: Option<Moment>,
    asked_at: Option<Moment>,
    /// Nothing was ordered since that would change the answer.
    fresh: bool,
    /// The question that is open was asked then.
    asking_at: Option<Moment>,
    pending_restart: BTreeMap<String, (String, String)>,
    pending_asked_at: Option<Moment>,
    unsynchronous: Vec<String>,
}

impl Looks {
    pub(super) fn asked_at(&self) -> Option<Moment> {
        self.asked_at
    }

    pub(super) fn looked_at(&self) -> Option<Moment> {
        self.looked_at
    }

    pub(super) fn id(&self) -> LookId {
        self.id
    }

    /// A decision waits for the look under way until then.
    pub(super) fn patience_ends_at(&self) -> Moment {
        let asks_pending = self.progress == LookProgress::Asking { pending: true };
        self.begun_at + LOOK_PATIENCE + if asks_pending { PENDING_PATIENCE } else { Duration::ZERO }
    }

    /// What PostgreSQL said may not be so any more: the next look asks it however young the answer is.
    pub(super) fn outdate(&mut self) {
        self.fresh = false;
    }

    pub(super) fn forget_data(&mut self) {
        self.data_seen_at = None;
        self.pending_asked_at = None;
    }

    /// No answer is awaited.
    pub(super) fn is_over(&self) -> bool {
        self.progress == LookProgress::Over
    }

    /// What is known was said of another postmaster than runs now.
    pub(super) fn is_of_another(&self, process: &Process) -> bool {
        self.id.postmaster != postmaster(process)
    }

    /// Begins a look; one that is under way is given up.
    pub(super) fn begin(&mut self, process: &Process, now: Moment) {
        (self.progress, self.begun_at, self.asking_at) = (LookProgress::ToPrepare, now, None);
        self.id.number += 1;
        if self.is_of_another(process) {
            self.id.postmaster = postmaster(process);
            (self.sql, self.sql_trouble, self.asked_at, self.turned_away_since) = (None, None, None, None);
            self.forget_data();
        }
    }

    /// Takes an answer, unless it belongs to another look.
    pub(super) fn take(&mut self, look: LookId, answer: LookAnswer, process: &Process, now: Moment) {
        match answer {
            _ if look != self.id => {}
            LookAnswer::Prepared { changed } => self.prepared(changed),
            LookAnswer::PostgresAnswered(asked) => self.answered(*asked),
            LookAnswer::DataDirectoryRead(read) => self.read(read, process, now),
        }
    }

    /// PostgreSQL has the newest parameters; `changed`: they are others than before.
    fn prepared(&mut self, changed: bool) {
        if self.progress == LookProgress::Preparing {
            self.progress = LookProgress::ToPlan;
        }
        if changed {
            self.forget_data();
        }
    }

    /// What is asked for next.
    pub(super) fn next(&mut self, plan: &LookPlan) -> Look {
        if self.progress == LookProgress::ToPlan {
            self.progress = self.plan(plan);
        }
        match self.progress {
            LookProgress::Preparing | LookProgress::Asking { .. } | LookProgress::Reading => Look::Awaits,
            LookProgress::ToPrepare => {
                self.progress = LookProgress::Preparing;
                Look::Prepare
            }
            LookProgress::ToAsk { pending } => {
                (self.progress, self.asking_at) = (LookProgress::Asking { pending }, Some(plan.now));
                self.fresh = true;
                Look::Ask { pending }
            }
            LookProgress::ToRead if self.is_stale(plan) => {
                self.progress = LookProgress::Reading;
                Look::Read
            }
            LookProgress::ToPlan | LookProgress::ToRead | LookProgress::Looked | LookProgress::Over => {
                (self.progress, self.looked_at) = (LookProgress::Over, Some(self.begun_at));
                Look::Over
            }
        }
    }

    /// As far as the running job and the age of the last look ask for it.
    fn plan(&mut self, plan: &LookPlan) -> LookProgress {
        match (self.id.postmaster, plan.job) {
            (Some(_), Some(JobKind::Stop)) => self.sql_trouble = Some("it is being stopped".to_owned()),
            (Some(_), Some(JobKind::StartStandby)) => {
                self.sql_trouble = Some("it is being started".to_owned());
            }
            (Some(_), _) => {
                let fresh = self.fresh && self.asked_at.is_some_and(|at| plan.now < at + FRESH_FOR);
                if plan.anew || !fresh {
                    let due = self.pending_asked_at.is_none_or(|at| at + plan.pending_every <= plan.now);
                    return LookProgress::ToAsk { pending: due && !plan.hurry };
                }
            }
            (None, _) => self.pending_restart.clear(),
        }
        LookProgress::ToRead
    }

    /// Only some jobs rewrite the directory; while they run, its state is theirs to know.
    fn is_stale(&self, plan: &LookPlan) -> bool {
        let rewritten = matches!(plan.job, Some(JobKind::Bootstrap | JobKind::Clone | JobKind::Rewind));
        let stale = match self.id.postmaster {
            Some(_) => self.data_seen_at.is_none(),
            None => self.data_seen_at.is_none_or(|at| at + DATA_FRESH_FOR <= plan.now),
        };
        stale && !rewritten
    }

    fn answered(&mut self, answer: AskedPostgres) {
        self.progress = LookProgress::ToRead;
        self.asked_at = self.asking_at.take();
        let turned_away = matches!(&answer.sql, Err(trouble) if trouble.turned_away);
        self.turned_away_since = self.turned_away_since.or(self.asked_at).filter(|_| turned_away);
        match answer.sql {
            Ok(sql) => {
                if sql.timeline != self.sql.as_ref().and_then(|sql| sql.timeline) {
                    self.forget_data();
                }
                (self.sql, self.sql_trouble) = (Some(sql), None);
            }
            Err(trouble) => self.sql_trouble = Some(trouble.why),
        }
        if let Some(pending) = answer.pending_restart {
            self.pending_restart = pending;
            self.pending_asked_at = self.asked_at;
        }
        self.unsynchronous = answer.unsynchronous.unwrap_or_else(|| std::mem::take(&mut self.unsynchronous));
    }

    fn read(&mut self, read: Option<(DataDirectory, TimelineHistory)>, process: &Process, now: Moment) {
        let up = matches!(process, Process::Up { .. });
        // What is known is from before something changed: no decision rests on it beside what PostgreSQL says now.
        self.progress = match read {
            None if up && self.data_seen_at.is_none() => LookProgress::ToRead,
            Some(_) | None => LookProgress::Looked,
        };
        match read {
            // A look that failed says nothing about a PostgreSQL that runs: what was known stays.
            Some((data, history)) if !up || matches!(data, DataDirectory::Ready(_)) => {
                (self.data, self.history, self.data_seen_at) = (data, history, Some(now));
            }
            // What was read before it went down may be less than lies there now.
            None if !up && self.data_seen_at.is_none() => self.data = DataDirectory::Unknown,
            Some(_) | None => {}
        }
    }

    /// What is known. While a look is under way PostgreSQL counts as one that does not answer.
    pub(super) fn facts(&self, levels: &Levels) -> PostgresFacts {
        let up = matches!(levels.process, Process::Up { .. });
        let silent = (up && !self.is_over()).then(|| "it has not answered yet".to_owned());
        let lost = !up && !self.is_over() && self.data_seen_at.is_none();
        PostgresFacts {
            data: if lost { DataDirectory::Unknown } else { self.data.clone() },
            process: levels.process.clone(),
            sql: self.sql.clone(),
            sql_trouble: self.sql_trouble.clone().or(silent),
            turned_away_since: self.turned_away_since,
            history: self.history.clone(),
            pending_restart: self.pending_restart.clone(),
            liveness: levels.liveness.clone(),
            unsynchronous: self.unsynchronous.clone(),
            clients_locked_out: levels.clients_locked_out,
            sync_owner: levels.sync_owner.clone(),
            access: levels.access.clone(),
        }
    }
}

fn postmaster(process: &Process) -> Option<PostmasterId> {
    match *process {
        Process::Up { pid, since, .. } => Some(PostmasterId { pid, since }),
        Process::Down { .. } => None,
    }
}
