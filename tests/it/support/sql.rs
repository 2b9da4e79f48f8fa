//! SQL against a member, as an ordinary client.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Every test user's password.
pub(crate) const PASSWORD: &str = "a test's secret: 'quoted'";

/// A client's settings for these ports; with several, the first that accepts writes.
pub(crate) fn settings(ports: &[u16]) -> Config {
    let mut config = Config::new();
    for port in ports {
        config.host("127.0.0.1").port(*port);
    }
    config.user("postgres").password(PASSWORD).dbname("postgres").connect_timeout(Duration::from_secs(2));
    config
}

/// Connects within two seconds.
pub(crate) async fn connect(config: &Config) -> Result<Client, String> {
    let connected = timeout(Duration::from_secs(2), config.connect(NoTls)).await;
    let (client, connection) =
        connected.map_err(|_| "timed out".to_owned())?.map_err(|error| format!("{error}: {error:?}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Runs `sql` and returns its rows, each as its columns' texts.
pub(crate) async fn query(port: u16, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let client = connect(&settings(&[port])).await?;
    let answer = timeout(Duration::from_secs(10), client.simple_query(sql)).await;
    let messages =
        answer.map_err(|_| format!("timed out: {sql}"))?.map_err(|error| format!("{error}: {error:?}"))?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}
