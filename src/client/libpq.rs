//! What libpq adds to a connection string: the environment (`PGUSER`, `PGPASSWORD` …), the password file, and defaults.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// Where libpq looks for a local server.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const PORT_DEFAULT: u16 = 5432;

/// The environment, and the user of this process.
#[derive(Clone, Debug, Default)]
pub(super) struct LibpqDefaults {
    /// The environment.
    pub(super) environment: BTreeMap<String, String>,
    /// The user's name and home directory.
    pub(super) user: Option<(String, PathBuf)>,
}

impl LibpqDefaults {
    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A file below `~/.postgresql`, or the one that `variable` names.
    pub(super) fn file(&self, variable: &str, name: &str) -> Option<PathBuf> {
        let default = || Some(self.user.as_ref()?.1.join(".postgresql").join(name));
        self.variable(variable).map(PathBuf::from).or_else(default).filter(|path| path.exists())
    }

    /// Fills in what `config` does not have.
    pub(super) fn complete(&self, config: &mut Config) {
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            match self.variable("PGHOST") {
                Some(host) => config.host(host),
                None => {
                    config.host_path(SOCKETS.iter().find(|path| Path::new(path).exists()).unwrap_or(&"/tmp"))
                }
            };
        }
        if config.get_ports().is_empty() {
            let port = self.variable("PGPORT").and_then(|text| text.parse().ok());
            config.port(port.unwrap_or(PORT_DEFAULT));
        }
        if config.get_user().is_none() {
            let own = self.user.as_ref().map(|(name, _)| name.as_str());
            config.user(self.variable("PGUSER").or(own).unwrap_or("postgres"));
        }
        let user = config.get_user().unwrap_or_default().to_owned();
        if config.get_dbname().is_none() {
            config.dbname(self.variable("PGDATABASE").unwrap_or(&user));
        }
        if config.get_password().is_none() {
            let password = self.variable("PGPASSWORD").map(str::to_owned);
            if let Some(password) = password.or_else(|| self.password_file_entry(config, &user)) {
                config.password(password);
            }
        }
    }

    /// libpq does not read a file that others can read.
    fn password_file_entry(&self, config: &Config, user: &str) -> Option<String> {
        let default = || Some(self.user.as_ref()?.1.join(".pgpass"));
        let path = self.variable("PGPASSFILE").map(PathBuf::from).or_else(default)?;
        if path.metadata().ok()?.mode() & 0o077 != 0 {
            return None;
        }
        let text = std::fs::read_to_string(path).ok()?;
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(_)) | None => "localhost".to_owned(),
        };
        let port = config.get_ports().first().copied().unwrap_or(PORT_DEFAULT).to_string();
        password_in(&text, [&host, &port, config.get_dbname().unwrap_or_default(), user])
    }
}

/// The password of the first line `HOST:PORT:DATABASE:USER:PASSWORD` that fits; `*` fits everything.
fn password_in(text: &str, wanted: [&str; 4]) -> Option<String> {
    let fields_of = |line: &str| {
        let (mut fields, mut escaped) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '\\' if !escaped => escaped = true,
                ':' if !escaped => fields.push(String::new()),
                _ => {
                    fields.last_mut()?.push(c);
                    escaped = false;
                }
            }
        }
        Some(fields)
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(fields_of).find_map(|fields| {
        let fits = fields.len() > wanted.len()
            && fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| fields[wanted.len()].clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_come_from_the_first_line_that_fits() {
        let text = "# a comment\nh:5432:db:other:no\nh:*:*:u:a\\:b\\\\c\n*:*:*:*:last\nshort:line\n";
        let find = |user| password_in(text, ["h", "5432", "db", user]);
        assert_eq!(find("u").as_deref(), Some("a:b\\c"));
        assert_eq!(find("v").as_deref(), Some("last"));
        assert_eq!(password_in("h:1:d:u", ["h", "1", "d", "u"]), None);
    }

    #[test]
    fn the_environment_fills_in_what_is_not_given() {
        let environment = [("PGUSER", "u"), ("PGPORT", "6000"), ("PGPASSWORD", "p")];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let defaults = LibpqDefaults { environment, user: Some(("me".into(), "/nonexistent".into())) };
        let mut config: Config = "host=h user=v".parse().expect("a connection string");
        defaults.complete(&mut config);
        assert_eq!((config.get_user(), config.get_dbname()), (Some("v"), Some("v")));
        assert_eq!((config.get_ports(), config.get_password()), (&[6000][..], Some(&b"p"[..])));
        let mut config = Config::new();
        LibpqDefaults { user: Some(("me".into(), "/nonexistent".into())), ..LibpqDefaults::default() }
            .complete(&mut config);
        assert_eq!((config.get_user(), config.get_ports()), (Some("me"), &[5432][..]));
        assert!(matches!(config.get_hosts(), [Host::Unix(_)]));
    }
}
