//! The command line as data.

use clap::{Parser, Subcommand};

use super::context::Global;
use super::{
    check, completions, demo, dsn, edit_config, explain, failover, flush, generate_config, guard, history,
    list, loss, man, observe, operations, pause, query, reinit, reload, remove, restart, run, show_config,
    standby_cluster, switchover, topology, version, why,
};

/// High-availability supervisor for PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "matriarch", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 success, 1 refused or failed, 2 usage error, 3 invalid configuration, 4 etcd unavailable, \
    5 no member answers, 6 port in use, 7 running as root, 8 foreign data directory, 9 duplicate member name, \
    10 bootstrap failed, 11 missing program, 12 tour lost a row, 130 interrupted."
)]
pub struct Cli {
    /// Options that every command accepts.
    #[command(flatten)]
    pub global: Global,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a member: supervise the PostgreSQL on this machine
    Run(run::RunArgs),
    /// Kill one PostgreSQL when its deadline passes (started by `run`, never by hand)
    #[command(hide = true)]
    Guard(guard::GuardArgs),
    /// Report every fault of a configuration
    Check(check::CheckArgs),
    /// Write the configuration for a running PostgreSQL
    GenerateConfig(generate_config::GenerateConfigArgs),
    /// Show the members of a cluster
    List(list::ListArgs),
    /// Show the members as a replication tree
    Topology(topology::TopologyArgs),
    /// Print host and port of a member's PostgreSQL
    Dsn(dsn::DsnArgs),
    /// Run SQL on a member
    Query(query::QueryArgs),
    /// Hand leadership over to another member without losing a transaction
    Switchover(switchover::SwitchoverArgs),
    /// Make a member the leader even if the current leader is gone
    Failover(failover::FailoverArgs),
    /// Restart the PostgreSQL of members
    Restart(restart::RestartArgs),
    /// Make members read their configuration again
    Reload(reload::ReloadArgs),
    /// Delete the data of replicas and clone them again
    Reinit(reinit::ReinitArgs),
    /// Withdraw a scheduled restart or switchover
    Flush(flush::FlushArgs),
    /// Delete a cluster's keys from etcd
    Remove(remove::RemoveArgs),
    /// Show every change of leadership
    History(history::HistoryArgs),
    /// Show the switchovers and failovers that operators requested, and follow one to its end
    Operations(operations::OperationsArgs),
    /// Watch a cluster, also one of Patroni's, and say who would lead if its leader were lost. Writes nothing.
    Observe(observe::ObserveArgs),
    /// Tell why the leadership changed: the cause, who saw it, who was considered, what may be lost
    Why(why::WhyArgs),
    /// Show what a rewind of the member on this machine threw away: transactions, and rows by relation
    Loss(loss::LossArgs),
    /// Explain the cluster now: who leads and until when, who is waited for, and each way out with its cost
    Explain(explain::ExplainArgs),
    /// Show the dynamic configuration
    ShowConfig(show_config::ShowConfigArgs),
    /// Change the dynamic configuration
    EditConfig(edit_config::EditConfigArgs),
    /// Stop all automatic action
    Pause(pause::PauseArgs),
    /// Resume automatic action
    Resume(pause::PauseArgs),
    /// Make a cluster follow a remote primary: a standby cluster
    DemoteCluster(standby_cluster::DemoteClusterArgs),
    /// Make a standby cluster a cluster of its own
    PromoteCluster(standby_cluster::PromoteClusterArgs),
    /// Show the versions of this program and of the members
    Version(version::VersionArgs),
    /// Start a complete cluster on this machine for a trial
    Demo(demo::DemoArgs),
    /// Print the script with which a shell completes these commands
    Completions(completions::CompletionsArgs),
    /// Write the manual pages of these commands
    Man(man::ManArgs),
}
