//! Reads the configuration: every source, in order of precedence.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Faults, ValueOrigin};
use super::given::{Given, given_in_file};
use super::local::{self, Config};
use super::pod::{self, Pod};
use super::reader::ConfigFindings;
use super::tree::{self, Node, Value};
use super::variables::{self, Variable};
use super::{arguments, environment, image, kubernetes};

/// The file with the namespace of a pod's service account.
const ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// A valid configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings for the operator, which `check --strict` refuses.
    pub warnings: Vec<Fault>,
}

/// The result of checking a configuration.
#[derive(Debug)]
pub struct Checked {
    /// All faults that keep a member from running.
    pub faults: Vec<Fault>,
    /// Warnings for the operator.
    pub warnings: Vec<Fault>,
    /// The configuration, as far as it is readable.
    pub config: Option<Config>,
    /// Its keys with those of the environment, as they were written: with passwords.
    pub written: serde_json::Value,
    /// Its parameters. A fault of a parameter is only a warning, because the parameter is left out.
    pub parameters: Vec<Given>,
}

/// The sources of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file, or a directory of `*.yml` and `*.yaml`: sorted, the last one wins. Without a path, all settings come
    /// from the environment and the pod.
    pub path: Option<PathBuf>,
    /// The environment, which overrides the file.
    pub environment: BTreeMap<String, String>,
    /// PostgreSQL parameters of the command line, which override both.
    pub parameters: Vec<(String, String)>,
    /// [`secrets_digest`](super::secrets_digest) of the files that the variables name, from before they are read.
    pub secrets: u64,
}

/// Reads a configuration.
///
/// # Errors
/// All faults.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let (config, findings, _) = read(sources);
    match (config, findings.faults.is_empty()) {
        (Some(config), true) => Ok(Loaded { config, warnings: findings.warnings }),
        (_, _) => Err(Faults(findings.faults)),
    }
}

/// Reads as [`load`] does, and returns all results even if the configuration is invalid.
pub fn check(sources: &Sources) -> Checked {
    let (config, findings, root) = read(sources);
    let root = root.unwrap_or_default();
    let ConfigFindings { faults, warnings, .. } = findings;
    Checked { faults, warnings, config, written: root.to_json(), parameters: given_in_file(&root) }
}

fn read(sources: &Sources) -> (Option<Config>, ConfigFindings, Option<Node>) {
    let mut findings = ConfigFindings::default();
    let Sources { path, environment, parameters, secrets: _ } = sources;
    let variables = variables::resolve(environment, &mut findings);
    let only_text = variables.get("PATRONI_CONFIGURATION").filter(|_| path.is_none());
    let Some(mut root) = written(path.as_deref(), only_text, &mut findings) else {
        return (None, findings, None);
    };
    if only_text.is_none() {
        environment::overlay(&mut root, &variables, &mut findings);
    }
    root.fill(image::server(&variables));
    let alone = path.is_none() && only_text.is_none();
    if alone {
        let pod = Pod::look(environment);
        root.fill(pod::defaults(&root, &pod, environment, &mut findings));
        pod::demand_superuser(&variables, &mut findings);
    }
    if alone || root.get("bootstrap").is_some() {
        let locale = if alone { pod::locale(environment) } else { Vec::new() };
        root.fill(image::bootstrap(&variables, environment, locale, &mut findings));
    }
    arguments::overlay(&mut root, parameters);
    kubernetes::complete(&mut root, environment, || fs::read_to_string(ACCOUNT_NAMESPACE).ok());
    let config = local::read(&root, &mut findings);
    if alone {
        pod::name_variables(&mut findings);
    }
    (config, findings, Some(root))
}

/// The content of the files, or of the variable in their place. `None`: they cannot be read.
fn written(path: Option<&Path>, only_text: Option<&Variable>, findings: &mut ConfigFindings) -> Option<Node> {
    let sources = match (path, only_text) {
        (Some(path), _) => files(path),
        (None, Some(variable)) => Ok(vec![(variable.origin.source.clone(), variable.text.clone())]),
        (None, None) => Ok(Vec::new()),
    };
    let sources = sources.unwrap_or_else(|fault| {
        findings.faults.push(fault);
        Vec::new()
    });
    let mut root = Node { value: Value::Map(Vec::new()), ..Node::default() };
    for (source, text) in &sources {
        match tree::parse(text, source, &mut findings.warnings) {
            Ok(node) => root.merge(node),
            Err(fault) => findings.faults.push(fault),
        }
    }
    let source = sources.last().map_or("environment", |(source, _)| source);
    root.origin = ValueOrigin { source: source.to_owned(), line: None };
    findings.faults.is_empty().then_some(root)
}

/// The files of `path` with their texts, under the names for faults.
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
