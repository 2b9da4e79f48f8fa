//! Errors of operations on the local Postgres.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::{Setup, judge};

/// A failed operation, with what it tried; the cause is its `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A program could not be run.
    #[error("run {program}")]
    Spawn {
        /// Which.
        program: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("{program} failed with {status}: {output}")]
    Program {
        /// Which.
        program: String,
        /// How it ended.
        status: String,
        /// Its last lines.
        output: String,
    },
    /// No connection to Postgres.
    #[error("connect to {to}")]
    Connect {
        /// Host and port.
        to: String,
        /// What the server or network said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// None of the ways to the own Postgres leads in.
    #[error("cannot reach its own PostgreSQL: {}", refusals.join("; "))]
    NoWayIn {
        /// Each way, with why not.
        refusals: Vec<String>,
        /// What the last one, the configured address, ended with.
        last: Box<Error>,
    },
    /// A role of the supervisor's name is there, and somebody else's.
    #[error("the role {role} exists and is not a superuser: rename it, or make it a superuser")]
    NotTheOwnRole {
        /// Which.
        role: &'static str,
    },
    /// A statement failed.
    #[error("{what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It took too long.
    #[error("{what} did not end within {within:?}")]
    Deadline {
        /// What.
        what: &'static str,
        /// Its time.
        within: Duration,
    },
    /// The postmaster ended before it was ready.
    #[error("postgres ended while starting: {exit}")]
    EndedWhileStarting {
        /// How.
        exit: String,
    },
    /// The new `pg_hba.conf` or `pg_ident.conf` is wrong; the former is in force again.
    #[error("refused, and the previous configuration stays in force: {}", errors.join("; "))]
    BrokenAccessRules {
        /// `file:line: what`.
        errors: Vec<String>,
    },
    /// The operation does not fit what is there.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    /// A start ended with `exit`; with what PostgreSQL says of it when it is asked again.
    pub(crate) async fn start_failed(setup: &Setup, exit: &str, line: &[String]) -> Error {
        let why = judge::explain(setup, line).await;
        let exit = why.map_or_else(|| exit.to_owned(), |why| format!("{exit}: {why}"));
        Error::EndedWhileStarting { exit }
    }

    /// What the server said when it refused the connection; `None` when it said nothing.
    pub(crate) fn refused_with(&self) -> Option<&SqlState> {
        match self {
            Error::Connect { source, .. } => source.code(),
            Error::NoWayIn { last, .. } => last.refused_with(),
            _no_connection => None,
        }
    }

    /// The server took the connection and ended it, and not because it recovers, is full or does not know us.
    pub fn is_turned_away(&self) -> bool {
        self.refused_with().is_some_and(|code| {
            let waits = [SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS];
            !waits.contains(code) && !code.code().starts_with("28")
        })
    }

    /// The server knows the role by another password.
    pub(crate) fn is_wrong_password(&self) -> bool {
        self.refused_with() == Some(&SqlState::INVALID_PASSWORD)
    }

    /// For `map_err` on a file operation.
    pub(crate) fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { what, path, source }
    }

    /// For `map_err` on a statement.
    pub(crate) fn sql(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Error {
        move |source| Error::Sql { what, source }
    }
}
