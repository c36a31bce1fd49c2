//! How long an expression may take, at most, over the values that it is asked about.
//!
//! Whoever evaluates it cannot be interrupted, so this is found out before. It follows the expression with sizes instead
//! of values: a size is what a value and all in it take, in bytes or so, and every step makes or looks at that much.

use kube_cel::cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue},
};
use serde_json::Value;

/// What strangers say of one object may take so many steps.
pub const MOST_STEPS: u64 = 10_000_000;

/// How many steps the expression may take over the values of its variables.
pub fn steps(expression: &IdedExpr, variables: &[(&str, Option<&Value>)]) -> u64 {
    let known = variables.iter().filter_map(|(name, value)| Some((*name, Size::Known((*value)?))));
    let mut walk = Walk { variables: known.collect(), steps: 0 };
    walk.expression(expression);
    walk.steps
}

/// What is known of a value.
#[derive(Clone, Copy)]
enum Size<'a> {
    /// The value itself.
    Known(&'a Value),
    /// At most so many items, and so large.
    Most { items: u64, bytes: u64 },
}

const ONE: Size<'static> = Size::Most { items: 1, bytes: 1 };

impl<'a> Size<'a> {
    fn most(bytes: u64) -> Self {
        Self::Most { items: bytes, bytes }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Known(value) => size(value),
            Self::Most { bytes, .. } => bytes,
        }
    }

    fn items(self) -> u64 {
        match self {
            Self::Known(Value::Array(items)) => items.len() as u64,
            Self::Known(Value::Object(fields)) => fields.len() as u64,
            Self::Known(Value::String(text)) => text.len() as u64,
            Self::Known(_) => 1,
            Self::Most { items, .. } => items,
        }
    }

    fn field(self, name: &str) -> Self {
        match self {
            Self::Known(value) => match value.get(name) {
                Some(field) => Self::Known(field),
                None => Self::most(self.bytes()), // its name may be escaped
            },
            Self::Most { bytes, .. } => Self::most(bytes),
        }
    }
}

/// A value and all in it.
fn size(value: &Value) -> u64 {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, field)| name.len() as u64 + size(field)).sum::<u64>() + 1,
        Value::Array(items) => items.iter().map(size).sum::<u64>() + 1,
        Value::String(text) => text.len() as u64 + 1,
        _ => 1,
    }
}

struct Walk<'a> {
    variables: Vec<(&'a str, Size<'a>)>,
    steps: u64,
}

impl<'a> Walk<'a> {
    fn expression(&mut self, expression: &'a IdedExpr) -> Size<'a> {
        self.take(1);
        match &expression.expr {
            Expr::Unspecified => ONE,
            Expr::Literal(LiteralValue::String(text)) => Size::most(text.inner().len() as u64 + 1),
            Expr::Literal(LiteralValue::Bytes(bytes)) => Size::most(bytes.inner().len() as u64 + 1),
            Expr::Literal(_) => ONE,
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                let of = self.expression(&select.operand);
                if select.test { ONE } else { of.field(&select.field) }
            }
            Expr::List(list) => {
                let bytes = list.elements.iter().fold(1u64, |sum, element| {
                    let element = self.expression(element).bytes();
                    sum.saturating_add(element)
                });
                self.made(list.elements.len() as u64, bytes)
            }
            Expr::Map(map) => {
                let mut bytes = 1u64;
                for entry in &map.entries {
                    let (key, value) = match &entry.expr {
                        EntryExpr::MapEntry(entry) => (Some(&entry.key), &entry.value),
                        EntryExpr::StructField(field) => (None, &field.value),
                    };
                    for part in key.into_iter().chain([value]) {
                        bytes = bytes.saturating_add(self.expression(part).bytes());
                    }
                }
                self.made(map.entries.len() as u64, bytes)
            }
            Expr::Struct(_) => ONE,
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(each) => self.each(each),
        }
    }

    fn take(&mut self, steps: u64) {
        self.steps = self.steps.saturating_add(steps);
    }

    /// A new value: to make it takes as many steps as it is large.
    fn made(&mut self, items: u64, bytes: u64) -> Size<'a> {
        self.take(bytes);
        Size::Most { items: items.min(bytes), bytes }
    }

    fn variable(&self, name: &str) -> Size<'a> {
        self.variables.iter().rev().find(|(known, _)| *known == name).map_or(ONE, |(_, size)| *size)
    }

    /// A loop. Of how the range is divided into items only two things are known, how many they are and how large
    /// altogether; no division takes longer than when all are as small as can be but one that is as large as can be.
    fn each(&mut self, each: &'a ComprehensionExpr) -> Size<'a> {
        let range = self.expression(&each.iter_range);
        let items = range.items();
        let grows = matches!(each.accu_init.expr, Expr::List(_) | Expr::Map(_));
        let before = self.steps;
        let small = self.round(each, ONE);
        let small_steps = self.steps - before;
        let before = self.steps;
        let large = self.round(each, Size::most(range.bytes()));
        let large_steps = self.steps.saturating_sub(before);
        self.take(small_steps.saturating_mul(items));
        self.take(large_steps);
        if !grows {
            return ONE;
        }
        let bytes = small.saturating_mul(items).saturating_add(large);
        // What is gathered is copied in every round.
        self.take(bytes.saturating_mul(items));
        self.made(items, bytes)
    }

    /// One round of a loop; answers by how much what is gathered grows.
    fn round(&mut self, each: &'a ComprehensionExpr, item: Size<'a>) -> u64 {
        let known = self.variables.len();
        self.variables.push((&each.accu_var, ONE));
        self.variables.push((&each.iter_var, item));
        if let Some(second) = &each.iter_var2 {
            self.variables.push((second, item));
        }
        self.take(item.bytes());
        self.expression(&each.loop_cond);
        let grown = self.expression(&each.loop_step).bytes();
        self.variables.truncate(known);
        grown
    }

    fn call(&mut self, call: &'a CallExpr) -> Size<'a> {
        let target = call.target.as_deref().filter(|target| !matches!(&target.expr, Expr::Ident(name)
            if super::expression::SPACES.contains(&name.as_str()) && !self.variables.iter().any(|(known, _)| known == name)));
        let written: Vec<&IdedExpr> = target.into_iter().chain(&call.args).collect();
        let sizes: Vec<Size<'a>> = target.into_iter().chain(&call.args).map(|part| self.expression(part)).collect();
        let bytes = |place: usize| sizes.get(place).map_or(0, |size| size.bytes());
        let items = |place: usize| sizes.get(place).map_or(0, |size| size.items());
        let all = sizes.iter().fold(1u64, |sum, size| sum.saturating_add(size.bytes()));
        match call.func_name.as_str() {
            "_&&_" | "_||_" | "!_" | "@not_strictly_false" | "size" | "has" => ONE,
            "_?_:_" => {
                let (one, other) = (sizes.get(1).copied().unwrap_or(ONE), sizes.get(2).copied().unwrap_or(ONE));
                let largest =
                    Size::Most { items: one.items().max(other.items()), bytes: one.bytes().max(other.bytes()) };
                if one.bytes() == largest.bytes() && one.items() == largest.items() { one } else { largest }
            }
            "_[_]" | "_[?_]" | "_?._" => Size::most(bytes(0)),
            "_+_" => self.made(items(0).saturating_add(items(1)), bytes(0).saturating_add(bytes(1))),
            "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "_-_" | "_*_" | "_/_" | "_%_" | "-_" => {
                self.take(all);
                ONE
            }
            "@in" => {
                self.take(all.saturating_add(items(1).saturating_mul(bytes(0))));
                ONE
            }
            "matches" | "find" | "findAll" => {
                self.take(expression_weight(written.get(1).copied()).saturating_add(all));
                self.made(items(0), bytes(0).saturating_mul(2))
            }
            "replace" => {
                let made = bytes(0).saturating_mul(bytes(2).saturating_add(1)).saturating_add(bytes(2));
                self.made(made, made)
            }
            "join" => {
                let made = bytes(0).saturating_add(items(0).saturating_mul(bytes(1)));
                self.made(made, made)
            }
            "format" => {
                let made = all.saturating_mul(8).saturating_add(widths(written.first().copied(), bytes(0)));
                self.made(made, made)
            }
            // Roles and bindings are looked through.
            "check" => {
                self.take(10_000);
                ONE
            }
            // Everything with everything.
            "contains" | "equivalent" | "intersects" | "distinct" | "indexOf" | "lastIndexOf" | "sort" | "sum"
            | "flatten" => {
                self.take(bytes(0).saturating_mul(bytes(1).max(items(0)).max(1)));
                Size::most(bytes(0))
            }
            _ => {
                self.take(all.saturating_add(16));
                Size::most(all.saturating_mul(4).saturating_add(64))
            }
        }
    }
}

/// What it takes to compile a regular expression, which happens each time anew.
fn expression_weight(pattern: Option<&IdedExpr>) -> u64 {
    let Some(Expr::Literal(LiteralValue::String(text))) = pattern.map(|pattern| &pattern.expr) else {
        return 100_000; // whatever is in the object
    };
    let repeats = text.inner().split('{').skip(1).map(|rest| {
        let inner = rest.split('}').next().unwrap_or_default();
        inner.split(',').filter_map(|number| number.trim().parse::<u64>().ok()).max().unwrap_or(1).max(1)
    });
    let repeated = repeats.fold(1u64, u64::saturating_mul);
    (text.inner().len() as u64).saturating_mul(20).saturating_mul(repeated).clamp(100, 1_000_000)
}

/// How many digits a format may ask for.
fn widths(format: Option<&IdedExpr>, bytes: u64) -> u64 {
    let Some(Expr::Literal(LiteralValue::String(text))) = format.map(|format| &format.expr) else {
        return bytes.saturating_mul(u64::from(u16::MAX)); // whatever is in the object
    };
    let width = |rest: &str| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u64::MAX) }
    };
    text.inner().split("%.").skip(1).map(width).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::expression::{OF_RULES, read},
        *,
    };

    fn of(rule: &str, value: &Value) -> u64 {
        steps(&read(rule, OF_RULES).unwrap().root, &[("self", Some(value))])
    }

    #[test]
    fn loops_inside_of_each_other_multiply_and_those_beside_each_other_do_not() {
        let list = |length: usize| json!({"l": vec![1; length]});
        let one = |length| of("self.l.all(a, a > 0) && self.l.exists(a, a > 5)", &list(length));
        let two = |length| of("self.l.all (a, self.l.exists(b, a == b))", &list(length));
        assert!(one(2000) < one(1000) * 3);
        assert!(two(2000) > two(1000) * 3 && two(2000) < two(1000) * 5);
        assert!(one(1000) < 50_000, "{}", one(1000));
        assert!(two(300) < 5_000_000, "{}", two(300));
    }

    #[test]
    fn what_grows_is_known_to_grow() {
        let value = json!({"s": "x".repeat(100), "l": ["a"]});
        for rule in [
            format!("['x']{}.all(a, size(a) > 0)", ".map(a, a + a)".repeat(60)),
            "size(self.s.replace('x', self.s).replace('x', self.s).replace('x', self.s).replace('x', self.s)) > 1"
                .to_owned(),
            "size('%.4000000000f'.format([1.0])) > 1".to_owned(),
            format!("size([{}].join(self.s.replace('', self.s).replace('', self.s))) > 1", vec!["'a'"; 1500].join(",")),
        ] {
            let steps = of(&rule, &value);
            assert!(steps > 10_000_000, "{rule:.60}: {steps}");
        }
    }

    #[test]
    fn rules_as_people_write_them_cost_little() {
        let value = json!({
            "replicas": 3, "name": "abc", "labels": {"a": "b"},
            "ports": (0..100).map(|n| json!({"name": format!("port-{n}"), "port": n, "protocol": "TCP"})).collect::<Vec<_>>(),
        });
        for rule in [
            "self.replicas <= 5 && self.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",
            "self.ports.all(p, self.ports.exists_one(q, p.name == q.name && p.port == q.port))",
            "self.ports.map(p, p.name).all(n, n.startsWith('port-'))",
            "self.ports.filter(p, p.protocol == 'TCP').size() > 3",
            "'a' in self.labels ? self.labels['a'] == 'b' : true",
        ] {
            let steps = of(rule, &value);
            assert!(steps < 5_000_000, "{rule}: {steps}");
        }
    }
}
