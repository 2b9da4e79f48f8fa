//! A container as a kubelet would create it: PID, mount and UTS namespaces, started as root, with the mounts of a pod,
//! and without a configuration file. The network is the machine's.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Etcd, PASSWORD, Place, binary_in, connect, free_port, request, settings, until};

/// Creates a separate root, because the directory for a mount cannot be created in the machine's.
const OUTER: &str = r#"
set -e
root=$1; shift
mount -t tmpfs none "$root"
mount --make-unbindable "$root"
for entry in /*; do
    if [ -h "$entry" ]; then cp -P "$entry" "$root$entry"
    elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"
    fi
done
mkdir -p "$root/docker-entrypoint-initdb.d"
exec chroot "$root" "$@"
"#;

/// The steps of the kubelet, then the entrypoint.
const INNER: &str = r#"
set -e
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/run" /var/run/postgresql
mount --bind "$2/scripts" /docker-entrypoint-initdb.d
cd "$2"; binary=$3; shift 3
exec "$binary" run "$@"
"#;

/// One member in a container.
pub(super) struct Container {
    /// The pod's name.
    pub(super) name: String,
    /// The folder for everything that belongs to it.
    pub(super) folder: PathBuf,
    /// Port of its Postgres.
    pub(super) postgres: u16,
    /// Its environment.
    pub(super) variables: BTreeMap<String, String>,
    /// Words after `matriarch run`.
    pub(super) words: Vec<String>,
    api: u16,
    binary: PathBuf,
    outside: Option<Child>,
}

impl Container {
    /// The member `pg-INDEX` of two, not started.
    pub(super) fn prepare(place: &Place, etcd: &Etcd, index: usize) -> Container {
        let name = format!("pg-{index}");
        let folder = place.path().join(&name);
        for below in ["run", "scripts", "secrets", "tmp", "root", "volume"] {
            std::fs::create_dir_all(folder.join(below)).expect("our own place is writable");
        }
        let mode = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(folder.join("tmp"), mode).expect("it is ours");
        // Every name resolves to this machine. The member's own name is on a line of the kubelet's form too.
        let known = "127.0.0.1 localhost\n127.0.0.1 pg-0.pg.test.svc pg-1.pg.test.svc\n";
        let own = format!("{known}192.0.2.{}\t{name}.pg.test.svc\t{name}\n", 10 + index);
        std::fs::write(folder.join("hosts"), own).expect("our own place is writable");
        let (api, postgres) = (free_port(), free_port());
        let mut container = Container {
            variables: BTreeMap::new(),
            words: ["postgres", "-c", "fsync=off", "--shared-buffers=16MB"].map(str::to_owned).to_vec(),
            binary: binary_in(place),
            outside: None,
            name,
            folder,
            api,
            postgres,
        };
        container.secret("password", PASSWORD);
        container.secret("replication", PASSWORD);
        let below = |name: &str| container.folder.join(name).to_string_lossy().into_owned();
        let variables = [
            ("PATH", std::env::var("PATH").expect("it is set")),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", "/root".to_owned()),
            ("TMPDIR", below("tmp")),
            ("PGDATA", below("volume/pgdata")),
            ("POSTGRES_PASSWORD_FILE", below("secrets/password")),
            ("MATRIARCH_REPLICATION_PASSWORD_FILE", below("secrets/replication")),
            ("MATRIARCH_SCOPE", "herd".to_owned()),
            ("MATRIARCH_ETCD3_HOSTS", etcd.hosts().join(",")),
            ("MATRIARCH_RESTAPI_LISTEN", format!("*:{api}")),
            ("MATRIARCH_POSTGRESQL_LISTEN", format!("*:{postgres}")),
            ("MATRIARCH_BOOTSTRAP_DCS", "{ttl: 30, loop_wait: 2, retry_timeout: 3}".to_owned()),
            ("MATRIARCH_BOOTSTRAP_WAIT_FOR_MEMBERS", "0".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        container.variables = BTreeMap::from(variables);
        container
    }

    /// Writes a secret atomically, as the kubelet does.
    pub(super) fn secret(&self, name: &str, value: &str) {
        let (new, path) = (self.folder.join("secrets/.new"), self.folder.join("secrets").join(name));
        std::fs::write(&new, format!("{value}\n")).expect("our own place is writable");
        std::fs::rename(new, path).expect("our own place is writable");
    }

    /// Writes a script for the first start.
    pub(super) fn script(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) {
        let path = self.folder.join("scripts").join(name);
        std::fs::write(&path, text).expect("our own place is writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    /// Its data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("volume/pgdata")
    }

    /// Starts it.
    pub(super) fn start(&mut self) {
        assert!(self.outside.is_none(), "{} runs already", self.name);
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log"));
        let log = log.expect("our own place is writable");
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--mount", "--uts", "sh", "-c", OUTER, "outer"]);
        command.arg(self.folder.join("root")).args(["sh", "-c", INNER, "inner", &self.name]);
        command.arg(&self.folder).arg(&self.binary).args(&self.words);
        command.env_clear().envs(&self.variables).current_dir(&self.folder);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log);
        self.outside = Some(command.spawn().expect("unshare starts"));
    }

    /// The pid of the container's first process, as seen from outside.
    pub(super) fn init(&self) -> Option<i32> {
        let outside = self.outside.as_ref()?.id();
        let children = std::fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn has_ended(&self) -> bool {
        let stat =
            self.outside.as_ref().and_then(|outside| matriarch::os::process::stat(outside.id() as i32));
        stat.is_none_or(|stat| stat.is_zombie())
    }

    /// Sends a signal to its first process.
    pub(super) fn signal(&self, signal: Signal) {
        let init = self.init().unwrap_or_else(|| panic!("{} runs\n{}", self.name, self.log()));
        kill(Pid::from_raw(init), signal).expect("it runs");
    }

    /// Waits for its end and gives its exit code.
    pub(super) async fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let outside = self.outside.as_mut()?;
        let status = until(within, async || outside.try_wait().ok().flatten()).await?;
        self.outside = None;
        status.code()
    }

    /// Kills it with all its processes, as the kernel does when memory runs out.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        assert!(self.exit_code(Duration::from_secs(20)).await.is_some(), "{} is gone", self.name);
    }

    /// The pids of its processes, as seen from outside.
    pub(super) fn processes(&self) -> Vec<i32> {
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(mine) = self.init().and_then(namespace) else { return Vec::new() };
        matriarch::os::process::all().filter(|pid| namespace(*pid).as_ref() == Some(&mine)).collect()
    }

    /// Everything logged so far.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// The status code of a GET; 0: no answer.
    pub(super) async fn status(&self, path: &str) -> u16 {
        let answer = request(self.api, "GET", path, None, None, Duration::from_secs(5)).await;
        answer.map_or(0, |answer| answer.status)
    }

    /// The answer of `/cluster`; `Null`: none.
    pub(super) async fn cluster(&self) -> Value {
        let answer = request(self.api, "GET", "/cluster", None, None, Duration::from_secs(5)).await;
        answer.map_or(Value::Null, |answer| answer.json())
    }

    /// Waits until this path answers 200.
    pub(super) async fn wait_for(&self, path: &str, within: Duration) {
        let well = until(within, async || {
            let answer = self.status(path).await;
            (answer == 200 || self.has_ended()).then_some(answer)
        });
        assert_eq!(well.await, Some(200), "{} and {path} within {within:?}\n{}", self.name, self.log());
    }

    /// The first column of the first row; the error text otherwise.
    pub(super) async fn value(
        &self,
        user: &str,
        password: &str,
        database: &str,
        sql: &str,
    ) -> Result<String, String> {
        let mut config = settings(&[self.postgres]);
        config.user(user).password(password).dbname(database);
        let client = connect(&config).await?;
        let row = client.query_one(sql, &[]).await.map_err(|error| format!("{error:?}"))?;
        Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(init) = self.init() {
            let _ = kill(Pid::from_raw(init), Signal::SIGKILL);
        }
        if let Some(mut outside) = self.outside.take() {
            let _ = outside.wait();
        }
    }
}
