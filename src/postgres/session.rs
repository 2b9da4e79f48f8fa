//! The supervisor's own connections to its Postgres. The first way cannot be closed by a setting, an access rule or a
//! certificate of a user. Until it exists, the configuration of the operator is used.
//!
//! ```text
//!  1  the private socket directory, as the own role      peer authentication, mapped from this program's user
//!  2  the private socket directory, as the superuser     whatever the operator's rules for `local` ask
//!  3  the configured address, as the superuser           as before there was a private directory
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use super::conninfo::database;
use super::handle::PostgresInner;
use super::sockets::{self, Sockets};
use super::{Error, Parameters, Postgres, Setup, running, sql};
use crate::model::{AccessWay, ListenAddress, Moment, OwnAccess};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::os::user::User;

/// The supervisor's own role: a superuser without a password.
pub(super) const ROLE: &str = "matriarch_supervisor";
/// The interval between attempts by a better way; each refusal adds a line to the server's log.
const BETTER_AGAIN_AFTER: Duration = Duration::from_secs(60);
const CREATE_WITHIN: Duration = Duration::from_secs(5);

/// The ways, and their results.
#[derive(Default)]
pub(super) struct Access(Mutex<KnownAccess>);

#[derive(Default)]
struct KnownAccess {
    sockets: Option<Sockets>,
    /// Where the postmaster listens; `None` before there was one.
    listen: Option<ListenAddress>,
    /// Why there is no private directory.
    without: String,
    seen: OwnAccess,
    better_again_at: Moment,
}

impl Access {
    fn known(&self) -> MutexGuard<'_, KnownAccess> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a start: prepares the private directory.
    pub(super) async fn prepare(&self, inner: &PostgresInner) {
        let prepared = Sockets::prepare(inner).await;
        if let Err(why) = &prepared {
            tracing::warn!(why, "PostgreSQL starts without a private socket directory");
        }
        self.begin(prepared, inner.parameters().listen().unwrap_or_else(|| inner.setup.listen()));
    }

    /// A postmaster was adopted.
    pub(super) fn adopt(&self, inner: &PostgresInner) {
        let running = Sockets::of_running(inner);
        let listen = running::listen(inner);
        let why = "it was started without a private socket directory and has none until its next start";
        if running.is_none() {
            let address = inner.setup.local_host(&listen);
            tracing::info!(address, "PostgreSQL is reached by its address: {why}");
        }
        self.begin(running.ok_or_else(|| why.to_owned()), listen);
    }

    fn begin(&self, sockets: Result<Sockets, String>, listen: ListenAddress) {
        let (sockets, without) = match sockets {
            Ok(sockets) => (Some(sockets), String::new()),
            Err(why) => (None, why),
        };
        let listen = Some(listen);
        *self.known() = KnownAccess { sockets, listen, without, ..KnownAccess::default() };
    }

    /// Whether the supervisor's own role could log in.
    pub(super) fn is_by_own_role(&self) -> bool {
        self.known().seen.way == Some(AccessWay::PrivateSocket)
    }

    /// The private directory of the postmaster.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        self.known().sockets.as_ref().map(|sockets| sockets.private.clone())
    }

    /// Where the postmaster listens. A start may have been with another configuration than that of `setup`.
    pub(super) fn listen(&self, setup: &Setup) -> ListenAddress {
        self.known().listen.clone().unwrap_or_else(|| setup.listen())
    }

    /// The value for `unix_socket_directories`; `None` leaves it to `parameters`.
    pub(super) fn directories(&self, parameters: &Parameters) -> Option<String> {
        let others = parameters.parameters.get(sockets::PARAMETER);
        self.known().sockets.as_ref().map(|sockets| sockets.value(others.map(String::as_str)))
    }

    /// The same for the postmaster's command line, which takes precedence over `ALTER SYSTEM`.
    pub(super) fn argument(&self) -> Option<String> {
        let known = self.known();
        known.sockets.as_ref().map(|sockets| format!("--{}={}", sockets::PARAMETER, sockets.value(None)))
    }

    /// Whether the operator has configured other directories than the postmaster was started with.
    pub(super) fn are_directories_pending(&self, inner: &PostgresInner) -> bool {
        let wanted = sockets::configured(&inner.setup, &inner.parameters());
        let known = self.known();
        match (&known.sockets, wanted) {
            (Some(sockets), Some(wanted)) => sockets.others != wanted,
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// The ways to try, the likeliest first.
    fn order(&self, now: Moment) -> Vec<AccessWay> {
        let known = self.known();
        let mut ways = match (&known.sockets, os_user()) {
            (None, _) => vec![AccessWay::Address],
            (Some(_), None) => vec![AccessWay::PrivateSocketAsSuperuser, AccessWay::Address],
            (Some(_), Some(_)) => AccessWay::ALL.to_vec(),
        };
        if let Some(at) = ways.iter().position(|way| Some(*way) == known.seen.way)
            && now < known.better_again_at
        {
            ways.rotate_left(at);
        }
        ways
    }

    fn let_in(&self, way: AccessWay, refusals: Vec<String>) {
        let mut known = self.known();
        if known.seen.way == Some(way) && clock::now() < known.better_again_at {
            return;
        }
        let mut refused = refusals;
        if !known.without.is_empty() {
            refused.insert(0, known.without.clone());
        }
        let seen = OwnAccess { way: Some(way), refused };
        if way != AccessWay::PrivateSocket && known.seen != seen {
            let why = seen.refused.join("; ");
            tracing::warn!(why, "PostgreSQL is reached by {way}, not by its private socket as {ROLE}");
        }
        known.seen = seen;
        known.better_again_at = clock::now() + BETTER_AGAIN_AFTER;
    }

    fn locked_out(&self, refused: Vec<String>) {
        let mut known = self.known();
        known.seen = OwnAccess { way: None, refused };
    }
}

/// The name of this program's user; `None` if the machine has none, for example for an arbitrary uid in a container. It
/// is looked up once, since the name service may be remote and unavailable.
pub(super) fn os_user() -> Option<String> {
    static NAME: OnceLock<Option<String>> = OnceLock::new();
    NAME.get_or_init(look_up_user).clone()
}

fn look_up_user() -> Option<String> {
    let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    User::numbered(user, group).known.map(|(name, _)| name)
}

/// A connection to the local Postgres, with the rights of a superuser.
pub(super) async fn open(inner: &PostgresInner, application: &str, options: &str) -> Result<Client, Error> {
    open_in(inner, database(&inner.setup), application, options).await
}

/// A connection to this database of it.
pub(super) async fn open_in(
    inner: &PostgresInner,
    database: &str,
    application: &str,
    options: &str,
) -> Result<Client, Error> {
    let mut refusals = Vec::new();
    let mut last = None;
    for way in inner.access.order(clock::now()) {
        match open_by(inner, way, database, application, options).await {
            Ok(client) => {
                inner.access.let_in(way, refusals);
                return Ok(client);
            }
            Err(error) if is_refusal(&error) => {
                refusals.push(format!("{way}: {}", error.chain()));
                last = Some(error);
            }
            // The server exists, and recovers, has too many connections or does not answer: other ways would fail as
            // well.
            Err(error) => return Err(error),
        }
    }
    inner.access.locked_out(refusals.clone());
    match last {
        Some(last) => Err(Error::NoWayIn { refusals, last: Box::new(last) }),
        None => Err(Error::Unfit("there is no way to the own PostgreSQL".to_owned())),
    }
}

async fn open_by(
    inner: &PostgresInner,
    way: AccessWay,
    database: &str,
    application: &str,
    options: &str,
) -> Result<Client, Error> {
    let setup = &inner.setup;
    let private = inner.access.directory().unwrap_or_default();
    let listen = inner.access.listen(setup);
    match way {
        AccessWay::PrivateSocket => {
            let mut config = Config::new();
            config.user(ROLE).dbname(database).host_path(&private).port(listen.port);
            config.application_name(application).options(options);
            open_as_own_role(&config, &private.display().to_string()).await
        }
        AccessWay::PrivateSocketAsSuperuser => {
            sql::at(setup, (&private.display().to_string(), listen.port), database, application, options)
                .await
        }
        AccessWay::Address => {
            let host = setup.local_host(&listen);
            sql::at(setup, (&host, listen.port), database, application, options).await
        }
    }
}

async fn open_as_own_role(config: &Config, to: &str) -> Result<Client, Error> {
    let within = sql::CONNECT_WITHIN;
    let connected = tokio::time::timeout(within, config.connect(NoTls)).await;
    let connected = connected.map_err(|_| Error::Deadline { what: "connecting to postgres", within })?;
    let (client, connection) =
        connected.map_err(|source| Error::Connect { to: format!("{to} as {ROLE}"), source })?;
    // The server reports this itself at the beginning of a session.
    if connection.parameter("is_superuser") != Some("on") {
        return Err(Error::NotTheOwnRole { role: ROLE });
    }
    tokio::spawn(connection);
    Ok(client)
}

/// Whether no server answered, or it refused the login: another way may work.
fn is_refusal(error: &Error) -> bool {
    let source = match error {
        Error::NotTheOwnRole { .. } => return true,
        Error::Connect { source, .. } => source,
        _other => return false,
    };
    if let Some(code) = source.code() {
        return code.code().starts_with("28");
    }
    let cause = std::error::Error::source(source).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|error| error.kind() != io::ErrorKind::TimedOut)
}

impl Postgres {
    /// Where the postmaster listens; before there was one, where it is going to.
    pub fn listen(&self) -> ListenAddress {
        self.inner.access.listen(&self.inner.setup)
    }

    /// How the supervisor connects.
    pub fn access(&self) -> OwnAccess {
        self.inner.access.known().seen.clone()
    }

    /// Creates the supervisor's own role on this primary, unless a role with that name exists; that one is not changed.
    ///
    /// # Errors
    /// When the server cannot be asked, or refuses.
    pub async fn create_own_role(&self) -> Result<(), Error> {
        let what = "create the supervisor's role";
        let options =
            "-c synchronous_commit=local -c default_transaction_read_only=off -c statement_timeout=5000";
        let text = format!(
            "DO $do$ BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                    CREATE ROLE {ROLE} SUPERUSER LOGIN;
                END IF;
             END $do$"
        );
        let work = async {
            let client = open(&self.inner, "Matriarch", options).await?;
            client.batch_execute(&text).await.map_err(Error::sql(what))
        };
        tokio::time::timeout(CREATE_WITHIN, work)
            .await
            .map_err(|_| Error::Deadline { what, within: CREATE_WITHIN })??;
        self.inner.access.known().better_again_at = Moment::default();
        Ok(())
    }
}
