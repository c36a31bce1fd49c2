//! Expressions in CEL, by which strangers say what may be: rules of custom resources, conditions of webhooks.
//!
//! A library reads and evaluates them. What is ours is what keeps a stranger's expression from keeping the server busy, or
//! from ending it: the library cannot be interrupted, calls itself as deep as an expression goes, and panics here and
//! there. So it reads on a stack of its own ([`expression`]), and is asked nothing that may take longer than a budget
//! ([`cost`]).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use kube_cel::cel::{Value as Cel, objects::Key};
use serde_json::Value;

pub mod authorizer;
pub mod cost;
pub mod expression;
pub mod fields;
pub mod text;

/// Evaluates, on a stack of its own if it may go deep. Nothing if the library panics, as it does where it has nothing to say:
/// no object must be able to make a request end so.
pub fn guarded<T: Send>(is_deep: bool, evaluate: impl FnOnce() -> T + Send) -> Option<T> {
    match is_deep {
        true => expression::apart(evaluate),
        false => catch_unwind(AssertUnwindSafe(evaluate)).ok(),
    }
}

/// A value as expressions know it.
pub fn value(json: &Value) -> Cel {
    match json {
        Value::Null => Cel::Null,
        Value::Bool(is) => Cel::Bool(*is),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cel::Int(whole),
            None => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(value).collect())),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (Key::from(name.as_str()), value(field)));
            Cel::from(fields.collect::<std::collections::HashMap<_, _>>())
        }
    }
}
