//! `chaos bench`: how long clients do without a primary, what they lose, and what a supervisor costs. Ours and the
//! peer in one run, on one machine, under the same clients.
//!
//! ```text
//!  chaos bench ── for each contestant ──► chaos measure, in a sandbox of its own ──► one JSON line a figure
//!       └──────── all of them ──────────► bench.json, bench.md, bench.svg
//! ```
//!
//! A contestant whose cluster does not heal goes on in a new sandbox. What was measured until then is kept.

mod answers;
mod case;
mod contestant;
mod figures;
mod load;
mod measure;
mod plot;
mod resources;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

pub(crate) use case::Case;
use contestant::Contestant;
use figures::{Figure, Machine, Results};
pub(crate) use measure::measure;

/// A sandbox is tried this often for one contestant.
const SANDBOXES_MAX: usize = 8;

/// How long clients do without a primary, ours and the peer in one run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How often each fault is injected.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Who is measured.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "matriarch,matriarch-quorum,matriarch-lease,patroni"
    )]
    contestants: Vec<Contestant>,
    /// Only these faults; all otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// How long idle processes are looked at, in seconds.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Of our lease, in seconds.
    #[arg(long, default_value_t = 10)]
    ttl: u64,
    /// Where to leave bench.json, bench.md and bench.svg.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Draw what a former run has left there, without measuring.
    #[arg(long)]
    draw: bool,
    /// Keep what a former run has left there, and measure what is missing.
    #[arg(long)]
    more: bool,
    /// Our binary; the one beside this program otherwise.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// The same for one contestant, as `chaos bench` calls it.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Who.
    #[arg(long, value_enum)]
    pub(crate) contestant: Contestant,
    /// `CASE:TIMES`, in this order.
    #[arg(long, value_delimiter = ',')]
    pub(crate) plan: Vec<String>,
    /// Idle processes are looked at for so long; not at all when it is zero.
    #[arg(long)]
    pub(crate) idle_seconds: u64,
    /// Of our lease, in seconds.
    #[arg(long)]
    pub(crate) ttl: u64,
    /// Our binary.
    #[arg(long)]
    pub(crate) program: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    fs::create_dir_all(&arguments.out).with_context(|| format!("make {}", arguments.out.display()))?;
    if arguments.draw {
        write_down(&former(&arguments.out)?, &arguments.out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cases = if arguments.cases.is_empty() { Case::value_variants() } else { &arguments.cases };
    let mut results = match arguments.more {
        true => former(&arguments.out)?,
        false => Results::new(Machine::this(), arguments.rounds),
    };
    let mut complete = true;
    for contestant in &arguments.contestants {
        complete &= measure_one(arguments, *contestant, cases, &mut results)?;
    }
    println!("{}", table::markdown(&results));
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn former(out: &Path) -> Result<Results> {
    let text = fs::read_to_string(out.join("bench.json")).context("read bench.json")?;
    serde_json::from_str(&text).context("understand bench.json")
}

/// Measures one contestant, in as many sandboxes as it takes. False when not everything could be measured.
fn measure_one(
    arguments: &Arguments,
    contestant: Contestant,
    cases: &[Case],
    results: &mut Results,
) -> Result<bool> {
    for sandbox in 0..SANDBOXES_MAX {
        let figures = results.of(contestant);
        let left: Vec<String> = cases
            .iter()
            .map(|case| (case, arguments.rounds.saturating_sub(figures.count(*case))))
            .filter(|(_, times)| *times > 0)
            .map(|(case, times)| format!("{}:{times}", case.name()))
            .collect();
        let idle_seconds = if figures.resources.is_none() { arguments.idle_seconds } else { 0 };
        if left.is_empty() && (sandbox > 0 || idle_seconds == 0) {
            return Ok(true);
        }
        eprintln!("== {}: {}", contestant.title(arguments.ttl), left.join(" "));
        for_each_figure(arguments, contestant, &left, idle_seconds, |figure| {
            results.of(contestant).add(figure);
            write_down(results, &arguments.out)
        })?;
    }
    eprintln!("{} could not be measured completely", contestant.title(arguments.ttl));
    Ok(false)
}

/// Runs one sandbox, and hands on each figure as it comes.
fn for_each_figure(
    arguments: &Arguments,
    contestant: Contestant,
    plan: &[String],
    idle_seconds: u64,
    mut take: impl FnMut(Figure) -> Result<()>,
) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["measure", "--contestant", &contestant.name(), "--ttl", &arguments.ttl.to_string()]);
    command.args(["--idle-seconds", &idle_seconds.to_string()]);
    if !plan.is_empty() {
        command.args(["--plan", &plan.join(",")]);
    }
    if let Some(program) = &arguments.program {
        command.arg("--program").arg(program);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("start a sandbox")?;
    let output = child.stdout.take().context("its output is piped")?;
    for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
        let line = line?;
        take(serde_json::from_str(&line).with_context(|| format!("no figure: {line}"))?)?;
    }
    let status = child.wait()?;
    if !status.success() {
        eprintln!("the sandbox ended early ({status})");
    }
    Ok(())
}

fn write_down(results: &Results, out: &Path) -> Result<()> {
    fs::write(out.join("bench.json"), format!("{}\n", serde_json::to_string_pretty(results)?))?;
    fs::write(out.join("bench.md"), table::markdown(results))?;
    fs::write(out.join("bench.svg"), plot::svg(results))?;
    Ok(())
}
