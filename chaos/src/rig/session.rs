//! Connections to PostgreSQL as an application makes them, and what an error says about a statement's fate.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Config, Error, NoTls};

/// A member that does not take a connection within this is away.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// A connection that closes at once when it is dropped, also when nobody reads at its other end.
#[derive(Debug)]
pub(crate) struct Session {
    /// For statements.
    pub(crate) client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Connects to the PostgreSQL at an address.
pub(crate) async fn connect(address: &str, user: &str) -> Result<Session> {
    let mut config = Config::new();
    config.host(address).port(5432).user(user).dbname("postgres").application_name("chaos");
    config.connect_timeout(CONNECT_WITHIN);
    let connected = timeout(CONNECT_WITHIN, config.connect(NoTls)).await;
    let (client, connection) = connected.context("connect in time")?.context("connect")?;
    // It ends with the client; what went wrong is told to the client's own call.
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Session { client, connection })
}

/// Whether the error proves that the statement had no effect. A connection that ends proves nothing: a commit that
/// waits for a standby ends like that as well.
pub(crate) fn is_certain(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}
