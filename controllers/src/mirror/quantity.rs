//! Quantities of Kubernetes as whole numbers of a unit, rounded up.

/// How many thousandths: `250m` is 250, `2` is 2000.
pub(super) fn thousandths(quantity: &str) -> Option<i64> {
    in_units(quantity, 1000, 1)
}

/// How many MiB: `2Gi` is 2048.
pub(super) fn mebibytes(quantity: &str) -> Option<i64> {
    in_units(quantity, 1, 1 << 20)
}

/// The quantity times `times` by `by`. What is too large becomes the largest number; what is no quantity is nothing.
fn in_units(quantity: &str, times: i128, by: i128) -> Option<i64> {
    let ends = quantity.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(ends);
    let (number, negative) = match number.strip_prefix('-') {
        Some(number) => (number, true),
        None => (number.strip_prefix('+').unwrap_or(number), false),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = || whole.chars().chain(part.chars());
    if digits().count() == 0 || !digits().all(|c| c.is_ascii_digit()) {
        return None;
    }
    // More digits than this make no difference, or too large a number.
    let mut part = part;
    part = &part[..part.len().min(18)];
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(i128::from(i64::MAX)) };
    let whole = whole.min(i64::MAX.into());
    let below = 10_i128.pow(u32::try_from(part.len()).ok()?);
    let part: i128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let (mut above, mut below) = (whole.checked_mul(below)?.checked_add(part)?, below.checked_mul(by)?);
    match scale(suffix)? {
        Scale::Times(factor) => above = above.saturating_mul(factor),
        Scale::By(factor) => below = below.saturating_mul(factor),
    }
    above = above.saturating_mul(times);
    let rounded = above / below + i128::from(above % below != 0);
    let rounded = i64::try_from(rounded).unwrap_or(i64::MAX);
    Some(if negative { -rounded } else { rounded })
}

enum Scale {
    Times(i128),
    By(i128),
}

fn scale(suffix: &str) -> Option<Scale> {
    let exponent = |at: usize, base: i128| Scale::Times(base.pow(u32::try_from(at + 1).unwrap_or_default()));
    match suffix {
        "" => return Some(Scale::Times(1)),
        "m" => return Some(Scale::By(1_000)),
        "u" => return Some(Scale::By(1_000_000)),
        "n" => return Some(Scale::By(1_000_000_000)),
        _ => {}
    }
    if let Some(at) = ["k", "M", "G", "T", "P", "E"].iter().position(|unit| *unit == suffix) {
        return Some(exponent(at, 1000));
    }
    if let Some(at) = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|unit| *unit == suffix) {
        return Some(exponent(at, 1024));
    }
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let factor = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= 18)?;
    Some(if power < 0 { Scale::By(factor) } else { Scale::Times(factor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mirror of OneX took quantities for whole numbers: the share of the processor was always 0, and 2Gi was negative.
    #[test]
    fn b16_a_part_of_a_core_is_not_nothing_and_memory_does_not_overflow() {
        for (text, expected) in [
            ("250m", Some(250)),
            ("50m", Some(50)),
            ("2", Some(2000)),
            ("0.1", Some(100)),
            ("1.5", Some(1500)),
            ("1u", Some(1)),
            ("1k", Some(1_000_000)),
            ("1e3", Some(1_000_000)),
            ("-2", Some(-2000)),
            (".5", Some(500)),
            ("0", Some(0)),
            ("", None),
            (".", None),
            ("much", None),
            ("1Zi", None),
            ("1.2.3", None),
            ("1e999", None),
            ("99999999999999999999999999", Some(i64::MAX)),
        ] {
            assert_eq!(thousandths(text), expected, "{text}");
        }
        for (text, expected) in [
            ("128Mi", Some(128)),
            ("1Gi", Some(1024)),
            ("2Gi", Some(2048)),
            ("2048Mi", Some(2048)),
            ("1T", Some(953_675)),
            ("1", Some(1)),
            ("1048576", Some(1)),
            ("0.5Gi", Some(512)),
            ("9Ei", Some(9 << 40)),
        ] {
            assert_eq!(mebibytes(text), expected, "{text}");
        }
    }
}
