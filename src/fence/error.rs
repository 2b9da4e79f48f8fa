//! Errors of starting a guard and of talking to it.

use std::io;
use std::path::PathBuf;

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The guard's socket cannot be made.
    #[error("cannot {what} the guard's socket {path}")]
    Socket {
        /// The attempt.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The operating system refused something else.
    #[error("cannot {what}")]
    System {
        /// The attempt.
        what: &'static str,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The small program is not of the supervisor's release.
    #[error("this program is not of the release of `matriarch` that started it")]
    OtherRelease,
    /// `guard` was started by hand.
    #[error("a guard is started by `matriarch run`, never by hand")]
    ByHand,
}

impl FenceError {
    pub(super) fn system(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> FenceError {
        move |source| FenceError::System { what, source: source.into() }
    }
}
