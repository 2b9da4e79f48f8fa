//! etcd and the members as processes: started, killed on purpose, and always stopped at the end.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::place::{DemoDirectory, free_ports, secret};
use super::tree::{any_alive, postmaster, send, tree};
use super::yaml::{MemberPlan, SCOPE, SharedSettings, member as member_yaml};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::client::{Client, Target};

/// The limit for etcd's election.
const ETCD_WITHIN: Duration = Duration::from_secs(20);
/// The limit for a member's stop after SIGTERM; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The number of log lines that a failure shows.
const LOG_LINES: usize = 8;

/// One member: its plan and its supervisor's process.
#[derive(Debug)]
pub struct DemoMember {
    /// Name and ports.
    pub plan: MemberPlan,
    config: PathBuf,
    process: Option<Child>,
}

/// The whole demo.
#[derive(Debug)]
pub struct Fleet {
    /// Directory, programs and user.
    pub place: DemoDirectory,
    /// Passwords and etcd's port.
    pub shared: SharedSettings,
    /// The members.
    pub members: Vec<DemoMember>,
    etcd_peer_port: u16,
    etcd: Option<Child>,
}

impl Fleet {
    /// Plans all members and writes their configurations; starts nothing.
    pub fn new(place: DemoDirectory, count: u8) -> Result<Fleet, CliError> {
        let count = usize::from(count);
        let ports = free_ports(2 + 2 * count)?;
        let shared = SharedSettings {
            dir: place.dir.display().to_string(),
            bin_dir: place.bin_dir.display().to_string(),
            etcd_port: ports[0],
            superuser: secret(12)?,
            replication: secret(12)?,
            rewind: secret(12)?,
            rest: secret(12)?,
        };
        let mut members = Vec::new();
        for (index, pair) in ports[2..].chunks_exact(2).enumerate() {
            let plan = MemberPlan { name: format!("m{}", index + 1), port: pair[0], rest_port: pair[1] };
            let config = place.write(&format!("{}.yml", plan.name), &member_yaml(&shared, &plan))?;
            members.push(DemoMember { plan, config, process: None });
        }
        Ok(Fleet { place, shared, members, etcd_peer_port: ports[1], etcd: None })
    }

    /// Starts etcd, waits for it, and starts the members.
    pub async fn start(&mut self) -> Result<(), CliError> {
        self.etcd = Some(self.spawn(self.etcd_command(), "etcd.log")?);
        let client = self.client().await?;
        let by = Instant::now() + ETCD_WITHIN;
        while let Err(error) = client.view().await {
            self.check()?;
            if Instant::now() > by {
                return Err(CliError::from(error).hint(self.log_of("etcd")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        for index in 0..self.members.len() {
            self.start_member(index)?;
        }
        Ok(())
    }

    fn etcd_command(&self) -> Command {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (clients, peers) = (url(self.shared.etcd_port), url(self.etcd_peer_port));
        let mut command = Command::new(&self.place.etcd);
        // etcd refuses some architectures unless a variable names them.
        command.env("ETCD_UNSUPPORTED_ARCH", if cfg!(target_arch = "aarch64") { "arm64" } else { "" });
        command.args(["--name", "demo", "--data-dir", &format!("{}/etcd", self.shared.dir)]);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("demo={peers}")]);
        command
    }

    /// Starts the supervisor of a member.
    pub fn start_member(&mut self, index: usize) -> Result<(), CliError> {
        let member = &self.members[index];
        let mut command = Command::new(&self.place.program);
        command.arg("run").arg(&member.config);
        let child = self.spawn(command, &format!("{}.log", member.plan.name))?;
        self.members[index].process = Some(child);
        Ok(())
    }

    /// Starts a process in its own group, so that Ctrl-C reaches only the demo, which then stops it in order.
    fn spawn(&self, mut command: Command, log: &str) -> Result<Child, CliError> {
        let log = OpenOptions::new().append(true).create(true).open(self.place.dir.join(log))?;
        command.current_dir(&self.place.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Settings of the user must not reach the members.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PATRONI_") || name.to_string_lossy().starts_with("PG") {
                command.env_remove(&name);
            }
        }
        if let Some((uid, gid)) = self.place.user {
            command.uid(uid).gid(gid).env("HOME", &self.place.dir);
        }
        let program = command.get_program().to_owned();
        command.spawn().map_err(|error| {
            CliError::failed(format!("failed to start {}", Path::new(&program).display())).because(&error)
        })
    }

    /// A client of the demo's cluster.
    pub async fn client(&self) -> Result<Client, CliError> {
        let endpoints = vec![format!("http://127.0.0.1:{}", self.shared.etcd_port)];
        let credentials = Some(("demo".to_owned(), self.shared.rest.clone()));
        Ok(Client::connect(Target::plain(SCOPE, endpoints, credentials)).await?)
    }

    /// Fails when etcd or a member has ended by itself.
    pub fn check(&mut self) -> Result<(), CliError> {
        let ended =
            |child: &mut Option<Child>| child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        let mut gone = ended(&mut self.etcd).map(|status| ("etcd".to_owned(), status));
        for member in &mut self.members {
            let member_gone = ended(&mut member.process).map(|status| (member.plan.name.clone(), status));
            gone = gone.or(member_gone);
        }
        match gone {
            None => Ok(()),
            Some((name, status)) => {
                let hint = self.log_of(&name);
                Err(CliError::failed(format!("{name} ended by itself: {status}"))
                    .hint(hint)
                    .exit(Exit::Failed))
            }
        }
    }

    fn log_of(&self, name: &str) -> String {
        let path = self.place.dir.join(format!("{name}.log"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("the end of {}:\n  {}", path.display(), last.join("\n  "))
    }

    /// The data directory of a member.
    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.place.dir.join(&self.members[index].plan.name)
    }

    /// The member called `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.plan.name == name)
    }

    /// Kills only the postmaster of a member.
    pub fn kill_postmaster(&self, index: usize) -> Result<(), CliError> {
        let pid = postmaster(&self.data_dir(index))
            .ok_or_else(|| CliError::failed("the primary has no postmaster that could be killed"))?;
        send(&[pid], Signal::SIGKILL);
        Ok(())
    }

    /// Kills all processes of a member at once, its supervisor first, and waits until none is left.
    pub async fn kill_all(&mut self, index: usize) {
        let pids = self.processes(index);
        send(&pids, Signal::SIGKILL);
        if let Some(mut child) = self.members[index].process.take() {
            let _ = child.wait();
        }
        while any_alive(&pids) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn processes(&self, index: usize) -> Vec<i32> {
        let supervisor = self.members[index].process.as_ref().map(|child| child.id() as i32);
        let mut pids: Vec<i32> = supervisor.into_iter().flat_map(tree).collect();
        // A Postgres that a restarted supervisor adopted is elsewhere in the process tree.
        pids.extend(postmaster(&self.data_dir(index)).into_iter().flat_map(tree));
        pids.dedup();
        pids
    }

    /// Stops the replicas, then the primary (which then has no member to hand over to), then etcd; kills processes that
    /// do not stop.
    pub async fn stop(&mut self) {
        let all: Vec<i32> = (0..self.members.len()).flat_map(|index| self.processes(index)).collect();
        let leader = self.leader().await;
        let supervisors = |leads: bool| -> Vec<i32> {
            let wanted =
                self.members.iter().filter(|member| (leader.as_ref() == Some(&member.plan.name)) == leads);
            wanted.filter_map(|member| Some(member.process.as_ref()?.id() as i32)).collect()
        };
        for wave in [supervisors(false), supervisors(true)] {
            send(&wave, Signal::SIGTERM);
            let by = Instant::now() + STOP_WITHIN;
            while any_alive(&wave) && Instant::now() < by {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        let left: Vec<i32> = all.into_iter().filter(|pid| any_alive(&[*pid])).collect();
        send(&left, Signal::SIGKILL);
        for member in &mut self.members {
            if let Some(mut child) = member.process.take() {
                let _ = child.wait();
            }
        }
        if let Some(mut etcd) = self.etcd.take() {
            let _ = etcd.kill();
            let _ = etcd.wait();
        }
    }

    async fn leader(&self) -> Option<String> {
        let view = self.client().await.ok()?.view().await.ok()?;
        Some(view.leader?.name.to_string())
    }

    /// How to connect, and commands to try.
    pub fn hints(&self) -> String {
        let hosts = vec!["127.0.0.1"; self.members.len()].join(",");
        let ports =
            self.members.iter().map(|member| member.plan.port.to_string()).collect::<Vec<_>>().join(",");
        let page = |member: &DemoMember| format!("  http://127.0.0.1:{}/ui\n", member.plan.rest_port);
        let pages: String = self.members.iter().map(page).collect();
        let first = &self.members[0];
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("matriarch"));
        format!(
            "Open in a browser, of any member; to change something, log in as demo, password {rest}:\n\
             {pages}\
             Connect to the primary, wherever it is:\n\
             \x20 PGPASSWORD={password} psql 'host={hosts} port={ports} user=postgres dbname=postgres \
             target_session_attrs=read-write'\n\
             Try, in another terminal:\n\
             \x20 export MATRIARCH_CONFIG_FILE={config}\n\
             \x20 {program} topology\n\
             \x20 {program} switchover\n\
             \x20 {program} edit-config -p work_mem=8MB\n\
             \x20 kill -9 $(head -1 {data}/postmaster.pid)      # PostgreSQL of {name}\n\
             \x20 tail -f {dir}/*.log\n\
             Ctrl-C ends the demo and removes everything.\n",
            rest = self.shared.rest,
            password = self.shared.superuser,
            config = first.config.display(),
            program = program.display(),
            data = self.data_dir(0).display(),
            name = first.plan.name,
            dir = self.shared.dir,
        )
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // After `stop` no process is left; after a panic this removes the processes.
        for index in 0..self.members.len() {
            if self.members[index].process.is_some() {
                send(&self.processes(index), Signal::SIGKILL);
            }
        }
        if let Some(etcd) = &mut self.etcd {
            let _ = etcd.kill();
        }
    }
}
