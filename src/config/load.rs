//! Reading configuration: the only file here that touches the disk, besides `machine`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::environment;
use super::fault::{Fault, Faults};
use super::kubernetes;
use super::local::{self, Config};
use super::machine::check_machine;
use super::reader::Findings;
use super::tree::{self, Node, Value};

/// Where a pod finds the namespace of its service account.
const ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What an operator should know, and what `check --strict` refuses.
    pub warnings: Vec<Fault>,
}

/// What a look at a configuration and at this machine found.
#[derive(Debug)]
pub struct Checked {
    /// Everything that keeps a member from running.
    pub faults: Vec<Fault>,
    /// What an operator should know.
    pub warnings: Vec<Fault>,
}

/// Reads a file, a directory of `*.yml` and `*.yaml` (sorted, later ones win), or the environment alone, and lays the
/// `PATRONI_*` variables over it.
///
/// # Errors
/// Every fault at once.
pub fn load(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Loaded, Faults> {
    let (config, findings) = read(path, environment);
    match (config, findings.faults.is_empty()) {
        (Some(config), true) => Ok(Loaded { config, warnings: findings.warnings }),
        (_, _) => Err(Faults(findings.faults)),
    }
}

/// Reads as [`load`] does, and looks at this machine too, as far as the configuration can be read.
pub fn check(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Checked {
    let (config, mut findings) = read(path, environment);
    if let Some(config) = config {
        findings.faults.extend(check_machine(&config));
    }
    Checked { faults: findings.faults, warnings: findings.warnings }
}

fn read(path: Option<&Path>, environment: &BTreeMap<String, String>) -> (Option<Config>, Findings) {
    let mut findings = Findings::default();
    let mut root = Node { value: Value::Map(Vec::new()), ..Node::default() };
    let only_text =
        environment.get("PATRONI_CONFIGURATION").filter(|text| path.is_none() && !text.is_empty());
    let sources = match (path, only_text) {
        (Some(path), _) => files(path),
        (None, Some(text)) => Ok(vec![("PATRONI_CONFIGURATION".to_owned(), text.clone())]),
        (None, None) => Ok(Vec::new()),
    };
    let sources = sources.unwrap_or_else(|fault| {
        findings.faults.push(fault);
        Vec::new()
    });
    for (source, text) in &sources {
        match tree::parse(text, source) {
            Ok(node) => root.merge(node),
            Err(fault) => findings.faults.push(fault),
        }
    }
    if !findings.faults.is_empty() {
        return (None, findings);
    }
    root.origin.source =
        sources.last().map_or_else(|| "environment".to_owned(), |(source, _)| source.clone());
    root.origin.line = None;
    if only_text.is_none() {
        environment::overlay(&mut root, environment, &mut findings);
    }
    kubernetes::complete(&mut root, environment, || fs::read_to_string(ACCOUNT_NAMESPACE).ok());
    (local::read(&root, &mut findings), findings)
}

/// The files of `path` with their texts, named as they will be in faults.
fn files(path: &Path) -> Result<Vec<(String, String)>, Fault> {
    let unreadable = |path: &Path, error: std::io::Error| {
        let expected = "name a readable YAML file, or a directory of them";
        Fault::general(&path.display().to_string(), format!("cannot be read: {error}"), expected)
    };
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|error| unreadable(path, error))?;
        let is_yaml =
            |path: &PathBuf| path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml");
        paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_yaml).collect();
        paths.sort();
    }
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
        Ok((path.display().to_string(), text))
    };
    paths.iter().map(read).collect()
}
