//! The name under which the program was started: a link may have another one.

use std::ffi::OsString;
use std::path::Path;

/// The names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledAs {
    /// Any other name.
    Matriarch,
    /// Patroni's command line for clusters.
    Patronictl,
    /// Patroni's member.
    Patroni,
    /// A plug-in of kubectl: `kubectl matriarch`.
    Kubectl,
}

impl CalledAs {
    /// The name in the first word of a command line.
    pub fn read(words: &[OsString]) -> CalledAs {
        match words.first().and_then(|word| Path::new(word).file_name()?.to_str()) {
            Some("patronictl") => CalledAs::Patronictl,
            Some("patroni") => CalledAs::Patroni,
            Some("kubectl-matriarch") => CalledAs::Kubectl,
            Some(_) | None => CalledAs::Matriarch,
        }
    }
}
