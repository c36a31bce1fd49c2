//! storage: classes of volumes, and what drivers say of nodes and of themselves.

use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use onex_crds::{Invalid, Problem};
use serde_json::{Value, json};

use super::{fill, kubernetes, list, object, refuse, refuse_change, refuse_unsupported, text};
use crate::{
    kinds::{Cell, Column, Hooks, Kind},
    meta,
    status::is_enough,
    table::{age_column, column, name_column, path},
};

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The kinds of the group.
pub fn kinds() -> Vec<Kind> {
    vec![driver(), node(), capacity(), class(), attachment()]
}

fn class() -> Kind {
    let mut kind = kubernetes::<StorageClass>("storageclasses", &["sc"]);
    kind.namespaced = false;
    kind.returns_deleted = true;
    kind.columns = vec![
        Column { cell: Cell::Function(|class, _| shown_name(class).into()), ..name_column() },
        column("Provisioner", "string", "Who makes volumes.", path(".provisioner")),
        column("ReclaimPolicy", "string", "What becomes of a volume without its claim.", path(".reclaimPolicy")),
        column("VolumeBindingMode", "string", "When a claim gets its volume.", path(".volumeBindingMode")),
        column(
            "AllowVolumeExpansion",
            "string",
            "Claims may grow.",
            Cell::Function(|class, _| (class["allowVolumeExpansion"] == true).into()),
        ),
        age_column(),
    ];
    kind.hooks = Hooks {
        fill: |class| {
            if let Some(fields) = class.as_object_mut() {
                fill(fields, "reclaimPolicy", "Delete");
                fill(fields, "volumeBindingMode", "Immediate");
            }
        },
        check: check_class,
        ..Hooks::default()
    };
    kind
}

fn shown_name(class: &Value) -> String {
    let meta = &class["metadata"];
    let default = DEFAULT.iter().any(|annotation| meta["annotations"][annotation] == "true");
    format!("{}{}", text(meta, "name"), if default { " (default)" } else { "" })
}

fn check_class(class: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let provisioner = text(class, "provisioner");
    if provisioner.is_empty() {
        wrong.push(Invalid::required("provisioner", ""));
    } else {
        refuse("provisioner", provisioner, meta::qualified_name(&provisioner.to_lowercase()), &mut wrong);
    }
    refuse_unsupported("reclaimPolicy", text(class, "reclaimPolicy"), &["Delete", "Retain"], &mut wrong);
    let mode = text(class, "volumeBindingMode");
    refuse_unsupported("volumeBindingMode", mode, &["Immediate", "WaitForFirstConsumer"], &mut wrong);
    if let Some(old) = old {
        let why = "updates to parameters are forbidden.";
        if object_of(&class["parameters"]) != object_of(&old["parameters"]) {
            wrong.push(Invalid::forbidden("parameters", why));
        }
        if class["provisioner"] != old["provisioner"] {
            wrong.push(Invalid::forbidden("provisioner", "updates to provisioner are forbidden."));
        }
        if class["reclaimPolicy"] != old["reclaimPolicy"] {
            wrong.push(Invalid::forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."));
        }
        refuse_change("volumeBindingMode", &class["volumeBindingMode"], &old["volumeBindingMode"], &mut wrong);
    }
    wrong
}

/// A map, where none is the same as an empty one.
fn object_of(map: &Value) -> serde_json::Map<String, Value> {
    map.as_object().cloned().unwrap_or_default()
}

fn attachment() -> Kind {
    let mut kind = kubernetes::<VolumeAttachment>("volumeattachments", &[]);
    kind.namespaced = false;
    kind.status = true;
    kind.returns_deleted = true;
    kind.unconditional_update = false;
    kind.columns = vec![
        name_column(),
        Column {
            format: "name".to_owned(),
            ..column("Attacher", "string", "Who attaches it.", path(".spec.attacher"))
        },
        column(
            "PV",
            "string",
            "The volume.",
            Cell::Function(|a, _| text(&a["spec"]["source"], "persistentVolumeName").into()),
        ),
        column("Node", "string", "Where it is attached.", path(".spec.nodeName")),
        column(
            "Attached",
            "boolean",
            "Whether it is.",
            Cell::Function(|a, _| (a["status"]["attached"] == true).into()),
        ),
        age_column(),
    ];
    kind.hooks = Hooks {
        check: |attachment, old| {
            let mut wrong = Vec::new();
            let spec = &attachment["spec"];
            for field in ["attacher", "nodeName"].iter().filter(|field| text(spec, field).is_empty()) {
                wrong.push(Invalid::required(format!("spec.{field}"), ""));
            }
            let source = &spec["source"];
            match (source["inlineVolumeSpec"].is_object(), text(source, "persistentVolumeName")) {
                (true, "") => {}
                (true, _) => {
                    let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                    wrong.push(Invalid::value("spec.source", source.clone(), why));
                }
                (false, "") => {
                    let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                    wrong.push(Invalid::required("spec.source", why));
                }
                (false, _) => {}
            }
            if let Some(old) = old {
                refuse_change("spec", spec, &old["spec"], &mut wrong);
            }
            wrong
        },
        prepare: |attachment, old| {
            if old.is_none() {
                attachment["status"] = json!({"attached": false});
            }
        },
        ..Hooks::default()
    };
    kind
}

fn driver() -> Kind {
    let mut kind = kubernetes::<CSIDriver>("csidrivers", &[]);
    kind.namespaced = false;
    kind.returns_deleted = true;
    kind.unconditional_update = false;
    kind.generation = true;
    let says = |name: &str, description: &str, cell: fn(&Value, i64) -> Value| {
        column(name, "boolean", description, Cell::Function(cell))
    };
    kind.columns = vec![
        name_column(),
        says("AttachRequired", "Volumes are attached first.", |d, _| (d["spec"]["attachRequired"] != false).into()),
        says("PodInfoOnMount", "It is told of Pods.", |d, _| (d["spec"]["podInfoOnMount"] == true).into()),
        says("StorageCapacity", "It says how much is left.", |d, _| (d["spec"]["storageCapacity"] == true).into()),
        column(
            "TokenRequests",
            "string",
            "The tokens that it gets.",
            Cell::Function(|driver, _| {
                if driver["spec"]["tokenRequests"].is_null() {
                    return "<unset>".into();
                }
                let audiences = list(&driver["spec"], "tokenRequests").iter().map(|request| text(request, "audience"));
                audiences.collect::<Vec<_>>().join(",").into()
            }),
        ),
        says("RequiresRepublish", "It is asked again and again.", |d, _| {
            (d["spec"]["requiresRepublish"] == true).into()
        }),
        column(
            "Modes",
            "string",
            "Which volumes it makes.",
            Cell::Function(|driver, _| {
                let modes: Vec<&str> =
                    list(&driver["spec"], "volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
                if modes.is_empty() { "<none>".into() } else { modes.join(",").into() }
            }),
        ),
        age_column(),
    ];
    kind.hooks = Hooks { fill: fill_driver, check: check_driver, ..Hooks::default() };
    kind
}

fn fill_driver(driver: &mut Value) {
    let Some(spec) = driver.as_object_mut().and_then(|driver| object(driver, "spec")) else { return };
    fill(spec, "attachRequired", true);
    fill(spec, "podInfoOnMount", false);
    fill(spec, "storageCapacity", false);
    fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    fill(spec, "requiresRepublish", false);
    fill(spec, "seLinuxMount", false);
    if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}

fn check_driver(driver: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let name = text(&driver["metadata"], "name");
    if name.len() > 63 {
        wrong.push(Invalid { field: "metadata.name".to_owned(), problem: Problem::TooLong(63) });
    }
    let spec = &driver["spec"];
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    refuse_unsupported("spec.fsGroupPolicy", text(spec, "fsGroupPolicy"), &policies, &mut wrong);
    for mode in list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
        refuse_unsupported("spec.volumeLifecycleModes", mode, &["Ephemeral", "Persistent"], &mut wrong);
    }
    if let Some(old) = old {
        for field in ["attachRequired", "fsGroupPolicy", "volumeLifecycleModes"] {
            refuse_change(&format!("spec.{field}"), &spec[field], &old["spec"][field], &mut wrong);
        }
    }
    wrong
}

fn node() -> Kind {
    let mut kind = kubernetes::<CSINode>("csinodes", &[]);
    kind.namespaced = false;
    kind.returns_deleted = true;
    kind.unconditional_update = false;
    kind.columns = vec![
        name_column(),
        column(
            "Drivers",
            "integer",
            "How many drivers there are.",
            Cell::Function(|node, _| list(&node["spec"], "drivers").len().into()),
        ),
        age_column(),
    ];
    kind.hooks = Hooks {
        check: |node, _| {
            let mut wrong = Vec::new();
            let mut names = std::collections::HashSet::new();
            for (index, driver) in list(&node["spec"], "drivers").iter().enumerate() {
                if is_enough(&wrong) {
                    return wrong;
                }
                let at = format!("spec.drivers[{index}]");
                for field in ["name", "nodeID"].iter().filter(|field| text(driver, field).is_empty()) {
                    wrong.push(Invalid::required(format!("{at}.{field}"), ""));
                }
                if !names.insert(text(driver, "name")) {
                    let problem = Problem::Duplicate(driver["name"].clone());
                    wrong.push(Invalid { field: format!("{at}.name"), problem });
                }
            }
            wrong
        },
        ..Hooks::default()
    };
    kind
}

fn capacity() -> Kind {
    let mut kind = kubernetes::<CSIStorageCapacity>("csistoragecapacities", &[]);
    kind.unconditional_update = false;
    kind.columns = vec![
        name_column(),
        column("StorageClassName", "string", "The class.", path(".storageClassName")),
        column(
            "Capacity",
            "string",
            "How much is left.",
            Cell::Function(|capacity, _| capacity["capacity"].as_str().unwrap_or("<unset>").into()),
        ),
    ];
    kind.hooks = Hooks {
        check: |capacity, old| {
            let mut wrong = Vec::new();
            let class = text(capacity, "storageClassName");
            refuse("storageClassName", class, meta::dns_subdomain(class), &mut wrong);
            if let Some(old) = old {
                refuse_change("nodeTopology", &capacity["nodeTopology"], &old["nodeTopology"], &mut wrong);
                refuse_change("storageClassName", &capacity["storageClassName"], &old["storageClassName"], &mut wrong);
            }
            wrong
        },
        ..Hooks::default()
    };
    kind
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};
    use crate::table::printed;

    fn complaints(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<String> {
        (kind.hooks.check)(object, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_class_stays_what_it_is() {
        let made = |parameters: Value| {
            let annotations = json!({DEFAULT[0]: "true"});
            filled(
                &class(),
                json!({"metadata": {"name": "fast", "annotations": annotations}, "provisioner": "a.io/b", "parameters": parameters}),
            )
        };
        assert!(complaints(&class(), &made(json!({})), Some(&made(Value::Null))).is_empty());
        assert_eq!(
            complaints(&class(), &made(json!({"a": "b"})), Some(&made(json!({})))),
            ["parameters: Forbidden: updates to parameters are forbidden."]
        );
        assert_eq!(complaints(&class(), &json!({}), None), ["provisioner: Required value"]);
        assert_eq!(
            printed(&class(), &[made(json!({}))], 0),
            "Name | Provisioner | ReclaimPolicy | VolumeBindingMode | AllowVolumeExpansion | Age\n\
             fast (default) | a.io/b | Delete | Immediate | false | <unknown>"
        );
    }

    #[test]
    fn a_driver_and_its_nodes_are_described() {
        let made = filled(&driver(), json!({"metadata": {"name": "d"}}));
        assert!(complaints(&driver(), &made, None).is_empty());
        assert_eq!(
            printed(&driver(), &[made], 0),
            "Name | AttachRequired | PodInfoOnMount | StorageCapacity | TokenRequests | RequiresRepublish | Modes | Age\n\
             d | true | false | false | <unset> | false | Persistent | <unknown>"
        );
        let twice = json!({"spec": {"drivers": [{"name": "a", "nodeID": "n"}, {"name": "a", "nodeID": "n"}, {}]}});
        assert_eq!(
            complaints(&node(), &twice, None),
            [
                "spec.drivers[1].name: Duplicate value: \"a\"",
                "spec.drivers[2].name: Required value",
                "spec.drivers[2].nodeID: Required value",
            ]
        );
        assert_eq!(complaints(&attachment(), &json!({"spec": {}}), None).len(), 3);
        let capacity_of = |class: &str| json!({"storageClassName": class});
        assert_eq!(complaints(&capacity(), &capacity_of("b"), Some(&capacity_of("a"))).len(), 1);
    }
}
