//! The clients: writers, readers and users of registers that go where `/primary` says so, as behind HAProxy, and
//! writers that try every member all the time, which finds two primaries at once.
//!
//! Every writer sends one row at a time, a single statement with a number of its own, and gives a statement up only by
//! closing the connection: a cancelled commit would be acknowledged without its standby.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::history::{Event, History};
use crate::rig::{KeyWatch, Mode, Rig, Session, connect, is_certain, request};

/// Writers that ask `/primary`.
const ROUTED_WRITERS: u32 = 3;
/// Users of registers.
const REGISTER_USERS: i64 = 4;
/// How long one register is in use.
const REGISTER_US: u64 = 2_000_000;
/// A statement that takes longer is given up. Behind it a server process may wait for a standby for good, so this
/// bounds how many of those an outage leaves.
const STATEMENT_WITHIN: Duration = Duration::from_secs(5);
/// As a load balancer would, but more often, so that its interval is no part of the outage.
const PROBE_EVERY: Duration = Duration::from_millis(150);
const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// Between two rows of a writer.
const BETWEEN_ROWS: Duration = Duration::from_millis(8);
/// Between two other operations, and two tries.
const BETWEEN: Duration = Duration::from_millis(25);
/// How often a `/primary` that goes on to say so is written down.
const SAY_AGAIN_US: u64 = 500_000;

const INSERT: &str =
    "INSERT INTO rows VALUES ($1, $2) RETURNING pg_walfile_name(pg_current_wal_insert_lsn())";
const READ: &str = "SELECT array(SELECT coalesce((SELECT max(number) FROM rows WHERE writer = w), 0) \
                    FROM generate_series(1, $1::int) w ORDER BY w), pg_is_in_recovery()";
const WRITE_REGISTER: &str =
    "INSERT INTO registers VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET value = excluded.value";
const READ_REGISTER: &str = "SELECT (SELECT value FROM registers WHERE id = $1), pg_is_in_recovery()";
const TABLES: &str = "CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app; SET ROLE app; \
                      CREATE TABLE rows (writer int, number bigint, PRIMARY KEY (writer, number)); \
                      CREATE TABLE registers (id bigint PRIMARY KEY, value bigint)";

/// What all clients share.
#[derive(Debug)]
struct Shared {
    history: Arc<History>,
    stop: AtomicBool,
    addresses: Vec<String>,
    /// Whether a member answers 200 to `/primary`.
    primaries: Vec<AtomicBool>,
    /// Counts up, for values of registers and for spreading clients.
    next: AtomicI64,
}

/// The clients at work.
#[derive(Debug)]
pub(crate) struct Workload {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Workload {
    /// Makes the tables on the primary and starts all clients.
    pub(crate) async fn start(rig: &Rig, history: Arc<History>) -> Result<Workload> {
        let session = rig.session().await?;
        timeout(STATEMENT_WITHIN, session.client.batch_execute(TABLES))
            .await
            .context("make the tables")??;
        let addresses: Vec<String> = rig.members.iter().map(|member| member.address().to_owned()).collect();
        let members = addresses.len();
        let shared = Arc::new(Shared {
            history,
            stop: AtomicBool::new(false),
            addresses,
            primaries: (0..members).map(|_| AtomicBool::new(false)).collect(),
            next: AtomicI64::new(1),
        });
        let mut tasks = JoinSet::new();
        for member in 0..members {
            tasks.spawn(probe(shared.clone(), member));
            tasks.spawn(write(shared.clone(), ROUTED_WRITERS + 1 + member as u32, Some(member)));
        }
        for writer in 1..=ROUTED_WRITERS {
            tasks.spawn(write(shared.clone(), writer, None));
        }
        tasks.spawn(read(shared.clone(), (ROUTED_WRITERS as usize + members) as i32));
        if rig.plan.system.is_ours() && rig.plan.mode != Mode::Async {
            tasks.spawn(follow_sync(shared.clone(), KeyWatch::start(&rig.etcd)?));
        }
        for _ in 0..REGISTER_USERS {
            tasks.spawn(use_registers(shared.clone()));
        }
        Ok(Workload { shared, tasks })
    }

    /// Stops every client after what it is doing.
    pub(crate) async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_primary(&self, member: usize) -> bool {
        self.primaries[member].load(Ordering::Relaxed)
    }

    /// One of the members that say they are primary.
    fn route(&self) -> Option<usize> {
        let members = self.addresses.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        (0..members).map(|step| (first + step) % members).find(|member| self.is_primary(*member))
    }

    async fn connect(&self, member: usize) -> Option<Session> {
        connect(&self.addresses[member], "app").await.ok()
    }
}

/// Asks one member `/primary` all the while.
async fn probe(shared: Arc<Shared>, m: usize) {
    let address = format!("{}:8008", shared.addresses[m]);
    // Timeline, when the first answer came, when the last was written down.
    let mut row: Option<(u32, u64, u64)> = None;
    while !shared.stopped() {
        let asked = shared.history.now();
        let answer = request(&address, "GET", "/primary", None, PROBE_WITHIN).await;
        let now = shared.history.now();
        let says = answer.as_ref().filter(|answer| answer.status == 200);
        shared.primaries[m].store(says.is_some(), Ordering::Relaxed);
        let timeline = says.and_then(|answer| answer.json()["timeline"].as_u64()).map(|l| l as u32);
        row = match (row, timeline) {
            (Some((l, first, told)), Some(timeline)) if l == timeline => {
                let tell = now > told + SAY_AGAIN_US;
                if tell {
                    shared.history.record(&Event::Primary { m, l, first, last: asked });
                }
                Some((l, first, if tell { now } else { told }))
            }
            (_, Some(l)) => {
                shared.history.record(&Event::Primary { m, l, first: now, last: asked });
                Some((l, now, now))
            }
            (_, None) => None,
        };
        sleep(PROBE_EVERY).await;
    }
}

/// Writes down whether the key `sync` names a standby, which is what operators are shown.
async fn follow_sync(shared: Arc<Shared>, mut keys: KeyWatch) {
    let mut told = None;
    while !shared.stopped() {
        let named = keys
            .views
            .borrow_and_update()
            .as_ref()
            .map(|view| view.cluster.sync_record().is_some_and(|record| !record.voters.is_empty()));
        if let Some(named) = named.filter(|_| named != told) {
            shared.history.record(&Event::Sync { at: shared.history.now(), named });
            told = Some(named);
        }
        // In time for the end.
        let _ = timeout(PROBE_WITHIN, keys.views.changed()).await;
    }
}

/// Writes rows: to one member always, or to whichever says that it is primary.
async fn write(shared: Arc<Shared>, w: u32, always: Option<usize>) {
    let mut n = 0;
    while !shared.stopped() {
        if let Some(m) = always.or_else(|| shared.route())
            && let Some(session) = shared.connect(m).await
            && let Ok(Ok(statement)) = timeout(STATEMENT_WITHIN, session.client.prepare(INSERT)).await
        {
            write_on(&shared, (w, &mut n), m, (&session, &statement), always.is_some()).await;
        }
        sleep(BETWEEN).await;
    }
}

/// Writes rows on one connection until it ends, or until the load balancer would end it.
async fn write_on(
    shared: &Shared,
    (w, next): (u32, &mut i64),
    m: usize,
    (session, statement): (&Session, &Statement),
    always: bool,
) {
    while !shared.stopped() && (always || shared.is_primary(m)) {
        *next += 1;
        let (n, a) = (*next, shared.history.now());
        let values: [&(dyn ToSql + Sync); 2] = [&(w as i32), &n];
        let sent = timeout(STATEMENT_WITHIN, session.client.query_one(statement, &values)).await;
        let b = shared.history.now();
        match sent {
            Ok(Ok(row)) => shared.history.record(&Event::Ack { w, n, m, l: timeline(&row), a, b }),
            Ok(Err(error)) if is_certain(&error) => {
                let why = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                shared.history.record(&Event::Failed { w, n, to: n, m, a, b, why });
                if !always {
                    return;
                }
                sleep(BETWEEN).await;
            }
            Ok(Err(_)) | Err(_) => {
                shared.history.record(&Event::Unknown { w, n, m, a, b });
                return;
            }
        }
        sleep(BETWEEN_ROWS).await;
    }
}

/// The timeline in the name of a WAL file.
fn timeline(row: &Row) -> u32 {
    let name: String = row.get(0);
    name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// Reads how far every writer has come, from whoever says that it is primary.
async fn read(shared: Arc<Shared>, writers: i32) {
    while !shared.stopped() {
        if let Some(m) = shared.route()
            && let Some(session) = shared.connect(m).await
        {
            while !shared.stopped() && shared.is_primary(m) {
                let a = shared.history.now();
                let sent = timeout(STATEMENT_WITHIN, session.client.query_one(READ, &[&writers])).await;
                let Ok(Ok(row)) = sent else { break };
                let b = shared.history.now();
                let (max, in_recovery): (Vec<i64>, bool) = (row.get(0), row.get(1));
                if in_recovery {
                    break;
                }
                shared.history.record(&Event::Read { m, a, b, max });
                sleep(BETWEEN).await;
            }
        }
        sleep(BETWEEN).await;
    }
}

/// Writes and reads registers in turn.
async fn use_registers(shared: Arc<Shared>) {
    while !shared.stopped() {
        if let Some(m) = shared.route()
            && let Some(session) = shared.connect(m).await
        {
            while !shared.stopped() && shared.is_primary(m) {
                if write_register(&shared, m, &session).await.is_none() {
                    break;
                }
                sleep(BETWEEN).await;
                if read_register(&shared, m, &session).await.is_none() {
                    break;
                }
                sleep(BETWEEN).await;
            }
        }
        sleep(BETWEEN).await;
    }
}

/// `None` when the connection is of no more use.
async fn write_register(shared: &Shared, m: usize, session: &Session) -> Option<()> {
    let value = shared.next.fetch_add(1, Ordering::Relaxed);
    let a = shared.history.now();
    let id = (a / REGISTER_US) as i64;
    let sent = timeout(STATEMENT_WITHIN, session.client.execute(WRITE_REGISTER, &[&id, &value])).await;
    let b = match sent {
        Ok(Ok(_)) => Some(shared.history.now()),
        Ok(Err(error)) if is_certain(&error) => return None,
        Ok(Err(_)) | Err(_) => None,
    };
    shared.history.record(&Event::Register { id, write: Some(value), read: None, m, a, b });
    b.map(drop)
}

/// `None` when the connection is of no more use.
async fn read_register(shared: &Shared, m: usize, session: &Session) -> Option<()> {
    let a = shared.history.now();
    let id = (a / REGISTER_US) as i64;
    let sent = timeout(STATEMENT_WITHIN, session.client.query_one(READ_REGISTER, &[&id])).await;
    let row = sent.ok()?.ok()?;
    let b = Some(shared.history.now());
    let (read, in_recovery): (Option<i64>, bool) = (row.get(0), row.get(1));
    if in_recovery {
        return None;
    }
    shared.history.record(&Event::Register { id, write: None, read, m, a, b });
    Some(())
}
