//! Naming the situation: who leads, what my Postgres is, and so which rule applies.

use serde::{Deserialize, Serialize};

use crate::model::{
    ControlFile, DataDirectory, Death, LeaderKey, Leading, LeaseTiming, Moment, Observation, PostgresFacts,
    Process, SqlFacts, Term,
};

/// Who leads, as far as I can know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leadership {
    /// My lease holds the leader key, with time to spare.
    Mine(Term),
    /// It does as far as I know, but renewals have failed for so long that a primary must stop.
    Expiring(Term),
    /// The view shows the key under my lease; the renewal that confirms it is on its way.
    Unconfirmed,
    /// My name under a lease that is not mine: my former self.
    FormerSelf(LeaderKey),
    /// Another member.
    Other(LeaderKey),
    /// Nobody.
    Nobody,
    /// etcd has not been read yet.
    Unknown,
}

impl Leadership {
    /// Combines my lease with the view by revision: a view that is older than my term says nothing about it.
    pub fn of(seen: &Observation, now: Moment) -> Leadership {
        let view = seen.view.as_ref().map(|view| &view.cluster);
        let by_lease = match seen.lease.leading {
            Leading::Yes(term) => Some(term),
            Leading::No | Leading::Unknown => None,
        };
        let Some(term) = by_lease else {
            return match view {
                None => Leadership::Unknown,
                Some(cluster) => Leadership::by_key(seen, cluster.leader.as_ref()),
            };
        };
        let newer = view.filter(|cluster| term.0 <= cluster.revision);
        match newer.map(|cluster| cluster.leader.as_ref()) {
            Some(Some(key)) if key.lease == seen.lease.lease => Leadership::held(seen, key.term, now),
            Some(key) => Leadership::by_key(seen, key),
            None => Leadership::held(seen, term, now),
        }
    }

    fn by_key(seen: &Observation, key: Option<&LeaderKey>) -> Leadership {
        match key {
            None => Leadership::Nobody,
            Some(key) if key.lease.is_some_and(|lease| seen.lease.owns(lease)) => Leadership::Unconfirmed,
            Some(key) if key.name == seen.me.name => Leadership::FormerSelf(key.clone()),
            Some(key) => Leadership::Other(key.clone()),
        }
    }

    fn held(seen: &Observation, term: Term, now: Moment) -> Leadership {
        let timing = LeaseTiming { ttl: seen.lease.ttl };
        match seen.lease.deadline {
            Some(deadline) if now < timing.stop_at(deadline) => Leadership::Mine(term),
            Some(_) | None => Leadership::Expiring(term),
        }
    }
}

/// What my Postgres is.
#[derive(Clone, Debug, PartialEq)]
pub enum Server<'a> {
    /// Not looked at yet.
    Unknown,
    /// No data.
    Empty,
    /// An interrupted bootstrap, clone or rewind.
    HalfMade,
    /// The data directory cannot be read.
    Inaccessible(&'a str),
    /// The data directory is of another cluster.
    Foreign(&'a ControlFile),
    /// Down.
    Down(&'a ControlFile),
    /// A postmaster runs and has not answered yet, or does not answer now.
    Silent,
    /// It accepts writes.
    Primary(&'a SqlFacts),
    /// It replays.
    Standby(&'a SqlFacts),
}

impl<'a> Server<'a> {
    /// Reads the facts; `system_id` is the cluster's, once known.
    pub fn of(postgres: &'a PostgresFacts, system_id: Option<u64>) -> Server<'a> {
        let runs = matches!(postgres.process, Process::Up { .. });
        let control = match &postgres.data {
            // A directory that cannot be read, or looks empty, says nothing about a postmaster that runs.
            DataDirectory::Empty | DataDirectory::HalfMade { .. } | DataDirectory::Inaccessible { .. }
                if runs =>
            {
                return Server::running(postgres);
            }
            DataDirectory::Unknown => return Server::Unknown,
            DataDirectory::Empty => return Server::Empty,
            DataDirectory::HalfMade { .. } => return Server::HalfMade,
            DataDirectory::Inaccessible { error } => return Server::Inaccessible(error),
            DataDirectory::Ready(control) => control,
        };
        if system_id.is_some_and(|cluster| cluster != control.system_id) {
            return Server::Foreign(control);
        }
        if runs { Server::running(postgres) } else { Server::Down(control) }
    }

    fn running(postgres: &'a PostgresFacts) -> Server<'a> {
        match postgres.answering() {
            None => Server::Silent,
            Some(sql) if sql.is_primary() => Server::Primary(sql),
            Some(sql) => Server::Standby(sql),
        }
    }
}

/// The rule that applies. One per line of the table an operator can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is explained by the arm of the table that names it")]
pub enum Situation {
    NotLookedYet,
    ForeignData,
    ExpiringPrimary,
    ExpiringOther,
    DeposedPrimary,
    DeadPrimary,
    KeyVanishedUnderPrimary,
    Confirming,
    FormerSelfLeads,
    LeaderWithoutData,
    LeaderDown,
    LeaderSilent,
    LeaderStandby,
    LeaderPrimary,
    NoDataUnderLeader,
    NoDataNoLeader,
    DataUnreadable,
    DownUnderLeader,
    DownNoLeader,
    SilentFollower,
    StandbyUnderLeader,
    StandbyNoLeader,
    PausedLeaderNotPrimary,
    PausedIdle,
}

impl Situation {
    /// Names the situation; every combination has a name.
    pub fn of(
        leadership: &Leadership,
        server: &Server<'_>,
        postgres: &PostgresFacts,
        paused: bool,
    ) -> Situation {
        if matches!(server, Server::Unknown) {
            return Situation::NotLookedYet;
        }
        let dead = postgres.may_be_primary() && !paused && !matches!(server, Server::Foreign(_));
        let death = postgres.liveness.death().filter(|_| dead);
        match leadership {
            Leadership::Unknown => Situation::NotLookedYet,
            Leadership::Mine(_) if death.is_some() => Situation::DeadPrimary,
            Leadership::Nobody if death.is_some_and(Death::may_be_mended_by_a_restart) => {
                Situation::DeadPrimary
            }
            Leadership::Mine(_) => Situation::mine(server, paused),
            Leadership::Unconfirmed => Situation::Confirming,
            Leadership::Expiring(_) if postgres.may_be_primary() => Situation::ExpiringPrimary,
            Leadership::Expiring(_) => Situation::ExpiringOther,
            Leadership::FormerSelf(_) => Situation::former_self(server, postgres),
            Leadership::Other(_) if postgres.may_be_primary() => Situation::DeposedPrimary,
            Leadership::Other(_) => Situation::under_leader(server, paused),
            Leadership::Nobody => Situation::nobody(server, postgres, paused),
        }
    }

    /// I lead; what its proofs say of my Postgres is left out.
    pub(super) fn mine(server: &Server<'_>, paused: bool) -> Situation {
        match server {
            Server::Unknown => Situation::NotLookedYet,
            Server::Foreign(_) => Situation::ForeignData,
            Server::Primary(_) => Situation::LeaderPrimary,
            Server::Silent => Situation::LeaderSilent,
            Server::Standby(_)
            | Server::Down(_)
            | Server::Empty
            | Server::HalfMade
            | Server::Inaccessible(_)
                if paused =>
            {
                Situation::PausedLeaderNotPrimary
            }
            Server::Standby(_) => Situation::LeaderStandby,
            Server::Down(_) => Situation::LeaderDown,
            Server::Empty | Server::HalfMade | Server::Inaccessible(_) => Situation::LeaderWithoutData,
        }
    }

    fn former_self(server: &Server<'_>, postgres: &PostgresFacts) -> Situation {
        match server {
            Server::Foreign(_) => Situation::ForeignData,
            _other if postgres.may_be_primary() => Situation::DeposedPrimary,
            _other => Situation::FormerSelfLeads,
        }
    }

    fn under_leader(server: &Server<'_>, paused: bool) -> Situation {
        match server {
            Server::Unknown => Situation::NotLookedYet,
            Server::Foreign(_) => Situation::ForeignData,
            Server::Inaccessible(_) => Situation::DataUnreadable,
            Server::Primary(_) => Situation::DeposedPrimary,
            Server::Silent => Situation::SilentFollower,
            Server::Standby(_) => Situation::StandbyUnderLeader,
            Server::Empty | Server::HalfMade | Server::Down(_) if paused => Situation::PausedIdle,
            Server::Empty | Server::HalfMade => Situation::NoDataUnderLeader,
            Server::Down(_) => Situation::DownUnderLeader,
        }
    }

    fn nobody(server: &Server<'_>, postgres: &PostgresFacts, paused: bool) -> Situation {
        match server {
            Server::Unknown => Situation::NotLookedYet,
            Server::Foreign(_) => Situation::ForeignData,
            Server::Inaccessible(_) => Situation::DataUnreadable,
            Server::Primary(_) => Situation::KeyVanishedUnderPrimary,
            Server::Silent if postgres.may_be_primary() => Situation::KeyVanishedUnderPrimary,
            Server::Silent => Situation::SilentFollower,
            // Being promoted, and nobody leads: it may turn primary at any moment.
            Server::Standby(_) if postgres.may_be_primary() => Situation::DeposedPrimary,
            Server::Standby(_) => Situation::StandbyNoLeader,
            Server::Empty | Server::HalfMade | Server::Down(_) if paused => Situation::PausedIdle,
            Server::Empty | Server::HalfMade => Situation::NoDataNoLeader,
            Server::Down(_) => Situation::DownNoLeader,
        }
    }
}
