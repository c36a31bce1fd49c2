//! An expression as it is written, piece by piece, for what has to be put otherwise before the library reads it.

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// A name, a word of the language, or a number.
    Word,
    /// A text in quotes.
    Text,
    /// Blanks and comments.
    Nothing,
    /// Any other sign, one at a time but for `!=`.
    Sign,
}

/// The expression with each pair of negations left out: the library reads two in a row as one, and a rule must not say the
/// opposite of what is written.
pub fn without_double_negation(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = pieces(text).peekable();
    // What came last, and whether a minus after it subtracts.
    let mut after_value = false;
    while let Some((piece, written)) = rest.next() {
        if piece == Piece::Sign && (written == "!" || written == "-") && !after_value {
            let mut odd = true;
            while let Some((_, next)) = rest.next_if(|(piece, next)| *piece == Piece::Nothing || *next == written) {
                odd ^= next == written;
            }
            if odd {
                made.push_str(written);
            }
            continue;
        }
        made.push_str(written);
        match piece {
            Piece::Nothing => {}
            Piece::Word => after_value = written != "in",
            Piece::Text => after_value = true,
            Piece::Sign => after_value = matches!(written, ")" | "]" | "}"),
        }
    }
    made
}

/// The expression with the variable `name`, which is null where it is missing, as an optional value.
pub fn with_optional(text: &str, name: &str) -> String {
    let mut made = String::with_capacity(2 * text.len());
    let mut is_field = false;
    for (piece, written) in pieces(text) {
        if piece == Piece::Word && written == name && !is_field {
            made.push_str(&format!("({name} == null ? optional.none() : optional.of({name}))"));
        } else {
            made.push_str(written);
        }
        if piece != Piece::Nothing {
            is_field = written == ".";
        }
    }
    made
}

/// The pieces; together they are the text.
fn pieces(text: &str) -> impl Iterator<Item = (Piece, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let (piece, length) = piece(rest, first);
        let (written, after) = rest.split_at(length);
        rest = after;
        Some((piece, written))
    })
}

fn piece(rest: &str, first: char) -> (Piece, usize) {
    let span = |is: fn(char) -> bool| rest.find(|c: char| !is(c)).unwrap_or(rest.len());
    if let Some(length) = quoted(rest) {
        return (Piece::Text, length);
    }
    if rest.starts_with("//") {
        return (Piece::Nothing, rest.find('\n').unwrap_or(rest.len()));
    }
    if first.is_whitespace() {
        return (Piece::Nothing, span(char::is_whitespace));
    }
    if first.is_ascii_alphanumeric() || first == '_' {
        return (Piece::Word, span(|c| c.is_ascii_alphanumeric() || c == '_'));
    }
    (Piece::Sign, if rest.starts_with("!=") { 2 } else { first.len_utf8() })
}

/// The length of a text in quotes, with what stands before them (`r"`, `b'`) and whether closed or not.
fn quoted(rest: &str) -> Option<usize> {
    let prefix = rest.find(['"', '\'']).filter(|at| rest[..*at].chars().all(|c| "rRbB".contains(c)) && *at <= 2)?;
    let is_raw = rest[..prefix].contains(['r', 'R']);
    let quote = &rest[prefix..=prefix];
    let three = quote.repeat(3);
    let quote = if rest[prefix..].starts_with(&three) { three.as_str() } else { quote };
    let mut at = prefix + quote.len();
    while let Some(next) = rest[at..].chars().next() {
        if rest[at..].starts_with(quote) {
            return Some(at + quote.len());
        }
        at += next.len_utf8();
        if next == '\\' && !is_raw {
            at += rest[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    Some(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_negations_are_none_and_subtraction_stays() {
        for (text, made) in [
            ("!!self.a", "self.a"),
            ("! !\n!self.a", "!self.a"),
            ("self.a && !!!self.b || a !=!b", "self.a && !self.b || a !=!b"),
            ("'!!' == r'\\' + \"--\"", "'!!' == r'\\' + \"--\""),
            ("a - -1 == a --1", "a - -1 == a --1"),
            ("--a == f(- -1) - - -1", "a == f(1) - 1"),
            ("1 in --[1]", "1 in [1]"),
            ("! // !\n !x", "x"),
        ] {
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(squeezed(&without_double_negation(text)), squeezed(made), "{text}");
        }
    }

    #[test]
    fn only_the_variable_becomes_optional() {
        let made = with_optional("x.old + old.x + r'\\' + 'old' + \"\"\"old\"\"\" + older // old", "old");
        let optional = "(old == null ? optional.none() : optional.of(old))";
        assert_eq!(made, format!("x.old + {optional}.x + r'\\' + 'old' + \"\"\"old\"\"\" + older // old"));
    }
}
