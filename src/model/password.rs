//! A password that is replaced while in use. The role in PostgreSQL and the file with its password change at different
//! moments, so both passwords may be in force.

use std::fmt;

/// The newest password of a role, and the one before it. `Debug` hides both.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KnownPassword {
    newest: Option<String>,
    former: Option<String>,
    /// The former one was the last that worked.
    former_counts: bool,
}

/// The password that a reader of the password file uses: libpq takes the first line that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPassword {
    /// The newest.
    Newest,
    /// The one before it.
    Former,
}

impl KnownPassword {
    /// A password that has not been replaced; `None` for certificates, peer or trust.
    pub fn new(newest: Option<String>) -> KnownPassword {
        KnownPassword { newest, ..KnownPassword::default() }
    }

    /// The newest one.
    pub fn newest(&self) -> Option<&str> {
        self.newest.as_deref()
    }

    /// It was replaced, as far as is known.
    pub fn is_replaced(&self) -> bool {
        self.former.is_some()
    }

    /// The passwords to try, the likeliest first.
    pub fn tries(&self) -> Vec<Option<String>> {
        let former = self.former.clone().map(Some);
        let mut tries: Vec<_> = [self.newest.clone()].into_iter().chain(former).collect();
        if self.former_counts {
            tries.reverse();
        }
        tries
    }

    /// The passwords for a file, in the order of its lines. The second is a record for the next supervisor.
    pub fn lines(&self, first: FirstPassword) -> Vec<String> {
        let mut lines: Vec<String> = self.newest.iter().chain(&self.former).cloned().collect();
        if first == FirstPassword::Former {
            lines.reverse();
        }
        lines
    }

    /// Which password comes first in a file after `first` did not work; `None`: there is no other.
    pub fn other_than(&self, first: Option<&str>) -> Option<FirstPassword> {
        let former = self.former.as_deref()?;
        Some(if first == Some(former) { FirstPassword::Newest } else { FirstPassword::Former })
    }

    /// The likeliest of the two.
    pub fn likeliest(&self) -> FirstPassword {
        if self.former_counts { FirstPassword::Former } else { FirstPassword::Newest }
    }

    /// Records the password that worked. It is tried first from now on, as every refusal adds a line to the server's
    /// log.
    pub fn let_in(&mut self, password: Option<&String>) {
        self.former_counts = self.former.is_some() && self.former.as_ref() == password;
    }

    /// Takes a password that a previous supervisor has used. True if it is not the newest.
    pub fn recall(&mut self, used: String) -> bool {
        let differs = self.newest.as_ref().is_some_and(|newest| *newest != used);
        if differs {
            self.former = Some(used);
        }
        differs
    }

    /// Takes the newest password. True if it differs.
    pub fn replace(&mut self, newest: Option<String>) -> bool {
        if self.newest == newest {
            return false;
        }
        self.former = std::mem::replace(&mut self.newest, newest);
        self.former_counts = false;
        true
    }
}

impl fmt::Debug for KnownPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.newest.is_some() { "***" } else { "none" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_former_password_is_known_to_the_next_supervisor() {
        let mut known = KnownPassword::new(some("a"));
        assert_eq!((known.other_than(Some("a")), known.replace(some("a"))), (None, false));
        assert!(known.replace(some("b")) && known.is_replaced());
        for first in [FirstPassword::Newest, FirstPassword::Former] {
            let mut next = KnownPassword::new(some("b"));
            let differs = known.lines(first).into_iter().any(|line| next.recall(line));
            assert!(differs && next == known, "{first:?}");
        }
    }

    #[test]
    fn the_password_that_worked_is_tried_first() {
        let mut known = KnownPassword::new(some("a"));
        known.replace(some("b"));
        assert_eq!(known.tries(), [some("b"), some("a")]);
        known.let_in(Some(&"a".to_owned()));
        assert_eq!((known.tries(), known.likeliest()), (vec![some("a"), some("b")], FirstPassword::Former));
        assert_eq!(known.other_than(Some("a")), Some(FirstPassword::Newest));
        known.let_in(Some(&"b".to_owned()));
        assert_eq!(known.tries()[0], some("b"));
    }
}
