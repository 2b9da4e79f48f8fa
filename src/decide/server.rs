//! The state of the local Postgres, combined from its data directory, its process and its answer.

use crate::model::{ControlFile, DataDirectory, PostgresFacts, Process, SqlFacts};

/// The state of my Postgres.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Server<'a> {
    /// Not examined yet.
    Unknown,
    /// No data.
    Empty,
    /// An interrupted bootstrap, clone or rewind.
    HalfMade,
    /// The data directory cannot be read.
    Inaccessible(&'a str),
    /// The data directory belongs to another cluster.
    Foreign(&'a ControlFile),
    /// Down.
    Down(&'a ControlFile),
    /// A postmaster runs and has not answered yet, or does not answer now.
    Silent,
    /// It accepts writes.
    Primary(&'a SqlFacts),
    /// It replays WAL.
    Standby(&'a SqlFacts),
}

impl<'a> Server<'a> {
    /// Classifies the facts; `system_id` is the cluster's, once known.
    pub(super) fn of(postgres: &'a PostgresFacts, system_id: Option<u64>) -> Server<'a> {
        let runs = matches!(postgres.process, Process::Up { .. });
        let control = match &postgres.data {
            // A directory that cannot be read, or looks empty, does not tell the state of a running postmaster.
            DataDirectory::Empty | DataDirectory::HalfMade { .. } | DataDirectory::Inaccessible { .. }
                if runs =>
            {
                return Server::running(postgres);
            }
            DataDirectory::Unknown => return Server::Unknown,
            DataDirectory::Empty => return Server::Empty,
            DataDirectory::HalfMade { .. } => return Server::HalfMade,
            DataDirectory::Inaccessible { error } => return Server::Inaccessible(error),
            DataDirectory::Ready(control) => control,
        };
        if system_id.is_some_and(|cluster| cluster != control.system_id) {
            return Server::Foreign(control);
        }
        if runs { Server::running(postgres) } else { Server::Down(control) }
    }

    fn running(postgres: &'a PostgresFacts) -> Server<'a> {
        match postgres.answering() {
            None => Server::Silent,
            Some(sql) if sql.is_primary() => Server::Primary(sql),
            Some(sql) => Server::Standby(sql),
        }
    }
}
