//! What pg_waldump prints, read as transactions: which rows of which relations each one changed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::Lsn;

/// The rows of a relation that were changed. The version of a row that an update made counts as updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct RowChanges {
    /// Rows.
    pub(super) inserted: u64,
    /// Rows.
    pub(super) updated: u64,
    /// Rows.
    pub(super) deleted: u64,
}

impl RowChanges {
    /// Both.
    pub(super) fn add(&mut self, other: RowChanges) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
    }
}

/// The files of a relation, as `TABLESPACE/DATABASE/FILENODE` in pg_waldump's output.
pub(super) type RelationFile = String;

/// A transaction that was committed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LostTransaction {
    /// Its number.
    pub(super) xid: u32,
    /// When it was committed, by the clock of that primary.
    pub(super) at: String,
    /// Where.
    pub(super) lsn: Lsn,
    /// By relation.
    pub(super) changes: BTreeMap<RelationFile, RowChanges>,
}

/// What the records come to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct LostTransactions {
    /// In the order of their commits.
    pub(super) committed: Vec<LostTransaction>,
    /// Transactions that were rolled back, or not finished.
    pub(super) others: usize,
    open: BTreeMap<u32, BTreeMap<RelationFile, RowChanges>>,
}

impl LostTransactions {
    /// Takes one line. Records that change no row, and belong to no transaction, say nothing here.
    pub(super) fn read(&mut self, line: &str) -> Option<()> {
        let (head, desc) = line.split_once(", desc: ")?;
        let (rmgr, head) = head.strip_prefix("rmgr: ")?.split_once(" len ")?;
        let xid: u32 = after(head, "tx:")?.parse().ok()?;
        let lsn = after(head, "lsn:")?;
        match rmgr.trim_end() {
            "Transaction" => self.end(xid, lsn.parse().ok()?, desc),
            "Heap" | "Heap2" => {
                let (relation, changes) = changes(desc)?;
                self.open.entry(xid).or_default().entry(relation).or_default().add(changes);
                Some(())
            }
            _others => None,
        }
    }

    /// There are no more.
    pub(super) fn finish(mut self) -> LostTransactions {
        self.others += std::mem::take(&mut self.open).len();
        self
    }

    fn end(&mut self, xid: u32, lsn: Lsn, desc: &str) -> Option<()> {
        let (what, rest) = desc.split_once(' ')?;
        let (xid, rest) = match what {
            "COMMIT" | "ABORT" => (xid, rest),
            // The record is not of the transaction that it ends.
            "COMMIT_PREPARED" | "ABORT_PREPARED" => {
                let (prepared, rest) = rest.split_once(": ")?;
                (prepared.parse().ok()?, rest)
            }
            _others => return None,
        };
        let mut parts = rest.split("; ");
        let at = parts.next()?.to_owned();
        let children = parts.find_map(|part| part.strip_prefix("subxacts: ")).unwrap_or_default();
        let children = children.split([' ', ',']).filter_map(|child| child.parse::<u32>().ok());
        let mut changes: BTreeMap<RelationFile, RowChanges> = BTreeMap::new();
        for part in std::iter::once(xid).chain(children) {
            for (relation, rows) in self.open.remove(&part).unwrap_or_default() {
                changes.entry(relation).or_default().add(rows);
            }
        }
        match what.starts_with("COMMIT") {
            true => self.committed.push(LostTransaction { xid, at, lsn, changes }),
            false => self.others += 1,
        }
        Some(())
    }
}

/// The rows that a record of a table changes.
fn changes(desc: &str) -> Option<(RelationFile, RowChanges)> {
    let none = RowChanges::default();
    let (what, rest) = desc.split_once(' ')?;
    let changes = match what.trim_end_matches("+INIT") {
        "INSERT" => RowChanges { inserted: 1, ..none },
        "MULTI_INSERT" => RowChanges { inserted: tuples(rest)?, ..none },
        "UPDATE" | "HOT_UPDATE" => RowChanges { updated: 1, ..none },
        "DELETE" => RowChanges { deleted: 1, ..none },
        _others => return None,
    };
    Some((after(rest, "blkref #0: rel")?.to_owned(), changes))
}

/// `5 tuples flags 0x02` before version 16, and `ntuples: 5, flags: 0x02` since.
fn tuples(text: &str) -> Option<u64> {
    let text = text.strip_prefix("ntuples: ").unwrap_or(text);
    text.split([' ', ',']).next()?.parse().ok()
}

/// The word after a label.
fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(label)?;
    rest.trim_start().split([' ', ',']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> LostTransactions {
        let mut lost = LostTransactions::default();
        for line in lines.lines() {
            let _says_nothing = lost.read(line);
        }
        lost.finish()
    }

    fn rows(inserted: u64, updated: u64, deleted: u64) -> RowChanges {
        RowChanges { inserted, updated, deleted }
    }

    /// A line in pg_waldump's layout.
    fn line(rmgr: &str, xid: u32, lsn: &str, desc: &str) -> String {
        format!(
            "rmgr: {rmgr:<11} len (rec/tot):     61/    61, tx: {xid:>10}, lsn: {lsn}, prev 0/01526350, desc: {desc}\n"
        )
    }

    const TABLE: &str = "blkref #0: rel 1663/5/16384 blk 0";

    /// Version 15 says some things in other words than version 18.
    #[test]
    fn reads_both_ways_in_which_pg_waldump_has_described_a_record() {
        let old = [
            "INSERT+INIT off 1 flags 0x00",
            "MULTI_INSERT 5 tuples flags 0x02",
            "HOT_UPDATE off 1 xmax 728 flags 0x20 ; new off 9 xmax 0",
            "DELETE off 3 flags 0x00 KEYS_UPDATED ",
        ];
        let new = [
            "INSERT+INIT off: 1, flags: 0x00",
            "MULTI_INSERT ntuples: 5, flags: 0x02, offsets: [4, 5, 6, 7, 8]",
            "HOT_UPDATE old_xmax: 728, old_off: 1, old_infobits: [], flags: 0x20, new_xmax: 0, new_off: 9",
            "DELETE xmax: 731, off: 3, infobits: [KEYS_UPDATED], flags: 0x00",
        ];
        let wanted = LostTransaction {
            xid: 731,
            at: "2026-12-01 04:51:13.629652 UTC".to_owned(),
            lsn: Lsn(0x0152_63B8),
            changes: [("1663/5/16384".to_owned(), rows(6, 1, 1))].into(),
        };
        for descriptions in [old, new] {
            let mut text = line(
                "Sequence",
                731,
                "0/01526350",
                "LOG rel 1663/5/16391, blkref #0: rel 1663/5/16391 blk 0",
            );
            text += &line("Btree", 731, "0/01526370", "INSERT_LEAF off 1, blkref #0: rel 1663/5/16387 blk 1");
            for (desc, rmgr) in descriptions.iter().zip(["Heap", "Heap2", "Heap", "Heap"]) {
                text += &line(rmgr, 731, "0/01526380", &format!("{desc}, {TABLE}"));
            }
            text += &line("Transaction", 731, "0/015263B8", "COMMIT 2026-12-01 04:51:13.629652 UTC");
            let lost = read(&text);
            assert_eq!((lost.others, &lost.committed[..]), (0, std::slice::from_ref(&wanted)));
        }
    }

    #[test]
    fn a_transaction_has_the_changes_of_its_children_and_what_was_not_committed_is_counted_only() {
        let inserts = |xid| line("Heap", xid, "0/015263E0", &format!("INSERT off 11 flags 0x00, {TABLE}"));
        let ends = |xid, desc: &str| line("Transaction", xid, "0/015264E0", desc);
        let time = "2026-12-01 04:51:13.636711 UTC";
        let text = [
            inserts(732),
            inserts(733),
            ends(732, &format!("COMMIT {time}; subxacts: 733; inval msgs: catcache 55")),
            inserts(734),
            ends(734, &format!("ABORT {time}")),
            inserts(735),
            ends(735, &format!("PREPARE gid p: {time}")),
            ends(0, &format!("COMMIT_PREPARED 735: {time}")),
            inserts(736),
            "pg_waldump: error: error in WAL record at 0/1526800: invalid record length".to_owned(),
        ];
        let lost = read(&text.concat());
        let changed: Vec<(u32, u64)> = lost
            .committed
            .iter()
            .map(|it| (it.xid, it.changes.values().map(|rows| rows.inserted).sum()))
            .collect();
        assert_eq!((changed, lost.others), (vec![(732, 2), (735, 1)], 2));
    }
}
