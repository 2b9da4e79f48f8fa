//! `observe`: watches a cluster without being a member of it, also one of Patroni's, and says what would be decided if
//! its leader were lost.
//!
//! ```text
//! etcd ─► view ─┐
//!               ├─► each standby's own decision (`decide`) ─► a line whenever the outcome changes
//! /patroni ─────┘
//! ```
//!
//! It writes nothing, and asks no PostgreSQL.

mod foresight;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use self::foresight::{Foresight, OutsideView};
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::Exit;
use crate::cli::observe::ObserveArgs;
use crate::cli::output::Format;
use crate::cli::target::open;
use crate::client::Client;
use crate::config;
use crate::model::{MemberName, PeerAnswer, WallTime};
use crate::os::clock;

/// Runs `observe`.
pub async fn execute(context: &Context, args: &ObserveArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let mut shown = None;
    loop {
        match look(&client).await {
            Ok(seen) => {
                let would = seen.without_leader();
                let outcome =
                    (seen.view.leader.clone(), leaders(&would).into_iter().cloned().collect::<Vec<_>>());
                if shown.as_ref() != Some(&Ok(outcome.clone())) {
                    context.ui.data(&said(context.global.output, &seen, &would));
                    shown = Some(Ok(outcome));
                }
            }
            Err(error) if args.once => return Err(error),
            // It goes on: etcd may come back.
            Err(error) => {
                let text = error.render();
                if shown.as_ref() != Some(&Err(text.clone())) {
                    context.ui.say(&format!("{}  {}", clock::wall(), text.trim_end()));
                    shown = Some(Err(text));
                }
            }
        }
        if args.once {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(Duration::from_secs(args.interval)).await;
    }
}

async fn look(client: &Client) -> Result<OutsideView, CliError> {
    let view = client.view().await?;
    let ask = async |name: &MemberName, url: Option<&str>| {
        let answer = match url {
            Some(url) => client.ask_as_member(url).await,
            None => PeerAnswer::unreachable(clock::now(), "it publishes no REST address".to_owned()),
        };
        (name.clone(), answer)
    };
    let members = view.members.iter().map(|(name, key)| ask(name, key.record.api_url.as_deref()));
    let answers: BTreeMap<_, _> = futures::future::join_all(members).await.into_iter().collect();
    let settings = config::settings(view.config.as_ref().map_or("{}", |key| key.text.as_str()));
    Ok(OutsideView { scope: client.scope.clone(), view, answers, settings, wall: clock::wall() })
}

fn leaders(would: &BTreeMap<MemberName, Foresight>) -> Vec<&MemberName> {
    would.iter().filter(|(_, foresight)| foresight.leads).map(|(name, _)| name).collect()
}

fn said(format: Format, seen: &OutsideView, would: &BTreeMap<MemberName, Foresight>) -> String {
    match format {
        Format::Table => text(seen.wall, seen, would),
        // A line for each change, whatever the format: there is no end of the document.
        Format::Json | Format::Yaml | Format::Tsv => format!("{}\n", to_json(seen, would)),
    }
}

fn text(at: WallTime, seen: &OutsideView, would: &BTreeMap<MemberName, Foresight>) -> String {
    let names = leaders(would).iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" or ");
    let head = match (&seen.view.leader, names.as_str()) {
        (Some(leader), "") => format!("{} leads; if it were lost, nobody would lead", leader.name),
        (Some(leader), names) => format!("{} leads; if it were lost, {names} would lead", leader.name),
        (None, "") => "nobody leads, and nobody can".to_owned(),
        (None, names) => format!("nobody leads: a failover happens now, to {names}"),
    };
    let member =
        |(name, foresight): (&MemberName, &Foresight)| format!("    {name}: {}\n", foresight.because);
    format!("{at}  {head}\n{}", would.iter().map(member).collect::<String>())
}

fn to_json(seen: &OutsideView, would: &BTreeMap<MemberName, Foresight>) -> Value {
    let members = would.iter().map(|(name, foresight)| {
        json!({"name": name, "would_lead": foresight.leads, "because": foresight.because})
    });
    json!({
        "at": seen.wall.to_string(),
        "scope": seen.scope,
        "leader": seen.view.leader.as_ref().map(|leader| &leader.name),
        "members": members.collect::<Vec<_>>(),
    })
}
