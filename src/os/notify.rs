//! Notifications to the service manager (`sd_notify(3)`): ready, reloading, stopping, and the watchdog's pings.
//!
//! Without `NOTIFY_SOCKET` nothing is sent. Nothing waits for systemd: a message that its socket does not take at once
//! is lost, and the next of its kind follows.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Variables for this process alone, which no child may see.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The connection to the service manager, if there is one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Systemd {
    socket: Option<Arc<UnixDatagram>>,
    ping_every: Option<Duration>,
}

impl Systemd {
    /// From the environment. A name that begins with `@` is in the abstract namespace.
    pub fn of(environment: &BTreeMap<String, String>) -> Systemd {
        let name = environment.get("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| connected(name)).map(Arc::new);
        let ping_every = watchdog(environment, std::process::id()).filter(|_| socket.is_some());
        Systemd { socket, ping_every }
    }

    /// The interval between pings: half of the service manager's limit.
    pub fn ping_every(&self) -> Option<Duration> {
        self.ping_every
    }

    /// The supervisor is ready.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The supervisor reads its configuration; [`Self::ready`] follows.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The supervisor ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The supervisor's state, on one line.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// The supervisor is alive.
    pub fn ping(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // The socket may be full, or the service manager gone.
            let _ = socket.send(state.as_bytes());
        }
    }
}

fn connected(name: &str) -> Option<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect_addr(&address.ok()?).ok()?;
    Some(socket)
}

/// Half of `WATCHDOG_USEC`, if it is meant for process `me`.
fn watchdog(environment: &BTreeMap<String, String>, me: u32) -> Option<Duration> {
    let for_me = environment.get("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(me));
    let micros: u64 = environment.get("WATCHDOG_USEC")?.parse().ok()?;
    (for_me && 0 < micros).then(|| Duration::from_micros(micros) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn speaks_to_an_abstract_socket() {
        let name = format!("matriarch-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let service = UnixDatagram::bind_addr(&address).expect("an address of ours");
        let socket = format!("@{name}");
        let systemd = Systemd::of(&environment(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "4000000")]));
        assert_eq!(systemd.ping_every(), Some(Duration::from_secs(2)));
        let said = || {
            let mut buffer = [0; 200];
            let length = service.recv(&mut buffer).expect("it was sent");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        systemd.ready();
        assert_eq!(said(), "READY=1");
        systemd.reloading();
        let reloading = said();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::parse::<u64>);
        assert!(matches!(since, Some(Ok(1..))), "{reloading}");
        systemd.status("two\nlines");
        assert_eq!(said(), "STATUS=two lines");
    }

    #[test]
    fn a_watchdog_of_another_process_does_not_count() {
        let every = |pairs| watchdog(&environment(pairs), 7);
        assert_eq!(every(&[("WATCHDOG_USEC", "30000000")]), Some(Duration::from_secs(15)));
        assert_eq!(
            every(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "7")]),
            Some(Duration::from_secs(15))
        );
        assert_eq!(every(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "8")]), None);
        assert_eq!(every(&[]), None);
    }

    #[test]
    fn without_a_service_manager_nothing_is_sent() {
        let systemd = Systemd::of(&environment(&[("WATCHDOG_USEC", "30000000")]));
        systemd.ready();
        assert_eq!(systemd.ping_every(), None);
    }
}
