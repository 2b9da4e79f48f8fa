//! Faults, one file for each family. Each fault is injected, verified, and undone.
//!
//! A fault that strikes the primary lasts until somebody has succeeded it, or until it is clear that nobody will.

mod backend;
mod clock;
mod disk;
mod etcd;
mod guard;
mod link;
mod log;
mod member;
mod operator;
mod pair;
mod postgres;
mod supervisor;
mod swizzle;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::history::{Event, History};
use crate::rig::Rig;
use crate::rng::Rng;

/// Every fault, by the name that an operator of the rig gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// The supervisor is killed, and started again only after a failover.
    KillSupervisor,
    /// The supervisor is killed and started again at once.
    RestartSupervisor,
    /// The supervisor stands still until after a failover.
    FreezeSupervisor,
    /// The guard is killed.
    KillGuard,
    /// The guard stands still.
    FreezeGuard,
    /// The postmaster is killed.
    KillPostmaster,
    /// The postmaster stands still, its children do not.
    FreezePostmaster,
    /// Every process of PostgreSQL is killed.
    KillPostgres,
    /// Every process of PostgreSQL stands still.
    FreezePostgres,
    /// A server process of a client is killed.
    KillBackend,
    /// A server process of a client stands still.
    FreezeBackend,
    /// The checkpointer stands still.
    FreezeCheckpointer,
    /// The WAL writer stands still.
    FreezeWalwriter,
    /// The member dies: its cable is pulled and every process killed.
    KillMember,
    /// The whole member stands still, as a paused machine.
    FreezeMember,
    /// A standby dies, then the primary, and the primary comes back last.
    KillPair,
    /// The member's cable is pulled.
    Partition,
    /// The member hears nothing, and is heard.
    Deaf,
    /// The member is not heard, and hears.
    Mute,
    /// A third of the member's packets is lost, both ways.
    Loss,
    /// The member and etcd do not hear each other.
    CutEtcd,
    /// The member and the other members do not hear each other.
    CutPeers,
    /// Cables of members and etcd are pulled one by one, and plugged in in another order.
    Swizzle,
    /// etcd's leader is killed.
    EtcdKill,
    /// etcd's leader stands still.
    EtcdFreeze,
    /// All of etcd is away for less than a lease.
    EtcdAway,
    /// A majority of etcd is killed for longer than a lease.
    EtcdMajority,
    /// A majority of etcd stands still for longer than a lease.
    EtcdFreezeMajority,
    /// The primary's disk is full.
    DiskFull,
    /// The member dies and comes back with other monotonic clocks.
    Clock,
    /// Nobody reads the member's log, the pipe is full, and its postmaster is killed.
    BlockLog,
    /// An operator changes the TTL of the lease, and changes it back.
    ChangeTtl,
    /// An operator switches over.
    Switchover,
    /// An operator restarts a member's PostgreSQL.
    Restart,
}

/// What became of an injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It happened, and is undone.
    Done,
    /// It cannot happen here, for this reason.
    NotAvailable(String),
}

/// What a fault works with.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    /// The cluster.
    pub(crate) rig: &'a mut Rig,
    /// Where it is written down.
    pub(crate) history: &'a History,
    /// For choices.
    pub(crate) rng: &'a mut Rng,
    /// Faults may strike standbys, too.
    pub(crate) any_member: bool,
    /// The fault under way.
    pub(crate) fault: Fault,
    /// It was undone before anybody succeeded the victim.
    pub(crate) nobody: bool,
}

impl Fault {
    /// Its name.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether no acknowledged row may be lost in it even with asynchronous replication.
    pub(crate) fn is_planned(self) -> bool {
        matches!(self, Fault::ChangeTtl | Fault::Switchover | Fault::Restart | Fault::RestartSupervisor)
    }
}

impl Stage<'_> {
    /// Injects the fault, checks that it happened, and undoes it.
    pub(crate) async fn run(&mut self) -> Result<Outcome> {
        match self.fault {
            Fault::KillSupervisor => supervisor::kill(self).await,
            Fault::RestartSupervisor => supervisor::restart(self).await,
            Fault::FreezeSupervisor => supervisor::freeze(self).await,
            Fault::KillGuard => guard::kill(self).await,
            Fault::FreezeGuard => guard::freeze(self).await,
            Fault::KillPostmaster => postgres::kill_postmaster(self).await,
            Fault::FreezePostmaster => postgres::freeze_postmaster(self).await,
            Fault::KillPostgres => postgres::kill(self).await,
            Fault::FreezePostgres => postgres::freeze(self).await,
            Fault::KillBackend => backend::kill(self).await,
            Fault::FreezeBackend => backend::freeze(self, "app").await,
            Fault::FreezeCheckpointer => backend::freeze(self, "checkpointer").await,
            Fault::FreezeWalwriter => backend::freeze(self, "walwriter").await,
            Fault::KillMember => member::kill(self).await,
            Fault::FreezeMember => member::freeze(self).await,
            Fault::KillPair => pair::kill(self).await,
            Fault::Partition => link::pull(self).await,
            Fault::Deaf => link::filter(self, link::Cut::Deaf).await,
            Fault::Mute => link::filter(self, link::Cut::Mute).await,
            Fault::Loss => link::filter(self, link::Cut::Loss).await,
            Fault::CutEtcd => link::filter(self, link::Cut::Etcd).await,
            Fault::CutPeers => link::filter(self, link::Cut::Peers).await,
            Fault::Swizzle => swizzle::clog(self).await,
            Fault::EtcdKill => etcd::kill_leader(self).await,
            Fault::EtcdFreeze => etcd::freeze_leader(self).await,
            Fault::EtcdAway => etcd::away(self).await,
            Fault::EtcdMajority => etcd::kill_majority(self).await,
            Fault::EtcdFreezeMajority => etcd::freeze_majority(self).await,
            Fault::DiskFull => disk::fill(self).await,
            Fault::Clock => clock::shift(self).await,
            Fault::BlockLog => log::block(self).await,
            Fault::ChangeTtl => operator::change_ttl(self).await,
            Fault::Switchover => operator::switchover(self).await,
            Fault::Restart => operator::restart(self).await,
        }
    }

    /// Whom it strikes: the primary, and where any will do, now and then somebody else.
    async fn victim(&mut self) -> Result<usize> {
        let primary = self.rig.wait_for_leader(self.rig.ttl() * 2).await?;
        if self.any_member && self.rng.below(4) == 0 {
            return Ok(self.rng.below(self.rig.members.len() as u64) as usize);
        }
        Ok(primary)
    }

    /// Writes down what is done to whom.
    fn note(&self, what: &str) {
        let name = self.fault.name();
        eprintln!("{:>7.1} s  {name}: {what}", self.history.now() as f64 / 1e6);
        self.history.record(&Event::Fault { name, at: self.history.now(), what: what.to_owned() });
    }

    /// The same about a member.
    fn note_member(&self, victim: usize, what: &str) {
        self.note(&format!("{} {what}", self.rig.members[victim].name));
    }

    /// Waits until another leads, if the victim led; a little longer, so that two could be seen; or until it is clear
    /// that nobody will.
    async fn wait_for_failover(&mut self, victim: usize, was_primary: bool) {
        let ttl = self.rig.ttl();
        if !was_primary {
            return self.hold(ttl / 2).await;
        }
        match self.rig.wait_for_successor(victim, ttl * 3).await {
            Ok(successor) => self.note_member(successor, "is the new primary"),
            Err(nobody) => {
                self.nobody = true;
                self.note(&nobody.to_string());
            }
        }
        self.hold(Duration::from_secs(3)).await;
    }

    /// Lets it last.
    async fn hold(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn is_primary(&self, member: usize) -> bool {
        self.rig.primary().await == Some(member)
    }
}
