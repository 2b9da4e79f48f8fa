//! Replaced passwords: set in the roles, and in the password file of the programs and the WAL receiver.

use std::fs;
use std::io::ErrorKind;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;

use super::conninfo::{self, pgpass_entry, pgpass_of_hosts, split_pgpass};
use super::handle::PostgresInner;
use super::{Error, Postgres, RoleCredentials, Setup, files, session};
use crate::model::FollowTarget;

/// The passwords of the roles that a supervisor uses.
#[derive(Clone, PartialEq, Eq)]
pub struct Passwords {
    /// The superuser's.
    pub superuser: Option<String>,
    /// The replication user's.
    pub replication: Option<String>,
    /// The rewind user's, if there is one.
    pub rewind: Option<String>,
}

impl Postgres {
    /// Uses these passwords for new connections, and the former ones where the new ones are not in force yet. True if
    /// any differs.
    pub fn replace_passwords(&self, passwords: Passwords) -> Result<bool, Error> {
        replace(&self.inner, passwords)
    }

    /// Reads the passwords of a previous incarnation. True if any differed.
    pub fn recall_passwords(&self) -> bool {
        recall(&self.inner)
    }

    /// Sets the new passwords of the roles on this primary.
    pub async fn enact_passwords(&self) -> Result<(), Error> {
        enact(&self.inner).await
    }

    /// For a standby that receives no WAL: the other password may be in force at its source.
    pub fn take_turns_with_passwords(&self) -> Result<(), Error> {
        take_turns(&self.inner)
    }
}

/// Writes the password file for the programs and the WAL receiver that connect to `target`.
pub(super) fn write_pgpass(setup: &Setup, target: &FollowTarget) -> Result<(), Error> {
    write(setup, &conninfo::pgpass(setup, target))
}

/// Which password of each role is in the password file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Newest,
    Former,
}

fn roles(setup: &Setup) -> impl Iterator<Item = &RoleCredentials> {
    [Some(&setup.superuser), Some(&setup.replication), setup.rewind.as_ref()].into_iter().flatten()
}

/// Uses these from now on. True if any differs.
fn replace(inner: &PostgresInner, passwords: Passwords) -> Result<bool, Error> {
    let setup = &inner.setup;
    let newest = [passwords.superuser, passwords.replication, passwords.rewind];
    let changed: Vec<bool> =
        roles(setup).zip(newest).map(|(who, newest)| who.password.replace(newest)).collect();
    let changed = changed.contains(&true);
    if changed {
        rewrite(setup, Which::Newest)?;
    }
    Ok(changed)
}

/// A standby without a source needs the password file only as a record of its passwords for the next supervisor.
pub(super) fn note(setup: &Setup) -> Result<(), Error> {
    if setup.pgpass.exists() {
        return Ok(());
    }
    write(setup, &pgpass_of_hosts(setup, [(&setup.local_host, setup.port)]))
}

/// Reads the passwords of a previous incarnation from the password file. True if any differed.
fn recall(inner: &PostgresInner) -> bool {
    let text = fs::read_to_string(&inner.setup.pgpass).unwrap_or_default();
    let mut differs = false;
    for [_, _, user, password] in text.lines().filter_map(split_pgpass) {
        if let Some(who) = roles(&inner.setup).find(|who| who.username == user) {
            differs |= who.password.recall(password);
        }
    }
    differs
}

/// Sets the new passwords of the roles, on the primary only. They are sent as verifiers, and even those are not logged.
async fn enact(inner: &PostgresInner) -> Result<(), Error> {
    let setup = &inner.setup;
    let what = "change the passwords";
    let options = "-c synchronous_commit=local -c statement_timeout=5000";
    let client = session::open(inner, "Matriarch", options).await?;
    let silence = "SET log_statement = 'none'; SET log_min_duration_statement = -1; \
                   SET log_min_error_statement = panic";
    client.batch_execute(silence).await.map_err(Error::sql(what))?;
    for who in roles(setup).filter(|who| who.password.former().is_some()) {
        let Some(password) = who.password.newest() else { continue };
        let verifier = escape_literal(&scram_sha_256(password.as_bytes()));
        let statement = format!("ALTER ROLE {} PASSWORD {verifier}", escape_identifier(&who.username));
        client.batch_execute(&statement).await.map_err(Error::sql(what))?;
    }
    Ok(())
}

/// For a standby whose login fails: alternates the passwords in the file, because the primary's role may have either.
fn take_turns(inner: &PostgresInner) -> Result<(), Error> {
    let setup = &inner.setup;
    let Some(former) = setup.replication.password.former() else { return Ok(()) };
    let text = fs::read_to_string(&setup.pgpass).unwrap_or_default();
    let own_password = |line: &str| {
        split_pgpass(line)
            .filter(|[_, _, user, _]| *user == setup.replication.username)
            .map(|[.., password]| password)
    };
    let holds_former = text.lines().find_map(own_password).is_some_and(|password| password == former);
    rewrite(setup, if holds_former { Which::Newest } else { Which::Former })
}

/// Writes the password file anew, for the same hosts.
fn rewrite(setup: &Setup, which: Which) -> Result<(), Error> {
    let text = match fs::read_to_string(&setup.pgpass) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("read", &setup.pgpass)(error)),
    };
    let entry = |line: &str| {
        let [host, port, user, password] = split_pgpass(line)?;
        let role = roles(setup).find(|role| role.username == user);
        let former = role.filter(|_| which == Which::Former).and_then(|role| role.password.former());
        let password = former.or_else(|| role.map_or(Some(password), |role| role.password.newest()))?;
        Some(pgpass_entry(&host, &port, &user, &password))
    };
    write(setup, &text.lines().filter_map(entry).collect::<String>())
}

fn write(setup: &Setup, text: &str) -> Result<(), Error> {
    if let Some(directory) = setup.pgpass.parent() {
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    }
    files::write_secret(setup, &setup.pgpass, text)
}
