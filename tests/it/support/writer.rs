//! A client that writes numbered rows continuously, and remembers the acknowledged ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::config::TargetSessionAttrs;

use super::{Member, sql};

/// A row that takes longer counts as unknown, and the client reconnects.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The interval between two rows.
const PAUSE: Duration = Duration::from_millis(20);

/// A running writer.
pub(crate) struct Writer {
    history: Arc<Mutex<History>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// The outcome of the rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Acknowledged by the server as committed.
    pub(crate) acknowledged: Vec<i64>,
    /// Sent, without an answer: they may be there or not.
    pub(crate) unknown: Vec<i64>,
    /// The times between acknowledgements, in order.
    pub(crate) gaps: Vec<Duration>,
}

impl History {
    /// The total time without an acknowledgement beyond the usual: the sum of the excess of all gaps longer than this.
    pub(crate) fn away(&self, longer_than: Duration) -> Duration {
        self.gaps.iter().map(|gap| gap.saturating_sub(longer_than)).sum()
    }
}

impl Writer {
    /// Creates the table on `primary` and starts to write through whichever of `ports` takes writes.
    pub(crate) async fn start(primary: &Member, ports: Vec<u16>) -> Writer {
        let route = watch::Sender::new(ports).subscribe();
        Writer::begin(primary, route, TargetSessionAttrs::ReadWrite).await
    }

    /// The same through the changing ports of a service, without a check whether they accept writes.
    pub(crate) async fn start_through(primary: &Member, route: watch::Receiver<Vec<u16>>) -> Writer {
        Writer::begin(primary, route, TargetSessionAttrs::Any).await
    }

    async fn begin(primary: &Member, route: watch::Receiver<Vec<u16>>, target: TargetSessionAttrs) -> Writer {
        let created = primary.sql("CREATE TABLE IF NOT EXISTS rows (id bigint PRIMARY KEY)").await;
        created.expect("the primary takes a table");
        let history = Arc::new(Mutex::new(History::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(route, target, history.clone(), stop.clone()));
        Writer { history, stop, task }
    }

    /// The number of acknowledged rows so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.history.lock().expect("no writer panics").acknowledged.len()
    }

    /// The number of rows so far without an answer: after each the client had to connect again.
    pub(crate) fn interruptions(&self) -> usize {
        self.history.lock().expect("no writer panics").unknown.len()
    }

    /// Waits until `more` additional rows are acknowledged.
    pub(crate) async fn wait_for_more(&self, more: usize, within: Duration) {
        let goal = self.acknowledged() + more;
        let reached = super::until(within, async || (self.acknowledged() >= goal).then_some(())).await;
        assert!(reached.is_some(), "{} of {goal} rows within {within:?}", self.acknowledged());
    }

    /// Waits until these standbys have the newest acknowledged row, and returns its number.
    pub(crate) async fn wait_until_replicated(&self, standbys: &[Member], within: Duration) -> i64 {
        let newest = self.history.lock().expect("no writer panics").acknowledged.last().copied();
        let newest = newest.expect("something is acknowledged");
        for standby in standbys {
            let count = format!("SELECT count(*) FROM rows WHERE id = {newest}");
            let shown = super::until(within, async || (standby.value(&count).await == "1").then_some(()));
            assert!(shown.await.is_some(), "{} does not show row {newest}", standby.name);
        }
        newest
    }

    /// Stops, and checks that every acknowledged row is on this member.
    pub(crate) async fn stop_and_verify(self, primary: &Member) -> History {
        self.stop_and_verify_until(primary, i64::MAX).await
    }

    /// The same for rows up to a number. Asynchronous replication may lose the rows after the last one that a standby
    /// has shown.
    pub(crate) async fn stop_and_verify_until(self, primary: &Member, last: i64) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.task.await;
        let history = self.history.lock().expect("no writer panics").clone();
        let rows = primary.sql("SELECT id FROM rows").await.expect("the primary answers");
        let there: std::collections::BTreeSet<i64> =
            rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
        let lost: Vec<&i64> =
            history.acknowledged.iter().filter(|id| **id <= last && !there.contains(id)).collect();
        assert!(!history.acknowledged.is_empty(), "the writer never got through");
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}, on {}", primary.name);
        let sent = |id: &&i64| history.acknowledged.contains(id) || history.unknown.contains(id);
        let strange: Vec<&i64> = there.iter().filter(|id| !sent(id)).collect();
        assert!(strange.is_empty(), "there and never sent: {strange:?}");
        history
    }
}

async fn write(
    route: watch::Receiver<Vec<u16>>,
    target: TargetSessionAttrs,
    history: Arc<Mutex<History>>,
    stop: Arc<AtomicBool>,
) {
    let mut client: Option<Client> = None;
    let mut acknowledged_at = Instant::now();
    let mut next = 1;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        let Some(connection) = &client else {
            let ports = route.borrow().clone();
            if ports.is_empty() {
                continue;
            }
            let mut settings = sql::settings(&ports);
            settings.target_session_attrs(target);
            client = sql::connect(&settings).await.ok();
            continue;
        };
        let id = next;
        next += 1;
        let insert = format!("INSERT INTO rows VALUES ({id})");
        let answer = timeout(ANSWER_WITHIN, connection.batch_execute(&insert)).await;
        let mut history = history.lock().expect("no writer panics");
        match answer {
            Ok(Ok(())) => {
                history.acknowledged.push(id);
                history.gaps.push(acknowledged_at.elapsed());
                acknowledged_at = Instant::now();
            }
            _ => {
                history.unknown.push(id);
                client = None;
            }
        }
    }
}
