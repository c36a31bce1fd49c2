//! The schema of a custom resource, compiled: what is pruned, what is filled in, and what is wrong.
//!
//! A CustomResourceDefinition brings `openAPIV3Schema`. [`Structural::compile`] refuses what kube-apiserver refuses in
//! one, in its words, and makes of the rest a tree that requests walk: [`Structural::prune`], [`Structural::fill`] and
//! [`Structural::check`], in this order, on what a client sent. All are pure functions of their arguments.

use std::sync::Arc;

use onex_crds::{Invalid, Problem};
use serde_json::Value;

use crate::schema::Schema;

mod check;
mod defaults;
mod definition;
mod embedded;
mod field_path;
mod fill;
mod formats;
mod go;
mod lists;
mod node;
mod old;
mod path;
mod pattern;
mod prune;
mod rules;
mod structure;
#[cfg(test)]
mod tests;

use node::Node;
use path::Path;

/// A schema in which nothing is wrong.
#[derive(Debug)]
pub struct Structural {
    root: Node,
    published: Value,
    topology: Arc<Schema>,
}

impl Structural {
    /// Compiles `openAPIV3Schema`; `at` is the field that complaints begin with
    /// (`spec.versions[0].schema.openAPIV3Schema`). Everything that Kubernetes refuses in a schema is complained of here.
    pub fn compile(schema: &Value, at: &str) -> Result<Structural, Vec<Invalid>> {
        let mut wrong = Vec::new();
        definition::misread(schema, at, 0, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if schema["nullable"] == true {
            wrong.push(Invalid::forbidden(format!("{at}.nullable"), "nullable cannot be true at the root"));
        }
        wrong.extend(structure::check(schema, at));
        let mut root = Node::default();
        if wrong.is_empty() {
            root = Node::read(schema);
            wrong.extend(defaults::check(&root, at));
        }
        definition::check(schema, at, &definition::Around::root(), &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut published = schema.clone();
        unfold(&mut published);
        let topology = Schema::compile(&published, &Value::Null);
        Ok(Self { root, published, topology })
    }

    /// Removes what the schema does not know, and answers the paths that were removed: `spec.foo`, `spec.list[2].bar`.
    ///
    /// `apiVersion`, `kind` and `metadata` of the object are left as they are. Nulls where none may be are removed too,
    /// unless a default will stand there; that is not worth a remark.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut removed = prune::prune(object, &self.root);
        if self.root.listed {
            embedded::prune(&self.root, object, &mut Vec::new(), &mut removed);
        }
        removed
    }

    /// Fills in defaults. Twice is as good as once.
    pub fn fill(&self, object: &mut Value) {
        fill::fill(object, &self.root);
    }

    /// What is wrong, in Kubernetes' words, at which field. `old` is what the object was before an update: rules about
    /// changes are asked, and what did not change is forgiven.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Invalid> {
        let mut wrong = check::check(&self.root, object, old, "");
        if self.root.listed {
            embedded::check(&self.root, object, &Path::Root(""), &mut wrong);
            wrong.extend(self.twice(object, old));
        }
        if self.root.ruled {
            if wrong.iter().any(blocks_rules) {
                let why = "some validation rules were not checked because the object was invalid; \
                           correct the existing errors to complete validation";
                wrong.push(Invalid::value("<nil>", "null", why));
            } else {
                rules::check(&self.root, object, old, &mut wrong);
            }
        }
        wrong
    }

    /// What is there twice, unless the old object was no better.
    fn twice(&self, object: &Value, old: Option<&Value>) -> Vec<Invalid> {
        let mut wrong = Vec::new();
        lists::check(&self.root, object, &Path::Root(""), &mut wrong);
        if let Some(old) = old.filter(|_| !wrong.is_empty()) {
            let mut before = Vec::new();
            lists::check(&self.root, old, &Path::Root(""), &mut before);
            if !before.is_empty() {
                wrong.clear();
            }
        }
        wrong
    }

    /// The schema as OpenAPI v3 publishes it.
    pub fn published(&self) -> &Value {
        &self.published
    }

    /// How objects merge under server-side apply.
    pub fn topology(&self) -> &Arc<Schema> {
        &self.topology
    }
}

/// A value of the wrong type or size would only make rules fail in ways that help nobody.
fn blocks_rules(invalid: &Invalid) -> bool {
    matches!(
        invalid.problem,
        Problem::Required(_)
            | Problem::TooLong(_)
            | Problem::TooMany { .. }
            | Problem::WrongType(..)
            | Problem::NotSupported(..)
    )
}

/// Says of a value that is a number or a text what OpenAPI knows of: `anyOf`.
fn unfold(schema: &mut Value) {
    let Some(keywords) = schema.as_object_mut() else { return };
    if keywords.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        let either = serde_json::json!([{"type": "integer"}, {"type": "string"}]);
        let said = keywords.get("anyOf") == Some(&either)
            || keywords.get("allOf").is_some_and(|parts| parts[0]["anyOf"] == either);
        match keywords.get("anyOf") {
            _ if said => {}
            None => {
                keywords.insert("anyOf".to_owned(), either);
            }
            Some(_) => {
                let mut parts = vec![serde_json::json!({ "anyOf": either })];
                parts.extend(keywords.get("allOf").and_then(Value::as_array).into_iter().flatten().cloned());
                keywords.insert("allOf".to_owned(), parts.into());
            }
        }
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(below) = keywords.get_mut(keyword) {
            unfold(below);
        }
    }
    for property in keywords.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        unfold(property.1);
    }
}
