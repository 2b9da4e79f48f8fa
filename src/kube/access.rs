//! Where the API server is and how to come in: from a kubeconfig, or from the service account of the pod.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::http::Uri;
use hyper::http::uri::Scheme;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::api::KubeSetup;
use crate::os::tls::{self, Trust};

/// Where every pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How the API server is reached.
pub(super) struct Access {
    pub(super) server: Uri,
    pub(super) authorization: Authorization,
    pub(super) tls: ClientConfig,
    /// The name that the server's certificate shows, where it is not that of the URL.
    pub(super) server_name: Option<ServerName<'static>>,
}

/// What is sent with every request.
pub(super) enum Authorization {
    /// Nothing: a certificate says who comes.
    None,
    /// Always the same header.
    Header(String),
    /// The token in this file. A kubelet replaces it before it expires.
    TokenFile(PathBuf),
}

impl Access {
    /// By the kubeconfig that was asked for, else by the service account.
    pub(super) fn of(setup: &KubeSetup) -> Result<Access, String> {
        let path = match (&setup.kubeconfig, &setup.context) {
            (None, None) => return Access::by_service_account(setup.cacert.as_deref()),
            (Some(path), _) => path.clone(),
            (None, Some(_)) => {
                let home = std::env::var_os("HOME").ok_or("there is no home directory with a kubeconfig")?;
                PathBuf::from(home).join(".kube/config")
            }
        };
        let within = |why: String| format!("kubeconfig {}: {why}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| within(error.to_string()))?;
        let kubeconfig: Kubeconfig =
            serde_saphyr::from_str(&text).map_err(|error| within(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let context = setup.context.as_deref();
        kubeconfig.access(context, folder, setup.cacert.as_deref()).map_err(within)
    }

    fn by_service_account(cacert: Option<&Path>) -> Result<Access, String> {
        let told = |name: &str| std::env::var(name).map_err(|error| format!("{name}: {error}"));
        let (host, port) = (told("KUBERNETES_SERVICE_HOST")?, told("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let account = Path::new(ACCOUNT);
        let certificate = account.join("ca.crt");
        let trust = Trust::name(Some(cacert.unwrap_or(&certificate))).map_err(|error| error.chain())?;
        Ok(Access {
            server: url(&format!("https://{host}:{port}"))?,
            authorization: Authorization::TokenFile(account.join("token")),
            tls: tls::client(trust, None).map_err(|error| error.chain())?,
            server_name: None,
        })
    }
}

/// A kubeconfig. Users that a plug-in or a proxy would have to help are refused.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: Option<String>,
    contexts: Option<Vec<Named<Context>>>,
    clusters: Option<Vec<Named<Cluster>>>,
    users: Option<Vec<Named<User>>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    entry: Option<T>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: Option<bool>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
    #[serde(rename = "as")]
    impersonated: Option<IgnoredAny>,
}

impl Kubeconfig {
    /// `context` is the current one where none is named; paths are relative to `folder`.
    fn access(self, context: Option<&str>, folder: &Path, cacert: Option<&Path>) -> Result<Access, String> {
        let context = context.or(self.current_context.as_deref()).ok_or("it has no current context")?;
        let Context { cluster, user } = find("context", context, self.contexts)?;
        let cluster = find("cluster", &cluster, self.clusters)?;
        let user = match user.as_deref() {
            None | Some("") => User::default(),
            Some(name) => find("user", name, self.users)?,
        };
        if cluster.proxy_url.is_some_and(|proxy| !proxy.is_empty()) {
            return Err("a proxy (proxy-url) is not supported".to_owned());
        }
        if user.exec.is_some() || user.auth_provider.is_some() || user.impersonated.is_some() {
            let known = "use a token, a tokenFile, a certificate, or a username and a password";
            return Err(format!("a user with exec, auth-provider or as is not supported: {known}"));
        }
        let server = url(&cluster.server)?;
        let server_name = cluster.tls_server_name.map(ServerName::try_from).transpose();
        let authorities = match cacert {
            Some(path) => Some(read(path)?),
            None => material(cluster.certificate_authority_data, cluster.certificate_authority, folder)?,
        };
        let trust = match authorities {
            _ if cluster.insecure_skip_tls_verify == Some(true) => Ok(Trust::Anyone),
            // No certificate is shown.
            _ if server.scheme() == Some(&Scheme::HTTP) => Ok(Trust::Anyone),
            Some(authorities) => Trust::name_by_pem(&authorities),
            None => Trust::name(None),
        };
        let trust = trust.map_err(|error| error.chain())?;
        let certificate = material(user.client_certificate_data, user.client_certificate, folder)?;
        let key = material(user.client_key_data, user.client_key, folder)?;
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => tls::client_by_pem(trust, &certificate, &key),
            (None, None) => tls::client(trust, None),
            (Some(_), None) | (None, Some(_)) => {
                return Err("a certificate and its key come together".to_owned());
            }
        };
        let authorization = match (user.token, user.token_file, user.username) {
            (Some(token), _, _) => Authorization::Header(format!("Bearer {}", token.trim())),
            (None, Some(path), _) => Authorization::TokenFile(folder.join(path)),
            (None, None, Some(name)) => {
                let both = format!("{name}:{}", user.password.unwrap_or_default());
                Authorization::Header(format!("Basic {}", STANDARD.encode(both)))
            }
            (None, None, None) => Authorization::None,
        };
        Ok(Access {
            server,
            authorization,
            tls: tls.map_err(|error| error.chain())?,
            server_name: server_name.map_err(|error| error.to_string())?,
        })
    }
}

fn find<T>(kind: &str, name: &str, all: Option<Vec<Named<T>>>) -> Result<T, String> {
    let found = all.into_iter().flatten().find(|named| named.name == name);
    found.and_then(|named| named.entry).ok_or_else(|| format!("it has no {kind} {name}"))
}

/// What stands in the kubeconfig itself, or in a file that it names.
fn material(data: Option<String>, file: Option<PathBuf>, folder: &Path) -> Result<Option<Vec<u8>>, String> {
    match (data, file) {
        (Some(data), _) => STANDARD.decode(data.trim()).map(Some).map_err(|error| error.to_string()),
        (None, Some(file)) => read(&folder.join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn url(text: &str) -> Result<Uri, String> {
    let unfit = || format!("`{text}` is no URL of an API server");
    let url: Uri = text.parse().map_err(|_| unfit())?;
    let known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme());
    if known && url.authority().is_some() { Ok(url) } else { Err(unfit()) }
}

#[cfg(test)]
mod tests;
