//! Patroni's callbacks: scripts that are told what PostgreSQL has become.

use std::fmt;

use super::Role;

/// The event that a script is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallbackEvent {
    /// PostgreSQL runs, and did not before; or was found running.
    Start,
    /// PostgreSQL was stopped, and not for a restart.
    Stop,
    /// PostgreSQL was restarted in the same role.
    Restart,
    /// PostgreSQL read new parameters.
    Reload,
    /// PostgreSQL runs in another role than before.
    RoleChange,
}

impl CallbackEvent {
    /// All of them.
    pub const ALL: [CallbackEvent; 5] = [
        CallbackEvent::Start,
        CallbackEvent::Stop,
        CallbackEvent::Restart,
        CallbackEvent::Reload,
        CallbackEvent::RoleChange,
    ];

    /// Patroni's name for it: the key in `postgresql.callbacks`, and the script's first argument.
    pub const fn as_str(self) -> &'static str {
        match self {
            CallbackEvent::Start => "on_start",
            CallbackEvent::Stop => "on_stop",
            CallbackEvent::Restart => "on_restart",
            CallbackEvent::Reload => "on_reload",
            CallbackEvent::RoleChange => "on_role_change",
        }
    }
}

impl fmt::Display for CallbackEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One call of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The event.
    pub event: CallbackEvent,
    /// The role in which PostgreSQL runs; after [`CallbackEvent::Stop`], in which it ran.
    pub role: Role,
}
