//! Each rule of the four patches, as a table where it can be one.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Managers, Writer, apply, made,
    managed_fields::{self, FieldSet, Step},
    record,
};
use crate::{schema::Schema, status};

/// Something like a Pod with everything that merging can meet.
fn schema() -> Arc<Schema> {
    let container = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "image": {"type": "string"},
        "args": {"type": "array", "items": {"type": "string"}},
        "ports": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "x-kubernetes-patch-merge-key": "containerPort", "x-kubernetes-patch-strategy": "merge",
            "items": {"type": "object", "properties": {
                "containerPort": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"},
            }},
        },
    }});
    let strings = json!({"type": "object", "additionalProperties": {"type": "string"}});
    Schema::compile(
        &json!({"type": "object", "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {
                "name": {"type": "string"}, "namespace": {"type": "string"}, "uid": {"type": "string"},
                "resourceVersion": {"type": "string"}, "generation": {"type": "integer"},
                "creationTimestamp": {"type": "string"},
                "labels": strings, "annotations": strings,
                "finalizers": {
                    "type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set",
                    "x-kubernetes-patch-strategy": "merge",
                },
                "managedFields": {"type": "array", "items": {}},
            }},
            "spec": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "paused": {"type": "boolean"}, "port": {"x-kubernetes-int-or-string": true},
                "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"matchLabels": strings}},
                "strategy": {
                    "type": "object", "x-kubernetes-patch-strategy": "retainKeys",
                    "properties": {"type": {"type": "string"}, "rollingUpdate": {"type": "object", "properties": {"maxSurge": {"type": "integer"}}}},
                },
                "containers": {
                    "type": "array", "items": container, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
                },
                "whole": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }},
            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
        }}),
        &json!({}),
    )
}

mod json_patch {
    use super::*;

    fn patched(object: Value, patch: Value) -> status::Result<Value> {
        super::super::json(&object, patch.to_string().as_bytes())
    }

    #[test]
    fn every_operation_does_what_the_rfc_says() {
        let object = json!({"a": 1, "list": [1, 2], "b": {"c": 3}});
        let cases = [
            (json!([{"op": "add", "path": "/list/-", "value": 3}]), json!({"a": 1, "list": [1, 2, 3], "b": {"c": 3}})),
            (json!([{"op": "remove", "path": "/b/c"}]), json!({"a": 1, "list": [1, 2], "b": {}})),
            (
                json!([{"op": "replace", "path": "/a", "value": null}]),
                json!({"a": null, "list": [1, 2], "b": {"c": 3}}),
            ),
            (json!([{"op": "move", "from": "/b/c", "path": "/list/0"}]), json!({"a": 1, "list": [3, 1, 2], "b": {}})),
            (
                json!([{"op": "copy", "from": "/a", "path": "/d"}]),
                json!({"a": 1, "list": [1, 2], "b": {"c": 3}, "d": 1}),
            ),
            (json!([{"op": "test", "path": "/a", "value": 1}]), object.clone()),
            (json!([]), object.clone()),
        ];
        for (patch, expected) in cases {
            assert_eq!(patched(object.clone(), patch.clone()).unwrap(), expected, "{patch}");
        }
    }

    #[test]
    fn a_patch_that_cannot_be_applied_is_422_and_one_that_is_none_is_400() {
        for patch in [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/nothing"}]),
            json!([{"op": "replace", "path": "/nothing", "value": 1}]),
            json!([{"op": "add", "path": "/no/parent", "value": 1}]),
            json!([{"op": "dance", "path": "/a"}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
        ] {
            let error = patched(json!({"a": 1}), patch.clone()).unwrap_err();
            assert_eq!((error.code, error.reason.as_ref()), (422, "Invalid"), "{patch}");
            assert_eq!(error.message, "the server rejected our request due to an error in our request");
        }
        for body in ["{}", "[1]", "[", "", "null"] {
            assert_eq!(super::super::json(&json!({}), body.as_bytes()).unwrap_err().code, 400, "{body}");
        }
    }

    #[test]
    fn more_than_ten_thousand_operations_are_too_many() {
        let test = json!({"op": "test", "path": "/a", "value": 1});
        assert!(patched(json!({"a": 1}), vec![test.clone(); 10_000].into()).is_ok());
        let error = patched(json!({"a": 1}), vec![test; 10_001].into()).unwrap_err();
        assert_eq!((error.code, error.reason.as_ref()), (413, "RequestEntityTooLarge"));
    }

    #[test]
    fn a_patch_cannot_nest_an_object_deeper_than_it_can_be_read() {
        let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let patch = |levels: usize| json!([{"op": "add", "path": "/a/b", "value": deep(levels)}]);
        assert!(patched(json!({"a": {}}), patch(98)).is_ok());
        assert_eq!(patched(json!({"a": {}}), patch(99)).unwrap_err().code, 422);
    }

    #[test]
    fn copies_of_copies_cannot_fill_the_memory() {
        let mut patch = vec![json!({"op": "add", "path": "/x", "value": ["0123456789abcdef"]})];
        patch.extend(vec![json!({"op": "copy", "from": "/x", "path": "/x/-"}); 60]);
        assert_eq!(patched(json!({}), patch.into()).unwrap_err().code, 422);
    }
}

mod merge_patch {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (object, patch, expected) in cases {
            assert_eq!(super::super::merge(object.clone(), &patch).unwrap(), expected, "{object} {patch}");
        }
        for patch in [json!([]), json!(1), json!(null)] {
            assert_eq!(super::super::merge(json!({}), &patch).unwrap_err().code, 400);
        }
    }
}

mod strategic_patch {
    use super::*;

    fn patched(object: Value, patch: Value) -> status::Result<Value> {
        super::super::strategic(object, &patch, &schema())
    }

    fn spec(before: Value, patch: Value) -> Value {
        patched(json!({ "spec": before }), json!({ "spec": patch })).unwrap()["spec"].clone()
    }

    #[test]
    fn maps_merge_nulls_remove_and_scalars_replace() {
        let object =
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 1, "whole": [{"a": 1}]}});
        let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}}, "spec": {"replicas": 2, "whole": [{"a": 2}], "paused": null}});
        let expected =
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": {"replicas": 2, "whole": [{"a": 2}]}});
        assert_eq!(patched(object, patch).unwrap(), expected);
    }

    #[test]
    fn what_the_schema_does_not_know_merges_like_a_map() {
        let before = json!({"free": {"x": {"y": 1, "z": 2}, "list": [1, 2]}});
        assert_eq!(
            spec(before, json!({"free": {"x": {"y": null}, "list": [3]}})),
            json!({"free": {"x": {"z": 2}, "list": [3]}})
        );
    }

    #[test]
    fn set_image_changes_the_image_of_one_container() {
        let before =
            json!({"containers": [{"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b", "image": "b:1"}]});
        let patch = json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b", "image": "b:2"}]});
        assert_eq!(
            spec(before, patch),
            json!({"containers": [{"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b", "image": "b:2"}]})
        );
    }

    #[test]
    fn list_directives_delete_replace_and_order() {
        let abc = || json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}]});
        let cases = [
            (
                json!({"containers": [{"name": "b", "$patch": "delete"}]}),
                json!([{"name": "a", "image": "1"}, {"name": "c"}]),
            ),
            (json!({"containers": [{"name": "x"}, {"$patch": "replace"}]}), json!([{"name": "x"}])),
            (json!({"containers": [{"name": "a", "$patch": "replace", "args": ["y"]}]}), json!([])),
            (
                json!({"containers": [{"name": "a", "image": null}]}),
                json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]),
            ),
            (json!({"containers": []}), json!([{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}])),
            (
                json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}),
                json!([{"name": "b"}, {"name": "c"}, {"name": "a", "image": "1"}]),
            ),
            (
                json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "x"}], "containers": [{"name": "x"}]}),
                json!([{"name": "a", "image": "1"}, {"name": "x"}, {"name": "b"}, {"name": "c"}]),
            ),
        ];
        for (patch, expected) in cases {
            assert_eq!(spec(abc(), patch.clone())["containers"], expected, "{patch}");
        }
        assert_eq!(spec(abc(), json!({"containers": null})), json!({}));
    }

    #[test]
    fn a_new_list_comes_without_nulls_and_directives() {
        let patch = json!({"containers": [{"name": "a", "image": null}, {"name": "gone", "$patch": "delete"}, {"$patch": "replace"}],
            "$setElementOrder/containers": [{"name": "a"}], "strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
        assert_eq!(spec(json!({}), patch), json!({"containers": [{"name": "a"}], "strategy": {"type": "Recreate"}}));
    }

    #[test]
    fn lists_of_scalars_are_sets_where_the_schema_says_merge() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {}});
        let cases = [
            (json!({"finalizers": ["b", "c"]}), json!(["a", "b", "c"])),
            (json!({"$deleteFromPrimitiveList/finalizers": ["a", "x"]}), json!(["b"])),
            (
                json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}),
                json!(["c", "b"]),
            ),
        ];
        for (patch, expected) in cases {
            let result = patched(object.clone(), json!({ "metadata": patch.clone() })).unwrap();
            assert_eq!(result["metadata"]["finalizers"], expected, "{patch}");
        }
    }

    #[test]
    fn maps_obey_patch_and_retain_keys() {
        let before = || json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "replicas": 1});
        let cases = [
            (
                json!({"strategy": {"$patch": "replace", "type": "x"}}),
                json!({"strategy": {"type": "x"}, "replicas": 1}),
            ),
            (json!({"strategy": {"$patch": "delete"}}), json!({"strategy": {}, "replicas": 1})),
            (
                json!({"strategy": {"$patch": "merge", "type": "x"}}),
                json!({"strategy": {"type": "x", "rollingUpdate": {"maxSurge": 1}}, "replicas": 1}),
            ),
            (
                json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": null}}),
                json!({"strategy": {"type": "Recreate"}, "replicas": 1}),
            ),
        ];
        for (patch, expected) in cases {
            assert_eq!(spec(before(), patch.clone()), expected, "{patch}");
        }
    }

    #[test]
    fn bad_patches_are_refused() {
        let object = json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}], "strategy": {"type": "x"}}});
        let cases = [
            (json!([]), 400),
            (json!({"spec": {"$patch": "dance"}}), 400),
            (json!({"spec": {"strategy": {"$retainKeys": 1}}}), 400),
            (json!({"spec": {"strategy": {"$retainKeys": [], "type": "y"}}}), 422),
            (json!({"spec": {"containers": [{"image": "x"}]}}), 500),
            (json!({"spec": {"containers": [{"$patch": "delete"}]}}), 500),
            (json!({"spec": {"containers": [["x"]]}}), 422),
            (json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}}), 500),
            (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}), 400),
        ];
        for (patch, code) in cases {
            assert_eq!(patched(object.clone(), patch.clone()).unwrap_err().code, code, "{patch}");
        }
    }
}

fn writer(manager: &str) -> Writer<'_> {
    static BLANK: LazyLock<Value> = LazyLock::new(|| json!({}));
    Writer { manager, api_version: "v1", subresource: "", now: "2026-01-01T00:00:00Z", blank: &BLANK }
}

fn later(manager: &str) -> Writer<'_> {
    Writer { now: "2026-01-01T00:01:00Z", ..writer(manager) }
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "namespace": "default"}, "spec": spec})
}

fn applied(live: Option<&Value>, spec: Value, manager: &str) -> status::Result<Value> {
    apply(live, &object(spec), false, writer(manager), &[], &schema())
}

/// Updates the record in `new` as the write path does.
fn track_update(old: Option<&Value>, new: &mut Value, writer: Writer<'_>, schema: &Schema) {
    let take = |object: &mut Value| object["metadata"].as_object_mut().and_then(|meta| meta.remove("managedFields"));
    let mut old = old.cloned();
    let managers = Managers { live: old.as_mut().and_then(take), sent: take(new) };
    if let Some(managers) = record(old.as_ref(), new, managers, writer, schema) {
        new["metadata"]["managedFields"] = managers;
    }
}

fn created(spec: Value, manager: &str) -> Value {
    let mut new = object(spec);
    track_update(None, &mut new, writer(manager), &schema());
    new
}

/// The entry of `manager`, or null.
fn entry(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|e| e["manager"] == manager).unwrap_or_default()
}

fn fields(object: &Value, manager: &str) -> Value {
    entry(object, manager)["fieldsV1"].clone()
}

mod tracking {
    use super::*;

    #[test]
    fn a_creation_owns_everything_but_what_the_server_says() {
        let mut new = object(
            json!({"replicas": 1, "containers": [{"name": "a", "ports": [{"containerPort": 80}]}], "whole": [{"a": 1}]}),
        );
        new["metadata"] = json!({"name": "x", "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1,
            "creationTimestamp": "t", "labels": {"a": "b"}, "finalizers": ["f"]});
        track_update(None, &mut new, writer("kubectl-create"), &schema());
        assert_eq!(
            new["metadata"]["managedFields"],
            json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {".": {}, "v:\"f\"": {}}},
                "f:spec": {".": {}, "f:replicas": {}, "f:whole": {}, "f:containers": {".": {}, "k:{\"name\":\"a\"}": {
                    ".": {}, "f:name": {}, "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }}},
            }}])
        );
    }

    #[test]
    fn a_changed_field_moves_to_the_writer_and_a_removed_one_to_nobody() {
        let old = created(json!({"replicas": 1, "paused": true, "port": 1}), "a");
        let mut new = old.clone();
        new["spec"] = json!({"replicas": 2, "paused": true});
        track_update(Some(&old), &mut new, later("b"), &schema());
        assert_eq!(fields(&new, "a"), json!({"f:spec": {".": {}, "f:paused": {}}}));
        assert_eq!(fields(&new, "b"), json!({"f:spec": {"f:replicas": {}}}));
        assert_eq!(entry(&new, "b")["time"], "2026-01-01T00:01:00Z");
        assert_eq!(entry(&new, "a")["time"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn a_write_that_changes_nothing_changes_no_time() {
        let old = created(json!({"replicas": 1, "containers": [{"name": "a"}]}), "a");
        for mut new in [old.clone(), object(old["spec"].clone())] {
            track_update(Some(&old), &mut new, later("a"), &schema());
            assert_eq!(new, old);
        }
    }

    #[test]
    fn status_and_scale_have_entries_of_their_own() {
        let old = created(json!({"replicas": 1}), "a");
        let mut new = old.clone();
        new["status"] = json!({"phase": "Running"});
        track_update(Some(&old), &mut new, Writer { subresource: "status", ..writer("a") }, &schema());
        let entries = new["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1]["subresource"], "status");
        assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {".": {}, "f:phase": {}}}));
    }

    #[test]
    fn an_object_without_entries_stays_without_and_a_client_may_ask_for_that() {
        let old = object(json!({"replicas": 1}));
        let mut new = object(json!({"replicas": 2}));
        track_update(Some(&old), &mut new, writer("a"), &schema());
        assert_eq!(new["metadata"].get("managedFields"), None);

        for reset in [json!([]), json!([{}])] {
            let old = created(json!({"replicas": 1}), "a");
            let mut new = old.clone();
            new["metadata"]["managedFields"] = reset;
            track_update(Some(&old), &mut new, writer("a"), &schema());
            assert_eq!(new["metadata"].get("managedFields"), None);
        }
    }

    #[test]
    fn entries_that_a_client_sends_count_unless_they_make_no_sense_or_come_through_a_subresource() {
        let old = created(json!({"replicas": 1}), "a");
        let mut sent = old.clone();
        sent["metadata"]["managedFields"][0]["manager"] = "b".into();
        let mut new = sent.clone();
        track_update(Some(&old), &mut new, writer("c"), &schema());
        assert_eq!(fields(&new, "b"), fields(&old, "a"));

        let mut new = sent.clone();
        track_update(Some(&old), &mut new, Writer { subresource: "status", ..writer("c") }, &schema());
        assert_eq!(new, old);

        let mut new = sent;
        new["metadata"]["managedFields"][0]["fieldsV1"] = json!({"nonsense": {}});
        track_update(Some(&old), &mut new, writer("c"), &schema());
        assert_eq!(new, old);
    }

    #[test]
    fn the_oldest_of_more_than_ten_writers_become_ancient() {
        let mut live = object(json!({"free": {}}));
        track_update(None, &mut live, writer("m00"), &schema());
        for n in 1..=12 {
            let old = live.clone();
            live["spec"]["free"][format!("key{n:02}")] = n.into();
            let (manager, now) = (format!("m{n:02}"), format!("2026-01-01T00:{n:02}:00Z"));
            track_update(Some(&old), &mut live, Writer { now: &now, ..writer(&manager) }, &schema());
        }
        let entries = live["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(entries.len(), 10);
        assert_eq!(entries[0]["manager"], "ancient-changes");
        assert_eq!(entries[0]["time"], "2026-01-01T00:03:00Z");
        assert_eq!(
            entries[0]["fieldsV1"],
            json!({"f:spec": {".": {}, "f:free": {".": {}, "f:key01": {}, "f:key02": {}, "f:key03": {}}}})
        );
        assert_eq!(entries[1]["manager"], "m04");
    }

    #[test]
    fn entries_are_sorted_by_operation_time_and_manager() {
        let live = created(json!({"replicas": 1}), "z");
        let mut live = applied(Some(&live), json!({"paused": true}), "y").unwrap();
        let old = live.clone();
        live["spec"]["port"] = 1.into();
        track_update(Some(&old), &mut live, writer("a"), &schema());
        let managers: Vec<&Value> =
            live["metadata"]["managedFields"].as_array().unwrap().iter().map(|e| &e["manager"]).collect();
        assert_eq!(managers, ["y", "a", "z"]);
    }
}

mod server_side_apply {
    use super::*;

    #[test]
    fn an_apply_creates_and_owns_what_it_says() {
        let new =
            applied(None, json!({"replicas": 1, "containers": [{"name": "a", "image": "i"}], "paused": null}), "m")
                .unwrap();
        assert_eq!(new["spec"], json!({"replicas": 1, "containers": [{"name": "a", "image": "i"}]}));
        assert_eq!(
            new["metadata"]["managedFields"],
            json!([{"manager": "m", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}])
        );
    }

    #[test]
    fn applying_the_same_again_changes_nothing_not_even_the_time() {
        let live = applied(None, json!({"replicas": 1, "port": "http"}), "m").unwrap();
        let again =
            apply(Some(&live), &object(json!({"replicas": 1, "port": "http"})), false, later("m"), &[], &schema())
                .unwrap();
        assert_eq!(again, live);
    }

    #[test]
    fn a_field_that_is_no_longer_applied_goes_unless_another_owns_it() {
        let live = applied(
            None,
            json!({"replicas": 1, "paused": true, "containers": [{"name": "a", "image": "i"}, {"name": "b"}]}),
            "m",
        )
        .unwrap();
        let live = applied(Some(&live), json!({"paused": true, "containers": [{"name": "b"}]}), "other").unwrap();
        let new = applied(Some(&live), json!({"port": 1}), "m").unwrap();
        assert_eq!(new["spec"], json!({"port": 1, "paused": true, "containers": [{"name": "b"}]}));
        assert_eq!(fields(&new, "m"), json!({"f:spec": {"f:port": {}}}));

        let new = applied(Some(&new), json!({}), "other").unwrap();
        assert_eq!(new["spec"], json!({"port": 1}));
        assert_eq!(fields(&new, "other"), json!({"f:spec": {}}));
    }

    #[test]
    fn the_last_label_takes_the_map_with_it_and_what_others_wrote_stays() {
        let with =
            |labels: Value| json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "labels": labels}});
        let apply_labels = |live: Option<&Value>, labels: Value| {
            apply(live, &with(labels), false, writer("m"), &[], &schema()).unwrap()
        };
        let live = apply_labels(None, json!({"a": "1", "b": "2"}));
        let without = apply(
            Some(&live),
            &json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"}}),
            false,
            writer("m"),
            &[],
            &schema(),
        )
        .unwrap();
        assert_eq!(without, json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"}}));

        let mut shared = live.clone();
        shared["metadata"]["labels"]["c"] = "3".into();
        track_update(Some(&live), &mut shared, writer("u"), &schema());
        let new = apply_labels(Some(&shared), json!({"a": "1"}));
        assert_eq!(new["metadata"]["labels"], json!({"a": "1", "c": "3"}));
    }

    #[test]
    fn what_a_controller_adds_to_an_applied_item_does_not_keep_the_item() {
        let live = applied(None, json!({"containers": [{"name": "a"}, {"name": "b"}]}), "m").unwrap();
        let mut defaulted = live.clone();
        defaulted["spec"]["containers"][0]["image"] = "default".into();
        let new = applied(Some(&defaulted), json!({"containers": [{"name": "b"}]}), "m").unwrap();
        assert_eq!(new["spec"], json!({"containers": [{"name": "b"}]}));
    }

    #[test]
    fn another_value_than_the_owners_is_a_conflict_and_the_same_value_is_co_ownership() {
        let live = created(json!({"replicas": 1, "paused": true}), "kubectl-create");
        let error = applied(Some(&live), json!({"replicas": 2}), "m").unwrap_err();
        assert_eq!((error.code, error.reason.as_ref()), (409, "Conflict"));
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"kubectl-create\" using v1: .spec.replicas"
        );
        assert_eq!(
            error.details,
            json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-create\" using v1", "field": ".spec.replicas"}]})
        );

        let shared = applied(Some(&live), json!({"replicas": 1}), "m").unwrap();
        assert_eq!(fields(&shared, "m"), json!({"f:spec": {"f:replicas": {}}}));
        assert_eq!(fields(&shared, "kubectl-create"), json!({"f:spec": {".": {}, "f:replicas": {}, "f:paused": {}}}));
    }

    #[test]
    fn several_conflicts_are_listed_by_manager() {
        let live = applied(None, json!({"replicas": 1, "containers": [{"name": "a", "image": "1"}]}), "m").unwrap();
        let mut old = live.clone();
        old["spec"]["port"] = 1.into();
        track_update(Some(&live), &mut old, Writer { subresource: "scale", ..writer("u") }, &schema());
        let error =
            applied(Some(&old), json!({"replicas": 2, "port": 2, "containers": [{"name": "a", "image": "2"}]}), "n")
                .unwrap_err();
        assert_eq!(
            error.message,
            "Apply failed with 3 conflicts: conflicts with \"m\":\n- .spec.containers[name=\"a\"].image\n- .spec.replicas\n\
             conflicts with \"u\" with subresource \"scale\" using v1:\n- .spec.port"
        );
        assert_eq!(error.details["causes"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn force_takes_the_field() {
        let live = created(json!({"replicas": 1, "paused": true}), "u");
        let new = apply(Some(&live), &object(json!({"replicas": 2})), true, later("m"), &[], &schema()).unwrap();
        assert_eq!(new["spec"], json!({"replicas": 2, "paused": true}));
        assert_eq!(fields(&new, "u"), json!({"f:spec": {".": {}, "f:paused": {}}}));
        assert_eq!(fields(&new, "m"), json!({"f:spec": {"f:replicas": {}}}));
    }

    #[test]
    fn lists_merge_by_their_keys_defaults_included_and_atomic_ones_as_a_whole() {
        let ports = |list: Value| json!({"containers": [{"name": "a", "ports": list}]});
        let live = applied(None, ports(json!([{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 81}])), "m")
            .unwrap();
        let new = applied(
            Some(&live),
            ports(json!([{"containerPort": 80, "name": "http"}, {"containerPort": 80, "protocol": "UDP"}])),
            "n",
        )
        .unwrap();
        assert_eq!(
            new["spec"]["containers"][0]["ports"],
            json!([{"containerPort": 80, "protocol": "TCP", "name": "http"}, {"containerPort": 81}, {"containerPort": 80, "protocol": "UDP"}])
        );

        let live = applied(None, json!({"whole": [{"a": 1}], "selector": {"matchLabels": {"a": "b"}}}), "m").unwrap();
        for change in [json!({"whole": [{"a": 2}]}), json!({"selector": {"matchLabels": {"a": "b", "c": "d"}}})] {
            let error = applied(Some(&live), change, "n").unwrap_err();
            assert_eq!(error.details["causes"].as_array().unwrap().len(), 1);
        }
    }

    #[test]
    fn items_stand_in_the_order_of_the_apply_and_others_keep_their_place() {
        let list = |names: &str| json!({"containers": names.chars().map(|c| json!({"name": c.to_string()})).collect::<Vec<_>>()});
        for (before, apply, after) in [
            ("abc", "abc", "abc"),
            ("abc", "ca", "bca"),
            ("axb", "ab", "axb"),
            ("ax", "cba", "cbax"),
            ("", "ba", "ba"),
            ("xay", "a", "xay"),
        ] {
            let live = created(list(before), "u");
            assert_eq!(applied(Some(&live), list(apply), "m").unwrap()["spec"], list(after), "{before} {apply}");
        }
    }

    #[test]
    fn what_was_never_tracked_belongs_to_before_first_apply() {
        let live = object(json!({"replicas": 1}));
        let error = applied(Some(&live), json!({"replicas": 2}), "m").unwrap_err();
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .spec.replicas"
        );
        let new = applied(Some(&live), json!({"paused": true}), "m").unwrap();
        assert_eq!(fields(&new, "before-first-apply"), json!({"f:spec": {".": {}, "f:replicas": {}}}));
        assert_eq!(entry(&new, "before-first-apply")["operation"], "Update");
    }

    #[test]
    fn what_cannot_be_set_here_is_neither_written_nor_owned() {
        let mut wanted = object(json!({"replicas": 1}));
        wanted["status"] = json!({"phase": "Running"});
        let new = apply(None, &wanted, false, writer("m"), &[&["status"]], &schema()).unwrap();
        assert_eq!(new.get("status"), None);
        assert_eq!(fields(&new, "m"), json!({"f:spec": {"f:replicas": {}}}));
    }

    #[test]
    fn kubectl_may_take_what_its_client_side_apply_wrote_and_its_annotation_stays_true() {
        let annotation = "kubectl.kubernetes.io/last-applied-configuration";
        let mut live = object(json!({"replicas": 1, "paused": true}));
        live["metadata"]["annotations"] = json!({annotation: object(json!({"replicas": 1})).to_string()});
        track_update(None, &mut live, writer("kubectl-client-side-apply"), &schema());

        let new = applied(Some(&live), json!({"replicas": 2}), "kubectl").unwrap();
        assert_eq!(new["spec"]["replicas"], 2);
        let record: Value = serde_json::from_str(new["metadata"]["annotations"][annotation].as_str().unwrap()).unwrap();
        assert_eq!(record, object(json!({"replicas": 2})));

        assert_eq!(applied(Some(&live), json!({"paused": false}), "kubectl").unwrap_err().code, 409);
        assert_eq!(applied(Some(&live), json!({"replicas": 2}), "other").unwrap_err().code, 409);
    }

    #[test]
    fn what_the_schema_cannot_type_is_refused_in_kubernetes_words() {
        let cases = [
            (json!({"foo": 1}), ".spec.foo: field not declared in schema"),
            (
                json!({"containers": [{"image": "x"}]}),
                ".spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
            ),
            (
                json!({"containers": [{"name": "a"}, {"name": "a"}]}),
                ".spec.containers: duplicate entries for key [name=\"a\"]",
            ),
            (
                json!({"containers": [{"name": "a", "bar": 1}]}),
                ".spec.containers[name=\"a\"].bar: field not declared in schema",
            ),
            (json!({"containers": {}}), ".spec.containers: expected list, got map"),
        ];
        for (spec, problem) in cases {
            let error = applied(None, spec, "m").unwrap_err();
            assert_eq!((error.code, error.reason.as_ref()), (500, ""));
            assert_eq!(
                error.message,
                format!("failed to create typed patch object (default/x; /v1, Kind=Thing): {problem}")
            );
        }
        let mut managed = object(json!({}));
        managed["metadata"]["managedFields"] = json!([]);
        let error = apply(None, &managed, false, writer("m"), &[], &schema()).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, "metadata.managedFields must be nil"));
        assert!(applied(None, json!({"free": {"anything": [{"a": [[]]}]}}), "m").is_ok());
    }
}

mod properties {
    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            "[a-z.:]{0,3}".prop_map(Step::Field),
            any::<i8>().prop_map(|n| Step::Item(json!({"name": n, "port": "x"}).to_string())),
            "[a-z\"]{0,2}".prop_map(|s| Step::Member(json!(s).to_string())),
            (0u64..3).prop_map(Step::Index),
        ]
    }

    fn set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec(step(), 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    fn spec() -> impl Strategy<Value = Value> {
        let port =
            (1..4, prop::option::of(prop_oneof![Just("TCP"), Just("UDP")])).prop_map(|(n, protocol)| match protocol {
                Some(protocol) => json!({"containerPort": n, "protocol": protocol}),
                None => json!({ "containerPort": n }),
            });
        let ports = prop::collection::vec(port, 0..3).prop_map(|list| {
            unique(list, |p| json!([p["containerPort"], p.get("protocol").cloned().unwrap_or("TCP".into())]))
        });
        let container = ("[abc]", prop::option::of("[xy]"), prop::option::of(ports))
            .prop_map(|(name, image, ports)| without_nulls(json!({"name": name, "image": image, "ports": ports})));
        let containers = prop::collection::vec(container, 0..4).prop_map(|list| unique(list, |c| c["name"].clone()));
        let free = prop::collection::btree_map(
            "[ab]",
            prop_oneof![any::<i8>().prop_map(Value::from), Just(json!({"x": [1]})), Just(json!({}))],
            0..3,
        );
        let whole = prop::collection::vec((0..3).prop_map(|n| json!({ "a": n })), 0..3);
        (prop::option::of(0..3), prop::option::of(containers), prop::option::of(free), prop::option::of(whole))
            .prop_map(|(replicas, containers, free, whole)| {
                without_nulls(json!({"replicas": replicas, "containers": containers, "free": free, "whole": whole}))
            })
    }

    fn unique(list: Vec<Value>, key: impl Fn(&Value) -> Value) -> Value {
        let mut kept: Vec<Value> = Vec::new();
        for item in list {
            if !kept.iter().any(|other| key(other) == key(&item)) {
                kept.push(item);
            }
        }
        kept.into()
    }

    fn without_nulls(mut value: Value) -> Value {
        value.as_object_mut().unwrap().retain(|_, v| !v.is_null());
        value
    }

    /// Every field that anybody owns is there.
    fn owned_fields_are_present(object: &Value) -> bool {
        let present = {
            let mut all = created(object["spec"].clone(), "all");
            FieldSet::parse(&all["metadata"]["managedFields"][0]["fieldsV1"].take()).unwrap()
        };
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries.iter().all(|entry| {
            let mut owned = FieldSet::parse(&entry["fieldsV1"]).unwrap();
            owned.subtract(&present);
            owned.is_empty()
        })
    }

    /// One thing that somebody does to an object.
    #[derive(Clone, Debug)]
    enum Write {
        Apply(String, Value),
        Update(String, Value),
    }

    fn write() -> impl Strategy<Value = Write> {
        ("[mn]", spec(), any::<bool>()).prop_map(|(manager, spec, apply)| {
            if apply { Write::Apply(manager, spec) } else { Write::Update(manager, spec) }
        })
    }

    fn written(live: Option<&Value>, write: &Write) -> Value {
        match write {
            Write::Apply(manager, spec) => {
                apply(live, &object(spec.clone()), true, later(manager), &[], &schema()).unwrap()
            }
            Write::Update(manager, spec) => {
                let mut new = object(spec.clone());
                track_update(live, &mut new, later(manager), &schema());
                new
            }
        }
    }

    proptest! {
        #[test]
        fn a_set_that_is_printed_and_parsed_is_the_same(set in set()) {
            prop_assert_eq!(FieldSet::parse(&set.print()), Some(set));
        }

        #[test]
        fn a_set_without_itself_is_empty_and_with_itself_is_itself(one in set(), other in set()) {
            let mut difference = one.clone();
            difference.subtract(&one);
            prop_assert!(difference.is_empty());
            prop_assert_eq!(one.intersection(&one), one.clone());
            let mut union = one.clone();
            union.extend(&other);
            prop_assert!(one.paths().iter().chain(&other.paths()).all(|path| union.contains(path)));
            union.subtract(&other);
            union.extend(&one.intersection(&other));
            prop_assert_eq!(union, one);
        }

        #[test]
        fn the_record_of_what_is_new_is_what_a_comparison_with_nothing_finds(
            spec in spec(), labels in prop::option::of(prop::collection::btree_map("[ab]", "[xy]", 0..3)), blank in 0..4usize,
        ) {
            let mut new = object(spec);
            new["metadata"]["labels"] = json!(labels);
            new["metadata"]["finalizers"] = json!(["a", "b", "a"]);
            let blanks = [
                json!({}),
                json!({"metadata": {"creationTimestamp": null}, "spec": {}, "status": {}}),
                json!({"metadata": {}, "spec": {"containers": null, "free": {"a": {}}, "replicas": 1}}),
                json!({"spec": {"whole": [{"a": 1}], "free": null}}),
            ];
            let writer = Writer { blank: &blanks[blank], subresource: if blank == 0 { "status" } else { "" }, ..writer("m") };
            let compared = managed_fields::compared(None, &new, Vec::new(), writer, &schema());
            let made = made::record(&new, writer, &schema());
            prop_assert!(made.is_some() || blank > 1, "it takes no comparison");
            if let Some(made) = made {
                prop_assert_eq!(made, compared);
            }
        }

        #[test]
        fn applying_twice_is_applying_once(before in prop::collection::vec(write(), 0..4), last in spec()) {
            let mut live = None;
            for write in &before {
                live = Some(written(live.as_ref(), write));
            }
            let once = apply(live.as_ref(), &object(last.clone()), true, writer("m"), &[], &schema()).unwrap();
            let twice = apply(Some(&once), &object(last), false, later("m"), &[], &schema()).unwrap();
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn whatever_is_written_owned_fields_are_present(writes in prop::collection::vec(write(), 1..6)) {
            let mut live = None;
            for write in &writes {
                let new = written(live.as_ref(), write);
                prop_assert!(owned_fields_are_present(&new), "{new}");
                live = Some(new);
            }
        }

        #[test]
        fn what_is_applied_is_there_afterwards(before in spec(), wanted in spec()) {
            let live = created(before, "u");
            let new = apply(Some(&live), &object(wanted.clone()), true, writer("m"), &[], &schema()).unwrap();
            for name in ["replicas", "whole"] {
                prop_assert!(wanted.get(name).is_none() || wanted.get(name) == new["spec"].get(name));
            }
            let owned = FieldSet::parse(&fields(&new, "m")).unwrap_or_default();
            prop_assert_eq!(owned, {
                let mut alone = apply(None, &object(wanted), true, writer("m"), &[], &schema()).unwrap();
                FieldSet::parse(&alone["metadata"]["managedFields"][0]["fieldsV1"].take()).unwrap_or_default()
            });
        }
    }
}
