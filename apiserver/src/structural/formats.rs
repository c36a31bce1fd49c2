//! The formats of texts that Kubernetes checks in custom resources. Every other name is a remark, and nothing more.

use std::{net::IpAddr, sync::LazyLock};

use regex::Regex;

/// A format that is checked.
#[derive(Clone, Debug)]
pub struct Format {
    /// As the schema writes it: `date-time`.
    pub name: String,
    /// Without dashes: `datetime`.
    plain: Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    ObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid(Option<u8>),
    Isbn10,
    Isbn13,
    Isbn,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    Duration,
    DateTime,
}

impl Format {
    /// The format of that name, if it is one that is checked.
    pub fn named(name: &str) -> Option<Self> {
        let plain = match name.replace('-', "").as_str() {
            "bsonobjectid" => Plain::ObjectId,
            "uri" => Plain::Uri,
            "email" => Plain::Email,
            "hostname" => Plain::Hostname,
            "ipv4" => Plain::Ipv4,
            "ipv6" => Plain::Ipv6,
            "cidr" => Plain::Cidr,
            "mac" => Plain::Mac,
            "uuid" => Plain::Uuid(None),
            "uuid3" => Plain::Uuid(Some(b'3')),
            "uuid4" => Plain::Uuid(Some(b'4')),
            "uuid5" => Plain::Uuid(Some(b'5')),
            "isbn" => Plain::Isbn,
            "isbn10" => Plain::Isbn10,
            "isbn13" => Plain::Isbn13,
            "creditcard" => Plain::CreditCard,
            "ssn" => Plain::Ssn,
            "hexcolor" => Plain::HexColor,
            "rgbcolor" => Plain::RgbColor,
            "byte" => Plain::Byte,
            "password" => Plain::Password,
            "date" => Plain::Date,
            "duration" => Plain::Duration,
            "datetime" => Plain::DateTime,
            _ => return None,
        };
        Some(Self { name: name.to_owned(), plain })
    }

    /// Whether the text is of this format.
    pub fn fits(&self, text: &str) -> bool {
        match self.plain {
            Plain::ObjectId => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
            Plain::Uri => is_uri(text),
            Plain::Email => is_email(text),
            Plain::Hostname => is_hostname(text),
            Plain::Ipv4 => text.contains('.') && ip(text).is_some(),
            Plain::Ipv6 => text.contains(':') && text.parse::<IpAddr>().is_ok(),
            Plain::Cidr => is_cidr(text),
            Plain::Mac => is_mac(text),
            Plain::Uuid(version) => is_uuid(text, version),
            Plain::Isbn10 => is_isbn10(text),
            Plain::Isbn13 => is_isbn13(text),
            Plain::Isbn => is_isbn10(text) || is_isbn13(text),
            Plain::CreditCard => is_credit_card(text),
            Plain::Ssn => text.len() == 11 && SSN.is_match(text),
            Plain::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
            }
            Plain::RgbColor => RGB.is_match(text),
            Plain::Byte => BASE64.is_match(text),
            Plain::Password => true,
            Plain::Date => is_date(text),
            Plain::Duration => duration(text).is_some(),
            Plain::DateTime => is_date_time(text),
        }
    }
}

fn regex(source: &str) -> Regex {
    Regex::new(source).expect("it is written below, and tested")
}

static SSN: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"));
static RGB: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*";
    regex(&format!(r"^rgb\({part},{part},{part}\)$"))
});
static BASE64: LazyLock<Regex> =
    LazyLock::new(|| regex("^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"));
static CARD: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}\
         |3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$",
    )
});
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    let letter = r"[a-zA-Z0-9\p{S}\p{L}]";
    let inner = r"[a-zA-Z0-9\-\p{S}\p{L}]";
    regex(&format!(
        r"^({letter}((-?{letter}{{0,62}})?)|({letter}(({inner}{{0,61}}{letter})?)(\.)){{1,}}([a-zA-Z\p{{L}}]){{2,63}})$"
    ))
});
static DURATION: LazyLock<Regex> = LazyLock::new(|| regex(r"([0-9]+)\s*([A-Za-zµ]+)"));

fn is_hostname(text: &str) -> bool {
    text.len() <= 255 && text.split('.').all(|part| part.len() <= 63) && HOSTNAME.is_match(text)
}

/// An absolute URI, or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) || !escapes_are_whole(text) {
        return false;
    }
    if text.starts_with('/') || text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut letters = scheme.bytes();
    let named = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !named || rest.is_empty() && scheme.is_empty() {
        return false;
    }
    match rest.strip_prefix("//") {
        Some(authority) => {
            let authority = authority.split(['/', '?']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            let plain = |c: char| !matches!(c, ' ' | '<' | '>' | '"' | '\\' | '^' | '`' | '{' | '|' | '}');
            let port = match host.strip_prefix('[') {
                Some(inner) => match inner.split_once(']') {
                    Some((_, "")) => "",
                    Some((_, port)) => port.strip_prefix(':').unwrap_or("x"),
                    None => "x",
                },
                None => host.rsplit_once(':').map_or("", |(_, port)| port),
            };
            host.chars().all(plain) && port.bytes().all(|b| b.is_ascii_digit())
        }
        None => true, // opaque: mailto:someone
    }
}

/// Whether every percent sign is followed by two hexadecimal digits.
fn escapes_are_whole(text: &str) -> bool {
    let path = text.split('?').next().unwrap_or_default();
    path.split('%').skip(1).all(|after| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

/// An address as mail knows it, with or without a name before it.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.strip_suffix('>') {
        Some(named) => match named.rsplit_once('<') {
            Some((_, address)) => address,
            None => return false,
        },
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii())
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || local.split('.').all(atom)) && (literal || domain.split('.').all(atom))
}

/// An address as Go's lenient reader takes it: with leading zeros.
fn ip(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let parts: Vec<&str> = text.split('.').collect();
    let digits = |part: &&str| !part.is_empty() && part.len() <= 10 && part.bytes().all(|b| b.is_ascii_digit());
    if parts.len() != 4 || !parts.iter().all(digits) {
        return None;
    }
    let mut bytes = [0u8; 4];
    for (byte, part) in bytes.iter_mut().zip(parts) {
        *byte = u8::try_from(part.parse::<u64>().ok()?).ok()?;
    }
    Some(IpAddr::from(bytes))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match ip(address) {
        Some(IpAddr::V4(_)) => 32,
        Some(IpAddr::V6(_)) => 128,
        None => return false,
    };
    !length.is_empty()
        && length.len() <= 10
        && length.bytes().all(|b| b.is_ascii_digit())
        && length.parse::<u64>().is_ok_and(|length| length <= most)
}

fn is_mac(text: &str) -> bool {
    let (separator, width) = match text.as_bytes() {
        [_, _, b':', ..] => (':', 2),
        [_, _, b'-', ..] => ('-', 2),
        [_, _, _, _, b'.', ..] => ('.', 4),
        _ => return false,
    };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len() * width / 2, 6 | 8 | 20)
        && parts.iter().all(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    // Every dash may be left out.
    let mut digits = Vec::with_capacity(32);
    for b in text.bytes() {
        match b {
            b'-' if matches!(digits.len(), 8 | 12 | 16 | 20) => {}
            b if b.is_ascii_hexdigit() && digits.len() < 32 => digits.push(b.to_ascii_lowercase()),
            _ => return false,
        }
    }
    let dashes = text.bytes().filter(|b| *b == b'-').count();
    let twice = text.contains("--");
    let variant = |digits: &[u8]| matches!(digits[16], b'8' | b'9' | b'a' | b'b');
    digits.len() == 32
        && dashes <= 4
        && !twice
        && version.is_none_or(|version| digits[12] == version && (version == b'3' || variant(&digits)))
}

fn isbn_digits(text: &str) -> Vec<u8> {
    text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'-').collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = isbn_digits(text);
    if digits.len() != 10 || !digits[..9].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let last = match digits[9] {
        b'X' => 10,
        b if b.is_ascii_digit() => u32::from(b - b'0'),
        _ => return false,
    };
    let sum: u32 = (1..).zip(&digits[..9]).map(|(place, digit)| place * u32::from(digit - b'0')).sum();
    (sum + 10 * last).is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let digits = isbn_digits(text);
    if digits.len() != 13 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = digits[..12]
        .iter()
        .enumerate()
        .map(|(place, digit)| u32::from(digit - b'0') * if place % 2 == 0 { 1 } else { 3 })
        .sum();
    u32::from(digits[12] - b'0') == (10 - sum % 10) % 10
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if !CARD.is_match(&digits) {
        return false;
    }
    let doubled = |(place, digit): (usize, u8)| match (place % 2, u32::from(digit - b'0')) {
        (0, digit) => digit,
        (_, digit) if digit >= 5 => digit * 2 - 9,
        (_, digit) => digit * 2,
    };
    digits.bytes().rev().enumerate().map(doubled).sum::<u32>().is_multiple_of(10)
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return false;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u16> {
        let part = &bytes[range];
        part.iter()
            .all(u8::is_ascii_digit)
            .then(|| part.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
    };
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else { return false };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    (1..=days).contains(&day)
}

fn is_date_time(text: &str) -> bool {
    static TIME: LazyLock<Regex> =
        LazyLock::new(|| regex("^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"));
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    if !is_date(date) {
        return false;
    }
    TIME.captures(time).is_some_and(|found| &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59")
}

/// A duration in nanoseconds: as Go writes it, or in words such as `2 days`.
pub fn duration(text: &str) -> Option<i64> {
    if let Some(nanoseconds) = go_duration(text) {
        return Some(nanoseconds);
    }
    // The short names must match as they are; the long ones may be longer still: `seconds`.
    const UNITS: [(&[&str], i64); 8] = [
        (&["ns", "nano"], 1),
        (&["us", "µs", "micro"], 1_000),
        (&["ms", "milli"], 1_000_000),
        (&["s", "sec"], 1_000_000_000),
        (&["m", "min"], 60_000_000_000),
        (&["h", "hr", "hour"], 3_600_000_000_000),
        (&["d", "day"], 86_400_000_000_000),
        (&["w", "wk", "week"], 604_800_000_000_000),
    ];
    let mut sum = None;
    for found in DURATION.captures_iter(text) {
        let factor: i64 = found[1].parse().ok()?;
        let unit = found[2].to_lowercase();
        for (names, nanoseconds) in UNITS {
            let last = names.len() - 1;
            let fits = |(place, name): (usize, &&str)| unit == **name || (place == last && unit.starts_with(name));
            if names.iter().enumerate().any(fits) {
                sum = Some(sum.unwrap_or(0i64).wrapping_add(factor.wrapping_mul(nanoseconds)));
            }
        }
    }
    sum
}

/// A duration in nanoseconds, as Go reads `1h2m3.5s`.
pub fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 || fraction.contains('.') {
            return None;
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum += whole * scale;
        let mut place = scale;
        for digit in fraction.bytes() {
            place /= 10;
            sum += place * i128::from(digit - b'0');
        }
        rest = after;
        if sum > 1 << 64 {
            return None;
        }
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_takes_what_kubernetes_takes() {
        let cases: [(&str, &[&str], &[&str]); 22] = [
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f", ""]),
            ("uri", &["http://a.b/c?d", "/a", "mailto:x", "http://[::1]:80/"], &["a/b", "", "http://a b/", "1:x"]),
            ("email", &["a@b.c", "A B <a@b>"], &["a", "a@", "@b", "a b@c"]),
            ("hostname", &["a", "a.bc", "a-b.example.com"], &["-a", "a_b.com", "", "a.b.1"]),
            ("ipv4", &["1.2.3.4", "01.2.3.4"], &["1.2.3", "::1", "1.2.3.256"]),
            ("ipv6", &["::1", "::ffff:1.2.3.4"], &["1.2.3.4", ":::"]),
            ("cidr", &["1.2.3.0/24", "::/0"], &["1.2.3.0", "1.2.3.0/33"]),
            ("mac", &["01:23:45:67:89:ab", "0123.4567.89ab"], &["01:23", "01-23:45:67:89:ab"]),
            ("uuid", &["123e4567-e89b-12d3-a456-426614174000", "123E4567E89B12D3A456426614174000"], &["123e", ""]),
            ("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]),
            ("isbn", &["0321751043", "978-0321751041"], &["0321751044"]),
            ("isbn10", &["0321751043"], &["978-0321751041"]),
            ("isbn13", &["978-0321751041"], &["0321751043"]),
            ("creditcard", &["4111-1111-1111-1111"], &["4111-1111-1111-1112"]),
            ("ssn", &["111-11-1111"], &["111-11-11"]),
            ("hexcolor", &["#FFFFFF", "fff"], &["#FFFF", "#GGG"]),
            ("rgbcolor", &["rgb(255,255,2)"], &["rgb(256,0,0)"]),
            ("byte", &["aGk="], &["aGk", ""]),
            ("password", &["", "x"], &[]),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-2-9"]),
            ("duration", &["22 ns", "1h30m", "2 days", "-1.5s", "0"], &["x", "", "5"]),
            (
                "date-time",
                &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00"],
                &["2014-12-15", "2014-12-15T24:00:00Z", "2014-12-15T19:30:20"],
            ),
        ];
        for (name, good, bad) in cases {
            let format = Format::named(name).unwrap();
            for text in good {
                assert!(format.fits(text), "{name}: {text:?}");
            }
            for text in bad {
                assert!(!format.fits(text), "{name}: {text:?}");
            }
        }
        assert!(Format::named("int32").is_none(), "Kubernetes checks no ranges by format");
    }
}
