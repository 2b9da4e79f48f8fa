//! A position in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A byte position in the WAL (PostgreSQL manual, `pg_lsn`). etcd and JSON have it as a plain integer; people read it
/// as `X/X` in upper-case hexadecimal without padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes from `earlier` to here; zero when `earlier` is ahead.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Zero is PostgreSQL's `InvalidXLogRecPtr`.
    pub fn is_known(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not of the form `X/X`, two hexadecimal numbers of at most eight digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a WAL position: expected two hexadecimal numbers, as in 0/3000148")]
pub struct LsnParseError(pub String);

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Lsn, LsnParseError> {
        let fault = || LsnParseError(text.to_owned());
        let half = |part: &str| u32::from_str_radix(part, 16).map_err(|_| fault());
        let (high, low) = text.trim().split_once('/').ok_or_else(fault)?;
        Ok(Lsn((u64::from(half(high)?) << 32) | u64::from(half(low)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(position: u64) {
            prop_assert_eq!(Lsn(position).to_string().parse(), Ok(Lsn(position)));
        }
    }

    #[test]
    fn invalid_positions_are_refused() {
        for text in ["", "0", "0/", "/0", "g/0", "0/100000000"] {
            assert_eq!(text.parse::<Lsn>(), Err(LsnParseError(text.to_owned())));
        }
    }
}
