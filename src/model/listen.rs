//! Where a PostgreSQL listens.

/// The addresses and the port of a postmaster. They change only with its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// `listen_addresses`.
    pub addresses: String,
    /// `port`.
    pub port: u16,
}

impl ListenAddress {
    /// The host by which a program of the same machine reaches it.
    pub fn local_host(&self) -> String {
        local_host(&self.addresses)
    }
}

/// The host by which a program of the same machine reaches a server that listens on `addresses`.
pub fn local_host(addresses: &str) -> String {
    let first = addresses.split(',').next().unwrap_or_default().trim();
    match first {
        "" | "*" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "::1".to_owned(),
        host => host.to_owned(),
    }
}
