//! `log`: where the lines of the log go, and how they look.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::reader::{ConfigFindings, Section, plain};
use super::tree::{Node, Value};

/// `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The level, as tracing names it.
    pub level: &'static str,
    /// Text or JSON.
    pub kind: LogKind,
    /// The file; standard error when `None`.
    pub file: Option<LogFile>,
    /// What a line has, in order; `None`: as tracing writes it.
    pub format: Option<Vec<LogPart>>,
    /// The form of times, for strftime; `None`: date, time and milliseconds.
    pub time_format: Option<String>,
    /// Fields of every JSON line.
    pub static_fields: BTreeMap<String, String>,
}

/// `log.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Lines of text.
    Plain,
    /// One JSON object a line.
    Json,
}

/// The log file and its older parts, `matriarch.log.1` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its directory.
    pub dir: PathBuf,
    /// A new file begins at this many bytes; 0: never.
    pub size_max: u64,
    /// The number of older files that are kept; 0: no new file ever begins.
    pub older: u32,
    /// The permissions; `None`: the umask decides.
    pub mode: Option<u32>,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// Text, in a plain line only.
    Text(String),
    /// A field.
    Field {
        /// Which.
        field: LogField,
        /// Its name in JSON.
        name: String,
        /// It is filled with blanks up to this width: on the left, or on the right when negative.
        width: i32,
    },
}

/// A field of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogField {
    /// The time.
    Time,
    /// The level.
    Level,
    /// The message.
    Message,
    /// The module of the program.
    Module,
    /// The process id.
    ProcessId,
    /// The thread's name.
    Thread,
}

/// Keys of `log` that only Patroni uses.
const WITHOUT_EFFECT: [(&str, &str); 4] = [
    ("traceback_level", "there are no tracebacks; errors are written with their causes"),
    ("loggers", "its names are those of Patroni's modules; `level` holds for everything"),
    ("max_queue_size", "up to 4096 lines wait; what is dropped beyond is counted"),
    ("deduplicate_heartbeat_logs", "a decision is logged when it changes"),
];
const FIELDS: &str = "write fields among asctime, levelname, message, name, module, process and threadName";
const TIME_FORMAT: &str = "write a form for strftime, as in `%Y-%m-%d %H:%M:%S %z`";
const MODE: &str = "write permissions in octal digits, as in `0640`";

/// Reads the section.
pub(super) fn read(mut log: Section<'_>, findings: &mut ConfigFindings) -> Log {
    let level = level(&mut log, findings);
    let kind = kind(&mut log, findings);
    let size_max = log.bytes("file_size", 25_000_000, findings);
    let older =
        log.checked("file_num", "write the number of older files", |text| text.parse().ok(), findings);
    let mode = mode(&mut log, findings);
    let dir = log.text("dir", findings).map(PathBuf::from);
    let file = dir.map(|dir| LogFile { dir, size_max, older: older.unwrap_or(4), mode });
    let time_format = log.checked("dateformat", TIME_FORMAT, time_format, findings);
    let format = format(&mut log, findings);
    let static_fields = static_fields(&mut log, findings);
    log.without_effect(&WITHOUT_EFFECT, findings);
    log.finish(findings);
    Log { level, kind, file, format, time_format, static_fields }
}

fn level(log: &mut Section<'_>, findings: &mut ConfigFindings) -> &'static str {
    let level = |text: &str| match text.to_ascii_uppercase().as_str() {
        "CRITICAL" | "ERROR" | "FATAL" => Some("error"),
        "WARNING" | "WARN" => Some("warn"),
        "INFO" => Some("info"),
        "DEBUG" => Some("debug"),
        "TRACE" | "NOTSET" => Some("trace"),
        _ => None,
    };
    log.checked("level", "write ERROR, WARNING, INFO or DEBUG", level, findings).unwrap_or("info")
}

fn kind(log: &mut Section<'_>, findings: &mut ConfigFindings) -> LogKind {
    let kind = |text: &str| match text {
        "plain" => Some(LogKind::Plain),
        "json" => Some(LogKind::Json),
        _ => None,
    };
    log.checked("type", "write plain or json", kind, findings).unwrap_or(LogKind::Plain)
}

/// Permissions; an octal number of YAML has been read as a number already.
fn mode(log: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<u32> {
    let node = log.get("mode")?;
    let mode = match &node.value {
        Value::Int(number) => u32::try_from(*number).ok(),
        Value::Text(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        _ => None,
    };
    let mode = mode.filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        log.fault("mode", node, MODE, findings);
    }
    mode
}

fn time_format(text: &str) -> Option<String> {
    jiff::fmt::strtime::format(text, jiff::Timestamp::UNIX_EPOCH).is_ok().then(|| text.to_owned())
}

/// A text with fields as in `%(levelname)s`, or a list of fields, each by name or as `name: name in the line`.
fn format(log: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<Vec<LogPart>> {
    let node = log.get("format")?;
    let parts = match (&node.value, plain(node)) {
        (Value::List(items), _) => items.iter().map(listed).collect(),
        (_, Some(text)) if text.contains("%(") => template(&text),
        (_, Some(text)) => text.split(',').map(|name| field(name.trim(), name.trim())).collect(),
        (_, None) => None,
    };
    if parts.is_none() {
        log.fault("format", node, FIELDS, findings);
    }
    parts
}

fn listed(item: &Node) -> Option<LogPart> {
    match &item.value {
        Value::Map(pairs) => match pairs.iter().next() {
            Some((name, shown)) if pairs.len() == 1 => field(name, &plain(shown)?),
            _ => None,
        },
        _ => plain(item).and_then(|name| field(&name, &name)),
    }
}

fn field(name: &str, shown: &str) -> Option<LogPart> {
    let field = match name {
        "asctime" => LogField::Time,
        "levelname" => LogField::Level,
        "message" => LogField::Message,
        "module" | "name" => LogField::Module,
        "process" => LogField::ProcessId,
        "threadName" => LogField::Thread,
        _ => return None,
    };
    Some(LogPart::Field { field, name: shown.to_owned(), width: 0 })
}

/// The parts of a text in the form of Python's `logging.Formatter`.
fn template(text: &str) -> Option<Vec<LogPart>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        parts.push(LogPart::Text(before.to_owned()));
        if let Some(after) = after.strip_prefix('%') {
            parts.push(LogPart::Text("%".to_owned()));
            rest = after;
            continue;
        }
        let (name, after) = after.strip_prefix('(')?.split_once(')')?;
        let end = after.find(|letter: char| letter.is_ascii_alphabetic())?;
        let digits = &after[..end];
        let Some(LogPart::Field { field, name, .. }) = field(name, name) else { return None };
        let width = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        parts.push(LogPart::Field { field, name, width });
        rest = &after[end + 1..];
    }
    parts.push(LogPart::Text(rest.to_owned()));
    parts.retain(|part| *part != LogPart::Text(String::new()));
    Some(parts)
}

fn static_fields(log: &mut Section<'_>, findings: &mut ConfigFindings) -> BTreeMap<String, String> {
    let Some(node) = log.get("static_fields") else { return BTreeMap::new() };
    let pairs = match &node.value {
        Value::Map(pairs) => {
            pairs.iter().map(|(name, value)| Some((name.clone(), plain(value)?))).collect::<Option<_>>()
        }
        _ => None,
    };
    pairs.unwrap_or_else(|| {
        log.fault("static_fields", node, "write a section of names and texts", findings);
        BTreeMap::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fault::ValueOrigin;

    fn shown(parts: &[LogPart]) -> Vec<String> {
        let part = |part: &LogPart| match part {
            LogPart::Text(text) => format!("{text:?}"),
            LogPart::Field { field, name, width } => format!("{field:?} {name} {width}"),
        };
        parts.iter().map(part).collect()
    }

    #[test]
    fn permissions_are_octal_as_a_number_and_as_a_text() {
        let origin = ValueOrigin { source: "test".to_owned(), line: None };
        let read = |value: serde_json::Value| {
            let mut findings = ConfigFindings::default();
            let node = Node::from_json(&serde_json::json!({ "mode": value }), &origin);
            (mode(&mut Section::root(&node), &mut findings), findings.faults.len())
        };
        assert_eq!(read(0o640.into()), (Some(0o640), 0));
        assert_eq!(read("0640".into()), (Some(0o640), 0));
        assert_eq!([read("rw".into()), read(0o1777.into())], [(None, 1), (None, 1)]);
    }

    #[test]
    fn a_template_has_text_and_fields() {
        let parts =
            template("%(asctime)s 5%% %(levelname)-8s: %(process)6d%(message)s").expect("it is valid");
        let expected = [
            "Time asctime 0",
            "\" 5\"",
            "\"%\"",
            "\" \"",
            "Level levelname -8",
            "\": \"",
            "ProcessId process 6",
            "Message message 0",
        ];
        assert_eq!(shown(&parts), expected);
        for wrong in ["%(lineno)d", "%s", "%(message)", "%(message", "50 % of %(message)s"] {
            assert_eq!(template(wrong), None, "{wrong}");
        }
    }
}
