//! Expressions in CEL, by which strangers say what may be: rules of custom resources, conditions of webhooks.
//!
//! A library reads and evaluates them. What is ours is what keeps a stranger's expression from keeping the server busy, or
//! from ending it: the library cannot be interrupted, calls itself as deep as an expression goes, and panics here and
//! there. So it reads on a stack of its own ([`expression`]), and is asked nothing that may take longer than a budget
//! ([`cost`]).

pub mod cost;
pub mod expression;
pub mod fields;
pub mod text;
