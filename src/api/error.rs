//! What can go wrong with the server itself. What goes wrong with one request is an [`super::answer::HttpAnswer`].

use std::io;

/// The REST interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Somebody else listens there.
    #[error("port {port} of `{host}` is already in use: is another supervisor running here?")]
    PortInUse {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on `{host}`, port {port}")]
    Listen {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}
