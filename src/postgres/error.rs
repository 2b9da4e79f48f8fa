//! Errors of operations on the local Postgres.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::{Setup, judge};

/// A failed operation, with its attempt; the cause is its `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file or directory failed.
    #[error("{what} {}", path.display())]
    File {
        /// The attempt.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// A program could not be run.
    #[error("run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("{program} failed with {status}: {output}")]
    Program {
        /// The program.
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
        /// The server's or the network's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// All ways to the own Postgres failed.
    #[error("cannot reach its own PostgreSQL: {}", refusals.join("; "))]
    NoWayIn {
        /// Each way with its error.
        refusals: Vec<String>,
        /// The error of the last way, the configured address.
        last: Box<Error>,
    },
    /// A role with the supervisor's name exists, and belongs to another user.
    #[error("the role {role} exists and is not a superuser: rename it, or make it a superuser")]
    NotTheOwnRole {
        /// The role.
        role: &'static str,
    },
    /// A statement failed.
    #[error("{what}")]
    Sql {
        /// The attempt.
        what: &'static str,
        /// The server's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// An operation took too long.
    #[error("{what} did not end within {within:?}")]
    Deadline {
        /// The operation.
        what: &'static str,
        /// Its limit.
        within: Duration,
    },
    /// The postmaster ended before it was ready.
    #[error("postgres ended while starting: {exit}")]
    EndedWhileStarting {
        /// The exit status.
        exit: String,
    },
    /// The new `pg_hba.conf` or `pg_ident.conf` is wrong; the former one is in force again.
    #[error("refused, and the previous configuration stays in force: {}", errors.join("; "))]
    BrokenAccessRules {
        /// `file:line: error`.
        errors: Vec<String>,
    },
    /// The operation does not fit the present state.
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

    /// The server's code when it refused the connection; `None` without one.
    pub(crate) fn refused_with(&self) -> Option<&SqlState> {
        match self {
            Error::Connect { source, .. } => source.code(),
            Error::NoWayIn { last, .. } => last.refused_with(),
            _no_connection => None,
        }
    }

    /// Whether the server accepted the connection and then ended it, for another reason than recovery, too many
    /// connections or a failed login.
    pub fn is_turned_away(&self) -> bool {
        self.refused_with().is_some_and(|code| {
            let waits = [SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS];
            !waits.contains(code) && !code.code().starts_with("28")
        })
    }

    /// Whether the role has another password.
    pub(crate) fn is_wrong_password(&self) -> bool {
        self.refused_with() == Some(&SqlState::INVALID_PASSWORD)
    }

    /// Whether no access rule admits the login as it was made, for example without TLS.
    pub(crate) fn is_refused_login(&self) -> bool {
        self.refused_with() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
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
