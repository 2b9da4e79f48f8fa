//! `version`: of this program, and of the members of a cluster.

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::output::Format;
use super::rows::title;
use super::selection::{RoleFilter, choose};
use super::sheet::{Column, Sheet};
use super::target::open;

/// Options of `version`.
#[derive(Debug, Args)]
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
        let text = match format {
            Format::Table | Format::Tsv => format!("matriarch {}\n", env!("CARGO_PKG_VERSION")),
            Format::Json | Format::Yaml => {
                super::output::document(&json!({"matriarch": env!("CARGO_PKG_VERSION")}), format)?
            }
        };
        context.ui.data(&text);
        return Ok(Exit::Done);
    };
    let client = open(context, Some(cluster))?;
    let view = client.view().await?;
    let mut rows = Vec::new();
    for member in choose(&view, &args.members, RoleFilter::Any)? {
        let body = client.ask(&member.api_url).await.unwrap_or(Value::Null);
        let patroni = body.get("patroni").and_then(|patroni| patroni.get("version"));
        let server = body.get("server_version").and_then(Value::as_u64).map(server_version);
        rows.push(vec![json!(member.name), patroni.cloned().unwrap_or(Value::Null), json!(server)]);
    }
    let columns = vec![Column::text("Member"), Column::text("Patroni interface"), Column::text("PostgreSQL")];
    let sheet = Sheet { title: title(&client.scope, &view), columns, rows, footer: Vec::new() };
    context.ui.data(&sheet.render(format)?);
    Ok(Exit::Done)
}

/// `150004` as `15.4`.
fn server_version(number: u64) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}
