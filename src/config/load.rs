//! Reading configuration: every source, one over the other.

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

/// What a look at a configuration found.
#[derive(Debug)]
pub struct Checked {
    /// Everything that keeps a member from running.
    pub faults: Vec<Fault>,
    /// What an operator should know.
    pub warnings: Vec<Fault>,
    /// The configuration, as far as it can be read.
    pub config: Option<Config>,
    /// The parameters that it gives: what is wrong with one of them is a warning, because it is left out.
    pub parameters: Vec<Given>,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file, or a directory of `*.yml` and `*.yaml`: sorted, later ones win. Without one, everything comes from the
    /// environment and the pod.
    pub path: Option<PathBuf>,
    /// The environment, which beats the file.
    pub environment: BTreeMap<String, String>,
    /// Parameters of PostgreSQL from the command line, which beat both.
    pub parameters: Vec<(String, String)>,
}

/// Reads a configuration.
///
/// # Errors
/// Every fault at once.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let (config, findings, _) = read(sources);
    match (config, findings.faults.is_empty()) {
        (Some(config), true) => Ok(Loaded { config, warnings: findings.warnings }),
        (_, _) => Err(Faults(findings.faults)),
    }
}

/// Reads as [`load`] does, and gives everything that it found, too, where the configuration cannot be used.
pub fn check(sources: &Sources) -> Checked {
    let (config, findings, parameters) = read(sources);
    Checked { faults: findings.faults, warnings: findings.warnings, config, parameters }
}

fn read(sources: &Sources) -> (Option<Config>, ConfigFindings, Vec<Given>) {
    let mut findings = ConfigFindings::default();
    let Sources { path, environment, parameters } = sources;
    let variables = variables::resolve(environment, &mut findings);
    let only_text = variables.get("PATRONI_CONFIGURATION").filter(|_| path.is_none());
    let Some(mut root) = written(path.as_deref(), only_text, &mut findings) else {
        return (None, findings, Vec::new());
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
    (config, findings, given_in_file(&root))
}

/// What files, or the variable that stands for one, hold. `None`: they cannot be read.
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
