//! The program of a pod, started on this machine: its files and its environment, with names, addresses, ports and paths
//! replaced.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::objects::{Bundle, overlay};
use super::pods::pods;
use super::{secrets, settings};
use crate::support::{Place, command_as, free_port, user};

/// Texts in a pod's files and variables, with their replacements here, in order.
pub(super) type Moves = Vec<(String, String)>;

/// A text of a pod, with the replacements. A replacement is not searched again: a port may begin like another one.
pub(super) fn moved(text: &str, moves: &Moves) -> String {
    let (mut rest, mut moved) = (text, String::new());
    while let Some(next) = rest.chars().next() {
        let found = moves.iter().find(|(from, _)| rest.starts_with(from.as_str()));
        let length = found.map_or(next.len_utf8(), |(from, _)| from.len());
        moved.push_str(found.map_or(&rest[..length], |(_, to)| to));
        rest = &rest[length..];
    }
    moved
}

/// A folder with these files, readable only for the account that the members run as.
pub(super) fn files<'a>(
    place: &Place,
    folder: &str,
    files: impl IntoIterator<Item = (&'a str, String)>,
) -> PathBuf {
    let folder = place.folder(folder);
    for (name, text) in files {
        let file = folder.join(name);
        std::fs::write(&file, text).expect("our own place is writable");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).expect("our own place is writable");
        user::give(&file);
    }
    folder
}

/// A Secret with a certificate, as a folder.
pub(super) fn mount(place: &Place, name: &str) -> PathBuf {
    files(place, name, ["ca.crt", "tls.crt", "tls.key"].map(|key| (key, secrets::text(name, key))))
}

/// The etcd of an overlay, with all its members. Ends when dropped.
#[derive(Debug)]
pub(super) struct Etcd {
    children: Vec<Child>,
    /// Their ports for clients.
    pub(super) ports: Vec<u16>,
}

impl Etcd {
    /// Starts every member with the environment of its pod; all names resolve to this machine. An overlay without etcd
    /// gets that of dev.
    pub(super) fn start(place: &Place, bundle: &Bundle) -> Etcd {
        let Some(pod) = pods(bundle).into_iter().find(|pod| pod.owner == "StatefulSet etcd") else {
            return Etcd::start(place, &overlay("dev"));
        };
        let replicas = bundle.one("StatefulSet", "etcd").json["spec"]["replicas"].as_u64().expect("a number");
        let tls = mount(place, "etcd-tls");
        let ports: Vec<[u16; 3]> = (0..replicas).map(|_| [free_port(), free_port(), free_port()]).collect();
        let peers = ports.iter().enumerate();
        let peers: Moves = peers
            .map(|(ordinal, [_, peer, _])| (format!("etcd-{ordinal}.etcd:2380"), format!("localhost:{peer}")))
            .collect();
        let start = |(ordinal, [client, peer, metrics]): (usize, &[u16; 3])| {
            let folder = place.folder(&format!("etcd-{ordinal}"));
            let mut moves = peers.clone();
            let own = [
                ("pg-1.etcd:2380".to_owned(), format!("localhost:{peer}")),
                ("pg-1.etcd".to_owned(), "localhost".to_owned()),
                ("pg-1".to_owned(), format!("etcd-{ordinal}")),
                ("0.0.0.0".to_owned(), "127.0.0.1".to_owned()),
                (":2379".to_owned(), format!(":{client}")),
                (":2380".to_owned(), format!(":{peer}")),
                (":2381".to_owned(), format!(":{metrics}")),
                ("/etc/etcd/tls".to_owned(), tls.display().to_string()),
                ("/var/lib/etcd/member".to_owned(), folder.join("member").display().to_string()),
            ];
            moves.extend(own);
            let mut command = command_as("etcd", &folder);
            let environment = settings::environment(&pod.spec.containers[0]);
            command.envs(environment.into_iter().map(|(name, value)| (name, moved(&value, &moves))));
            let log = std::fs::File::create(folder.join("log")).expect("our own place is writable");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("etcd starts")
        };
        Etcd {
            children: ports.iter().enumerate().map(start).collect(),
            ports: ports.iter().map(|[client, ..]| *client).collect(),
        }
    }

    /// The endpoints in the form of `etcd3.hosts`.
    pub(super) fn hosts(&self) -> String {
        let hosts: Vec<String> = self.ports.iter().map(|port| format!("localhost:{port}")).collect();
        hosts.join(",")
    }

    /// Whether every member is healthy.
    pub(super) fn runs(&mut self) -> bool {
        self.children.iter_mut().all(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
