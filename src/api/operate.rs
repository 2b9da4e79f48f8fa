//! Orders to this member alone: restart, reload, reinitialize.

use serde_json::{Map, Value};

use super::answer::HttpAnswer;
use super::time::{self, ScheduleFault};
use crate::agent::Handle;
use crate::model::{Ask, Reply, RestartFilter, WallTime};
use crate::os::clock;

/// POST /restart.
pub(super) async fn restart(handle: &Handle, body: &Map<String, Value>) -> Result<Reply, HttpAnswer> {
    let (at, filter) = restart_of(body, clock::wall())?;
    if at.is_some() && handle.status().settings.pause {
        return Err(HttpAnswer::text(500, "Can't schedule restart in the paused state"));
    }
    Ok(handle.ask(Ask::Restart { at, filter }).await)
}

/// DELETE /restart.
pub(super) async fn cancel_restart(handle: &Handle) -> Reply {
    handle.ask(Ask::CancelRestart).await
}

/// POST /reload.
pub(super) async fn reload(handle: &Handle) -> Result<HttpAnswer, HttpAnswer> {
    handle.reload().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    Ok(HttpAnswer::text(202, "reload scheduled"))
}

/// POST /reinitialize.
pub(super) async fn reinitialize(handle: &Handle, body: &Map<String, Value>) -> Reply {
    let flag = |key: &str| body.get(key) == Some(&Value::Bool(true));
    let ask =
        Ask::Reinitialize { force: flag("force"), from_leader: flag("from_leader") || flag("from-leader") };
    handle.ask(ask).await
}

fn restart_of(
    body: &Map<String, Value>,
    now: WallTime,
) -> Result<(Option<WallTime>, RestartFilter), HttpAnswer> {
    let refused = |text: String| HttpAnswer::text(400, text);
    let mut at = None;
    let mut filter = RestartFilter::default();
    for (key, value) in body {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match key.as_str() {
            "schedule" => at = schedule_of(value, "restart", now)?,
            "role" if ["primary", "standby_leader", "replica"].contains(&text.as_str()) => {
                filter.role = Some(text)
            }
            "role" => {
                let text = "PostgreSQL role should be either primary, standby_leader, or replica";
                return Err(refused(text.to_owned()));
            }
            "postgres_version" => {
                let fault = || format!("Invalid PostgreSQL version: X.Y or X.Y.Z is accepted: {text}");
                filter.below_version = Some(version_number(&text).ok_or_else(|| refused(fault()))?);
            }
            "timeout" => match milliseconds(&text) {
                Some(timeout) if timeout > 0 => filter.timeout_ms = Some(timeout),
                Some(_) | None => {
                    return Err(refused("Timeout should be a positive number of seconds".to_owned()));
                }
            },
            "restart_pending" => filter.pending_only = true,
            other => return Err(refused(format!("Unknown filter for the scheduled restart: {other}"))),
        }
    }
    Ok((at, filter))
}

/// Parses a schedule; null and an empty text mean none.
pub(super) fn schedule_of(value: &Value, what: &str, now: WallTime) -> Result<Option<WallTime>, HttpAnswer> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    time::schedule(&text, now).map(Some).map_err(|fault| match fault {
        ScheduleFault::NoZone => {
            HttpAnswer::text(400, format!("Timezone information is mandatory for the scheduled {what}"))
        }
        ScheduleFault::Past => HttpAnswer::text(422, format!("Cannot schedule {what} in the past")),
        ScheduleFault::Garbage => HttpAnswer::text(
            422,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        ),
    })
}

/// `X.Y` (10 and later) or `X.Y.Z` as `server_version_num`.
fn version_number(text: &str) -> Option<u32> {
    let parts: Vec<u32> =
        text.split('.').map(|part| part.parse().ok().filter(|part| *part < 100)).collect::<Option<_>>()?;
    match parts[..] {
        [major, minor] if major >= 10 => Some(major * 10_000 + minor),
        [major, middle, minor] => Some(major * 10_000 + middle * 100 + minor),
        _ => None,
    }
}

/// Seconds, or a time span with a unit, in milliseconds.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "ms" => 1.0,
        "" | "s" => 1e3,
        "min" => 6e4,
        "h" => 3.6e6,
        "d" => 8.64e7,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * scale).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<(Option<WallTime>, RestartFilter), u16> {
        let Value::Object(body) = body else { unreachable!("cases are objects") };
        restart_of(&body, WallTime(0)).map_err(|answer| answer.status)
    }

    #[test]
    fn reads_every_filter() {
        let (at, filter) = read(json!({"schedule": "2030-01-01T00:00:00Z", "role": "replica",
            "postgres_version": "15.4", "timeout": "2min", "restart_pending": false}))
        .expect("valid");
        assert_eq!(at, Some(WallTime(1_893_456_000_000)));
        let expected = RestartFilter {
            role: Some("replica".to_owned()),
            below_version: Some(150_004),
            pending_only: true,
            timeout_ms: Some(120_000),
        };
        assert_eq!(filter, expected);
        assert_eq!(read(json!({"timeout": 5})).map(|(_, filter)| filter.timeout_ms), Ok(Some(5000)));
        assert_eq!(read(json!({})), Ok((None, RestartFilter::default())));
    }

    #[test]
    fn invalid_restart_requests_are_refused() {
        let cases = [
            (json!({"schedule": "2030-01-01T00:00:00"}), 400),
            (json!({"schedule": "1960-01-01T00:00:00Z"}), 422),
            (json!({"schedule": "tea time"}), 422),
            (json!({"role": "master"}), 400),
            (json!({"postgres_version": "15"}), 400),
            (json!({"postgres_version": "9.6"}), 400),
            (json!({"timeout": 0}), 400),
            (json!({"timeout": "-1"}), 400),
            (json!({"colour": 1}), 400),
        ];
        for (body, status) in cases {
            assert_eq!(read(body.clone()), Err(status), "{body}");
        }
    }
}
