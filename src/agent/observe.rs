//! Gathers one tick's observation. Every look has a deadline, and none of them can hold up the lease.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{
    DataDirectory, JobKind, LeaseFacts, Moment, PostgresFacts, Process, SqlFacts, TimelineHistory,
};
use crate::os::clock;
use crate::postgres::{Postgres, Probe};

/// A tick waits this long for Postgres; a slower answer counts as none, and the next tick asks again.
const LOOK_WITHIN: Duration = Duration::from_millis(1500);
/// A look younger than this is not repeated: ticks come in bursts.
const LOOK_FRESH: Duration = Duration::from_millis(10);
/// A tick waits this long for the data directory.
const DATA_WITHIN: Duration = Duration::from_secs(1);
/// The data directory of a stopped Postgres is read again after this.
const DATA_FRESH: Duration = Duration::from_secs(5);

/// What is known of the local Postgres, kept between ticks.
pub(super) struct PostgresWatch {
    postgres: Postgres,
    probe: Probe,
    data: DataDirectory,
    history: TimelineHistory,
    data_seen_at: Option<Moment>,
    sql: Option<SqlFacts>,
    sql_trouble: Option<String>,
    turned_away_since: Option<Moment>,
    sql_asked_at: Option<Moment>,
    pid: Option<i32>,
    pending_restart: BTreeMap<String, (String, String)>,
    pending_asked_at: Option<Moment>,
    unsynchronous: Vec<String>,
    /// How far recovery was when it last advanced, and when that was.
    recovered: Option<(String, Moment)>,
}

impl PostgresWatch {
    pub(super) fn new(postgres: Postgres, probe: Probe) -> PostgresWatch {
        PostgresWatch {
            postgres,
            probe,
            data: DataDirectory::Unknown,
            history: TimelineHistory::default(),
            data_seen_at: None,
            sql: None,
            sql_trouble: None,
            turned_away_since: None,
            sql_asked_at: None,
            pid: None,
            pending_restart: BTreeMap::new(),
            pending_asked_at: None,
            unsynchronous: Vec::new(),
            recovered: None,
        }
    }

    /// The directory may have changed: read it at the next tick.
    pub(super) fn forget_data(&mut self) {
        self.data_seen_at = None;
        self.pending_asked_at = None;
    }

    /// The thread in which Postgres proves that it works.
    pub(super) fn probe(&self) -> &Probe {
        &self.probe
    }

    /// When Postgres was last asked.
    pub(super) fn asked_at(&self) -> Option<Moment> {
        self.sql_asked_at
    }

    /// When recovery was last seen to advance.
    pub(super) fn recovered_at(&self) -> Option<Moment> {
        self.recovered.as_ref().map(|(_, at)| *at)
    }

    /// A server that does not answer yet shows from outside whether its recovery goes on.
    fn watch_recovery(&mut self) {
        let reached = self.sql.is_none().then(|| self.postgres.recovery_mark()).flatten();
        self.recovered = match (reached, self.recovered.take()) {
            (Some(reached), Some((before, at))) if reached == before => Some((before, at)),
            (Some(reached), _) => Some((reached, clock::now())),
            (None, _) => None,
        };
    }

    /// Looks as far as the running `job` and the age of the last look ask for it; `anew` whatever its age. In a `hurry`
    /// what can wait is left for the next time.
    pub(super) async fn look(
        &mut self,
        job: Option<JobKind>,
        (anew, hurry): (bool, bool),
        pending_every: Duration,
    ) -> PostgresFacts {
        let process = self.postgres.process().borrow().clone();
        let pid = match &process {
            Process::Up { pid, .. } => Some(*pid),
            Process::Down { .. } => None,
        };
        if pid != self.pid {
            self.pid = pid;
            (self.sql, self.sql_trouble, self.sql_asked_at) = (None, None, None);
            self.turned_away_since = None;
            self.forget_data();
        }
        match (pid, job) {
            (Some(_), Some(JobKind::Stop)) => self.sql_trouble = Some("it is being stopped".to_owned()),
            (Some(_), Some(JobKind::StartStandby)) => {
                self.sql_trouble = Some("it is being started".to_owned())
            }
            (Some(_), _) => self.ask((anew, hurry), pending_every).await,
            (None, _) => self.pending_restart.clear(),
        }
        self.watch_recovery();
        // Only these rewrite the directory; while they run, its state is theirs to know.
        let rewritten = matches!(job, Some(JobKind::Bootstrap | JobKind::Clone | JobKind::Rewind));
        let now = clock::now();
        let stale = match pid {
            Some(_) => self.data_seen_at.is_none(),
            None => self.data_seen_at.is_none_or(|at| at + DATA_FRESH <= now),
        };
        if stale && !rewritten {
            let looked = tokio::time::timeout(DATA_WITHIN, self.postgres.look()).await;
            match (looked, pid) {
                // A look that failed says nothing about a Postgres that runs: what was known stays.
                (Ok((DataDirectory::Ready(control), history)), _) => {
                    (self.data, self.history) = (DataDirectory::Ready(control), history);
                    self.data_seen_at = Some(now);
                }
                (Ok((data, history)), None) => {
                    (self.data, self.history) = (data, history);
                    self.data_seen_at = Some(now);
                }
                // What was read before it went down may be less than lies there now.
                (Err(_), None) if self.data_seen_at.is_none() => self.data = DataDirectory::Unknown,
                (Ok(_), Some(_)) | (Err(_), _) => {}
            }
        }
        PostgresFacts {
            data: self.data.clone(),
            process,
            sql: self.sql.clone(),
            sql_trouble: self.sql_trouble.clone(),
            turned_away_since: self.turned_away_since,
            history: self.history.clone(),
            pending_restart: self.pending_restart.clone(),
            liveness: self.probe.facts(),
            sync_owner: self.postgres.sync_owner(),
            gated: self.postgres.is_gated(),
            unsynchronous: self.unsynchronous.clone(),
            access: self.postgres.access(),
        }
    }

    async fn ask(&mut self, (anew, hurry): (bool, bool), pending_every: Duration) {
        let now = clock::now();
        if !anew && self.sql_asked_at.is_some_and(|at| now < at + LOOK_FRESH) {
            return;
        }
        self.sql_asked_at = Some(now);
        let timeline = self.sql.as_ref().and_then(|sql| sql.timeline);
        let looked = tokio::time::timeout(LOOK_WITHIN, self.postgres.sql_facts()).await;
        let turned_away = matches!(&looked, Ok(Err(error)) if error.is_turned_away());
        self.turned_away_since = self.turned_away_since.or(Some(now)).filter(|_| turned_away);
        match looked {
            Ok(Ok(sql)) => {
                if sql.timeline != timeline {
                    self.forget_data();
                }
                (self.sql, self.sql_trouble) = (Some(sql), None);
            }
            Ok(Err(error)) => self.sql_trouble = Some(error.chain()),
            Err(_) => self.sql_trouble = Some(format!("no answer within {} ms", LOOK_WITHIN.as_millis())),
        }
        let due = self.pending_asked_at.is_none_or(|at| at + pending_every <= now);
        if due && !hurry && self.sql_trouble.is_none() {
            let pending = tokio::time::timeout(LOOK_WITHIN, self.postgres.pending_restart()).await;
            if let Ok(Ok(pending)) = pending {
                self.pending_restart = pending;
                self.pending_asked_at = Some(now);
            }
            let weak = tokio::time::timeout(LOOK_WITHIN, self.postgres.unsynchronous()).await;
            if let Ok(Ok(weak)) = weak {
                if weak != self.unsynchronous && !weak.is_empty() {
                    tracing::info!(
                        whose = weak.join(", "),
                        "synchronous_commit makes commits wait for no standby"
                    );
                }
                self.unsynchronous = weak;
            }
        }
    }
}

/// What the lease's task last said; nothing before there is one.
pub(super) fn lease_facts(keeper: Option<&crate::etcd::LeaseKeeper>) -> LeaseFacts {
    keeper.map(|keeper| keeper.facts().borrow().clone()).unwrap_or_default()
}
