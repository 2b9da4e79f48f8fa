//! The settings of the REST interface: its address, and the clients that it accepts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::agent::ParameterCheck;

/// The server's settings. All but `listen` and `tls` take effect with the next request.
#[derive(Clone, Default)]
pub struct ApiSetup {
    /// Host and port to listen on. An empty host or `*` means every address.
    pub listen: (String, u16),
    /// User and password that mutating requests must have.
    pub credentials: Option<(String, String)>,
    /// Networks, addresses and host names that may send mutating requests; empty: any.
    pub allowlist: Vec<String>,
    /// Members of the cluster may send mutating requests, too; all others may not, unless they are listed.
    pub allowlist_include_members: bool,
    /// Without credentials, list and certificates: accept mutating requests from everybody, and not only from this
    /// machine and from members.
    pub allow_unauthenticated_writes: bool,
    /// Serve the web page at `/ui`.
    pub web_page: bool,
    /// Headers for every answer that has any.
    pub extra_headers: Vec<(String, String)>,
    /// The value of the header `Server`.
    pub server_tokens: ServerTokens,
    /// The cluster's name.
    pub scope: String,
    /// Checks the parameters of PostgreSQL; `None`: they are written unchecked.
    pub parameter_check: Option<ParameterCheck>,
    /// Serve HTTPS with these settings.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Mutating requests need a verified client certificate. Only with `tls`.
    pub client_certificate: bool,
}

impl ApiSetup {
    /// Whether mutating requests need a certificate.
    pub(super) fn demands_certificate(&self) -> bool {
        self.tls.is_some() && self.client_certificate
    }

    /// Whether no setting restricts mutating requests.
    pub(super) fn names_nobody(&self) -> bool {
        let listed = !self.allowlist.is_empty() || self.allowlist_include_members;
        self.credentials.is_none() && !listed && !self.demands_certificate()
    }
}

impl fmt::Debug for ApiSetup {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiSetup")
            .field("listen", &self.listen)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("allowlist", &self.allowlist)
            .field("allowlist_include_members", &self.allowlist_include_members)
            .field("allow_unauthenticated_writes", &self.allow_unauthenticated_writes)
            .field("web_page", &self.web_page)
            .field("extra_headers", &self.extra_headers)
            .field("server_tokens", &self.server_tokens)
            .field("scope", &self.scope)
            .field("tls", &self.tls.is_some())
            .field("client_certificate", &self.client_certificate)
            .finish()
    }
}

/// `restapi.server_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTokens {
    /// Name and version of this program.
    #[default]
    Original,
    /// `Patroni/VERSION`, the compatible one.
    Minimal,
    /// `Patroni`.
    ProductOnly,
}

/// The text is not a value of `server_tokens`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of Original, Minimal, ProductOnly")]
pub struct ServerTokensError(pub String);

impl FromStr for ServerTokens {
    type Err = ServerTokensError;

    fn from_str(text: &str) -> Result<ServerTokens, ServerTokensError> {
        match text.to_ascii_lowercase().as_str() {
            "original" => Ok(ServerTokens::Original),
            "minimal" => Ok(ServerTokens::Minimal),
            "productonly" => Ok(ServerTokens::ProductOnly),
            _ => Err(ServerTokensError(text.to_owned())),
        }
    }
}

impl ServerTokens {
    /// The header's value.
    pub fn header(self) -> &'static str {
        match self {
            ServerTokens::Original => concat!("Matriarch/", env!("CARGO_PKG_VERSION")),
            ServerTokens::Minimal => "Patroni/4.1.5",
            ServerTokens::ProductOnly => "Patroni",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_printed() {
        let setup = ApiSetup { credentials: Some(("admin".into(), "s3cret".into())), ..ApiSetup::default() };
        let text = format!("{setup:?}");
        assert!(text.contains("admin") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn the_server_header_names_the_compatible_version() {
        let minimal = "minimal".parse::<ServerTokens>().map(ServerTokens::header);
        assert_eq!(minimal, Ok(format!("Patroni/{}", crate::api::wire::PATRONI_COMPATIBLE_VERSION).as_str()));
        assert!("loud".parse::<ServerTokens>().is_err());
    }
}
