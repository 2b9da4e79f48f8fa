//! `kubectl matriarch`: the pod that is chosen, what reaches the command in it, and what an operator reads if it fails.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::support::kubernetes::Kubernetes;
use crate::support::{Place, tool};

/// What runs in the pods in place of the program.
const PROGRAM: &str = "#!/bin/sh
case $1 in
    list) echo \"$POD runs $*\" ;;
    history) head -c 300000 /dev/zero ;;
    *) echo \"$POD runs $*\"; cat; echo complaint >&2; exit 7 ;;
esac
";

type Rights = &'static [(&'static str, &'static str, &'static [&'static str])];
/// What the guide names as the operator's rights.
const RIGHTS: Rights = &[("", "pods", &["list"]), ("", "pods/exec", &["create", "get"])];

/// Two pods of the cluster `pg`, of which pg-1 is the primary, and the kubeconfig of an operator with the rights.
struct Shop {
    kubernetes: Kubernetes,
    place: Place,
    kubeconfig: PathBuf,
}

impl Shop {
    async fn new() -> Shop {
        let (kubernetes, place) = (Kubernetes::double().await, Place::new());
        let kubeconfig = kubernetes.kubeconfig(place.path(), "operator");
        let shop = Shop { kubernetes, place, kubeconfig };
        shop.run_pod("pg-0", "pg", "replica").await;
        shop.run_pod("pg-1", "pg", "primary").await;
        shop.kubernetes.faulty().grant("operator", RIGHTS);
        let (programs, plugins) = (shop.place.folder("programs"), shop.place.folder("plugins"));
        let program = programs.join("matriarch");
        std::fs::write(&program, PROGRAM).expect("our own place is writable");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
        shop.kubernetes.faulty().set_programs(&programs);
        symlink(env!("CARGO_BIN_EXE_matriarch"), plugins.join("kubectl-matriarch")).expect("it is new");
        shop
    }

    async fn run_pod(&self, name: &str, cluster: &str, role: &str) {
        let labels = json!({ "app.kubernetes.io/name": "matriarch", "cluster-name": cluster, "role": role });
        self.kubernetes.create_pod(name, labels).await;
        let status = json!({ "status": { "phase": "Running" } });
        let (code, answer) =
            self.kubernetes.patch("strategic-merge-patch", &format!("pods/{name}/status"), &status).await;
        assert_eq!(code, 200, "{answer}");
    }

    fn plugin(&self) -> Command {
        let mut command = Command::new(self.place.folder("plugins").join("kubectl-matriarch"));
        command.args(["-n", &self.kubernetes.namespace]).arg("--kubeconfig").arg(&self.kubeconfig);
        command.stdin(Stdio::null());
        command
    }

    /// The exit code and the messages of the plug-in.
    fn fails(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.plugin().args(words).output().expect("it starts");
        (output.status.code(), text(&output.stderr))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn with_input(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("is piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[tokio::test]
async fn a_command_runs_in_the_leaders_pod() {
    let shop = Shop::new().await;
    let mut command = shop.plugin();
    command.args(["switchover", "pg", "--candidate", "pg-0"]);
    let output = with_input(command, "an answer\n");
    let expected = "pg-1 runs switchover pg --candidate pg-0\nan answer\n";
    assert_eq!((text(&output.stdout), text(&output.stderr)), (expected.to_owned(), "complaint\n".to_owned()));
    assert_eq!(output.status.code(), Some(7));
    let output = shop.plugin().arg("history").output().expect("it starts");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 300_000), "{}", text(&output.stderr));
    let output = shop.plugin().args(["list", "--pod", "pg-0"]).output().expect("it starts");
    assert_eq!(text(&output.stdout), "pg-0 runs list\n", "{}", text(&output.stderr));
}

/// `script` has a terminal for its command.
#[tokio::test]
async fn a_command_gets_the_terminal_that_there_is() {
    let shop = Shop::new().await;
    let words: Vec<String> = {
        let plugin = shop.plugin();
        let args = plugin.get_args().chain([OsStr::new("list")]);
        [plugin.get_program()]
            .into_iter()
            .chain(args)
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    };
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]).stdin(Stdio::null());
    for (mut command, has_terminal) in [(script, true), (shop.plugin(), false)] {
        let output = command.args((!has_terminal).then_some("list")).output().expect("it starts");
        assert_eq!(text(&output.stdout).trim_end(), "pg-1 runs list", "{}", text(&output.stderr));
        let asked = shop.kubernetes.faulty().asked_by("operator").pop().expect("it asked");
        assert_eq!(asked.query.contains("tty=true"), has_terminal, "{asked}");
        // A terminal has one stream for both.
        assert_eq!(asked.query.contains("stderr=true"), !has_terminal, "{asked}");
        assert!(asked.query.contains("stdin=true"), "{asked}");
    }
}

/// kubectl finds the program by its name.
#[tokio::test]
async fn it_is_a_plug_in_of_kubectl() {
    let shop = Shop::new().await;
    let plugins = shop.place.folder("plugins");
    let mut kubectl = Command::new(tool("kubectl"));
    let path = format!("{}:{}", plugins.display(), std::env::var("PATH").unwrap_or_default());
    kubectl.env("PATH", path).env("KUBECONFIG", &shop.kubeconfig).stdin(Stdio::null());
    kubectl.args(["matriarch", "list", "--namespace", &shop.kubernetes.namespace, "-o", "json"]);
    let output = kubectl.output().expect("kubectl starts: see `make setup`");
    assert_eq!(text(&output.stdout), "pg-1 runs list -o json\n", "{}", text(&output.stderr));
}

#[tokio::test]
async fn one_of_several_clusters_is_chosen_by_its_name() {
    let shop = Shop::new().await;
    shop.run_pod("other-0", "other", "primary").await;
    let (code, said) = shop.fails(&["list"]);
    assert!(said.contains("there are several clusters") && said.contains("other, pg"), "{said}");
    assert!(said.contains("--scope CLUSTER"), "{said}");
    assert_eq!(code, Some(2));
    let output = shop.plugin().args(["list", "--scope", "other"]).output().expect("it starts");
    assert_eq!(text(&output.stdout), "other-0 runs list\n", "{}", text(&output.stderr));
}

/// Errors name labels, namespace and context, and the missing right.
#[tokio::test]
async fn failures_say_where_and_what_is_missing() {
    let shop = Shop::new().await;
    let place = format!(
        "app.kubernetes.io/name=matriarch in the namespace {} (context double)",
        shop.kubernetes.namespace
    );
    let (code, said) = shop.fails(&["list", "--scope", "none"]);
    assert!(said.contains("there is no pod with the labels") && said.contains("cluster-name=none"), "{said}");
    assert_eq!(code, Some(1), "{said}");
    let rights: [(Rights, _); 3] = [
        (&[], "the verb `list` on `pods`"),
        (&[("", "pods", &["list"])], "the verbs `create` and `get` on `pods/exec`"),
        (
            &[("", "pods", &["list"]), ("", "pods/exec", &["get"])],
            "the verbs `create` and `get` on `pods/exec`",
        ),
    ];
    for (rights, hint) in rights {
        shop.kubernetes.faulty().grant("operator", rights);
        let (code, said) = shop.fails(&["list"]);
        assert!(said.contains(&place) && said.contains(hint) && said.contains("is forbidden"), "{said}");
        assert_eq!(code, Some(1), "{said}");
    }
    shop.kubernetes.faulty().grant("operator", RIGHTS);
    std::fs::remove_file(shop.place.folder("programs").join("matriarch")).expect("it was there");
    let (code, said) = shop.fails(&["list"]);
    assert!(said.contains("pod pg-1") && said.contains("error executing command in container"), "{said}");
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = shop.fails(&["list", "--context", "elsewhere"]);
    assert!(said.contains("failed to read the kubeconfig") && said.contains("elsewhere"), "{said}");
    assert_eq!(code, Some(3), "{said}");
}
