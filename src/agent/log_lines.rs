//! Log lines as `log.format`, `log.dateformat` and `log.static_fields` ask for them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Log, LogField, LogKind, LogPart};

/// The form of times where none is configured; the milliseconds follow.
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S,%3f";

/// The form of a line.
pub(super) struct LogLines {
    kind: LogKind,
    parts: Vec<LogPart>,
    time_format: String,
    static_fields: BTreeMap<String, String>,
}

impl LogLines {
    /// `None`: nothing about the form of a plain line is configured.
    pub(super) fn of(log: &Log) -> Option<LogLines> {
        if log.kind == LogKind::Plain && log.format.is_none() && log.time_format.is_none() {
            return None;
        }
        Some(LogLines {
            kind: log.kind,
            parts: log.format.clone().unwrap_or_else(usual),
            time_format: log.time_format.clone().unwrap_or_else(|| TIME_FORMAT.to_owned()),
            static_fields: log.static_fields.clone(),
        })
    }

    fn value(&self, field: LogField, event: &Event<'_>, event_text: &EventText) -> Value {
        match field {
            LogField::Time => {
                let now = jiff::Zoned::now();
                // The form was tried when it was read.
                json!(jiff::fmt::strtime::format(&self.time_format, &now).unwrap_or_default())
            }
            LogField::Level => json!(level(*event.metadata().level())),
            LogField::Message => json!(event_text.message),
            LogField::Module => json!(event.metadata().target()),
            LogField::ProcessId => json!(std::process::id()),
            LogField::Thread => json!(std::thread::current().name().unwrap_or_default()),
        }
    }

    fn object(&self, event: &Event<'_>, event_text: &EventText) -> Map<String, Value> {
        let mut object = Map::new();
        for part in &self.parts {
            if let LogPart::Field { field, name, .. } = part {
                object.insert(name.clone(), self.value(*field, event, event_text));
            }
        }
        for (name, value) in &event_text.fields {
            object.entry(*name).or_insert_with(|| value.clone());
        }
        object.extend(self.static_fields.iter().map(|(name, value)| (name.clone(), json!(value))));
        object
    }

    fn text(&self, to: &mut Writer<'_>, event: &Event<'_>, event_text: &EventText) -> fmt::Result {
        for part in &self.parts {
            match part {
                LogPart::Text(text) => to.write_str(text)?,
                LogPart::Field { field: LogField::Message, .. } => event_text.write(to)?,
                LogPart::Field { field, width, .. } => {
                    let value = self.value(*field, event, event_text);
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let blanks = width.unsigned_abs() as usize;
                    match *width < 0 {
                        true => write!(to, "{text:<blanks$}")?,
                        false => write!(to, "{text:>blanks$}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

impl<S, N> FormatEvent<S, N> for LogLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut event_text = EventText::default();
        event.record(&mut event_text);
        match self.kind {
            LogKind::Plain => self.text(&mut to, event, &event_text)?,
            LogKind::Json => write!(to, "{}", Value::Object(self.object(event, &event_text)))?,
        }
        writeln!(to)
    }
}

/// Time, level and message.
fn usual() -> Vec<LogPart> {
    let field = |field, name: &str| LogPart::Field { field, name: name.to_owned(), width: 0 };
    let text = |text: &str| LogPart::Text(text.to_owned());
    vec![
        field(LogField::Time, "asctime"),
        text(" "),
        field(LogField::Level, "levelname"),
        text(": "),
        field(LogField::Message, "message"),
    ]
}

/// The names that Python's logging has.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// What an event says.
#[derive(Default)]
struct EventText {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl EventText {
    fn add(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => {
                self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            }
            name => self.fields.push((name, value)),
        }
    }

    /// The message, and its fields behind it.
    fn write(&self, to: &mut Writer<'_>) -> fmt::Result {
        to.write_str(&self.message)?;
        for (name, value) in &self.fields {
            match value.as_str() {
                Some(text) => write!(to, " {name}={text}")?,
                None => write!(to, " {name}={value}")?,
            }
        }
        Ok(())
    }
}

impl Visit for EventText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, json!(value));
    }
}
