//! Random numbers.

use std::hash::{BuildHasher, RandomState};

/// A number for the name of a process, a different one each time: the standard library seeds its hashers from the
/// operating system. It is no secret.
pub fn number() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Bytes that nobody can guess.
///
/// # Panics
/// If the kernel has no `getrandom` (Linux has it since 3.17).
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(N), "so few bytes come at once");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_differ() {
        assert_ne!(number(), number());
        assert_ne!(bytes::<16>(), bytes::<16>());
    }
}
