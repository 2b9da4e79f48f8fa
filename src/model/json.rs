//! JSON text as Python writes it, because its readers compare it byte for byte.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// `json.dumps(value)`: separators `", "` and `": "`, with everything outside printable ASCII escaped.
pub fn spaced(value: &Value) -> String {
    written(value, Python { comma: b", ", colon: b": " })
}

/// `json.dumps(value, separators=(",", ":"))`: the form of every value in etcd.
pub fn compact(value: &Value) -> String {
    written(value, Python { comma: b",", colon: b":" })
}

/// A value in one line: objects and arrays in YAML's flow style.
pub fn one_line(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => cell.to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(one_line).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| format!("{key}: {}", one_line(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

struct Python {
    comma: &'static [u8],
    colon: &'static [u8],
}

fn written(value: &Value, format: Python) -> String {
    let mut text = Vec::new();
    let outcome = value.serialize(&mut Serializer::with_formatter(&mut text, format));
    debug_assert!(outcome.is_ok(), "a value in memory always serializes");
    String::from_utf8(text).unwrap_or_default()
}

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.comma) }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.comma) }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.colon)
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for c in fragment.chars() {
            if (' '..='~').contains(&c) {
                writer.write_all(&[c as u8])?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_what_python_writes() {
        let value = json!({"b": [1, true, null, 1.5], "a": {"x": "ü\"\n😀"}, "e": [], "o": {}});
        let expected =
            r#"{"b": [1, true, null, 1.5], "a": {"x": "\u00fc\"\n\ud83d\ude00"}, "e": [], "o": {}}"#;
        assert_eq!(spaced(&value), expected);
        assert_eq!(compact(&json!({"a": 1, "b": [1, 2]})), r#"{"a":1,"b":[1,2]}"#);
    }
}
