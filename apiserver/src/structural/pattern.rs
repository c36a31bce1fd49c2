//! Regular expressions as Go writes them, for an engine that reads them a little differently.

use regex::{Regex, RegexBuilder};

/// A compiled expression takes no more memory than this.
const MOST_BYTES: usize = 1 << 20;

/// Compiles an expression in the syntax of Go, where `\d`, `\w`, `\s` and `\b` know only ASCII.
pub fn compile(source: &str) -> Result<Regex, String> {
    RegexBuilder::new(&translated(source))
        .size_limit(MOST_BYTES)
        .dfa_size_limit(MOST_BYTES)
        .nest_limit(100)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("error parsing regexp: expression too large: `{source}`")
            }
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                format!("error parsing regexp: {}: `{source}`", last.strip_prefix("error: ").unwrap_or(last))
            }
        })
}

fn translated(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 16);
    let mut chars = source.char_indices().peekable();
    let mut in_class = false;
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'd')) => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                Some((_, 'w')) => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                Some((_, 's')) => out.push_str(if in_class { r"\t\n\x0c\r " } else { r"[\t\n\x0c\r ]" }),
                Some((_, 'D')) => out.push_str("[^0-9]"),
                Some((_, 'W')) => out.push_str("[^0-9A-Za-z_]"),
                Some((_, 'S')) => out.push_str(r"[^\t\n\x0c\r ]"),
                Some((_, 'b')) if !in_class => out.push_str(r"(?-u:\b)"),
                Some((_, 'Q')) => {
                    // Everything up to \E is meant as it stands.
                    let rest = &source[at + 2..];
                    let length = rest.find("\\E").unwrap_or(rest.len());
                    out.push_str(&regex::escape(&rest[..length]));
                    while chars.peek().is_some_and(|(next, _)| *next < at + 2 + length + 2) {
                        chars.next();
                    }
                }
                Some((_, other)) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if in_class => {
                // A class of POSIX stands within; every other bracket is only a bracket.
                if source[at..].starts_with("[:") && source[at..].contains(":]") {
                    for letter in std::iter::once('[').chain(std::iter::from_fn(|| {
                        let (_, next) = chars.next()?;
                        Some(next)
                    })) {
                        out.push(letter);
                        if letter == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str("\\[");
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                if chars.peek().is_some_and(|(_, next)| *next == '^') {
                    chars.next();
                    out.push('^');
                }
                if chars.peek().is_some_and(|(_, next)| *next == ']') {
                    chars.next();
                    out.push_str("\\]");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Two of these are an operation on sets here, and twice the same sign there.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١", false),
            (r"^[\w.-]+$", "a.b-c", true),
            (r"^[^\s]+$", "ab", true),
            (r"^[a[]$", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[\-+.]$", "+", true),
            (r"\bfoo\b", "a foo b", true),
        ];
        for (pattern, text, matches) in cases {
            assert_eq!(compile(pattern).map(|regex| regex.is_match(text)), Ok(matches), "{pattern} on {text}");
        }
        assert!(compile("b[").is_err());
        assert!(compile("(?=a)").is_err());
        assert!(compile("(((a{1000}){1000}){1000})").unwrap_err().contains("too large"));
    }
}
