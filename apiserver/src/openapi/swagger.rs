//! A schema of OpenAPI 3 as Swagger 2 can say it.

use serde_json::{Map, Value};

/// The schema in the words of Swagger 2. What these have no word for is left out: there it means "anything".
pub(super) fn schema(schema: Value) -> Value {
    let Value::Object(mut fields) = schema else { return schema };
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
        return referring(reference, &fields);
    }
    if let Some(reference) = fields.get("allOf").and_then(|all| all[0]["$ref"].as_str()) {
        return referring(reference, &fields);
    }
    // Text, because that is what every client can hold either in.
    if fields.remove("x-kubernetes-int-or-string") == Some(Value::Bool(true)) {
        fields.insert("type".to_owned(), "string".into());
        fields.insert("format".to_owned(), "int-or-string".into());
    }
    for newer in ["nullable", "oneOf", "anyOf", "allOf", "not", "title"] {
        fields.remove(newer);
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(|property| *property = self::schema(property.take()));
    }
    for inner in ["items", "additionalProperties"] {
        match fields.get_mut(inner) {
            // "Any field" is what an object without properties means already.
            Some(Value::Bool(_)) => drop(fields.remove(inner)),
            Some(inner) => *inner = self::schema(inner.take()),
            None => {}
        }
    }
    Value::Object(fields)
}

/// A reference has no type of its own: only what is said of the field stays.
fn referring(reference: &str, fields: &Map<String, Value>) -> Value {
    let kept = |name: &String| name == "description" || name.starts_with("x-kubernetes-");
    let mut referring: Map<String, Value> =
        fields.iter().filter(|(name, _)| kept(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    referring.insert("$ref".to_owned(), reference.replace("#/components/schemas/", "#/definitions/").into());
    Value::Object(referring)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_swagger_cannot_say_is_left_out() {
        let newer = json!({"type": "object", "properties": {
            "a": {"description": "d", "allOf": [{"$ref": "#/components/schemas/X"}], "default": {}},
            "b": {"x-kubernetes-int-or-string": true},
            "c": {"type": "array", "items": {"nullable": true, "type": "string"}},
            "d": {"anyOf": [{"required": ["x"]}], "additionalProperties": true, "type": "object"},
        }});
        let swagger = json!({"type": "object", "properties": {
            "a": {"description": "d", "$ref": "#/definitions/X"},
            "b": {"type": "string", "format": "int-or-string"},
            "c": {"type": "array", "items": {"type": "string"}},
            "d": {"type": "object"},
        }});
        assert_eq!(schema(newer), swagger);
    }
}
