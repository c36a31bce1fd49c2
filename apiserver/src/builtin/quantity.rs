//! Amounts such as `500m`, `1.5` and `2Gi`, as far as comparing them goes.

use serde_json::Value;

/// The amount in thousandths, or nothing when the text is no quantity. Finer digits are rounded up, as in Kubernetes.
pub fn thousandths(quantity: &Value) -> Option<i128> {
    let text = match quantity {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (factor, divisor) = scale(suffix)?;
    let negative = number.starts_with('-');
    let number = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() + fraction.len() > 18 {
        return None;
    }
    let all: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = divisor * 10i128.pow(u32::try_from(fraction.len()).ok()?);
    let amount = all.checked_mul(factor)?.checked_mul(1000)?;
    let amount = (amount + divisor - 1) / divisor;
    Some(if negative { -amount } else { amount })
}

/// What a suffix multiplies by, and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1i128 << (10 * power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => Some((1000, 1)),
        "M" => Some((1_000_000, 1)),
        "G" => Some((1_000_000_000, 1)),
        "T" => Some((10i128.pow(12), 1)),
        "P" => Some((10i128.pow(15), 1)),
        "E" => Some((10i128.pow(18), 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.pow(exponent.unsigned_abs().min(18));
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_compare_whatever_they_are_written_in() {
        let cases = [
            (json!("500m"), Some(500)),
            (json!("0.5"), Some(500)),
            (json!(2), Some(2000)),
            (json!("1Ki"), Some(1_024_000)),
            (json!("1e3"), Some(1_000_000)),
            (json!("-1"), Some(-1000)),
            (json!("1n"), Some(1)),
            (json!("abc"), None),
            (json!(""), None),
            (json!("1.2.3"), None),
            (json!("5x"), None),
            (json!(true), None),
        ];
        for (quantity, expected) in cases {
            assert_eq!(thousandths(&quantity), expected, "{quantity}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[-+]?[0-9.]{0,25}[a-zA-Z0-9-]{0,4}|.{0,20}") {
            thousandths(&json!(text));
        }
    }
}
