//! The names of relations, from a PostgreSQL that has them: files keep their numbers on all members.

use std::collections::{BTreeMap, BTreeSet};

use super::super::error::CliError;
use super::super::target::environment;
use super::wal::{LostTransaction, RelationFile};
use crate::client::{SqlLogin, SqlRows};

/// By file: `DATABASE: SCHEMA.NAME`.
pub(super) type RelationNames = BTreeMap<RelationFile, String>;

/// Asks for the names. A relation that the discarded WAL has made, or rewritten, is not there.
pub(super) async fn ask(login: &str, lost: &[LostTransaction]) -> Result<RelationNames, CliError> {
    let files: BTreeSet<&RelationFile> =
        lost.iter().flat_map(|transaction| transaction.changes.keys()).collect();
    let databases =
        rows(login, "SELECT oid::text, datname, dattablespace::text FROM pg_catalog.pg_database").await?;
    let mut names = RelationNames::new();
    for row in databases.rows {
        let [Some(oid), Some(name), Some(tablespace)] =
            [0, 1, 2].map(|column| row.get(column).and_then(|it| it.as_str()))
        else {
            continue;
        };
        let of_this = files.iter().filter_map(|file| {
            let parts: Vec<&str> = file.split('/').collect();
            let [space, database, node] = parts[..] else { return None };
            // Files in the database's own tablespace have none in the catalogue.
            let space = if space == tablespace { "0" } else { space };
            let is_number = |text: &&str| text.parse::<u32>().is_ok();
            (database == oid && [space, node].iter().all(is_number))
                .then(|| (*file, space.to_owned(), node.to_owned()))
        });
        let of_this: Vec<_> = of_this.collect();
        if of_this.is_empty() {
            continue;
        }
        let there = format!("{login} dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"));
        for (file, space, node) in of_this {
            let sql =
                format!("SELECT pg_catalog.pg_filenode_relation({space}, {node})::pg_catalog.regclass::text");
            let found = rows(&there, &sql).await?;
            if let Some(relation) = found.rows.first().and_then(|row| row.first()?.as_str()) {
                names.insert(file.clone(), format!("{name}: {relation}"));
            }
        }
    }
    Ok(names)
}

async fn rows(login: &str, sql: &str) -> Result<SqlRows, CliError> {
    let session = SqlLogin::new(login, environment(), None)?.connect().await?;
    Ok(session.run(sql).await?.unwrap_or_default())
}
