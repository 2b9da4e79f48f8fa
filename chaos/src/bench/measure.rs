//! One contestant in one sandbox: first idle, then under questions, then under faults. Prints figures, a line each.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::figures::{Figure, Sample};
use super::{Case, One, answers, resources};
use crate::report;
use crate::rig::{Plan, Rig, inside, keep};
use crate::scenario::Run;

/// Base backups and first checkpoints are over by then.
const SETTLE: Duration = Duration::from_secs(10);
const ASK_FOR: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) fn measure(one: &One) -> Result<ExitCode> {
    let plan = one.plan.iter().map(|entry| parse(entry)).collect::<Result<Vec<_>>>()?;
    inside(|folder| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let good = runtime.block_on(run(one, &plan, folder))?;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn parse(entry: &str) -> Result<(Case, usize)> {
    let (name, times) = entry.split_once(':').context("a plan is CASE:TIMES")?;
    match Case::from_str(name, false) {
        Ok(case) => Ok((case, times.parse().context("how often")?)),
        Err(_) => bail!("there is no case {name}"),
    }
}

/// False when the cluster did not heal.
async fn run(one: &One, cases: &[(Case, usize)], folder: &Path) -> Result<bool> {
    let system = one.contestant.system(one.ttl);
    print(&Figure::Title(one.contestant.title(one.ttl)))?;
    let mode = one.contestant.mode();
    let plan = Plan { system, members: 3, mode, program: one.program.clone(), in_memory: true };
    let mut rig = Rig::start(plan, folder).await?;
    if one.idle_seconds > 0 {
        tokio::time::sleep(SETTLE).await;
        let span = Duration::from_secs(one.idle_seconds);
        print(&Figure::Resources(resources::look(&mut rig, span).await?))?;
        print(&Figure::Answers(answers::ask(&mut rig, ASK_FOR).await?))?;
    }
    let mut run = Run::over(rig, folder, 0).await?;
    for (case, times) in cases {
        for _ in 0..*times {
            let goes_on = run.strike(case.fault()).await?;
            let sample = run.last().context("a fault leaves a sample")?;
            print(&Figure::Sample(figure(*case, sample)))?;
            if !goes_on {
                keep(folder);
                eprintln!("history and logs are in {}", folder.display());
                return Ok(false);
            }
        }
    }
    // The table of the rig itself, for whoever watches.
    eprintln!("{}", run.finish().await?.table());
    Ok(true)
}

fn figure(case: Case, sample: &report::Sample) -> Sample {
    let seconds = |us: u64| us as f64 / 1e6;
    Sample {
        case,
        outage_s: seconds(sample.window.outage_us),
        lost: sample.window.lost,
        overlap_s: seconds(sample.window.overlap_us),
        never: sample.nobody,
        healed: sample.problem.is_none(),
    }
}

/// The only place that prints in a sandbox: everything else goes to the error output.
fn print(figure: &Figure) -> Result<()> {
    println!("{}", serde_json::to_string(figure)?);
    Ok(())
}
