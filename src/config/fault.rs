//! Faults of a configuration: the place, the problem, and the expected value.

use std::fmt;

/// The origin of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueOrigin {
    /// The name of a file or of an environment variable.
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
    /// The origin.
    pub origin: ValueOrigin,
    /// The key, dotted; empty for the file as a whole.
    pub key: String,
    /// The value that was found.
    pub found: String,
    /// The expected value, or the remedy.
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

/// All faults of a configuration.
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
