//! Label and field selectors: what a client asks lists and watches to be limited to.
//!
//! Parsing answers Kubernetes' complaints word for word; matching allocates nothing, because every event of every watch
//! goes through it.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use crate::{
    kinds::Kind,
    meta,
    status::{Result, Status},
};

/// Requirements on labels; all must hold. The default matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Equals(String),
    Differs(String),
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
    Never,
}

impl Test {
    fn holds(&self, found: Option<&str>) -> bool {
        let number = || found.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Equals(wanted) => found == Some(wanted),
            Self::Differs(unwanted) => found != Some(unwanted),
            Self::In(wanted) => found.is_some_and(|value| wanted.contains(value)),
            Self::NotIn(unwanted) => found.is_none_or(|value| !unwanted.contains(value)),
            Self::Exists => found.is_some(),
            Self::Absent => found.is_none(),
            Self::Greater(bound) => number().is_some_and(|n| n > *bound),
            Self::Less(bound) => number().is_some_and(|n| n < *bound),
            Self::Never => false,
        }
    }
}

impl Labels {
    /// Parses `labelSelector`, for instance `app=a,tier in (x,y),!old`. Empty text selects everything.
    pub fn parse(text: &str) -> Result<Self> {
        let requirements = Parser { tokens: tokens(text), next: 0 }.requirements().map_err(Status::bad_request)?;
        Ok(Self { requirements })
    }

    /// A `LabelSelector` object: `matchLabels` and `matchExpressions`.
    ///
    /// As in Kubernetes, null selects nothing and `{}` everything. A requirement that makes no sense holds for nothing.
    pub fn from_label_selector(selector: &Value) -> Self {
        if selector.is_null() {
            return Self { requirements: vec![Requirement { key: String::new(), test: Test::Never }] };
        }
        let mut requirements: Vec<Requirement> = selector["matchLabels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                test: value.as_str().map_or(Test::Never, |value| Test::Equals(value.to_owned())),
            })
            .collect();
        requirements.extend(selector["matchExpressions"].as_array().into_iter().flatten().map(expression));
        Self { requirements }
    }

    /// All labels of all objects match.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// A label that must have one value.
    pub fn exactly(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|requirement| match &requirement.test {
            Test::Equals(value) => Some((requirement.key.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// Does an object match whose labels `label` knows?
    pub fn matches<'a>(&self, label: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.test.holds(label(&r.key)))
    }

    /// [`Self::matches`] for labels as they stand in an object's `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.matches(&|key| labels[key].as_str())
    }
}

fn expression(expression: &Value) -> Requirement {
    let values: BTreeSet<String> =
        expression["values"].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let test = match expression["operator"].as_str() {
        Some("In") => Test::In(values),
        Some("NotIn") => Test::NotIn(values),
        Some("Exists") => Test::Exists,
        Some("DoesNotExist") => Test::Absent,
        _ => Test::Never,
    };
    Requirement { key: expression["key"].as_str().unwrap_or_default().to_owned(), test }
}

/// The text form, keys in order, as `Scale.status.selector` has it. What it says parses again to the same selector.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut requirements: Vec<&Requirement> = self.requirements.iter().filter(|r| r.test != Test::Never).collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        for (index, Requirement { key, test }) in requirements.into_iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let list = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match test {
                Test::Equals(value) => write!(f, "{key}={value}")?,
                Test::Differs(value) => write!(f, "{key}!={value}")?,
                Test::In(values) => write!(f, "{key} in ({})", list(values))?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", list(values))?,
                Test::Exists => write!(f, "{key}")?,
                Test::Absent => write!(f, "!{key}")?,
                Test::Greater(bound) => write!(f, "{key}>{bound}")?,
                Test::Less(bound) => write!(f, "{key}<{bound}")?,
                Test::Never => {}
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(text) => text,
            Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token> {
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(space);
    while !rest.is_empty() {
        let token = match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => Token::Symbol(symbol),
            None => {
                let end = rest.find(|c| special(c) || space(c)).unwrap_or(rest.len());
                Token::Word(rest[..end].to_owned())
            }
        };
        rest = rest[token.text().len()..].trim_start_matches(space);
        tokens.push(token);
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

type Parsed<T> = std::result::Result<T, String>;

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn requirements(mut self) -> Parsed<Vec<Requirement>> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                Token::End => return Ok(requirements),
                other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
            }
            requirements.push(self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?);
            match self.take() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => {}
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
            if !matches!(self.peek(), Token::Word(_) | Token::Symbol("!")) {
                return Err(format!("found '{}', expected: identifier after ','", self.peek().text()));
            }
        }
    }

    fn requirement(&mut self) -> Parsed<Requirement> {
        let negated = *self.peek() == Token::Symbol("!");
        if negated {
            self.take();
        }
        let key = match self.take() {
            Token::Word(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        let wrong = meta::qualified_name(&key);
        if !wrong.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; ")));
        }
        if negated {
            return Ok(Requirement { key, test: Test::Absent });
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(Requirement { key, test: Test::Exists });
        }
        let test = self.test(&key)?;
        Ok(Requirement { key, test })
    }

    fn test(&mut self, key: &str) -> Parsed<Test> {
        let operator = self.take();
        let values = match operator.text() {
            "in" | "notin" => self.list()?,
            "=" | "==" | "!=" | ">" | "<" => self.one()?,
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        for (index, value) in values.iter().enumerate() {
            let wrong = meta::label_value(value);
            if !wrong.is_empty() {
                return Err(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", wrong.join("; ")));
            }
        }
        let only = || values.first().cloned().unwrap_or_default();
        Ok(match operator.text() {
            "in" => Test::In(values),
            "notin" => Test::NotIn(values),
            "!=" => Test::Differs(only()),
            ">" => Test::Greater(number(&only())?),
            "<" => Test::Less(number(&only())?),
            _ => Test::Equals(only()),
        })
    }

    fn one(&mut self) -> Parsed<BTreeSet<String>> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(BTreeSet::from([String::new()])),
            Token::Word(_) => Ok(BTreeSet::from([self.take().text().to_owned()])),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn list(&mut self) -> Parsed<BTreeSet<String>> {
        match self.take() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = BTreeSet::new();
        let mut last = None; // the value since the last comma
        loop {
            match self.take() {
                Token::Word(value) if last.is_none() => last = Some(value),
                Token::Word(value) => return Err(format!("found '{value}', expected: ',' or ')'")),
                Token::Symbol(",") => {
                    values.insert(last.take().unwrap_or_default());
                }
                Token::Symbol(")") => {
                    // `()` is an empty list, `(a,)` ends with an empty value.
                    if last.is_some() || !values.is_empty() {
                        values.insert(last.unwrap_or_default());
                    }
                    return if values.is_empty() {
                        Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                            .to_owned())
                    } else {
                        Ok(values)
                    };
                }
                other if last.is_none() => {
                    return Err(format!("found '{}', expected: ',', ')' or identifier", other.text()));
                }
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }
}

fn number(value: &str) -> Parsed<i64> {
    let why = "for 'Gt', 'Lt' operators, the value must be an integer";
    value.parse().map_err(|_| format!("values[0]: Invalid value: {value:?}: {why}"))
}

/// Requirements on fields; all must hold. The default matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
    /// What the field is where nothing is written.
    absent: &'static str,
}

/// The only name that a field selector lets through, whatever else it asks for.
pub(crate) fn name_in(selector: &str) -> Option<String> {
    split(selector).find_map(|part| match operator(part) {
        Some(("metadata.name", true, value)) => unescaped(value).ok().filter(|name| !name.is_empty()),
        _ => None,
    })
}

impl Fields {
    /// Parses `fieldSelector`, for instance `metadata.name=a,status.phase!=Running`, for a kind. Fields that the kind
    /// does not select by are refused.
    pub fn parse(text: &str, kind: &Kind) -> Result<Self> {
        let mut terms = Vec::new();
        for part in split(text).filter(|part| !part.is_empty()) {
            let (field, equal, value) = operator(part)
                .ok_or_else(|| Status::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            let value = unescaped(value).map_err(Status::bad_request)?;
            if !known(field, kind) {
                return Err(Status::bad_request(unknown(field, kind)));
            }
            let absent = match field {
                _ if BOOLEANS.contains(&field) => "false",
                _ if NUMBERS.contains(&field) => "0",
                _ => "",
            };
            terms.push(Term { field: field.to_owned(), equal, value, absent });
        }
        Ok(Self { terms })
    }

    /// Everything matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The only name that can match, so that a lookup will do. Other terms still have to be asked.
    pub fn name(&self) -> Option<&str> {
        self.exactly("metadata.name")
    }

    /// The only namespace that can match.
    pub fn namespace(&self) -> Option<&str> {
        self.exactly("metadata.namespace")
    }

    /// The only value of `field` that can match.
    pub fn exactly(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// A field, other than name and namespace, that must have one value, and not the one that stands for none.
    pub fn found_by(&self) -> Option<(&str, &str)> {
        let is_of_metadata = |term: &Term| matches!(term.field.as_str(), "metadata.name" | "metadata.namespace");
        let says = |term: &&Term| term.equal && !term.value.is_empty() && term.value != term.absent;
        let found = self.terms.iter().filter(says).find(|term| !is_of_metadata(term))?;
        Some((&found.field, &found.value))
    }

    /// Selects by nothing but name and namespace.
    pub fn only_names(&self) -> bool {
        self.terms.iter().all(|t| matches!(t.field.as_str(), "metadata.name" | "metadata.namespace"))
    }

    /// Does an object match whose fields `field` knows? What it does not know counts as empty, or as `false`.
    pub fn matches<'a>(&self, field: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        let found = |term: &Term| field(&term.field).filter(|value| !value.is_empty()).unwrap_or(term.absent);
        self.terms.iter().all(|term| (found(term) == term.value) == term.equal)
    }

    /// [`Self::matches`] for a whole object.
    pub fn matches_object(&self, kind: &Kind, object: &Value) -> bool {
        self.is_everything() || {
            let fields = fields_of(kind, object);
            self.matches(&|wanted| match wanted {
                "metadata.name" => object["metadata"]["name"].as_str(),
                "metadata.namespace" => object["metadata"]["namespace"].as_str(),
                _ => fields.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value.as_str()),
            })
        }
    }
}

/// The values that an object of `kind` is selected by, besides name and namespace: one pair per known field that is not
/// empty. Numbers and booleans as text.
///
/// Where a field has several paths, the first that leads to something counts.
pub fn fields_of<'a>(kind: &'a Kind, object: &Value) -> Vec<(&'a str, String)> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for (field, path) in &kind.selectable {
        if fields.iter().any(|(known, _)| known == field) {
            continue;
        }
        let found = path.iter().fold(object, |value, part| &value[part.as_str()]);
        let value = match found {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => found.to_string(),
            _ => continue,
        };
        if !value.is_empty() {
            fields.push((field, value));
        }
    }
    fields
}

/// Selectable fields of compiled-in kinds whose zero value is `false` rather than empty.
const BOOLEANS: [&str; 2] = ["spec.unschedulable", "spec.hostNetwork"];
/// Those whose zero value is `0`.
const NUMBERS: [&str; 2] = ["status.replicas", "status.successful"];

fn known(field: &str, kind: &Kind) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace") || kind.selectable.iter().any(|(known, _)| known == field)
}

fn unknown(field: &str, kind: &Kind) -> String {
    if kind.selectable.is_empty() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }
}

/// Splits at commas that are not escaped.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let separates = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
}

fn operator(term: &str) -> Option<(&str, bool, &str)> {
    let (at, _) = term.char_indices().find(|(at, c)| *c == '=' || term[*at..].starts_with("!="))?;
    let rest = &term[at..];
    let (equal, length) = match rest.as_bytes() {
        [b'!', b'=', ..] => (false, 2),
        [b'=', b'=', ..] => (true, 2),
        _ => (true, 1),
    };
    Some((&term[..at], equal, &rest[length..]))
}

fn unescaped(value: &str) -> Parsed<String> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => text.push(escaped),
                Some(other) => return Err(format!("invalid field selector: invalid escape sequence: \\{other}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {c}")),
            other => text.push(other),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::kinds::Published;

    fn kind(selectable: &[&str]) -> Kind {
        let mut kind = Kind::new("", "v1", "Pod", "pods", Published::new(|| (String::new(), BTreeMap::new())));
        kind.selectable =
            selectable.iter().map(|f| ((*f).to_owned(), f.split('.').map(str::to_owned).collect())).collect();
        kind
    }

    #[test]
    fn label_selectors_match_as_in_kubernetes() {
        let object = json!({"metadata": {"labels": {"app": "a", "n": "5", "empty": ""}}});
        let cases = [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=a", true),
            ("app==a", true),
            (" app = a , n=5 ", true),
            ("app!=a", false),
            ("other!=a", true),
            ("app in (a,b)", true),
            ("app in ( b )", false),
            ("app notin (b)", true),
            ("other notin (b)", true),
            ("n>4", true),
            ("n<5", false),
            ("app>1", false),
            ("empty=", true),
            ("empty in (,x)", true),
            ("app=,n=5", false),
            ("in=x", false),
            ("!in", true),
        ];
        for (text, expected) in cases {
            assert_eq!(Labels::parse(text).unwrap().matches_object(&object), expected, "{text}");
        }
    }

    #[test]
    fn bad_label_selectors_say_where() {
        let cases = [
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("a,", "found '', expected: identifier after ','"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            (
                "a/=b",
                "unable to parse requirement: <nil>: Invalid value: \"a/\": name part must be non-empty; name part must \
              consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
              (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
              '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
        ];
        for (text, expected) in cases {
            let status = Labels::parse(text).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (400, expected), "{text}");
        }
    }

    #[test]
    fn a_selector_object_becomes_the_text_of_scale() {
        let selector = json!({"matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "d", "operator": "Exists"}]});
        let labels = Labels::from_label_selector(&selector);
        assert_eq!(labels.to_string(), "a=1,b=2,c in (x,y),d");
        assert!(labels.matches_object(&json!({"metadata": {"labels": {"a": "1", "b": "2", "c": "x", "d": ""}}})));
        assert!(!Labels::from_label_selector(&Value::Null).matches_object(&json!({})));
        assert!(Labels::from_label_selector(&json!({})).is_everything());
    }

    #[test]
    fn field_selectors_know_names_and_the_fields_of_their_kind() {
        let pod = kind(&["spec.nodeName", "spec.hostNetwork"]);
        let object = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"nodeName": "n,1"}});
        let cases = [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==b", false),
            ("metadata.name!=b,metadata.namespace=d", true),
            ("spec.nodeName=n\\,1", true),
            ("spec.nodeName!=", true),
            ("spec.hostNetwork=false", true),
            ("spec.hostNetwork!=false", false),
        ];
        for (text, expected) in cases {
            assert_eq!(Fields::parse(text, &pod).unwrap().matches_object(&pod, &object), expected, "{text}");
        }
        assert_eq!(Fields::parse("metadata.name=a", &pod).unwrap().name(), Some("a"));
        assert_eq!(Fields::parse("metadata.name!=a", &pod).unwrap().name(), None);
    }

    #[test]
    fn bad_field_selectors_are_refused_in_the_words_of_kubernetes() {
        let cases = [
            (
                kind(&[]),
                "spec.x=1",
                "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
            (kind(&["spec.nodeName"]), "spec.x=1", "field label not supported: spec.x"),
            (kind(&[]), "a", "invalid selector: 'a'; can't understand 'a'"),
            (kind(&[]), "metadata.name=\\x", "invalid field selector: invalid escape sequence: \\x"),
            (kind(&[]), "metadata.name=a=b", "invalid field selector: unescaped character in value: ="),
        ];
        for (kind, text, expected) in cases {
            let status = Fields::parse(text, &kind).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (400, expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_selector_makes_the_parsers_panic(text in "[a-z!=<>(), \\\\./]{0,40}|.{0,40}") {
            let _ = Labels::parse(&text);
            let _ = Fields::parse(&text, &kind(&[]));
        }

        #[test]
        fn what_a_selector_prints_selects_the_same(text in "[ab][!=]?=[ab]?|[ab] (not)?in \\([ab],[ab]\\)|!?[ab]|a[<>][0-9]") {
            let labels = Labels::parse(&text).unwrap();
            prop_assert_eq!(Labels::parse(&labels.to_string()).unwrap(), labels);
        }
    }
}
