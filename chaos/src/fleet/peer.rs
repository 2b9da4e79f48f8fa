//! The peer's members, as etcd knows them: its own client, driven as its loop drives it.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::{Arguments, CLUSTER};
use crate::rig::python_environment;

const SCRIPT: &str = include_str!("peer.py");

/// The process with all of them. It ends with this.
pub(super) struct PeerFleet(Child);

/// Starts all of them.
pub(super) fn start(arguments: &Arguments, port: u16) -> Result<PeerFleet> {
    let mut command = Command::new(python_environment()?.join("bin/python"));
    command.args(["-c", SCRIPT]);
    let numbers = [usize::from(port), arguments.members, CLUSTER];
    command.args(numbers.map(|number| number.to_string()));
    command.args([arguments.ttl, arguments.loop_wait].map(|number| number.to_string()));
    Ok(PeerFleet(command.stdin(Stdio::null()).spawn().context("start Python")?))
}

impl Drop for PeerFleet {
    fn drop(&mut self) {
        // It is gone, or will be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
