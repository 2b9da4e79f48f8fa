//! One member: a supervisor started from a configuration file, and its Postgres.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::patroni::patroni;
use super::sql::{self, PASSWORD};
use super::{Answer, Place, command_as, free_port, postgres_bin, processes, request, until, user};

/// The limit of a REST answer; a restart or a switchover answers when it is done.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A member of a cluster under test.
pub(crate) struct Member {
    /// `name` in its configuration.
    pub(crate) name: String,
    /// The folder of all its files; all its processes work there or below.
    pub(crate) folder: PathBuf,
    /// Port of its REST API.
    pub(crate) api: u16,
    /// Port of its Postgres.
    pub(crate) postgres: u16,
    binary: PathBuf,
    supervisor: Option<Child>,
    credentials: Option<(String, String)>,
    /// Texts that an ERROR line may contain.
    pub(crate) expected_errors: Vec<String>,
    /// The supervisor's environment, in addition to the test's.
    pub(crate) environment: Vec<(String, OsString)>,
    /// The target of its log, instead of the file.
    pub(crate) output: Option<File>,
}

impl Member {
    /// Prepares a member, without starting it: its folder and configuration. `overrides` is merged in last.
    pub(crate) fn prepare(place: &Place, name: &str, settings: &Value, overrides: &Value) -> Member {
        let folder = place.folder(name);
        let mut member = Member {
            name: name.to_owned(),
            binary: binary_in(place),
            api: free_port(),
            postgres: free_port(),
            folder,
            supervisor: None,
            credentials: None,
            expected_errors: Vec::new(),
            environment: Vec::new(),
            output: None,
        };
        let mut config = member.config(&place.folder("s"));
        merge(&mut config, settings);
        merge(&mut config, overrides);
        let field = |field| {
            config
                .pointer(&format!("/restapi/authentication/{field}"))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        member.credentials = field("username").zip(field("password"));
        member.write_config(&config);
        member
    }

    /// The configuration before the overrides. Written as JSON, which is YAML too.
    fn config(&self, sockets: &Path) -> Value {
        let account = |user: &str| json!({ "username": user, "password": PASSWORD });
        json!({
            "name": self.name,
            "restapi": {
                "listen": format!("127.0.0.1:{}", self.api),
                "connect_address": format!("127.0.0.1:{}", self.api),
            },
            "postgresql": {
                "listen": format!("127.0.0.1:{}", self.postgres),
                "connect_address": format!("127.0.0.1:{}", self.postgres),
                "data_dir": self.data(),
                "bin_dir": postgres_bin(),
                "pgpass": self.folder.join("pgpass"),
                "authentication": {
                    "superuser": account("postgres"),
                    "replication": account("replicator"),
                    "rewind": account("rewinder"),
                },
                "parameters": {
                    "unix_socket_directories": sockets,
                    "shared_buffers": "16MB",
                    "fsync": "off",
                    "log_min_messages": "warning",
                },
                "pg_hba": [
                    "local all all scram-sha-256",
                    "host replication replicator 127.0.0.1/32 scram-sha-256",
                    "host all all 127.0.0.1/32 scram-sha-256",
                ],
            },
        })
    }

    /// The path of its configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.join("config.yml")
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its log: the supervisor's, and the output of Postgres.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Its configuration as it is now.
    pub(crate) fn read_config(&self) -> Value {
        let text = std::fs::read_to_string(self.config_file()).expect("it was written");
        serde_json::from_str(&text).expect("it was written as JSON")
    }

    /// Replaces its configuration; it takes effect at the next start or reload.
    pub(crate) fn write_config(&self, config: &Value) {
        std::fs::write(self.config_file(), format!("{config:#}\n")).expect("our own place is writable");
        user::give(&self.config_file());
    }

    /// The creation time of its data directory's first file: a clone makes a new one, a rewind does not.
    pub(crate) fn created_at(&self) -> Option<std::time::SystemTime> {
        std::fs::metadata(self.data().join("PG_VERSION")).and_then(|metadata| metadata.created()).ok()
    }

    /// Everything logged so far.
    pub(crate) fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// Starts the supervisor.
    pub(crate) fn start(&mut self) {
        let mut command = command_as(&self.binary, &self.folder);
        command.arg("run").arg(self.config_file());
        self.start_by(command);
    }

    /// Starts Patroni in its place, with the same file.
    pub(crate) fn start_patroni(&mut self) {
        self.start_by(patroni(&self.folder, &self.config_file()));
    }

    fn start_by(&mut self, mut command: std::process::Command) {
        assert!(!self.supervisor_lives(), "{} runs already", self.name);
        let log = match &self.output {
            Some(output) => output.try_clone().expect("a file handle can be copied"),
            None => {
                let log = File::options().create(true).append(true).open(self.log());
                log.expect("our own place is writable")
            }
        };
        let child = command
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn();
        self.supervisor = Some(child.expect("the binary starts"));
    }

    /// Whether the supervisor runs.
    pub(crate) fn supervisor_lives(&mut self) -> bool {
        self.supervisor.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for the supervisor to exit on its own and returns its exit code; 128 + n for a signal.
    pub(crate) async fn exit_code(&mut self, within: Duration) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let child = self.supervisor.as_mut()?;
        let status = until(within, async || child.try_wait().ok().flatten()).await?;
        self.supervisor = None;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal))
    }

    /// Kills only the supervisor (SIGKILL). Its Postgres continues.
    pub(crate) fn kill_supervisor(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills every process of this member at once, like the death of its machine.
    pub(crate) fn kill_all(&mut self) {
        // The guard and Postgres must not have the time to notice.
        self.signal_supervisor(Signal::SIGSTOP);
        processes::kill_all_in(&self.folder);
        self.kill_supervisor();
    }

    /// SIGTERM: a clean stop.
    pub(crate) fn terminate(&self) {
        self.signal_supervisor(Signal::SIGTERM);
    }

    /// Sends any signal to the supervisor.
    pub(crate) fn signal_supervisor(&self, signal: Signal) {
        if let Some(child) = &self.supervisor {
            processes::signal(child.id(), signal);
        }
    }

    /// The postmaster's process id, when one runs.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        let ours = processes::living_in(&self.data()).iter().any(|found| found.as_raw() as u32 == pid);
        (ours && processes::is_alive(pid)).then_some(pid)
    }

    /// The guard's process id, when one lives.
    pub(crate) fn guard(&self) -> Option<u32> {
        self.named("matriarch-guard").first().copied()
    }

    /// The processes that hold the guard's dead-man timer.
    pub(crate) fn timer_processes(&self) -> Vec<u32> {
        self.named("matriarch-timer")
    }

    fn named(&self, wanted: &str) -> Vec<u32> {
        let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let living = processes::living_in(&self.folder).into_iter().map(|pid| pid.as_raw() as u32);
        living.filter(|pid| processes::is_alive(*pid) && name(*pid).trim() == wanted).collect()
    }

    /// Sends a signal to one of its processes.
    pub(crate) fn signal_process(&self, pid: u32, signal: Signal) {
        assert!(self.has_process(pid), "{pid} is not of {}", self.name);
        processes::signal(pid, signal);
    }

    /// Sends a signal to every process of this member.
    pub(crate) fn signal_all(&self, signal: Signal) {
        for pid in processes::living_in(&self.folder) {
            processes::signal(pid.as_raw() as u32, signal);
        }
    }

    /// Sends a signal to the guard and returns its process id.
    pub(crate) fn signal_guard(&self, signal: Signal) -> u32 {
        let pid = self.guard().unwrap_or_else(|| panic!("{} has a guard", self.name));
        processes::signal(pid, signal);
        pid
    }

    /// Whether this process of the member lives.
    pub(crate) fn has_process(&self, pid: u32) -> bool {
        let ours = processes::living_in(&self.folder).iter().any(|found| found.as_raw() as u32 == pid);
        ours && processes::is_alive(pid)
    }

    /// How many processes its Postgres has.
    pub(crate) fn postgres_processes(&self) -> usize {
        let living = processes::living_in(&self.data());
        living.iter().filter(|pid| processes::is_alive(pid.as_raw() as u32)).count()
    }

    /// Kills the postmaster (SIGKILL). Its backends notice on their own.
    pub(crate) fn kill_postmaster(&self) {
        let pid = self.postmaster().unwrap_or_else(|| panic!("{} has a postmaster", self.name));
        processes::signal(pid, Signal::SIGKILL);
    }

    /// The process of this Postgres with this end of its title: `checkpointer`, `walwriter`.
    pub(crate) fn process(&self, title: &str) -> u32 {
        let found = processes::titled(&self.data(), |text| text.ends_with(&format!(": {title}")));
        found.unwrap_or_else(|| panic!("{} has a {title}", self.name))
    }

    /// Stops this standby's Postgres without ending it (SIGSTOP), so that it receives nothing more. Data that the
    /// kernel has already received for it is dropped too: its WAL receiver ends as soon as it continues.
    pub(crate) async fn cut_off(&self) {
        let receiver = self.value("SELECT pid FROM pg_stat_wal_receiver").await;
        let receiver = receiver.parse().unwrap_or_else(|_| panic!("{} receives", self.name));
        self.signal_postgres(Signal::SIGSTOP);
        processes::signal(receiver, Signal::SIGTERM);
    }

    /// Lets a Postgres that was cut off continue.
    pub(crate) fn go_on(&self) {
        self.signal_postgres(Signal::SIGCONT);
    }

    /// Sends a signal to every process of its Postgres.
    pub(crate) fn signal_postgres(&self, signal: Signal) {
        for pid in processes::living_in(&self.data()) {
            processes::signal(pid.as_raw() as u32, signal);
        }
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Option<Answer> {
        request(self.api, "GET", path, None, None, Duration::from_secs(5)).await
    }

    /// The status code of a GET; 0: no answer.
    pub(crate) async fn status(&self, path: &str) -> u16 {
        self.get(path).await.map_or(0, |answer| answer.status)
    }

    /// Any writing request, with the configured credentials.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let credentials =
            self.credentials.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        let answer = request(self.api, method, path, credentials, body, ANSWER_WITHIN).await;
        answer.unwrap_or_else(|| panic!("{} does not answer {method} {path}", self.name))
    }

    /// POST.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }

    /// SQL as superuser.
    pub(crate) async fn sql(&self, text: &str) -> Result<Vec<Vec<String>>, String> {
        sql::query(self.postgres, text).await
    }

    /// The first column of the first row; empty when there is none or no answer.
    pub(crate) async fn value(&self, text: &str) -> String {
        let rows = self.sql(text).await.unwrap_or_default();
        rows.first().and_then(|row| row.first().cloned()).unwrap_or_default()
    }

    /// The binary's own command line with this member's configuration: `matriarch WORD… -c FILE`.
    pub(crate) async fn command(&self, words: &[&str]) -> std::process::Output {
        let mut command = command_as(&self.binary, &self.folder);
        command.args(words).arg("-c").arg(self.config_file()).stdin(Stdio::null());
        let done = tokio::task::spawn_blocking(move || command.output()).await;
        done.expect("the command is waited for").expect("the binary starts")
    }

    /// The binary with exactly these words.
    pub(crate) async fn binary(&self, words: &[&str]) -> std::process::Output {
        let mut command = command_as(&self.binary, &self.folder);
        command.args(words).stdin(Stdio::null());
        let done = tokio::task::spawn_blocking(move || command.output()).await;
        done.expect("the command is waited for").expect("the binary starts")
    }
}

/// The binary at a path that the unprivileged user can read: the one under test, or `MATRIARCH_TEST_BINARY`.
pub(crate) fn binary_in(place: &Place) -> PathBuf {
    let copy = place.folder("bin").join("matriarch");
    if !copy.exists() {
        let built = std::env::var_os("MATRIARCH_TEST_BINARY");
        let built = PathBuf::from(built.unwrap_or_else(|| env!("CARGO_BIN_EXE_matriarch").into()));
        link(&built, &copy).expect("our own place is writable");
        // Without it the member guards itself.
        let _ = link(&built.with_file_name("matriarch-guard"), &copy.with_file_name("matriarch-guard"));
    }
    copy
}

fn link(built: &Path, copy: &Path) -> std::io::Result<()> {
    std::fs::hard_link(built, copy).or_else(|_| std::fs::copy(built, copy).map(drop))
}

/// Puts `over` onto `base`: objects are merged, `null` removes, anything else replaces.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(key);
                } else {
                    merge(base.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[test]
fn overrides_are_merged() {
    let mut config = json!({ "a": { "b": 1, "c": 2 }, "d": [1] });
    merge(&mut config, &json!({ "a": { "b": 3, "c": null }, "d": [2], "e": { "f": 1 } }));
    assert_eq!(config, json!({ "a": { "b": 3 }, "d": [2], "e": { "f": 1 } }));
}
