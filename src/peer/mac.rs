//! Keys, and message authentication codes with them, as `peer.proto` describes them.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The length of a code, and of a nonce.
pub(super) const MAC_BYTES: usize = 16;
/// As many as PostgreSQL's SCRAM has: who reads along can try passwords no faster than with a login.
const ROUNDS: u32 = 4096;

/// A key. `Debug` hides it.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

/// What a code is for: a code for one thing is none for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacLabel {
    /// The beginning of a session, by the client.
    Hello,
    /// The key of a session.
    Session,
    /// The server's answer to the beginning.
    Welcome,
    /// A call within the session.
    Call,
    /// A heartbeat.
    Heartbeat,
}

impl MacLabel {
    fn as_str(self) -> &'static str {
        match self {
            MacLabel::Hello => "hello",
            MacLabel::Session => "session",
            MacLabel::Welcome => "welcome",
            MacLabel::Call => "call",
            MacLabel::Heartbeat => "heartbeat",
        }
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

impl MacKey {
    /// The key of a cluster, from the password of its replication user. Takes some milliseconds.
    pub fn of_password(password: &str, scope: &str) -> MacKey {
        let password = keyed(password.as_bytes());
        let salt = format!("matriarch peer v1 {scope}");
        let first = password.clone().chain_update(salt).chain_update(1u32.to_be_bytes());
        let mut round: [u8; 32] = first.finalize().into_bytes().into();
        let mut key = round;
        for _ in 1..ROUNDS {
            round = password.clone().chain_update(round).finalize().into_bytes().into();
            key.iter_mut().zip(round).for_each(|(byte, other)| *byte ^= other);
        }
        MacKey(keyed(&key))
    }

    /// A key that only those know who know this one.
    pub fn derived(&self, label: MacLabel, parts: &[&[u8]]) -> MacKey {
        MacKey(keyed(&self.over(label, parts).finalize().into_bytes()))
    }

    /// The code.
    pub fn mac(&self, label: MacLabel, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let whole: [u8; 32] = self.over(label, parts).finalize().into_bytes().into();
        std::array::from_fn(|at| whole[at])
    }

    /// Whether this is the code. Takes the same time whatever is wrong with it.
    pub fn confirms(&self, label: MacLabel, parts: &[&[u8]], mac: &[u8]) -> bool {
        mac.len() == MAC_BYTES && self.over(label, parts).verify_truncated_left(mac).is_ok()
    }

    fn over(&self, label: MacLabel, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut hmac = self.0.clone();
        for part in [label.as_str().as_bytes()].iter().chain(parts) {
            hmac.update(&(part.len() as u64).to_be_bytes());
            hmac.update(part);
        }
        hmac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Computed with Python's hashlib and hmac, after the text of `peer.proto`.
    #[test]
    fn keys_and_codes_are_as_described() {
        let key = MacKey::of_password("s3cret", "herd");
        let mac = key.mac(MacLabel::Hello, &[b"herd", b"m2", b"m1", &[7; 16]]);
        assert_eq!(hex(&mac), "b2e1c940c9de556c0e885590caefca59");
        let session = key.derived(MacLabel::Session, &[b"herd", &5u64.to_be_bytes()]);
        assert_eq!(hex(&session.mac(MacLabel::Welcome, &[])), "92e66369eb1bf7fd85ba3e9f777c4998");
    }

    #[test]
    fn only_the_whole_code_of_the_same_thing_counts() {
        let key = MacKey::of_password("a", "s");
        let mac = key.mac(MacLabel::Call, &[b"ab", b"c"]);
        assert!(key.confirms(MacLabel::Call, &[b"ab", b"c"], &mac));
        assert!(!key.confirms(MacLabel::Call, &[b"a", b"bc"], &mac), "other parts");
        assert!(!key.confirms(MacLabel::Heartbeat, &[b"ab", b"c"], &mac), "another thing");
        assert!(!key.confirms(MacLabel::Call, &[b"ab", b"c"], &mac[..15]), "not all of it");
        assert!(!key.confirms(MacLabel::Call, &[b"ab", b"c"], &[]));
        for other in [MacKey::of_password("b", "s"), MacKey::of_password("a", "t")] {
            assert!(!other.confirms(MacLabel::Call, &[b"ab", b"c"], &mac));
        }
        assert_eq!(format!("{key:?}"), "***");
    }
}
