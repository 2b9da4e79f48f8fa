//! The leader's side: one that may have been replaced lets no clients in.

use std::time::Duration;

use super::super::ledgers::Seclusion;
use super::super::sync;
use super::super::tick::Tick;
use crate::model::{
    Action, LeaderHearing, Lsn, MemberRecord, Reason, RecruitReason, SqlFacts, SyncRecord, WaitingOn,
};

/// A leader that hears nothing for this long may have been replaced.
const SECLUDED_AFTER: Duration = Duration::from_secs(1);

/// Locks clients out of a leader that neither etcd, nor any member, nor a synchronous standby reaches: nothing else
/// could tell it of its successor before its lease ends. `None`: it is in touch, or others may not replace it.
pub(super) fn watch(tick: &mut Tick<'_>, sql: &SqlFacts) -> Option<Reason> {
    tick.memory.recruit.seclusion = seclusion(tick, sql);
    end_lockout(tick);
    let seclusion = tick.memory.recruit.seclusion?;
    let at = seclusion.since + SECLUDED_AFTER;
    if tick.now < at {
        tick.wake_at(at, WaitingOn::Members);
        return None;
    }
    if !tick.seen.postgres.clients_locked_out {
        tick.memory.recruit.locked_out = Some(seclusion);
    }
    sync::refuse_clients(tick);
    Some(Reason::Recruit(RecruitReason::CutOff))
}

/// Nobody has led meanwhile if the lease goes on: unlike after a recovery, no standby has to confirm anything.
fn end_lockout(tick: &mut Tick<'_>) {
    let covered_until = tick.seen.lease.covered_until();
    if tick.memory.recruit.locked_out.take_if(|it| it.covered_until < covered_until).is_some() {
        sync::let_clients_in(tick);
    }
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
    let record = tick
        .sync_record()
        .filter(|record| super::is_wanted(tick) && is_unheard && !record.voters.is_empty())?;
    let mut registered = tick.others().filter(|(name, _)| record.is_voter(name)).peekable();
    // One that is not registered now may be so when I no longer see it.
    let may_recruit =
        registered.peek().is_none() || registered.any(|(_, key)| key.record.can(MemberRecord::HEARTBEATS));
    may_recruit.then_some(record)
}

/// The furthest position that a synchronous standby has flushed.
fn confirmed(sql: &SqlFacts, record: &SyncRecord) -> Lsn {
    let is_voter = |name: &str| record.voters.iter().any(|voter| voter.as_str().eq_ignore_ascii_case(name));
    let walsenders = sql.sync.walsenders.iter().filter(|walsender| is_voter(&walsender.name));
    walsenders.filter_map(|walsender| walsender.flushed).max().unwrap_or_default()
}
