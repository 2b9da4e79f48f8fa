//! The cost of an idle member: memory, processor time, and writes to etcd.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// What went wrong, in words.
type Fault = String;

/// Looks at the processes and at etcd, waits, looks again.
#[derive(Debug, clap::Args)]
pub(crate) struct Idle {
    /// How long to look, in seconds.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The client port of an etcd on loopback.
    etcd_port: u16,
    /// The processes.
    #[arg(required = true)]
    pids: Vec<String>,
}

/// The table.
pub(crate) fn run(idle: &Idle) -> Result<String, Fault> {
    let Idle { seconds, etcd_port: port, pids } = idle;
    let (seconds, port) = (*seconds, *port);
    let looks = |pids: &[String]| pids.iter().map(|pid| ticks(pid)).collect::<Result<Vec<u64>, Fault>>();
    let (proposals_before, before, began) = (proposals(port)?, looks(pids)?, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (took, after, proposals_after) = (began.elapsed().as_secs_f64(), looks(pids)?, proposals(port)?);
    let mut lines = String::from("pid      memory MB   CPU %");
    for ((pid, before), after) in pids.iter().zip(before).zip(after) {
        let percent = (after - before) as f64 / ticks_a_second() / took * 100.0;
        lines.push_str(&format!("\n{pid:<8} {:>9.1} {percent:>7.2}", memory_kb(pid)? as f64 / 1024.0));
    }
    let a_minute = (proposals_after - proposals_before) / took * 60.0;
    lines.push_str(&format!("\netcd proposals a minute: {a_minute:.1}"));
    Ok(lines)
}

fn read(pid: &str, file: &str) -> Result<String, Fault> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
}

/// Processor time so far, in clock ticks.
pub(crate) fn ticks(pid: &str) -> Result<u64, Fault> {
    let used = pid.parse().ok().and_then(matriarch::os::process::used_ticks);
    used.ok_or_else(|| format!("/proc/{pid}/stat cannot be read"))
}

/// Linux has counted in hundredths of a second for user space since 2.6, whatever its own clock does.
pub(crate) fn ticks_a_second() -> f64 {
    100.0
}

/// Resident memory.
pub(crate) fn memory_kb(pid: &str) -> Result<u64, Fault> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.ok_or_else(|| format!("/proc/{pid}/status shows no VmRSS"))
}

/// Proposals that etcd on loopback has committed so far.
fn proposals(port: u16) -> Result<f64, Fault> {
    let fault = |error: std::io::Error| format!("etcd on port {port}: {error}");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(fault)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").map_err(fault)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(fault)?;
    parse_proposals(&answer)
        .ok_or_else(|| format!("etcd on port {port} shows no etcd_server_proposals_committed_total"))
}

fn parse_proposals(metrics: &str) -> Option<f64> {
    let value =
        metrics.lines().find_map(|line| line.strip_prefix("etcd_server_proposals_committed_total "))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_and_metrics() {
        let metrics = "# HELP x\netcd_server_proposals_committed_total 1234\n";
        assert_eq!(parse_proposals(metrics), Some(1234.0));
    }
}
