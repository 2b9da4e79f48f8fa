//! The report on one screen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use super::super::error::CliError;
use super::super::output::Format;
use super::super::paragraph::hanging;
use super::super::sheet::{Column, Sheet};
use super::LossReport;
use super::wal::RowChanges;
use crate::model::RewindReport;

/// So many commits are listed one by one.
const SHOWN_MAX: usize = 20;
/// Files with lower numbers are those of the catalogue, as initdb made them (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16384;

/// One rewind in a line.
pub(super) fn line(rewind: &RewindReport) -> String {
    let RewindReport { timeline, fork, end, bytes, commits, kept_in } = rewind;
    let commits =
        commits.map_or_else(|| "commits not counted".to_owned(), |commits| format!("{commits} commits"));
    format!("{}  timeline {timeline}, {fork} to {end}, {bytes} bytes, {commits}\n", kept_in.display())
}

/// All of one rewind.
pub(super) fn text(report: &LossReport) -> Result<String, CliError> {
    let RewindReport { timeline, fork, end, bytes, kept_in, .. } = &report.rewind;
    let mut text = format!(
        "WAL that a rewind discarded: timeline {timeline}, {fork} to {end}, {bytes} bytes\nKept in {}\n\n",
        kept_in.display()
    );
    let (committed, others) = (report.committed.len(), report.rolled_back);
    let _ = writeln!(text, "{committed} transactions were committed there; {others} were not.");
    if let (Some(first), Some(last)) = (report.committed.first(), report.committed.last()) {
        let _ = writeln!(text, "The first commit was at {}, the last at {}.", first.at, last.at);
    }
    if let Some(why) = &report.unreadable {
        let _ = writeln!(text, "Not all of it can be read, as after a crash: {why}");
    }
    relations(&mut text, report)?;
    transactions(&mut text, report);
    text.push('\n');
    text.push_str(&hanging(
        "",
        "Whether a client was told of a commit is not in the WAL: where commits waited for standbys, it was not. To bring rows \
         back, restore a backup to the position of the last commit with this WAL, in a directory of its own, and copy them.",
    ));
    Ok(text)
}

fn relations(text: &mut String, report: &LossReport) -> Result<(), CliError> {
    let mut sums: BTreeMap<&str, (RowChanges, usize)> = BTreeMap::new();
    for transaction in &report.committed {
        for (file, rows) in &transaction.changes {
            let (sum, transactions) = sums.entry(shown(report, file)).or_default();
            sum.add(*rows);
            *transactions += 1;
        }
    }
    if sums.is_empty() {
        return Ok(());
    }
    let rows = sums.iter().map(|(name, (rows, transactions))| {
        vec![json!(name), json!(rows.inserted), json!(rows.updated), json!(rows.deleted), json!(transactions)]
    });
    let columns = ["Inserted", "Updated", "Deleted", "Transactions"].map(Column::number);
    let sheet = Sheet {
        columns: [Column::text("Relation")].into_iter().chain(columns).collect(),
        rows: rows.collect(),
        ..Sheet::default()
    };
    text.push('\n');
    text.push_str(&sheet.render(Format::Table)?);
    if report.names.is_empty() {
        text.push_str(
            "Relations are files here; --names 'host=… user=…' asks a PostgreSQL for their names.\n",
        );
    }
    Ok(())
}

fn shown<'a>(report: &'a LossReport, file: &'a str) -> &'a str {
    let number = file.rsplit('/').next().and_then(|number| number.parse::<u32>().ok());
    match report.names.get(file) {
        Some(name) => name,
        None if number.is_some_and(|number| number < FIRST_OF_USERS) => "(system catalogue)",
        None => file,
    }
}

fn transactions(text: &mut String, report: &LossReport) {
    text.push('\n');
    for it in report.committed.iter().take(SHOWN_MAX) {
        let mut sum = RowChanges::default();
        it.changes.values().for_each(|rows| sum.add(*rows));
        let RowChanges { inserted, updated, deleted } = sum;
        let _ = writeln!(
            text,
            "{}  transaction {}, at {}: {inserted} rows inserted, {updated} updated, {deleted} deleted",
            it.at, it.xid, it.lsn
        );
    }
    let more = report.committed.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        let _ = writeln!(text, "… and {more} more: -o json has all of them");
    }
}
