//! `chaos rig`: faults on a real cluster under clients, one after the other, and what became of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::time::timeout;

use crate::false_alarm;
use crate::fault::{Fault, Outcome, Stage};
use crate::history::{Event, History};
use crate::report::{Report, Sample};
use crate::rig::{Mode, Plan, Rig, System, inside, keep, possible};
use crate::rng::Rng;
use crate::workload::Workload;

/// After a fault everything must be well again within this.
const HEAL_WITHIN: Duration = Duration::from_secs(120);
/// For how long false alarms are waited for, where nobody says.
const FALSE_ALARM_MINUTES: u64 = 10;
/// A quiet time before each fault, so that it is measured alone.
const QUIET: Duration = Duration::from_millis(1500);
/// Reading all rows takes less than this.
const READ_WITHIN: Duration = Duration::from_secs(60);
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// What the primary holds, as ranges.
const PRESENT: &str = "SELECT writer, min(number), max(number) FROM (SELECT writer, number, \
                       number - row_number() OVER (PARTITION BY writer ORDER BY number) AS island FROM rows) r \
                       GROUP BY writer, island";

/// The short round: each promise is put to the test once.
const SHORT: &[Fault] = &[
    Fault::Switchover,
    Fault::RestartSupervisor,
    Fault::KillPostmaster,
    Fault::EtcdAway,
    Fault::FreezeSupervisor,
    Fault::FreezePostgres,
    Fault::FreezeMember,
    Fault::KillSupervisor,
    Fault::Partition,
    Fault::KillMember,
];

/// Faults on real processes, under clients whose history is checked.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A few faults that strike the primary, always the same, for CI: about three minutes.
    #[arg(long, conflicts_with_all = ["minutes", "rounds", "faults", "seed"])]
    short: bool,
    /// Where namespaces cannot be made, say so and end well.
    #[arg(long)]
    if_possible: bool,
    /// For how long to go on.
    #[arg(long, conflicts_with = "rounds")]
    minutes: Option<u64>,
    /// No faults, but pgbench at full load on a cluster that recruits: its leader stays.
    #[arg(long, conflicts_with_all = ["short", "rounds", "faults", "seed", "mode", "members", "peer"])]
    false_alarms: bool,
    /// How many members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=5))]
    members: u8,
    /// How many faults to inject.
    #[arg(long, default_value_t = 12)]
    rounds: u64,
    /// How commits wait for standbys.
    #[arg(long, value_enum, default_value = "async")]
    mode: Mode,
    /// What the order of the faults is drawn with; it does not repeat their exact moments.
    #[arg(long)]
    seed: Option<u64>,
    /// What is under test instead of ours.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// Only these, by name, with commas; all otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Of the lease, in seconds.
    #[arg(long, default_value_t = 10)]
    ttl: u64,
    /// Where to leave history and logs.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// The binary under test; the one beside this program otherwise.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Data on disk instead of in memory, without the fault of a full one.
    #[arg(long)]
    disk: bool,
}

/// What can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// As it comes.
    Patroni,
    /// As fast as it can be configured.
    PatroniFast,
}

impl Peer {
    /// The system under test.
    pub(crate) fn system(self) -> System {
        match self {
            Peer::Patroni => System::PATRONI,
            Peer::PatroniFast => System::PATRONI_FAST,
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.if_possible
        && let Err(why) = possible()
    {
        println!("SKIPPED, no faults were injected: {why:#}");
        return Ok(ExitCode::SUCCESS);
    }
    inside(|folder| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let good = runtime.block_on(watch(arguments, folder))?;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// The run, unless somebody interrupts it. History and logs stay when it fails.
async fn watch(arguments: &Arguments, folder: &Path) -> Result<bool> {
    let result = tokio::select! {
        result = run_inside(arguments, folder) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Some(keep_in) = &arguments.keep {
        copy_papers(folder, keep_in)?;
    } else if !matches!(result, Ok(true)) {
        keep(folder);
        eprintln!("history and logs are in {}", folder.display());
    }
    result
}

fn copy_papers(folder: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    let logs = fs::read_dir(folder.join("log"))?.flatten().map(|entry| entry.path());
    for file in logs.chain([folder.join("history.jsonl")]).filter(|file| file.is_file()) {
        fs::copy(&file, to.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

async fn run_inside(arguments: &Arguments, folder: &Path) -> Result<bool> {
    let system = arguments.peer.map_or(System::Matriarch { ttl: arguments.ttl }, Peer::system);
    let plan = Plan {
        system: system.clone(),
        members: usize::from(arguments.members),
        mode: if arguments.false_alarms { Mode::Quorum } else { arguments.mode },
        program: arguments.program.clone(),
        in_memory: !arguments.disk,
    };
    if arguments.false_alarms {
        let minutes = arguments.minutes.unwrap_or(FALSE_ALARM_MINUTES);
        return false_alarm::run(plan, Duration::from_secs(60 * minutes), folder).await;
    }
    let seed = match arguments.short {
        true => 0,
        false => arguments.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ now_seconds()),
    };
    eprintln!("{}, {:?}, seed {seed}", system.name(), arguments.mode);
    let mut run = Run::start(plan, folder, seed).await?;
    if arguments.short {
        for fault in SHORT {
            if !run.strike(*fault).await? {
                break;
            }
        }
    } else {
        strike_many(arguments, &mut run).await?;
    }
    let report = run.finish().await?;
    println!("{}", report.table());
    Ok(report.is_good() || !system.is_ours())
}

/// Every fault once in any order, then again, until it is enough or the cluster does not heal.
async fn strike_many(arguments: &Arguments, run: &mut Run) -> Result<()> {
    let mut faults = arguments.faults.clone();
    if faults.is_empty() {
        faults = Fault::value_variants().to_vec();
    }
    run.any_member = true;
    let by = arguments.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut deck = Vec::new();
    let mut round = 0;
    while by.map_or(round < arguments.rounds, |by| Instant::now() < by) {
        if deck.is_empty() {
            deck = faults.clone();
            run.rng.shuffle(&mut deck);
        }
        let Some(fault) = deck.pop() else { break };
        if !run.strike(fault).await? {
            break;
        }
        round += 1;
    }
    Ok(())
}

fn now_seconds() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
}

/// A cluster under clients.
#[derive(Debug)]
pub(crate) struct Run {
    /// The cluster.
    pub(crate) rig: Rig,
    /// What clients did.
    pub(crate) history: Arc<History>,
    /// For choices.
    pub(crate) rng: Rng,
    /// Faults may strike standbys, too.
    pub(crate) any_member: bool,
    workload: Workload,
    report: Report,
}

impl Run {
    /// Starts the cluster and its clients.
    pub(crate) async fn start(plan: Plan, folder: &Path, seed: u64) -> Result<Run> {
        Run::over(Rig::start(plan, folder).await?, folder, seed).await
    }

    /// Starts clients of a cluster that is well.
    pub(crate) async fn over(rig: Rig, folder: &Path, seed: u64) -> Result<Run> {
        let history = Arc::new(History::create(&folder.join("history.jsonl"))?);
        let (system, mode) = (rig.plan.system.name(), rig.plan.mode);
        let report = Report::new(&system, mode, seed);
        history.record(&Event::Run { system, mode, seed });
        let workload = Workload::start(&rig, history.clone()).await?;
        Ok(Run { rig, history, rng: Rng::new(seed), any_member: false, workload, report })
    }

    /// Injects one fault, heals, and measures. False when the cluster does not heal.
    pub(crate) async fn strike(&mut self, fault: Fault) -> Result<bool> {
        tokio::time::sleep(QUIET).await;
        let now = self.history.now();
        self.history.oracle(|oracle| oracle.begin_window(now));
        let mut stage = Stage {
            rig: &mut self.rig,
            history: &self.history,
            rng: &mut self.rng,
            any_member: self.any_member,
            fault,
            nobody: false,
        };
        let outcome = stage.run().await;
        let nobody = stage.nobody;
        self.rig.release()?;
        let healed = self.heal().await;
        let now = self.history.now();
        let window = self.history.oracle(|oracle| oracle.window(now));
        self.history.flush()?;
        let problem = match (&outcome, &healed) {
            (Err(error), _) => Some(format!("{}: {error:#}", fault.name())),
            (_, Err(ill)) => Some(format!("after {}: {ill:#}", fault.name())),
            (Ok(_), Ok(())) => None,
        };
        if let Some(problem) = &problem {
            eprintln!("{:>7.1} s  {problem}", now as f64 / 1e6);
        }
        let skipped = match outcome {
            Ok(Outcome::NotAvailable(why)) => Some(why),
            Ok(Outcome::Done) | Err(_) => None,
        };
        self.report.add(Sample { fault, window, nobody, problem, skipped });
        Ok(healed.is_ok() || self.reinitialize().await)
    }

    /// What the last fault came to.
    pub(crate) fn last(&self) -> Option<&Sample> {
        self.report.samples.last()
    }

    /// Waits until all are well, and compares.
    async fn heal(&mut self) -> Result<()> {
        self.rig.wait_until_well(HEAL_WITHIN).await?;
        self.compare(false).await
    }

    /// What an operator does about a member that does not come back by itself. Whether it helps.
    async fn reinitialize(&mut self) -> bool {
        for member in &self.rig.members {
            let well = member.get("/health", ASK_WITHIN).await.is_some_and(|answer| answer.status == 200);
            if !well {
                eprintln!("           reinitializing {}", member.name);
                // It heals or it does not.
                let _ = member.send("POST", "/reinitialize", &json!({ "force": true })).await;
            }
        }
        self.heal().await.is_ok()
    }

    /// Reads what the primary holds and holds it against what was acknowledged before.
    async fn compare(&self, end: bool) -> Result<()> {
        self.history.record(&Event::Mark { at: self.history.now(), end });
        let session = self.rig.session().await?;
        let rows =
            timeout(READ_WITHIN, session.client.query(PRESENT, &[])).await.context("read in time")??;
        let rows = rows.iter().map(|row| (row.get::<_, i32>(0) as u32, row.get(1), row.get(2))).collect();
        self.history.record(&Event::Present { at: self.history.now(), rows });
        Ok(())
    }

    /// Stops the clients, compares for the last time, and ends every process.
    pub(crate) async fn finish(mut self) -> Result<Report> {
        tokio::time::sleep(QUIET).await;
        self.workload.stop().await;
        if let Err(error) = self.compare(true).await {
            self.report.problem(format!("at the end: {error:#}"));
        }
        self.history.flush()?;
        self.report.judge(&self.history);
        self.report.ends(self.rig.members.iter().map(|member| member.ended_by_itself).sum());
        self.rig.stop();
        Ok(self.report)
    }
}
