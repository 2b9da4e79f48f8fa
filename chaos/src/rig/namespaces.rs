//! Network namespaces, held by a file and never by a name, so that none is left behind.
//!
//! The sandbox's own namespace holds the bridge and the clients. Every other one hangs on it by a cable: a pair of
//! virtual interfaces, `NAME` on the bridge and `eth0` inside.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// The bridge, which is also where the clients are.
const BRIDGE: &str = "herd0";
/// Address of the clients.
pub(crate) const CLIENTS: &str = "10.77.0.1";

/// One network namespace with a cable to the bridge.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// Name of the cable's end on the bridge.
    pub(crate) name: String,
    /// Address inside.
    pub(crate) address: String,
    file: File,
}

/// Makes the bridge in the namespace that the caller is in.
pub(crate) fn make_bridge() -> Result<()> {
    tool("ip", &["link", "set", "lo", "up"])?;
    tool("ip", &["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
    tool("ip", &["address", "add", &format!("{CLIENTS}/24"), "dev", BRIDGE])?;
    tool("ip", &["link", "set", BRIDGE, "up"])
}

impl Namespace {
    /// A new one at that address, connected.
    pub(crate) fn new(name: &str, address: &str) -> Result<Namespace> {
        let file = in_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })?;
        let namespace = Namespace { name: name.to_owned(), address: address.to_owned(), file };
        let inside = format!("/proc/{}/fd/{}", std::process::id(), namespace.file.as_raw_fd());
        let cable = ["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &inside];
        tool("ip", &cable)?;
        tool("ip", &["link", "set", name, "master", BRIDGE, "up"])?;
        namespace.tool("ip", &["link", "set", "lo", "up"])?;
        namespace.tool("ip", &["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        namespace.tool("ip", &["link", "set", "eth0", "up"])?;
        Ok(namespace)
    }

    /// Does some work in here, on a thread of its own. What it spawns lives in here, too.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_a_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
            work()
        })
    }

    /// Runs a program in here and wants it to end well.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> Result<()> {
        self.enter(|| tool(program, arguments))
    }

    /// Plugs the cable in or pulls it out.
    pub(crate) fn link(&self, up: bool) -> Result<()> {
        tool("ip", &["link", "set", &self.name, if up { "up" } else { "down" }])
    }

    /// Whether the interface inside has a carrier.
    pub(crate) fn has_carrier(&self) -> Result<bool> {
        let shown = self.enter(|| output("ip", &["link", "show", "eth0"], ""))?;
        Ok(!shown.contains("NO-CARRIER"))
    }

    /// Replaces the packet filter in here: lines of rules for what comes in, and for what goes out.
    pub(crate) fn filter(&self, incoming: &[String], outgoing: &[String]) -> Result<()> {
        let chain = |hook: &str, rules: &[String]| {
            let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
            format!("  chain {hook} {{\n    type filter hook {hook} priority 0;\n{rules}  }}\n")
        };
        let table =
            format!("table inet chaos {{\n{}{}}}\n", chain("input", incoming), chain("output", outgoing));
        let script = format!("table inet chaos {{}}\ndelete table inet chaos\n{table}");
        self.enter(|| output("nft", &["-f", "-"], &script)).map(drop)
    }

    /// Takes the filter away and gives how many packets its rules have dropped.
    pub(crate) fn unfilter(&self) -> Result<u64> {
        let listed = self.enter(|| output("nft", &["list", "table", "inet", "chaos"], ""))?;
        self.tool("nft", &["delete", "table", "inet", "chaos"])?;
        Ok(dropped(&listed))
    }
}

/// The sum of the counters in nft's listing.
fn dropped(listed: &str) -> u64 {
    let counters = listed.split("counter packets ").skip(1);
    counters.filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

fn in_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(_) => bail!("a thread in another namespace panicked"),
    })
}

/// Runs a program and wants it to end well.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments, "").map(drop)
}

/// Runs a program with an input and gives its output.
fn output(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let said = || format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(said)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(said)?;
    }
    let done = child.wait_with_output().with_context(said)?;
    if !done.status.success() {
        bail!("{}: {}", said(), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed() {
        let listed = "ip saddr 1.2.3.4 counter packets 7 bytes 420 drop\n counter packets 5 bytes 1 drop";
        assert_eq!(dropped(listed), 12);
        assert_eq!(dropped("accept"), 0);
    }

    #[test]
    fn a_tool_that_fails_says_why() {
        let error = tool("ls", &["/does/not/exist"]).expect_err("it is not there");
        assert!(error.to_string().contains("/does/not/exist"), "{error}");
    }
}
