//! The machine's watchdog, as the driver `testing` shows it: a fifo.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc;
use serde_json::json;

use crate::support::{Cluster, Member, Plan, until, user};

/// The fifo in a member's folder, a thread that reads it, and the bytes so far.
struct Device {
    path: PathBuf,
    reader: File,
    text: String,
}

impl Device {
    fn of(member: &Member) -> Device {
        let path = member.folder.join("watchdog");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        user::give(&path);
        // Open for both, so that the end of a writer does not close it.
        let mut open = File::options();
        open.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let reader = open.open(&path).expect("the fifo opens");
        Device { path, reader, text: String::new() }
    }

    /// Everything written so far.
    fn read(&mut self) -> &str {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = self.reader.read(&mut buffer) {
            self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        &self.text
    }
}

/// The timeouts, in seconds, that a watchdog may get for a lease of 20 s. With its margin of 5 s the machine is reset
/// 15 s after the last renewal was sent, however late the ping: never more. A renewal may take 4 s, and the first ping
/// may be for the last renewal, 5 s ago. A smaller timeout would fire between two renewals that are in time.
const ALLOWED: std::ops::RangeInclusive<u32> = 6..=15;

/// The timeouts in force at each ping; nothing else may have been written.
fn pings(text: &str) -> Vec<u32> {
    let mut pings = Vec::new();
    for part in text.split('C').skip(1) {
        let (timeout, ones) = part.split_once('\n').unwrap_or((part, ""));
        let seconds: Option<u32> = timeout.strip_prefix("timeout=").and_then(|text| text.parse().ok());
        let seconds = seconds.unwrap_or_else(|| panic!("not what a driver takes: {text:?}"));
        assert!(ones.bytes().all(|byte| byte == b'1'), "not what a driver takes: {text:?}");
        pings.extend(ones.bytes().map(|_| seconds));
    }
    pings
}

/// Makes this member require the watchdog in its folder.
fn require(member: &Member) {
    let mut config = member.read_config();
    let device = member.folder.join("watchdog");
    config["watchdog"] = json!({ "mode": "required", "driver": "testing", "device": device });
    member.write_config(&config);
}

async fn wait_for_leader(cluster: &Cluster, name: &str) {
    let leads = |seen: &crate::support::Seen| seen.leader() == Some(name);
    cluster.wait_for(Duration::from_secs(60), &format!("{name} leads"), leads).await;
}

/// A leader that requires its watchdog, at a `ttl` of 20 s.
async fn with_a_device() -> (Cluster, Device) {
    let mut cluster = Plan::new(1).dynamic(json!({ "ttl": 20 })).prepare().await;
    require(&cluster.members[0]);
    let device = Device::of(&cluster.members[0]);
    cluster.members[0].start();
    wait_for_leader(&cluster, "m1").await;
    (cluster, device)
}

/// Its timeout is that of the lease minus the margin; every renewal pings it; the magic byte comes last.
#[tokio::test]
async fn the_watchdog_is_timed_pinged_and_closed() {
    let (mut cluster, mut device) = with_a_device().await;
    let pinged =
        until(Duration::from_secs(20), async || (3 <= pings(device.read()).len()).then_some(())).await;
    assert!(pinged.is_some(), "{:?}\n{}", device.read(), cluster.story());
    cluster.members[0].terminate();
    assert_eq!(cluster.members[0].exit_code(Duration::from_secs(30)).await, Some(0));
    let text = device.read();
    let pings = text.strip_suffix('V').filter(|text| text.starts_with('C')).map(pings);
    assert!(pings.is_some_and(|pings| pings.iter().all(|seconds| ALLOWED.contains(seconds))), "{text:?}");
}

/// A changed `ttl` changes its timeout, in both directions.
#[tokio::test]
async fn the_watchdog_follows_a_changed_ttl() {
    let (cluster, mut device) = with_a_device().await;
    for (ttl, expected) in [(40, 16..=35), (20, ALLOWED)] {
        let patched = cluster.members[0].send("PATCH", "/config", Some(&json!({ "ttl": ttl }))).await;
        assert_eq!(patched.status, 200, "{}", patched.body);
        let before = device.read().len();
        // Two pings in a row, so that it is not one from before the change.
        let follows = async || {
            let since = pings(&device.read()[before..]);
            since
                .last_chunk::<2>()
                .is_some_and(|last| last.iter().all(|at| expected.contains(at)))
                .then_some(())
        };
        let followed = until(Duration::from_secs(40), follows).await;
        assert!(followed.is_some(), "{ttl}: {:?}\n{}", device.read(), cluster.story());
    }
    assert!(pings(device.read()).iter().all(|seconds| (6..=35).contains(seconds)), "{:?}", device.read());
    cluster.wait_until_well().await;
}

/// A guard that replaces a killed one continues with the watchdog.
#[tokio::test]
async fn a_replaced_guard_continues_with_the_watchdog() {
    let mut cluster = Plan::new(1).dynamic(json!({ "ttl": 20 })).prepare().await;
    require(&cluster.members[0]);
    let mut device = Device::of(&cluster.members[0]);
    cluster.members[0].start();
    cluster.wait_until_well().await;
    cluster.members[0].signal_guard(nix::sys::signal::Signal::SIGKILL);
    let before = device.read().len();
    let again = async || {
        let since = pings(&device.read()[before..]);
        (!since.is_empty()).then_some(since)
    };
    let since = until(Duration::from_secs(10), again).await;
    let timed = since.is_some_and(|since| since.iter().all(|seconds| ALLOWED.contains(seconds)));
    assert!(timed, "{:?}\n{}", device.read(), cluster.story());
    assert!(!device.read().contains('V'), "a killed guard closes nothing: {:?}", device.read());
    cluster.wait_until_well().await;
}

/// If the watchdog is required and missing, a member reports it, and does not lead even when no other member can.
#[tokio::test]
async fn without_a_required_watchdog_a_member_does_not_lead() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 12 })).prepare().await;
    require(&cluster.members[1]);
    cluster.members[0].start();
    wait_for_leader(&cluster, "m1").await;
    cluster.members[1].start();
    cluster.wait_until_well().await;
    let shown = cluster.members[1].get("/patroni").await.expect("m2 answers").json();
    assert_eq!(shown["watchdog_failed"], true, "{shown}");
    cluster.members[0].kill_all();
    cluster
        .stays(Duration::from_secs(18), "m2 is no primary", async || {
            cluster.members[1].status("/primary").await != 200
        })
        .await;
    let _device = Device::of(&cluster.members[1]);
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
}

/// A primary that loses the watchdog hands leadership over.
#[tokio::test]
async fn a_primary_that_loses_its_watchdog_steps_down() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 12 })).prepare().await;
    require(&cluster.members[0]);
    let device = Device::of(&cluster.members[0]);
    cluster.members[0].start();
    wait_for_leader(&cluster, "m1").await;
    cluster.members[1].start();
    cluster.wait_until_well().await;
    std::fs::remove_file(&device.path).expect("it was there");
    cluster.wait_for_successor(0, Duration::from_secs(40)).await;
    cluster.wait_until_well().await;
}
