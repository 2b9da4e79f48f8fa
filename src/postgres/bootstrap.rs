//! A new cluster: initdb, or a restore by a script, then its users and `post_bootstrap`, before clients can connect.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;
use tokio_postgres::Client;

use super::adoption::started_by;
use super::aside::{self, Links};
use super::conninfo::{conninfo, database, pgpass_line};
use super::control::PidFile;
use super::handle::PostgresInner;
use super::postmaster::LOOK_EVERY;
use super::process::resolve;
use super::program::{bare, run, tool};
use super::script::{self, ScriptCall};
use super::{
    Error, RoleCredentials, Setup, access_rules, control, files, init_scripts, restore, rotation, session,
    sql,
};
use crate::model::{DataDirectory, SettingsRole};
use crate::os::child::{self, Child, OnOwnerExit};
use crate::os::clock;

const START_WITHIN: Duration = Duration::from_secs(60);
/// The checkpoint of a restored cluster may be large.
const STOP_WITHIN: Duration = Duration::from_secs(600);
/// The interval between looks at a long recovery.
const LOOK_SELDOM_EVERY: Duration = Duration::from_millis(500);
/// The interval between lines of the log about a recovery.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The suffix of a failed attempt's directories.
const FAILED: &str = ".failed";
/// An option of initdb.
const NO_CHECKSUMS: &str = "no-data-checksums";

/// Creates the cluster and returns its system identifier.
pub(super) async fn bootstrap(inner: &PostgresInner) -> Result<u64, Error> {
    inner.postmaster.must_be_down("bootstrap")?;
    // The one that makes the cluster is its first primary.
    inner.configuration.set_role(SettingsRole::Primary);
    let setup = &inner.setup;
    // An interrupted script may still write here.
    script::end_leftovers(setup).await?;
    if matches!(control::look(setup).await.0, DataDirectory::HalfMade { by } if by == "bootstrap") {
        kill_leftovers(setup).await;
        clear_away(setup)?;
    }
    if !control::is_empty(&setup.data_dir)? {
        return Err(Error::Unfit(format!("bootstrap: {} is not empty", setup.data_dir.display())));
    }
    control::mark(setup, "bootstrap")?;
    let made = make(inner).await;
    if made.is_err() {
        kill_leftovers(setup).await;
        clear_away(setup)?;
    }
    control::unmark(setup)?;
    made
}

/// Sets aside the directory of a bootstrap that created no cluster.
pub(super) fn abandon(inner: &PostgresInner) -> Result<(), Error> {
    inner.postmaster.must_be_down("abandon the bootstrap")?;
    clear_away(&inner.setup)
}

/// Sets aside the result of a failed attempt for inspection: the data directory, and the targets of its links. The root
/// of a volume cannot be moved, so it is emptied. The data directory comes last, because its links lead to the others.
/// The links that a script has made may lead into another cluster: their targets stay.
fn clear_away(setup: &Setup) -> Result<(), Error> {
    let data_dir = &setup.data_dir;
    let links = Links::of(data_dir);
    if setup.custom_bootstrap.is_some() {
        for target in links.wal.iter().chain(links.tablespaces.iter().map(|(_, target)| target)) {
            tracing::warn!(directory = %target.display(), "the failed bootstrap may have left files here");
        }
        return aside::clear_away(data_dir, FAILED);
    }
    if let Some(wal) = &links.wal {
        aside::clear_away(wal, FAILED)?;
    }
    for (_, location) in &links.tablespaces {
        for directory in aside::of_this_version(data_dir, location)? {
            fs::rename(&directory, aside::free_name(&directory, FAILED)?)
                .map_err(Error::file("move aside", &directory))?;
        }
    }
    aside::clear_away(data_dir, FAILED)
}

/// Kills the private postmaster of a failed attempt, or of one whose supervisor was killed.
async fn kill_leftovers(setup: &Setup) {
    if let Ok(processes) = resolve(setup) {
        while processes.kill_all() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn make(inner: &PostgresInner) -> Result<u64, Error> {
    let (setup, parameters) = (&inner.setup, &inner.parameters());
    let private = Private::new(setup)?;
    rotation::note(setup)?;
    let (line, within) = match &setup.custom_bootstrap {
        Some(custom) => (restore::restore(inner, custom).await?, None),
        None => {
            initdb(setup, &private).await?;
            access_rules::begin(inner, parameters)?;
            files::write_main(inner, None)?;
            (files::command_line(parameters, &Default::default()), Some(START_WITHIN))
        }
    };
    let (mut postmaster, pid) = start(setup, line, within, &private).await?;
    let client = sql::at(
        setup,
        (&private.host(), setup.port),
        database(setup),
        "Matriarch bootstrap",
        "-c synchronous_commit=local",
    )
    .await?;
    let statements = role_statements(setup);
    client.batch_execute(&statements).await.map_err(Error::sql("create the users"))?;
    create_database(setup, &client).await?;
    drop(client);
    if setup.custom_bootstrap.is_none() {
        init_scripts::run_all(setup, &private.host()).await?;
    }
    post_bootstrap(setup, &private).await?;
    let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
    let status = tokio::time::timeout(STOP_WITHIN, postmaster.wait()).await;
    status
        .map_err(|_| Error::Deadline { what: "stopping the new cluster", within: STOP_WITHIN })?
        .map_err(|source| Error::Spawn { program: "postgres".to_owned(), source })?;
    Ok(control::read(setup).await?.system_id)
}

/// A directory that only this user can enter. It has the socket, the access rules that trust every local user, and the
/// password files.
struct Private {
    path: PathBuf,
}

impl Private {
    fn new(setup: &Setup) -> Result<Private, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let nonce = clock::now().as_nanos();
        // In the temporary directory, because a socket's path must be short.
        let name = format!("matriarch-{}-{number}-{nonce:x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::file("create", &path))?;
        if let Some((user, group)) = setup.uid_gid {
            chown(&path, Some(user), Some(group)).map_err(Error::file("chown", &path))?;
        }
        Ok(Private { path })
    }

    fn host(&self) -> String {
        self.path.display().to_string()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

async fn initdb(setup: &Setup, private: &Private) -> Result<(), Error> {
    let mut command = tool(setup, "initdb");
    command.arg("--pgdata").arg(&setup.data_dir).arg("--username").arg(&setup.superuser.username);
    let given = |name: &str| setup.initdb.iter().any(|option| option.split('=').next() == Some(name));
    if !given("data-checksums") && !given(NO_CHECKSUMS) {
        command.arg("--data-checksums");
    }
    if let Some(password) = setup.superuser.password.newest() {
        let file = private.path.join("password");
        files::write_secret(setup, &file, &format!("{password}\n"))?;
        command.arg("--pwfile").arg(&file);
        if !given("auth") && !given("auth-host") && !given("auth-local") {
            command.arg("--auth=scram-sha-256");
        }
    }
    let knows_option = !given(NO_CHECKSUMS) || knows_no_checksums(setup).await?;
    let options = setup.initdb.iter().filter(|option| knows_option || *option != NO_CHECKSUMS);
    command.args(options.map(|option| format!("--{option}")));
    run("initdb", command, None).await.map(drop)
}

/// Whether initdb has the option. PostgreSQL 18 is the first that has it; before, no checksums are the default.
async fn knows_no_checksums(setup: &Setup) -> Result<bool, Error> {
    let mut help = tool(setup, "initdb");
    help.arg("--help");
    Ok(run("initdb", help, None).await?.contains(NO_CHECKSUMS))
}

/// The program that was started, and the postmaster, which may be a child of it. A recovery has no limit.
async fn start(
    setup: &Setup,
    line: Vec<String>,
    within: Option<Duration>,
    private: &Private,
) -> Result<(Child, i32), Error> {
    let rules = private.path.join("pg_hba.conf");
    files::write(setup, &rules, "local all all trust\n")?;
    let mut command = bare(setup, setup.program("postgres"));
    command.arg("-D").arg(&setup.data_dir);
    command.arg(format!("--config-file={}", files::main_file(setup).display()));
    command.args(&line);
    command.arg("--listen_addresses=").arg("--synchronous_standby_names=");
    command.arg(format!("--port={}", setup.port));
    command.arg(format!("--unix_socket_directories={}", private.host()));
    command.arg(format!("--hba_file={}", rules.display()));
    let spawn = |source| Error::Spawn { program: "postgres".to_owned(), source };
    let mut postmaster = child::spawn(&mut command, OnOwnerExit::DiesWithItsOwner).map_err(spawn)?;
    let begun = clock::now();
    let mut told = begun;
    let started = resolve(setup)?.with_postmaster(postmaster.pid());
    let is_ready = |file: &PidFile| {
        let ours = file.pid == started.pid || started_by(&started, file.pid).is_some();
        file.ready && !file.replays && ours
    };
    loop {
        if let Some(file) = PidFile::find(&setup.data_dir).ok().flatten().filter(is_ready) {
            return Ok((postmaster, file.pid));
        }
        let now = clock::now();
        // A recovery may take hours.
        let look_every = if now < begun + START_WITHIN { LOOK_EVERY } else { LOOK_SELDOM_EVERY };
        if let Ok(status) = tokio::time::timeout(look_every, postmaster.wait()).await {
            return Err(Error::start_failed(setup, &status.map_err(spawn)?.to_string(), &line).await);
        }
        match within {
            Some(within) if begun + within <= now => {
                return Err(Error::Deadline { what: "starting the new cluster", within });
            }
            None if told + TELL_EVERY <= now => {
                told = now;
                tracing::info!("the new cluster is still in recovery");
            }
            Some(_) | None => {}
        }
    }
}

/// The functions that a rewind user must be able to call (PostgreSQL manual, "pg_rewind").
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

fn role_statements(setup: &Setup) -> String {
    let mut statements = vec![
        // Passwords are sent as verifiers, and even those must not be logged.
        "SET log_statement = 'none'; SET log_min_duration_statement = -1".to_owned(),
        role(&setup.superuser, "SUPERUSER LOGIN"),
        role(
            &RoleCredentials { username: session::ROLE.to_owned(), ..RoleCredentials::default() },
            "SUPERUSER LOGIN",
        ),
    ];
    if setup.replication.username != setup.superuser.username {
        statements.push(role(&setup.replication, "REPLICATION LOGIN"));
    }
    if let Some(rewind) = setup.rewind.as_ref().filter(|rewind| rewind.username != setup.superuser.username) {
        let shared = rewind.username == setup.replication.username;
        statements.push(role(rewind, if shared { "REPLICATION LOGIN" } else { "LOGIN" }));
        let name = escape_identifier(&rewind.username);
        for function in REWIND_FUNCTIONS {
            statements.push(format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {name}"));
        }
    }
    statements.retain(|statement| !statement.is_empty());
    statements.join(";\n")
}

fn role(who: &RoleCredentials, rights: &str) -> String {
    if who.username.is_empty() {
        return String::new();
    }
    let (name, literal) = (escape_identifier(&who.username), escape_literal(&who.username));
    let verifier = who.password.newest().map(|password| scram_sha_256(password.as_bytes()));
    let password =
        verifier.map_or(String::new(), |verifier| format!(" PASSWORD {}", escape_literal(&verifier)));
    format!(
        "DO $do$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) THEN CREATE ROLE {name}; END IF;
         END $do$;
         ALTER ROLE {name} WITH {rights}{password}"
    )
}

async fn create_database(setup: &Setup, client: &Client) -> Result<(), Error> {
    let Some(name) = &setup.new_database else { return Ok(()) };
    let what = "create the database";
    let known = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[name]).await;
    if known.map_err(Error::sql(what))?.is_none() {
        let statement = format!("CREATE DATABASE {}", escape_identifier(name));
        client.batch_execute(&statement).await.map_err(Error::sql(what))?;
    }
    Ok(())
}

async fn post_bootstrap(setup: &Setup, private: &Private) -> Result<(), Error> {
    let Some(words) = &setup.post_bootstrap else { return Ok(()) };
    let passwords = private.path.join("pgpass");
    files::write_secret(setup, &passwords, &pgpass_line(&private.host(), setup.port, &setup.superuser))?;
    let target = conninfo([
        ("host", private.host()),
        ("port", setup.port.to_string()),
        ("user", setup.superuser.username.clone()),
        ("dbname", database(setup).to_owned()),
    ]);
    let (port, host) = (setup.port.to_string(), private.host());
    // A program without the connection string reaches the new cluster by these.
    let environment = [
        ("PGHOST", OsStr::new(&host)),
        ("PGPORT", OsStr::new(&port)),
        ("PGUSER", OsStr::new(&setup.superuser.username)),
        ("PGDATABASE", OsStr::new(database(setup))),
        ("PGPASSFILE", passwords.as_os_str()),
        ("PGOPTIONS", OsStr::new("-c synchronous_commit=local -c statement_timeout=0")),
    ];
    let words: Vec<String> = words.iter().cloned().chain([target]).collect();
    let call = ScriptCall { name: "post_bootstrap", words: &words, environment: &environment, within: None };
    call.execute(setup).await
}
