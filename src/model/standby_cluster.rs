//! A standby cluster: all of its members follow a primary outside of it, and none is promoted.

use serde::{Deserialize, Serialize};

use super::{FollowTarget, MemberName};

/// The section `standby_cluster`, while it is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyCluster {
    /// The remote primary, in the place of a member; `None`: WAL comes from an archive only.
    pub remote: Option<FollowTarget>,
    /// The methods that copy the remote primary, by name; none: pg_basebackup.
    pub methods: Vec<String>,
}

impl StandbyCluster {
    /// One that follows these hosts with their ports, in the order of the attempts. Through a slot only the primary
    /// among several hosts can be followed: the slot is there.
    pub fn following(hosts: &[(String, u16)], slot: Option<String>) -> Option<StandbyCluster> {
        let authority = |(host, port): &(String, u16)| format!("{}:{port}", escaped(host));
        let authority = hosts.iter().map(authority).collect::<Vec<_>>().join(",");
        let only_primary = if 1 < hosts.len() && slot.is_some() { PRIMARY_ONLY } else { "" };
        let name = MemberName::new(format!("the remote primary {authority}")).ok()?;
        let conn_url = format!("postgres://{authority}/{only_primary}");
        Some(StandbyCluster {
            remote: Some(FollowTarget { name, conn_url, slot }),
            ..StandbyCluster::default()
        })
    }
}

/// What the URL of several hosts has behind them where only the primary among them will do.
pub const PRIMARY_ONLY: &str = "?target_session_attrs=read-write";

/// A host as a part of a URL.
fn escaped(host: &str) -> String {
    if host.contains(':') {
        return format!("[{host}]");
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~".contains(letter);
    let mut text = String::new();
    for letter in host.chars() {
        if plain(letter) {
            text.push(letter);
        } else {
            let mut bytes = [0; 4];
            letter.encode_utf8(&mut bytes).bytes().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_primary_has_a_url_and_a_name() {
        let hosts = |hosts: &[(&str, u16)]| -> Vec<(String, u16)> {
            hosts.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
        };
        let following = |list: &[(&str, u16)], slot: Option<&str>| {
            let cluster = StandbyCluster::following(&hosts(list), slot.map(str::to_owned));
            cluster.and_then(|cluster| cluster.remote).expect("a remote primary")
        };
        let two = [("a", 5432), ("b", 5433)];
        assert_eq!(following(&two, None).conn_url, "postgres://a:5432,b:5433/");
        assert_eq!(
            following(&two, Some("s")).conn_url,
            "postgres://a:5432,b:5433/?target_session_attrs=read-write"
        );
        let one = following(&[("fe80::1", 1)], Some("s"));
        assert_eq!(one.conn_url, "postgres://[fe80::1]:1/");
        assert_eq!(one.name.as_str(), "the remote primary [fe80::1]:1");
        assert_eq!(following(&[("/run/pg", 5432)], None).conn_url, "postgres://%2Frun%2Fpg:5432/");
    }
}
