//! Durations as Go writes them (`10s`, `1m30s`, `12h0m0s`), which is how Kubernetes' users write them too.

use std::time::Duration;

/// The longest duration Go can hold: 2^63 - 1 nanoseconds, some 292 years.
const LONGEST: u128 = i64::MAX as u128;

/// Reads a duration of zero or more, in Go's form.
///
/// ```
/// use std::time::Duration;
/// use onex_crds::duration::parse;
/// assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
/// assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5400)));
/// assert!(parse("-1s").is_err());
/// ```
///
/// # Errors
/// Says what is wrong, in the words of a field error.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    const MALFORMED: &str = "must be a duration such as 10s or 1m30s";
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut rest = unsigned;
    let mut nanoseconds: u128 = 0;
    // Go allows a zero without a unit, and nothing else without one.
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(MALFORMED);
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(MALFORMED)?;
        let (digits, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let part = part(digits, nanoseconds_of(unit).ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        nanoseconds = nanoseconds.checked_add(part).filter(|sum| *sum <= LONGEST).ok_or("is too long")?;
        rest = after;
    }
    if text.starts_with('-') && nanoseconds > 0 {
        return Err("must be greater than or equal to 0");
    }
    Ok(Duration::from_nanos(u64::try_from(nanoseconds).map_err(|_| "is too long")?))
}

/// `seconds` as Go writes a duration: `1s`, `1m0s`, `12h0m0s`.
///
/// ```
/// assert_eq!(onex_crds::duration::of_seconds(43_200), "12h0m0s");
/// ```
pub fn of_seconds(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn nanoseconds_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `digits` (which may have one point) of a unit, in nanoseconds; `None` when it is no number or far too large.
fn part(digits: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut sum = whole.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        scale /= 10;
        sum = sum.checked_add(u128::from(digit - b'0') * scale)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads_is_read() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("10s", 10_000),
            ("+1m0.5s", 60_500),
            (".5s", 500),
            ("1h2m3s4ms", 3_723_004),
            ("1.s", 1000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_and_nothing_panics() {
        for text in [
            "",
            "10",
            "s",
            "-",
            "ten",
            "1e3s",
            "1h-5s",
            "-1s",
            ".s",
            "1..5s",
            "99999999999999999999h",
            "300000000h",
            "1s ",
            "1sm",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_are_written_as_go_writes_them() {
        for (seconds, text) in
            [(0, "0s"), (1, "1s"), (60, "1m0s"), (3_600, "1h0m0s"), (43_200, "12h0m0s"), (3_661, "1h1m1s")]
        {
            assert_eq!(of_seconds(seconds), text);
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)));
        }
    }
}
