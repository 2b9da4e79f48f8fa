//! A cluster of Patroni is taken over member by member while a client writes, and given back.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Place, Plan, Writer, command_as, python_program, until};

const WITHIN: Duration = Duration::from_secs(90);

/// Patroni, readable for the user of the members.
struct Patroni {
    python: PathBuf,
    packages: PathBuf,
}

impl Patroni {
    fn new(place: &Place) -> Patroni {
        let mut command = Command::new(python_program("python3"));
        let facts = "import patroni, sys; print(patroni.__path__[0], 'python%d.%d' % sys.version_info[:2], \
                     sys.base_prefix, sep='\\n')";
        let output = command.args(["-c", facts]).output().expect("python starts");
        let text = String::from_utf8(output.stdout).expect("paths");
        let [folder, program, prefix] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        // The environment's own program may lie where only this test's user can read.
        let system = Path::new("/usr/bin").join(program);
        let own = Path::new(prefix).join("bin").join(program);
        let python = if system.exists() { system } else { own };
        let installed = Path::new(folder).parent().expect("packages are in a folder").to_owned();
        let packages = place.folder("packages");
        for entry in std::fs::read_dir(installed).expect("it is there").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !["pip", "setuptools", "hadolint", "check_patroni"].iter().any(|other| name.starts_with(other))
            {
                let copied = Command::new("cp").arg("-r").arg(entry.path()).arg(&packages).status();
                assert!(copied.expect("cp starts").success(), "{name}");
            }
        }
        Patroni { python, packages }
    }

    /// Runs a member; its log is beside the one of Matriarch.
    fn run(&self, cluster: &Cluster, index: usize) -> Child {
        let member = &cluster.members[index];
        let log = std::fs::File::options().create(true).append(true).open(member.folder.join("patroni.log"));
        let log = log.expect("our own place is writable");
        command_as(&self.python, &member.folder)
            .args(["-B", "-m", "patroni"])
            .arg(member.config_file())
            .env("PYTHONPATH", &self.packages)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("python starts")
    }
}

/// Ends a Patroni as its service would; its PostgreSQL ends with it.
async fn end(mut patroni: Child) {
    let pid = nix::unistd::Pid::from_raw(patroni.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("it runs");
    let ended = until(WITHIN, async || patroni.try_wait().ok().flatten()).await;
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

async fn switch_over(cluster: &Cluster, from: &str, to: &str) {
    let leader = &cluster.members[cluster.index(from)];
    let answer = leader.post("/switchover", &json!({ "leader": from, "candidate": to })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    let seen = wait_until_well(cluster).await;
    assert_eq!(seen.leader(), Some(to));
}

async fn wait_until_well(cluster: &Cluster) -> crate::support::Seen {
    cluster.wait_for(WITHIN, "all three are well", |seen| seen.is_well(3)).await
}

/// Each member in turn runs Matriarch with the file and the data of Patroni, the primary last, after a switchover; then
/// the way back. No row is lost, and the client is interrupted only by the two switchovers.
#[tokio::test]
async fn a_patroni_cluster_is_taken_over_and_given_back_under_load() {
    let mut cluster =
        Plan::new(3).dynamic(json!({ "ttl": 20, "loop_wait": 1, "retry_timeout": 5 })).prepare().await;
    let patroni = Patroni::new(&cluster.place);
    let first = patroni.run(&cluster, 0);
    cluster.wait_for(WITHIN, "m1 leads", |seen| seen.leader() == Some("m1")).await;
    let others = [patroni.run(&cluster, 1), patroni.run(&cluster, 2)];
    wait_until_well(&cluster).await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, WITHIN).await;

    for (index, patroni) in [1, 2].into_iter().zip(others) {
        end(patroni).await;
        cluster.members[index].start();
        wait_until_well(&cluster).await;
    }
    writer.wait_for_more(20, WITHIN).await;
    assert_eq!(writer.interruptions(), 0, "the primary serves while its standbys are exchanged");
    switch_over(&cluster, "m1", "m2").await;
    writer.wait_for_more(20, WITHIN).await;
    let by_switchover = writer.interruptions();
    end(first).await;
    cluster.members[0].start();
    wait_until_well(&cluster).await;
    writer.wait_for_more(20, WITHIN).await;
    assert_eq!(writer.interruptions(), by_switchover, "the former primary is exchanged as a standby");

    let mut back = Vec::new();
    for index in [0, 2] {
        cluster.members[index].terminate();
        assert_eq!(cluster.members[index].exit_code(WITHIN).await, Some(0));
        back.push(patroni.run(&cluster, index));
        wait_until_well(&cluster).await;
    }
    writer.wait_for_more(20, WITHIN).await;
    assert_eq!(writer.interruptions(), by_switchover);
    switch_over(&cluster, "m2", "m1").await;
    writer.wait_for_more(20, WITHIN).await;
    let by_switchovers = writer.interruptions();
    cluster.members[1].terminate();
    assert_eq!(cluster.members[1].exit_code(WITHIN).await, Some(0));
    back.push(patroni.run(&cluster, 1));
    wait_until_well(&cluster).await;
    writer.wait_for_more(20, WITHIN).await;
    assert_eq!(writer.interruptions(), by_switchovers);
    writer.stop_and_verify(&cluster.members[0]).await;
    for patroni in back {
        end(patroni).await;
    }
}
