//! Typed rows as a table, JSON, YAML or TSV.

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::error::CliError;
use super::sheet::Sheet;
use super::table;
use crate::model::json_one_line;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[value(alias = "pretty")]
    Table,
    /// A JSON document.
    Json,
    /// A YAML document.
    #[value(alias = "yml")]
    Yaml,
    /// Tab-separated, with a header line.
    Tsv,
}

impl Sheet<'_> {
    /// The rows in `format`.
    pub fn render(&self, format: Format) -> Result<String, CliError> {
        match format {
            Format::Table => Ok(table::render(self)),
            Format::Json => to_json(&self.documents()),
            Format::Yaml => to_yaml(&self.documents()),
            Format::Tsv => Ok(self.tsv()),
        }
    }

    fn documents(&self) -> Value {
        let row = |cells: &Vec<Value>| {
            let filled = self.columns.iter().zip(cells).filter(|(_, cell)| !cell.is_null());
            Value::Object(filled.map(|(column, cell)| (column.name.to_owned(), cell.clone())).collect())
        };
        Value::Array(self.rows.iter().map(row).collect())
    }

    fn tsv(&self) -> String {
        let mut text = self.columns.iter().map(|column| column.name).collect::<Vec<_>>().join("\t");
        text.push('\n');
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter().map(|cell| json_one_line(cell).replace(['\t', '\n'], " ")).collect();
            text.push_str(&cells.join("\t"));
            text.push('\n');
        }
        text
    }
}

/// A document as indented JSON.
pub fn to_json(value: &Value) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::failed("failed to write JSON").because(&error))?;
    Ok(text + "\n")
}

/// A document as YAML.
pub fn to_yaml(value: &Value) -> Result<String, CliError> {
    let text = serde_saphyr::to_string(value)
        .map_err(|error| CliError::failed("failed to write YAML").because(&error))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// The same document with sorted keys in every object.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            let object: Map<String, Value> =
                keys.into_iter().map(|key| (key.clone(), sorted(&fields[key]))).collect();
            Value::Object(object)
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A document that is not a table: YAML unless another format was requested.
pub fn document(value: &Value, format: Format) -> Result<String, CliError> {
    match format {
        Format::Json => to_json(value),
        Format::Table | Format::Yaml | Format::Tsv => to_yaml(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sheet::Column;
    use serde_json::json;

    fn sheet() -> Sheet<'static> {
        Sheet {
            title: " Cluster: demo (7) ".into(),
            columns: vec![
                Column::text("Cluster").for_machines(),
                Column::text("Member"),
                Column::number("Receive Lag").shown("Lag"),
                Column::text("Tags"),
            ],
            rows: vec![
                vec![json!("demo"), json!("m1"), Value::Null, json!({"dc": "a", "nofailover": true})],
                vec![json!("demo"), json!("m2"), json!(12), Value::Null],
            ],
            footer: vec!["Maintenance mode: on".into()],
        }
    }

    #[test]
    fn table() {
        let expected = "\
+ Cluster: demo (7) ---------+
| Member | Lag | Tags        |
+--------+-----+-------------+
| m1     |     | dc: a       |
|        |     | nofailover: |
";
        let text = sheet().render(Format::Table).expect("a table");
        assert!(text.starts_with(&expected[..28]), "{text}");
        assert!(text.contains("| m2     |  12 |"), "{text}");
        assert!(text.contains("|        |     | nofailover: true |"), "{text}");
        assert!(text.ends_with(" Maintenance mode: on\n"), "{text}");
    }

    #[test]
    fn machine_formats_have_all_columns_and_no_nulls() {
        let text = sheet().render(Format::Json).expect("json");
        let back: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(back[1], json!({"Cluster": "demo", "Member": "m2", "Receive Lag": 12}));
        let tsv = sheet().render(Format::Tsv).expect("tsv");
        assert_eq!(
            tsv,
            "Cluster\tMember\tReceive Lag\tTags\ndemo\tm1\t\t{dc: a, nofailover: true}\ndemo\tm2\t12\t\n"
        );
        assert!(sheet().render(Format::Yaml).expect("yaml").contains("Receive Lag: 12"));
    }
}
