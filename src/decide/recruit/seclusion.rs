//! The leader's side: one that may have been replaced lets no clients in.

use std::time::Duration;

use super::super::ledgers::Seclusion;
use super::super::sync;
use super::super::tick::Tick;
use crate::model::{Action, LeaderHearing, Lsn, Reason, RecruitReason, SqlFacts, SyncRecord, WaitingOn};

/// A leader that hears nothing for this long may have been replaced.
const SECLUDED_AFTER: Duration = Duration::from_secs(1);

/// Locks clients out of a leader that neither etcd, nor any member, nor a synchronous standby reaches: nothing else
/// could tell it of its successor before its lease ends. `None`: it is in touch, or others may not replace it.
pub(in crate::decide) fn on_leader(tick: &mut Tick<'_>, sql: &SqlFacts) -> Option<Reason> {
    tick.memory.recruit.seclusion = seclusion(tick, sql);
    let at = tick.memory.recruit.seclusion?.since + SECLUDED_AFTER;
    if tick.now < at {
        tick.wake_at(at, WaitingOn::Members);
        return None;
    }
    sync::refuse_clients(tick);
    Some(Reason::Recruit(RecruitReason::CutOff))
}

/// No member listens. It begins anew with every sign of etcd or a standby.
fn seclusion(tick: &mut Tick<'_>, sql: &SqlFacts) -> Option<Seclusion> {
    let confirmed = voters(tick).map(|record| confirmed(sql, record))?;
    let covered_until = tick.seen.lease.covered_until();
    let before = tick.memory.recruit.seclusion;
    let lasting = before.filter(|it| covered_until <= it.covered_until && confirmed <= it.confirmed);
    if lasting.is_none() {
        // Etcd, where it can be reached, says at once that I still lead.
        tick.act(Action::RenewLease);
    }
    Some(lasting.unwrap_or(Seclusion { since: tick.now, covered_until, confirmed }))
}

/// The record of those that could replace a leader that no member hears.
fn voters<'a>(tick: &Tick<'a>) -> Option<&'a SyncRecord> {
    let is_unheard = tick.seen.hearing == LeaderHearing::Unheard;
    tick.sync_record().filter(|record| super::is_wanted(tick) && is_unheard && !record.voters.is_empty())
}

/// The furthest position that a synchronous standby has flushed.
fn confirmed(sql: &SqlFacts, record: &SyncRecord) -> Lsn {
    let is_voter = |name: &str| record.voters.iter().any(|voter| voter.as_str().eq_ignore_ascii_case(name));
    let walsenders = sql.sync.walsenders.iter().filter(|walsender| is_voter(&walsender.name));
    walsenders.filter_map(|walsender| walsender.flushed).max().unwrap_or_default()
}
