//! One client that writes numbered rows continuously, to the member that accepts them, and remembers the acknowledged
//! ones.
//!
//! There is no statement timeout: it would acknowledge a commit that waits for a standby, although no standby has it. A
//! statement that takes too long is abandoned by closing the connection, and its row counts as unknown.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::select_ok;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls};

/// How long a member may take to accept a connection before another is asked.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// A row that takes longer has an unknown result.
const INSERT_WITHIN: Duration = Duration::from_secs(2);
/// Pause after a failed search for the primary.
const SEARCH_AGAIN: Duration = Duration::from_millis(5);
/// Pause between rows: this is no load test.
const BETWEEN_ROWS: Duration = Duration::from_millis(2);

/// The addresses of the members.
#[derive(Clone, Debug)]
pub struct MemberAddressList {
    /// Ports on loopback.
    pub ports: Vec<u16>,
    /// The password of `postgres`.
    pub password: String,
}

/// Why a connection ended or failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteFailure {
    /// PostgreSQL or its connection failed.
    #[error("PostgreSQL refused the write")]
    Postgres(#[from] tokio_postgres::Error),
    /// The server is read-only.
    #[error("the server is read-only")]
    ReadOnly,
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
}

impl MemberAddressList {
    /// Connects to one member.
    pub async fn connect(&self, port: u16) -> Result<Client, WriteFailure> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
        config.password(&self.password).application_name("matriarch demo").connect_timeout(CONNECT_WITHIN);
        let connect = tokio::time::timeout(CONNECT_WITHIN, config.connect(NoTls));
        let (client, connection) = connect.await.map_err(|_| WriteFailure::Timeout)??;
        // It ends with the client; its error reaches the client's own call.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Connects to the member that accepts writes, asking all at once.
    pub async fn writable(&self) -> Result<Client, WriteFailure> {
        let tries = self.ports.iter().map(|port| Box::pin(self.writable_at(*port)));
        select_ok(tries).await.map(|(client, _)| client)
    }

    async fn writable_at(&self, port: u16) -> Result<Client, WriteFailure> {
        let client = self.connect(port).await?;
        let ask = client.query_one("select not pg_is_in_recovery()", &[]);
        let row = tokio::time::timeout(CONNECT_WITHIN, ask).await.map_err(|_| WriteFailure::Timeout)??;
        if row.get(0) { Ok(client) } else { Err(WriteFailure::ReadOnly) }
    }
}

/// The writer's record.
#[derive(Debug)]
pub struct Ledger {
    /// Rows that were acknowledged.
    pub acknowledged: BTreeSet<i64>,
    /// Rows with an unknown result.
    pub unknown: BTreeSet<i64>,
    /// Connections that broke.
    pub breaks: u64,
    last: Instant,
    longest: Duration,
}

/// A running writer.
#[derive(Debug)]
pub struct Writer {
    ledger: Arc<Mutex<Ledger>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Begins to write; the table must exist.
    pub fn start(addresses: MemberAddressList) -> Writer {
        let ledger = Arc::new(Mutex::new(Ledger {
            acknowledged: BTreeSet::new(),
            unknown: BTreeSet::new(),
            breaks: 0,
            last: Instant::now(),
            longest: Duration::ZERO,
        }));
        let task = tokio::spawn(write(addresses, ledger.clone()));
        Writer { ledger, task }
    }

    /// The present record.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Begins to measure anew: the longest time without an acknowledgement counts from here.
    pub fn mark(&self) {
        self.ledger().longest = Duration::ZERO;
    }

    /// The longest time between two acknowledgements since the mark.
    pub fn longest(&self) -> Duration {
        let ledger = self.ledger();
        ledger.longest.max(ledger.last.elapsed())
    }

    /// Stops writing. The row under way counts as unknown.
    pub async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(addresses: MemberAddressList, ledger: Arc<Mutex<Ledger>>) {
    let mut id = 0;
    loop {
        let Ok(client) = addresses.writable().await else {
            tokio::time::sleep(SEARCH_AGAIN).await;
            continue;
        };
        while insert(&client, &ledger, &mut id).await.is_ok() {
            tokio::time::sleep(BETWEEN_ROWS).await;
        }
        lock(&ledger).breaks += 1;
    }
}

async fn insert(client: &Client, ledger: &Mutex<Ledger>, id: &mut i64) -> Result<(), WriteFailure> {
    *id += 1;
    let row = *id;
    // Unknown until it is acknowledged, even when this task is stopped meanwhile.
    lock(ledger).unknown.insert(row);
    let parameters: [&(dyn ToSql + Sync); 1] = [&row];
    let statement = client.execute("insert into matriarch_tour (id) values ($1)", &parameters);
    tokio::time::timeout(INSERT_WITHIN, statement).await.map_err(|_| WriteFailure::Timeout)??;
    lock(ledger).acknowledge(row);
    Ok(())
}

impl Ledger {
    fn acknowledge(&mut self, row: i64) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        self.unknown.remove(&row);
        self.acknowledged.insert(row);
    }

    /// Acknowledged rows that are not among `present`.
    pub fn lost(&self, present: &BTreeSet<i64>) -> u64 {
        self.acknowledged.difference(present).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_was_acknowledged_and_the_longest_gap() {
        let last = Instant::now() - Duration::from_secs(3);
        let (acknowledged, unknown) = (BTreeSet::new(), BTreeSet::from([1, 2]));
        let mut ledger = Ledger { acknowledged, unknown, breaks: 0, last, longest: Duration::ZERO };
        ledger.acknowledge(1);
        assert!(ledger.longest >= Duration::from_secs(3));
        assert_eq!((ledger.acknowledged.len(), ledger.unknown.len()), (1, 1));
        assert_eq!(ledger.lost(&BTreeSet::new()), 1);
        assert_eq!(ledger.lost(&BTreeSet::from([1, 2])), 0);
    }
}
