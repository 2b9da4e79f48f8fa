//! Changes to the dynamic configuration: `-s a.b=VALUE`, `-p GUC=VALUE`, and what they do to the document.

use serde_json::{Map, Value};

use super::error::CliError;

/// All that follows this path is one key: names of PostgreSQL's parameters may contain dots.
const PARAMETERS: [&str; 2] = ["postgresql", "parameters"];

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    path: Vec<String>,
    value: Value,
}

impl Setting {
    /// Parses `a.b.c=VALUE`; the value is YAML, `null` removes.
    pub fn parse(text: &str) -> Result<Setting, CliError> {
        let (key, value) = split(text)?;
        let parts: Vec<&str> = key.split('.').collect();
        let path = if parts.len() > 2 && parts[..2] == PARAMETERS {
            vec![parts[0].to_owned(), parts[1].to_owned(), parts[2..].join(".")]
        } else {
            parts.into_iter().map(str::to_owned).collect()
        };
        Ok(Setting { path, value })
    }

    /// Parses `GUC=VALUE`: a parameter of PostgreSQL.
    pub fn parse_parameter(text: &str) -> Result<Setting, CliError> {
        let (key, value) = split(text)?;
        Ok(Setting::parameter(key, value))
    }

    /// Sets a parameter of PostgreSQL; `null` removes it.
    pub fn parameter(key: &str, value: Value) -> Setting {
        let path = [PARAMETERS[0], PARAMETERS[1], key];
        Setting { path: path.map(str::to_owned).to_vec(), value }
    }

    /// Makes the change in `document`.
    pub fn apply(&self, document: &mut Value) {
        set(document, &self.path, &self.value);
    }
}

fn split(text: &str) -> Result<(&str, Value), CliError> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.trim().is_empty())
        .ok_or_else(|| CliError::usage(format!("`{text}` is not of the form KEY=VALUE")))?;
    Ok((key.trim(), parse_yaml(value)?))
}

/// Parses a YAML text.
pub fn parse_yaml(text: &str) -> Result<Value, CliError> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| CliError::failed("invalid YAML").because(&error))
}

fn set(node: &mut Value, path: &[String], value: &Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if !node.is_object() {
        *node = Value::Object(Map::new());
    }
    let Some(fields) = node.as_object_mut() else { return };
    if rest.is_empty() {
        if value.is_null() {
            fields.shift_remove(first);
        } else {
            fields.insert(first.clone(), value.clone());
        }
        return;
    }
    if value.is_null() && !fields.contains_key(first) {
        return;
    }
    let child = fields.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
    set(child, rest, value);
    if value.is_null() && child.as_object().is_some_and(Map::is_empty) {
        fields.shift_remove(first);
    }
}

/// Merges `patch` into `document`: objects are merged deeply, `null` removes, all else replaces.
pub fn merge(document: &mut Value, patch: &Value) {
    let (Some(fields), Some(changes)) = (document.as_object_mut(), patch.as_object()) else {
        *document = patch.clone();
        return;
    };
    for (key, change) in changes {
        match (fields.get_mut(key), change) {
            (_, Value::Null) => {
                fields.shift_remove(key);
            }
            (Some(old @ Value::Object(_)), Value::Object(_)) => merge(old, change),
            (Some(_) | None, _) => {
                fields.insert(key.clone(), change.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(mut document: Value, settings: &[Setting]) -> Value {
        settings.iter().for_each(|setting| setting.apply(&mut document));
        document
    }

    #[test]
    fn sets_removes_and_drops_empty_parents() {
        let set = |text: &str| Setting::parse(text).expect("a setting");
        let document = json!({"ttl": 30, "postgresql": {"parameters": {"a.b": 1}}});
        assert_eq!(
            after(document.clone(), &[set("ttl=20"), set("postgresql.use_slots=true")]),
            json!({"ttl": 20, "postgresql": {"parameters": {"a.b": 1}, "use_slots": true}})
        );
        assert_eq!(after(document.clone(), &[set("postgresql.parameters.a.b=null")]), json!({"ttl": 30}));
        assert_eq!(after(document.clone(), &[set("no.such.key=null")]), document);
        let guc = Setting::parse_parameter("x.y=on").expect("a setting");
        assert!(after(json!({}), &[guc])["postgresql"]["parameters"].get("x.y").is_some());
    }

    #[test]
    fn a_setting_without_a_key_is_refused() {
        assert!(Setting::parse("ttl").is_err());
        assert!(Setting::parse("=1").is_err());
    }

    #[test]
    fn merges_deep() {
        let mut document = json!({"a": {"b": 1, "c": 2}, "d": 1});
        merge(&mut document, &json!({"a": {"b": null, "e": 3}, "d": {"f": 1}}));
        assert_eq!(document, json!({"a": {"c": 2, "e": 3}, "d": {"f": 1}}));
    }
}
