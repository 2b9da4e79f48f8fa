//! SQL on a PostgreSQL, as a user of the database. The login is libpq's.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::Type;
use tokio_postgres::{Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::libpq::LibpqDefaults;
use crate::os::tls::{self, Identity, TlsError, Trust};
use crate::os::user::User;

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The connection string cannot be used.
    #[error("the connection string is invalid")]
    ConnectionString(#[source] tokio_postgres::Error),
    /// The certificates cannot be used.
    #[error("failed to prepare TLS for PostgreSQL")]
    Certificates(#[source] TlsError),
    /// `PGSSLMODE` needs a file.
    #[error("PGSSLMODE={0} needs the file that PGSSLROOTCERT names")]
    NoRootCertificate(String),
    /// No connection.
    #[error("failed to connect to PostgreSQL")]
    Connect(#[source] tokio_postgres::Error),
    /// PostgreSQL refused the statement, or the connection broke.
    #[error("the statement failed")]
    Statement(#[source] tokio_postgres::Error),
}

/// The rows of a statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SqlRows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows: numbers, booleans and JSON as such, all else as text.
    pub rows: Vec<Vec<Value>>,
}

/// A login, complete.
pub struct SqlLogin {
    config: Config,
    tls: MakeRustlsConnect,
}

impl SqlLogin {
    /// `text` is a connection string, which may be empty; the environment and the password file complete it. A
    /// password given here is used instead of theirs.
    ///
    /// # Errors
    /// The connection string or a file for TLS cannot be used.
    pub fn new(
        text: &str,
        environment: BTreeMap<String, String>,
        password: Option<&str>,
    ) -> Result<SqlLogin, SqlError> {
        let user = User::of_this_process().known;
        let defaults = LibpqDefaults { environment, user };
        let mut config: Config = text.parse().map_err(SqlError::ConnectionString)?;
        if let Some(password) = password {
            config.password(password);
        }
        defaults.complete(&mut config);
        config.connect_timeout(CONNECT_WITHIN);
        if config.get_application_name().is_none() {
            config.application_name(defaults.variable("PGAPPNAME").unwrap_or("matriarch"));
        }
        let tls = connector(&mut config, &defaults)?;
        Ok(SqlLogin { config, tls })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Connects.
    ///
    /// # Errors
    /// No server answers, or it refuses the login.
    pub async fn connect(&self) -> Result<SqlSession, SqlError> {
        let (client, connection) = self.config.connect(self.tls.clone()).await.map_err(SqlError::Connect)?;
        tokio::spawn(connection);
        Ok(SqlSession(client))
    }
}

/// `sslmode` and the files for TLS, with libpq's meaning.
fn connector(config: &mut Config, defaults: &LibpqDefaults) -> Result<MakeRustlsConnect, SqlError> {
    let given = match config.get_ssl_mode() {
        SslMode::Disable => Some("disable"),
        SslMode::Require => Some("require"),
        _prefer => None,
    };
    let mode = given.or_else(|| defaults.variable("PGSSLMODE")).unwrap_or("prefer");
    let roots = defaults.file("PGSSLROOTCERT", "root.crt");
    let chain = |path: &Path| Trust::chain(path).map_err(SqlError::Certificates);
    let trust = match (mode, &roots) {
        ("verify-full", Some(path)) => Trust::name(Some(path)).map_err(SqlError::Certificates)?,
        ("verify-ca" | "require", Some(path)) => chain(path)?,
        ("verify-ca" | "verify-full", None) => return Err(SqlError::NoRootCertificate(mode.to_owned())),
        _ => Trust::Anyone,
    };
    config.ssl_mode(match mode {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        _ => SslMode::Require,
    });
    let files = (defaults.file("PGSSLCERT", "postgresql.crt"), defaults.file("PGSSLKEY", "postgresql.key"));
    let identity = match &files {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key, password: None }),
        _ => None,
    };
    Ok(MakeRustlsConnect::new(tls::client(trust, identity).map_err(SqlError::Certificates)?))
}

/// A connection.
#[derive(Debug)]
pub struct SqlSession(tokio_postgres::Client);

impl SqlSession {
    /// Runs statements, and returns the rows of the last one; `None`: it has none.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn run(&self, statements: &str) -> Result<Option<SqlRows>, SqlError> {
        // Types are known for one statement only. A fault of the statement shows below.
        let several = statements.trim_end().trim_end_matches(';').contains(';');
        let types: Vec<Type> = match self.0.prepare(if several { "" } else { statements }).await {
            Ok(prepared) => prepared.columns().iter().map(|column| column.type_().clone()).collect(),
            Err(_) => Vec::new(),
        };
        let messages = self.0.simple_query(statements).await.map_err(SqlError::Statement)?;
        let (mut found, mut ended): (Option<SqlRows>, bool) = (None, false);
        for message in messages {
            if std::mem::take(&mut ended) {
                found = None;
            }
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    let columns = columns.iter().map(|column| column.name().to_owned()).collect();
                    found = Some(SqlRows { columns, rows: Vec::new() });
                }
                SimpleQueryMessage::Row(row) => {
                    let cell = |index: usize| value(row.get(index), types.get(index));
                    let cells = (0..row.len()).map(cell).collect();
                    found.get_or_insert_default().rows.push(cells);
                }
                SimpleQueryMessage::CommandComplete(_) => ended = true,
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether this server is a standby.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn is_in_recovery(&self) -> Result<bool, SqlError> {
        let found = self.run("SELECT pg_catalog.pg_is_in_recovery()").await?;
        Ok(found.is_none_or(|found| found.rows != [[json!(false)]]))
    }
}

fn value(text: Option<&str>, of: Option<&Type>) -> Value {
    let Some(text) = text else { return Value::Null };
    let typed = match of {
        Some(&Type::BOOL) => Some(json!(text == "t")),
        Some(&Type::INT2 | &Type::INT4 | &Type::INT8 | &Type::OID) => {
            text.parse::<i64>().ok().map(Value::from)
        }
        Some(&Type::FLOAT4 | &Type::FLOAT8) => {
            text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
        }
        Some(&Type::JSON | &Type::JSONB) => serde_json::from_str(text).ok(),
        _ => None,
    };
    typed.unwrap_or_else(|| json!(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_type_of_their_column() {
        let cases = [
            (Some("t"), Some(Type::BOOL), json!(true)),
            (Some("7"), Some(Type::INT4), json!(7)),
            (Some("NaN"), Some(Type::FLOAT8), json!("NaN")),
            (Some(r#"{"a":1}"#), Some(Type::JSONB), json!({"a": 1})),
            (Some("7"), Some(Type::TEXT), json!("7")),
            (Some("7"), None, json!("7")),
            (None, Some(Type::INT4), Value::Null),
        ];
        for (text, of, expected) in cases {
            assert_eq!(value(text, of.as_ref()), expected, "{text:?}");
        }
    }
}
