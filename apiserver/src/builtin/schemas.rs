//! Schemas of compiled-in kinds: from Rust types, with the facts about merging that the types cannot say.

use std::{collections::BTreeMap, sync::LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::markers::{ATOMIC, ATOMIC_FIELDS, GRANULAR_FIELDS, KEY_DEFAULTS, LISTS, NEVER_ABSENT, OBJECTS};

/// What OneX's own types are called in OpenAPI, as the Go types of the same name are.
const ONEX: &str = "com.github.onexstack.onex.pkg.apis.";
/// The schema of `metadata`.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The schema of a kind and of all that it refers to, in the form that [`crate::kinds::Published`] wants.
pub fn publish<T: JsonSchema>(group: &str, version: &str, kind: &str) -> (String, BTreeMap<String, Value>) {
    let name = renamed(&T::schema_name());
    let mut schemas = definitions::<T>();
    if !schemas.contains_key(OBJECT_META) {
        schemas.extend(object_meta().clone());
    }
    describe_parts(&name, &mut schemas);
    let root = schemas.get_mut(&name).expect("the generator was asked for this type");
    for field in ["required", "title"] {
        root.as_object_mut().map(|root| root.remove(field));
    }
    make_root(root);
    root["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    (name, schemas)
}

/// An object of a type before anything is written in it, as Go would print it: parts that are never absent, and nothing else.
/// Where Go prints null, this is an empty list or map, so that what is written there is compared item by item.
pub fn blank(name: &str, schemas: &BTreeMap<String, Value>) -> Value {
    let schema = &schemas[name];
    let is_root = schema["x-kubernetes-group-version-kind"].is_array();
    let kind = name.strip_prefix("io.k8s.").unwrap_or(name);
    let required = |field: &str| {
        let listed = schema["required"].as_array().is_some_and(|names| names.iter().any(|name| name == field));
        listed || NEVER_ABSENT.contains(&(kind, field)) || is_root && matches!(field, "spec" | "status")
    };
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields =
        fields.filter(|(field, _)| required(field) && *field != "metadata" || NEVER_ABSENT.contains(&(kind, field)));
    Value::Object(fields.map(|(field, schema)| (field.clone(), blank_field(schema, schemas))).collect())
}

fn blank_field(schema: &Value, schemas: &BTreeMap<String, Value>) -> Value {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    let named = reference.and_then(|reference| reference.rsplit('/').next()).filter(|name| schemas.contains_key(*name));
    match (named, schema["type"].as_str()) {
        (Some(name), _) if schemas[name]["properties"].is_object() => blank(name, schemas),
        (_, Some("array")) => json!([]),
        (_, Some("object")) => json!({}),
        (_, Some("string")) => "".into(),
        (_, Some("integer" | "number")) => 0.into(),
        (_, Some("boolean")) => false.into(),
        _ => Value::Null,
    }
}

/// Gives `spec` and `status` the descriptions of their types, where they have none: `kubectl explain` shows those.
fn describe_parts(root: &str, schemas: &mut BTreeMap<String, Value>) {
    for part in ["spec", "status"] {
        let Some(field) = schemas.get(root).map(|root| &root["properties"][part]).filter(|f| !f.is_null()) else {
            continue;
        };
        let reference = field.get("$ref").or_else(|| field.pointer("/allOf/0/$ref")).and_then(Value::as_str);
        let (Some(reference), None) = (reference, field.get("description")) else { continue };
        let target = schemas.get(reference.rsplit('/').next().unwrap_or_default());
        let Some(description) = target.and_then(|target| target.get("description")).cloned() else { continue };
        let described = json!({"description": description, "allOf": [{ "$ref": reference }]});
        if let Some(root) = schemas.get_mut(root) {
            root["properties"][part] = described;
        }
    }
}

/// The schemas of a type and of all that it refers to, by name.
pub fn definitions<T: JsonSchema>() -> BTreeMap<String, Value> {
    let mut generator = SchemaSettings::openapi3()
        .with(|settings| settings.meta_schema = None)
        .with_transform(kube::core::schema::StructuralSchemaRewriter)
        .with_transform(kube::core::schema::OptionalEnum)
        .with_transform(kube::core::schema::OptionalIntOrString)
        .into_generator();
    let _ = generator.subschema_for::<T>();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for (name, mut schema) in generator.take_definitions(true) {
        rename_references(&mut schema);
        let name = renamed(&name);
        state_facts(&name, &mut schema);
        schemas.insert(name, schema);
    }
    schemas
}

/// What a type is called in OpenAPI, given its own name.
pub fn renamed(name: &str) -> String {
    match name {
        kubernetes if kubernetes.starts_with("io.k8s.") => kubernetes.to_owned(),
        batch if batch.starts_with("Job") || batch.starts_with("CronJob") => format!("{ONEX}batch.v1beta1.{batch}"),
        apps => format!("{ONEX}apps.v1beta1.{apps}"),
    }
}

fn rename_references(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            // Compiled-in kinds take null for "not written" everywhere, so none of them says `nullable`.
            // A schema of schemas has a field of that name.
            if fields.get("nullable").is_some_and(Value::is_boolean) {
                fields.remove("nullable");
            }
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(name) =
                    reference.strip_prefix("#/components/schemas/").filter(|name| !name.starts_with(ONEX))
            {
                *reference = format!("#/components/schemas/{}", renamed(name));
            }
            // One way of referring with a description beside it, rather than the generator's three.
            for combination in ["anyOf", "oneOf"] {
                let single = fields
                    .get(combination)
                    .and_then(Value::as_array)
                    .is_some_and(|parts| parts.len() == 1 && parts[0].get("$ref").is_some());
                if single && let Some(parts) = fields.remove(combination) {
                    fields.insert("allOf".to_owned(), parts);
                }
            }
            // What stands beside a bare reference does not count. A schema of schemas also has a field of that name.
            if fields.len() > 1
                && fields.get("$ref").is_some_and(Value::is_string)
                && let Some(reference) = fields.remove("$ref")
            {
                fields.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
            }
            fields.values_mut().for_each(rename_references);
        }
        Value::Array(items) => items.iter_mut().for_each(rename_references),
        _ => {}
    }
}

/// The schemas of `metadata`, by name.
pub fn object_meta() -> &'static BTreeMap<String, Value> {
    static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(definitions::<ObjectMeta>);
    &SCHEMAS
}

/// A whole object has an apiVersion, a kind and metadata.
pub fn make_root(root: &mut Value) {
    let fields = root.as_object_mut().expect("a schema is an object");
    let properties = fields.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    for (name, description) in [
        ("apiVersion", "The version of the form that this object is written in: the group and the version."),
        ("kind", "What this object is, in CamelCase."),
    ] {
        if properties.get(name).is_none() {
            properties[name] = json!({"type": "string", "description": description});
        }
    }
    if properties["metadata"].pointer("/allOf/0/$ref").is_none() && properties["metadata"].get("$ref").is_none() {
        properties["metadata"] = json!({
            "description": "What every object has: name, namespace, labels and more.",
            "allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}],
        });
    }
}

fn state_facts(name: &str, schema: &mut Value) {
    let Some(name) = name.strip_prefix("io.k8s.") else { return };
    for (_, field, strategy, merge_key, list_type, keys) in LISTS.iter().filter(|fact| fact.0 == name) {
        let field = &mut schema["properties"][field];
        if !strategy.is_empty() {
            field["x-kubernetes-patch-strategy"] = json!(strategy);
        }
        if !merge_key.is_empty() {
            field["x-kubernetes-patch-merge-key"] = json!(merge_key);
        }
        field["x-kubernetes-list-type"] = json!(list_type);
        if !keys.is_empty() {
            field["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
    for (_, field) in ATOMIC_FIELDS.iter().filter(|fact| fact.0 == name) {
        schema["properties"][field]["x-kubernetes-map-type"] = json!("atomic");
    }
    for (_, field) in GRANULAR_FIELDS.iter().filter(|fact| fact.0 == name) {
        schema["properties"][field]["x-kubernetes-map-type"] = json!("granular");
    }
    for (_, field, strategy) in OBJECTS.iter().filter(|fact| fact.0 == name) {
        schema["properties"][field]["x-kubernetes-patch-strategy"] = json!(strategy);
    }
    for (_, field, default) in KEY_DEFAULTS.iter().filter(|fact| fact.0 == name) {
        schema["properties"][field]["default"] = json!(default);
    }
    if ATOMIC.contains(&name) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    match name {
        // Of several forms, of which the generator knows one.
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            let description = schema["description"].take();
            *schema = json!({ "description": description });
        }
        // These hold what somebody else defines.
        "apimachinery.pkg.apis.meta.v1.FieldsV1" | "apimachinery.pkg.runtime.RawExtension" => {
            schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
        }
        // The type's own words are a page of grammar that every field would repeat.
        "apimachinery.pkg.api.resource.Quantity" => {
            schema["description"] = json!("An amount: a number with an optional suffix, for instance 500m, 1.5, 2Gi.");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::schema::{ListType, Schema};

    #[test]
    fn spec_and_status_of_our_kinds_are_described() {
        let (name, schemas) = publish::<onex_crds::Chain>("apps.onex.io", "v1beta1", "Chain");
        for part in ["spec", "status"] {
            assert!(schemas[&name]["properties"][part]["description"].is_string(), "{part}");
        }
    }

    fn compiled(published: (String, BTreeMap<String, Value>)) -> std::sync::Arc<Schema> {
        let definitions = Value::Object(published.1.into_iter().collect());
        Schema::compile(&json!({"$ref": format!("#/components/schemas/{}", published.0)}), &definitions)
    }

    fn field(schema: &Schema, path: &str) -> std::sync::Arc<Schema> {
        let mut current = std::sync::Arc::new(schema.clone());
        for part in path.split('.') {
            let next = if part == "[]" { current.items().cloned() } else { current.field(part).cloned() };
            current = next.unwrap_or_else(|| panic!("{path} has no {part}"));
        }
        current
    }

    /// The types of all compiled-in kinds, without `io.k8s.`, and of what is decoded without being a kind.
    fn types() -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for kind in crate::builtin::kinds() {
            all.extend(kind.published.schemas().clone());
        }
        all.into_iter().filter_map(|(name, schema)| Some((name.strip_prefix("io.k8s.")?.to_owned(), schema))).collect()
    }

    #[test]
    fn every_fact_is_about_a_field_that_there_is() {
        let all = types();
        let known = |name: &&str| all.contains_key(*name);
        for (name, field, ..) in LISTS.iter().filter(|fact| known(&fact.0)) {
            assert!(all[*name]["properties"][field]["type"] == "array", "{name}.{field}");
        }
        for (name, field) in ATOMIC_FIELDS.iter().filter(|fact| known(&fact.0)) {
            assert!(all[*name]["properties"][field]["type"] == "object", "{name}.{field}");
        }
        for (name, field, _) in OBJECTS.iter().filter(|fact| known(&fact.0)) {
            assert!(all[*name]["properties"][field].is_object(), "{name}.{field}");
        }
    }

    #[test]
    fn no_list_of_a_kubernetes_type_is_without_a_fact() {
        let without = |(name, schema): (&String, &Value)| -> Vec<String> {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let lists =
                properties.filter(|(_, field)| field["type"] == "array" && field["x-kubernetes-list-type"].is_null());
            lists.map(|(field, _)| format!("{name}.{field}")).collect()
        };
        let missing: Vec<String> = types().iter().flat_map(without).collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }

    #[test]
    fn a_pod_merges_as_in_kubernetes() {
        let pod = compiled(publish::<Pod>("", "v1", "Pod"));
        let containers = field(&pod, "spec.containers");
        assert_eq!(containers.merge_key.as_deref(), Some("name"));
        assert_eq!(*containers.list_type(), ListType::Map(vec!["name".to_owned()]));
        let ports = field(&pod, "spec.containers.[].ports");
        assert_eq!(*ports.list_type(), ListType::Map(vec!["containerPort".to_owned(), "protocol".to_owned()]));
        assert_eq!(field(&ports, "[].protocol").default, Some(json!("TCP")));
        assert_eq!(*field(&pod, "metadata.finalizers").list_type(), ListType::Set);
        assert_eq!(*field(&pod, "spec.tolerations").list_type(), ListType::Atomic);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|v| references(v, found));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        for kind in crate::builtin::kinds() {
            let mut found = Vec::new();
            kind.published.schemas().values().for_each(|schema| references(schema, &mut found));
            for reference in found {
                let name = reference.strip_prefix("#/components/schemas/").unwrap();
                assert!(kind.published.schemas().contains_key(name), "{}: {reference}", kind.kind);
            }
        }
    }

    #[test]
    fn onex_kinds_are_called_as_in_go_and_merge_as_in_go() {
        let published = publish::<onex_crds::MinerSet>("apps.onex.io", "v1beta1", "MinerSet");
        assert_eq!(published.0, "com.github.onexstack.onex.pkg.apis.apps.v1beta1.MinerSet");
        let schema = compiled(published);
        assert_eq!(field(&schema, "status.conditions").merge_key.as_deref(), Some("type"));
        assert_eq!(*field(&schema, "status.conditions").list_type(), ListType::Atomic);
        assert!(field(&schema, "metadata").field("labels").is_some());
    }
}
