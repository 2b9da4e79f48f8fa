//! The name of the situation: the leader, the state of the local Postgres, the running actions, and so the rule that
//! applies.

use super::leadership::Leadership;
use super::server::Server;
use super::shutdown;
use super::tick::Tick;
use crate::model::{
    ControlFile, Death, JobKind, LeaderKey, PodEnd, PostgresFacts, Reason, RunningJob, SqlFacts, StoreChange,
    Term,
};

/// The input of the table, besides the observation and the memory.
pub(super) struct Assessment<'a> {
    pub(super) leadership: Leadership,
    pub(super) server: Server<'a>,
    /// etcd's store contradicts its earlier state, and no member has recorded that yet.
    pub(super) store_change: Option<StoreChange>,
    /// The cluster is paused, and no operation that an operator asked for is under way.
    pub(super) paused: bool,
    /// All members follow a remote primary.
    pub(super) standby_cluster: bool,
}

impl<'a> Assessment<'a> {
    /// The proof of life that my Postgres lacks as a primary, or as the leader of a standby cluster. In pause, and with
    /// foreign data, a missing proof has no consequences.
    fn death(&self, postgres: &'a PostgresFacts) -> Option<&'a Death> {
        let counts = !self.paused && !matches!(self.server, Server::Foreign(_));
        let leads_standby = self.standby_cluster && self.leadership.mine().is_some();
        postgres.liveness.death().filter(|_| counts && (leads_standby || postgres.may_be_primary()))
    }
}

/// The rule that applies, with its data. One for each line of the table that an operator can read; the comment at its
/// arm of the table explains it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Situation<'a> {
    NotLookedYet,
    ExpiringPrimary,
    DeposedPrimary { by: DeposedBy<'a> },
    StoreWentBack { change: &'a StoreChange },
    DeadPrimary { death: &'a Death, term: Option<Term> },
    JobUnderVanishedKey { running: &'a RunningJob, sql: Option<&'a SqlFacts> },
    CheckpointUnderLeader { running: &'a RunningJob, term: Term, sql: &'a SqlFacts },
    JobRuns { running: &'a RunningJob },
    OverdueShutdown,
    GivingAway { term: Term },
    WatchdogFailed { term: Term },
    ShuttingDown,
    PodEnds { term: Term, end: PodEnd },
    ForeignData { control: &'a ControlFile },
    ExpiringOther,
    KeyVanishedUnderPrimary { sql: Option<&'a SqlFacts> },
    Confirming,
    FormerSelfLeads { key: &'a LeaderKey },
    LeaderWithoutData { term: Term },
    LeaderDown { term: Term, control: &'a ControlFile },
    LeaderSilent { term: Term },
    LeaderStandby { term: Term, sql: &'a SqlFacts },
    LeaderPrimary { term: Term, sql: &'a SqlFacts },
    StandbyClusterPrimary { term: Term },
    StandbyClusterLeaderDown { term: Term, control: &'a ControlFile },
    StandbyClusterLeaderSilent { term: Term },
    StandbyClusterLeader { term: Term, sql: &'a SqlFacts },
    StandbyClusterDownNoLeader { control: &'a ControlFile },
    StandbyClusterNoLeader { sql: &'a SqlFacts },
    NoDataUnderLeader { leader: &'a LeaderKey },
    NoDataNoLeader,
    DataUnreadable { error: &'a str, leader: Option<&'a LeaderKey> },
    DownUnderLeader { leader: &'a LeaderKey, control: &'a ControlFile },
    DownNoLeader { control: &'a ControlFile },
    SilentFollower { leader: Option<&'a LeaderKey> },
    StandbyUnderLeader { leader: &'a LeaderKey, sql: &'a SqlFacts },
    StandbyNoLeader { sql: &'a SqlFacts },
    PausedLeaderNotPrimary { term: Term },
    PausedIdle,
}

/// Why a Postgres that may be primary must stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum DeposedBy<'a> {
    /// Another member leads.
    Leader(&'a LeaderKey),
    /// The leader key has the lease of an earlier supervisor of this member.
    FormerSelf,
    /// It is being promoted, and no member leads.
    Nobody,
}

impl DeposedBy<'_> {
    pub(super) fn reason(self) -> Reason {
        match self {
            DeposedBy::Leader(leader) => Reason::Deposed { leader: leader.name.clone() },
            DeposedBy::FormerSelf => Reason::NotMyLease,
            DeposedBy::Nobody => Reason::LeaseExpiring,
        }
    }
}

impl<'a> Situation<'a> {
    /// Names the situation, the most urgent first. Every combination has a name.
    pub(super) fn of(tick: &Tick<'a>, found: &'a Assessment<'a>) -> Situation<'a> {
        let by_role = Situation::by_role(&tick.seen.postgres, found);
        if by_role.must_stop() {
            return by_role;
        }
        if let Some(change) = &found.store_change {
            return Situation::StoreWentBack { change };
        }
        if let Situation::DeadPrimary { .. } | Situation::StandbyClusterPrimary { .. } = by_role {
            return by_role;
        }
        by_role.unless_under_way(tick, found)
    }

    /// The situation of a leader whose dead Postgres keeps serving, without regard to that.
    pub(super) fn despite_death(tick: &Tick<'a>, found: &'a Assessment<'a>, term: Term) -> Situation<'a> {
        Situation::mine(term, &tick.seen.postgres, found).unless_under_way(tick, found)
    }

    /// Whether no long action may delay it.
    fn must_stop(&self) -> bool {
        matches!(self, Situation::ExpiringPrimary | Situation::DeposedPrimary { .. })
    }

    /// Whether PostgreSQL need not stop now and no long action is under way.
    pub(super) fn is_free(&self) -> bool {
        let job = matches!(
            self,
            Situation::JobUnderVanishedKey { .. }
                | Situation::CheckpointUnderLeader { .. }
                | Situation::JobRuns { .. }
        );
        let urgent = matches!(
            self,
            Situation::StoreWentBack { .. }
                | Situation::DeadPrimary { .. }
                | Situation::StandbyClusterPrimary { .. }
        );
        !job && !urgent && !self.must_stop()
    }

    /// A long action, or an end that has begun, takes precedence over the role.
    fn unless_under_way(self, tick: &Tick<'a>, found: &'a Assessment<'a>) -> Situation<'a> {
        let job = tick.seen.job.as_ref().map(|running| Situation::during(running, found, &self));
        job.or_else(|| Situation::ending(tick, found)).unwrap_or(self)
    }

    fn during(running: &'a RunningJob, found: &'a Assessment<'a>, by_role: &Situation<'a>) -> Situation<'a> {
        if let Situation::KeyVanishedUnderPrimary { sql } = *by_role {
            return Situation::JobUnderVanishedKey { running, sql };
        }
        match (running.job.kind(), &found.leadership, &found.server) {
            (JobKind::Checkpoint, Leadership::Mine(term), Server::Primary(sql)) => {
                Situation::CheckpointUnderLeader { running, term: *term, sql }
            }
            (_, _, _) => Situation::JobRuns { running },
        }
    }

    /// The end of the supervisor, of its pod, or of its leadership has begun.
    fn ending(tick: &Tick<'a>, found: &'a Assessment<'a>) -> Option<Situation<'a>> {
        if shutdown::is_overdue(tick) {
            return Some(Situation::OverdueShutdown);
        }
        let leads = found.leadership.mine();
        let released_term = tick.memory.released_term.as_ref().map(|given| given.term);
        if let Some(term) = leads.filter(|term| released_term == Some(*term)) {
            return Some(Situation::GivingAway { term });
        }
        // A hand-over ends leadership, too, and the leader of a standby cluster needs no watchdog.
        let may_lead = tick.memory.hand_over.is_some() || found.standby_cluster;
        let unwatched = tick.seen.watchdog_failed && !may_lead;
        if let Some(term) = leads.filter(|_| unwatched) {
            return Some(Situation::WatchdogFailed { term });
        }
        if tick.ends() {
            return Some(Situation::ShuttingDown);
        }
        let end = tick.pod_end().filter(|_| tick.writes_refused().is_none());
        leads.zip(end).map(|(term, end)| Situation::PodEnds { term, end })
    }

    /// By the leader and the state of my Postgres alone.
    fn by_role(postgres: &'a PostgresFacts, found: &'a Assessment<'a>) -> Situation<'a> {
        let (server, paused) = (&found.server, found.paused);
        if matches!(server, Server::Unknown) {
            return Situation::NotLookedYet;
        }
        let death = found.death(postgres);
        match &found.leadership {
            Leadership::Unknown => Situation::NotLookedYet,
            Leadership::Mine(term) => match death {
                Some(death) => Situation::DeadPrimary { death, term: Some(*term) },
                None => Situation::mine(*term, postgres, found),
            },
            Leadership::Unconfirmed => Situation::Confirming,
            Leadership::Expiring(_) if postgres.may_be_primary() => Situation::ExpiringPrimary,
            Leadership::Expiring(_) => Situation::ExpiringOther,
            Leadership::FormerSelf(key) => Situation::previous_incarnation(key, server, postgres),
            Leadership::Other(leader) if postgres.may_be_primary() => {
                Situation::DeposedPrimary { by: DeposedBy::Leader(leader) }
            }
            Leadership::Other(leader) => Situation::under_leader(leader, server, paused),
            Leadership::Nobody => match death.filter(|death| death.may_be_mended_by_a_restart()) {
                Some(death) => Situation::DeadPrimary { death, term: None },
                None => Situation::nobody(server, postgres, found),
            },
        }
    }

    /// I lead; the liveness of my Postgres is disregarded.
    fn mine(term: Term, postgres: &PostgresFacts, found: &'a Assessment<'a>) -> Situation<'a> {
        let (paused, standby_cluster) = (found.paused, found.standby_cluster);
        match &found.server {
            Server::Unknown => Situation::NotLookedYet,
            Server::Foreign(control) => Situation::ForeignData { control },
            Server::Primary(_)
            | Server::Silent
            | Server::Standby(_)
            | Server::Down(_)
            | Server::Empty
            | Server::HalfMade
            | Server::Inaccessible(_)
                if standby_cluster && postgres.may_be_primary() =>
            {
                Situation::StandbyClusterPrimary { term }
            }
            Server::Silent if standby_cluster => Situation::StandbyClusterLeaderSilent { term },
            Server::Standby(sql) if standby_cluster => Situation::StandbyClusterLeader { term, sql },
            Server::Primary(sql) => Situation::LeaderPrimary { term, sql },
            Server::Silent => Situation::LeaderSilent { term },
            Server::Standby(_)
            | Server::Down(_)
            | Server::Empty
            | Server::HalfMade
            | Server::Inaccessible(_)
                if paused =>
            {
                Situation::PausedLeaderNotPrimary { term }
            }
            Server::Standby(sql) => Situation::LeaderStandby { term, sql },
            Server::Down(control) if standby_cluster => Situation::StandbyClusterLeaderDown { term, control },
            Server::Down(control) => Situation::LeaderDown { term, control },
            Server::Empty | Server::HalfMade | Server::Inaccessible(_) => {
                Situation::LeaderWithoutData { term }
            }
        }
    }

    fn previous_incarnation(
        key: &'a LeaderKey,
        server: &'a Server<'a>,
        postgres: &PostgresFacts,
    ) -> Situation<'a> {
        match server {
            Server::Foreign(control) => Situation::ForeignData { control },
            Server::Unknown
            | Server::Empty
            | Server::HalfMade
            | Server::Inaccessible(_)
            | Server::Down(_)
            | Server::Silent
            | Server::Primary(_)
            | Server::Standby(_) => match postgres.may_be_primary() {
                true => Situation::DeposedPrimary { by: DeposedBy::FormerSelf },
                false => Situation::FormerSelfLeads { key },
            },
        }
    }

    fn under_leader(leader: &'a LeaderKey, server: &'a Server<'a>, paused: bool) -> Situation<'a> {
        match server {
            Server::Unknown => Situation::NotLookedYet,
            Server::Foreign(control) => Situation::ForeignData { control },
            Server::Inaccessible(error) => Situation::DataUnreadable { error, leader: Some(leader) },
            Server::Primary(_) => Situation::DeposedPrimary { by: DeposedBy::Leader(leader) },
            Server::Silent => Situation::SilentFollower { leader: Some(leader) },
            Server::Standby(sql) => Situation::StandbyUnderLeader { leader, sql },
            Server::Empty | Server::HalfMade | Server::Down(_) if paused => Situation::PausedIdle,
            Server::Empty | Server::HalfMade => Situation::NoDataUnderLeader { leader },
            Server::Down(control) => Situation::DownUnderLeader { leader, control },
        }
    }

    fn nobody(
        server: &'a Server<'a>,
        postgres: &'a PostgresFacts,
        found: &'a Assessment<'a>,
    ) -> Situation<'a> {
        let (paused, standby_cluster) = (found.paused, found.standby_cluster);
        match server {
            Server::Unknown => Situation::NotLookedYet,
            Server::Foreign(control) => Situation::ForeignData { control },
            Server::Inaccessible(error) => Situation::DataUnreadable { error, leader: None },
            Server::Primary(sql) => Situation::KeyVanishedUnderPrimary { sql: Some(sql) },
            // Its last answer counts: silence is no evidence in its favour.
            Server::Silent if postgres.may_be_primary() => Situation::KeyVanishedUnderPrimary {
                sql: postgres.sql.as_ref().filter(|sql| sql.is_primary()),
            },
            Server::Silent => Situation::SilentFollower { leader: None },
            // It is being promoted, and no member leads: it may become primary at any moment.
            Server::Standby(_) if postgres.may_be_primary() => {
                Situation::DeposedPrimary { by: DeposedBy::Nobody }
            }
            Server::Standby(sql) if standby_cluster => Situation::StandbyClusterNoLeader { sql },
            Server::Standby(sql) => Situation::StandbyNoLeader { sql },
            Server::Empty | Server::HalfMade | Server::Down(_) if paused => Situation::PausedIdle,
            Server::Empty | Server::HalfMade => Situation::NoDataNoLeader,
            Server::Down(control) if standby_cluster => Situation::StandbyClusterDownNoLeader { control },
            Server::Down(control) => Situation::DownNoLeader { control },
        }
    }
}
