//! `reload`: make members read their configuration again.

use clap::Args;

use super::context::Context;
use super::error::CliResult;
use super::selection::{MemberRequest, MembersArgs, choose, chosen_names, send_each, show};
use super::target::open;
use super::ui::Consent;

/// Options of `reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    which: MembersArgs,
}

/// Runs `reload`.
pub async fn execute(context: &Context, args: &ReloadArgs) -> CliResult {
    let which = &args.which;
    let client = open(context, Some(&which.cluster)).await?;
    let view = client.view().await?;
    let chosen = choose(&view, &which.members, which.role)?;
    show(context, &client, &view)?;
    let question = format!("Reload the configuration of {}?", chosen_names(&chosen));
    context.ui.consent(&question, Consent::from_force(which.force))?;
    let order = MemberRequest { word: "reload", method: "POST", endpoint: "/reload", body: None };
    send_each(context, &client, &chosen, &order).await
}
