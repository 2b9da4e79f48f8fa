//! Booleans, numbers and sizes as Patroni and PostgreSQL write them.

use std::time::Duration;

/// on, true, yes, 1 and their opposites, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// A whole number: decimal, `0x` hexadecimal, or octal with a leading zero.
pub(super) fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let number = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        i64::from_str_radix(hex, 16).ok()?
    } else if digits.len() > 1
        && digits.starts_with('0')
        && digits.bytes().all(|digit| digit.is_ascii_digit())
    {
        i64::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(if negative { -number } else { number })
}

/// A number with an optional unit of `units`, in units of 1; fractions are rounded.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic() && !text.starts_with("0x")).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number = match integer(number) {
        Some(number) => number as f64,
        None => number.trim().parse::<f64>().ok().filter(|number| number.is_finite())?,
    };
    match unit.trim() {
        "" => Some(number),
        unit => units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| number * factor),
    }
}

/// Bytes: `10MB`, `1.5GB`, `16kB`; powers of 1024.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let kib: f64 = 1024.0;
    let units = [("B", 1.0), ("kB", kib), ("MB", kib * kib), ("GB", kib.powi(3)), ("TB", kib.powi(4))];
    scaled(text, &units).map(|number| number.round() as i64)
}

/// Time: `30min`, `500ms`, `2h`, `1d`; without a unit, seconds.
pub(super) fn span(text: &str) -> Option<Duration> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];
    let seconds = scaled(text, &units)?;
    (0.0..1e12).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_and_without_units() {
        assert_eq!(integer("0x10"), Some(16));
        assert_eq!(integer("010"), Some(8));
        assert_eq!(integer("-7"), Some(-7));
        assert_eq!(integer("7x"), None);
        assert_eq!(bytes("10MB"), Some(10 << 20));
        assert_eq!(bytes("1.5GB"), Some(3 << 29));
        assert_eq!(bytes("1048576"), Some(1 << 20));
        assert_eq!(bytes("1 XB"), None);
        assert_eq!(span("30min"), Some(Duration::from_secs(1800)));
        assert_eq!(span("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(span("-1"), None);
        assert_eq!(boolean("Yes"), Some(true));
        assert_eq!(boolean("maybe"), None);
    }
}
