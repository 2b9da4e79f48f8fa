//! The probe: a thread of its own in which a Postgres that may be primary proves again and again that it works; the
//! leader of a standby cluster proves all but the write.
//!
//! * **A new connection**, as far as the first answer of the process that was forked for it (`connection_probe`).
//! * **A small flushed write**: one sector beside the WAL, flushed (`storage`), and a look at the WAL over a kept
//!   connection. Where something waits to be flushed and nothing was since the last look, a transaction of ours is
//!   written and flushed. An idle cluster gets no WAL from the probe: it would be archived, and flushed by standbys,
//!   for ever. No standby is waited for, and no table is needed.
//! * **Its processes run**: a stopped checkpointer or walwriter fails neither of the two for a long while.
//!
//! Nothing is judged here: [`crate::model::Liveness`] knows what follows from it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::handle::PostgresInner;
use super::{Error, connection_probe, session, storage};
use crate::model::{
    LivenessFacts, LivenessTiming, LivenessVerdict, Lsn, Moment, Proof, Settings, StoppedPart,
};
use crate::os::error_chain::ErrorChain;
use crate::os::{clock, process};

/// How often the postmaster's children are looked for; in between only those that are known are looked at.
const CHILDREN_EVERY: Duration = Duration::from_secs(2);
/// Not to be logged, not to be cut short, not to wait for a standby, and to write even where nobody else may.
const OPTIONS: &str = "-c synchronous_commit=local -c statement_timeout=0 -c default_transaction_read_only=off \
                       -c log_statement=none -c log_duration=off -c log_min_duration_statement=-1";
const LOOK: &str = "SELECT pg_is_in_recovery(),
    CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END,
    CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END";
const WRITE: &str = "SELECT pg_logical_emit_message(true, 'matriarch', ''::text)";
/// Processes without which a primary does not do its work, by the ends of their titles.
const NEEDED: [&str; 5] = ["checkpointer", "walwriter", "background writer", "startup", "logger"];

/// The handle to the probe's thread. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub struct Probe {
    inner: Arc<PostgresInner>,
    verdict: watch::Receiver<LivenessVerdict>,
}

impl Probe {
    pub(super) fn start(inner: Arc<PostgresInner>) -> Result<Probe, Error> {
        let failed = |source| Error::Spawn { program: "the probe's thread".to_owned(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (verdicts, verdict) = watch::channel(LivenessVerdict::default());
        let probed = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || runtime.block_on(run(&probed, &verdicts)))
            .map_err(failed)?;
        Ok(Probe { inner, verdict })
    }

    /// Changes with the verdict.
    pub fn verdict(&self) -> watch::Receiver<LivenessVerdict> {
        self.verdict.clone()
    }

    /// The last verdict, as [`Self::verdict`] announced it, with the last proofs.
    pub fn facts(&self) -> LivenessFacts {
        let verdict = self.verdict.borrow().clone();
        self.inner.liveness().facts(verdict)
    }

    /// Why the lease must not be renewed now; `None` when it may be. Never waits for anything.
    pub fn withheld(&self) -> Option<String> {
        self.inner.liveness().withheld(clock::now())
    }

    /// Takes over new settings, as [`Liveness::configure`](crate::model::Liveness::configure) does.
    pub fn configure(&self, settings: &Settings, has_voters: bool) {
        self.inner.liveness().configure(settings, has_voters);
    }

    /// The loop runs, and takes its next step at `due` at the latest.
    pub fn loop_runs(&self, due: Moment) {
        self.inner.liveness().loop_runs(due);
    }

    /// The loop has not done what it said for too long.
    pub fn loop_hangs(&self) -> bool {
        self.inner.liveness().loop_hangs(clock::now()).is_some()
    }

    /// This postmaster, if any, is the leader's of a standby cluster: it proves all but a write.
    pub fn lead_standby_cluster(&self, postmaster: Option<i32>) {
        self.inner.liveness().lead_standby_cluster(postmaster);
    }

    /// Lets the lease be renewed until then, whatever the verdict.
    pub fn suspend_liveness_check(&self, until: Moment) {
        self.inner.liveness().suspend_liveness_check(until);
    }
}

async fn run(inner: &PostgresInner, verdicts: &watch::Sender<LivenessVerdict>) {
    tokio::select! {
        () = judge(inner, verdicts) => {}
        () = connect_again_and_again(inner) => {}
        () = write_again_and_again(inner) => {}
        () = verdicts.closed() => {}
    }
}

/// Keeps the record of who is watched and when the probe ran, and looks for stopped processes.
async fn judge(inner: &PostgresInner, verdicts: &watch::Sender<LivenessVerdict>) {
    let mut seen = inner.postmaster.subscribe();
    let mut needed = Needed::default();
    loop {
        let process = seen.borrow_and_update().clone();
        let now = clock::now();
        let (postmaster, every) = {
            let mut liveness = inner.liveness();
            (liveness.look(&process, now), liveness.timing().probe_every())
        };
        if let Some(postmaster) = postmaster {
            needed.list(postmaster, now).await;
            // A postmaster that is stopped is seen at once: all of its processes may be.
            if needed.is_due(every, now) || process::is_stopped(postmaster) {
                let stopped = needed.look(postmaster, now);
                inner.liveness().stopped(postmaster, stopped, now);
            }
        }
        let verdict = inner.liveness().verdict(now);
        verdicts.send_if_modified(|shown| {
            let news = *shown != verdict;
            *shown = verdict;
            news
        });
        // The end of this Postgres, or the beginning of a promotion, is not to be missed.
        let _ = tokio::time::timeout(LivenessTiming::TICK, seen.changed()).await;
    }
}

/// The processes a primary needs, as last seen.
#[derive(Default)]
struct Needed {
    postmaster: i32,
    known: Vec<(i32, String)>,
    listing: Option<JoinHandle<Vec<(i32, String)>>>,
    listed_at: Moment,
    looked_at: Moment,
    found: bool,
}

impl Needed {
    /// Looks for the postmaster's children now and then. Reading the title of a process that hangs may hang, too, so
    /// it is done aside; with another postmaster nothing is known before it is done.
    async fn list(&mut self, postmaster: i32, now: Moment) {
        let another = self.postmaster != postmaster;
        if another {
            *self = Needed {
                postmaster,
                known: vec![(postmaster, "postmaster".to_owned())],
                ..Needed::default()
            };
        }
        if self.listing.is_none() && (another || self.listed_at + CHILDREN_EVERY <= now) {
            self.listed_at = now;
            self.listing = Some(tokio::task::spawn_blocking(move || children(postmaster)));
        }
        if let Some(listing) = self.listing.take_if(|listing| listing.is_finished()) {
            self.known = listing.await.unwrap_or_default();
            self.known.push((postmaster, "postmaster".to_owned()));
        }
    }

    /// Rarely while all is well, at every tick while one is stopped: it may be let go in between.
    fn is_due(&self, every: Duration, now: Moment) -> bool {
        self.found || self.looked_at + every <= now
    }

    /// What is stopped: of several processes, the first.
    fn look(&mut self, postmaster: i32, now: Moment) -> Option<StoppedPart> {
        self.looked_at = now;
        let stat_of_ours =
            |pid: i32| process::stat(pid).filter(|stat| stat.parent == postmaster || pid == postmaster);
        let ours = self.known.iter().filter_map(|(pid, name)| Some((stat_of_ours(*pid)?, name)));
        let (stopped, running): (Vec<_>, Vec<_>) = ours.partition(|(stat, _)| stat.is_stopped());
        self.found = !stopped.is_empty();
        // The postmaster comes last in the list and first in importance.
        let (_, name) = stopped.last()?;
        let is_whole = running.is_empty() && stopped.len() > 1;
        Some(if is_whole { StoppedPart::Whole } else { StoppedPart::Process((*name).clone()) })
    }
}

fn children(postmaster: i32) -> Vec<(i32, String)> {
    let children = process::children_at_a_glance(postmaster).into_iter();
    children.filter_map(|pid| Some((pid, needed_process(&process::title(pid)?)?))).collect()
}

/// What an operator calls the process of this title, if it is one that a primary needs.
fn needed_process(title: &str) -> Option<String> {
    let title = title.strip_prefix("postgres: ")?.trim_end();
    // `cluster_name` comes first; a startup process says behind its name what it recovers.
    let is = |name: &&&str| {
        title == **name
            || title.ends_with(&format!(": {name}"))
            || (**name == "startup" && (title.starts_with("startup ") || title.contains(": startup ")))
    };
    let io_worker = title.starts_with("io worker ") || title.contains(": io worker ");
    let name = NEEDED.iter().find(is).copied().or(io_worker.then_some("io worker"))?;
    Some(if name == "startup" { "startup process".to_owned() } else { name.to_owned() })
}

/// Waits until there is somebody to prove it.
async fn watched(inner: &PostgresInner, proof: Proof) -> i32 {
    loop {
        let watched = inner.liveness().watched(proof);
        match watched {
            Some(pid) => return pid,
            None => tokio::time::sleep(LivenessTiming::TICK).await,
        }
    }
}

/// Notes how a try ended and waits for the next.
async fn note(inner: &PostgresInner, pid: i32, proof: Proof, began_at: Moment, ended: Result<(), String>) {
    let next_at = inner.liveness().tried((pid, proof), began_at, ended, clock::now());
    clock::sleep_until(next_at).await;
}

fn try_within(inner: &PostgresInner) -> Duration {
    inner.liveness().timing().try_within()
}

fn late(what: &str, within: Duration) -> String {
    format!("{what} takes longer than {:.1} s", within.as_secs_f64())
}

async fn connect_again_and_again(inner: &PostgresInner) {
    loop {
        let pid = watched(inner, Proof::Connection).await;
        let (began_at, within) = (clock::now(), try_within(inner));
        let ended = match tokio::time::timeout(within, connection_probe::probe_connection(inner)).await {
            Ok(ended) => ended,
            Err(_) => Err(late("connecting", within)),
        };
        note(inner, pid, Proof::Connection, began_at, ended).await;
    }
}

// ---- a small flushed write ----

async fn write_again_and_again(inner: &PostgresInner) {
    let mut disk: Option<JoinHandle<Result<(), String>>> = None;
    let mut session = ProbeSession::default();
    loop {
        let pid = watched(inner, Proof::Write).await;
        let (began_at, within) = (clock::now(), try_within(inner));
        let flushed = async {
            // A write that hangs is waited for, and none is begun beside it.
            let writing = disk.get_or_insert_with(|| {
                let data_dir = inner.setup.data_dir.clone();
                tokio::task::spawn_blocking(move || storage::flush(&data_dir))
            });
            match tokio::time::timeout(within, &mut *writing).await {
                Ok(ended) => {
                    disk = None;
                    ended.unwrap_or_else(|error| Err(error.to_string()))
                }
                Err(_) => Err(late("writing a small file", within)),
            }
        };
        let (flushed, written) = tokio::join!(flushed, session.prove(inner, pid, within));
        note(inner, pid, Proof::Write, began_at, flushed.and(written)).await;
    }
}

/// The kept connection, and how far the WAL was flushed when it was last seen.
#[derive(Default)]
struct ProbeSession {
    pid: i32,
    client: Option<Client>,
    flushed: Lsn,
}

impl ProbeSession {
    async fn prove(&mut self, inner: &PostgresInner, pid: i32, within: Duration) -> Result<(), String> {
        if self.pid != pid {
            *self = ProbeSession { pid, ..ProbeSession::default() };
        }
        // Taken out: a connection that failed, or whose answer is still to come, is not used again.
        let kept = self.client.take().filter(|client| !client.is_closed());
        let work = async {
            let client = match kept {
                Some(client) => client,
                None => match self.connect(inner).await? {
                    Some(client) => client,
                    None => return Ok(()),
                },
            };
            self.write(&client).await.map_err(|error| error.chain())?;
            self.client = Some(client);
            Ok(())
        };
        match tokio::time::timeout(within, work).await {
            Ok(ended) => ended,
            Err(_) => Err(late("a flushed write", within)),
        }
    }

    /// `None`: there is no session to be had, for a reason that says nothing about writing. The disk has to do.
    async fn connect(&self, inner: &PostgresInner) -> Result<Option<Client>, String> {
        let error = match session::open(inner, "Matriarch probe", OPTIONS).await {
            Ok(client) => return Ok(Some(client)),
            Err(error) => error,
        };
        let code = error.refused_with();
        let recovers = code == Some(&SqlState::CANNOT_CONNECT_NOW) && !inner.liveness().has_written(self.pid);
        let full = code == Some(&SqlState::TOO_MANY_CONNECTIONS);
        let locked_out = code.is_some_and(|code| code.code().starts_with("28"));
        if recovers || full || locked_out { Ok(None) } else { Err(error.chain()) }
    }

    /// Nothing waits to be flushed, or something was since the last look, or a transaction of ours is.
    async fn write(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let rows = client.simple_query(LOOK).await?;
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _other => None,
        });
        let lsn = |column: usize| row.and_then(|row| row.get(column)?.parse::<Lsn>().ok());
        let (inserted, flushed) = (lsn(1), lsn(2).unwrap_or_default());
        let in_recovery = row.and_then(|row| row.get(0)) == Some("t");
        let before = std::mem::replace(&mut self.flushed, flushed);
        let moved = before.is_known() && before < flushed;
        if in_recovery || moved || inserted == Some(flushed) {
            return Ok(());
        }
        client.simple_query(WRITE).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_processes_a_primary_needs() {
        for (title, expected) in [
            ("postgres: checkpointer ", Some("checkpointer")),
            ("postgres: herd: walwriter", Some("walwriter")),
            ("postgres: my herd: background writer ", Some("background writer")),
            ("postgres: herd: startup recovering 000000010000000000000003", Some("startup process")),
            ("postgres: io worker 0", Some("io worker")),
            ("postgres: herd: postgres postgres 127.0.0.1(50000) idle", None),
            ("postgres: checkpointer postgres [local] idle", None),
            ("sleep 60", None),
        ] {
            assert_eq!(needed_process(title).as_deref(), expected, "{title}");
        }
    }
}
