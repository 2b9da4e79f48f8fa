//! The command line as data.

use clap::{Parser, Subcommand};

use super::context::Global;
use super::{
    check, demo, edit_config, failover, guard, history, list, pause, reinit, reload, restart, run,
    show_config, switchover, topology, version,
};

/// High-availability supervisor for PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "matriarch", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 configuration, 4 etcd, 5 no member \
    answers, 6 port in use, 7 root, 8 foreign data directory, 9 duplicate name, 10 bootstrap failed, 11 missing program, \
    12 tour lost a row, 130 interrupted."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a member: supervise the PostgreSQL on this machine
    Run(run::RunArgs),
    /// Kill one PostgreSQL when its deadline passes: started by `run`, never by hand
    #[command(hide = true)]
    Guard(guard::GuardArgs),
    /// Report every fault of a configuration
    Check(check::CheckArgs),
    /// Show the members of a cluster
    List(list::ListArgs),
    /// Show the members as a tree of replication
    Topology(topology::TopologyArgs),
    /// Hand leadership over to another member, losing nothing
    Switchover(switchover::SwitchoverArgs),
    /// Make a member the leader although the present one may be gone
    Failover(failover::FailoverArgs),
    /// Restart the PostgreSQL of members
    Restart(restart::RestartArgs),
    /// Make members read their configuration again
    Reload(reload::ReloadArgs),
    /// Wipe replicas and clone them again
    Reinit(reinit::ReinitArgs),
    /// Show every change of leadership
    History(history::HistoryArgs),
    /// Show the dynamic configuration
    ShowConfig(show_config::ShowConfigArgs),
    /// Change the dynamic configuration
    EditConfig(edit_config::EditConfigArgs),
    /// Stop all automatic action
    Pause(pause::PauseArgs),
    /// Take up automatic action again
    Resume(pause::PauseArgs),
    /// Show versions of this program and of the members
    Version(version::VersionArgs),
    /// Start a whole cluster on this machine to try things out
    Demo(demo::DemoArgs),
}
