//! Configuration as a tree that remembers where every value was written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::fault::{Fault, ValueOrigin};
use super::scalar;

/// A value with its origin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: ValueOrigin,
}

/// A YAML value. Booleans are read as in YAML 1.1 (`on`, `yes`), like in all Patroni files so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A text from a variable.
    pub(super) fn text(text: &str, origin: &ValueOrigin) -> Node {
        Node { value: Value::Text(text.to_owned()), origin: origin.clone() }
    }

    /// The entry `key` of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => None,
        }
    }

    /// Merges `over` into this: maps key by key, `null` deletes, anything else replaces.
    pub(super) fn merge(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Map(mine), Value::Map(theirs)) => {
                for (key, node) in theirs {
                    let known = mine.iter().position(|(name, _)| *name == key);
                    match (known, &node.value) {
                        (Some(index), Value::Null) => drop(mine.remove(index)),
                        (Some(index), _) => mine[index].1.merge(node),
                        (None, Value::Null) => {}
                        (None, _) => mine.push((key, node)),
                    }
                }
            }
            (mine, theirs) => {
                *mine = theirs;
                self.origin = over.origin;
            }
        }
    }

    /// Adds the entries of `under` that are missing.
    pub(super) fn fill(&mut self, under: Node) {
        if let (Value::Map(mine), Value::Map(theirs)) = (&mut self.value, under.value) {
            for (key, node) in theirs {
                match mine.iter_mut().find(|(name, _)| *name == key) {
                    Some((_, known)) => known.fill(node),
                    None => mine.push((key, node)),
                }
            }
        }
    }

    /// Puts `node` at a path, with the maps on the way.
    pub(super) fn put(&mut self, path: &[&str], node: Node) {
        let mut nested = node;
        for key in path.iter().rev() {
            let origin = nested.origin.clone();
            nested = Node { value: Value::Map(vec![((*key).to_owned(), nested)]), origin };
        }
        self.merge(nested);
    }

    /// The plain value, without origins.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(on) => Json::Bool(*on),
            Value::Int(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Text(text) => Json::from(text.as_str()),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect(),
        }
    }

    /// A tree from JSON, with one origin for all of it.
    pub(super) fn from_json(json: &Json, origin: &ValueOrigin) -> Node {
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(on) => Value::Bool(*on),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Value::Int(number),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => {
                Value::List(items.iter().map(|item| Node::from_json(item, origin)).collect())
            }
            Json::Object(entries) => Value::Map(
                entries.iter().map(|(key, item)| (key.clone(), Node::from_json(item, origin))).collect(),
            ),
        };
        Node { value, origin: origin.clone() }
    }

    /// The value in short form, for a fault.
    pub(super) fn found(&self) -> String {
        match &self.value {
            Value::Null => "found nothing".to_owned(),
            Value::Bool(on) => format!("found the boolean {on}"),
            Value::Int(number) => format!("found {number}"),
            Value::Float(number) => format!("found {number}"),
            Value::Text(text) => format!("found `{text}`"),
            Value::List(_) => "found a list".to_owned(),
            Value::Map(_) => "found a section".to_owned(),
        }
    }
}

/// Parses YAML. An empty file is an empty map. Of duplicate keys the last one counts, as in PyYAML; here that adds a
/// warning.
pub(super) fn parse(text: &str, source: &str, warnings: &mut Vec<Fault>) -> Result<Node, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let origin = |line| ValueOrigin { source: source.to_owned(), line };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Node { value: Value::Map(Vec::new()), origin: origin(None) });
    }
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let parsed: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map(|location| location.line() as u32);
        let found = error.to_string().lines().next().unwrap_or_default().to_owned();
        Fault { origin: origin(line), key: String::new(), found, expected: "write valid YAML".to_owned() }
    })?;
    let node = Reading { source, text, warnings }.node(parsed, "");
    match node.value {
        Value::Map(_) => Ok(node),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) => {
            Err(Fault {
                found: node.found(),
                origin: node.origin,
                key: String::new(),
                expected: "write sections, as in `scope: NAME`".to_owned(),
            })
        }
    }
}

/// A text that is being parsed.
struct Reading<'t> {
    source: &'t str,
    text: &'t str,
    warnings: &'t mut Vec<Fault>,
}

impl Reading<'_> {
    /// The tree of `raw`, which is at `path`.
    fn node(&mut self, raw: Spanned<Raw>, path: &str) -> Node {
        let written = written(&raw, self.text);
        let origin = self.origin(&raw);
        let value = match raw.value {
            Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Float(_) | Raw::Text(_) if written.is_some() => {
                scalar::plain(written.unwrap_or_default())
            }
            Raw::Null => Value::Null,
            Raw::Bool(on) => Value::Bool(on),
            Raw::Int(number) => Value::Int(number),
            Raw::Float(number) => Value::Float(number),
            Raw::Text(text) => Value::Text(text),
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.node(item, path)).collect()),
            Raw::Map(entries) => Value::Map(self.entries(entries, path)),
        };
        Node { value, origin }
    }

    fn entries(&mut self, raw: Vec<(Spanned<String>, Spanned<Raw>)>, path: &str) -> Vec<(String, Node)> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        for (key, value) in raw {
            let origin = self.origin(&key);
            let below = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
            let node = self.node(value, &below);
            match entries.iter_mut().find(|(known, _)| *known == key.value) {
                Some((_, former)) => {
                    let first =
                        former.origin.line.map_or(String::new(), |line| format!(", first on line {line}"));
                    self.warnings.push(Fault {
                        origin,
                        key: below,
                        found: format!("is given twice{first}"),
                        expected: "the last one counts: remove the other".to_owned(),
                    });
                    *former = node;
                }
                None => entries.push((key.value, node)),
            }
        }
        entries
    }

    fn origin<T>(&self, place: &Spanned<T>) -> ValueOrigin {
        let line = u32::try_from(place.referenced.line()).ok().filter(|line| *line > 0);
        ValueOrigin { source: self.source.to_owned(), line }
    }
}

/// A scalar as written in the file, if it is plain: not quoted, without block, tag or alias.
fn written<'t>(raw: &Spanned<Raw>, text: &'t str) -> Option<&'t str> {
    if raw.referenced != raw.defined {
        return None;
    }
    let span = raw.referenced.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    let written = text.get(start..end)?.trim_end();
    let marked = written.starts_with(['"', '\'', '|', '>', '!', '*', '&', '[', '{', '-', '#']);
    let negative =
        written.starts_with('-') && written[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.');
    (!written.is_empty() && !written.contains('\n') && (!marked || negative)).then_some(written)
}

/// The result of serde: the same tree with the parser's positions.
enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, on: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(on))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(i64::try_from(number).map_or(Raw::Text(number.to_string()), Raw::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key()? {
            map.push((key, entries.next_value()?));
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        parse(text, "t.yml", &mut Vec::new()).expect("valid")
    }

    fn json(text: &str) -> Json {
        node(text).to_json()
    }

    #[test]
    fn booleans_read_as_in_every_patroni_file_so_far() {
        let read = json("a: on\nb: No\nc: \"on\"\nd: 'yes'\ne: true\n");
        assert_eq!(read, serde_json::json!({"a": true, "b": false, "c": "on", "d": "yes", "e": true}));
    }

    #[test]
    fn every_value_knows_its_line() {
        let node = node("a: 1\nb:\n  - x\n  - c: 2\n");
        let list = node.get("b").expect("there");
        let Value::List(items) = &list.value else { panic!("a list") };
        assert_eq!(items[1].get("c").expect("there").origin.line, Some(4));
    }

    #[test]
    fn faults_name_the_line() {
        let fault = parse("a: 1\nb: [1\n", "t.yml", &mut Vec::new()).expect_err("broken");
        assert!(fault.origin.line.is_some(), "{fault}");
        assert!(parse("- a\n", "t.yml", &mut Vec::new()).is_err(), "no sections");
    }

    #[test]
    fn of_duplicate_keys_the_last_one_counts() {
        let text = "a:\n  b: 1\n  c: 2\n  b: 3\nd: [{e: 1, e: 2}]\na: {f: 4}\n";
        let mut warnings = Vec::new();
        let node = parse(text, "t.yml", &mut warnings).expect("valid");
        assert_eq!(node.to_json(), serde_json::json!({"a": {"f": 4}, "d": [{"e": 2}]}));
        let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let twice = |place, first| {
            format!("{place}: is given twice, first on line {first}; the last one counts: remove the other")
        };
        assert_eq!(said, [twice("t.yml:4: a.b", 2), twice("t.yml:5: d.e", 5), twice("t.yml:6: a", 2)]);
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_are_ignored() {
        let read = json("\u{feff}a: on\r\nb: x y\r\nc:\r\n  - 'z'\r\nd: |\r\n  1\r\n  2\r\ne: 5\r\n");
        assert_eq!(read, serde_json::json!({"a": true, "b": "x y", "c": ["z"], "d": "1\n2\n", "e": 5}));
    }

    #[test]
    fn merging_replaces_adds_and_deletes() {
        let mut node = node("a: {b: 1, c: 2}\nd: [1]\n");
        node.merge(super::tests::node("a: {b: 3, c: null}\nd: [2]\n"));
        node.put(&["a", "e"], Node::text("x", &ValueOrigin::default()));
        assert_eq!(node.to_json(), serde_json::json!({"a": {"b": 3, "e": "x"}, "d": [2]}));
    }
}
