//! Failures of the server itself. The failure of one request is an [`super::answer::HttpAnswer`].

use std::io;

/// Why the REST interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Another process listens there.
    #[error("port {port} of `{host}` is already in use: is another supervisor running here?")]
    PortInUse {
        /// The configured host.
        host: String,
        /// The configured port.
        port: u16,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on `{host}`, port {port}")]
    Listen {
        /// The configured host.
        host: String,
        /// The configured port.
        port: u16,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}
