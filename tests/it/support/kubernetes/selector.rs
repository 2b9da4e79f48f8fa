//! Label and field selectors.

use serde_json::Value;

use super::status::Reply;

/// The objects of a list or a watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(Vec<String>, String, bool)>,
}

#[derive(Clone, Debug)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    /// Parses both from a query.
    pub(crate) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Selector, Reply> {
        let mut selector = Selector::default();
        for term in split(labels.unwrap_or_default()) {
            let requirement = requirement(term).ok_or_else(|| {
                Reply::bad_request(&format!(
                    "unable to parse requirement: found '{term}', expected: identifier"
                ))
            });
            selector.labels.push(requirement?);
        }
        for term in fields.unwrap_or_default().split(',').filter(|term| !term.is_empty()) {
            let (field, value, equal) = equality(term).ok_or_else(|| {
                Reply::bad_request(&format!("invalid selector: '{term}'; can't understand '{term}'"))
            })?;
            if !["metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "regarding.name"]
                .contains(&field)
            {
                return Err(Reply::bad_request(&format!("field label not supported: {field}")));
            }
            let path = field.split('.').map(str::to_owned).collect();
            selector.fields.push((path, value.to_owned(), equal));
        }
        Ok(selector)
    }

    /// Whether it selects this object.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        let required = |requirement: &Requirement| match requirement {
            Requirement::In(key, values) => {
                label(key).is_some_and(|value| values.iter().any(|one| one == value))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| values.iter().all(|one| one != value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        };
        let field = |(path, value, equal): &(Vec<String>, String, bool)| {
            let found = path.iter().try_fold(object, |object, part| object.get(part));
            (found.and_then(Value::as_str).unwrap_or_default() == value) == *equal
        };
        self.labels.iter().all(required) && self.fields.iter().all(field)
    }
}

/// The terms between commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut terms, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (index, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(text[start..].trim());
    terms.retain(|term| !term.is_empty());
    terms
}

fn equality(term: &str) -> Option<(&str, &str, bool)> {
    let (key, value, equal) = if let Some((key, value)) = term.split_once("!=") {
        (key, value, false)
    } else if let Some((key, value)) = term.split_once("==") {
        (key, value, true)
    } else {
        let (key, value) = term.split_once('=')?;
        (key, value, true)
    };
    let (key, value) = (key.trim(), value.trim());
    (is_word(key) && !key.is_empty() && is_word(value)).then_some((key, value, equal))
}

fn requirement(term: &str) -> Option<Requirement> {
    if let Some(key) = term.strip_prefix('!') {
        return is_word(key.trim()).then(|| Requirement::Absent(key.trim().to_owned()));
    }
    if let Some((key, values, equal)) = equality(term) {
        let values = vec![values.to_owned()];
        let key = key.to_owned();
        return Some(if equal { Requirement::In(key, values) } else { Requirement::NotIn(key, values) });
    }
    for (word, negative) in [(" notin ", true), (" notin(", true), (" in ", false), (" in(", false)] {
        if let Some((key, values)) = term.split_once(word) {
            let values = values.trim().trim_start_matches('(').strip_suffix(')')?;
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            let key = key.trim().to_owned();
            return Some(if negative {
                Requirement::NotIn(key, values)
            } else {
                Requirement::In(key, values)
            });
        }
    }
    is_word(term).then(|| Requirement::Exists(term.to_owned()))
}

fn is_word(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter))
}

#[test]
fn selectors_match_labels_and_fields() {
    let pod = serde_json::json!({
        "metadata": { "name": "a-0", "labels": { "app": "x", "role": "primary" } }, "status": { "phase": "Pending" },
    });
    let matches = |labels: &str, fields: &str| {
        Selector::parse(Some(labels), Some(fields)).map(|selector| selector.matches(&pod)).ok()
    };
    for labels in
        ["", "app=x", "app==x,role", "role in (primary,replica)", "!zone", "role!=replica", "zone notin (a)"]
    {
        assert_eq!(matches(labels, ""), Some(true), "{labels}");
    }
    for labels in ["app=y", "!app", "role in(replica)", "role notin (primary),app", "zone"] {
        assert_eq!(matches(labels, ""), Some(false), "{labels}");
    }
    assert_eq!(matches("", "metadata.name=a-0,status.phase!=Running"), Some(true));
    assert_eq!(matches("", "metadata.name=a-1"), Some(false));
    assert_eq!(matches("", "spec.foo=x"), None);
    assert_eq!(matches("a===b", ""), None);
}
