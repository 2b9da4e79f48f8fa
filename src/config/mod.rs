//! Stand-in until the config layer lands.
#![expect(missing_docs, reason = "a stand-in")]
use crate::model::{MemberName, Settings, Tags};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
#[derive(Debug)]
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
#[derive(Debug, Clone)]
pub enum LogKind {
    Plain,
    Json,
}
#[derive(Debug, Clone)]
pub struct Log {
    pub level: String,
    pub kind: LogKind,
    pub dir: Option<PathBuf>,
}
#[derive(Debug, Clone)]
pub struct Config {
    pub scope: String,
    pub namespace: String,
    pub name: MemberName,
    pub log: Log,
    pub tags: Tags,
    pub raw: Value,
    pub postgresql: Postgresql,
}
#[derive(Debug, Clone)]
pub struct Postgresql {
    pub data_dir: PathBuf,
}
pub struct Effective {
    pub settings: Settings,
    pub warnings: Vec<String>,
    pub parameters: BTreeMap<String, String>,
    pub command_line: Vec<(String, String)>,
    pub pg_hba: Option<Vec<String>>,
}
pub fn load(path: Option<&Path>, _: &BTreeMap<String, String>) -> Result<Loaded, Faults> {
    let text =
        std::fs::read_to_string(path.expect("a path")).map_err(|e| Faults(vec![Fault(e.to_string())]))?;
    let raw: Value = serde_saphyr::from_str(&text).map_err(|e| Faults(vec![Fault(e.to_string())]))?;
    let s = |k: &str| raw.pointer(k).and_then(|v| v.as_str()).map(str::to_owned);
    let config = Config {
        scope: s("/scope").unwrap_or_default(),
        namespace: s("/namespace").unwrap_or("/service".into()),
        name: MemberName::new(s("/name").unwrap_or_default())
            .map_err(|e| Faults(vec![Fault(e.to_string())]))?,
        log: Log { level: s("/log/level").unwrap_or("INFO".into()), kind: LogKind::Plain, dir: None },
        tags: serde_json::from_value(raw.pointer("/tags").cloned().unwrap_or(Value::Object(Map::new())))
            .unwrap_or_default(),
        postgresql: Postgresql { data_dir: s("/postgresql/data_dir").unwrap_or_default().into() },
        raw,
    };
    Ok(Loaded { config, warnings: vec![], sources: vec![] })
}
pub fn effective(local: &Config, dynamic: Option<&str>, _: u32) -> Result<Effective, Faults> {
    let d: Value = dynamic.and_then(|t| serde_json::from_str(t).ok()).unwrap_or(Value::Null);
    let mut settings = Settings::default();
    let secs = |k: &str, or: Duration| d.get(k).and_then(Value::as_u64).map_or(or, Duration::from_secs);
    settings.ttl = secs("ttl", settings.ttl);
    settings.loop_wait = secs("loop_wait", settings.loop_wait);
    settings.primary_start_timeout = secs("primary_start_timeout", settings.primary_start_timeout);
    settings.pause = d.get("pause").and_then(Value::as_bool).unwrap_or(false);
    let text = |v: &Value| match v {
        Value::String(s) => s.clone(),
        Value::Bool(b) => {
            if *b {
                "on".into()
            } else {
                "off".into()
            }
        }
        o => o.to_string(),
    };
    let mut parameters = BTreeMap::new();
    for src in [d.pointer("/postgresql/parameters"), local.raw.pointer("/postgresql/parameters")] {
        if let Some(Value::Object(m)) = src {
            for (k, v) in m {
                parameters.insert(k.clone(), text(v));
            }
        }
    }
    let listen = local.raw.pointer("/postgresql/listen").and_then(Value::as_str).unwrap_or("127.0.0.1:5432");
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "5432"));
    let mut command_line = vec![
        ("listen_addresses".to_owned(), host.to_owned()),
        ("port".to_owned(), port.to_owned()),
        ("cluster_name".to_owned(), local.scope.clone()),
    ];
    for (k, or) in [
        ("wal_level", "replica"),
        ("hot_standby", "on"),
        ("max_connections", "100"),
        ("max_wal_senders", "10"),
        ("max_prepared_transactions", "0"),
        ("max_locks_per_transaction", "64"),
        ("track_commit_timestamp", "off"),
        ("max_replication_slots", "10"),
        ("max_worker_processes", "8"),
        ("wal_log_hints", "on"),
        ("restart_after_crash", "off"),
    ] {
        let v = parameters.remove(k).unwrap_or(or.to_owned());
        command_line.push((k.to_owned(), v));
    }
    parameters.entry("wal_keep_size".into()).or_insert("128MB".into());
    let pg_hba = local
        .raw
        .pointer("/postgresql/pg_hba")
        .or(d.pointer("/postgresql/pg_hba"))
        .and_then(Value::as_array)
        .map(|a| a.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect());
    Ok(Effective { settings, warnings: vec![], parameters, command_line, pg_hba })
}
