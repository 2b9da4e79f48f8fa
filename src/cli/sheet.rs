//! Typed rows under columns: what a command has to show, before it has a format.

use serde_json::Value;

/// Where a column is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In every format.
    Everywhere,
    /// In json, yaml and tsv: the table says it in its header.
    ForMachines,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its key in json and yaml, and its header in tsv.
    pub name: &'static str,
    /// Its header in the table.
    pub shown: &'static str,
    /// Numbers stand to the right.
    pub right: bool,
    /// Where it is printed.
    pub place: Where,
}

impl Column {
    /// Text, everywhere.
    pub const fn text(name: &'static str) -> Column {
        Column { name, shown: name, right: false, place: Where::Everywhere }
    }

    /// A number, everywhere.
    pub const fn number(name: &'static str) -> Column {
        Column { name, shown: name, right: true, place: Where::Everywhere }
    }

    /// With another header in the table.
    pub const fn shown(mut self, shown: &'static str) -> Column {
        self.shown = shown;
        self
    }

    /// Not in the table.
    pub const fn for_machines(mut self) -> Column {
        self.place = Where::ForMachines;
        self
    }
}

/// Rows under columns. A cell that is `null` is blank, and left out of json and yaml.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    /// Goes into the table's upper border.
    pub title: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, a cell for each column.
    pub rows: Vec<Vec<Value>>,
    /// Lines below the table.
    pub footer: Vec<String>,
}
