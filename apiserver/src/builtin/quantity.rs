//! Amounts such as `500m`, `1.5` and `2Gi`, as far as reading and comparing them goes.

use serde_json::Value;

/// The amount in thousandths, or nothing when the text is no quantity. Finer digits are rounded up, as in Kubernetes.
pub fn thousandths(quantity: &Value) -> Option<i128> {
    let text = match quantity {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (factor, divisor) = scale(suffix)?;
    let negative = number.starts_with('-');
    let number = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() + fraction.len() > 18 {
        return None;
    }
    // A sign among the digits would be read as one before them.
    let digits = format!("{whole}{fraction}");
    let all: i128 = digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())??;
    let divisor = divisor * 10i128.pow(u32::try_from(fraction.len()).ok()?);
    let amount = all.checked_mul(factor)?.checked_mul(1000)?;
    let amount = (amount + divisor - 1) / divisor;
    Some(if negative { -amount } else { amount })
}

/// What Go would say that cannot read the amount, in its own words. It reads more digits than can be compared here.
pub fn unreadable(quantity: &Value) -> Option<String> {
    let text = match quantity {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let number = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let (whole, rest) = number.split_at(digits(number));
    let fraction = rest.strip_prefix('.').map_or(0, digits);
    let suffix = rest.strip_prefix('.').map_or(rest, |rest| &rest[fraction..]);
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if whole.len() + fraction == 0 || digits(exponent) < exponent.len() {
        let expression = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$";
        return Some(format!("quantities must match the regular expression '{expression}'"));
    }
    scale(suffix).is_none().then(|| "unable to parse quantity's suffix".to_owned())
}

/// With how many digits the text begins.
fn digits(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
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
            (json!(".-0"), None),
            (json!("--1"), None),
            (json!("1.+5"), None),
            (json!("5x"), None),
            (json!(true), None),
        ];
        for (quantity, expected) in cases {
            assert_eq!(thousandths(&quantity), expected, "{quantity}");
        }
    }

    #[test]
    fn what_go_cannot_read_is_told_in_its_words() {
        let good = [
            json!("1"),
            json!("500m"),
            json!(" 2Gi "),
            json!("-1.5"),
            json!("+.5"),
            json!("1."),
            json!("1e3"),
            json!("1E-3"),
            json!("1E"),
            json!("0.1234567890123456789012345"),
            json!(2),
            json!(0.5),
            json!(1e30),
            json!(-3),
        ];
        for quantity in good {
            assert_eq!(unreadable(&quantity), None, "{quantity}");
        }
        let form = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        for quantity in [json!(""), json!("lots"), json!("1.2.3"), json!("5 Gi"), json!("1KB"), json!(true), json!({})]
        {
            assert_eq!(unreadable(&quantity).as_deref(), Some(form), "{quantity}");
        }
        for quantity in ["1-", "1e", "1Gi5", "1ki", "1mm"] {
            assert_eq!(
                unreadable(&json!(quantity)).as_deref(),
                Some("unable to parse quantity's suffix"),
                "{quantity}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_can_be_compared_can_be_read_and_no_text_makes_the_reader_panic(
            text in "[-+]?[0-9.]{0,5}([eE][-+]?[0-9]{0,3}|[KMGTPEnumki]{0,2})|[-+]?[0-9.]{0,25}[a-zA-Z0-9-]{0,4}|.{0,20}"
        ) {
            let quantity = json!(text);
            prop_assert!(thousandths(&quantity).is_none() || unreadable(&quantity).is_none(), "{text:?}");
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-+]?[0-9.]{0,25}[a-zA-Z0-9-]{0,4}|.{0,20}") {
            thousandths(&json!(text));
        }
    }
}
