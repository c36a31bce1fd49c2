//! `x-kubernetes-validations`: rules in CEL.
//!
//! A library reads and asks them, within the bounds of [`crate::cel`].

use std::collections::HashMap;

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, compile_schema, validate_compiled};
use onex_crds::{Invalid, Problem};
use serde_json::{Value, json};

use super::{
    field_path,
    node::Node,
    old::{self, Items},
    path::Path,
};
use crate::{
    cel::{
        self, cost,
        expression::{self, Expression},
        fields::{self, Type},
        text,
    },
    status::is_enough,
};

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
            Self { expressions: texts.filter_map(|text| read(text).ok()).collect() }
        };
        rules.map(rule).collect()
    }

    /// Whether it may take more stack than a request has left.
    pub fn deep(&self) -> bool {
        self.expressions.iter().any(|expression| expression.deep)
    }

    /// How many steps it may take over this value.
    fn steps(&self, value: &Value, old: Option<&Value>) -> u64 {
        let variables = [("self", Some(value)), ("oldSelf", old)];
        let steps = self.expressions.iter().map(|expression| cost::steps(&expression.root, &variables));
        steps.fold(0, u64::saturating_add)
    }
}

fn read(text: &str) -> Result<Expression, String> {
    expression::read(text, expression::OF_RULES)
}

/// What is wrong with the form of the rules of a node of a schema. `uncorrelated` is where nobody can tell any more what a
/// value was before, if they stand within such a place.
pub fn check_form(schema: &Value, at: &str, uncorrelated: &str, wrong: &mut Vec<Invalid>) {
    for (index, rule) in schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
        if is_enough(wrong) {
            return;
        }
        let at = format!("{at}.x-kubernetes-validations[{index}]");
        check_words(rule, schema, &at, wrong);
        check_expressions(rule, schema, uncorrelated, &at, wrong);
    }
}

/// What can be said of a rule without reading its expressions.
fn check_words(rule: &Value, schema: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let text = |name: &str| rule[name].as_str().unwrap_or_default();
    let field = |name: &str| format!("{at}.{name}");
    let has_lines = |text: &str| text.contains(['\n', '\r']);
    let (says, message) = (text("rule").trim(), text("message").trim());
    if says.is_empty() {
        wrong.push(Invalid::required(field("rule"), "rule is not specified"));
    } else if !text("message").is_empty() && message.is_empty() {
        wrong.push(Invalid::value(field("message"), text("message"), "message must be non-empty if specified"));
    } else if has_lines(message) {
        wrong.push(Invalid::value(field("message"), text("message"), "message must not contain line breaks"));
    } else if has_lines(says) && message.is_empty() {
        wrong.push(Invalid::required(field("message"), "message must be specified if rule contains line breaks"));
    }
    if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        wrong.push(Invalid::required(field("messageExpression"), why));
    }
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    if !rule["reason"].is_null() && !REASONS.contains(&text("reason")) {
        wrong.push(Invalid::not_supported(field("reason"), text("reason"), &REASONS));
    }
    let path = text("fieldPath");
    let mut refuse_path = |why: &str| wrong.push(Invalid::value(field("fieldPath"), path, why));
    if !path.is_empty() && path.trim().is_empty() {
        refuse_path("fieldPath must be non-empty if specified");
    }
    if has_lines(path) {
        refuse_path("fieldPath must not contain line breaks");
    }
    if !path.is_empty() && field_path::written(schema, path).is_none() {
        refuse_path("fieldPath must be a valid path");
    }
}

fn check_expressions(rule: &Value, schema: &Value, uncorrelated: &str, at: &str, wrong: &mut Vec<Invalid>) {
    if rule["rule"].as_str().is_none_or(|text| text.trim().is_empty()) {
        return; // that was told already
    }
    let field = |name: &str| format!("{at}.{name}");
    for (name, what, kind) in [
        ("rule", "compilation failed", "cel expression must evaluate to a bool"),
        ("messageExpression", "messageExpression compilation failed", "messageExpression must evaluate to a string"),
    ] {
        let Some(text) = rule[name].as_str().filter(|text| !text.trim().is_empty()) else { continue };
        let mut refuse = |why: String| wrong.push(Invalid::value(field(name), text, why));
        let read = match read(text) {
            Ok(read) => read,
            Err(why) => return refuse(format!("{what}: {why}")),
        };
        if let Some(undefined) = fields::undefined(&read.root, schema) {
            return refuse(format!("{what}: undefined field '{undefined}'"));
        }
        if fields::is_never(&read.root, if name == "rule" { Type::Bool } else { Type::String }) {
            return refuse(kind.to_owned());
        }
        let speaks_of_old = read.variables.contains("oldSelf");
        if name == "rule" && speaks_of_old && !uncorrelated.is_empty() {
            let why = "oldSelf cannot be used on the uncorrelatable portion of the schema within";
            return refuse(format!("{why} {uncorrelated}"));
        }
        if name == "rule" && !speaks_of_old && !rule["optionalOldSelf"].is_null() {
            let why = "may not be set if oldSelf is not used in rule";
            return wrong.push(Invalid::value(field("optionalOldSelf"), rule["optionalOldSelf"].clone(), why));
        }
    }
    let alone = json!({"type": "object", "x-kubernetes-validations": [rewritten(rule)]});
    let errors = || compile_schema(&alone).compilation_errors().iter().map(ToString::to_string).collect::<Vec<_>>();
    for error in expression::apart(errors).unwrap_or_default() {
        wrong.push(Invalid::value(field("rule"), rule["rule"].clone(), format!("compilation failed: {error}")));
    }
}

/// The rules of one node of a schema, compiled with the types of what is below it.
pub struct Compiled {
    schema: CompiledSchema,
    /// The rules as they were written, by what the library was given.
    written: HashMap<String, Written>,
}

/// What a complaint says of the rule.
#[derive(Clone)]
struct Written {
    rule: String,
    /// The field below the value at which the rule finds fault; empty if it is the value itself.
    path: String,
    speaks_of_old: bool,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compiled")
    }
}

impl Compiled {
    /// Compiles the rules of a node in which nothing is wrong; nothing, if it has none.
    pub fn of(schema: &Value) -> Option<Self> {
        let rules = schema["x-kubernetes-validations"].as_array().filter(|rules| !rules.is_empty())?;
        let mut written = HashMap::new();
        for rule in rules {
            let text = rule["rule"].as_str().unwrap_or_default();
            let path = rule["fieldPath"].as_str().and_then(|path| field_path::written(schema, path));
            let speaks_of_old = read(text).is_ok_and(|read| read.variables.contains("oldSelf"));
            let key = rewritten(rule)["rule"].as_str().unwrap_or_default().to_owned();
            written.insert(key, Written { rule: text.to_owned(), path: path.unwrap_or_default(), speaks_of_old });
        }
        // The rules below are asked by themselves, of the old value that theirs was.
        let mut alone = without_rules(schema);
        alone["x-kubernetes-validations"] = rules.iter().map(rewritten).collect();
        expression::apart(|| compile_schema(&alone)).map(|schema| Self { schema, written })
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

/// The rule as the library has to be given it: without pairs of negations, and with an old value that may be missing, which
/// the library takes for null, as the optional value that rules expect.
fn rewritten(rule: &Value) -> Value {
    let mut made = rule.clone();
    for name in ["rule", "messageExpression"] {
        let Some(text) = rule[name].as_str() else { continue };
        let mut text = text::without_double_negation(text);
        if rule["optionalOldSelf"] == true {
            text = text::with_optional(&text, "oldSelf");
        }
        made[name] = text.into();
    }
    if rule["rule"].is_string() && rule["message"].as_str().is_none_or(str::is_empty) {
        made["message"] = format!("failed rule: {}", rule["rule"].as_str().unwrap_or_default().trim()).into();
    }
    made
}

/// What the rules of a schema say of an object. Of what did not change, only rules about changes are asked.
pub fn check(root: &Node, object: &Value, old: Option<&Value>, wrong: &mut Vec<Invalid>) {
    let mut found = Vec::new();
    let ask = || {
        let mut asked = Asked { steps: cost::MOST_STEPS, wrong: &mut found };
        if let Err(too_much) = asked.ask(root, object, old, &Path::Root(""), false) {
            asked.wrong.push(too_much);
        }
    };
    let answered = cel::guarded(root.deep_rules(), ask);
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
            && let Err(errors) = validate_compiled(&compiled.schema, value, old)
        {
            let is_unchanged = unchanged || old.is_some_and(|old| old::equal(node, value, old));
            for error in errors.into_vec() {
                let Some(written) = compiled.written.get(&error.rule) else { continue };
                // It was no better before, and nobody made it worse.
                if !is_unchanged || written.speaks_of_old {
                    self.wrong.push(invalid(error, written, value, path));
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

fn invalid(error: ValidationError, written: &Written, value: &Value, path: &Path<'_>) -> Invalid {
    let below = written.path.as_str();
    let field = match path.field() {
        field if below.is_empty() => field,
        field if field == "<nil>" => below.to_owned(),
        field if below.starts_with('[') => format!("{field}{below}"),
        field => format!("{field}.{below}"),
    };
    let said = match error.kind {
        ErrorKind::ValidationFailure => error.message,
        _ => format!("{} evaluating rule: {}", error.message, written.rule),
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
        for (rule, what) in [
            (
                json!({"rule": "self.a + 1"}),
                "rule: Invalid value: \"self.a + 1\": cel expression must evaluate to a bool",
            ),
            (
                json!({"rule": "true", "messageExpression": "1"}),
                "messageExpression: Invalid value: \"1\": messageExpression must evaluate to a string",
            ),
            (
                json!({"rule": "true ||\nfalse"}),
                "message: Required value: message must be specified if rule contains line breaks",
            ),
            (
                json!({"rule": "true", "optionalOldSelf": true}),
                "optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
            ),
            (
                json!({"rule": "true", "fieldPath": ".nowhere"}),
                "fieldPath: Invalid value: \".nowhere\": fieldPath must be a valid path",
            ),
        ] {
            assert_eq!(refused(rule), [format!("{at}.{what}")]);
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
    fn a_rule_about_changes_is_refused_where_nobody_knows_what_a_value_was() {
        let item = json!({"type": "object", "properties": {"n": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "self >= oldSelf"}]}}});
        let refused = |list: Value| Structural::compile(&schema(list), "s").err().unwrap_or_default();
        let wrong = refused(json!({"type": "array", "items": item}));
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        let why = "oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec]";
        assert!(wrong[0].to_string().ends_with(why), "{}", wrong[0]);
        let atomic = json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": item}});
        assert_eq!(refused(atomic).len(), 1);
    }

    #[test]
    fn a_rule_that_is_given_to_the_library_in_other_words_is_told_in_its_own() {
        let schema = schema(json!({"type": "object", "properties": {"on": {"type": "boolean"}, "m": {
            "type": "object", "additionalProperties": {"type": "string"}}},
            "x-kubernetes-validations": [
                {"rule": " !!self.on || !oldSelf.hasValue()", "optionalOldSelf": true, "fieldPath": ".m['a.b']"}]}));
        let on = |on: bool| json!({"spec": {"on": on}});
        assert_eq!(said(&schema, on(true), Some(on(false))), [""; 0]);
        assert_eq!(
            said(&schema, on(false), Some(on(true))),
            ["spec.m[a.b]: Invalid value: \"object\": failed rule: !!self.on || !oldSelf.hasValue()"]
        );
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
