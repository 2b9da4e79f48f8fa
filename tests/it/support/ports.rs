//! Ports that no other test gets.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use nix::unistd::Uid;

/// Below the range from which Linux takes ports for outgoing connections.
const FIRST: u16 = 17_000;
const COUNT: u16 = 14_000;

/// Locks on the used ports; they last as long as this process.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A free port on loopback. No other test gets it while this process lives: the port's lock file prevents that, and
/// binding it once proves that no other program has it.
pub(crate) fn free_port() -> u16 {
    let folder = std::env::temp_dir().join(format!("matriarch-test-ports-{}", Uid::effective()));
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let start = (std::process::id().wrapping_mul(61) % u32::from(COUNT)) as u16;
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(port.to_string()));
        let Ok(lock) = lock else { continue };
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.push(lock);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

#[test]
fn a_port_is_given_once() {
    let ports: std::collections::BTreeSet<u16> = (0..20).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 20);
}
