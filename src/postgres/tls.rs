//! `sslmode` and related settings, with libpq's meaning, for connections to other members.

use std::path::Path;

use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Error, RoleCredentials};
use crate::os::error_chain::ErrorChain;
use crate::os::tls::{self, Identity, TlsError, Trust};

/// The mode, and a connector that verifies as these credentials require.
pub(super) fn connector(who: &RoleCredentials) -> Result<(SslMode, MakeRustlsConnect), Error> {
    let option = |name: &str| who.options.get(name).map(String::as_str);
    let mode = option("sslmode").unwrap_or("prefer");
    let roots = option("sslrootcert").filter(|path| Path::new(path).exists());
    // With a root certificate, libpq's `require` verifies, too.
    let trust = match (mode, roots) {
        ("verify-full", Some(path)) => Trust::name(Some(path.as_ref())).map_err(fault)?,
        ("verify-ca" | "require", Some(path)) => Trust::chain(path.as_ref()).map_err(fault)?,
        ("verify-ca" | "verify-full", None) => {
            return Err(Error::Unfit(format!("sslmode {mode} needs the file sslrootcert names")));
        }
        _ => Trust::Anyone,
    };
    let ssl_mode = match mode {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        _ => SslMode::Require,
    };
    let certificate = option("sslcert").zip(option("sslkey"));
    let identity = certificate.map(|(certificate, key)| Identity {
        certificate: certificate.as_ref(),
        key: key.as_ref(),
        password: option("sslpassword"),
    });
    let config = tls::client(trust, identity).map_err(fault)?;
    Ok((ssl_mode, MakeRustlsConnect::new(config)))
}

/// A connector for the server on this machine, whose certificate need not have the name by which it is reached here;
/// `None`: TLS is switched off.
pub(super) fn unverified(who: &RoleCredentials) -> Result<Option<MakeRustlsConnect>, Error> {
    let mut who = who.clone();
    if who.options.get("sslmode").is_some_and(|mode| mode == "disable") {
        return Ok(None);
    }
    who.options.insert("sslmode".to_owned(), "allow".to_owned());
    connector(&who).map(|(_, connector)| Some(connector))
}

fn fault(error: TlsError) -> Error {
    Error::Unfit(format!("prepare TLS: {}", error.chain()))
}
