//! Passwords that are replaced while in use: the newest, and the previous one as long as it may still be valid.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A password, or none. Clones share it, so that every new connection uses the newest one.
#[derive(Clone, Default)]
pub struct Password(Arc<Mutex<KnownPasswords>>);

#[derive(Default)]
struct KnownPasswords {
    newest: Option<String>,
    former: Option<String>,
    /// The former password was the last that worked.
    former_counts: bool,
}

impl Password {
    fn known(&self) -> MutexGuard<'_, KnownPasswords> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest one; `None` for certificates, peer or trust.
    pub fn newest(&self) -> Option<String> {
        self.known().newest.clone()
    }

    /// The one before it, if it was replaced.
    pub(super) fn former(&self) -> Option<String> {
        self.known().former.clone()
    }

    /// The passwords to try, the likeliest first: the role and the file with its password change at different moments.
    pub(super) fn tries(&self) -> Vec<Option<String>> {
        let known = self.known();
        let former = known.former.clone().map(Some);
        let mut tries: Vec<_> = [known.newest.clone()].into_iter().chain(former).collect();
        if known.former_counts {
            tries.reverse();
        }
        tries
    }

    /// Records the password that worked. It is tried first from now on, as every refusal adds a line to the server's
    /// log.
    pub(super) fn let_in(&self, password: Option<&String>) {
        let mut known = self.known();
        known.former_counts = known.former.is_some() && known.former.as_ref() == password;
    }

    /// Records the former password from another source. True if it differs.
    pub(super) fn recall(&self, former: String) -> bool {
        let mut known = self.known();
        let differs = known.newest.as_ref().is_some_and(|newest| *newest != former);
        if differs {
            known.former = Some(former);
        }
        differs
    }

    /// Sets the newest password. True if it differs.
    pub(super) fn replace(&self, newest: Option<String>) -> bool {
        let mut known = self.known();
        if known.newest == newest {
            return false;
        }
        known.former = std::mem::replace(&mut known.newest, newest);
        known.former_counts = false;
        true
    }
}

impl From<Option<String>> for Password {
    fn from(newest: Option<String>) -> Password {
        Password(Arc::new(Mutex::new(KnownPasswords { newest, ..KnownPasswords::default() })))
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
        f.write_str(if self.known().newest.is_some() { "***" } else { "none" })
    }
}
