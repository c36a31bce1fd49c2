//! Kinds that clients define: what a CustomResourceDefinition makes of the table of kinds.
//!
//! [`keep`] follows the definitions that are stored. It judges their names, opens the windows of their resources, replaces
//! the table of kinds, and only then says so in their status: who reads `Established` is served. [`end`] empties the
//! resources of definitions that are being deleted. Custom resources walk the same corridor as all others; what differs
//! for them is in [`Custom`].

use std::sync::{Arc, LazyLock};

use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use crate::{
    builtin::schemas,
    schema::{self, Decoded, Schema},
    structural::Structural,
    window::Window,
};

mod definition;
mod end;
mod keep;
mod names;
mod status;

pub(crate) use end::end;
pub(crate) use keep::{Definitions, keep};

/// The group of definitions.
pub(crate) const GROUP: &str = "apiextensions.k8s.io";
/// The plural name of definitions.
pub(crate) const PLURAL: &str = "customresourcedefinitions";
/// What holds a definition until its resources are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What a definition says of one version of its kind.
pub struct Custom {
    /// The schema; nothing for a kind whose objects are only to be deleted.
    structural: Option<Arc<Structural>>,
    /// Where the objects are seen.
    pub window: Arc<Window>,
    /// The definition is being deleted: nothing new may come.
    pub ending: bool,
}

/// What `metadata` may look like, in an object that has nothing else.
static METADATA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let schemas: Map<String, Value> = schemas::object_meta().clone().into_iter().collect();
    let reference = json!({"$ref": format!("#/components/schemas/{}", schemas::OBJECT_META)});
    Schema::compile(&json!({"type": "object", "properties": {"metadata": reference}}), &Value::Object(schemas))
});

impl Custom {
    /// Removes what the schema does not know. Only metadata is looked at for types: the rest is [`Custom::check`]'s.
    pub(crate) fn decode(&self, object: &mut Value) -> Decoded {
        let Some(metadata) = object.as_object_mut().and_then(|fields| fields.remove("metadata")) else {
            return Decoded { unknown: self.prune(object), wrong: None };
        };
        let mut head = json!({ "metadata": metadata });
        let mut decoded = schema::decode(&mut head, &METADATA);
        if let (Some(fields), Some(metadata)) = (object.as_object_mut(), head.get_mut("metadata")) {
            fields.insert("metadata".to_owned(), metadata.take());
        }
        decoded.unknown.extend(self.prune(object));
        decoded
    }

    fn prune(&self, object: &mut Value) -> Vec<String> {
        self.structural.as_ref().map(|structural| structural.prune(object)).unwrap_or_default()
    }

    pub(crate) fn fill(&self, object: &mut Value) {
        if let Some(structural) = &self.structural {
            structural.fill(object);
        }
    }

    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Invalid> {
        self.structural.as_ref().map(|structural| structural.check(object, old)).unwrap_or_default()
    }
}

/// Compiles the schema of a version. `at` is the field of the definition that has it.
pub(crate) fn compile(schema: &Value, at: &str) -> Result<Structural, Vec<Invalid>> {
    Structural::compile(schema, at)
}

/// The text at `name`; empty when there is none.
fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// The items of the list at `name`; none when there is none.
fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map_or(&[], Vec::as_slice)
}
