//! `why`: the last change of leadership, and those before, from the journal.

mod text;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

pub use self::text::text;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::output::{Format, document};
use super::target::open;
use crate::model::{ClusterView, JournalRecord, WallTime};
use crate::why::{LeaderChange, advice, cause, changes, headline, readable};

/// Options of `why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    /// The change with which this term began.
    #[arg(long, value_name = "TERM", conflicts_with_all = ["at", "all"])]
    id: Option<i64>,
    /// The change at this time, or the nearest to it: `2026-11-22T21:52:27+00:00`.
    #[arg(long, value_name = "TIME", conflicts_with = "all")]
    at: Option<String>,
    /// All changes in the journal, one line each.
    #[arg(long)]
    all: bool,
    /// Read this file instead of etcd: `DATA_DIRECTORY.matriarch-journal` has what that member recorded.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs `why`.
pub async fn execute(context: &Context, args: &WhyArgs) -> CliResult {
    let (records, view) = match &args.file {
        Some(file) => (from_file(file)?, None),
        None => {
            let client = open(context, args.cluster.as_deref()).await?;
            (client.journal().await?, client.view().await.ok())
        }
    };
    let all = changes(&records);
    if args.all {
        context.ui.data(&overview(&all, context.global.output)?);
        return Ok(Exit::Done);
    }
    let change = chosen(&all, args)?;
    let text = match context.global.output {
        Format::Table => text(change, view.as_ref()),
        format @ (Format::Json | Format::Yaml | Format::Tsv) => {
            document(&to_json(change, view.as_ref()), format)?
        }
    };
    context.ui.data(&text);
    Ok(Exit::Done)
}

/// The last change in one line.
pub(super) fn last_headline(records: &[JournalRecord]) -> Option<String> {
    let all = changes(records);
    let change = all.iter().rev().find(|change| change.began().is_some())?;
    Some(format!("{}, at {}", headline(change), readable(change.at())))
}

fn chosen<'a>(all: &'a [LeaderChange], args: &WhyArgs) -> Result<&'a LeaderChange, CliError> {
    let found = match (args.id, &args.at) {
        (Some(term), _) => all.iter().find(|change| change.term.0 == term),
        (None, Some(at)) => {
            let at = at.parse::<jiff::Timestamp>().map_err(|error| {
                CliError::usage(format!("--at: {error}")).hint("as in 2026-11-22T21:52:27+00:00")
            })?;
            let at = WallTime(at.as_millisecond());
            all.iter().min_by_key(|change| change.distance_from(at))
        }
        (None, None) => all.last(),
    };
    found.ok_or_else(|| match all.is_empty() {
        true => CliError::failed("the journal has no change of leadership")
            .hint("members write it from the first change on that they make; Patroni's members do not"),
        false => CliError::failed("the journal has no such change").hint("`why --all` lists the changes"),
    })
}

fn overview(all: &[LeaderChange], format: Format) -> Result<String, CliError> {
    match format {
        Format::Table => Ok(all.iter().map(text::line).collect()),
        Format::Json | Format::Yaml | Format::Tsv => {
            document(&Value::Array(all.iter().map(|change| to_json(change, None)).collect()), format)
        }
    }
}

fn to_json(change: &LeaderChange, view: Option<&ClusterView>) -> Value {
    let records = json!(change.records);
    json!({
        "term": change.term,
        "at": change.at().to_string(),
        "summary": headline(change),
        "cause": cause(change),
        "loss": change.loss().map(ToString::to_string),
        "took_ms": change.took_ms(),
        "advice": advice(change, view),
        "records": records,
    })
}

fn from_file(file: &Path) -> Result<Vec<JournalRecord>, CliError> {
    #[derive(Deserialize)]
    struct Saved {
        record: JournalRecord,
    }
    #[derive(Deserialize)]
    struct File {
        records: Vec<Saved>,
    }
    let failed =
        |error: &dyn std::error::Error| CliError::failed(format!("cannot read {}: {error}", file.display()));
    let text = std::fs::read(file).map_err(|error| failed(&error))?;
    let file: File = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    Ok(file.records.into_iter().map(|saved| saved.record).collect())
}
