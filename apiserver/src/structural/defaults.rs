//! Whether defaults are what the schema itself asks of values.

use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::{check, embedded, node::Node, path::Path, prune};

/// What is wrong with the defaults of a schema. The root is a whole object, whether its schema says so or not.
pub fn check(root: &Node, at: &str) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let mut walk = Walk { wrong: &mut wrong };
    walk.node(root, at, &mut Vec::new(), true, false);
    wrong
}

/// A step from an object to the value that stands within.
#[derive(Clone)]
enum Step {
    Field(String),
    Item,
}

struct Walk<'a> {
    wrong: &'a mut Vec<Invalid>,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, at: &str, steps: &mut Vec<Step>, object: bool, in_meta: bool) {
        if !node.defaults {
            return;
        }
        let (mut own, mut in_meta) = (Vec::new(), in_meta);
        let steps = if node.embedded || object {
            in_meta = false;
            &mut own
        } else {
            steps
        };
        if let Some(default) = &node.default {
            self.default(node, default, &format!("{at}.default"), steps, in_meta);
        }
        if let Some(items) = &node.items {
            steps.push(Step::Item);
            self.node(items, &format!("{at}.items"), steps, false, in_meta);
            steps.pop();
        }
        for (name, property) in &node.properties {
            let meta = (node.embedded || object) && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
            steps.push(Step::Field(name.clone()));
            self.node(property, &format!("{at}.properties[{name}]"), steps, false, in_meta || meta);
            steps.pop();
        }
    }

    fn default(&mut self, node: &Node, default: &Value, at: &str, steps: &[Step], in_meta: bool) {
        let before = self.wrong.len();
        if in_meta {
            let mut whys = Vec::new();
            embedded::check_object(&surrounded(default, steps), &Path::Root(""), &mut whys);
            if !whys.is_empty() {
                let whys: Vec<String> = whys.iter().map(ToString::to_string).collect();
                let whys = if whys.len() == 1 { whys.concat() } else { format!("[{}]", whys.join(", ")) };
                let why = format!("must result in valid metadata: {whys}");
                self.wrong.push(Invalid::value(at, default.clone(), why));
            }
        } else {
            let mut pruned = default.clone();
            prune::prune_part(&mut pruned, node);
            if pruned != *default {
                self.wrong.push(Invalid::value(at, default.clone(), "must not have unknown fields"));
            }
            let fine = self.wrong.len();
            embedded::check(node, default, &Path::Root(at), self.wrong);
            if self.wrong.len() > fine {
                return;
            }
        }
        if self.wrong.len() > before && in_meta {
            return;
        }
        self.wrong.extend(check::check(node, default, None, at));
    }
}

/// The object in which the value would stand.
fn surrounded(value: &Value, steps: &[Step]) -> Value {
    let mut value = value.clone();
    for step in steps.iter().rev() {
        value = match step {
            Step::Field(name) => Value::Object(Map::from_iter([(name.clone(), value)])),
            Step::Item => json!([value]),
        };
    }
    for (name, placeholder) in [("apiVersion", "validation/v1"), ("kind", "Validation")] {
        if value.get(name).is_none()
            && let Some(fields) = value.as_object_mut()
        {
            fields.insert(name.to_owned(), placeholder.into());
        }
    }
    value
}
