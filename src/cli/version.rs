//! `version`: of this program, and of the members of a cluster.

use clap::Args;
use serde_json::{Value, json};

use super::called::CalledAs;
use super::context::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::output::Format;
use super::rows::title;
use super::selection::{RoleFilter, choose};
use super::sheet::{Column, Sheet};
use super::target::open;
use crate::api::wire::PATRONI_COMPATIBLE_VERSION;

/// Options of `version`.
#[derive(Debug, Default, Args)]
pub struct VersionArgs {
    /// The cluster; without a cluster, only the version of this program is printed.
    cluster: Option<String>,
    /// Members; default: all members.
    members: Vec<String>,
}

/// Runs `version`.
pub async fn execute(context: &Context, args: &VersionArgs) -> CliResult {
    let format = context.global.output;
    let Some(cluster) = &args.cluster else {
        let text = match (context.called, format) {
            (CalledAs::Patronictl, _) => format!("patronictl version {PATRONI_COMPATIBLE_VERSION}\n"),
            (CalledAs::Patroni, _) => format!("patroni {PATRONI_COMPATIBLE_VERSION}\n"),
            (_, Format::Table | Format::Tsv) => format!("matriarch {}\n", env!("CARGO_PKG_VERSION")),
            (_, Format::Json | Format::Yaml) => {
                super::output::document(&json!({"matriarch": env!("CARGO_PKG_VERSION")}), format)?
            }
        };
        context.ui.data(&text);
        return Ok(Exit::Done);
    };
    let client = open(context, Some(cluster)).await?;
    let view = client.view().await?;
    let mut rows = Vec::new();
    for member in choose(&view, &args.members, RoleFilter::Any)? {
        let body = client.ask(&member.api_url).await.unwrap_or(Value::Null);
        let patroni = body.get("patroni").and_then(|patroni| patroni.get("version"));
        let server = body.get("server_version").and_then(Value::as_u64).map(server_version);
        rows.push(vec![json!(member.name), patroni.cloned().unwrap_or(Value::Null), json!(server)]);
    }
    if context.called == CalledAs::Patronictl {
        context.ui.data(&as_patronictl(&rows));
        return Ok(Exit::Done);
    }
    let columns = vec![Column::text("Member"), Column::text("Patroni interface"), Column::text("PostgreSQL")];
    let sheet = Sheet { title: title(&client.scope, &view), columns, rows, footer: Vec::new() };
    context.ui.data(&sheet.render(format)?);
    Ok(Exit::Done)
}

/// The lines of patronictl, from rows of name, version and PostgreSQL's version.
fn as_patronictl(rows: &[Vec<Value>]) -> String {
    let mut text = format!("patronictl version {PATRONI_COMPATIBLE_VERSION}\n\n");
    for row in rows {
        let cell = |index: usize| row[index].as_str();
        let name = cell(0).unwrap_or_default();
        let Some(version) = cell(1) else {
            text.push_str(&format!("{name}: failed to get version: no answer\n"));
            continue;
        };
        let postgres = cell(2).map(|version| format!(" PostgreSQL {version}")).unwrap_or_default();
        text.push_str(&format!("{name}: Patroni {version}{postgres}\n"));
    }
    text
}

/// `150004` as `15.4`.
fn server_version(number: u64) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}
