//! `demo`: a whole cluster on this machine, with a real etcd and real PostgreSQL, on loopback and free ports.
//!
//! ```text
//! place    the directory, the programs, the user, the ports
//! members  etcd and the members as processes: start, kill, stop
//! tour     the faults, one after the other ─► report
//! writer   one client that writes all the while and remembers every acknowledged row
//! ```
//!
//! Everything lives in one directory that is removed at the end, however the demo ends. Only processes that the demo
//! started are ever signalled: by pid, found from its own children and the `postmaster.pid` in its own directory.

pub mod members;
pub mod place;
pub mod report;
pub mod tour;
pub mod tree;
pub mod writer;
pub mod yaml;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::members::Fleet;
use self::place::Place;
use super::dispatch::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::rows::{Detail, members as member_rows};

const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Number of members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    members: u8,
    /// Directory for all files; default: a new directory under /tmp.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep the directory at the end.
    #[arg(long)]
    keep: bool,
    /// Break things in a fixed order, print the results and exit (needs no terminal).
    #[arg(long)]
    tour: bool,
    /// Number of rounds of the tour.
    #[arg(long, default_value_t = 1, requires = "tour", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Print the results of the tour as JSON.
    #[arg(long, requires = "tour")]
    json: bool,
}

/// Runs `demo`.
pub async fn execute(context: &Context, args: &DemoArgs) -> CliResult {
    if args.tour && args.members < 2 {
        return Err(CliError::usage("the tour needs at least two members"));
    }
    let place = Place::make(args.dir.as_deref(), args.keep)?;
    let mut fleet = Fleet::new(place, args.members)?;
    // Listening before anything is started: whatever comes, the end below is reached.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = tokio::select! {
        ended = show(context, args, &mut fleet) => ended,
        _ = interrupt.recv() => Ok(Exit::Interrupted),
        _ = terminate.recv() => Ok(Exit::Interrupted),
    };
    context.ui.say("Stopping the members and etcd …");
    fleet.stop().await;
    let dir = fleet.place.dir.display().to_string();
    if fleet.place.is_kept() {
        context.ui.say(&format!("Everything is still in {dir}"));
    } else if ended.is_err() {
        fleet.place.keep_logs();
        context.ui.say(&format!("The logs are still in {dir}"));
    }
    match (ended, args.tour) {
        (Ok(Exit::Interrupted), false) => Ok(Exit::Done),
        (ended, _) => ended,
    }
}

async fn show(context: &Context, args: &DemoArgs, fleet: &mut Fleet) -> CliResult {
    context.ui.say(&format!("Starting etcd and {} members in {} …", args.members, fleet.place.dir.display()));
    fleet.start().await?;
    if args.tour {
        return tour::execute(context, fleet, args.rounds, args.json).await;
    }
    live(context, fleet).await
}

/// Shows the cluster until interrupted.
async fn live(context: &Context, fleet: &mut Fleet) -> CliResult {
    let client = fleet.client()?;
    let mut shown = String::new();
    loop {
        fleet.check()?;
        if let Ok(view) = client.view().await {
            let table =
                member_rows(&client.scope, &view, Detail::default()).render(super::output::Format::Table)?;
            if table != shown {
                context.ui.redraw(&format!(
                    "{table}\n{}",
                    if context.ui.is_live() { fleet.hints() } else { String::new() }
                ));
                if shown.is_empty() && !context.ui.is_live() {
                    context.ui.say(&fleet.hints());
                }
                shown = table;
            }
        }
        tokio::time::sleep(REDRAW_EVERY).await;
    }
}
