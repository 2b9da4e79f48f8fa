//! Connection strings and password files, escaped as libpq reads them.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::{RoleCredentials, Setup};
use crate::model::{FirstPassword, FollowTarget, PRIMARY_ONLY};

/// The address of another member's Postgres.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ConninfoAddress {
    /// Hosts with their ports, in the order of the attempts.
    pub(super) hosts: Vec<(String, u16)>,
    /// The database of the URL, if it names one.
    pub(super) database: Option<String>,
    /// Only the primary among the hosts will do.
    pub(super) only_primary: bool,
}

const DEFAULT_PORT: u16 = 5432;

impl ConninfoAddress {
    /// Parses a `conn_url`: `postgres://[user[:password]@]host[:port][,…][/database][?…]`. User and password are
    /// ignored.
    pub(super) fn parse(url: &str) -> Option<ConninfoAddress> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
        let rest = rest.split(['?', '#']).next()?;
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
        let hosts: Option<Vec<_>> = hosts.split(',').map(parse_host).collect();
        let database = Some(percent_decoded(database)).filter(|name| !name.is_empty());
        Some(ConninfoAddress { hosts: hosts?, database, only_primary: url.ends_with(PRIMARY_ONLY) })
    }

    fn joined(&self, part: impl Fn(&(String, u16)) -> String) -> String {
        self.hosts.iter().map(part).collect::<Vec<_>>().join(",")
    }
}

fn parse_host(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) if !port.is_empty() => port.parse().ok()?,
        Some(_) | None => DEFAULT_PORT,
    };
    let host = percent_decoded(host);
    (!host.is_empty()).then_some((host, port))
}

fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// `keyword=value` pairs in this order, with quotes where they are needed.
pub(super) fn conninfo<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let pairs = pairs.into_iter().map(|(key, value)| format!("{key}={}", quoted(&value)));
    pairs.collect::<Vec<_>>().join(" ")
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./,:@%+".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// The connection string with which a program or the WAL receiver reaches `target` as `who`, without the password.
pub(super) fn to_member(
    setup: &Setup,
    target: &FollowTarget,
    who: &RoleCredentials,
    application: &str,
) -> Option<String> {
    let address = ConninfoAddress::parse(&target.conn_url)?;
    let mut options: BTreeMap<&str, String> =
        who.options.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let sslmode = options.remove("sslmode").unwrap_or_else(|| "prefer".to_owned());
    let mut pairs = vec![
        ("dbname", address.database.clone().unwrap_or_else(|| database(setup).to_owned())),
        ("user", who.username.clone()),
        ("passfile", setup.pgpass.display().to_string()),
        ("host", address.joined(|(host, _)| host.clone())),
        ("port", address.joined(|(_, port)| port.to_string())),
        ("sslmode", sslmode),
    ];
    pairs.extend(options);
    pairs.push(("application_name", application.to_owned()));
    if let Some(service) = &setup.krbsrvname {
        pairs.push(("krbsrvname", service.clone()));
    }
    if address.only_primary {
        pairs.push(("target_session_attrs", "read-write".to_owned()));
    }
    Some(conninfo(pairs))
}

/// The database to connect to.
pub(super) fn database(setup: &Setup) -> &str {
    if setup.database.is_empty() { "postgres" } else { &setup.database }
}

/// The password file for these hosts: a line for each host, user and password, the `first` password of a user first.
pub(super) fn pgpass(setup: &Setup, hosts: &[(String, u16)], first: FirstPassword) -> String {
    let users = [Some(&setup.replication), setup.rewind.as_ref(), Some(&setup.superuser)];
    let mut text = String::new();
    for (host, port) in hosts {
        for who in users.into_iter().flatten() {
            let passwords = who.password.known().lines(first);
            text.extend(passwords.iter().map(|password| pgpass_entry(host, *port, &who.username, password)));
        }
    }
    text
}

/// One line of a password file; empty without a password.
pub(super) fn pgpass_line(host: &str, port: u16, who: &RoleCredentials) -> String {
    let password = who.password.newest();
    password.map_or(String::new(), |password| pgpass_entry(host, port, &who.username, &password))
}

/// One line of a password file.
fn pgpass_entry(host: &str, port: u16, user: &str, password: &str) -> String {
    let escaped = |text: &str| text.replace('\\', r"\\").replace(':', r"\:");
    format!("{}:{port}:*:{}:{}\n", escaped(host), escaped(user), escaped(password))
}

/// Host, port, user and password of a line by [`pgpass_entry`].
pub(super) fn split_pgpass(line: &str) -> Option<[String; 4]> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ':' => fields.push(String::new()),
            '\\' => fields.last_mut()?.push(letters.next()?),
            letter => fields.last_mut()?.push(letter),
        }
    }
    let [host, port, _, user, password] = <[String; 5]>::try_from(fields).ok()?;
    Some([host, port, user, password])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_conn_url() {
        let cases = [
            ("postgres://10.0.0.1:5433/postgres", vec![("10.0.0.1", 5433)], Some("postgres")),
            ("postgresql://u:p@a,b:6000/x%2Fy?sslmode=require", vec![("a", 5432), ("b", 6000)], Some("x/y")),
            ("postgres://[fe80::1]:7/", vec![("fe80::1", 7)], None),
            ("postgres://%2Frun%2Fpg", vec![("/run/pg", 5432)], None),
        ];
        for (url, hosts, database) in cases {
            let hosts = hosts.into_iter().map(|(host, port)| (host.to_owned(), port)).collect();
            let expected =
                ConninfoAddress { hosts, database: database.map(str::to_owned), only_primary: false };
            assert_eq!(ConninfoAddress::parse(url), Some(expected), "{url}");
        }
        for url in ["host=a", "postgres://", "postgres://a:x/"] {
            assert_eq!(ConninfoAddress::parse(url), None, "{url}");
        }
    }

    #[test]
    fn only_the_primary_among_several_hosts_will_do() {
        let target = crate::model::StandbyCluster::following(
            &[("a".to_owned(), 1), ("b".to_owned(), 2)],
            Some("s".to_owned()),
        );
        let target = target.and_then(|cluster| cluster.remote).expect("a remote primary");
        let text = to_member(&Setup::default(), &target, &RoleCredentials::default(), "x").expect("a URL");
        assert!(text.contains(" host=a,b port=1,2 "), "{text}");
        assert!(text.ends_with(" application_name=x target_session_attrs=read-write"), "{text}");
    }

    #[test]
    fn options_of_the_user_and_the_kerberos_service_reach_the_program() {
        let options =
            [("gssencmode", "disable"), ("channel_binding", "require"), ("sslnegotiation", "direct")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let who = RoleCredentials { username: "r".to_owned(), options, ..RoleCredentials::default() };
        let setup = Setup { krbsrvname: Some("pg".to_owned()), ..Setup::default() };
        let target = FollowTarget {
            name: crate::model::MemberName::try_from("b".to_owned()).expect("a name"),
            conn_url: "postgres://b:5433/shop".to_owned(),
            slot: None,
        };
        let text = to_member(&setup, &target, &who, "a").expect("a URL");
        let expected = "dbname=shop user=r passfile='' host=b port=5433 sslmode=prefer channel_binding=require \
                        gssencmode=disable sslnegotiation=direct application_name=a krbsrvname=pg";
        assert_eq!(text, expected);
    }

    #[test]
    fn values_are_quoted_for_libpq() {
        let pairs = [("a", "x".to_owned()), ("b", String::new()), ("c", r"it's \ here".to_owned())];
        assert_eq!(conninfo(pairs), r"a=x b='' c='it\'s \\ here'");
    }

    #[test]
    fn escapes_password_files() {
        let who = RoleCredentials {
            username: "re:pl".to_owned(),
            password: Some(r"a:b\c".to_owned()).into(),
            options: BTreeMap::new(),
        };
        let line = pgpass_line("::1", 5432, &who);
        assert_eq!(line, "\\:\\:1:5432:*:re\\:pl:a\\:b\\\\c\n");
        let split = split_pgpass(line.trim_end()).expect("a line of ours");
        assert_eq!(split, ["::1", "5432", "re:pl", r"a:b\c"].map(str::to_owned));
        assert_eq!(format!("{who:?}").find("a:b"), None);
    }
}
