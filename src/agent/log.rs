//! The destination of log lines: standard error or a file, as text or as JSON. A thread that logs waits for neither.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::log_lines::LogLines;
use crate::config::{Log, LogFile};
use crate::os::output::{self, LossyWriter};
use crate::os::rotated_file::RotatedFile;

/// How long the end of the process waits until the last lines are written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

static WRITER: OnceLock<LossyWriter> = OnceLock::new();
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging for the whole process.
///
/// # Errors
/// If the log file cannot be opened, or its thread not be started.
pub fn init(log: &Log) -> io::Result<()> {
    let dropped = |lines| {
        tracing::warn!(lines, "log lines were dropped: the log was not read, or its disk is full");
    };
    let writer = match &log.file {
        None => LossyWriter::start(output::stderr()?, dropped)?,
        Some(LogFile { dir, size_max, older, mode }) => {
            let file = RotatedFile::open(dir.join("matriarch.log"), *size_max, *older, *mode)?;
            LossyWriter::start(file, dropped)?
        }
    };
    let writer = WRITER.get_or_init(|| writer).clone();
    let (filter, handle) = reload::Layer::new(targets(log));
    let _ = FILTER.set(handle);
    let logger = tracing_subscriber::registry().with(filter);
    let layer = layer().with_writer(move || writer.clone()).with_target(false);
    match LogLines::of(log) {
        Some(lines) => logger.with(layer.event_format(lines)).init(),
        None => logger.with(layer.with_ansi(false)).init(),
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(())
}

/// The lines to log.
fn targets(log: &Log) -> Targets {
    let quiet = ["hyper", "h2", "tower", "tonic"].map(|target| (target, LevelFilter::WARN));
    // The module `kube` logs the Kubernetes client's errors once each.
    let silent = [("kube_client", LevelFilter::OFF)];
    let level = log.level.parse().unwrap_or(LevelFilter::INFO);
    Targets::new().with_default(level).with_targets(quiet).with_targets(silent)
}

/// Uses another level from now on.
pub(super) fn set_level(log: &Log) {
    match FILTER.get().map(|filter| filter.reload(targets(log))) {
        Some(Ok(())) => tracing::info!(level = log.level, "the log has another level"),
        Some(Err(error)) => tracing::warn!(%error, "could not change the level of the log"),
        None => {}
    }
}

/// The number of lines dropped so far.
pub(super) fn dropped() -> u64 {
    WRITER.get().map_or(0, LossyWriter::dropped)
}

/// Waits a moment until the last lines are written.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        let _ = writer.flush(FLUSH_WITHIN);
    }
}
