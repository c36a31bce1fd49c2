//! `x-kubernetes-validations`.

use onex_crds::Invalid;
use serde_json::Value;

/// One rule, compiled.
#[derive(Debug)]
pub struct Rule {}

/// What is wrong with the form of the rules of a schema, whatever they say.
pub fn check_form(_schema: &Value, _at: &str, _wrong: &mut Vec<Invalid>) {}

/// Whether a default satisfies the rules.
pub fn check_default(_node: &super::node::Node, _default: &Value, _at: &str, _wrong: &mut Vec<Invalid>) {}

/// What the rules say of an object.
pub fn check(_root: &super::node::Node, _object: &Value, _old: Option<&Value>, _wrong: &mut Vec<Invalid>) {}
