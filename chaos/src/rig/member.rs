//! One member: a supervisor, its guard, its PostgreSQL, and what one can do to them.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::cgroup::Cgroup;
use super::config::{self, Identity, Mode, System};
use super::http::{Answer, request};
use super::namespaces::Namespace;
use super::pipe::LogReader;
use super::place::{Housing, Place};
use super::processes::{self, is_alive, signal_all};

/// The size of a member's file system, when it has one of its own.
pub(crate) const DISK_MEGABYTES: u32 = 2000;

/// A member of the cluster under test.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name, which is also its cable's.
    pub(crate) name: String,
    /// Its network.
    pub(crate) namespace: Namespace,
    /// Where its data, its sockets and its configuration are.
    pub(crate) folder: PathBuf,
    /// Whether somebody would start its supervisor again if it ended.
    pub(crate) wanted: bool,
    /// How far its clocks are ahead at its next start, in seconds.
    pub(crate) clock_ahead: i64,
    /// Reads what it logs.
    pub(crate) reader: LogReader,
    /// How often its supervisor has ended without having been told to.
    pub(crate) ended_by_itself: u32,
    cgroup: Option<Cgroup>,
    supervisor: Option<Child>,
}

impl Member {
    /// Prepares a member, without starting it.
    pub(crate) fn prepare(
        system: &System,
        mode: Mode,
        place: &Place,
        etcd: &[String],
        number: usize,
    ) -> Result<Member> {
        let name = format!("m{number}");
        let address = format!("10.77.0.{}", 20 + number);
        let namespace = Namespace::new(&name, &address)?;
        let folder = place.data_folder(&name, DISK_MEGABYTES)?;
        let identity = Identity { name: &name, address: &address, folder: &folder };
        let config = config::member(system, mode, place, etcd, identity);
        place.write(&folder.join("config.yml"), &format!("{config:#}\n"))?;
        let cgroup = Cgroup::new(&place.run(), &name);
        Ok(Member {
            name,
            namespace,
            folder,
            wanted: false,
            clock_ahead: 0,
            reader: LogReader::default(),
            ended_by_itself: 0,
            cgroup,
            supervisor: None,
        })
    }

    /// Its address.
    pub(crate) fn address(&self) -> &str {
        &self.namespace.address
    }

    /// Starts the supervisor.
    pub(crate) fn start(&mut self, system: &System, place: &Place) -> Result<()> {
        if self.supervisor().is_some() {
            bail!("{} runs already", self.name);
        }
        let (program, arguments) = system.program(place)?;
        let housing = Housing {
            cgroup: self.cgroup.as_ref(),
            folder: &self.folder,
            log: &self.name,
            clock_ahead: self.clock_ahead,
        };
        let mut command = place.command(housing, &program)?;
        command.args(arguments).arg(self.folder.join("config.yml"));
        let output = self.reader.pipe_into(place.open_log(&self.name)?)?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = self.namespace.enter(|| command.spawn().context("start a supervisor"))?;
        self.supervisor = Some(child);
        self.wanted = true;
        Ok(())
    }

    /// The supervisor's process, if it runs.
    pub(crate) fn supervisor(&mut self) -> Option<i32> {
        let child = self.supervisor.as_mut()?;
        match child.try_wait() {
            Ok(None) => Some(child.id() as i32),
            Ok(Some(_)) | Err(_) => {
                self.supervisor = None;
                None
            }
        }
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let all = match &self.cgroup {
            Some(cgroup) => cgroup.processes(),
            None => processes::living_in(&self.folder),
        };
        all.into_iter().filter(|pid| is_alive(*pid)).collect()
    }

    /// Its guards: helper processes of our own program.
    pub(crate) fn guards(&self) -> Vec<i32> {
        let guard = |pid: &i32| processes::words(*pid).get(1).is_some_and(|word| word == "guard");
        self.processes().into_iter().filter(guard).collect()
    }

    /// Every process of its PostgreSQL.
    pub(crate) fn postgres(&self) -> Vec<i32> {
        let postgres = |pid: &i32| processes::program(*pid).as_deref() == Some("postgres");
        self.processes().into_iter().filter(postgres).collect()
    }

    /// The postmaster, if one runs.
    pub(crate) fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        self.postgres().contains(&pid).then_some(pid)
    }

    /// Children of the postmaster whose title begins so, such as `postgres: herd: app`.
    pub(crate) fn children(&self, title: &str) -> Vec<i32> {
        let Some(postmaster) = self.postmaster() else { return Vec::new() };
        let ours = |pid: &i32| {
            let words = processes::words(*pid).join(" ");
            processes::parent(*pid) == Some(postmaster) && words.contains(title)
        };
        self.postgres().into_iter().filter(ours).collect()
    }

    /// Kills every process at once, as the death of its machine would.
    pub(crate) fn kill_all(&mut self) {
        self.wanted = false;
        if !self.cgroup.as_ref().is_some_and(Cgroup::kill) {
            // Nobody must get the time to notice.
            signal_all(&self.processes(), Signal::SIGSTOP);
            signal_all(&self.processes(), Signal::SIGKILL);
        }
        if let Some(mut child) = self.supervisor.take() {
            // It is dead, or about to be.
            let _ = child.wait();
        }
    }

    /// Kills the supervisor alone, and keeps it dead.
    pub(crate) fn kill_supervisor(&mut self) -> Result<()> {
        self.wanted = false;
        let mut child = self.supervisor.take().context("there is a supervisor")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Whether all of it can be frozen as one.
    pub(crate) fn has_cgroup(&self) -> bool {
        self.cgroup.is_some()
    }

    /// Freezes or thaws the whole member: by its cgroup, else process by process.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        match &self.cgroup {
            Some(cgroup) => cgroup.freeze(frozen)?,
            None => {
                let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
                signal_all(&self.processes(), signal);
            }
        }
        Ok(())
    }

    /// Whether every process has stopped.
    pub(crate) fn is_frozen(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => cgroup.is_frozen(),
            None => self.processes().iter().all(|pid| processes::is_stopped(*pid)),
        }
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str, within: Duration) -> Option<Answer> {
        request(&self.api(), "GET", path, None, within).await
    }

    /// POST or PATCH.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let answer = request(&self.api(), method, path, Some(body), Duration::from_secs(90)).await;
        answer.with_context(|| format!("{} does not answer {method} {path}", self.name))
    }

    fn api(&self) -> String {
        format!("{}:8008", self.address())
    }

    /// Starts the supervisor again if it ended by itself, as an init system would.
    pub(crate) fn revive(&mut self, system: &System, place: &Place) -> Result<()> {
        if self.wanted && self.supervisor().is_none() {
            self.ended_by_itself += 1;
            self.start(system, place)?;
        }
        Ok(())
    }

    /// Undoes whatever keeps it from running: for healing and for the end.
    pub(crate) fn release(&self) {
        // Each may have nothing to undo.
        let _ = self.freeze(false);
        let _ = self.namespace.unfilter();
        let _ = self.namespace.link(true);
        self.reader.stop(false);
        signal_all(&self.processes(), Signal::SIGCONT);
    }
}
