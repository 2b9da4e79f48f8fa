//! The permitted imports of each folder.

use super::{Fault, assert_clean, code, fault, is_source, is_unit_test};

/// The permitted imports of each folder of `src`: design, "Source tree".
const LAYERS: &[(&str, &[&str])] = &[
    ("bin", &[]),
    ("model", &["model"]),
    ("decide", &["model", "decide"]),
    ("core", &["model", "decide", "core"]),
    ("config", &["model", "config"]),
    ("os", &["model", "os"]),
    ("etcd", &["model", "core", "os", "etcd"]),
    ("postgres", &["model", "os", "postgres"]),
    ("peer", &["model", "os", "peer"]),
    ("fence", &["model", "core", "os", "fence"]),
    ("kube", &["model", "os", "kube"]),
    (
        "agent",
        &["model", "decide", "core", "config", "os", "etcd", "postgres", "peer", "fence", "kube", "agent"],
    ),
    ("why", &["model", "why"]),
    ("api", &["model", "config", "agent", "why", "os::clock", "os::random", "api"]),
    ("client", &["model", "config", "etcd", "peer", "os", "client"]),
    ("cli", &["model", "config", "client", "api::wire", "why", "os::error_chain", "cli"]),
    ("demo", &["client", "cli", "demo"]),
    ("observe", &["model", "decide", "config", "os::clock", "client", "cli", "observe"]),
    (
        "app",
        &[
            "model", "config", "os", "etcd", "peer", "fence", "kube", "agent", "api", "cli", "demo",
            "observe", "app",
        ],
    ),
];

fn layer_faults(file: &str, text: &str) -> Vec<Fault> {
    let Some((folder, _)) = file.trim_start_matches("src/").split_once('/') else { return Vec::new() };
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == folder) else {
        return vec![fault(file, 1, format!("the folder `{folder}` has no place in the layer table"))];
    };
    let mut faults = Vec::new();
    for (line, code) in code(text) {
        for path in crate_paths(code) {
            if !allowed.iter().any(|layer| is_within(&path, layer)) {
                faults.push(fault(file, line, format!("`{folder}` may not import `crate::{path}`")));
            }
        }
    }
    faults
}

/// Things that the settings never do: run a program, listen, and, except in the files that read files, look at the
/// machine.
fn settings_faults(file: &str, text: &str) -> Vec<Fault> {
    let reads = ["load", "pod", "variables"].iter().any(|name| file == format!("src/config/{name}.rs"));
    let mut banned = vec!["std::process", "Command", "TcpListener", "UdpSocket", "tokio"];
    if !reads {
        banned.extend(["std::fs", "nix::", "std::env"]);
    }
    let mut faults = Vec::new();
    for (line, code) in code(text) {
        for banned in banned.iter().filter(|banned| code.contains(**banned)) {
            faults.push(fault(file, line, format!("`config` reads and judges texts: no `{banned}`")));
        }
    }
    faults
}

#[test]
fn settings_only_read_and_judge_texts() {
    assert_clean(|file| file.starts_with("src/config/") && !is_unit_test(file), settings_faults);
}

#[test]
fn a_look_at_the_machine_is_seen() {
    assert_eq!(settings_faults("src/config/load.rs", "use std::fs;\nuse std::process::Command;").len(), 2);
    assert_eq!(settings_faults("src/config/local.rs", "use std::fs;").len(), 1);
}

fn is_within(path: &str, layer: &str) -> bool {
    path == layer || path.strip_prefix(layer).is_some_and(|rest| rest.starts_with("::"))
}

/// The paths behind `crate::` in one line, with `crate::{a, b::c}` taken apart one level deep.
fn crate_paths(line: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let group = rest.strip_prefix('{').map(|inner| inner.split('}').next().unwrap_or_default());
        for part in group.unwrap_or(rest).split(if group.is_some() { ", " } else { "\u{0}" }) {
            let path: String =
                part.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
            paths.push(path.trim_end_matches(':').to_owned());
        }
    }
    paths
}

#[test]
fn every_folder_imports_only_what_its_layer_may() {
    assert_clean(|file| is_source(file) && !is_unit_test(file), layer_faults);
}

#[test]
fn a_wrong_import_is_seen() {
    assert_eq!(layer_faults("src/etcd/a.rs", "use crate::postgres::Data;").len(), 1);
    assert_eq!(layer_faults("src/decide/a.rs", "use crate::{model::Lsn, agent::Status};").len(), 1);
    assert_eq!(layer_faults("src/api/a.rs", "use crate::os::signal;").len(), 1);
    assert_eq!(layer_faults("src/odd/a.rs", "").len(), 1);
    assert_eq!(layer_faults("src/api/a.rs", "use crate::os::clock;\n// crate::etcd").len(), 0);
    assert_eq!(layer_faults("src/etcd/a.rs", "#[cfg(test)]\nmod t { use crate::agent::X; }").len(), 0);
}
