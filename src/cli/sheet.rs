//! Typed rows under columns: a command's data, before it is formatted.

use serde_json::Value;

/// The formats in which a column is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In every format.
    Everywhere,
    /// In json, yaml and tsv only.
    ForMachines,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// Its key in json and yaml, and its header in tsv.
    pub name: &'a str,
    /// Its header in the table.
    pub shown: &'a str,
    /// Align to the right, for numbers.
    pub right: bool,
    /// The formats in which it is printed.
    pub place: Where,
}

impl<'a> Column<'a> {
    /// A text column for every format.
    pub const fn text(name: &'a str) -> Column<'a> {
        Column { name, shown: name, right: false, place: Where::Everywhere }
    }

    /// A number column for every format.
    pub const fn number(name: &'a str) -> Column<'a> {
        Column { name, shown: name, right: true, place: Where::Everywhere }
    }

    /// Sets another header for the table.
    pub const fn shown(mut self, shown: &'a str) -> Column<'a> {
        self.shown = shown;
        self
    }

    /// Removes the column from the table.
    pub const fn for_machines(mut self) -> Column<'a> {
        self.place = Where::ForMachines;
        self
    }
}

/// Rows under columns. A `null` cell is blank, and left out of json and yaml.
#[derive(Clone, Debug, Default)]
pub struct Sheet<'a> {
    /// The title in the table's upper border.
    pub title: String,
    /// The columns.
    pub columns: Vec<Column<'a>>,
    /// The rows, a cell for each column.
    pub rows: Vec<Vec<Value>>,
    /// Lines below the table.
    pub footer: Vec<String>,
}
