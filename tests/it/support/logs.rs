//! A supervisor's log: an ERROR line fails the test unless it is expected, and a failure shows the tail.

use std::path::Path;

/// Lines of level ERROR that contain no `expected` text. The `ERROR:` of Postgres does not count.
pub(crate) fn unexpected_errors(log: &Path, expected: &[String]) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .filter(|line| line.split_whitespace().take(3).any(|word| word == "ERROR"))
        .filter(|line| !expected.iter().any(|expected| line.contains(expected.as_str())))
        .map(str::to_owned)
        .collect()
}

/// What a standby without a source repeats twice a second.
const WAITS: &str = "waiting for WAL to become available";

/// The last lines of a log, indented.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().filter(|line| !line.contains(WAITS)).collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
}

#[test]
fn an_error_line_of_the_supervisor_is_seen_and_one_of_postgres_is_not() {
    let place = super::Place::new();
    let log = place.path().join("log");
    std::fs::write(&log, "12:00 INFO fine\n12:01 ERROR broken\n12:02 [7] ERROR:  relation\n")
        .expect("writable");
    assert_eq!(unexpected_errors(&log, &[]), ["12:01 ERROR broken"]);
    assert!(unexpected_errors(&log, &["broken".to_owned()]).is_empty());
    assert_eq!(tail(&log, 1), "    12:02 [7] ERROR:  relation\n");
}
