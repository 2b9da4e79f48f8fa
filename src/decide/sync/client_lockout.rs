//! The client lockout. After an unclean end, recovery brings back commits that perhaps no standby has. Clients stay
//! locked out until enough standbys have them, so that no client reads a commit that a failover would lose.

use super::super::tick::Tick;
use crate::model::{Action, ControlFile, ControlState, MemberName, Reason, SqlFacts, SyncNames, SyncReason};

/// Before the start of a primary that did not stop cleanly, while standbys are promised to have all that it
/// acknowledged.
pub(in crate::decide) fn lock_clients_out(tick: &mut Tick<'_>, control: &ControlFile) {
    let unclean = match control.state {
        ControlState::InProduction | ControlState::InCrashRecovery | ControlState::ShuttingDown => true,
        ControlState::StartingUp
        | ControlState::ShutDown
        | ControlState::ShutDownInRecovery
        | ControlState::InArchiveRecovery => false,
    };
    let promised = tick.sync_record().is_some_and(|record| !record.voters.is_empty());
    if unclean && promised && !tick.seen.postgres.clients_locked_out {
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
    if !waits || (names.count > 0 && names.count <= confirmed) {
        let_clients_in(tick);
        return None;
    }
    let by: Vec<MemberName> = names.names.difference(&state.confirmed).cloned().collect();
    Some(Reason::Sync(SyncReason::ClientsLockedOut { by }))
}
