//! The output of `check` for whole files: a changed output shows as a difference of a snapshot.

use std::fs;

use super::*;

type Sample = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const SAMPLES: [Sample; 6] = [
    ("ansible", include_str!("samples/ansible.yml"), &[]),
    ("debian", include_str!("samples/debian.yml"), &[]),
    ("every_key", include_str!("samples/every_key.yml"), &[]),
    ("kubernetes", include_str!("samples/kubernetes.yml"), &KUBERNETES),
    ("spilo", include_str!("samples/spilo.yml"), &[("PATRONI_ETCD3_HOSTS", "\"etcd-0:2379\"")]),
    ("windows", include_str!("samples/windows.yml"), &[]),
];

/// The environment of a StatefulSet's manifest beside the file.
const KUBERNETES: [(&str, &str); 9] = [
    ("PATRONI_ETCD3_HOSTS", "- etcd:2379"),
    ("PATRONI_KUBERNETES_LABELS", "{application: patroni, cluster-name: demo}"),
    ("PATRONI_KUBERNETES_NAMESPACE", "shop"),
    ("PATRONI_KUBERNETES_USE_ENDPOINTS", "true"),
    ("PATRONI_NAME", "demo-0"),
    ("PATRONI_POSTGRESQL_DATA_DIR", "/srv/pgdata/pgroot/data"),
    ("PATRONI_POSTGRESQL_LISTEN", "0.0.0.0:5432"),
    ("PATRONI_RESTAPI_LISTEN", "0.0.0.0:8008"),
    ("PATRONI_SCOPE", "demo"),
];

/// One line for each fault and each warning.
fn said(name: &str, text: &str, environment: &[(&str, &str)]) -> String {
    let path = std::env::temp_dir().join(format!("matriarch-sample-{}-{name}.yml", std::process::id()));
    fs::write(&path, text).expect("a temporary file");
    let sources =
        Sources { path: Some(path.clone()), environment: variables(environment), ..Sources::default() };
    let found = check(&sources);
    fs::remove_file(&path).expect("it was just written");
    let faults = found.faults.iter().map(|fault| format!("fault: {fault}\n"));
    let warnings = found.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    let said: String = faults.chain(warnings).collect();
    said.replace(&path.display().to_string(), &format!("{name}.yml"))
}

#[test]
fn reports_on_sample_configurations() {
    for (name, text, environment) in SAMPLES {
        let text = match name {
            // The form in which an editor on Windows saves it.
            "windows" => format!("\u{feff}{}", text.replace('\n', "\r\n")),
            _ => text.to_owned(),
        };
        insta::assert_snapshot!(name, said(name, &text, environment));
    }
}
