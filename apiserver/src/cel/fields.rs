//! Whether the fields that an expression names are there: what can be known of types without running anything.
//!
//! Only what is certain is told. Where the schema says nothing, or a function is in between, anything may be there.

use kube_cel::cel::{
    IdedExpr,
    common::ast::{EntryExpr, Expr, LiteralValue},
};
use serde_json::Value;

/// What every whole object has, whether the schema says so or not.
const ALWAYS: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// Words of the language, which cannot be names of fields.
const WORDS: [&str; 22] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "__proto__",
];

/// The first field that the expression names and the schema of `self` does not have.
pub fn undefined(expression: &IdedExpr, schema: &Value) -> Option<String> {
    let mut walk = Walk { known: vec![("self", Some(schema)), ("oldSelf", Some(schema))], undefined: None };
    walk.schema_of(expression);
    walk.undefined
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    List,
    Map,
    Null,
}

/// Whether what the expression is can be told without evaluating it, and is of another type.
pub fn is_never(expression: &IdedExpr, wanted: Type) -> bool {
    certain(expression).is_some_and(|found| found != wanted)
}

/// The type of what an expression is, where that is certain.
fn certain(expression: &IdedExpr) -> Option<Type> {
    match &expression.expr {
        Expr::Literal(literal) => Some(match literal {
            LiteralValue::Boolean(_) => Type::Bool,
            LiteralValue::Int(_) => Type::Int,
            LiteralValue::UInt(_) => Type::Uint,
            LiteralValue::Double(_) => Type::Double,
            LiteralValue::String(_) => Type::String,
            LiteralValue::Bytes(_) => Type::Bytes,
            LiteralValue::Null => Type::Null,
        }),
        Expr::List(_) => Some(Type::List),
        Expr::Map(_) => Some(Type::Map),
        Expr::Select(select) if select.test => Some(Type::Bool),
        Expr::Comprehension(each) => match &each.result.expr {
            Expr::Ident(name) if *name == each.accu_var => certain(&each.accu_init),
            _ => certain(&each.result),
        },
        Expr::Call(call) => match call.func_name.as_str() {
            "_&&_" | "_||_" | "!_" | "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "@in" | "startsWith"
            | "endsWith" | "matches" => Some(Type::Bool),
            "size" | "int" => Some(Type::Int),
            "string" | "lowerAscii" | "upperAscii" | "trim" | "format" | "join" => Some(Type::String),
            "double" => Some(Type::Double),
            "_+_" => call.args.iter().find_map(certain),
            "_?_:_" => {
                let (one, other) = (certain(call.args.get(1)?)?, certain(call.args.get(2)?)?);
                (one == other).then_some(one)
            }
            _ => None,
        },
        _ => None,
    }
}

struct Walk<'a> {
    /// Variables, with the schemas of their values where those are known. The last of a name counts.
    known: Vec<(&'a str, Option<&'a Value>)>,
    undefined: Option<String>,
}

impl<'a> Walk<'a> {
    /// The schema of what an expression is, where that is known.
    fn schema_of(&mut self, expression: &'a IdedExpr) -> Option<&'a Value> {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => None,
            Expr::Ident(name) => self.known.iter().rev().find(|(known, _)| known == name)?.1,
            Expr::Select(select) => {
                let schema = self.schema_of(&select.operand)?;
                self.field(schema, &select.field)
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.schema_of(element);
                }
                None
            }
            Expr::Map(map) => {
                self.entries(map.entries.iter().map(|entry| &entry.expr));
                None
            }
            Expr::Struct(made) => {
                self.entries(made.entries.iter().map(|entry| &entry.expr));
                None
            }
            Expr::Call(call) => {
                let mut of = call.target.as_deref().and_then(|target| self.schema_of(target));
                for argument in &call.args {
                    let schema = self.schema_of(argument);
                    of = of.or(schema);
                }
                let is_item = call.func_name == "_[_]" && of?["type"] == "array";
                is_item.then(|| &of.expect("it was looked at")["items"])
            }
            Expr::Comprehension(each) => {
                let range = self.schema_of(&each.iter_range);
                self.schema_of(&each.accu_init);
                let item = range.filter(|range| range["type"] == "array").map(|range| &range["items"]);
                let before = self.known.len();
                // Of two variables the first is the place.
                let first = if each.iter_var2.is_some() { None } else { item };
                self.known.push((&each.iter_var, first));
                self.known.extend(each.iter_var2.as_deref().map(|second| (second, item)));
                self.known.push((&each.accu_var, None));
                for part in [&each.loop_cond, &each.loop_step, &each.result] {
                    self.schema_of(part);
                }
                self.known.truncate(before);
                None
            }
        }
    }

    fn entries(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) {
        for entry in entries {
            match entry {
                EntryExpr::MapEntry(entry) => {
                    self.schema_of(&entry.key);
                    self.schema_of(&entry.value);
                }
                EntryExpr::StructField(field) => {
                    self.schema_of(&field.value);
                }
            }
        }
    }

    fn field(&mut self, schema: &'a Value, name: &str) -> Option<&'a Value> {
        let properties = schema["properties"].as_object().into_iter().flatten();
        if let Some((_, found)) = properties.into_iter().find(|(property, _)| escaped(property) == name) {
            return Some(found);
        }
        let open = ["additionalProperties", "x-kubernetes-embedded-resource", "x-kubernetes-preserve-unknown-fields"];
        let is_closed = schema["type"] == "object" && !open.iter().any(|open| is_said(&schema[*open]));
        if is_closed && !ALWAYS.contains(&name) && self.undefined.is_none() {
            self.undefined = Some(name.to_owned());
        }
        None
    }
}

fn is_said(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// The name of a field as expressions write it.
fn escaped(name: &str) -> String {
    if WORDS.contains(&name) {
        return format!("__{name}__");
    }
    let escaped = name.replace("__", "__underscores__");
    escaped.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cel::expression::{OF_RULES, read};

    #[test]
    fn the_type_of_an_expression_is_told_where_it_is_certain() {
        let text = |text: &str| certain(&read(text, OF_RULES).unwrap_or_else(|why| panic!("{text}: {why}")).root);
        for (expression, found) in [
            ("self.a == 1 || self.b", Some(Type::Bool)),
            ("self.l.all(i, i > 1)", Some(Type::Bool)),
            ("self.l.exists_one(i, i > 1)", Some(Type::Bool)),
            ("self.l.map(i, i + 1)", Some(Type::List)),
            ("has(self.a)", Some(Type::Bool)),
            ("self.a + ' of ' + self.b", Some(Type::String)),
            ("self.l.size()", Some(Type::Int)),
            ("self.a ? 'x' : 'y'", Some(Type::String)),
            ("self.a", None),
            ("self.a ? self.b : true", None),
            ("oldSelf.orValue(1)", None),
            ("null", Some(Type::Null)),
        ] {
            assert_eq!(text(expression), found, "{expression}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_named_and_nothing_else() {
        let item = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "object", "properties": {"b-c": {"type": "integer"}, "in": {"type": "string"}}},
            "l": {"type": "array", "items": item},
            "m": {"type": "object", "additionalProperties": item},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }});
        let missing =
            |text: &str| undefined(&read(text, OF_RULES).unwrap_or_else(|why| panic!("{text}: {why}")).root, &schema);
        for text in [
            "self.a.b__dash__c > 0 && self.a.__in__ == 'x'",
            "self.l.all(i, i.name != '') && self.l[0].name == 'x'",
            "self.m.all(k, self.m[k].name == k) && self.m.x.name == 'y'",
            "self.any.thing.deep == 1 && has(self.any.other)",
            "self.metadata.name == 'x' && self.kind == 'K'",
            "self.l.filter(i, i.name == 'x')[0].nothing == 1",
            "oldSelf.a.b__dash__c == self.a.b__dash__c",
            "self.l.exists(self, self.name == 'x')",
            "self.a.orValue(1) == 1",
        ] {
            assert_eq!(missing(text), None, "{text}");
        }
        for (text, name) in [
            ("self.b == 1", "b"),
            ("has(self.a.c)", "c"),
            ("self.l.all(i, i.nome != '')", "nome"),
            ("self.l[0].nome == ''", "nome"),
            ("oldSelf.a.x == 1", "x"),
            ("[self.x].size() == 1", "x"),
            ("self.a.b__dash__c > 0 ? true : self.y", "y"),
        ] {
            assert_eq!(missing(text).as_deref(), Some(name), "{text}");
        }
    }
}
