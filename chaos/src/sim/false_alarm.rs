//! A story without a fault: the cluster comes up, and for a long time nothing happens to it that another leader would
//! mend. With `failover: recruit` its leader stays all the same.

use std::time::Duration;

use matriarch::model::{FailoverBy, Settings, SyncMode, SyncSettings};

use super::executor::Executor;
use super::run::{Ended, HEALS_WITHIN, Request, ended, missing};
use super::trace::Trace;
use super::world::{Options, Sim};
use crate::invariant::{self, false_alarm};

/// All is well for so long before it counts.
const WELL_FOR: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What such a story is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calm {
    /// Stalls are shorter.
    pub(crate) stalls_below: Duration,
    /// For how long they go on; drawn where it does not say.
    pub(crate) lasts: Option<Duration>,
}

/// Tells the story of a seed.
pub(crate) fn tell(request: &Request, calm: Calm) -> Ended {
    let exec = Executor::new(request.seed);
    let sim = begun(&exec, request, options(&exec, request));
    if becomes_well(&sim) {
        let drawn = Duration::from_secs(exec.rng(|rng| rng.between(600, 1800)));
        let end = sim.now() + calm.lasts.unwrap_or(drawn);
        false_alarm::watch(&sim);
        sim.begin_stalls(calm.stalls_below, end);
        while exec.step(end) && is_whole(&sim) {}
        false_alarm::stop_watching(&sim);
        becomes_well(&sim);
    }
    ended(&sim)
}

fn begun(exec: &Executor, request: &Request, options: Options) -> Sim {
    let sim = Sim::new(exec.clone(), options, Trace::new(request.trace, request.quiet));
    sim.world().ledger.only = request.only.clone();
    let Options { members, clients, .. } = sim.world().options.clone();
    sim.start_etcd();
    (0..members).for_each(|member| sim.start_supervisor(member));
    (0..clients).for_each(|client| sim.start_client(client));
    sim
}

/// How long nobody accepts writes after the cable of the leader was pulled: three members in mode quorum, all well.
#[cfg(test)]
pub(crate) fn outage(seed: u64) -> Option<Duration> {
    let (exec, request) = (Executor::new(seed), Request { seed, ..Request::default() });
    let mut options = options(&exec, &request);
    let sync = SyncSettings { mode: SyncMode::Quorum, node_count: 1, ..SyncSettings::default() };
    options.settings =
        Settings { ttl: Duration::from_secs(10), failover: FailoverBy::Recruit, sync, ..Settings::default() };
    (options.members, options.file_ttl) = (3, options.settings.ttl);
    let sim = begun(&exec, &request, options);
    let pulled_at = becomes_well(&sim).then(|| sim.now())?;
    let leader = sim.pull_cable()?;
    let serves = |sim: &Sim| {
        let world = sim.world();
        let mut servers =
            world.machines.iter().enumerate().filter_map(|(i, it)| Some((i, it.server.as_ref()?)));
        servers.any(|(index, server)| index != leader && server.is_writable())
    };
    while !serves(&sim) {
        (sim.exec.step(pulled_at + HEALS_WITHIN) && is_whole(&sim)).then_some(())?;
    }
    Some(Duration::from_nanos(sim.now().0 - pulled_at.0))
}

/// Checks all promises; false when one is broken.
fn is_whole(sim: &Sim) -> bool {
    invariant::step(sim);
    sim.world().ledger.broken.is_none()
}

/// Goes on until all is well. False when it does not become so, or a promise is broken.
fn becomes_well(sim: &Sim) -> bool {
    let end = sim.now() + HEALS_WITHIN;
    let (mut look_at, mut since) = (sim.now(), None);
    while sim.exec.step(end) && is_whole(sim) {
        if sim.now() < look_at {
            continue;
        }
        look_at = sim.now() + LOOK_EVERY;
        match missing(sim) {
            Some(_) => since = None,
            None if *since.get_or_insert(sim.now()) + WELL_FOR <= sim.now() => return true,
            None => {}
        }
    }
    if let Some((promise, missing)) = missing(sim) {
        sim.world().ledger.break_promise(promise, missing);
    }
    false
}

/// Always synchronous, and recruiting.
fn options(exec: &Executor, request: &Request) -> Options {
    let (members, settings) = exec.rng(|rng| {
        let sync = SyncSettings {
            mode: rng.pick(&[SyncMode::Quorum, SyncMode::Quorum, SyncMode::On]).unwrap_or_default(),
            strict: rng.permille(300),
            node_count: rng.pick(&[1, 1, 2]).unwrap_or(1),
            maximum_lag: rng.pick(&[None, Some(100_000)]).flatten(),
        };
        let settings = Settings {
            ttl: Duration::from_secs(rng.pick(&[5, 10, 10, 20, 30]).unwrap_or(10)),
            loop_wait: Duration::from_secs(rng.pick(&[1, 3, 10]).unwrap_or(10)),
            failsafe_mode: rng.permille(300),
            failover: FailoverBy::Recruit,
            sync,
            ..Settings::default()
        };
        (rng.pick(&[2, 3, 3, 3, 3, 3, 4]).unwrap_or(3), settings)
    });
    Options {
        members,
        clients: 2,
        file_ttl: settings.ttl,
        settings,
        wait_for_members: Duration::ZERO,
        bytes_factor: 1,
        made_by_another: false,
        secrets_change: false,
        streams_heartbeats: true,
        mutation: request.mutation,
    }
}
