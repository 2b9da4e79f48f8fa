//! What an unquoted YAML scalar means, as PyYAML's loader (YAML 1.1) has read it for Patroni so far.

use super::tree::Value;

/// The meaning of an unquoted scalar.
pub(super) fn plain(written: &str) -> Value {
    match written {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => match (integer(written), float(written)) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Float(number),
            (None, None) => Value::Text(written.to_owned()),
        },
    }
}

fn split_sign(text: &str) -> (i64, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Decimal, `0b`, `0x`, octal with a leading zero, and sexagesimal; underscores between digits are skipped.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = split_sign(text);
    let number = |digits: &str, radix: u32| {
        let allowed = |c: char| c == '_' || c.is_digit(radix);
        let plain: String = digits.chars().filter(|c| *c != '_').collect();
        let fits = !plain.is_empty() && digits.chars().all(allowed);
        fits.then(|| i64::from_str_radix(&plain, radix).ok()).flatten()
    };
    let first = digits.chars().next().filter(char::is_ascii_digit)?;
    let value = if let Some(rest) = digits.strip_prefix("0b") {
        number(rest, 2)
    } else if let Some(rest) = digits.strip_prefix("0x") {
        number(rest, 16)
    } else if digits == "0" {
        Some(0)
    } else if first == '0' {
        number(digits.strip_prefix('0')?, 8)
    } else if digits.contains(':') {
        let mut parts = digits.split(':');
        let head = number(parts.next()?, 10)?;
        parts.try_fold(head, |sum, part| sum.checked_mul(60)?.checked_add(sixtieth(part)?))
    } else {
        number(digits, 10)
    };
    value?.checked_mul(sign)
}

/// One or two digits that make a number below sixty.
fn sixtieth(part: &str) -> Option<i64> {
    let digits = matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| part.parse().ok()).flatten().filter(|number| *number < 60)
}

/// With a point; an exponent needs a sign: `1e5` is a text.
fn float(text: &str) -> Option<f64> {
    let (_, unsigned) = split_sign(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return None;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let digits = |text: &str| text.chars().all(|c| c == '_' || c.is_ascii_digit());
    let starts = mantissa.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    let signed = |exponent: &str| {
        let rest = exponent.strip_prefix(['+', '-']);
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_float = starts && digits(whole) && digits(fraction) && exponent.is_none_or(signed);
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    is_float.then(|| plain.parse().ok()).flatten().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_pyyaml_says() {
        let text = |text: &str| Value::Text(text.to_owned());
        let cases = [
            ("on", Value::Bool(true)),
            ("OFF", Value::Bool(false)),
            ("y", text("y")),
            ("oN", text("oN")),
            ("~", Value::Null),
            ("5432", Value::Int(5432)),
            ("0600", Value::Int(384)),
            ("0900", text("0900")),
            ("0x1F", Value::Int(31)),
            ("12:34:56", Value::Int(45296)),
            ("127.0.0.1:5432", text("127.0.0.1:5432")),
            ("1.5", Value::Float(1.5)),
            ("1e5", text("1e5")),
            ("99999999999999999999", text("99999999999999999999")),
            ("2026-11-23", text("2026-11-23")),
        ];
        for (written, meant) in cases {
            assert_eq!(plain(written), meant, "{written}");
        }
    }
}
