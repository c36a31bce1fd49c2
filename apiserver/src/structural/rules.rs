//! `x-kubernetes-validations`: rules in CEL.
//!
//! A library reads and asks them. What is ours is what keeps a stranger's rule from keeping the server busy: the library cannot
//! be interrupted, so nothing is asked whose work could grow beyond a budget, given how often loops stand inside of each
//! other and how large the value is.

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, Validator, cel::Program, compile_schema};
use onex_crds::{Invalid, Problem};
use serde_json::{Value, json};

use super::node::Node;
use crate::status::is_enough;

/// The longest rule, in bytes.
const MOST_TEXT: usize = 8 * 1024;
/// So deep brackets may stand inside of each other in a rule: its reader calls itself.
const MOST_BRACKETS: usize = 64;
/// So many loops may stand inside of each other.
const MOST_LOOPS: u32 = 3;
/// The rules of one object may take so many steps.
const MOST_STEPS: u64 = 10_000_000;

/// Functions whose work grows with what they are given, each time anew: loops, and those that make longer texts.
const LOOPS: [&str; 12] = [
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
    "sortBy",
    "replace",
    "join",
    "format",
    "flatten",
    "split",
    "findAll",
];

/// What bounds the work of one rule.
#[derive(Debug)]
pub struct Rule {
    loops: u32,
    bytes: u64,
}

impl Rule {
    /// The rules of one node of a schema.
    pub fn all(schema: &Value) -> Vec<Self> {
        let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        let rule = |rule: &Value| {
            let texts = [&rule["rule"], &rule["messageExpression"]].map(|text| text.as_str().unwrap_or_default());
            Self {
                loops: texts.iter().map(|text| shape(text).0).max().unwrap_or_default(),
                bytes: texts.iter().map(|text| text.len() as u64).sum(),
            }
        };
        rules.map(rule).collect()
    }

    /// How many steps it may take over a value of this size.
    fn steps(&self, size: u64) -> u64 {
        let each = size.saturating_add(self.bytes / 8);
        (0..self.loops).fold(1 + self.bytes / 8, |steps: u64, _| steps.saturating_mul(each))
    }
}

/// How many loops stand inside of each other, and how many brackets. Calls that follow each other at a dot count as if the
/// later one held the earlier, if both make texts longer.
fn shape(rule: &str) -> (u32, usize) {
    let bytes = rule.as_bytes();
    let (mut at, mut name_from) = (0, 0);
    let mut open: Vec<bool> = Vec::new();
    let (mut loops, mut brackets, mut growing) = (0, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                name_from = at + 1;
            }
            b'(' => {
                let name = rule.get(name_from..at).unwrap_or_default();
                let is_loop = LOOPS.contains(&name);
                growing += u32::from(matches!(name, "replace" | "join" | "format" | "flatten"));
                open.push(is_loop);
                name_from = at + 1;
            }
            b'[' | b'{' => {
                open.push(false);
                name_from = at + 1;
            }
            b')' | b']' | b'}' => {
                open.pop();
                name_from = at + 1;
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {}
            _ => name_from = at + 1,
        }
        brackets = brackets.max(open.len());
        loops = loops.max(open.iter().filter(|is_loop| **is_loop).count() as u32);
        at += 1;
    }
    (loops.max(growing), brackets)
}

/// What is wrong with the form of the rules of a node of a schema.
pub fn check_form(schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    for (index, rule) in schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
        if is_enough(wrong) {
            return;
        }
        check_rule(rule, &format!("{at}.x-kubernetes-validations[{index}]"), wrong);
    }
}

fn check_rule(rule: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    let field = |name: &str| format!("{at}.{name}");
    if text("rule").trim().is_empty() {
        wrong.push(Invalid::required(field("rule"), "rule is not specified"));
        return;
    }
    for name in ["rule", "messageExpression"] {
        let (loops, brackets) = shape(text(name));
        if text(name).len() > MOST_TEXT || brackets > MOST_BRACKETS {
            let why = format!(
                "must not be longer than {MOST_TEXT} bytes, nor have more than {MOST_BRACKETS} brackets inside of each other"
            );
            wrong.push(Invalid::forbidden(field(name), why));
            return;
        }
        if loops > MOST_LOOPS {
            let why = "estimated rule cost exceeds budget: too many loops inside of each other";
            wrong.push(Invalid::forbidden(field(name), why));
            return;
        }
    }
    let message = text("message");
    if !rule["message"].is_null() && message.trim().is_empty() {
        wrong.push(Invalid::value(field("message"), message, "message must be non-empty if specified"));
    } else if message.trim().contains('\n') {
        wrong.push(Invalid::value(field("message"), message, "message must not contain line breaks"));
    }
    const REASONS: [&str; 4] =
        ["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"];
    if !rule["reason"].is_null() && !REASONS.contains(&text("reason")) {
        wrong.push(Invalid::not_supported(field("reason"), text("reason"), &REASONS));
    }
    if !rule["fieldPath"].is_null() && !text("fieldPath").starts_with(['.', '[']) {
        let why = "fieldPath must be a path below the value, such as .spec.replicas";
        wrong.push(Invalid::value(field("fieldPath"), text("fieldPath"), why));
    }
    let compiled = compile_schema(&json!({"type": "object", "x-kubernetes-validations": [rule]}));
    for error in compiled.compilation_errors() {
        wrong.push(Invalid::value(field("rule"), text("rule"), format!("compilation failed: {error}")));
    }
    for name in ["rule", "messageExpression"] {
        for unknown in undeclared(text(name)) {
            let why = format!("compilation failed: undeclared reference to '{unknown}' (in container '')");
            wrong.push(Invalid::value(field(name), text(name), why));
        }
    }
}

/// What a rule knows besides the variables of its loops.
const KNOWN: [&str; 5] = ["self", "oldSelf", "apiVersion", "apiGroup", "kind"];

/// The variables of a rule that nothing declares.
fn undeclared(rule: &str) -> Vec<String> {
    let Ok(program) = Program::compile(rule) else { return Vec::new() };
    let references = program.references();
    let mut unknown: Vec<String> = references.variables().into_iter().map(str::to_owned).collect();
    unknown.retain(|name| !name.starts_with('@') && !KNOWN.contains(&name.as_str()) && !is_of_loop(rule, name));
    unknown.sort();
    unknown
}

/// Whether a loop of the rule declares the name: `all(NAME,`.
fn is_of_loop(rule: &str, name: &str) -> bool {
    rule.match_indices(name).any(|(at, _)| {
        rule[..at].trim_end().ends_with(['(', ',']) && rule[at + name.len()..].trim_start().starts_with(',')
    })
}

/// The rules of a whole schema.
pub struct Rules(CompiledSchema);

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rules")
    }
}

impl Rules {
    /// Compiles the rules of a schema in which nothing is wrong.
    pub fn compile(schema: &Value) -> Self {
        Self(compile_schema(schema))
    }

    /// What the rules say of an object. Of what did not change, only rules about changes are asked.
    pub fn check(&self, root: &Node, object: &Value, old: Option<&Value>, wrong: &mut Vec<Invalid>) {
        if work(root, object) > MOST_STEPS {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            wrong.push(Invalid::forbidden("<nil>", why));
            return;
        }
        let Err(errors) = Validator::new().validate_compiled(&self.0, object, old) else { return };
        for error in errors.into_vec() {
            if is_enough(wrong) {
                return;
            }
            let speaks_of_changes = error.rule.contains("oldSelf");
            let now = at(object, &error.field_path);
            if let Some(old) = old
                && !speaks_of_changes
                && now.is_some()
                && now == at(old, &error.field_path)
            {
                continue; // it was no better before, and nobody made it worse
            }
            wrong.push(invalid(error, now));
        }
    }
}

fn invalid(error: ValidationError, value: Option<&Value>) -> Invalid {
    let field = if error.field_path.is_empty() { "<nil>".to_owned() } else { error.field_path };
    let said = match error.kind {
        ErrorKind::ValidationFailure => error.message,
        _ => format!("{} evaluating rule: {}", error.message, error.rule),
    };
    let name = match value {
        Some(Value::Array(_)) => "array",
        Some(Value::String(_)) => "string",
        Some(Value::Number(number)) if number.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::Bool(_)) => "boolean",
        _ => "object",
    };
    match error.reason.as_deref() {
        Some("FieldValueForbidden") => Invalid::forbidden(field, said),
        Some("FieldValueRequired") => Invalid::required(field, said),
        Some("FieldValueDuplicate") => Invalid { field, problem: Problem::Duplicate(name.into()) },
        _ => Invalid::value(field, name, said),
    }
}

/// The value at a path such as `spec.list[0].name`.
fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
        if !name.is_empty() {
            value = value.get(name)?;
        }
        for index in indexes.split(['[', ']']).filter(|index| !index.is_empty()) {
            value = match index.parse::<usize>() {
                Ok(index) => value.get(index)?,
                Err(_) => value.get(index.trim_matches('"'))?,
            };
        }
    }
    Some(value)
}

/// How many steps all rules may take over an object.
fn work(node: &Node, value: &Value) -> u64 {
    if !node.ruled {
        return 0;
    }
    let mut steps: u64 = 0;
    if !node.rules.is_empty() {
        let size = size(value);
        steps = node.rules.iter().map(|rule| rule.steps(size)).fold(0, u64::saturating_add);
    }
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter_map(|(name, value)| Some(work(node.field(name)?, value)))
            .fold(steps, u64::saturating_add),
        Value::Array(list) => match &node.items {
            Some(items) => list.iter().map(|item| work(items, item)).fold(steps, u64::saturating_add),
            None => steps,
        },
        _ => steps,
    }
}

/// Values and texts, a long text as several.
fn size(value: &Value) -> u64 {
    match value {
        Value::Object(fields) => fields.values().map(size).fold(1, u64::saturating_add),
        Value::Array(items) => items.iter().map(size).fold(1, u64::saturating_add),
        Value::String(text) => 1 + text.len() as u64 / 32,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structural::Structural;

    fn schema(spec: Value) -> Value {
        json!({"type": "object", "properties": {"spec": spec}})
    }

    fn said(schema: &Value, object: Value, old: Option<Value>) -> Vec<String> {
        let structural = Structural::compile(schema, "s").unwrap_or_else(|wrong| panic!("{wrong:?}"));
        structural.check(&object, old.as_ref()).iter().map(ToString::to_string).collect()
    }

    fn refused(rule: Value) -> Vec<String> {
        let schema = schema(json!({"type": "object", "x-kubernetes-validations": [rule]}));
        let wrong = Structural::compile(&schema, "s").err().unwrap_or_default();
        wrong.iter().map(ToString::to_string).collect()
    }

    fn range() -> Value {
        schema(json!({
            "type": "object",
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"}, "note": {"type": "string"},
                "names": {"type": "array", "items": {"type": "string"}},
            },
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max"},
                {"rule": "self.names.all(name, name.startsWith('a'))", "message": "names begin with a", "fieldPath": ".names"},
                {"rule": "self.max < 100", "messageExpression": "'max is ' + string(self.max)", "reason": "FieldValueForbidden"},
            ],
        }))
    }

    #[test]
    fn rules_say_what_types_cannot() {
        let object = |min, max, names: Value| json!({"spec": {"min": min, "max": max, "names": names}});
        assert_eq!(said(&range(), object(1, 2, json!(["a", "ab"])), None), [""; 0]);
        assert_eq!(
            said(&range(), object(3, 2, json!([])), None),
            ["spec: Invalid value: \"object\": failed rule: self.min <= self.max"]
        );
        assert_eq!(
            said(&range(), object(1, 200, json!(["b"])), None),
            ["spec.names: Invalid value: \"array\": names begin with a", "spec: Forbidden: max is 200"]
        );
    }

    #[test]
    fn rules_about_changes_are_asked_when_there_is_one() {
        let schema = schema(json!({
            "type": "object",
            "properties": {"size": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "self >= oldSelf", "message": "it only grows"}
            ]}},
        }));
        let size = |size| json!({"spec": {"size": size}});
        assert_eq!(said(&schema, size(1), None), [""; 0]);
        assert_eq!(said(&schema, size(2), Some(size(1))), [""; 0]);
        assert_eq!(said(&schema, size(1), Some(size(2))), ["spec.size: Invalid value: \"integer\": it only grows"]);
    }

    #[test]
    fn what_was_no_better_before_is_forgiven() {
        let bad = json!({"spec": {"min": 3, "max": 2, "names": []}});
        assert_eq!(said(&range(), bad.clone(), Some(bad.clone())), [""; 0]);
        let mut other = bad.clone();
        other["spec"]["note"] = "x".into();
        assert_eq!(said(&range(), other, Some(bad)).len(), 1, "the value that the rule is about has changed");
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_in_its_definition() {
        let at = "s.properties[spec].x-kubernetes-validations[0]";
        assert_eq!(refused(json!({"rule": " "})), [format!("{at}.rule: Required value: rule is not specified")]);
        for rule in ["self.a >", "self.a && (", "nobody.a == 1"] {
            let wrong = refused(json!({ "rule": rule }));
            assert!(wrong.len() == 1 && wrong[0].contains("compilation failed"), "{rule}: {wrong:?}");
        }
        assert_eq!(refused(json!({"rule": "true", "message": "a\nb"})).len(), 1);
        assert_eq!(refused(json!({"rule": "true", "reason": "Because"})).len(), 1);
        assert_eq!(refused(json!({"rule": "true", "fieldPath": "spec"})).len(), 1);
        assert_eq!(refused(json!({"rule": "self.x.all(a, self.x.exists(b, a == b))"})), [""; 0]);
        let nested = "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, a == d))))";
        assert!(refused(json!({ "rule": nested }))[0].contains("estimated rule cost exceeds budget"));
        assert_eq!(refused(json!({"rule": format!("{}true{}", "(".repeat(5000), ")".repeat(5000))})).len(), 1);
        assert_eq!(refused(json!({"rule": format!("self.a == '{}'", "x".repeat(10_000))})).len(), 1);
    }

    #[test]
    fn no_object_makes_a_rule_run_for_ever() {
        let schema = schema(json!({
            "type": "object",
            "properties": {"list": {"type": "array", "items": {"type": "integer"}}},
            "x-kubernetes-validations": [
                {"rule": "self.list.all(a, self.list.exists_one(b, self.list.exists_one(c, a == b && b == c)))"}
            ],
        }));
        let list = |length: i64| json!({"spec": {"list": (0..length).collect::<Vec<_>>()}});
        let began = std::time::Instant::now();
        assert_eq!(said(&schema, list(20), None), [""; 0]);
        let wrong = said(&schema, list(5000), None);
        assert!(wrong.len() == 1 && wrong[0].contains("running out of cost budget"), "{wrong:?}");
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    #[test]
    fn loops_are_counted_where_they_stand_inside_of_each_other() {
        for (rule, loops) in [
            ("self.a.all(x, x > 1) && self.b.all(x, x > 1)", 1),
            ("self.a.filter(x, x > 1).map(x, x + 1).all(x, x > 2)", 1),
            ("self.a.all(x, self.b.exists(y, x == y))", 2),
            ("self.text == 'a.all(b.all(c.all('", 0),
            ("self.a.replace('', 'xx').replace('', 'xx').replace('x', 'yy')", 3),
            ("size(self.a) > 1 && has(self.b)", 0),
        ] {
            assert_eq!(shape(rule).0, loops, "{rule}");
        }
    }
}
