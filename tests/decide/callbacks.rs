//! Which callback is due, as Patroni's users see it.

use matriarch::core::callbacks::Callbacks;
use matriarch::model::{
    Finished, Job, JobKind, Leading, Outcome, PostgresFacts, Process, Role, RunningJob, StandbyCluster,
    StopMode, Term,
};

use super::world::{World, primary, standby, up};

/// The supervisor and its scripts.
struct Scripts {
    world: World,
    callbacks: Callbacks,
    restarting: bool,
}

impl Scripts {
    fn new() -> Scripts {
        Scripts { world: World::new(), callbacks: Callbacks::default(), restarting: false }
    }

    /// The call that is due, as a script gets it.
    fn due(&mut self) -> Option<String> {
        let due = self.callbacks.due(&self.world.seen, self.restarting)?;
        Some(format!("{} {}", due.event, due.role))
    }

    fn runs(&mut self, pid: i32, role: Role) -> Option<String> {
        let sql = if role == Role::Primary { primary(1000) } else { standby(1000) };
        let mut postgres = up(sql);
        if let Process::Up { pid: number, .. } = &mut postgres.process {
            *number = pid;
        }
        self.world.postgres(postgres);
        self.due()
    }

    fn is_down(&mut self) -> Option<String> {
        self.world
            .postgres(PostgresFacts { process: Process::Down { exit: None }, ..PostgresFacts::default() });
        let due = self.due();
        self.world.seen.finished.clear();
        due
    }

    /// The stop was ordered here.
    fn is_stopped(&mut self) -> Option<String> {
        self.world.seen.finished.push(Finished { job: JobKind::Stop, outcome: Outcome::Done });
        self.is_down()
    }

    fn leads(&mut self, leads: bool) {
        self.world.seen.lease.leading = if leads { Leading::Yes(Term(50)) } else { Leading::No };
    }
}

fn called(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_start_is_called_once_also_for_a_primary_that_starts_as_a_standby() {
    let mut replica = Scripts::new();
    assert_eq!(replica.runs(7, Role::Replica), called("on_start replica"));
    assert_eq!(replica.runs(7, Role::Replica), None);
    let mut leader = Scripts::new();
    leader.world.nobody_leads();
    assert_eq!(leader.runs(7, Role::Replica), None, "it may be the first of a new cluster");
    leader.leads(true);
    assert_eq!(leader.runs(7, Role::Replica), None, "it is about to be promoted");
    assert_eq!(leader.runs(7, Role::Primary), called("on_start primary"));
    assert_eq!(leader.is_down(), None, "it crashed: nobody stopped it");
    assert_eq!(leader.runs(8, Role::Replica), None);
    assert_eq!(leader.runs(8, Role::Primary), called("on_start primary"));
}

#[test]
fn a_demotion_is_a_stop_and_a_change_of_role() {
    let mut scripts = Scripts::new();
    assert_eq!(scripts.runs(7, Role::Primary), called("on_start primary"));
    let stop = Job::Stop { mode: StopMode::Fast, within: std::time::Duration::from_secs(1) };
    scripts.world.seen.job = Some(RunningJob { job: stop, since: scripts.world.now });
    assert_eq!(scripts.runs(7, Role::Primary), None);
    scripts.world.seen.job = None;
    assert_eq!(scripts.is_down(), called("on_stop primary"));
    assert_eq!(scripts.is_down(), None);
    assert_eq!(scripts.runs(8, Role::Replica), called("on_role_change replica"));
    assert_eq!(scripts.is_stopped(), called("on_stop replica"));
}

#[test]
fn a_promotion_is_a_change_of_role() {
    let mut scripts = Scripts::new();
    assert_eq!(scripts.runs(7, Role::Replica), called("on_start replica"));
    scripts.leads(true);
    assert_eq!(scripts.runs(7, Role::Replica), None);
    assert_eq!(scripts.runs(7, Role::Primary), called("on_role_change primary"));
}

/// The leader of a standby cluster has a role of its own, in which it starts at once.
#[test]
fn the_leader_of_a_standby_cluster_is_told_so() {
    let mut scripts = Scripts::new();
    scripts.world.seen.settings.standby_cluster = Some(StandbyCluster::default());
    assert_eq!(scripts.runs(7, Role::Replica), called("on_start replica"));
    scripts.leads(true);
    assert_eq!(scripts.runs(7, Role::Replica), called("on_role_change standby_leader"));
    scripts.world.seen.lease.leading = Leading::Unknown;
    assert_eq!(scripts.runs(7, Role::Replica), None, "etcd is silent");
    scripts.leads(true);
    assert_eq!(scripts.is_stopped(), called("on_stop standby_leader"));
    assert_eq!(scripts.runs(8, Role::Replica), called("on_start standby_leader"));
    scripts.world.seen.settings.standby_cluster = None;
    assert_eq!(scripts.runs(8, Role::Primary), called("on_role_change primary"));
}

#[test]
fn a_restart_is_neither_a_stop_nor_a_start() {
    for role in [Role::Replica, Role::Primary] {
        let mut scripts = Scripts::new();
        scripts.leads(role == Role::Primary);
        scripts.runs(7, role).expect("on_start");
        scripts.restarting = true;
        assert_eq!(scripts.is_stopped(), None);
        assert_eq!(scripts.callbacks.reloaded(), None, "nothing runs that could have read anything");
        scripts.restarting = false;
        assert_eq!(scripts.runs(8, role), called(&format!("on_restart {role}")));
        assert_eq!(scripts.runs(8, role), None);
        assert_eq!(scripts.is_stopped(), called(&format!("on_stop {role}")));
    }
}

/// It was asked for, and the supervisor was told to end before it began.
#[test]
fn a_restart_that_becomes_a_shutdown_is_a_stop() {
    let mut scripts = Scripts::new();
    scripts.runs(7, Role::Replica).expect("on_start");
    (scripts.restarting, scripts.world.seen.shutting_down) = (true, true);
    assert_eq!(scripts.runs(7, Role::Replica), None);
    assert_eq!(scripts.is_stopped(), called("on_stop replica"));
}

#[test]
fn a_bootstrap_calls_nothing() {
    let mut scripts = Scripts::new();
    scripts.world.seen.job = Some(RunningJob { job: Job::Bootstrap { seen: 1 }, since: scripts.world.now });
    assert_eq!(scripts.runs(7, Role::Primary), None);
    scripts.world.seen.job = None;
    assert_eq!(scripts.callbacks.reloaded(), None);
}
