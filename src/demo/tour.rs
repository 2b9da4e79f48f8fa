//! `demo --tour`: break things one after the other while a client writes, and measure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::members::Fleet;
use super::report::{DemoReport, Figure};
use super::writer::{MemberAddressList, WriteFailure, Writer};
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::Exit;
use crate::cli::output::to_json;
use crate::client::{Client, ORDER_WITHIN};

/// More than initdb, base backups and the first streaming take on any machine for a demo.
const BOOTSTRAP_WITHIN: Duration = Duration::from_secs(180);
/// The limit for full recovery after a fault.
const HEAL_WITHIN: Duration = Duration::from_secs(120);
/// The limit for a setting to reach PostgreSQL.
const SETTING_WITHIN: Duration = Duration::from_secs(15);
/// The limit for replicas to receive the last row.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);
/// A quiet time before each fault, so that it is measured alone.
const QUIET: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const CRASH: &str = "postmaster of the primary killed";
const SWITCHOVER: &str = "switchover";
const KILL_ALL: &str = "every process of the primary killed";
const SWITCH_BACK: &str = "switchover back";

/// Runs the tour.
pub async fn execute(context: &Context, fleet: &mut Fleet, rounds: u16, as_json: bool) -> CliResult {
    let addresses = MemberAddressList {
        ports: fleet.members.iter().map(|member| member.plan.port).collect(),
        password: fleet.shared.superuser.clone(),
    };
    let client = fleet.client().await?;
    context.ui.say("Waiting until every member streams …");
    let mut tour = Tour { context, client, addresses: addresses.clone(), fleet, figures: Vec::new() };
    let began = Instant::now();
    tour.all_streaming(BOOTSTRAP_WITHIN).await?;
    tour.make_table().await?;
    context
        .ui
        .say(&format!("The cluster is up after {:.1} s; writing begins", began.elapsed().as_secs_f64()));
    let mut writer = Writer::start(addresses);
    for round in 1..=rounds {
        if rounds > 1 {
            context.ui.say(&format!("Round {round} of {rounds}"));
        }
        tour.round(&writer).await?;
    }
    tokio::time::sleep(QUIET).await;
    writer.stop().await;
    let report = tour.report(&writer).await?;
    let text =
        if as_json { to_json(&report.document())? } else { report.sheet().render(context.global.output)? };
    context.ui.data(&text);
    Ok(if report.is_good() { Exit::Done } else { Exit::Lost })
}

struct Tour<'a> {
    context: &'a Context,
    client: Client,
    addresses: MemberAddressList,
    fleet: &'a mut Fleet,
    figures: Vec<Figure>,
}

impl Tour<'_> {
    async fn round(&mut self, writer: &Writer) -> Result<(), CliError> {
        self.crash(writer).await?;
        self.switchover(writer, SWITCHOVER, None).await?;
        let killed = self.kill_all(writer).await?;
        self.switchover(writer, SWITCH_BACK, Some(&killed)).await
    }

    /// Kills the postmaster. A standby with all acknowledged commits leads at once; a single member starts it again.
    async fn crash(&mut self, writer: &Writer) -> Result<(), CliError> {
        let breaks = self.begin(writer).await;
        let primary = self.leader().await?;
        self.fleet.kill_postmaster(primary)?;
        self.end(writer, CRASH, breaks, None).await
    }

    async fn switchover(
        &mut self,
        writer: &Writer,
        step: &'static str,
        candidate: Option<&str>,
    ) -> Result<(), CliError> {
        let breaks = self.begin(writer).await;
        let leader = self.leader().await?;
        let plan = &self.fleet.members[leader].plan;
        if candidate == Some(plan.name.as_str()) {
            return Ok(());
        }
        let body = json!({"leader": plan.name, "candidate": candidate});
        let api_url = format!("http://127.0.0.1:{}/patroni", plan.rest_port);
        let answer = self.client.call("POST", &api_url, "/switchover", Some(&body), ORDER_WITHIN).await?;
        if !answer.is_accepted() {
            return Err(CliError::failed(format!(
                "the switchover was refused ({}): {}",
                answer.status,
                answer.text()
            )));
        }
        self.end(writer, step, breaks, None).await
    }

    /// Kills supervisor and Postgres of the primary, waits for another leader, and starts the member again.
    async fn kill_all(&mut self, writer: &Writer) -> Result<String, CliError> {
        let breaks = self.begin(writer).await;
        let primary = self.leader().await?;
        let name = self.fleet.members[primary].plan.name.clone();
        self.fleet.kill_all(primary).await;
        self.writes_again(writer, breaks).await?;
        let away = writer.longest();
        let began = Instant::now();
        self.fleet.start_member(primary)?;
        self.all_streaming(HEAL_WITHIN).await?;
        let rejoin = began.elapsed();
        self.figure(writer, KILL_ALL, away, Some(rejoin)).await?;
        Ok(name)
    }

    /// Waits for a quiet moment and begins to measure.
    async fn begin(&self, writer: &Writer) -> u64 {
        tokio::time::sleep(QUIET).await;
        writer.mark();
        writer.ledger().breaks
    }

    async fn end(
        &mut self,
        writer: &Writer,
        step: &'static str,
        breaks: u64,
        rejoin: Option<Duration>,
    ) -> Result<(), CliError> {
        self.writes_again(writer, breaks).await?;
        let away = writer.longest();
        self.all_streaming(HEAL_WITHIN).await?;
        self.figure(writer, step, away, rejoin).await
    }

    async fn figure(
        &mut self,
        writer: &Writer,
        step: &'static str,
        away: Duration,
        rejoin: Option<Duration>,
    ) -> Result<(), CliError> {
        // The rows acknowledged so far must exist; later ones do not count.
        let acknowledged = writer.ledger().acknowledged.clone();
        let present = self.rows().await?;
        let lost = acknowledged.difference(&present).count() as u64;
        let back =
            rejoin.map_or_else(String::new, |span| format!(", rejoined in {:.2} s", span.as_secs_f64()));
        let line = format!("{step}: writes away {:.2} s, {lost} rows lost{back}", away.as_secs_f64());
        self.context.ui.say(&line);
        self.figures.push(Figure { step, away, rejoin, lost });
        Ok(())
    }

    /// Waits until the writer's connection broke and rows are acknowledged again.
    async fn writes_again(&mut self, writer: &Writer, breaks: u64) -> Result<(), CliError> {
        let by = Instant::now() + HEAL_WITHIN;
        let mut at_break = None;
        loop {
            let (now, acknowledged) = {
                let ledger = writer.ledger();
                (ledger.breaks, ledger.acknowledged.len())
            };
            if now > breaks && acknowledged > *at_break.get_or_insert(acknowledged) {
                return Ok(());
            }
            self.in_time(by, "writes did not come back")?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a primary accepts writes, and every other member streams from it and is listed in the key `sync`.
    async fn all_streaming(&mut self, within: Duration) -> Result<(), CliError> {
        let by = Instant::now() + within;
        let wanted = self.fleet.members.len() as i64 - 1;
        while self.streaming().await.ok() != Some(wanted)
            || self.sync_voters().await? != Some(wanted as usize)
        {
            self.in_time(by, "not every member streams")?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn in_time(&mut self, by: Instant, what: &str) -> Result<(), CliError> {
        self.fleet.check()?;
        if Instant::now() < by {
            return Ok(());
        }
        Err(CliError::failed(format!("{what} in time"))
            .hint(format!("look into the logs in {}", self.fleet.place.dir.display())))
    }

    async fn streaming(&self) -> Result<i64, WriteFailure> {
        let primary = self.addresses.writable().await?;
        let sql =
            "select count(distinct application_name) from pg_stat_replication where state = 'streaming'";
        Ok(primary.query_one(sql, &[]).await?.get(0))
    }

    async fn sync_voters(&self) -> Result<Option<usize>, CliError> {
        Ok(self.client.view().await?.sync_record().map(|record| record.voters.len()))
    }

    async fn leader(&self) -> Result<usize, CliError> {
        let view = self.client.view().await?;
        let leader = view.leader.as_ref().and_then(|leader| self.fleet.index_of(leader.name.as_str()));
        leader.ok_or_else(|| CliError::failed("nobody leads the cluster"))
    }

    async fn make_table(&self) -> Result<(), CliError> {
        let sql =
            "create table if not exists matriarch_tour (id bigint primary key, at timestamptz default now())";
        let by = Instant::now() + SETTING_WITHIN;
        loop {
            let made =
                async { Ok::<_, WriteFailure>(self.addresses.writable().await?.batch_execute(sql).await?) };
            match made.await {
                Ok(()) => return Ok(()),
                Err(error) if by <= Instant::now() => {
                    return Err(CliError::failed("failed to make the tour's table").because(&error));
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn rows(&self) -> Result<BTreeSet<i64>, CliError> {
        let read = async {
            let rows = self.addresses.writable().await?.query("select id from matriarch_tour", &[]).await?;
            Ok::<_, WriteFailure>(rows.iter().map(|row| row.get(0)).collect())
        };
        read.await.map_err(|error| CliError::failed("failed to read the tour's table").because(&error))
    }

    async fn report(&mut self, writer: &Writer) -> Result<DemoReport, CliError> {
        self.all_streaming(HEAL_WITHIN).await?;
        let present = self.rows().await?;
        let behind = self.behind(&present).await;
        let ledger = writer.ledger();
        Ok(DemoReport {
            members: self.fleet.members.len(),
            figures: self.figures.clone(),
            acknowledged: ledger.acknowledged.len(),
            unknown: ledger.unknown.len(),
            lost: ledger.lost(&present),
            behind,
        })
    }

    /// Members that do not receive the primary's rows in time.
    async fn behind(&self, present: &BTreeSet<i64>) -> Vec<String> {
        let mut behind = Vec::new();
        for member in &self.fleet.members {
            let by = Instant::now() + CATCH_UP_WITHIN;
            while !self.holds(member.plan.port, present).await {
                if Instant::now() > by {
                    behind.push(member.plan.name.clone());
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        behind
    }

    async fn holds(&self, port: u16, present: &BTreeSet<i64>) -> bool {
        let Ok(member) = self.addresses.connect(port).await else { return false };
        let Ok(rows) = member.query("select id from matriarch_tour", &[]).await else { return false };
        // More rows are fine: the writer's last row may have arrived after the query.
        present.is_subset(&rows.iter().map(|row| row.get(0)).collect())
    }
}
