//! Amounts such as `500m`, `1.5` and `2Gi`: read, compared, added up, and written as Kubernetes writes them.

use std::fmt;

use serde_json::Value;

/// An amount. It is written in the form in which it was read; a sum in that of its first part that is not nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How much, in thousandths.
    pub thousandths: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// `5k`.
    #[default]
    Decimal,
    /// `5Ki`.
    Binary,
    /// `5e3`.
    Exponent,
}

impl Amount {
    /// So many of something.
    pub fn whole(number: usize) -> Self {
        Self { thousandths: i128::try_from(number).unwrap_or(i128::MAX / 1000) * 1000, form: Form::Decimal }
    }

    /// Reads an amount; nothing when the text is no quantity.
    pub fn read(quantity: &Value) -> Option<Self> {
        let form = match quantity.as_str() {
            Some(text) if text.ends_with('i') => Form::Binary,
            Some(text) if text.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').ends_with(['e', 'E']) => {
                // `1E` is a suffix, `1E3` an exponent.
                if text.ends_with('E') { Form::Decimal } else { Form::Exponent }
            }
            _ => Form::Decimal,
        };
        Some(Self { thousandths: thousandths(quantity)?, form })
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let form = if self.thousandths == 0 { other.form } else { self.form };
        Self { thousandths: self.thousandths.saturating_add(other.thousandths), form }
    }

    /// What is left without `other`; nothing rather than less.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self { thousandths: self.thousandths.saturating_sub(other.thousandths).max(0), ..self }
    }

    /// The larger one of both.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        if other.thousandths > self.thousandths { other } else { self }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let fraction = self.thousandths % 1000 != 0;
        let (step, suffixes, mut number) = match self.form {
            // A part of a byte counts as one.
            Form::Binary if self.thousandths.abs() >= 1_024_000 => (1024, BINARY, (self.thousandths + 999) / 1000),
            _ if fraction => {
                return write!(f, "{}{}", self.thousandths, if self.form == Form::Exponent { "e-3" } else { "m" });
            }
            _ => (1000, DECIMAL, self.thousandths / 1000),
        };
        let mut power = 0;
        while number != 0 && number % step == 0 && power + 1 < suffixes.len() {
            number /= step;
            power += 1;
        }
        match (self.form, power) {
            (Form::Exponent, 1..) => write!(f, "{number}e{}", 3 * power),
            _ => write!(f, "{number}{}", suffixes[power]),
        }
    }
}

/// The amount in thousandths, or nothing when the text is no quantity. Finer digits are rounded up, as in Kubernetes.
pub fn thousandths(quantity: &Value) -> Option<i128> {
    let (amount, divisor, negative) = exactly(quantity)?;
    let amount = (amount + divisor - 1) / divisor;
    Some(if negative { -amount } else { amount })
}

/// As Kubernetes writes the quantity, if it writes it otherwise: `1024Mi` is `1Gi`. Nothing for what is finer than thousandths.
pub fn canonical(quantity: &Value) -> Option<String> {
    let (amount, divisor, _) = exactly(quantity)?;
    let read = Amount::read(quantity)?;
    let is_exact = amount % divisor == 0 && (read.form != Form::Binary || read.thousandths % 1000 == 0);
    let written = is_exact.then(|| read.to_string())?;
    (quantity.as_str() != Some(&written)).then_some(written)
}

/// Thousandths as a fraction, and whether there are fewer than none.
fn exactly(quantity: &Value) -> Option<(i128, i128, bool)> {
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
    Some((all.checked_mul(factor)?.checked_mul(1000)?, divisor, negative))
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
    fn amounts_are_added_up_and_written_as_in_kubernetes() {
        let written = |text: &str| Amount::read(&json!(text)).expect("a quantity").to_string();
        let cases = [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1024Ki", "1Mi"),
            ("512Ki", "512Ki"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1e3"),
            ("1500e-3", "1500e-3"),
            ("2E", "2E"),
            ("0", "0"),
            ("0.5Ki", "512"),
        ];
        for (text, expected) in cases {
            assert_eq!(written(text), expected, "{text}");
        }
        let amount = |text: &str| Amount::read(&json!(text)).expect("a quantity");
        let sum = |all: &[&str]| all.iter().fold(Amount::default(), |sum, text| sum.plus(amount(text))).to_string();
        assert_eq!(sum(&["100Mi", "924Mi"]), "1Gi");
        assert_eq!(sum(&["100m", "1"]), "1100m");
        assert_eq!(amount("1Gi").less(amount("2Gi")).to_string(), "0");
        assert_eq!(Amount::whole(3).less(amount("1")).to_string(), "2");
        assert_eq!(amount("1").or_more(amount("1500m")).to_string(), "1500m");
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
            Amount::read(&json!(text)).map(|amount| amount.plus(amount).to_string());
        }
    }
}
