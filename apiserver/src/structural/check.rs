//! Whether a value satisfies its schema: the words are those of the validator that kube-apiserver uses.

use onex_crds::{Invalid, Problem};
use serde_json::{Map, Number, Value};

use super::{
    go,
    node::{Additional, Kind, Limits, Node},
    old::{self, Items},
    path::Path,
};
use crate::status::is_enough;

/// A schema with many alternatives and a long list make a product; no check takes more steps than this.
const MOST_STEPS: u32 = 20_000_000;

/// Everything wrong with `value`, which stands at `at`. With `old`, what did not change is forgiven.
pub fn check(node: &Node, value: &Value, old: Option<&Value>, at: &str) -> Vec<Invalid> {
    let wrong = run(node, value, None, at);
    // Who changed nothing wrong does not pay for finding out what was there before.
    if wrong.is_empty() || old.is_none() { wrong } else { run(node, value, old, at) }
}

fn run(node: &Node, value: &Value, old: Option<&Value>, at: &str) -> Vec<Invalid> {
    let mut check = Check { wrong: Vec::new(), steps: 0 };
    check.whole(node, value, old, &Path::Root(at));
    check.wrong
}

struct Check {
    wrong: Vec<Invalid>,
    steps: u32,
}

impl Check {
    /// Checks a value, and forgives all that is wrong when it did not change. Answers how much of it was right, by
    /// which the best of several alternatives is known.
    fn whole(&mut self, node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) -> u32 {
        let before = self.wrong.len();
        let right = self.value(node, value, old, path);
        if self.wrong.len() > before && old.is_some_and(|old| old::equal(node, value, old)) {
            self.wrong.truncate(before);
        }
        right
    }

    fn value(&mut self, node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) -> u32 {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            if self.steps == MOST_STEPS + 1 {
                let why = "the object has too many parts to be checked against this schema";
                self.push(Invalid::value(path.field(), "", why));
            }
            return 0;
        }
        if value.is_null() {
            if has_type(node) && !node.nullable {
                self.wrong_type(path, &expected(node), Some("null"));
            }
            self.enumeration(node, value, path);
            return 1;
        }
        let mut right = 1;
        if has_type(node) || node.limits.format.is_some() {
            right += 1;
            match type_problem(node, value) {
                None => right += 1,
                Some((expected, found)) => self.wrong_type(path, &expected, Some(found)),
            }
        }
        right += 2 + self.junctions(node, value, old, path);
        right += match value {
            Value::String(text) => self.text(&node.limits, text, path),
            Value::Number(number) => self.number(&node.limits, number, path),
            Value::Array(items) => self.items(node, items, old, path),
            Value::Object(_) | Value::Bool(_) | Value::Null => 0,
        };
        self.enumeration(node, value, path);
        right += 1;
        if let Value::Object(fields) = value {
            right += 1 + self.fields(node, fields, old, path);
        }
        right
    }

    /// Every complaint is made once, and no more of them than anybody reads.
    fn push(&mut self, invalid: Invalid) {
        if !is_enough(&self.wrong) && !self.wrong.contains(&invalid) {
            self.wrong.push(invalid);
        }
    }

    fn say(&mut self, path: &Path<'_>, value: impl Into<Value>, why: std::fmt::Arguments<'_>) {
        self.push(Invalid::value(path.dotted_field(), value, format!("{} in body {why}", path.dotted())));
    }

    fn wrong_type(&mut self, path: &Path<'_>, expected: &str, found: Option<&str>) {
        let found = found.unwrap_or_default();
        let why = format!("{} in body must be of type {expected}: {}", path.dotted(), go::quoted(found));
        self.push(Invalid { field: path.dotted_field(), problem: Problem::WrongType(found.into(), why) });
    }

    /// What is wrong with the whole value, and with no single field of it, is said without a field.
    fn say_whole(&mut self, path: &Path<'_>, why: &str) {
        let field = super::path::below(path.root(), "");
        self.push(Invalid::value(field, "", format!("{} {why}", go::quoted(&path.dotted()))));
    }

    fn enumeration(&mut self, node: &Node, value: &Value, path: &Path<'_>) {
        let allowed = &node.limits.enumeration;
        if allowed.is_empty() || (!value.is_null() && allowed.iter().any(|allowed| alike(value, allowed))) {
            return;
        }
        let supported = allowed
            .iter()
            .map(|allowed| match allowed {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        let shown = if value.is_null() { Value::from("null") } else { value.clone() };
        self.push(Invalid { field: path.dotted_field(), problem: Problem::NotSupported(shown, supported) });
    }

    fn text(&mut self, limits: &Limits, text: &str, path: &Path<'_>) -> u32 {
        self.length_and_pattern(limits, text, path);
        match &limits.format {
            Some(format) => {
                if !format.fits(text) {
                    self.wrong_type(path, &format.name, Some(text));
                }
                2
            }
            None => 1,
        }
    }

    fn length_and_pattern(&mut self, limits: &Limits, text: &str, path: &Path<'_>) {
        if limits.max_length.is_some() || limits.min_length.is_some() {
            let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            if let Some(most) = limits.max_length.filter(|most| length > *most) {
                let problem = match usize::try_from(most) {
                    Ok(most) => Problem::TooLong(most),
                    Err(_) => Problem::Invalid(text.into(), "value is too long".to_owned()),
                };
                return self.push(Invalid { field: path.dotted_field(), problem });
            }
            if let Some(least) = limits.min_length.filter(|least| length < *least) {
                return self.say(path, text, format_args!("should be at least {least} chars long"));
            }
        }
        if let Some(pattern) = &limits.pattern
            && !pattern.regex.is_match(text)
        {
            self.say(path, text, format_args!("should match '{}'", pattern.source));
        }
    }

    fn number(&mut self, limits: &Limits, number: &Number, path: &Path<'_>) -> u32 {
        let float = number.as_f64().unwrap_or_default();
        let whole = go::whole(number);
        // A whole number is compared with the whole part of a limit.
        let limit = |limit: f64| match whole {
            Some(_) => (limit as i64).to_string(),
            None => go::float(limit),
        };
        let order = |limit: f64| match whole {
            Some(whole) => whole.cmp(&(limit as i64)),
            None => float.partial_cmp(&limit).unwrap_or(std::cmp::Ordering::Equal),
        };
        let shown = match whole {
            Some(_) => Value::Number(number.clone()),
            None => Value::from(float),
        };
        if let Some(factor) = limits.multiple_of {
            let (positive, fits) = match whole {
                Some(whole) => {
                    let factor = factor as i64;
                    (factor > 0, factor > 0 && whole % factor == 0)
                }
                None => {
                    let ratio = if factor < 1.0 { 1.0 / factor * float } else { float / factor };
                    (factor > 0.0, is_whole(ratio))
                }
            };
            if !positive {
                let why =
                    format!("factor MultipleOf declared for {} must be positive: {}", path.dotted(), limit(factor));
                self.push(Invalid::value(path.dotted_field(), shown.clone(), why));
            } else if !fits {
                self.say(path, shown.clone(), format_args!("should be a multiple of {}", go::float(factor)));
            }
        }
        if let Some(most) = limits.maximum {
            let order = order(most);
            if order.is_gt() || (limits.exclusive_maximum && order.is_eq()) {
                let or_equal = if limits.exclusive_maximum { "" } else { " or equal to" };
                self.say(path, shown.clone(), format_args!("should be less than{or_equal} {}", limit(most)));
            }
        }
        if let Some(least) = limits.minimum {
            let order = order(least);
            if order.is_lt() || (limits.exclusive_minimum && order.is_eq()) {
                let or_equal = if limits.exclusive_minimum { "" } else { " or equal to" };
                self.say(path, shown, format_args!("should be greater than{or_equal} {}", limit(least)));
            }
        }
        2
    }

    fn items(&mut self, node: &Node, items: &[Value], old: Option<&Value>, path: &Path<'_>) -> u32 {
        let mut right = 2;
        if let Some(below) = &node.items {
            let known = Items::of(node, old);
            for (index, item) in items.iter().enumerate() {
                let before = known.as_ref().and_then(|known| known.get(item));
                right += self.whole(below, item, before, &Path::Index(path, index));
            }
        }
        let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(least) = node.limits.min_items.filter(|least| size < *least) {
            self.say(path, size, format_args!("should have at least {least} items"));
        }
        if let Some(most) = node.limits.max_items.filter(|most| size > *most) {
            self.too_many(path, items.len(), most);
        }
        right
    }

    fn too_many(&mut self, path: &Path<'_>, actual: usize, most: i64) {
        let most = usize::try_from(most).unwrap_or_default();
        self.push(Invalid { field: path.dotted_field(), problem: Problem::TooMany { actual, most } });
    }

    fn fields(&mut self, node: &Node, fields: &Map<String, Value>, old: Option<&Value>, path: &Path<'_>) -> u32 {
        let mut right = 0;
        let size = i64::try_from(fields.len()).unwrap_or(i64::MAX);
        if let Some(least) = node.limits.min_properties.filter(|least| size < *least) {
            self.say(path, size, format_args!("should have at least {least} properties"));
        }
        if let Some(most) = node.limits.max_properties.filter(|most| size > *most) {
            self.too_many(path, fields.len(), most);
        }
        match &node.additional {
            Some(Additional::Any(false)) => {
                for name in fields.keys().filter(|name| !node.properties.contains_key(*name)) {
                    let why = format!("{}.{name} in body is a forbidden property", path.dotted());
                    self.push(Invalid::value(path.dotted_field(), name.as_str(), why));
                }
            }
            Some(Additional::Of(values)) => {
                for (key, value) in fields.iter().filter(|(key, _)| !node.properties.contains_key(*key)) {
                    let before = old::field(old, node, key);
                    right += self.whole(values, value, before, &Path::Key(path, key));
                }
            }
            Some(Additional::Any(true)) | None => {}
        }
        let root = matches!(path, Path::Root(_));
        for (name, property) in &node.properties {
            if let Some(value) = fields.get(name) {
                // The version of an object is not what changed it, so it is never forgiven.
                let type_meta = root && matches!(name.as_str(), "kind" | "apiVersion");
                let before = if type_meta { None } else { old::field(old, node, name) };
                right += self.whole(property, value, before, &Path::Field(path, name));
            }
        }
        for name in &node.limits.required {
            if !fields.contains_key(name) {
                self.push(Invalid::required(Path::Field(path, name).dotted_field(), ""));
            }
        }
        right
    }

    fn junctions(&mut self, node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) -> u32 {
        let Some(junctions) = &node.junctions else { return 0 };
        let mut right = 0;
        right += self.any_of(&junctions.any, value, old, path);
        right += self.one_of(&junctions.one, value, old, path);
        if !junctions.all.is_empty() {
            let mut valid = 0;
            for part in &junctions.all {
                let outcome = self.apart(part, value, old, path);
                valid += usize::from(outcome.wrong.is_empty());
                right += self.merge(outcome);
            }
            if valid < junctions.all.len() {
                let more = if valid == 0 { ". None validated" } else { "" };
                self.say_whole(path, &format!("must validate all the schemas (allOf){more}"));
            }
        }
        if let Some(not) = &junctions.not
            && self.apart(not, value, old, path).wrong.is_empty()
        {
            self.say_whole(path, "must not validate the schema (not)");
        }
        right
    }

    fn any_of(&mut self, parts: &[Node], value: &Value, old: Option<&Value>, path: &Path<'_>) -> u32 {
        let mut best: Option<Outcome> = None;
        for part in parts {
            let outcome = self.apart(part, value, old, path);
            if outcome.wrong.is_empty() {
                return outcome.right;
            }
            if best.as_ref().is_none_or(|best| outcome.right > best.right) {
                best = Some(outcome);
            }
        }
        let Some(best) = best else { return 0 };
        self.say_whole(path, "must validate at least one schema (anyOf)");
        self.merge(best)
    }

    fn one_of(&mut self, parts: &[Node], value: &Value, old: Option<&Value>, path: &Path<'_>) -> u32 {
        let (mut best, mut valid, mut first): (Option<Outcome>, usize, u32) = (None, 0, 0);
        for part in parts {
            let outcome = self.apart(part, value, old, path);
            if outcome.wrong.is_empty() {
                if valid == 0 {
                    first = outcome.right;
                }
                valid += 1;
                best = None;
            } else if valid == 0 && best.as_ref().is_none_or(|best| outcome.right > best.right) {
                best = Some(outcome);
            }
        }
        match valid {
            _ if parts.is_empty() => 0,
            1 => first,
            0 => {
                self.say_whole(path, "must validate one and only one schema (oneOf). Found none valid");
                best.map_or(0, |best| self.merge(best))
            }
            valid => {
                let found = format!("Found {valid} valid alternatives");
                self.say_whole(path, &format!("must validate one and only one schema (oneOf). {found}"));
                0
            }
        }
    }

    /// Checks a value against one of several schemas, with the complaints apart.
    fn apart(&mut self, node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) -> Outcome {
        let outer = std::mem::take(&mut self.wrong);
        let right = self.value(node, value, old, path);
        Outcome { wrong: std::mem::replace(&mut self.wrong, outer), right }
    }

    fn merge(&mut self, outcome: Outcome) -> u32 {
        for invalid in outcome.wrong {
            self.push(invalid);
        }
        outcome.right
    }
}

struct Outcome {
    wrong: Vec<Invalid>,
    right: u32,
}

fn has_type(node: &Node) -> bool {
    node.kind.is_some() || node.int_or_string
}

fn expected(node: &Node) -> String {
    match node.kind {
        _ if node.int_or_string => "integer,string".to_owned(),
        Some(kind) => kind.name().to_owned(),
        None => String::new(),
    }
}

/// The type that is expected, and the one that is there, if that is another.
fn type_problem(node: &Node, value: &Value) -> Option<(String, &'static str)> {
    let (found, detail) = match value {
        Value::Bool(_) => (Kind::Boolean, ""),
        Value::String(_) => (Kind::String, ""),
        Value::Array(_) => (Kind::Array, ""),
        Value::Number(number) if go::whole(number).is_some() => (Kind::Integer, "int64"),
        Value::Number(_) => (Kind::Number, "float64"),
        Value::Object(_) | Value::Null => (Kind::Object, ""),
    };
    let takes = |kind: Kind| {
        node.kind == Some(kind) && !node.int_or_string
            || node.int_or_string && matches!(kind, Kind::Integer | Kind::String)
    };
    let near = match value {
        Value::Number(number) => match go::whole(number) {
            Some(_) => takes(Kind::Number),
            None => takes(Kind::Integer) && is_whole(number.as_f64().unwrap_or_default()),
        },
        _ => false,
    };
    let fits = takes(found) || near;
    if let Some(format) = &node.limits.format {
        let listed = matches!(value, Value::String(_) | Value::Array(_));
        if !listed && !fits {
            return Some((format.name.clone(), detail));
        }
        if listed && !takes(Kind::Number) && !takes(Kind::Integer) {
            return None;
        }
    }
    if fits || !has_type(node) { None } else { Some((expected(node), found.name())) }
}

/// Whether a float is a whole number that JSON can carry.
fn is_whole(float: f64) -> bool {
    float.is_finite() && float.abs() < 9_007_199_254_740_991.0 && float.fract() == 0.0
}

/// Whether a value is one of an enumeration's: numbers by their value, all else as it stands.
fn alike(value: &Value, allowed: &Value) -> bool {
    match (value, allowed) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => a.as_f64() == b.as_f64(),
        },
        (value, allowed) => value == allowed,
    }
}
