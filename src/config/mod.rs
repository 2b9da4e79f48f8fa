//! Stand-in until the config layer lands.
#![allow(missing_docs, clippy::all)]
use crate::model::{MemberName, Settings, Tags};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Fault>,
    pub sources: Vec<PathBuf>,
}
#[derive(Debug, Clone)]
pub struct Fault(pub String);
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
#[derive(Debug)]
pub struct Faults(pub Vec<Fault>);
impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
impl std::error::Error for Faults {}
#[derive(Clone)]
pub enum LogKind {
    Plain,
    Json,
}
#[derive(Clone)]
pub struct Log {
    pub level: String,
    pub kind: LogKind,
    pub dir: Option<PathBuf>,
}
#[derive(Clone)]
pub struct Config {
    pub scope: String,
    pub name: MemberName,
    pub log: Log,
    pub tags: Tags,
    pub postgresql: Postgresql,
}
#[derive(Clone)]
pub struct Postgresql {
    pub data_dir: PathBuf,
}
pub struct Effective {
    pub settings: Settings,
    pub warnings: Vec<String>,
}
pub fn load(_: Option<&Path>, _: &BTreeMap<String, String>) -> Result<Loaded, Faults> {
    Err(Faults(vec![]))
}
pub fn effective(_: &Config, _: Option<&str>, _: u32) -> Result<Effective, Faults> {
    Err(Faults(vec![]))
}
