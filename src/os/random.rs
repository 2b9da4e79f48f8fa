//! Random numbers for the names of processes. They are not secrets.

use std::hash::{BuildHasher, RandomState};

/// A different number each time: the standard library seeds its hashers from the operating system.
pub fn number() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_differ() {
        assert_ne!(number(), number());
    }
}
