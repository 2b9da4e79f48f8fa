//! What PostgreSQL's configuration files shall say.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Parameters, Refused};
use crate::model::{SettingsRole, SyncOwner};

/// What was decided; the files follow it (see `files`).
pub(super) struct ServerConfiguration(Mutex<ConfigurationState>);

struct ConfigurationState {
    parameters: Parameters,
    /// What was left out of the parameters when they were taken last.
    refused: Vec<Refused>,
    sync_owner: SyncOwner,
    /// Clients are kept out; `None` before the file was read that says so.
    clients_locked_out: Option<bool>,
}

impl ServerConfiguration {
    pub(super) fn new(parameters: Parameters) -> ServerConfiguration {
        ServerConfiguration(Mutex::new(ConfigurationState {
            parameters,
            refused: Vec::new(),
            sync_owner: SyncOwner::default(),
            clients_locked_out: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, ConfigurationState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds in the present role.
    pub(super) fn parameters(&self) -> Parameters {
        self.all_parameters().in_force()
    }

    /// With what holds in other roles.
    pub(super) fn all_parameters(&self) -> Parameters {
        self.state().parameters.clone()
    }

    /// Returns the former ones.
    pub(super) fn replace_parameters(&self, parameters: Parameters) -> Parameters {
        std::mem::replace(&mut self.state().parameters, parameters)
    }

    /// The role whose settings the files have, or get next.
    pub(super) fn role(&self) -> SettingsRole {
        self.state().parameters.role
    }

    pub(super) fn set_role(&self, role: SettingsRole) {
        self.state().parameters.role = role;
    }

    /// Replaces the parameters that PostgreSQL would not start with; returns those that were not among the former ones.
    pub(super) fn replace_refused(&self, refused: Vec<Refused>) -> Vec<Refused> {
        let mut state = self.state();
        let news = refused.iter().filter(|one| !state.refused.contains(one)).cloned().collect();
        state.refused = refused;
        news
    }

    pub(super) fn sync_owner(&self) -> SyncOwner {
        self.state().sync_owner.clone()
    }

    pub(super) fn set_sync_owner(&self, owner: SyncOwner) {
        self.state().sync_owner = owner;
    }

    /// The value in the file stays. Nothing that PostgreSQL shows would tell that it is not the operator's.
    pub(super) fn sync_names_not_written(&self) {
        let owner = &mut self.state().sync_owner;
        if *owner == SyncOwner::Operator {
            *owner = SyncOwner::Undecided;
        }
    }

    /// Whether clients are kept out; `read` says it before anything was decided.
    pub(super) fn are_clients_locked_out(&self, read: impl FnOnce(&Parameters) -> bool) -> bool {
        let mut state = self.state();
        let locked_out =
            state.clients_locked_out.unwrap_or_else(|| read(&state.parameters.clone().in_force()));
        *state.clients_locked_out.insert(locked_out)
    }

    pub(super) fn set_client_lockout(&self, closed: bool) {
        self.state().clients_locked_out = Some(closed);
    }
}
