//! A time at which a command is to act.

use super::error::CliError;

/// A time in the members' format, with a zone; `None` for `now`.
pub(super) fn schedule(text: &str) -> Result<Option<String>, CliError> {
    let text = text.trim();
    if text.is_empty() || text == "now" {
        return Ok(None);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Some(at.to_string()));
    }
    let local =
        text.parse::<jiff::civil::DateTime>().and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()));
    match local {
        Ok(at) => Ok(Some(at.timestamp().to_string())),
        Err(error) => Err(CliError::usage(format!("`{text}` is not a time"))
            .because(&error)
            .hint("use the format 2027-01-31T04:00:00+01:00")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        assert_eq!(schedule("now").expect("now"), None);
        let at = schedule("2027-01-31T04:00:00+01:00").expect("a time");
        assert_eq!(at.as_deref(), Some("2027-01-31T03:00:00Z"));
        assert!(schedule("2027-01-31T04:00").expect("local time").is_some());
        assert!(schedule("tomorrow").is_err());
    }
}
