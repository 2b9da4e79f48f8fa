//! `chaos rig --false-alarms`: a busy machine, and no fault. The leader of a cluster that recruits stays.
//!
//! pgbench, which gives way to everything else, keeps the machine busy through the primary. A writer beside it measures
//! how long a commit waits at most. Every change of leadership fails the run.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use matriarch::model::{MemberName, Term, View};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::rig::{KeyWatch, Plan, Rig, Session, connect};

/// In hundred thousand accounts: more than the shared buffers hold.
const SCALE: &str = "10";
const CLIENTS: &str = "8";
const THREADS: &str = "2";
/// Between two rows of the writer.
const BETWEEN_ROWS: Duration = Duration::from_millis(10);
/// A row that takes longer is an outage.
const ROW_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at what standbys allow their leader.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const ASK_WITHIN: Duration = Duration::from_secs(1);
const TABLE: &str = "CREATE TABLE waits (number bigserial PRIMARY KEY)";
const INSERT: &str = "INSERT INTO waits DEFAULT VALUES";

/// What came of it.
#[derive(Debug, Default)]
struct LoadCounts {
    /// Rows of the writer, and the longest wait for one.
    rows: u64,
    longest_wait: Duration,
    /// What standbys have allowed their leader at most, in milliseconds.
    suspect_after_ms: u64,
    leader: Option<(MemberName, Term)>,
    changes: Vec<String>,
    attempt: Option<i64>,
    attempts: u64,
}

/// True when no leadership changed.
pub(crate) async fn run(plan: Plan, lasts: Duration, folder: &Path) -> Result<bool> {
    let mut rig = Rig::start(plan, folder).await?;
    let primary = rig.wait_until_well(Duration::from_secs(60)).await?;
    let address = rig.members[primary].address().to_owned();
    output(pgbench(&rig, &address, &["-i", "-q", "-s", SCALE])).await.context("fill the tables")?;
    rig.wait_until_well(Duration::from_secs(60)).await?;
    let session = connect(&address, "postgres").await?;
    session.client.batch_execute(TABLE).await.context("make the table")?;
    eprintln!("{} leads; pgbench runs for {} s", rig.members[primary].name, lasts.as_secs());
    let seconds = lasts.as_secs().to_string();
    let load = ["-n", "-c", CLIENTS, "-j", THREADS, "-T", &seconds];
    let (mut counts, mut keys) = (LoadCounts::default(), KeyWatch::start(&rig.etcd)?);
    keys.views.wait_for(Option::is_some).await.context("etcd shows the keys")?;
    let ended = {
        let LoadCounts { rows, longest_wait, suspect_after_ms, .. } = &mut LoadCounts::default();
        let watched = async {
            loop {
                counts.see(keys.views.borrow_and_update().as_ref());
                if keys.views.changed().await.is_err() {
                    break;
                }
            }
        };
        let ended = tokio::select! {
            ended = output(pgbench(&rig, &address, &load)) => ended,
            error = write(&session, rows, longest_wait) => Err(error),
            () = watched => Err(anyhow::anyhow!("the watch of etcd ended")),
            () = look(&rig, suspect_after_ms) => unreachable!("it goes on"),
        };
        (counts.rows, counts.longest_wait, counts.suspect_after_ms) =
            (*rows, *longest_wait, *suspect_after_ms);
        ended
    };
    counts.see(keys.views.borrow().as_ref());
    let text = ended.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    println!("{}", counts.report(text.as_deref().unwrap_or_default(), lasts));
    rig.stop();
    if let Err(error) = &text {
        println!("BROKEN: {error:#}");
    }
    Ok(text.is_ok() && counts.changes.is_empty())
}

impl LoadCounts {
    fn see(&mut self, view: Option<&View>) {
        let Some(View { cluster, .. }) = view else { return };
        let leader = cluster.leader.as_ref().map(|leader| (leader.name.clone(), leader.term));
        if self.leader.is_some() && self.leader != leader {
            self.changes.push(format!("{:?} led, and then {leader:?}", self.leader));
        }
        self.leader = leader.or(self.leader.take());
        let attempt = cluster.recruit.as_ref().map(|key| key.attempt);
        self.attempts += u64::from(attempt.is_some() && attempt != self.attempt);
        self.attempt = attempt;
    }

    fn report(&self, pgbench: &str, lasts: Duration) -> String {
        let figures = ["number of transactions actually processed", "latency average", "tps"];
        let lines = pgbench.lines().filter(|line| figures.iter().any(|figure| line.starts_with(figure)));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let mut text = format!(
            "{} s at full load, load average {}\npgbench: {}\nwriter beside it: {} rows, the longest wait {:.2} s\n\
             standbys allowed their leader up to {} ms of silence\n{} changes of leadership, {} attempts to replace the \
             leader",
            lasts.as_secs(),
            load.split_whitespace().next().unwrap_or_default(),
            lines.collect::<Vec<&str>>().join(", "),
            self.rows,
            self.longest_wait.as_secs_f64(),
            self.suspect_after_ms,
            self.changes.len(),
            self.attempts,
        );
        self.changes.iter().for_each(|change| text.push_str(&format!("\nBROKEN: {change}")));
        text
    }
}

/// Gives way to the members, so that these are no slower than the load makes them.
fn pgbench(rig: &Rig, address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(rig.place.postgres_bin.join("pgbench"));
    command.args(["-h", address, "-U", "postgres"]).args(arguments).arg("postgres");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Result<Output> {
    let output = command.spawn().context("start pgbench")?.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench: {}", said.lines().last().unwrap_or_default());
    Ok(output)
}

/// Writes rows for as long as they are acknowledged. Gives why one is not.
async fn write(session: &Session, rows: &mut u64, longest_wait: &mut Duration) -> anyhow::Error {
    loop {
        let began = Instant::now();
        let sent = timeout(ROW_WITHIN, session.client.execute(INSERT, &[])).await;
        *longest_wait = (*longest_wait).max(began.elapsed());
        match sent {
            Ok(Ok(_)) => *rows += 1,
            Ok(Err(error)) => return anyhow::Error::new(error).context("a row was not acknowledged"),
            Err(_) => return anyhow::anyhow!("a row was not acknowledged within {} s", ROW_WITHIN.as_secs()),
        }
        sleep(BETWEEN_ROWS).await;
    }
}

/// Asks the standbys for the `suspect_after` in force.
async fn look(rig: &Rig, suspect_after_ms: &mut u64) {
    loop {
        for member in &rig.members {
            let answer = member.get("/patroni", ASK_WITHIN).await;
            let shown = answer.and_then(|it| it.json()["leader_heartbeats"]["suspect_after_ms"].as_u64());
            *suspect_after_ms = (*suspect_after_ms).max(shown.unwrap_or_default());
        }
        sleep(LOOK_EVERY).await;
    }
}
