//! One seed's story: the cluster comes up, faults, the end of all faults, healing, and in some a switchover in pause.

use std::time::Duration;

use matriarch::model::{FailoverBy, Settings, SyncMode, SyncSettings};

use super::clock::At;
use super::executor::Executor;
use super::mutation::Mutation;
use super::trace::Trace;
use super::world::{Options, Sim};
use crate::invariant::false_alarm::Alarms;
use crate::invariant::{self, healing, roles, sync_mode};
use crate::rng::Rng;

/// How long a cluster without faults may take until all is well.
pub(super) const HEALS_WITHIN: Duration = Duration::from_secs(150);
/// Before that a server of etcd may still come back, and in pause nothing undoes what a lost lease has stopped.
const CALM_AFTER: Duration = Duration::from_secs(45);

/// What a run is asked to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) seed: u64,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) trace: bool,
    pub(crate) quiet: bool,
    /// Look at this promise alone.
    pub(crate) only: Option<String>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The invariant, and what broke it.
    pub(crate) broken: Option<(&'static str, String)>,
    pub(crate) at: At,
    pub(crate) steps: u64,
    pub(crate) promises: usize,
    pub(crate) written_off: usize,
    pub(crate) promotions: u64,
    /// Leaders that were replaced before their leases ended.
    pub(crate) deposals: usize,
    /// While nothing was wrong.
    pub(crate) alarms: Alarms,
    /// The longest time that a server took for a commit.
    pub(crate) longest_wait: Duration,
    pub(crate) tail: Vec<String>,
    pub(crate) digest: u64,
}

/// Tells the story of a seed.
pub(crate) fn run(request: &Request) -> Ended {
    let exec = Executor::new(request.seed);
    let trace = Trace::new(request.trace, request.quiet);
    let sim = Sim::new(exec.clone(), options(&exec, request.mutation), trace);
    sim.world().ledger.only = request.only.clone();
    let faults_end = begin(&sim, request.seed);
    let (mut healed_at, mut is_asked) = (None, false);
    let asks_in_pause = Rng::new(request.seed).permille(300);
    let mut end = faults_end + HEALS_WITHIN;
    let mut look_at = faults_end;
    while exec.step(end) {
        invariant::step(&sim);
        if sim.world().ledger.broken.is_some() {
            break;
        }
        if look_at <= sim.now() {
            look_at = sim.now() + Duration::from_millis(500);
            if faults_end + CALM_AFTER <= sim.now() {
                roles::check(&sim);
            }
            match (missing(&sim), healed_at) {
                (Some(_), _) => healed_at = None,
                (None, None) => healed_at = Some(sim.now()),
                // Well, and for a while.
                (None, Some(since)) if since + Duration::from_secs(5) <= sim.now() => {
                    if is_asked || !asks_in_pause {
                        break;
                    }
                    if faults_end + CALM_AFTER <= sim.now() {
                        sim.ask_in_pause();
                        (healed_at, is_asked, end) = (None, true, sim.now() + HEALS_WITHIN);
                    }
                }
                (None, Some(_)) => {}
            }
        }
    }
    if sim.now() >= end
        && let Some((promise, missing)) = missing(&sim)
    {
        sim.world().ledger.break_promise(promise, missing);
    }
    ended(&sim)
}

/// What became of it. Ends every task.
pub(super) fn ended(sim: &Sim) -> Ended {
    let ended = {
        let mut world = sim.world();
        let (promises, calm) = (&world.ledger.promises, &world.ledger.memory.calm);
        Ended {
            at: sim.now(),
            steps: sim.exec.steps(),
            promises: promises.len(),
            written_off: promises.iter().filter(|promise| promise.written_off).count(),
            promotions: world.ledger.promotions,
            deposals: world.ledger.memory.deposals.count(),
            alarms: calm.alarms,
            longest_wait: world.ledger.longest_wait,
            tail: world.trace.tail(),
            digest: world.trace.digest(),
            broken: world.ledger.broken.take(),
        }
    };
    sim.exec.clear();
    ended
}

/// Starts everything. Returns when all faults end.
fn begin(sim: &Sim, seed: u64) -> At {
    // Drawn apart, so that the other stories stay as they are.
    let mut recruit = Rng::new(seed ^ 0x4EC2_0175);
    let (mut failsafe, mut secrets) = (Rng::new(seed ^ 0x5DEE_CE66), Rng::new(seed ^ 0x5EC2_E7A1));
    let Options { members, clients, secrets_change, settings, .. } = {
        let mut world = sim.world();
        world.options.settings.failsafe_mode = failsafe.permille(500);
        if world.options.settings.sync.mode == SyncMode::Off || !recruit.permille(400) {
            world.options.settings.failover = FailoverBy::Lease;
        }
        world.options.secrets_change = secrets.permille(300);
        world.options.made_by_another = secrets.permille(100);
        world.options.clone()
    };
    sim.start_etcd();
    (0..members).for_each(|member| sim.start_supervisor(member));
    (0..clients).for_each(|client| sim.start_client(client));
    let faults_end = At::seconds(sim.exec.rng(|rng| rng.between(40, 120)));
    sim.begin_faults(faults_end, settings.failsafe_mode && failsafe.permille(150));
    if settings.failover == FailoverBy::Recruit {
        sim.begin_recruit_faults(faults_end);
    }
    if secrets_change {
        sim.begin_secrets(secrets, faults_end);
    }
    faults_end
}

/// What is not well, and the promise that it breaks.
pub(super) fn missing(sim: &Sim) -> Option<(&'static str, String)> {
    let healing = healing::missing(sim).map(|missing| ("healing", missing));
    let sync_mode = || Some(("sync_mode", sync_mode::missing(sim)?));
    healing.or_else(sync_mode).or_else(|| Some(("roles", roles::missing(sim)?)))
}

/// Two seeds in five replicate asynchronously.
fn sync_settings(rng: &mut Rng) -> SyncSettings {
    let modes = [SyncMode::Off, SyncMode::Off, SyncMode::Quorum, SyncMode::Quorum, SyncMode::On];
    SyncSettings {
        mode: rng.pick(&modes).unwrap_or_default(),
        strict: rng.permille(300),
        node_count: rng.pick(&[1, 1, 2]).unwrap_or(1),
        maximum_lag: rng.pick(&[None, Some(100_000)]).flatten(),
    }
}

fn options(exec: &Executor, mutation: Option<Mutation>) -> Options {
    let (ttl, loop_wait, factor, lag) = exec.rng(|rng| {
        let ttl = rng.pick(&[3, 5, 10, 10, 20, 30]).unwrap_or(10);
        let loop_wait = rng.pick(&[1, 3, 10]).unwrap_or(10);
        let factor = rng.pick(&[1, 1, 20, 200]).unwrap_or(1);
        let lag = rng.pick(&[1000, 100_000, 1 << 20, 1 << 20]).unwrap_or(1 << 20);
        (ttl, loop_wait, factor, lag)
    });
    let members = exec.rng(|rng| rng.pick(&[2, 3, 3, 3, 3, 4])).unwrap_or(3);
    let settings = Settings {
        ttl: Duration::from_secs(ttl),
        loop_wait: Duration::from_secs(loop_wait),
        maximum_lag_on_failover: lag,
        // Elsewhere a ladder without its last rung has to do.
        remove_data_directory_on_rewind_failure: lag != 100_000,
        remove_data_directory_on_diverged_timelines: lag != 100_000,
        primary_start_timeout: Duration::from_secs(exec.rng(|rng| rng.pick(&[0, 10, 60]).unwrap_or(60))),
        primary_stop_timeout: Duration::from_secs(20),
        sync: exec.rng(sync_settings),
        ..Settings::default()
    };
    let wait_for_members = Duration::from_secs(exec.rng(|rng| rng.pick(&[0, 0, 2]).unwrap_or(0)));
    let file_ttl = settings.ttl;
    Options {
        members,
        clients: 2,
        settings,
        file_ttl,
        wait_for_members,
        bytes_factor: factor,
        made_by_another: false,
        secrets_change: false,
        streams_heartbeats: false,
        mutation,
    }
}
