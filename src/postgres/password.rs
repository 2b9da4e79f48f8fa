//! A password that all connections of this program share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::KnownPassword;

/// A password, or none. Clones share it, so that every new connection uses the newest one. `Debug` hides it.
#[derive(Clone, Default)]
pub struct Password(Arc<Mutex<KnownPassword>>);

impl Password {
    pub(super) fn known(&self) -> MutexGuard<'_, KnownPassword> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest one; `None` for certificates, peer or trust.
    pub fn newest(&self) -> Option<String> {
        self.known().newest().map(str::to_owned)
    }
}

impl From<Option<String>> for Password {
    fn from(newest: Option<String>) -> Password {
        Password(Arc::new(Mutex::new(KnownPassword::new(newest))))
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Password) -> bool {
        self.newest() == other.newest()
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.known().fmt(f)
    }
}
