//! Where log lines go: standard error or a file, as text or as JSON.

use std::fs::OpenOptions;
use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{Log, LogKind};

/// Starts logging for the whole process.
///
/// # Errors
/// If the log file cannot be opened.
pub(super) fn init(log: &Log) -> io::Result<()> {
    let writer = match &log.dir {
        None => BoxMakeWriter::new(io::stderr),
        Some(dir) => {
            let file = OpenOptions::new().create(true).append(true).open(dir.join("matriarch.log"))?;
            BoxMakeWriter::new(std::sync::Mutex::new(file))
        }
    };
    let filter = EnvFilter::new(format!(
        "{},hyper=warn,h2=warn,tower=warn,tonic=warn,kube_client=off",
        log.level.to_lowercase()
    ));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    match log.kind {
        LogKind::Plain => builder.with_ansi(false).init(),
        LogKind::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
