//! The scripts of an operator: their commands, and the sections whose keys become arguments.

use super::local::Config;
use super::postgresql::BASEBACKUP;
use super::reader::{ConfigFindings, Section, plain};
use super::tree::{Node, Value};
use crate::model::{ReplicaMethod, ReplicaScript, ScriptWords, shell_words};

/// Keys of a method for replicas that say how to call its script.
const REPLICA_KEYS: [&str; 4] = ["no_params", "no_leader", "no_master", "keep_data"];

impl Config {
    /// All scripts of the operator: the keys, and the words of the commands.
    pub fn scripts(&self) -> Vec<(String, &[String])> {
        let postgresql = &self.postgresql;
        let methods = postgresql.replica_methods.iter().filter_map(|method| match method {
            ReplicaMethod::Basebackup => None,
            ReplicaMethod::Script(script) => {
                Some((format!("postgresql.{}", script.name), &script.command.words))
            }
        });
        let callbacks = postgresql
            .callbacks
            .iter()
            .map(|(event, words)| (format!("postgresql.callbacks.{}", event.as_str()), words));
        let hooks = [
            ("postgresql.pre_promote", &postgresql.pre_promote),
            ("postgresql.before_stop", &postgresql.before_stop),
        ];
        let hooks = hooks.into_iter().filter_map(|(key, words)| Some((key.to_owned(), words.as_ref()?)));
        let bootstrap = self.bootstrap.iter().flat_map(|bootstrap| {
            let custom = bootstrap.custom.as_ref();
            let custom = custom.map(|custom| (format!("bootstrap.{}", custom.name), &custom.command.words));
            let post = bootstrap.post_bootstrap.as_ref();
            custom.into_iter().chain(post.map(|words| ("bootstrap.post_bootstrap".to_owned(), words)))
        });
        let all = methods.chain(callbacks).chain(hooks).chain(bootstrap);
        all.map(|(key, words)| (key, &words[..])).collect()
    }
}

/// The words of the command under `key`; `None`: no script is configured, or it has a fault.
pub(super) fn command(
    section: &mut Section<'_>,
    key: &str,
    findings: &mut ConfigFindings,
) -> Option<Vec<String>> {
    let node = section.get(key)?;
    let text = section.text(key, findings)?;
    let words = shell_words(&text);
    if words.is_none() {
        section.fault(key, node, "write a command, with every quote closed", findings);
    }
    words.filter(|words| !words.is_empty())
}

/// `create_replica_methods`, in order. Its older name counts if the key is absent.
pub(super) fn replica_methods(
    section: &mut Section<'_>,
    findings: &mut ConfigFindings,
) -> Vec<ReplicaMethod> {
    let (key, older) = ("create_replica_methods", "create_replica_method");
    let key = match section.get(key) {
        Some(_) => {
            section.without_effect(&[(older, "create_replica_methods is given too, and counts")], findings);
            key
        }
        None => older,
    };
    let names = section.list(key, true, findings).unwrap_or_default();
    let mut methods: Vec<ReplicaMethod> = Vec::new();
    for name in names {
        let method = match name == BASEBACKUP {
            true => Some(ReplicaMethod::Basebackup),
            false => replica_script(section, key, &name, findings),
        };
        methods.extend(method);
    }
    if methods.is_empty() {
        methods.push(ReplicaMethod::Basebackup);
    }
    methods
}

/// The sections with a command that no other key has named.
pub(super) fn other_methods(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Vec<ReplicaMethod> {
    let unread = section.unread();
    let is_script = |node: &Node| node.get("command").is_some_and(|command| command.value != Value::Null);
    let names = unread.into_iter().filter(|(_, node)| is_script(node)).map(|(name, _)| name);
    names.filter_map(|name| replica_script(section, name, name, findings)).collect()
}

/// A program of this name as a method, with the usual arguments.
pub(super) fn program(name: &str) -> Option<ReplicaMethod> {
    let words = shell_words(name).filter(|words| !words.is_empty())?;
    let command = ScriptWords { words, is_told: true, arguments: Vec::new() };
    let name = name.to_owned();
    Some(ReplicaMethod::Script(ReplicaScript { name, command, keeps_data: false, needs_no_source: false }))
}

fn replica_script(
    parent: &mut Section<'_>,
    list: &str,
    name: &str,
    findings: &mut ConfigFindings,
) -> Option<ReplicaMethod> {
    if let (None, Some(node)) = (parent.get(name), parent.get(list)) {
        let expected = format!(
            "there is no section `{name}` beside it: a program of that name is run, with the usual arguments; to name \
             another, write a section `{name}` with `command`"
        );
        parent.warn(list, node, &expected, findings);
    }
    let mut section = parent.section(name, findings);
    let words = match section.get("command") {
        Some(_) => command(&mut section, "command", findings),
        None => shell_words(name).filter(|words| !words.is_empty()),
    };
    let no_leader = if section.get("no_leader").is_some() { "no_leader" } else { "no_master" };
    let no_params = section.flag("no_params", false, findings);
    let how: &[&str] = if no_params { &REPLICA_KEYS } else { &[] };
    let keeps_data = section.flag("keep_data", false, findings);
    let needs_no_source = section.flag(no_leader, false, findings);
    let arguments = arguments(&section, how, findings);
    let command = ScriptWords { words: words?, is_told: !no_params, arguments };
    let name = name.to_owned();
    Some(ReplicaMethod::Script(ReplicaScript { name, command, keeps_data, needs_no_source }))
}

/// The keys of a script's section as arguments, without `command` and those that say how to call the script.
pub(super) fn arguments(
    section: &Section<'_>,
    how: &[&str],
    findings: &mut ConfigFindings,
) -> Vec<(String, String)> {
    let mut arguments = Vec::new();
    for (key, node) in section.entries() {
        if key == "command" || how.contains(&key.as_str()) {
            continue;
        }
        match argument(node) {
            Some(text) => arguments.push((key.clone(), text)),
            None => section.warn(
                key,
                node,
                "this cannot be an argument of the script, and is left out: write a text",
                findings,
            ),
        }
    }
    arguments
}

/// Patroni's spelling: scripts that were written for it compare with `True` and `False`.
fn argument(node: &Node) -> Option<String> {
    match &node.value {
        Value::Bool(on) => Some(if *on { "True" } else { "False" }.to_owned()),
        Value::Null | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            plain(node)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    /// The methods in a section `postgresql`, and what is said about it.
    fn methods(text: &str) -> (Vec<ReplicaMethod>, Vec<String>, Vec<String>) {
        let node = tree::parse(text, "test", &mut Vec::new()).expect("YAML");
        let (mut section, mut findings) = (Section::root(&node), ConfigFindings::default());
        let methods = replica_methods(&mut section, &mut findings);
        section.finish(&mut findings);
        let texts = |found: Vec<super::super::Fault>| found.iter().map(ToString::to_string).collect();
        (methods, texts(findings.faults), texts(findings.warnings))
    }

    fn script(name: &str, words: &[&str], is_told: bool, arguments: &[(&str, &str)]) -> ReplicaScript {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        ReplicaScript {
            name: name.to_owned(),
            command: ScriptWords {
                words: words.iter().map(|word| (*word).to_owned()).collect(),
                is_told,
                arguments: arguments.iter().map(owned).collect(),
            },
            keeps_data: false,
            needs_no_source: false,
        }
    }

    /// As Patroni's documentation has them.
    #[test]
    fn methods_are_read_with_their_sections() {
        let text = "create_replica_methods: [pgbackrest, wal_e, basebackup]
pgbackrest: {command: /usr/bin/pgbackrest --stanza='a b' --delta restore, keep_data: True, no_params: True, no_master: 1}
wal_e: {command: patroni_wale_restore, no_leader: 1, envdir: /e, use_iam: on, retries: 2}
";
        let (found, faults, warnings) = methods(text);
        let words = ["/usr/bin/pgbackrest", "--stanza=a b", "--delta", "restore"];
        let delta = ReplicaScript {
            keeps_data: true,
            needs_no_source: true,
            ..script("pgbackrest", &words, false, &[])
        };
        let told = [("no_leader", "1"), ("envdir", "/e"), ("use_iam", "True"), ("retries", "2")];
        let wal_e = ReplicaScript {
            needs_no_source: true,
            ..script("wal_e", &["patroni_wale_restore"], true, &told)
        };
        let expected =
            vec![ReplicaMethod::Script(delta), ReplicaMethod::Script(wal_e), ReplicaMethod::Basebackup];
        assert_eq!(found, expected);
        assert_eq!((faults, warnings), (vec![], vec![]));
    }

    #[test]
    fn without_methods_base_backups_are_taken() {
        for text in ["name: a", "create_replica_methods: []", "create_replica_methods: basebackup"] {
            assert_eq!(methods(text).0, [ReplicaMethod::Basebackup], "{text}");
        }
    }

    #[test]
    fn faults_of_methods_are_named() {
        let text = "create_replica_method: [gone, broken, odd]
broken: {command: a 'b}
odd: {command: x, keep_data: perhaps, list: [a], nothing: }
";
        let (_, faults, warnings) = methods(text);
        assert_eq!(
            faults,
            [
                "test:2: broken.command: found `a 'b`; write a command, with every quote closed",
                "test:3: odd.keep_data: found `perhaps`; write true or false",
            ]
        );
        let said = warnings.join("\n");
        for part in ["1: create_replica_method: ", "no section `gone`", "3: odd.list: ", "3: odd.nothing: "] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
