//! SQL connections to the local Postgres, and to other members for their history.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, Socket};

use super::conninfo::{ConninfoAddress, database};
use super::handle::{LeaderHistory, PostgresInner};
use super::{Error, RoleCredentials, Setup, session, tls};
use crate::model::{Branch, FollowTarget, Lsn, Timeline, TimelineHistory};

pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// A query that takes longer has failed.
pub(super) const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// Enforced by the server, so that a query abandoned here does not continue there.
const LOOK_OPTIONS: &str = "-c statement_timeout=2000 -c pg_stat_statements.track=none";
/// The limit for reading a history file from another member.
const HISTORY_WITHIN: Duration = Duration::from_secs(10);
/// How long another member's checkpoint may take before it is looked for in its control file.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(20);

/// A connection to the local Postgres as the configured superuser, at a host or in a directory of sockets.
pub(super) async fn at(
    setup: &Setup,
    (host, port): (&str, u16),
    database: &str,
    application: &str,
    options: &str,
) -> Result<Client, Error> {
    let mut config = Config::new();
    let who = &setup.superuser;
    config.user(&who.username).dbname(database).port(port);
    if host.starts_with('/') {
        config.host_path(Path::new(host));
    } else {
        config.host(host);
    }
    config.application_name(application).options(options);
    let to = format!("{host}:{port}");
    match connect(config.clone(), who, NoTls, &to).await {
        // Its rules may admit nobody without TLS, or ask for a certificate.
        Err(error) if !host.starts_with('/') && error.is_refused_login() => {
            config.ssl_mode(SslMode::Require);
            match tls::unverified(who) {
                Ok(Some(connector)) => connect(config, who, connector, &to).await.map_err(|_| error),
                Ok(None) | Err(_) => Err(error),
            }
        }
        ended => ended,
    }
}

/// Connects with the newest password, or with the former one if that is still in force.
async fn connect<T>(mut config: Config, who: &RoleCredentials, tls: T, to: &str) -> Result<Client, Error>
where
    T: MakeTlsConnect<Socket, Stream: Send + 'static, TlsConnect: Send> + Clone,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    config.connect_timeout(CONNECT_WITHIN);
    let mut refused = None;
    let tries = who.password.known().tries();
    for password in tries {
        if let Some(password) = &password {
            config.password(password);
        }
        let attempt = tokio::time::timeout(CONNECT_WITHIN, config.connect(tls.clone())).await;
        let attempt = attempt
            .map_err(|_| Error::Deadline { what: "connecting to postgres", within: CONNECT_WITHIN })?;
        match attempt.map_err(|source| Error::Connect { to: to.to_owned(), source }) {
            Ok((client, connection)) => {
                who.password.known().let_in(password.as_ref());
                // Its error reaches the user of the client.
                tokio::spawn(connection);
                return Ok(client);
            }
            Err(error) if error.is_wrong_password() => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or_else(|| Error::Unfit("no password to connect with".to_owned())))
}

/// Runs a statement within a time limit, on a connection of its own.
pub(super) async fn execute(
    inner: &PostgresInner,
    what: &'static str,
    text: &str,
    within: Duration,
) -> Result<(), Error> {
    let work = async {
        let client = session::open(inner, "Matriarch", "").await?;
        client.batch_execute(text).await.map_err(Error::sql(what))
    };
    tokio::time::timeout(within, work).await.map_err(|_| Error::Deadline { what, within })?
}

/// Asks another member for its timeline and history.
pub(super) async fn leader_history(setup: &Setup, target: &FollowTarget) -> Result<LeaderHistory, Error> {
    let within = HISTORY_WITHIN;
    let ask = ask_history(setup, target);
    tokio::time::timeout(within, ask)
        .await
        .map_err(|_| Error::Deadline { what: "asking for the leader's history", within })?
}

async fn ask_history(setup: &Setup, target: &FollowTarget) -> Result<LeaderHistory, Error> {
    let client = remote(setup, target, setup.rewind_credentials()).await?;
    let what = "ask for the leader's history";
    let row = client
        .query_one(
            "SELECT pg_is_in_recovery(),
                    CASE WHEN pg_is_in_recovery() THEN NULL
                         ELSE substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8) END,
                    (SELECT timeline_id FROM pg_control_checkpoint()),
                    (SELECT system_identifier::text FROM pg_control_system()),
                    pg_last_wal_replay_lsn()::text,
                    (SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_ls_dir('pg_wal', true, false) AS name
                      WHERE pg_is_in_recovery() AND name ~ '^[0-9A-F]{24}$'),
                    $1::text IS NULL OR EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text),
                    (SELECT min((('x' || substr(name, 9, 8))::bit(32)::int8 << 32) + ('x' || substr(name, 17))::bit(32)::int8
                                * pg_size_bytes(current_setting('wal_segment_size')))
                       FROM pg_ls_dir('pg_wal', true, false) AS name WHERE name ~ '^[0-9A-F]{24}$')",
            &[&target.slot],
        )
        .await
        .map_err(Error::sql(what))?;
    let in_recovery: bool = row.get(0);
    let written = row.get::<_, Option<&str>>(1).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let checkpoint_timeline = Timeline(u32::try_from(row.get::<_, i32>(2)).unwrap_or_default());
    let begun = row.get::<_, Option<i32>>(5).and_then(|number| u32::try_from(number).ok());
    let timeline = written.or(begun).map_or(checkpoint_timeline, Timeline);
    let mut history = TimelineHistory::default();
    if timeline > Timeline::FIRST {
        let path = format!("pg_wal/{:08X}.history", timeline.0);
        let row =
            client.query_one("SELECT pg_read_binary_file($1)", &[&path]).await.map_err(Error::sql(what))?;
        let text = String::from_utf8_lossy(row.get::<_, &[u8]>(0)).into_owned();
        history = TimelineHistory::parse(&text).map_err(|error| Error::Unfit(format!("{path}: {error}")))?;
    }
    let end = row.get::<_, Option<&str>>(4).and_then(|lsn| lsn.parse::<Lsn>().ok()).filter(|_| in_recovery);
    Ok(LeaderHistory {
        branch: Branch { history, timeline, end },
        in_recovery,
        has_slot: row.get(6),
        oldest: Lsn(row.get::<_, Option<i64>>(7).and_then(|lsn| u64::try_from(lsn).ok()).unwrap_or_default()),
        system_id: row.get::<_, &str>(3).parse().unwrap_or_default(),
        checkpoint_timeline,
    })
}

/// Orders a checkpoint of another member, which may take long.
pub(super) async fn remote_checkpoint(setup: &Setup, target: &FollowTarget) -> Result<(), Error> {
    let what = "order a checkpoint of the source";
    let order = async {
        let client = remote(setup, target, setup.rewind_credentials()).await?;
        client.batch_execute("CHECKPOINT").await.map_err(Error::sql(what))
    };
    let done = tokio::time::timeout(CHECKPOINT_WITHIN, order).await;
    done.map_err(|_| Error::Deadline { what, within: CHECKPOINT_WITHIN })?
}

/// A tablespace of another member outside its data directory.
pub(super) struct Tablespace {
    pub(super) number: u32,
    pub(super) location: PathBuf,
    /// It contains the requested file.
    pub(super) marked: bool,
}

/// The tablespaces of another member, and whether they contain a file named `mark`.
pub(super) async fn tablespaces(
    setup: &Setup,
    target: &FollowTarget,
    mark: &str,
) -> Result<Vec<Tablespace>, Error> {
    let what = "ask for the source's tablespaces";
    let ask = async {
        let client = remote(setup, target, setup.rewind_credentials()).await?;
        let text = "SELECT oid, pg_tablespace_location(oid),
                           (pg_stat_file(format('pg_tblspc/%s/%s', oid, $1::text), true)).size IS NOT NULL
                      FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'";
        client.query(text, &[&mark]).await.map_err(Error::sql(what))
    };
    let rows = tokio::time::timeout(HISTORY_WITHIN, ask).await;
    let rows = rows.map_err(|_| Error::Deadline { what, within: HISTORY_WITHIN })??;
    let tablespace = |row: &tokio_postgres::Row| Tablespace {
        number: row.get(0),
        location: PathBuf::from(row.get::<_, &str>(1)),
        marked: row.get(2),
    };
    Ok(rows.iter().map(tablespace).collect())
}

pub(super) async fn remote(
    setup: &Setup,
    target: &FollowTarget,
    who: &RoleCredentials,
) -> Result<Client, Error> {
    let address = ConninfoAddress::parse(&target.conn_url)
        .ok_or_else(|| Error::Unfit(format!("{}: `{}` is no address", target.name, target.conn_url)))?;
    let mut config = Config::new();
    config.user(&who.username).application_name("Matriarch");
    config.dbname(address.database.as_deref().unwrap_or_else(|| database(setup)));
    for (host, port) in &address.hosts {
        config.host(host).port(*port);
    }
    if address.only_primary {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    let (mode, connector) = tls::connector(who)?;
    config.ssl_mode(mode);
    connect(config, who, connector, &target.conn_url).await
}

/// A connection to the local PostgreSQL: to authenticate takes longer than most of what is asked, and than a promotion.
#[derive(Default)]
pub(super) struct KeptConnection(tokio::sync::Mutex<Option<Client>>);

impl KeptConnection {
    /// Takes it, where it is open and nobody uses it now.
    pub(super) fn take(&self) -> Option<Client> {
        self.0.try_lock().ok()?.take().filter(|client| !client.is_closed())
    }

    /// Keeps this one, where there is none.
    pub(super) fn keep(&self, client: Client) {
        if let Ok(mut kept) = self.0.try_lock() {
            kept.get_or_insert(client);
        }
    }
}

/// Works on the connection that is kept. Work that is dropped takes the connection with it.
pub(super) async fn kept<T>(
    inner: &PostgresInner,
    work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut kept = inner.connection.0.lock().await;
    let client = match kept.take().filter(|client| !client.is_closed()) {
        Some(client) => client,
        None => heartbeat(inner).await?,
    };
    let done = work(&client).await;
    *kept = Some(client);
    done
}

/// A new connection of that kind.
pub(super) async fn heartbeat(inner: &PostgresInner) -> Result<Client, Error> {
    session::open(inner, "Matriarch heartbeat", LOOK_OPTIONS).await
}
