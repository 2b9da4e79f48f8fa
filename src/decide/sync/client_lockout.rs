//! The client lockout. After an unclean end, recovery brings back commits that perhaps no standby has. Clients stay
//! locked out until enough standbys have them, so that no client reads a commit that a failover would lose.

use super::super::tick::Tick;
use crate::model::{
    Action, ControlFile, ControlState, MemberName, Reason, SqlFacts, SyncNames, SyncOwner, SyncReason,
};

/// Before the start of a primary that did not stop cleanly, while standbys are promised to have all that it
/// acknowledged.
pub(in crate::decide) fn lock_clients_out(tick: &mut Tick<'_>, control: &ControlFile) {
    tick.memory.recruit.locked_out = None;
    if is_unclean(control) && is_promised(tick) {
        refuse_clients(tick);
    }
}

/// As [`lock_clients_out`], before a primary starts in place, and in any case until its names are in force: PostgreSQL
/// accepts connections before its checkpointer has read them, and until then no commit waits. ("Fix
/// sync_standbys_defined race on startup", pgsql-hackers, April 2025)
pub(in crate::decide) fn lock_clients_out_until_named(tick: &mut Tick<'_>, control: &ControlFile) {
    tick.memory.recruit.locked_out = None;
    let named = match &tick.seen.postgres.sync_owner {
        SyncOwner::Supervisor(names) => 0 < SyncNames::parse(names).0.count,
        SyncOwner::Operator | SyncOwner::Undecided => false,
    };
    let promised = is_promised(tick);
    if !named && !promised {
        return;
    }
    // A lockout of before is for commits that standbys lack.
    let is_for_names = !is_unclean(control) && !tick.seen.postgres.clients_locked_out;
    tick.memory.sync.locked_out_for_names = is_for_names;
    refuse_clients(tick);
}

fn is_unclean(control: &ControlFile) -> bool {
    match control.state {
        ControlState::InProduction | ControlState::InCrashRecovery | ControlState::ShuttingDown => true,
        ControlState::StartingUp
        | ControlState::ShutDown
        | ControlState::ShutDownInRecovery
        | ControlState::InArchiveRecovery => false,
    }
}

fn is_promised(tick: &Tick<'_>) -> bool {
    tick.sync_record().is_some_and(|record| !record.voters.is_empty())
}

/// Locks clients out, until [`watch_client_lockout`] or [`let_clients_in`] lets them in.
pub(in crate::decide) fn refuse_clients(tick: &mut Tick<'_>) {
    if !tick.seen.postgres.clients_locked_out {
        tick.act(Action::SetClientLockout { closed: true });
    }
}

/// Behind another leader a lockout has no purpose.
pub(in crate::decide) fn let_clients_in(tick: &mut Tick<'_>) {
    if tick.seen.postgres.clients_locked_out {
        tick.act(Action::SetClientLockout { closed: false });
    }
}

/// While I serve: ends the lockout as soon as the standbys have everything, or none is required to. Otherwise gives the
/// standbys that the clients wait for.
pub(in crate::decide) fn watch_client_lockout(tick: &mut Tick<'_>, sql: &SqlFacts) -> Option<Reason> {
    if !tick.seen.postgres.clients_locked_out {
        return None;
    }
    let names = SyncNames::parse(&sql.sync.names).0;
    let state = tick.sync_state(sql);
    let confirmed = state.confirmed.intersection(&names.names).count();
    let waits = tick.sync_record().is_some_and(|record| !record.voters.is_empty() || names.count > 0);
    let memory = &tick.memory.sync;
    let named = memory.in_effect.as_ref().is_some_and(|names| names.from.is_some());
    if !waits || (memory.locked_out_for_names && named) || (names.count > 0 && names.count <= confirmed) {
        let_clients_in(tick);
        return None;
    }
    let by: Vec<MemberName> = names.names.difference(&state.confirmed).cloned().collect();
    Some(Reason::Sync(SyncReason::ClientsLockedOut { by }))
}
