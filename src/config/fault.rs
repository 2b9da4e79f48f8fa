//! Faults of a configuration: the place, the problem, and the expected value.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueOrigin {
    /// A file's name or an environment variable's.
    pub source: String,
    /// Line in the file, counted from 1; `None` for variables.
    pub line: Option<u32>,
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.source),
            None => f.write_str(&self.source),
        }
    }
}

/// One fault, or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub origin: ValueOrigin,
    /// The key, dotted; empty for the file as a whole.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What to write, or what to do.
    pub expected: String,
}

impl Fault {
    /// A fault of the file or the machine as a whole.
    pub fn general(source: &str, found: impl Into<String>, expected: impl Into<String>) -> Fault {
        let origin = ValueOrigin { source: source.to_owned(), line: None };
        Fault { origin, key: String::new(), found: found.into(), expected: expected.into() }
    }
}

impl fmt::Display for Fault {
    /// `node.yml:12: postgresql.listen: found `x`; write ADDRESS:PORT`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.found, self.expected)
    }
}

/// Every fault of a configuration at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
