//! The reports of the tasks that run beside the main loop.

use crate::core::member::Event;

/// Levels (the lease, the view, the postmaster) come through their own watches, orders of the API through theirs.
#[derive(Debug)]
pub(super) enum Report {
    /// For the member.
    Member(Box<Event>),
    /// A file that holds a secret holds another one.
    SecretsChanged,
}

impl From<Event> for Report {
    fn from(event: Event) -> Report {
        Report::Member(Box::new(event))
    }
}
