//! The table as patronictl draws it: the title stands in the upper border.

use serde_json::Value;

use super::sheet::{Column, Sheet, Where};
use crate::model::json_one_line;

/// The table with its footer.
pub fn render(sheet: &Sheet<'_>) -> String {
    let shown: Vec<usize> =
        (0..sheet.columns.len()).filter(|&index| sheet.columns[index].place == Where::Everywhere).collect();
    let columns: Vec<&Column<'_>> = shown.iter().map(|&index| &sheet.columns[index]).collect();
    let rows: Vec<Vec<Vec<String>>> =
        sheet.rows.iter().map(|row| shown.iter().map(|&index| lines(&row[index])).collect()).collect();
    let width = |position: usize| {
        let cells = rows.iter().flat_map(|row| &row[position]).map(|line| line.chars().count());
        cells.chain([columns[position].shown.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let border = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+");
    let border = format!("+{border}+");

    let mut text = titled(&border, &sheet.title);
    let header: Vec<String> = columns.iter().map(|column| column.shown.to_owned()).collect();
    text.push_str(&line(&columns, &widths, &header));
    text.push_str(&format!("{border}\n"));
    let height = |row: &[Vec<String>]| row.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let ruled = rows.iter().any(|row| height(row) > 1);
    for (index, row) in rows.iter().enumerate() {
        if ruled && index > 0 {
            text.push_str(&format!("{border}\n"));
        }
        let height = height(row);
        for index in 0..height {
            let cells: Vec<String> =
                row.iter().map(|cell| cell.get(index).cloned().unwrap_or_default()).collect();
            text.push_str(&line(&columns, &widths, &cells));
        }
    }
    text.push_str(&format!("{border}\n"));
    for note in &sheet.footer {
        text.push_str(&format!(" {note}\n"));
    }
    text
}

/// The border with the title. A title too long for a narrow table is on a line of its own above it.
fn titled(border: &str, title: &str) -> String {
    let room = border.len().saturating_sub(2);
    if title.chars().count() > room {
        return format!("+{title}+\n{border}\n");
    }
    let rest: String = border.chars().skip(1 + title.chars().count()).collect();
    format!("+{title}{rest}\n")
}

fn line(columns: &[&Column<'_>], widths: &[usize], cells: &[String]) -> String {
    let cell = |((column, width), text): ((&&Column<'_>, &usize), &String)| {
        if column.right { format!(" {text:>width$} ") } else { format!(" {text:<width$} ") }
    };
    let cells: Vec<String> = columns.iter().zip(widths).zip(cells).map(cell).collect();
    format!("|{}|\n", cells.join("|"))
}

/// A cell's lines: one for each field of an object.
fn lines(cell: &Value) -> Vec<String> {
    match cell {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{key}: {}", json_one_line(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            json_one_line(cell).lines().map(str::to_owned).collect()
        }
    }
}
