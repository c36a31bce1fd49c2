//! The words that a schema inside a definition may use. It contains itself, so the compiled schema of definitions ends in it.

use std::{collections::BTreeSet, sync::LazyLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use super::super::schemas;
use crate::schema::complain;

static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let all = schemas::definitions::<JSONSchemaProps>();
    let schema = &all["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"];
    schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
});

/// Takes unknown words out of the schemas of a definition, and answers where they stood.
pub(super) fn prune(crd: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (index, version) in crd["spec"]["versions"].as_array_mut().into_iter().flatten().enumerate() {
        if let Some(schema) = version.get_mut("schema").and_then(|schema| schema.get_mut("openAPIV3Schema")) {
            let at = format!("spec.versions[{index}].schema.openAPIV3Schema");
            below(schema, &at, &mut unknown); // at the root, the compiled schema has done it
        }
    }
    unknown
}

fn walk(schema: &mut Value, at: &str, unknown: &mut Vec<String>) {
    let Some(words) = schema.as_object_mut() else { return };
    words.retain(|word, _| {
        let known = KNOWN.contains(word);
        if !known {
            complain(unknown, || format!("{at}.{word}"));
        }
        known
    });
    below(schema, at, unknown);
}

fn below(schema: &mut Value, at: &str, unknown: &mut Vec<String>) {
    let Some(words) = schema.as_object_mut() else { return };
    for (word, value) in words {
        let at = format!("{at}.{word}");
        match (word.as_str(), value) {
            ("properties" | "patternProperties" | "definitions", Value::Object(schemas)) => {
                schemas.iter_mut().for_each(|(name, schema)| walk(schema, &format!("{at}.{name}"), unknown));
            }
            ("allOf" | "anyOf" | "oneOf" | "items", Value::Array(schemas)) => {
                let schemas = schemas.iter_mut().enumerate();
                schemas.for_each(|(index, schema)| walk(schema, &format!("{at}[{index}]"), unknown));
            }
            ("items" | "additionalProperties" | "additionalItems" | "not", schema) => walk(schema, &at, unknown),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_word_is_known() {
        let words = [
            "$ref",
            "$schema",
            "additionalItems",
            "additionalProperties",
            "allOf",
            "anyOf",
            "default",
            "definitions",
            "dependencies",
            "description",
            "enum",
            "example",
            "exclusiveMaximum",
            "exclusiveMinimum",
            "externalDocs",
            "format",
            "id",
            "items",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minProperties",
            "minimum",
            "multipleOf",
            "not",
            "nullable",
            "oneOf",
            "pattern",
            "patternProperties",
            "properties",
            "required",
            "title",
            "type",
            "uniqueItems",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-map-type",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-validations",
        ];
        assert_eq!(KNOWN.iter().map(String::as_str).collect::<Vec<_>>(), words);
    }

    #[test]
    fn unknown_words_are_taken_out_however_deep_they_stand() {
        let schema = |typo: bool| {
            let mut leaf =
                json!({"type": "string", "x-kubernetes-validations": [{"rule": "true"}], "default": {"typo": 1}});
            if typo {
                leaf["typo"] = json!(1);
            }
            let words =
                json!({"typo": leaf, "list": {"items": leaf, "anyOf": [leaf]}, "map": {"additionalProperties": leaf}});
            json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": words}}}]}})
        };
        let mut crd = schema(true);
        let at = "spec.versions[0].schema.openAPIV3Schema.properties";
        let paths =
            ["list.anyOf[0]", "list.items", "map.additionalProperties", "typo"].map(|path| format!("{at}.{path}.typo"));
        assert_eq!(prune(&mut crd), paths);
        assert_eq!(crd, schema(false));
        assert_eq!(prune(&mut crd), [""; 0]);
    }
}
