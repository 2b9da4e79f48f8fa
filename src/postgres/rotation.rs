//! Passwords that were replaced: in the roles, and in the password file of the programs and the WAL receiver.

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
    /// Of who streams.
    pub replication: Option<String>,
    /// Of who rewinds, where that is somebody else.
    pub rewind: Option<String>,
}

impl Postgres {
    /// Connects with these passwords from now on, and with the former ones where they are not in force yet. True if
    /// any is another one.
    pub fn replace_passwords(&self, passwords: Passwords) -> Result<bool, Error> {
        replace(&self.inner, passwords)
    }

    /// Remembers the passwords of a previous incarnation. True if any was another one.
    pub fn recall_passwords(&self) -> bool {
        recall(&self.inner)
    }

    /// Gives the roles of this primary the passwords that were replaced.
    pub async fn enact_passwords(&self) -> Result<(), Error> {
        enact(&self.inner).await
    }

    /// For a standby that receives nothing: the other password may be in force where it asks.
    pub fn take_turns_with_passwords(&self) -> Result<(), Error> {
        take_turns(&self.inner)
    }
}

/// Writes the password file for the programs and the WAL receiver that ask `target`.
pub(super) fn write_pgpass(setup: &Setup, target: &FollowTarget) -> Result<(), Error> {
    write(setup, &conninfo::pgpass(setup, target))
}

/// Which password of each role the password file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Newest,
    Former,
}

fn roles(setup: &Setup) -> impl Iterator<Item = &RoleCredentials> {
    [Some(&setup.superuser), Some(&setup.replication), setup.rewind.as_ref()].into_iter().flatten()
}

/// Uses these from now on. True if any is another one.
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

/// Who follows nobody needs a password file only to know, in another life, which passwords there were.
pub(super) fn note(setup: &Setup) -> Result<(), Error> {
    if setup.pgpass.exists() {
        return Ok(());
    }
    write(setup, &pgpass_of_hosts(setup, [(&setup.local_host, setup.port)]))
}

/// Remembers the passwords of a previous incarnation from the password file. True if any was another one.
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

/// Gives the roles their new passwords: on the primary only. They travel as verifiers, and not even those are logged.
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

/// For a standby that is let in by nobody: the password file takes turns, as the primary's role may still have its
/// former password, or have the new one already.
fn take_turns(inner: &PostgresInner) -> Result<(), Error> {
    let setup = &inner.setup;
    let Some(former) = setup.replication.password.former() else { return Ok(()) };
    let text = fs::read_to_string(&setup.pgpass).unwrap_or_default();
    let mine = |line: &str| {
        split_pgpass(line)
            .filter(|[_, _, user, _]| *user == setup.replication.username)
            .map(|[.., password]| password)
    };
    let holds_former = text.lines().find_map(mine).is_some_and(|password| password == former);
    rewrite(setup, if holds_former { Which::Newest } else { Which::Former })
}

/// Writes the password file anew, for the hosts that it is about.
fn rewrite(setup: &Setup, which: Which) -> Result<(), Error> {
    let text = match fs::read_to_string(&setup.pgpass) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("read", &setup.pgpass)(error)),
    };
    let entry = |line: &str| {
        let [host, port, user, password] = split_pgpass(line)?;
        let who = roles(setup).find(|who| who.username == user);
        let former = who.filter(|_| which == Which::Former).and_then(|who| who.password.former());
        let password = former.or_else(|| who.map_or(Some(password), |who| who.password.newest()))?;
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
