//! Typed access to a tree that collects every fault instead of stopping at the first.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::fault::{Fault, ValueOrigin};
use super::tree::{Node, Value};
use super::units;
use crate::model::nearest;

/// What is said of a key that nothing reads.
pub(super) const UNKNOWN: &str = "is not known";

/// The faults and warnings so far.
#[derive(Default)]
pub(super) struct ConfigFindings {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
}

/// One section with its dotted path. [`Section::finish`] warns about keys that were never read.
pub(super) struct Section<'a> {
    node: Option<&'a Node>,
    path: String,
    origin: ValueOrigin,
    asked: BTreeSet<String>,
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub(super) fn root(node: &'a Node) -> Section<'a> {
        Section { node: Some(node), path: String::new(), origin: node.origin.clone(), asked: BTreeSet::new() }
    }

    /// The section `key`; an absent one is empty.
    pub(super) fn section(&mut self, key: &str, findings: &mut ConfigFindings) -> Section<'a> {
        let found = self.get(key);
        let node = found.filter(|node| matches!(node.value, Value::Map(_)));
        if let Some(found) = found.filter(|_| node.is_none()) {
            self.fault(key, found, "write a section of keys here", findings);
        }
        let origin = found.map_or_else(|| self.origin.clone(), |found| found.origin.clone());
        Section { node, path: self.key(key), origin, asked: BTreeSet::new() }
    }

    /// Whether the section exists.
    pub(super) fn is_there(&self) -> bool {
        self.node.is_some()
    }

    /// The value under `key`; a null counts as absent.
    pub(super) fn get(&mut self, key: &str) -> Option<&'a Node> {
        self.asked.insert(key.to_owned());
        self.node?.get(key).filter(|node| node.value != Value::Null)
    }

    /// A text. Numbers and booleans are accepted in their written form.
    pub(super) fn text(&mut self, key: &str, findings: &mut ConfigFindings) -> Option<String> {
        let node = self.get(key)?;
        let text = plain(node);
        if text.is_none() {
            self.fault(key, node, "write a text", findings);
        }
        text
    }

    /// A text with a meaning; `expected` says how to write one.
    pub(super) fn checked<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        meaning: impl FnOnce(&str) -> Option<T>,
        findings: &mut ConfigFindings,
    ) -> Option<T> {
        let node = self.get(key)?;
        let found = plain(node).and_then(|text| meaning(&text));
        if found.is_none() {
            self.fault(key, node, expected, findings);
        }
        found
    }

    /// A required text.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        expected: &str,
        findings: &mut ConfigFindings,
    ) -> String {
        if let Some(node) = self.get(key) {
            match plain(node).filter(|text| !text.trim().is_empty()) {
                Some(text) => return text,
                None => self.fault(key, node, expected, findings),
            }
        } else {
            self.missing(key, expected, findings);
        }
        String::new()
    }

    /// A boolean.
    pub(super) fn flag(&mut self, key: &'static str, default: bool, findings: &mut ConfigFindings) -> bool {
        let Some(node) = self.get(key) else { return default };
        match plain(node).as_deref().and_then(units::boolean) {
            Some(on) => on,
            None => {
                self.fault(key, node, "write true or false", findings);
                default
            }
        }
    }

    /// Seconds, or a time span with a unit.
    pub(super) fn span(
        &mut self,
        key: &'static str,
        default: Duration,
        findings: &mut ConfigFindings,
    ) -> Duration {
        let Some(node) = self.get(key) else { return default };
        match plain(node).as_deref().and_then(units::span) {
            Some(span) => span,
            None => {
                self.fault(key, node, "write a number of seconds, or a time as in 30s or 5min", findings);
                default
            }
        }
    }

    /// Bytes, or a size with a unit.
    pub(super) fn bytes(&mut self, key: &'static str, default: u64, findings: &mut ConfigFindings) -> u64 {
        let Some(node) = self.get(key) else { return default };
        match plain(node).as_deref().and_then(units::bytes).and_then(|bytes| u64::try_from(bytes).ok()) {
            Some(bytes) => bytes,
            None => {
                self.fault(key, node, "write a number of bytes, or a size as in 10MB", findings);
                default
            }
        }
    }

    /// A list of texts; one text counts as a list when `commas`. Empty items are left out.
    pub(super) fn list(
        &mut self,
        key: &'static str,
        commas: bool,
        findings: &mut ConfigFindings,
    ) -> Option<Vec<String>> {
        let node = self.get(key)?;
        let list = match &node.value {
            Value::List(items) => {
                let (empty, items): (Vec<_>, Vec<_>) = items.iter().partition(|item| is_empty(item));
                for item in empty {
                    self.warn(key, item, "an empty item of the list is left out: remove it", findings);
                }
                items.into_iter().map(plain).collect::<Option<Vec<_>>>()
            }
            Value::Text(text) if commas => Some(list_items(text)),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Map(_) => None,
        };
        if list.is_none() {
            self.fault(key, node, "write a list of texts", findings);
        }
        list
    }

    /// Options of a program: a list of `name` and `name: value`, or a section. Without leading dashes. The supervisor
    /// alone sets those that are `refused`.
    pub(super) fn options(
        &mut self,
        key: &'static str,
        refused: &[&str],
        findings: &mut ConfigFindings,
    ) -> Vec<String> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let mut options = Vec::new();
        let entries = |entries: &[(String, Node)], options: &mut Vec<String>| {
            entries.iter().all(|(name, value)| {
                let text = plain(value);
                options.extend(text.as_ref().map(|text| format!("{name}={text}")));
                text.is_some()
            })
        };
        let readable = match &node.value {
            Value::Map(map) => entries(map, &mut options),
            Value::List(items) => items.iter().all(|item| match &item.value {
                Value::Map(map) => entries(map, &mut options),
                _scalar => plain(item).map(|text| options.push(text)).is_some(),
            }),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => false,
        };
        if !readable {
            self.fault(key, node, "write a list of `option` and `option: value`", findings);
        }
        let bare = |option: String| option.trim_start_matches('-').to_owned();
        let options: Vec<String> = options.into_iter().map(bare).collect();
        for name in refused {
            if options.iter().any(|option| option.split('=').next() == Some(name)) {
                self.fault(key, node, &format!("remove `{name}`: it is not yours to set"), findings);
            }
        }
        options
    }

    /// Parameters of PostgreSQL with their texts, booleans as `on` and `off`.
    pub(super) fn parameters(
        &mut self,
        key: &'static str,
        findings: &mut ConfigFindings,
    ) -> Vec<(String, String)> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let Value::Map(entries) = &node.value else {
            self.fault(key, node, "write a section of parameters", findings);
            return Vec::new();
        };
        let mut parameters = Vec::new();
        for (name, value) in entries {
            match parameter(value) {
                Some(text) => parameters.push((name.clone(), text)),
                None if value.value == Value::Null => {}
                None => findings.faults.push(Fault {
                    origin: value.origin.clone(),
                    key: format!("{}.{name}", self.key(key)),
                    found: value.found(),
                    expected: "write the parameter's value".to_owned(),
                }),
            }
        }
        parameters
    }

    /// All its keys and values, in the order of the file.
    pub(super) fn entries(&self) -> &'a [(String, Node)] {
        match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries,
            Some(_) | None => &[],
        }
    }

    /// The keys that were not read yet, with their values.
    pub(super) fn unread(&self) -> Vec<(&'a str, &'a Node)> {
        let unread = self.entries().iter().filter(|(key, _)| !self.asked.contains(key.as_str()));
        unread.map(|(key, node)| (key.as_str(), node)).collect()
    }

    /// Accepts keys that are read elsewhere, or have no effect.
    pub(super) fn accept(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Warns about keys that have an effect in Patroni but not here, each with the rule that applies instead.
    pub(super) fn without_effect(&mut self, keys: &[(&'static str, &str)], findings: &mut ConfigFindings) {
        for (key, instead) in keys {
            if let Some(node) = self.get(key).filter(|node| !is_empty(node)) {
                let expected = format!("this key has no effect here: {instead}");
                self.warn(key, node, &expected, findings);
            }
        }
    }

    /// Records a fault of `key`.
    pub(super) fn fault(&self, key: &str, node: &Node, expected: &str, findings: &mut ConfigFindings) {
        findings.faults.push(Fault {
            origin: node.origin.clone(),
            key: self.key(key),
            found: found(key, node),
            expected: expected.to_owned(),
        });
    }

    /// Records that `key` is missing.
    pub(super) fn missing(&self, key: &str, expected: &str, findings: &mut ConfigFindings) {
        let (origin, found) = (self.origin.clone(), "is missing".to_owned());
        findings.faults.push(Fault { origin, key: self.key(key), found, expected: expected.to_owned() });
    }

    /// Warns about `key`.
    pub(super) fn warn(&self, key: &str, node: &Node, expected: &str, findings: &mut ConfigFindings) {
        findings.warnings.push(Fault {
            origin: node.origin.clone(),
            key: self.key(key),
            found: found(key, node),
            expected: expected.to_owned(),
        });
    }

    /// Warns about every key that was never read, with the nearest known one.
    pub(super) fn finish(&self, findings: &mut ConfigFindings) {
        for (key, node) in self.entries().iter().filter(|(key, _)| !self.asked.contains(key.as_str())) {
            let expected = match nearest(key, self.asked.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "this key is not known and has no effect".to_owned(),
            };
            let (origin, found) = (node.origin.clone(), UNKNOWN.to_owned());
            findings.warnings.push(Fault { origin, key: self.key(key), found, expected });
        }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// The items of a list in one text: separated by commas or newlines, or as a YAML list.
pub fn list_items(text: &str) -> Vec<String> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|inner| {
        let first_bracket = inner.find(['[', ']']).and_then(|at| inner[at..].chars().next());
        first_bracket != Some(']') && inner.parse::<Ipv6Addr>().is_err()
    });
    let text = inner.unwrap_or(text);
    let bare = |item: &str| item.trim().trim_start_matches("- ").trim().trim_matches(['\'', '"']).to_owned();
    text.split([',', '\n']).map(bare).filter(|item| !item.is_empty()).collect()
}

/// The value in short form; a secret is not shown.
fn found(key: &str, node: &Node) -> String {
    if key.ends_with("password") { "is set".to_owned() } else { node.found() }
}

/// Whether the value is empty.
pub(super) fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Text(text) => text.trim().is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
    }
}

/// A scalar as text.
pub(super) fn plain(node: &Node) -> Option<String> {
    match &node.value {
        Value::Bool(on) => Some(on.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// A scalar as a parameter of PostgreSQL: a bare `on`, read as a boolean, becomes `on` again.
pub(super) fn parameter(node: &Node) -> Option<String> {
    match &node.value {
        Value::Bool(on) => Some(if *on { "on" } else { "off" }.to_owned()),
        Value::Null | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            plain(node)
        }
    }
}
