//! Timestamps as text, and text as schedules.

use jiff::Timestamp;

use crate::model::WallTime;

/// `2026-11-22T21:50:10.915000+00:00`, without the fraction when it is zero.
pub fn iso(at: WallTime) -> String {
    let Ok(timestamp) = Timestamp::from_millisecond(at.0) else {
        return at.0.to_string();
    };
    let format = if at.0 % 1000 == 0 { "%Y-%m-%dT%H:%M:%S+00:00" } else { "%Y-%m-%dT%H:%M:%S%.6f+00:00" };
    timestamp.strftime(format).to_string()
}

/// RFC 3339 as `2026-11-22 21:50:10.915509+00:00`; other text stays unchanged.
pub(super) fn with_space(rfc3339: &str) -> String {
    match rfc3339.parse::<Timestamp>() {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string(),
        Err(_) => rfc3339.to_owned(),
    }
}

/// RFC 3339 as seconds since the Unix epoch.
pub(super) fn epoch(rfc3339: &str) -> Option<f64> {
    let timestamp = rfc3339.parse::<Timestamp>().ok()?;
    Some(timestamp.as_microsecond() as f64 / 1e6)
}

/// Why a schedule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleFault {
    /// It has no time zone.
    NoZone,
    /// It has passed.
    Past,
    /// It is not a time.
    Garbage,
}

/// Parses a future time with its zone.
pub fn schedule(text: &str, now: WallTime) -> Result<WallTime, ScheduleFault> {
    let text = text.trim();
    // People use forms that dateutil accepted: `... UTC`, and a blank before the offset.
    let text =
        text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |rest| format!("{}Z", rest.trim_end()));
    let text = text.replacen(" +", "+", 1).replacen(" -", "-", 1);
    match text.parse::<Timestamp>() {
        Ok(at) if at.as_millisecond() < now.0 => Err(ScheduleFault::Past),
        Ok(at) => Ok(WallTime(at.as_millisecond())),
        Err(_) if text.parse::<jiff::civil::DateTime>().is_ok() => Err(ScheduleFault::NoZone),
        Err(_) => Err(ScheduleFault::Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_schedules() {
        let now = WallTime(1_795_384_262_000);
        let cases = [
            ("2026-11-30T10:00:00+00:00", Ok(WallTime(1_796_032_800_000))),
            ("2026-11-30 10:00:00Z", Ok(WallTime(1_796_032_800_000))),
            ("2026-11-30 10:00 UTC", Ok(WallTime(1_796_032_800_000))),
            ("2026-11-30T12:00+02:00", Ok(WallTime(1_796_032_800_000))),
            ("2026-11-30T10:00:00", Err(ScheduleFault::NoZone)),
            ("2016-11-30T10:00:00Z", Err(ScheduleFault::Past)),
            ("soon", Err(ScheduleFault::Garbage)),
            ("", Err(ScheduleFault::Garbage)),
        ];
        for (text, expected) in cases {
            assert_eq!(schedule(text, now), expected, "{text}");
        }
    }

    #[test]
    fn writes_timestamps_as_python_does() {
        assert_eq!(iso(WallTime(1_796_032_800_000)), "2026-11-30T10:00:00+00:00");
        assert_eq!(iso(WallTime(1_796_032_800_250)), "2026-11-30T10:00:00.250000+00:00");
        assert_eq!(with_space("2026-11-22T21:50:10.915509Z"), "2026-11-22 21:50:10.915509+00:00");
        assert_eq!(with_space("2026-11-22T22:50:10.915509+01:00"), "2026-11-22 21:50:10.915509+00:00");
        assert_eq!(epoch("1970-01-01T00:00:01.5Z"), Some(1.5));
    }
}
