//! Copies of the primary's logical slots on a standby. PostgreSQL before 17 makes no logical slot on a standby that
//! outlives a promotion, so the state of the primary's slot is read as a file and put in place before the next start:
//! a running server does not see a slot that it has not made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::handle::PostgresInner;
use super::{Error, Parameters, Setup, files, session, sql};
use crate::model::{LeaderSlots, LeaderSlotsQuestion, Lsn, Moment, Xid};
use crate::os::error_chain::ErrorChain;
use crate::os::{clock, durable};

/// An older copy is not put in place: the WAL that it needs may be gone.
const COPY_FRESH_FOR: Duration = Duration::from_secs(300);
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// PostgreSQL removes a directory with this ending when it starts.
const TEMPORARY: &str = ".tmp";

/// The copies that wait for a start.
#[derive(Default)]
pub(super) struct SlotCopies(Mutex<KnownCopies>);

#[derive(Default)]
struct KnownCopies {
    waiting: BTreeMap<String, SlotCopy>,
    /// Slots that cannot be copied, as last said.
    not_copied: BTreeSet<String>,
}

struct SlotCopy {
    state: Vec<u8>,
    read_at: Moment,
}

impl SlotCopies {
    /// A primary has slots of its own.
    pub(super) fn forget(&self) {
        self.known().waiting.clear();
    }

    fn known(&self) -> MutexGuard<'_, KnownCopies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A logical slot that PostgreSQL 17 synchronizes itself is none of ours.
const ASK: &str = "
    SELECT slot_name::text, slot_type, restart_lsn::text, catalog_xmin::text,
           CASE WHEN slot_type = 'logical' AND slot_name = ANY ($2) AND restart_lsn IS NOT NULL
                THEN pg_read_binary_file(format('pg_replslot/%s/state', slot_name)) END
      FROM pg_get_replication_slots() AS slot
     WHERE NOT temporary AND NOT pg_is_in_recovery() AND (slot_name = $3 OR slot_name = ANY ($1))
       AND NOT coalesce((to_jsonb(slot) ->> 'failover')::boolean, false)";
/// Where the oldest WAL here begins.
const OLDEST: &str = "
    SELECT min((('x' || substr(name, 9, 8))::bit(32)::int8 << 32) + ('x' || substr(name, 17))::bit(32)::int8
               * pg_size_bytes(current_setting('wal_segment_size')))
      FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";

/// Asks the primary for its slots, and keeps the state of those to be copied until the next start. A slot whose WAL is
/// not here any more cannot be copied yet.
pub(super) async fn ask(inner: &PostgresInner, question: &LeaderSlotsQuestion) -> Result<LeaderSlots, Error> {
    let what = "ask for the leader's slots";
    let asked = tokio::time::timeout(ASK_WITHIN, asked(inner, question)).await;
    asked.map_err(|_| Error::Deadline { what, within: ASK_WITHIN })?
}

async fn asked(inner: &PostgresInner, question: &LeaderSlotsQuestion) -> Result<LeaderSlots, Error> {
    let what = "ask for the leader's slots";
    let asked_at = clock::now();
    let client = session::open(inner, "Matriarch slots", "-c statement_timeout=5000").await?;
    let oldest = client.query_one(OLDEST, &[]).await.map_err(Error::sql("look for the oldest WAL"))?;
    let oldest = oldest.get::<_, Option<i64>>(0).and_then(|lsn| u64::try_from(lsn).ok()).map(Lsn);
    let setup = &inner.setup;
    let client = sql::remote(setup, &question.leader, setup.rewind_credentials()).await?;
    let rows = client.query(ASK, &[&question.slots, &question.copy, &question.through]).await;
    let mut told = LeaderSlots {
        leader: question.leader.name.clone(),
        asked_at,
        catalog_xmin: BTreeMap::new(),
        held: None,
        copied: Vec::new(),
    };
    for row in rows.map_err(Error::sql(what))? {
        let xmin = row.get::<_, Option<&str>>(3).and_then(|xid| xid.parse().ok()).map(Xid);
        let name: String = row.get(0);
        if row.get::<_, &str>(1) == "physical" {
            told.held = xmin;
            continue;
        }
        told.catalog_xmin.extend(xmin.map(|xmin| (name.clone(), xmin)));
        let restart = row.get::<_, Option<&str>>(2).and_then(|lsn| lsn.parse::<Lsn>().ok());
        let Some(state) = row.get::<_, Option<&[u8]>>(4) else { continue };
        let mut known = inner.slot_copies.known();
        if oldest.zip(restart).is_some_and(|(oldest, restart)| restart < oldest) {
            if known.not_copied.insert(name.clone()) {
                tracing::info!(
                    slot = name,
                    "this logical slot of the leader needs WAL that is not here: it is copied once its reader has read on"
                );
            }
            continue;
        }
        let all = setup.data_dir.join("pg_replslot");
        if let Err(error) = may_start_with(&inner.parameters(), &all, &all.join(&name)) {
            // Not even a restart would bring it.
            if known.not_copied.insert(name.clone()) {
                tracing::warn!(
                    slot = name,
                    error = error.chain(),
                    "this logical slot of the leader cannot be copied"
                );
            }
            continue;
        }
        known.not_copied.remove(&name);
        known.waiting.insert(name.clone(), SlotCopy { state: state.to_vec(), read_at: asked_at });
        told.copied.push(name);
    }
    Ok(told)
}

/// Before a start as a standby: puts the copies in place that are fresh. What fails is reported, and the server starts
/// without it.
pub(super) fn install(inner: &PostgresInner, parameters: &Parameters) {
    let copies = std::mem::take(&mut inner.slot_copies.known().waiting);
    let now = clock::now();
    let fresh = copies.into_iter().filter(|(_, copy)| now < copy.read_at + COPY_FRESH_FOR);
    for (slot, copy) in fresh {
        match installed(inner, parameters, &slot, &copy.state) {
            Ok(()) => tracing::info!(slot, "copied a logical replication slot of the leader"),
            Err(error) => tracing::warn!(slot, error = error.chain(), "could not copy a logical slot"),
        }
    }
}

fn installed(inner: &PostgresInner, parameters: &Parameters, slot: &str, state: &[u8]) -> Result<(), Error> {
    let setup = &inner.setup;
    let all = setup.data_dir.join("pg_replslot");
    let (place, temporary) = (all.join(slot), all.join(format!("{slot}{TEMPORARY}")));
    may_start_with(parameters, &all, &place)?;
    remove_tree(&temporary).map_err(Error::file("remove", &temporary))?;
    fs::create_dir(&temporary).map_err(Error::file("create", &temporary))?;
    let mode = files::mode(setup, &temporary);
    // A directory of mode 0700 or 0750, as the whole data directory.
    let permissions = Permissions::from_mode(if mode == 0o640 { 0o750 } else { 0o700 });
    fs::set_permissions(&temporary, permissions).map_err(Error::file("chmod", &temporary))?;
    if let Some((user, group)) = setup.uid_gid {
        chown(&temporary, Some(user), Some(group)).map_err(Error::file("chown", &temporary))?;
    }
    let file = temporary.join("state");
    durable::write(&file, state, mode, setup.uid_gid).map_err(Error::file("write", &file))?;
    // Until the rename there is no slot, and the next copy brings it.
    remove_tree(&place).map_err(Error::file("remove", &place))?;
    fs::rename(&temporary, &place).map_err(Error::file("rename", &temporary))?;
    File::open(&all).and_then(|all| all.sync_all()).map_err(Error::file("flush", &all))
}

/// The minimums of a start, with room for the slots that are here: PostgreSQL does not start with less.
pub(super) fn with_room(setup: &Setup, minimums: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut minimums = minimums.clone();
    let slots = fs::read_dir(setup.data_dir.join("pg_replslot")).map_or(0, Iterator::count);
    minimums.insert("max_replication_slots".to_owned(), slots as u64);
    minimums
}

/// PostgreSQL does not start with a logical slot where `wal_level` is lower, nor with more slots than it has room for.
fn may_start_with(parameters: &Parameters, all: &Path, place: &Path) -> Result<(), Error> {
    let value = |name: &str| {
        let given = parameters.command_line.iter().find(|(given, _)| given == name);
        given.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    if value("wal_level") != "logical" {
        return Err(Error::Unfit("wal_level is not logical".to_owned()));
    }
    let entries = fs::read_dir(all).map_err(Error::file("read", all))?;
    let others = entries.flatten().filter(|entry| entry.path() != place).count();
    let room: usize = value("max_replication_slots").parse().unwrap_or_default();
    if others < room { Ok(()) } else { Err(Error::Unfit(format!("max_replication_slots is {room}"))) }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
