//! `fieldPath` of a rule: where below the value that it is asked of the rule finds fault.

use serde_json::Value;

/// The names in a path such as `.spec['a.b'].c`; nothing if it is no path.
pub fn names(path: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("['") {
            let mut name = String::new();
            let mut signs = quoted.char_indices();
            loop {
                match signs.next()? {
                    (_, '\\') => name.push(signs.next()?.1),
                    (end, '\'') => {
                        rest = quoted[end + 1..].strip_prefix(']')?;
                        break;
                    }
                    (_, sign) => name.push(sign),
                }
            }
            names.push(name);
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            names.push(after[..end].to_owned());
            rest = &after[end..];
        }
    }
    (!names.is_empty() && names.iter().all(|name| !name.is_empty())).then_some(names)
}

/// The path as Kubernetes writes it, `spec.a[key]`, if the schema has such a field.
pub fn written(schema: &Value, path: &str) -> Option<String> {
    let mut written = String::new();
    let mut schema = schema;
    for name in names(path)? {
        if let Some(property) = schema["properties"].get(&name) {
            written.push_str(if written.is_empty() { "" } else { "." });
            written.push_str(&name);
            schema = property;
        } else if schema["properties"].is_null() && schema["additionalProperties"].is_object() {
            written.push_str(&format!("[{name}]"));
            schema = &schema["additionalProperties"];
        } else {
            return None;
        }
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_to_a_field_of_the_schema() {
        let leaf = json!({"type": "string"});
        let map = json!({"type": "object", "additionalProperties": {"type": "object", "properties": {"b": leaf}}});
        let schema =
            json!({"type": "object", "properties": {"a": map, "x.y'z": leaf, "l": {"type": "array", "items": leaf}}});
        for (path, found) in [
            (".a", Some("a")),
            (".a.k.b", Some("a[k].b")),
            (".a['k.l'].b", Some("a[k.l].b")),
            (r"['x.y\'z']", Some("x.y'z")),
            (".b", None),
            ("a", None),
            (".a.k.c", None),
            (".l[0]", None),
            (".a[", None),
            (".a['k", None),
            ("..", None),
        ] {
            assert_eq!(written(&schema, path).as_deref(), found, "{path}");
        }
    }
}
