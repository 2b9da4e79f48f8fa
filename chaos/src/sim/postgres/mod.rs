//! A PostgreSQL: a data directory, and the server that runs on it.
//!
//! WAL is a list of records with positions and timelines; a commit is one of them. A server starts as a standby,
//! replays what it has, receives what its source sends, is promoted by a file and a signal, and loses with a crash what
//! it had not flushed. A primary acknowledges a commit when it is flushed here and by as many of the standbys named in
//! `synchronous_standby_names` as that asks for.
//!
//! Not modelled: queries on standbys, segments (WAL is kept for ever), archives, logical replication, single processes.

use std::collections::BTreeMap;

use matriarch::model::{Lsn, SlotFacts, SqlFacts, Standby, Timeline, WalReceiver};

use super::executor::Pid;
use super::signal::Signal;
use super::world::{Machine, Sim, name_of};

pub(crate) mod commit;
pub(crate) mod continued;
pub(crate) mod disk;
pub(crate) mod life;
pub(crate) mod mend;
pub(crate) mod roles;
pub(crate) mod stream;
pub(crate) mod sync;

/// How far a running server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Recovery has not reached consistency: no connections.
    Starting,
    Standby,
    /// It accepts writes.
    Primary,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug)]
pub(crate) struct Walsender {
    pub(crate) connection: u64,
    pub(crate) flushed: u64,
    pub(crate) replayed: u64,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) pid: Pid,
    /// As the operating system numbers it.
    pub(crate) number: i32,
    pub(crate) phase: Phase,
    pub(crate) replayed: u64,
    /// Flushed by the WAL receiver since the start; zero before the first.
    pub(crate) received: u64,
    /// Replay has come to the end of what lay here at the start.
    pub(crate) read_all: bool,
    pub(crate) streams_from: Option<usize>,
    pub(crate) follow: Option<(usize, Option<String>)>,
    /// It was started as the primary that it was, without a signal file.
    pub(crate) as_primary: bool,
    /// It waits before it becomes the postmaster.
    pub(crate) held: bool,
    pub(crate) promote_signalled: bool,
    pub(crate) stopping: bool,
    pub(crate) sync: sync::Sync,
    pub(crate) senders: BTreeMap<usize, Walsender>,
    /// Something in here changed.
    pub(crate) changed: Signal,
}

impl Server {
    pub(crate) fn new(pid: Pid, number: i32, follow: Option<(usize, Option<String>)>) -> Server {
        Server {
            pid,
            number,
            phase: Phase::Starting,
            replayed: 0,
            received: 0,
            read_all: false,
            streams_from: None,
            follow,
            as_primary: false,
            held: false,
            promote_signalled: false,
            stopping: false,
            sync: sync::Sync::default(),
            senders: BTreeMap::new(),
            changed: Signal::default(),
        }
    }

    /// True while clients' writes are taken.
    pub(crate) fn is_writable(&self) -> bool {
        self.phase == Phase::Primary && !self.stopping
    }
}

/// A position of an empty log is written as one: zero means "unknown".
fn lsn(position: u64) -> Lsn {
    Lsn(position)
}

impl Machine {
    /// What one query shows, if the server answers.
    pub(crate) fn sql_facts(&self, at: matriarch::model::Moment) -> Option<SqlFacts> {
        let open = |server: &&Server| server.phase != Phase::Starting && !server.stopping;
        let server = self.server.as_ref().filter(open)?;
        let wal = &self.disk.wal;
        let primary = server.phase == Phase::Primary;
        let standby = match primary {
            true => Standby::No,
            false => Standby::Yes {
                received: lsn(server.received),
                replayed: lsn(server.replayed),
                replayed_timestamp: None,
                paused: false,
                receiver: server.streams_from.map(|source| WalReceiver {
                    status: "streaming".to_owned(),
                    host: Some(name_of(source).to_string()),
                    port: Some(5432),
                    slot: None,
                    latest_end: lsn(server.received),
                }),
                restores: false,
            },
        };
        let timeline = match (primary, server.received) {
            (true, _) => wal.timeline,
            (false, 0) => wal.timeline_at(server.replayed),
            (false, received) => wal.timeline_at(received.max(server.replayed)),
        };
        let slot = |name: &String| {
            let facts = SlotFacts {
                kind: "physical".to_owned(),
                position: Some(lsn(self.disk.flushed)),
                restart: Some(lsn(self.disk.flushed)),
                ..SlotFacts::default()
            };
            (name.clone(), facts)
        };
        Some(SqlFacts {
            at,
            server_version: 170_000,
            postmaster_start_time: String::new(),
            timeline: Some(Timeline(timeline)),
            standby,
            flushed: if primary { lsn(self.disk.flushed) } else { Lsn(0) },
            slots: self.disk.slots.iter().map(slot).collect(),
            sync: self.sync_facts(server),
            replication: Vec::new(),
            is_detached: server.follow.is_none() && server.streams_from.is_none(),
        })
    }
}

impl Sim {
    /// True while a server of that number runs there.
    pub(crate) fn runs(&self, member: usize, number: i32) -> bool {
        self.world().machines[member].server.as_ref().is_some_and(|server| server.number == number)
    }
}
