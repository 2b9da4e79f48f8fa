//! The names of relations, from a PostgreSQL that has them: files keep their numbers on all members.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::error::CliError;
use super::super::query::quoted;
use super::super::target::environment;
use super::wal::{LostTransaction, RelationFile};
use crate::client::SqlLogin;

/// By file: `DATABASE: SCHEMA.NAME`.
pub(super) type RelationNames = BTreeMap<RelationFile, String>;

/// Asks for the names. A relation that the discarded WAL has made, or rewritten, is not there.
pub(super) async fn ask(login: &str, lost: &[LostTransaction]) -> Result<RelationNames, CliError> {
    let files: BTreeSet<&RelationFile> =
        lost.iter().flat_map(|transaction| transaction.changes.keys()).collect();
    let mut names = RelationNames::new();
    let databases = "SELECT oid::text, datname, dattablespace::text FROM pg_catalog.pg_database";
    for [oid, database, tablespace] in rows(login, databases).await? {
        let of_this: Vec<String> = files.iter().filter_map(|file| row_of(file, &oid, &tablespace)).collect();
        if of_this.is_empty() {
            continue;
        }
        let sql = format!(
            "SELECT file, pg_catalog.pg_filenode_relation(space, node)::text
             FROM (VALUES {}) AS files (file, space, node)
             WHERE pg_catalog.pg_filenode_relation(space, node) IS NOT NULL",
            of_this.join(", ")
        );
        for [file, relation] in rows(&format!("{login} dbname='{}'", quoted(&database)), &sql).await? {
            names.insert(file, format!("{database}: {relation}"));
        }
    }
    Ok(names)
}

/// The file as a row of SQL, if it is one of this database. The catalogue names no tablespace for those in the
/// database's own.
fn row_of(file: &str, database: &str, own: &str) -> Option<String> {
    let parts: Vec<u32> = file.split('/').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [space, of, node] = parts[..] else { return None };
    let space = if space.to_string() == own { 0 } else { space };
    (of.to_string() == database).then(|| format!("('{file}', {space}::oid, {node}::oid)"))
}

async fn rows<const COLUMNS: usize>(login: &str, sql: &str) -> Result<Vec<[String; COLUMNS]>, CliError> {
    let session = SqlLogin::new(login, environment(), None)?.connect().await?;
    let found = session.run(sql).await?.unwrap_or_default();
    let texts = |row: Vec<Value>| {
        row.into_iter().map(|cell| cell.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    };
    Ok(found.rows.into_iter().filter_map(|row| texts(row)?.try_into().ok()).collect())
}
