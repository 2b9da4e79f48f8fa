//! Where `patronictl` finds its cluster: the option, the environment, the files.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{answer, link};
use crate::support::{Etcd, Place, give, python_program};

/// Variables, arguments, and the `ttl` that is printed; `None`: an error.
type Case<'a> = (Vec<(&'a str, &'a str)>, Vec<&'a str>, Option<i64>);

/// Two clusters of one etcd, told apart by their `ttl`, and a home directory without any file.
struct Clusters {
    place: Place,
    host: String,
    home: PathBuf,
    _etcd: Etcd,
}

impl Clusters {
    async fn start() -> Clusters {
        let place = Place::new();
        let etcd = Etcd::start(&place, 1).await;
        etcd.put("/service/herd/config", r#"{"ttl":21}"#).await;
        etcd.put("/other/flock/config", r#"{"ttl":22}"#).await;
        let (host, home) = (etcd.hosts().remove(0), place.folder("home"));
        Clusters { place, host, home, _etcd: etcd }
    }

    fn file(&self, name: &str, content: &Value) -> PathBuf {
        let file = self.place.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("our own place is writable");
        std::fs::write(&file, content.to_string()).expect("our own place is writable");
        give(&file);
        file
    }

    /// The `ttl` that `show-config` prints; `None`: it fails.
    async fn ttl(&self, program: &Path, environment: &[(&str, &str)], words: &[&str]) -> Option<i64> {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", &self.home).envs(environment.iter().copied());
        command.envs([("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8")]).args(words);
        let output = answer(&mut command, "").await;
        let shown: Value = serde_saphyr::from_slice(&output.stdout).unwrap_or_default();
        shown["ttl"].as_i64().filter(|_| output.status.success())
    }
}

/// The stock program and ours read the same cluster.
#[tokio::test]
async fn the_options_the_environment_and_the_files_name_the_cluster() {
    let clusters = Clusters::start().await;
    let host = clusters.host.as_str();
    let herd = clusters.file("herd.yml", &json!({ "scope": "herd", "etcd3": { "hosts": [host] } }));
    let unreachable =
        json!({ "scope": "flock", "namespace": "other", "etcd3": { "hosts": ["127.0.0.1:1"] } });
    let flock = clusters.file("flock.yml", &unreachable);
    let (herd, flock) = (herd.display().to_string(), flock.display().to_string());
    let (service, other) = (format!("etcd3://{host}"), format!("etcd3://{host}/other"));
    let missing = clusters.place.path().join("missing.yml").display().to_string();
    let of_herd = [("PATRONI_SCOPE", "herd"), ("PATRONI_ETCD3_HOSTS", host)];
    let cases: Vec<Case> = vec![
        (vec![("PATRONICTL_CONFIG_FILE", &herd)], vec!["show-config"], Some(21)),
        (vec![("PATRONICTL_CONFIG_FILE", &missing)], vec!["show-config"], None),
        (vec![("PATRONICTL_CONFIG_FILE", &missing)], vec!["-c", &herd, "show-config"], Some(21)),
        (vec![], vec!["-c", &missing, "show-config"], None),
        (vec![], vec!["show-config"], None),
        (vec![("DCS_URL", &other)], vec!["show-config", "flock"], Some(22)),
        (vec![("DCS_URL", &service)], vec!["-c", &flock, "show-config"], Some(22)),
        (vec![("DCS_URL", "etcd3://127.0.0.1:1")], vec!["-d", &service, "show-config", "herd"], Some(21)),
        (vec![("DCS_URL", &other)], vec!["--dcs-url", &service, "show-config", "herd"], Some(21)),
        (vec![], vec!["--dcs", &other, "-c", &herd, "show-config", "flock"], Some(22)),
        (of_herd.into(), vec!["show-config"], Some(21)),
        (
            vec![("PATRONI_SCOPE", "flock"), ("PATRONI_NAMESPACE", "other")],
            vec!["-c", &herd, "show-config"],
            Some(22),
        ),
        (vec![("PATRONI_ETCD3_HOSTS", host)], vec!["-c", &flock, "show-config"], Some(22)),
    ];
    let programs = [python_program("patronictl"), link(&clusters.place, "patronictl")];
    for (environment, words, expected) in &cases {
        for program in &programs {
            let shown = clusters.ttl(program, environment, words).await;
            assert_eq!(shown, *expected, "{program:?}: {environment:?} {words:?}");
        }
    }
    // The file in the home directory counts where none is named.
    clusters.file(
        "home/.config/patroni/patronictl.yaml",
        &json!({ "scope": "herd", "etcd3": { "hosts": [host] } }),
    );
    for program in &programs {
        assert_eq!(clusters.ttl(program, &[], &["show-config"]).await, Some(21), "{program:?}");
        let named = clusters.ttl(program, &[("PATRONICTL_CONFIG_FILE", &missing)], &["show-config"]).await;
        assert_eq!(named, None, "{program:?}");
    }
}
