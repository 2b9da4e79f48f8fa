//! `loss`: what a rewind threw away, from the WAL that was kept aside.

mod names;
mod text;
mod wal;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use self::wal::{LostTransaction, LostTransactions};
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::output::{Format, document};
use super::target::environment;
use crate::config::{self, Sources};
use crate::model::RewindReport;

/// Options of `loss`.
#[derive(Debug, Args)]
pub struct LossArgs {
    /// The configuration of the member on this machine.
    file: Option<PathBuf>,
    /// The directory of one rewind; default: the newest.
    #[arg(long, value_name = "DIR", conflicts_with = "all")]
    dir: Option<PathBuf>,
    /// One line for each rewind whose WAL is still there.
    #[arg(long)]
    all: bool,
    /// Ask this PostgreSQL for the names of the relations: `host=… user=…`, as for libpq.
    #[arg(long, value_name = "CONNSTRING")]
    names: Option<String>,
}

/// One rewind.
#[derive(Debug, Serialize)]
struct LossReport {
    #[serde(flatten)]
    rewind: RewindReport,
    /// Why pg_waldump could read no further, if it could not.
    unreadable: Option<String>,
    rolled_back: usize,
    committed: Vec<LostTransaction>,
    /// Of the relations, as far as they are known.
    names: names::RelationNames,
}

/// The member's data directory, and its programs.
struct Place {
    kept: PathBuf,
    pg_waldump: PathBuf,
}

/// Runs `loss`.
pub async fn execute(context: &Context, args: &LossArgs) -> CliResult {
    let place = place(context, args)?;
    let kept = kept(&place.kept)?;
    let format = context.global.output;
    if args.all {
        let rewinds: Vec<RewindReport> = kept.iter().map(|dir| rewind(dir)).collect::<Result<_, _>>()?;
        context.ui.data(&match format {
            Format::Table => rewinds.iter().map(text::line).collect(),
            _ => json(&rewinds, format)?,
        });
        return Ok(Exit::Done);
    }
    let dir = args.dir.as_ref().or(kept.last()).ok_or_else(|| {
        CliError::failed(format!("no rewind has kept WAL in {}", place.kept.display()))
            .hint("a member that was rewound has some, on its own machine")
    })?;
    let mut report = report(&place.pg_waldump, dir)?;
    if let Some(login) = &args.names {
        report.names = names::ask(login, &report.committed).await?;
    }
    context.ui.data(&match format {
        Format::Table => text::text(&report)?,
        _ => json(&report, format)?,
    });
    Ok(Exit::Done)
}

fn json(value: &impl Serialize, format: Format) -> Result<String, CliError> {
    let value = serde_json::to_value(value).map_err(|error| CliError::failed(error.to_string()))?;
    document(&value, format)
}

fn place(context: &Context, args: &LossArgs) -> Result<Place, CliError> {
    let path = args.file.clone().or_else(|| context.global.config_file.clone());
    let sources = Sources { path, environment: environment(), ..Sources::default() };
    let config = match config::load(&sources) {
        Ok(loaded) => loaded.config,
        Err(faults) => {
            return Err(CliError::failed(format!("the configuration is invalid:\n{faults}"))
                .hint("name the configuration of the member on this machine: matriarch loss node.yml")
                .exit(Exit::Configuration));
        }
    };
    let postgresql = &config.postgresql;
    let program = postgresql.bin_name.get("pg_waldump").map_or("pg_waldump", String::as_str);
    let pg_waldump = postgresql.bin_dir.as_ref().map_or_else(|| program.into(), |dir| dir.join(program));
    let mut kept = postgresql.data_dir.clone().into_os_string();
    kept.push(".diverged");
    Ok(Place { kept: kept.into(), pg_waldump })
}

/// The directories of all rewinds that were completed, the oldest first.
fn kept(root: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(root, &error)),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|dir| dir.join(RewindReport::FILE).is_file());
    paths.sort();
    Ok(paths)
}

fn rewind(dir: &Path) -> Result<RewindReport, CliError> {
    let path = dir.join(RewindReport::FILE);
    let text = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    let report: RewindReport = serde_json::from_slice(&text).map_err(|error| unreadable(&path, &error))?;
    // It may have been moved since.
    Ok(RewindReport { kept_in: dir.to_owned(), ..report })
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> CliError {
    CliError::failed(format!("cannot read {}: {error}", path.display()))
}

/// Reads the WAL of one rewind.
fn report(pg_waldump: &Path, dir: &Path) -> Result<LossReport, CliError> {
    let rewind = rewind(dir)?;
    let failed = |error: std::io::Error| {
        CliError::failed(format!("cannot run {}: {error}", pg_waldump.display())).exit(Exit::MissingProgram)
    };
    let mut command = Command::new(pg_waldump);
    command.arg("--path").arg(dir).arg(format!("--timeline={}", rewind.timeline));
    command.arg(format!("--start={}", rewind.fork)).arg(format!("--end={}", rewind.end));
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut complaints = child.stderr.take();
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        // What cannot be read is no complaint.
        let _ = complaints.as_mut().map(|it| it.read_to_string(&mut text));
        text
    });
    let mut lost = LostTransactions::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            // Most records say nothing of rows.
            let _ = lost.read(&String::from_utf8_lossy(&line.map_err(failed)?));
        }
    }
    let status = child.wait().map_err(failed)?;
    let complaint = complaints.join().unwrap_or_default();
    let lost = lost.finish();
    Ok(LossReport {
        unreadable: (!status.success()).then(|| complaint.trim().to_owned()),
        rolled_back: lost.others,
        committed: lost.committed,
        names: names::RelationNames::default(),
        rewind,
    })
}
