//! A demo from start to end, and the removal of its parts after every error or signal.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::members::Fleet;
use super::place::DemoDirectory;
use super::tour;
use crate::cli::context::Context;
use crate::cli::demo::DemoArgs;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::Exit;
use crate::cli::output::Format;
use crate::cli::rows::{Detail, members as member_rows};

const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// Runs `demo`.
pub async fn execute(context: &Context, args: &DemoArgs) -> CliResult {
    if args.tour && args.members < 2 {
        return Err(CliError::usage("the tour needs at least two members"));
    }
    let place = DemoDirectory::make(args.dir.as_deref(), args.keep)?;
    let mut fleet = Fleet::new(place, args.members)?;
    // The handlers are installed before anything is started, so that every signal leads to the end below.
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
    let client = fleet.client().await?;
    let mut shown = String::new();
    loop {
        fleet.check()?;
        if let Ok(view) = client.view().await {
            let table = member_rows(&client.scope, &view, Detail::default()).render(Format::Table)?;
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
