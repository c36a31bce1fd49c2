//! Tables in Kubernetes' own words.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const AT: &str = "spec.versions[0].schema.openAPIV3Schema";

/// A schema of an object with these properties under `spec`.
fn of_spec(properties: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
}

fn compiled(schema: &Value) -> Structural {
    Structural::compile(schema, AT).unwrap_or_else(|wrong| panic!("{}", said(&wrong).join("\n")))
}

fn said(wrong: &[Invalid]) -> Vec<String> {
    wrong.iter().map(ToString::to_string).collect()
}

/// What is said of `value` at `spec.x`, whose schema is `schema`.
fn complaints(schema: &Value, value: &Value) -> Vec<String> {
    let structural = compiled(&of_spec(json!({ "x": schema })));
    said(&structural.check(&json!({"spec": {"x": value}}), None))
}

fn refused(schema: &Value) -> Vec<String> {
    Structural::compile(schema, "s").err().map(|wrong| said(&wrong)).unwrap_or_default()
}

#[test]
fn values_are_refused_in_the_words_of_kubernetes() {
    let cases = [
        (
            json!({"type": "integer"}),
            json!("a"),
            r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "string"}),
            json!(1),
            r#"spec.x: Invalid value: "integer": spec.x in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "string"}),
            json!(1.5),
            r#"spec.x: Invalid value: "number": spec.x in body must be of type string: "number""#,
        ),
        (
            json!({"type": "boolean"}),
            json!({}),
            r#"spec.x: Invalid value: "object": spec.x in body must be of type boolean: "object""#,
        ),
        (
            json!({"type": "object", "nullable": true, "properties": {"a": {"type": "array", "items": {"type": "string"}}}}),
            json!({"a": true}),
            r#"spec.x.a: Invalid value: "boolean": spec.x.a in body must be of type array: "boolean""#,
        ),
        (
            json!({"type": "string"}),
            json!(null),
            r#"spec.x: Invalid value: "null": spec.x in body must be of type string: "null""#,
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 1}),
            json!(2),
            "spec.x: Invalid value: 2: spec.x in body should be less than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 1, "exclusiveMaximum": true}),
            json!(1),
            "spec.x: Invalid value: 1: spec.x in body should be less than 1",
        ),
        (
            json!({"type": "number", "minimum": 0.5, "exclusiveMinimum": true}),
            json!(0.25),
            "spec.x: Invalid value: 0.25: spec.x in body should be greater than 0.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 3}),
            json!(4),
            "spec.x: Invalid value: 4: spec.x in body should be a multiple of 3",
        ),
        (
            json!({"type": "string", "minLength": 3}),
            json!("éé"),
            r#"spec.x: Invalid value: "éé": spec.x in body should be at least 3 chars long"#,
        ),
        (json!({"type": "string", "maxLength": 2}), json!("abc"), "spec.x: Too long: may not be more than 2 bytes"),
        (
            json!({"type": "string", "pattern": "^a$"}),
            json!("b"),
            r#"spec.x: Invalid value: "b": spec.x in body should match '^a$'"#,
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"spec.x: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            json!({"type": "integer", "enum": [1, 2]}),
            json!(3),
            r#"spec.x: Unsupported value: 3: supported values: "1", "2""#,
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("yesterday"),
            r#"spec.x: Invalid value: "yesterday": spec.x in body must be of type date-time: "yesterday""#,
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!(5),
            r#"spec.x: Invalid value: "int64": spec.x in body must be of type date: "int64""#,
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}}),
            json!([1, "a"]),
            r#"spec.x[1]: Invalid value: "string": spec.x[1] in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "maxItems": 2}),
            json!([1, 2, 3]),
            "spec.x: Too many: 3: must have at most 2 items",
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 2}),
            json!([1]),
            "spec.x: Invalid value: 1: spec.x in body should have at least 2 items",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}),
            json!({"a": "", "b": ""}),
            "spec.x: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}),
            json!({}),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 properties",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"a": 1}),
            r#"spec.x.a: Invalid value: "integer": spec.x.a in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({}),
            "spec.x.a: Required value",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a", "a"]),
            r#"spec.x[2]: Duplicate value: "a""#,
        ),
        (
            json!({
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}},
            }),
            json!([{"a": "x"}, {"a": "x"}]),
            r#"spec.x[1]: Duplicate value: map[string]interface {}{"a":"x"}"#,
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"kind": "Pod"}),
            "spec.x.apiVersion: Required value: must not be empty",
        ),
        (
            json!({"type": "integer", "not": {"enum": [1]}}),
            json!(1),
            r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#,
        ),
    ];
    for (schema, value, complaint) in cases {
        assert_eq!(complaints(&schema, &value), [complaint], "{schema} of {value}");
    }
}

#[test]
fn of_several_alternatives_the_nearest_is_explained() {
    let schema = json!({
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    });
    let nothing = [
        r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found none valid"#,
        "spec.x.a: Required value",
    ];
    assert_eq!(complaints(&schema, &json!({})), nothing);
    let both = [
        r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
    ];
    assert_eq!(complaints(&schema, &json!({"a": 1, "b": 1})), both);
    assert!(complaints(&schema, &json!({"a": 1})).is_empty());
    let any = json!({"type": "integer", "anyOf": [{"minimum": 5}, {"enum": [1]}]});
    let neither = [
        r#"<nil>: Invalid value: "": "spec.x" must validate at least one schema (anyOf)"#,
        "spec.x: Invalid value: 3: spec.x in body should be greater than or equal to 5",
    ];
    assert_eq!(complaints(&any, &json!(3)), neither);
    assert!(complaints(&any, &json!(1)).is_empty());
    let all = json!({"type": "integer", "allOf": [{"minimum": 5}, {"maximum": 9}]});
    let last = [
        "spec.x: Invalid value: 10: spec.x in body should be less than or equal to 9",
        r#"<nil>: Invalid value: "": "spec.x" must validate all the schemas (allOf)"#,
    ];
    assert_eq!(complaints(&all, &json!(10)), last);
}

#[test]
fn numbers_and_texts_may_take_each_others_place_where_the_schema_says_so() {
    let schema = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    for value in [json!(1), json!("50%")] {
        assert!(complaints(&schema, &value).is_empty(), "{value}");
    }
    assert!(complaints(&json!({"type": "integer"}), &json!(2.0)).is_empty());
    assert!(complaints(&json!({"type": "number"}), &json!(2)).is_empty());
}

#[test]
fn what_the_schema_does_not_know_is_pruned() {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "a": {"type": "string"},
                    "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}},
                    "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
                    "open": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"known": {"type": "object", "properties": {"d": {"type": "string"}}}},
                    },
                    "pod": {
                        "type": "object", "x-kubernetes-embedded-resource": true,
                        "properties": {"spec": {"type": "object", "properties": {}}},
                    },
                    "number": {"type": "integer"},
                },
            },
        },
    });
    let mut object = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x", "odd": 1}, "other": 1,
        "spec": {
            "a": "x", "z": {"y": 1},
            "list": [{"b": "x", "c": "y"}, {"b": "x"}],
            "map": {"k": {"c": "x", "d": "y"}},
            "open": {"any": {"thing": 1}, "known": {"d": "x", "e": "y"}},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "odd": 1}, "spec": {"z": 1}, "status": {}},
            "number": null,
        },
    });
    let removed = compiled(&schema).prune(&mut object);
    let expected = [
        "other",
        "spec.list[0].c",
        "spec.map.k.d",
        "spec.open.known.e",
        "spec.pod.spec.z",
        "spec.pod.status",
        "spec.z",
        "spec.pod.metadata.odd",
    ];
    assert_eq!(removed, expected);
    let left = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x", "odd": 1},
        "spec": {
            "a": "x", "list": [{"b": "x"}, {"b": "x"}], "map": {"k": {"c": "x"}},
            "open": {"any": {"thing": 1}, "known": {"d": "x"}},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}},
        },
    });
    assert_eq!(object, left);
}

#[test]
fn defaults_are_filled_in_where_nothing_was_written() {
    let schema = of_spec(json!({
        "a": {"type": "string", "default": "x"},
        "b": {"type": "object", "default": {}, "properties": {"c": {"type": "integer", "default": 1}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "boolean", "default": true}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"e": {"type": "string", "default": "e"}}}},
        "null": {"type": "string", "nullable": true, "default": "n"},
        "numbers": {"type": "array", "items": {"type": "integer", "default": 7}},
    }));
    let structural = compiled(&schema);
    let mut object =
        json!({"spec": {"a": null, "list": [{}, {"d": false}], "map": {"k": {}}, "null": null, "numbers": [1, null]}});
    structural.fill(&mut object);
    let filled = json!({"spec": {
        "a": "x", "b": {"c": 1}, "list": [{"d": true}, {"d": false}], "map": {"k": {"e": "e"}}, "null": null,
        "numbers": [1, 7],
    }});
    assert_eq!(object, filled);
    let mut nothing = json!({});
    structural.fill(&mut nothing);
    assert_eq!(nothing, json!({}), "a default below what is not there is not filled in");
}

#[test]
fn what_did_not_change_is_forgiven() {
    let schema = of_spec(json!({
        "a": {"type": "integer", "minimum": 5},
        "b": {"type": "string"},
        "list": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}},
        },
        "atomic": {"type": "array", "items": {"type": "integer", "maximum": 1}},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
    }));
    let structural = compiled(&schema);
    let old = json!({"spec": {
        "a": 1, "list": [{"k": "x", "v": 9}, {"k": "y", "v": 1}], "atomic": [9, 1], "set": ["a", "a"],
    }});
    let mut new = old.clone();
    new["spec"]["b"] = "changed".into();
    new["spec"]["list"] = json!([{"k": "y", "v": 0}, {"k": "x", "v": 9}]);
    new["spec"]["set"] = json!(["b", "b"]);
    assert_eq!(said(&structural.check(&new, Some(&old))), Vec::<String>::new());
    new["spec"]["list"][0]["v"] = 8.into();
    new["spec"]["atomic"] = json!([9, 0]);
    new["spec"]["a"] = 2.into();
    let wrong = [
        "spec.a: Invalid value: 2: spec.a in body should be greater than or equal to 5",
        "spec.atomic[0]: Invalid value: 9: spec.atomic[0] in body should be less than or equal to 1",
        "spec.list[0].v: Invalid value: 8: spec.list[0].v in body should be less than or equal to 1",
    ];
    assert_eq!(said(&structural.check(&new, Some(&old))), wrong);
}

#[test]
fn a_schema_that_is_not_structural_is_refused() {
    let property = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    let cases = [
        (json!({}), "s.type: Required value: must not be empty at the root"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            r#"s.type: Invalid value: "array": must be object at the root"#,
        ),
        (property(json!({})), "s.properties[a].type: Required value: must not be empty for specified object fields"),
        (
            property(json!({"type": "array", "items": {}})),
            "s.properties[a].items.type: Required value: must not be empty for specified array items",
        ),
        (property(json!({"type": "array"})), "s.properties[a].items: Required value: must be specified"),
        (
            property(json!({"type": "string", "anyOf": [{"type": "string"}]})),
            "s.properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            property(json!({"type": "string", "not": {"description": "x"}})),
            "s.properties[a].not.description: Forbidden: must be empty to be structural",
        ),
        (
            property(json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true})),
            "s.properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
        ),
        (
            property(json!({"type": "string", "pattern": "["})),
            "s.properties[a].pattern: Invalid value: \"[\": must be a valid regular expression, but isn't: error parsing regexp: unclosed character class: `[`",
        ),
        (
            property(json!({"type": "object", "x-kubernetes-embedded-resource": true})),
            "s.properties[a].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "s.additionalProperties: Forbidden: must not be used at the root",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
        (json!({"type": "object", "nullable": true}), "s.nullable: Forbidden: nullable cannot be true at the root"),
    ];
    for (schema, complaint) in cases {
        assert!(refused(&schema).iter().any(|said| said == complaint), "{schema}: {:?}", refused(&schema));
    }
    let names = json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}}}});
    let structural = compiled(&names);
    let wrong = structural.check(&json!({"metadata": {"name": "b"}}), None);
    assert_eq!(said(&wrong), [r#"metadata.name: Invalid value: "b": metadata.name in body should match '^a'"#]);
}

#[test]
fn a_schema_with_what_kubernetes_does_not_support_is_refused() {
    let property = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    let map = |more: Value| {
        let mut schema = json!({
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}},
        });
        for (keyword, value) in more.as_object().unwrap() {
            schema[keyword] = value.clone();
        }
        property(schema)
    };
    let cases = [
        (
            property(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
            "s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            property(
                json!({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"b": {"type": "string"}}}),
            ),
            "s.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (property(json!({"type": "string", "$ref": "#/x"})), "s.properties[a].$ref: Forbidden: $ref is not supported"),
        (
            property(json!({"type": "text"})),
            r#"s.properties[a].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (
            property(json!({"type": "array", "items": [{"type": "string"}]})),
            "s.properties[a].items: Forbidden: items must be a schema object and not an array",
        ),
        (
            property(json!({"type": "string", "x-kubernetes-list-type": "set"})),
            r#"s.properties[a].type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#,
        ),
        (
            property(json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"})),
            r#"s.properties[a].items.x-kubernetes-map-type: Invalid value: "null": must be atomic as item of a list with x-kubernetes-list-type=set"#,
        ),
        (
            map(json!({"x-kubernetes-list-map-keys": []})),
            "s.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            map(json!({"items": {"type": "object", "properties": {"k": {"type": "string"}}}})),
            "s.properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            map(
                json!({"items": {"type": "object", "required": ["k"], "nullable": true, "properties": {"k": {"type": "string"}}}}),
            ),
            "s.properties[a].items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is map",
        ),
        (
            map(json!({"items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "object"}}}})),
            r#"s.properties[a].items.properties[k].type: Invalid value: "object": must be a scalar type if parent array's x-kubernetes-list-type is map"#,
        ),
        (
            property(json!({"type": "integer", "default": "x"})),
            r#"s.properties[a].default: Invalid value: "string":  in body must be of type integer: "string""#,
        ),
        (
            property(json!({"type": "object", "properties": {"b": {"type": "string"}}, "default": {"c": 1}})),
            r#"s.properties[a].default: Invalid value: "object": must not have unknown fields"#,
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "string", "default": "x"}}}),
            "s.properties[kind].default: Forbidden: must not be set in top-level kind",
        ),
        (
            property(json!({"type": "string", "x-kubernetes-preserve-unknown-fields": false})),
            "s.properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
    ];
    for (schema, complaint) in cases {
        assert!(refused(&schema).iter().any(|said| said == complaint), "{schema}: {:#?}", refused(&schema));
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..12).prop_map(Value::from),
        (-2.0..2.0f64).prop_map(Value::from),
        "[a-e]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-e]", inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": "string", "default": "d", "maxLength": 2})),
        Just(json!({"type": "integer", "default": 3, "minimum": 1})),
        Just(json!({"type": "boolean", "nullable": true})),
        Just(json!({"x-kubernetes-int-or-string": true, "default": 1})),
        Just(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"})),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| json!({"type": "array", "items": items, "maxItems": 3})),
            inner.clone().prop_map(|values| json!({"type": "object", "additionalProperties": values})),
            prop::collection::btree_map("[a-e]", inner, 0..4)
                .prop_map(|fields| json!({"type": "object", "default": {}, "properties": fields})),
        ]
    })
}

proptest! {
    #[test]
    fn pruning_and_filling_twice_is_pruning_and_filling_once(schema in any_schema(), value in any_json()) {
        let structural = compiled(&of_spec(json!({ "a": schema })));
        let mut once = json!({"spec": {"a": value}});
        structural.prune(&mut once);
        structural.fill(&mut once);
        let mut twice = once.clone();
        prop_assert_eq!(structural.prune(&mut twice), Vec::<String>::new());
        structural.fill(&mut twice);
        prop_assert_eq!(&once, &twice);
        // And whatever is wrong with it is no reason to panic, and forgiven where nothing changes.
        let wrong = structural.check(&once, None);
        prop_assert!(structural.check(&once, Some(&twice)).len() <= wrong.len());
    }

    #[test]
    fn what_is_filled_in_is_never_wrong(schema in any_schema()) {
        let structural = compiled(&of_spec(json!({ "a": schema })));
        let mut object = json!({"spec": {}});
        structural.fill(&mut object);
        prop_assert_eq!(said(&structural.check(&object, None)), Vec::<String>::new());
    }

    #[test]
    fn no_schema_makes_the_compiler_panic(schema in any_json(), keyword in prop::sample::select(KEYWORDS)) {
        let mut whole = of_spec(json!({"a": {"type": "object", "properties": {"b": {"type": "string"}}}}));
        whole["properties"]["spec"]["properties"]["a"][keyword] = schema;
        if let Ok(structural) = Structural::compile(&whole, AT) {
            structural.check(&json!({"spec": {"a": {"b": 1}}}), None);
        }
    }
}

const KEYWORDS: &[&str] = &[
    "type",
    "format",
    "items",
    "properties",
    "additionalProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "enum",
    "default",
    "required",
    "pattern",
    "maximum",
    "minLength",
    "nullable",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
];
