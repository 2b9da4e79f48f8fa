//! Replaced passwords: set in the roles, and in the password file of the programs and the WAL receiver.

use std::fs;
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;

use super::conninfo::{ConninfoAddress, pgpass, split_pgpass};
use super::handle::PostgresInner;
use super::{Error, Postgres, RoleCredentials, Setup, files, session};
use crate::model::{FirstPassword, FollowTarget};
use crate::os::error_chain::ErrorChain;

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

/// Held while the password file is read and written: a job and a statement may both be at it.
static WRITING: Mutex<()> = Mutex::new(());

impl Postgres {
    /// Uses these passwords for new connections, and the former ones where the new ones are not in force yet. True if
    /// any differs: then [`Postgres::write_passwords`] is due.
    pub fn replace_passwords(&self, passwords: Passwords) -> bool {
        replace(&self.inner, passwords)
    }

    /// Writes the password file for the programs and the WAL receiver, with the newest passwords first.
    pub fn write_passwords(&self) -> Result<(), Error> {
        rewrite(&self.inner.setup, FirstPassword::Newest)
    }

    /// The passwords of the replication user that may be in force, the newest first.
    pub fn replication_passwords(&self) -> Vec<String> {
        self.inner.setup.replication.password.known().lines(FirstPassword::Newest)
    }

    /// Reads the passwords of a previous incarnation. True if any differed.
    pub fn recall_passwords(&self) -> bool {
        recall(&self.inner)
    }

    /// Sets the new passwords of the roles on this primary.
    pub async fn set_role_passwords(&self) -> Result<(), Error> {
        set_in_roles(&self.inner).await
    }

    /// For a standby that receives no WAL: the other password may be in force at its source.
    pub fn try_other_password(&self) -> Result<(), Error> {
        try_other(&self.inner)
    }
}

/// Writes the password file for the programs and the WAL receiver that connect to `target`. All roles get their
/// passwords together, so that the one that worked for a role tells which one comes first.
pub(super) fn write_pgpass(setup: &Setup, target: &FollowTarget) -> Result<(), Error> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let address = ConninfoAddress::parse(&target.conn_url).unwrap_or_default();
    let first = setup.rewind_credentials().password.known().likeliest();
    write(setup, &pgpass(setup, &address.hosts, first))
}

fn roles(setup: &Setup) -> impl Iterator<Item = &RoleCredentials> {
    [Some(&setup.superuser), Some(&setup.replication), setup.rewind.as_ref()].into_iter().flatten()
}

/// Uses these from now on.
fn replace(inner: &PostgresInner, passwords: Passwords) -> bool {
    let setup = &inner.setup;
    let newest = [passwords.superuser, passwords.replication, passwords.rewind];
    let changed: Vec<bool> =
        roles(setup).zip(newest).map(|(who, newest)| who.password.known().replace(newest)).collect();
    changed.contains(&true)
}

/// Writes the password file where there is none: a record of the passwords for the next supervisor.
pub(super) fn note(setup: &Setup) -> Result<(), Error> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    if setup.pgpass.exists() {
        return Ok(());
    }
    write(setup, &pgpass(setup, &[own_address(setup)], FirstPassword::Newest))
}

/// Reads the passwords of a previous incarnation from the password file. True if any differed.
fn recall(inner: &PostgresInner) -> bool {
    if inner.setup.data_dir.exists()
        && let Err(error) = note(&inner.setup)
    {
        tracing::warn!(error = error.chain(), "could not write the password file");
    }
    let text = fs::read_to_string(&inner.setup.pgpass).unwrap_or_default();
    let mut differs = false;
    for [_, _, user, password] in text.lines().filter_map(split_pgpass) {
        for who in roles(&inner.setup).filter(|who| who.username == user) {
            differs |= who.password.known().recall(password.clone());
        }
    }
    differs
}

/// Sets the new passwords of the roles, on the primary only. They are sent as verifiers, and even those are not logged.
async fn set_in_roles(inner: &PostgresInner) -> Result<(), Error> {
    let setup = &inner.setup;
    let what = "change the passwords";
    let options = "-c synchronous_commit=local -c statement_timeout=5000";
    let client = session::open(inner, "Matriarch", options).await?;
    let silence = "SET log_statement = 'none'; SET log_min_duration_statement = -1; \
                   SET log_min_error_statement = panic";
    client.batch_execute(silence).await.map_err(Error::sql(what))?;
    for who in roles(setup).filter(|who| who.password.known().is_replaced()) {
        let Some(password) = who.password.newest() else { continue };
        let verifier = escape_literal(&scram_sha_256(password.as_bytes()));
        let statement = format!("ALTER ROLE {} PASSWORD {verifier}", escape_identifier(&who.username));
        client.batch_execute(&statement).await.map_err(Error::sql(what))?;
    }
    Ok(())
}

/// For a standby whose login fails: the primary's role may have either password.
fn try_other(inner: &PostgresInner) -> Result<(), Error> {
    let (setup, replication) = (&inner.setup, &inner.setup.replication);
    let text = fs::read_to_string(&setup.pgpass).unwrap_or_default();
    let mut lines = text.lines().filter_map(split_pgpass);
    let first = lines.find(|[_, _, user, _]| *user == replication.username).map(|[.., password]| password);
    let other = replication.password.known().other_than(first.as_deref());
    other.map_or(Ok(()), |first| rewrite(setup, first))
}

/// Writes the password file anew, for the same hosts. It is also the record of the former passwords: they may still be
/// in force when the next supervisor starts.
fn rewrite(setup: &Setup, first: FirstPassword) -> Result<(), Error> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let text = match fs::read_to_string(&setup.pgpass) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::file("read", &setup.pgpass)(error)),
    };
    let address = |[host, port, ..]: [String; 4]| Some((host, port.parse().ok()?));
    let mut hosts: Vec<(String, u16)> = text.lines().filter_map(split_pgpass).filter_map(address).collect();
    hosts.dedup();
    if hosts.is_empty() {
        hosts.push(own_address(setup));
    }
    write(setup, &pgpass(setup, &hosts, first))
}

fn own_address(setup: &Setup) -> (String, u16) {
    (setup.local_host.clone(), setup.port)
}

fn write(setup: &Setup, text: &str) -> Result<(), Error> {
    if let Some(directory) = setup.pgpass.parent() {
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    }
    files::write_secret(setup, &setup.pgpass, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MemberName;
    use crate::postgres::Parameters;

    fn incarnation(pgpass: &std::path::Path, password: &str) -> Postgres {
        let who = |name: &str| RoleCredentials {
            username: name.to_owned(),
            password: Some(password.to_owned()).into(),
            ..RoleCredentials::default()
        };
        let setup = Setup {
            pgpass: pgpass.to_owned(),
            data_dir: std::env::temp_dir(),
            superuser: who("postgres"),
            replication: who("replicator"),
            ..Setup::default()
        };
        Postgres::new(setup, Parameters::default())
    }

    fn all(password: &str) -> Passwords {
        let password = Some(password.to_owned());
        Passwords { superuser: password.clone(), replication: password, rewind: None }
    }

    #[test]
    fn every_role_of_a_name_has_the_former_password() {
        let pgpass = std::env::temp_dir().join(format!("rotation-shared-{}", std::process::id()));
        let shared = |password: &str| {
            let mut setup = incarnation(&pgpass, password).inner.setup.clone();
            setup.replication.username = setup.superuser.username.clone();
            Postgres::new(setup, Parameters::default())
        };
        assert!(!shared("old").recall_passwords());
        let next = shared("new");
        assert!(next.recall_passwords());
        assert!(roles(&next.inner.setup).all(|who| who.password.known().is_replaced()));
        fs::remove_file(&pgpass).expect("removed");
    }

    /// A supervisor that ends after it has taken a new password, and before the roles have it.
    #[test]
    fn the_next_supervisor_knows_the_password_that_may_be_in_force() {
        let pgpass = std::env::temp_dir().join(format!("rotation-{}", std::process::id()));
        let target = FollowTarget {
            name: MemberName::try_from("b".to_owned()).expect("a name"),
            conn_url: "postgres://b:5433/postgres".to_owned(),
            slot: None,
        };
        for follows in [false, true] {
            let first = incarnation(&pgpass, "old");
            assert!(!first.recall_passwords(), "its record is new");
            if follows {
                write_pgpass(&first.inner.setup, &target).expect("written");
            }
            assert!(first.replace_passwords(all("new")) && !first.replace_passwords(all("new")));
            first.write_passwords().expect("written");
            let next = incarnation(&pgpass, "new");
            assert!(next.recall_passwords(), "follows: {follows}");
            for expected in ["old", "new"] {
                next.try_other_password().expect("written");
                let text = fs::read_to_string(&pgpass).expect("a file");
                let line = text.lines().find(|line| line.contains(":replicator:")).expect("a line");
                assert!(line.ends_with(expected) && line.starts_with("b:5433:") == follows, "{text}");
            }
            fs::remove_file(&pgpass).expect("removed");
        }
    }
}
