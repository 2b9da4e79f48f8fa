//! The known facts about the local PostgreSQL, and the times of the next queries.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Levels, LookAnswer};
use crate::model::{
    DataDirectory, JobKind, Moment, PostgresFacts, Process, SqlFacts, Timeline, TimelineHistory,
};

/// A look younger than this is not repeated, because events come in bursts.
const FRESH_FOR: Duration = Duration::from_millis(10);
/// The data directory of a stopped PostgreSQL is read again after this.
const DATA_FRESH_FOR: Duration = Duration::from_secs(5);

/// How long a decision waits for a look. A longer look continues while decisions are made without it; PostgreSQL then
/// counts as one that does not answer. A healthy PostgreSQL answers sooner.
pub(super) const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// The additional time for the less urgent queries.
pub(super) const PENDING_PATIENCE: Duration = Duration::from_secs(3);

/// An answer of PostgreSQL that takes longer counts as none, and the next look asks again.
pub const LOOK_WITHIN: Duration = Duration::from_millis(1500);
/// The same for the data directory.
pub const DATA_WITHIN: Duration = Duration::from_secs(1);
/// PostgreSQL is asked after the statements that were decided before have ended. After this time it counts as one that
/// does not answer.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// One look. An answer names its look, and with it the postmaster. An answer of an earlier postmaster does not count,
/// nor does one to a question from before the end of a long action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookId {
    number: u64,
    postmaster: Option<PostmasterId>,
}

/// One run of PostgreSQL: a process id may be used again.
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
    /// The old and the new value of each parameter that needs a restart, if queried and answered.
    pub pending_restart: Option<BTreeMap<String, (String, String)>>,
    /// Roles and databases whose commits wait for no standby, if queried and answered.
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
    /// The server rejects every connection, although it is neither in recovery nor out of connections.
    pub turned_away: bool,
}

/// The next question.
pub(super) enum Look {
    Prepare,
    Ask { pending: bool },
    Read,
    Awaits,
    Over,
}

/// The progress of the present look.
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

/// The conditions of a look.
pub(super) struct LookPlan {
    /// The long action of PostgreSQL under way.
    pub(super) job: Option<JobKind>,
    /// Whether the age of the last look does not matter.
    pub(super) anew: bool,
    /// Whether the less urgent queries are left for the next look.
    pub(super) hurry: bool,
    /// The interval between the less urgent queries.
    pub(super) pending_every: Duration,
    pub(super) now: Moment,
}

/// The facts, with their times.
#[derive(Default)]
pub(super) struct Looks {
    id: LookId,
    progress: LookProgress,
    begun_at: Moment,
    /// When the newest finished look began.
    looked_at: Option<Moment>,
    data: DataDirectory,
    history: TimelineHistory,
    /// The timeline by SQL when it was read.
    history_of: Option<Timeline>,
    data_seen_at: Option<Moment>,
    sql: Option<SqlFacts>,
    sql_trouble: Option<String>,
    turned_away_since: Option<Moment>,
    asked_at: Option<Moment>,
    /// No order since has changed the answer.
    fresh: bool,
    /// When the open question was asked.
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

    /// When a decision stops waiting for the present look.
    pub(super) fn patience_ends_at(&self) -> Moment {
        let asks_pending = self.progress == LookProgress::Asking { pending: true };
        self.begun_at + LOOK_PATIENCE + if asks_pending { PENDING_PATIENCE } else { Duration::ZERO }
    }

    /// PostgreSQL's answer may be outdated: the next look queries it again, however young the answer is.
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

    /// Whether the facts are of another postmaster than the present one.
    pub(super) fn is_of_another(&self, process: &Process) -> bool {
        self.id.postmaster != postmaster(process)
    }

    /// Begins a look, and abandons the one under way.
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

    /// PostgreSQL has the newest parameters; `changed`: they differ from before.
    fn prepared(&mut self, changed: bool) {
        if self.progress == LookProgress::Preparing {
            self.progress = LookProgress::ToPlan;
        }
        if changed {
            self.forget_data();
        }
    }

    /// The next question.
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

    /// The questions that the running job and the age of the last look require.
    fn plan(&mut self, plan: &LookPlan) -> LookProgress {
        match (self.id.postmaster, plan.job) {
            (Some(_), Some(JobKind::Stop)) => self.sql_trouble = Some("it is being stopped".to_owned()),
            (Some(_), Some(JobKind::StartStandby | JobKind::StartPrimary)) => {
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

    /// Some jobs rewrite the directory; while one runs, the directory is not read.
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
        self.progress = LookProgress::Looked;
        let up = matches!(process, Process::Up { .. });
        match read {
            // A failed read says nothing about a running PostgreSQL: the earlier facts stay.
            Some((data, history)) if !up || matches!(data, DataDirectory::Ready(_)) => {
                (self.data, self.history, self.data_seen_at) = (data, history, Some(now));
                self.history_of = self.sql.as_ref().and_then(|sql| sql.timeline);
            }
            // The content read before it went down may be outdated.
            None if !up && self.data_seen_at.is_none() => self.data = DataDirectory::Unknown,
            Some(_) | None => {}
        }
    }

    /// The facts. During a look PostgreSQL counts as one that does not answer.
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
            history_of: self.history_of,
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
