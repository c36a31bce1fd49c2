//! `x-kubernetes-validations`: rules in CEL.
//!
//! A library reads and asks them, within the bounds of [`crate::cel`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, compile_schema, validate_compiled};
use onex_crds::{Invalid, Problem};
use serde_json::{Value, json};

use super::{
    node::Node,
    old::{self, Items},
    path::Path,
};
use crate::{
    cel::{
        cost,
        expression::{self, Expression},
        fields,
    },
    status::is_enough,
};

/// The rules of one object may take so many steps.
const MOST_STEPS: u64 = 10_000_000;

/// What of one rule is evaluated: the rule itself, and what its message is made by.
#[derive(Debug)]
pub struct Rule {
    expressions: Vec<Expression>,
}

impl Rule {
    /// The rules of one node of a schema.
    pub fn all(schema: &Value) -> Vec<Self> {
        let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        let rule = |rule: &Value| {
            let texts = [&rule["rule"], &rule["messageExpression"]];
            let texts = texts.into_iter().filter_map(Value::as_str).filter(|text| !text.trim().is_empty());
            Self { expressions: texts.filter_map(|text| expression::read(text).ok()).collect() }
        };
        rules.map(rule).collect()
    }

    /// Whether it may take more stack than a request has left.
    pub fn deep(&self) -> bool {
        self.expressions.iter().any(|expression| expression.deep)
    }

    /// How many steps it may take over this value.
    fn steps(&self, value: &Value, old: Option<&Value>) -> u64 {
        self.expressions.iter().map(|expression| cost::steps(&expression.root, value, old)).fold(0, u64::saturating_add)
    }
}

/// What is wrong with the form of the rules of a node of a schema.
pub fn check_form(schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    for (index, rule) in schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
        if is_enough(wrong) {
            return;
        }
        check_rule(rule, schema, &format!("{at}.x-kubernetes-validations[{index}]"), wrong);
    }
}

fn check_rule(rule: &Value, schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    let field = |name: &str| format!("{at}.{name}");
    if text("rule").trim().is_empty() {
        wrong.push(Invalid::required(field("rule"), "rule is not specified"));
        return;
    }
    for name in ["rule", "messageExpression"] {
        if text(name).trim().is_empty() {
            continue;
        }
        let undefined = |read: &Expression| fields::undefined(&read.root, schema);
        let why = match expression::read(text(name)) {
            Err(why) => Some(why),
            Ok(read) => undefined(&read).map(|field| format!("undefined field '{field}'")),
        };
        if let Some(why) = why {
            let what = if name == "rule" { "compilation failed" } else { "messageExpression compilation failed" };
            wrong.push(Invalid::value(field(name), text(name), format!("{what}: {why}")));
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
    let alone = json!({"type": "object", "x-kubernetes-validations": [rule]});
    let errors = || compile_schema(&alone).compilation_errors().iter().map(ToString::to_string).collect::<Vec<_>>();
    for error in expression::apart(errors).unwrap_or_default() {
        wrong.push(Invalid::value(field("rule"), text("rule"), format!("compilation failed: {error}")));
    }
}

/// The rules of one node of a schema, compiled with the types of what is below it.
pub struct Compiled(CompiledSchema);

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compiled")
    }
}

impl Compiled {
    /// Compiles the rules of a node in which nothing is wrong; nothing, if it has none.
    pub fn of(schema: &Value) -> Option<Self> {
        let rules = schema["x-kubernetes-validations"].as_array().filter(|rules| !rules.is_empty())?;
        // The rules below are asked by themselves, of the old value that theirs was.
        let mut alone = without_rules(schema);
        alone["x-kubernetes-validations"] = rules.iter().map(|rule| with_optional(rule.clone())).collect();
        expression::apart(|| compile_schema(&alone)).map(Self)
    }
}

/// A schema without its rules, and without defaults: those have been filled in.
fn without_rules(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| *name != "x-kubernetes-validations" && *name != "default");
            let below = |(name, value): (&String, &Value)| (name.clone(), without_rules(value));
            Value::Object(kept.map(below).collect())
        }
        Value::Array(items) => items.iter().map(without_rules).collect(),
        other => other.clone(),
    }
}

/// The library has null where an old value is optional and missing; rules expect an optional value.
fn with_optional(mut rule: Value) -> Value {
    if rule["optionalOldSelf"] == true {
        for name in ["rule", "messageExpression"] {
            if let Some(text) = rule[name].as_str() {
                rule[name] = expression::with_optional(text, "oldSelf").into();
            }
        }
    }
    rule
}

/// What the rules of a schema say of an object. Of what did not change, only rules about changes are asked.
pub fn check(root: &Node, object: &Value, old: Option<&Value>, wrong: &mut Vec<Invalid>) {
    let mut found = Vec::new();
    let ask = || {
        let mut asked = Asked { steps: MOST_STEPS, wrong: &mut found };
        if let Err(too_much) = asked.ask(root, object, old, &Path::Root(""), false) {
            asked.wrong.push(too_much);
        }
    };
    // The library panics where it has nothing to say, and an object must not be able to make it.
    let answered = match root.deep_rules() {
        true => expression::apart(ask),
        false => catch_unwind(AssertUnwindSafe(ask)).ok(),
    };
    wrong.extend(found);
    if answered.is_none() {
        wrong.push(Invalid::value("<nil>", "object", "a rule cannot be evaluated on this object"));
    }
}

/// A walk over an object and over what it was.
struct Asked<'a> {
    /// What the rules may still cost.
    steps: u64,
    wrong: &'a mut Vec<Invalid>,
}

impl Asked<'_> {
    /// Asks the rules of a value and of all below; or says where what they may cost is used up. `unchanged`: the value is
    /// within something that did not change, though nobody can tell what it was itself.
    fn ask(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &Path<'_>,
        unchanged: bool,
    ) -> Result<(), Invalid> {
        if !node.ruled || value.is_null() || is_enough(self.wrong) {
            return Ok(());
        }
        for rule in &node.rules {
            let Some(rest) = self.steps.checked_sub(rule.steps(value, old)) else {
                let why =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                return Err(Invalid::value(path.field(), type_name(Some(value)), why));
            };
            self.steps = rest;
        }
        if let Some(compiled) = &node.compiled
            && let Err(errors) = validate_compiled(&compiled.0, value, old)
        {
            let is_unchanged = unchanged || old.is_some_and(|old| old::equal(node, value, old));
            for error in errors.into_vec() {
                // It was no better before, and nobody made it worse.
                if !is_unchanged || error.rule.contains("oldSelf") {
                    self.wrong.push(invalid(error, value, path));
                }
            }
        }
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let old = old::field(old, node, name);
                    match (node.properties.get(name), node.values()) {
                        (Some(property), _) => self.ask(property, field, old, &Path::Field(path, name), unchanged)?,
                        (None, Some(values)) => self.ask(values, field, old, &Path::Key(path, name), unchanged)?,
                        (None, None) => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(below) = &node.items else { return Ok(()) };
                let known = Items::of(node, old);
                let is_same = || old.is_some_and(|old| old::equal(node, value, old));
                let unchanged = unchanged || known.is_none() && below.ruled && is_same();
                for (index, item) in list.iter().enumerate() {
                    let old = known.as_ref().and_then(|known| known.get(item));
                    self.ask(below, item, old, &Path::Index(path, index), unchanged)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// `below` is where the rule says that the field is, from the value that it is asked of.
fn invalid(error: ValidationError, value: &Value, path: &Path<'_>) -> Invalid {
    let below = error.field_path.trim_start_matches('.');
    let field = match (path.field(), below) {
        (field, "") => field,
        (field, below) if field == "<nil>" => below.to_owned(),
        (field, below) if below.starts_with('[') => format!("{field}{below}"),
        (field, below) => format!("{field}.{below}"),
    };
    let said = match error.kind {
        ErrorKind::ValidationFailure => error.message,
        _ => format!("{} evaluating rule: {}", error.message, error.rule),
    };
    let name = type_name(at(value, below));
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

/// The type of a value, by which rules show it.
fn type_name(value: Option<&Value>) -> &'static str {
    match value {
        Some(Value::Array(_)) => "array",
        Some(Value::String(_)) => "string",
        Some(Value::Number(number)) if number.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::Bool(_)) => "boolean",
        _ => "object",
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
        // Anything may be there.
        let spec =
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [rule]});
        let schema = schema(spec);
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
    fn what_an_item_was_is_found_by_its_keys() {
        let item = json!({
            "type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "message": "it only grows"}],
        });
        let items = json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]});
        let values = json!({"type": "object", "additionalProperties": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "self >= oldSelf", "message": "it only grows"}]}});
        let schema = schema(json!({"type": "object", "properties": {"items": items, "m": values}}));
        let object = |items: &[(&str, i64)], m: Value| {
            let items: Vec<Value> = items.iter().map(|(name, size)| json!({"name": name, "size": size})).collect();
            json!({"spec": {"items": items, "m": m}})
        };
        let old = object(&[("a", 1), ("b", 5)], json!({"x": 2}));
        // Another order, and one that is new.
        assert_eq!(said(&schema, object(&[("c", 0), ("b", 6), ("a", 1)], json!({"y": 0})), Some(old.clone())), [""; 0]);
        assert_eq!(
            said(&schema, object(&[("b", 4), ("a", 1)], json!({"x": 1})), Some(old)),
            [
                "spec.items[0]: Invalid value: \"object\": it only grows",
                "spec.m[x]: Invalid value: \"integer\": it only grows",
            ]
        );
    }

    #[test]
    fn an_old_value_may_be_optional() {
        let schema = schema(
            json!({"type": "object", "properties": {"size": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "!oldSelf.hasValue() || self >= oldSelf.value()", "optionalOldSelf": true, "message": "it only grows"},
                {"rule": "oldSelf.orValue(self) + 10 >= self && 'oldSelf' != ''", "optionalOldSelf": true,
                 "messageExpression": "'it was ' + string(oldSelf.orValue(0))"},
            ]}}}),
        );
        let size = |size: i64| json!({"spec": {"size": size}});
        assert_eq!(said(&schema, size(1), None), [""; 0]);
        assert_eq!(said(&schema, size(2), Some(size(1))), [""; 0]);
        assert_eq!(said(&schema, size(1), Some(size(2))), ["spec.size: Invalid value: \"integer\": it only grows"]);
        assert_eq!(said(&schema, size(50), Some(size(2))), ["spec.size: Invalid value: \"integer\": it was 2"]);
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
    fn an_item_of_a_list_that_did_not_change_is_forgiven_too() {
        let item =
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.size() < 3", "message": "too long"}]});
        let list = json!({"type": "array", "items": item});
        let schema = schema(json!({"type": "object", "properties": {"list": list, "note": {"type": "string"}}}));
        let object = |list: &[&str], note: &str| json!({"spec": {"list": list, "note": note}});
        let old = object(&["a", "long"], "x");
        assert_eq!(said(&schema, object(&["a", "long"], "y"), Some(old.clone())), [""; 0]);
        assert_eq!(said(&schema, object(&["b", "long"], "x"), Some(old)).len(), 1, "the list as a whole has changed");
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_in_its_definition() {
        let at = "s.properties[spec].x-kubernetes-validations[0]";
        assert_eq!(refused(json!({"rule": " "})), [format!("{at}.rule: Required value: rule is not specified")]);
        for rule in ["self.a >", "self.a && (", "nobody.a == 1"] {
            let wrong = refused(json!({ "rule": rule }));
            assert!(wrong.len() == 1 && wrong[0].contains("compilation failed"), "{rule}: {wrong:?}");
        }
        let closed = schema(json!({"type": "object", "properties": {"a": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": "self.a == self.b"}]}));
        let wrong = Structural::compile(&closed, "s").unwrap_err();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].to_string().ends_with("compilation failed: undefined field 'b'"), "{}", wrong[0]);
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
    fn no_rule_takes_the_server_with_it() {
        let list = json!({"spec": {"l": (0..1000).collect::<Vec<_>>(), "s": "%.70000f"}});
        let began = std::time::Instant::now();
        for rule in [
            "self.l.all (a, self.l.all (b, self.l.all (c, a + b + c >= 0)))".to_owned(),
            "// '\nself.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))".to_owned(),
            "r'\\' == '' || self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0))) || r'\\' == ''".to_owned(),
            format!("['x']{}.all(a, size(a) > 0)", ".map(a, a + a)".repeat(60)),
            "size('%.70000f'.format([1.0])) > 0".to_owned(),
            "size(self.s.format([1.0])) > 0".to_owned(),
        ] {
            let schema = schema(json!({
                "type": "object",
                "properties": {"l": {"type": "array", "items": {"type": "integer"}}, "s": {"type": "string"}},
                "x-kubernetes-validations": [{"rule": rule, "message": "no"}],
            }));
            let wrong = said(&schema, list.clone(), None);
            let bounded = |said: &String| said.contains("cost budget") || said.contains("cannot be evaluated");
            assert!(wrong.len() == 1 && wrong.iter().all(bounded), "{rule:.60}: {wrong:?}");
        }
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }
}
