//! A log that no process reads, and a service manager that receives notifications.

use std::collections::VecDeque;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::support::{Member, Plan, give, merge, until};

/// A pipe that is full, and a reader that has stopped reading. The second file keeps it open.
fn full_pipe(path: &Path) -> (File, File) {
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).expect("our own place is writable");
    give(path);
    let reader = File::options().read(true).write(true).open(path).expect("it was made");
    let mut filler =
        File::options().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).expect("it was made");
    for length in [4096, 1] {
        let line = vec![b'x'; length];
        let ended = std::iter::repeat_with(|| filler.write(&line)).find_map(Result::err);
        assert_eq!(ended.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    }
    let writer = File::options().write(true).open(path).expect("it was made");
    (reader, writer)
}

async fn becomes_primary(member: &Member, within: Duration) -> bool {
    let primary = async || (member.status("/primary").await == 200).then_some(());
    until(within, primary).await.is_some()
}

/// The log of a supervisor goes to a full pipe that is not read. The supervisor starts a cluster, restarts a killed
/// postmaster, replaces a killed guard, and exits on request.
#[tokio::test]
async fn an_unread_log_does_not_block_the_member() {
    let mut cluster = Plan::new(1).prepare().await;
    let member = &mut cluster.members[0];
    let (_reader, writer) = full_pipe(&member.folder.join("log.fifo"));
    member.output = Some(writer);
    member.start();
    assert!(becomes_primary(member, Duration::from_secs(60)).await, "it starts");
    let (postmaster, guard) = (member.postmaster(), member.guard());
    member.signal_guard(Signal::SIGKILL);
    member.kill_postmaster();
    let back = until(Duration::from_secs(30), async || {
        let anew = member.postmaster().filter(|pid| Some(*pid) != postmaster);
        (anew.is_some() && member.status("/primary").await == 200).then_some(())
    });
    assert!(back.await.is_some(), "the postmaster is started again and becomes primary");
    let guarded = until(Duration::from_secs(10), async || member.guard().filter(|pid| Some(*pid) != guard));
    assert!(guarded.await.is_some(), "another guard was started");
    member.sql("CREATE TABLE taken ()").await.expect("it takes writes");
    member.terminate();
    assert_eq!(member.exit_code(Duration::from_secs(30)).await, Some(0));
    assert_eq!(member.postmaster(), None);
}

/// The log file has the form, the size and the permissions that the configuration asks for.
#[tokio::test]
async fn the_log_file_is_as_configured() {
    let mut cluster = Plan::new(2).prepare().await;
    let format = "%(asctime)s|%(levelname)-8s|%(message)s";
    let plain = json!({ "format": format, "dateformat": "%Y", "file_size": 600, "mode": "0640" });
    let fields = json!(["message", { "levelname": "level" }]);
    let json = json!({ "type": "json", "format": fields, "static_fields": { "app": "billing" } });
    for (member, log) in cluster.members.iter().zip([plain, json]) {
        let mut config = member.read_config();
        merge(&mut config, &json!({ "log": { "dir": member.folder } }));
        merge(&mut config, &json!({ "log": log }));
        member.write_config(&config);
    }
    cluster.start().await;
    let text = |path: &Path| std::fs::read_to_string(path).expect("it is written");
    let older = cluster.members[0].folder.join("matriarch.log.1");
    let lines = text(&older);
    let year = jiff::Zoned::now().year().to_string();
    assert!(
        lines.len() < 1200 && lines.lines().any(|line| line.starts_with(&format!("{year}|INFO    |"))),
        "{lines}"
    );
    let mode = std::fs::metadata(&older).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let lines = text(&cluster.members[1].folder.join("matriarch.log"));
    let lines: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let is_whole =
        |line: &Value| line["app"] == "billing" && line["message"].is_string() && line["asctime"].is_null();
    assert!(lines.iter().all(is_whole) && lines.iter().any(|line| line["level"] == "INFO"), "{lines:#?}");
}

/// A reload changes the level, and names once what it does not change. Lines of JSON have Patroni's fields.
#[tokio::test]
async fn a_reload_changes_the_level() {
    let mut cluster = Plan::new(1).prepare().await;
    let member = &cluster.members[0];
    let mut config = member.read_config();
    let log = json!({ "dir": member.folder, "type": "json", "level": "WARNING" });
    merge(&mut config, &json!({ "log": log, "watchdog": { "mode": "off" } }));
    member.write_config(&config);
    cluster.start().await;
    let member = &cluster.members[0];
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(member.folder.join("matriarch.log")).expect("it is written");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    assert!(lines().iter().all(|line| line["levelname"] != "INFO"), "{:#?}", lines());
    let late = |lines: &[Value]| -> Vec<Value> {
        lines
            .iter()
            .filter(|line| line["message"].to_string().contains("take effect at the next start"))
            .cloned()
            .collect()
    };
    for (mode, said) in
        [("off", "the log has another level"), ("automatic", "the local configuration was reloaded")]
    {
        merge(&mut config, &json!({ "log": { "level": "INFO" }, "watchdog": { "mode": mode } }));
        member.write_config(&config);
        assert!(late(&lines()).is_empty(), "{:#?}", lines());
        assert_eq!(member.post("/reload", &json!({})).await.status, 202);
        let logged = async || {
            let is_it = |line: &Value| {
                line["levelname"] == "INFO" && line["asctime"].is_string() && line["message"] == said
            };
            lines().iter().any(is_it).then_some(())
        };
        assert!(until(Duration::from_secs(20), logged).await.is_some(), "{:#?}", lines());
    }
    let named = async || late(&lines()).first().map(|line| line["keys"].clone());
    assert_eq!(until(Duration::from_secs(20), named).await, Some(json!("watchdog")));
}

/// A supervisor that cannot start writes the reason to a pipe that is not read, and exits all the same.
#[tokio::test]
async fn an_unread_exit_message_does_not_delay_the_exit() {
    let mut cluster = Plan::new(1).prepare().await;
    let member = &mut cluster.members[0];
    let (_reader, writer) = full_pipe(&member.folder.join("log.fifo"));
    member.output = Some(writer);
    member.write_config(&json!({ "name": "m1" }));
    member.start();
    assert_eq!(member.exit_code(Duration::from_secs(20)).await, Some(3));
}

/// The service manager is notified when the member is ready, reloads and stops, and of each watchdog ping; PostgreSQL
/// does not notify it.
#[tokio::test]
async fn systemd_is_notified() {
    let mut cluster = Plan::new(1).prepare().await;
    let member = &mut cluster.members[0];
    let path = member.folder.join("notify");
    let service = UnixDatagram::bind(&path).expect("our own place is writable");
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("it was made");
    service.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket of ours");
    // The socket is read continuously, as by a service manager, because it holds only ten messages.
    let messages = Arc::new(Mutex::new(VecDeque::new()));
    let kept = Arc::clone(&messages);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while Arc::strong_count(&kept) > 1 {
            if let Ok(length) = service.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                kept.lock().expect("nobody panics").push_back(text);
            }
        }
    });
    member.environment.push(("NOTIFY_SOCKET".to_owned(), path.into_os_string()));
    member.environment.push(("WATCHDOG_USEC".to_owned(), "400000".into()));
    member.start();
    let hears = async |what: &str| {
        let said = async || {
            let mut messages = messages.lock().expect("nobody panics");
            std::iter::from_fn(|| messages.pop_front()).any(|text: String| text.contains(what)).then_some(())
        };
        assert!(until(Duration::from_secs(60), said).await.is_some(), "it says {what}");
    };
    hears("READY=1").await;
    hears("WATCHDOG=1").await;
    hears("STATUS=").await;
    assert!(becomes_primary(member, Duration::from_secs(60)).await);
    let postmaster = member.postmaster().expect("it runs");
    let environment = std::fs::read(format!("/proc/{postmaster}/environ")).expect("root may read it");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    // A lock file of this supervisor's own process is stale for PostgreSQL.
    assert!(environment.contains("PG_GRANDPARENT_PID="), "{environment}");
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG_"), "{environment}");
    member.signal_supervisor(Signal::SIGHUP);
    hears("RELOADING=1\nMONOTONIC_USEC=").await;
    hears("READY=1").await;
    member.terminate();
    hears("STOPPING=1").await;
    assert_eq!(member.exit_code(Duration::from_secs(30)).await, Some(0));
    drop(messages);
    reader.join().expect("it ends");
}
