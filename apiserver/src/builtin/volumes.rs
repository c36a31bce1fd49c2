//! PersistentVolumes, and the claims on them.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::{
    fill, kubernetes, list, object, quantity::thousandths, refuse, refuse_change, refuse_unsupported,
    templates::check_label_selector, text,
};
use crate::{
    kinds::{Cell, Hooks, Kind},
    meta,
    table::{age_column, column, name_column, path, wide_column},
};

const UNSET: &str = "<unset>";
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// What a volume says besides where its bytes are.
const PLAIN: [&str; 9] = [
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

/// Volumes and claims.
pub fn kinds() -> Vec<Kind> {
    vec![claim(), volume()]
}

fn volume() -> Kind {
    let mut kind = kubernetes::<PersistentVolume>("persistentvolumes", &["pv"]);
    kind.namespaced = false;
    kind.status = true;
    kind.returns_deleted = true;
    kind.columns = vec![
        name_column(),
        column("Capacity", "string", "How much fits.", Cell::Function(|pv, _| amount(&pv["spec"]["capacity"]).into())),
        column(
            "Access Modes",
            "string",
            "Who may mount it how.",
            Cell::Function(|pv, _| modes(list(&pv["spec"], "accessModes")).into()),
        ),
        column(
            "Reclaim Policy",
            "string",
            "What becomes of it without its claim.",
            path(".spec.persistentVolumeReclaimPolicy"),
        ),
        column("Status", "string", "How the volume is.", Cell::Function(phase)),
        column("Claim", "string", "Whose it is.", Cell::Function(|pv, _| claimed(&pv["spec"]["claimRef"]).into())),
        column(
            "StorageClass",
            "string",
            "Its class.",
            Cell::Function(|pv, _| text(&pv["spec"], "storageClassName").into()),
        ),
        column("VolumeAttributesClass", "string", "The class of its attributes.", Cell::Function(attributes)),
        column("Reason", "string", "Why it is so.", Cell::Function(|pv, _| text(&pv["status"], "reason").into())),
        age_column(),
        wide_column("VolumeMode", "string", "Files, or a block device.", Cell::Function(mode)),
    ];
    kind.hooks = Hooks { fill: fill_volume, check: check_volume, prepare, ..Hooks::default() };
    kind
}

fn claim() -> Kind {
    let mut kind = kubernetes::<PersistentVolumeClaim>("persistentvolumeclaims", &["pvc"]);
    kind.status = true;
    kind.returns_deleted = true;
    kind.columns = vec![
        name_column(),
        column("Status", "string", "How the claim is.", Cell::Function(phase)),
        column(
            "Volume",
            "string",
            "The volume that it got.",
            Cell::Function(|c, _| text(&c["spec"], "volumeName").into()),
        ),
        column(
            "Capacity",
            "string",
            "How much fits.",
            Cell::Function(
                |claim, _| if is_bound(claim) { amount(&claim["status"]["capacity"]).into() } else { "".into() },
            ),
        ),
        column(
            "Access Modes",
            "string",
            "Who may mount it how.",
            Cell::Function(|claim, _| {
                if is_bound(claim) { modes(list(&claim["status"], "accessModes")).into() } else { "".into() }
            }),
        ),
        column(
            "StorageClass",
            "string",
            "Its class.",
            Cell::Function(|c, _| text(&c["spec"], "storageClassName").into()),
        ),
        column("VolumeAttributesClass", "string", "The class of its attributes.", Cell::Function(attributes)),
        age_column(),
        wide_column("VolumeMode", "string", "Files, or a block device.", Cell::Function(mode)),
    ];
    kind.hooks = Hooks {
        fill: |claim| {
            if let Some(spec) = claim.as_object_mut().and_then(|claim| object(claim, "spec")) {
                fill_claim(spec);
            }
        },
        check: check_claim,
        prepare,
        ..Hooks::default()
    };
    kind
}

fn is_bound(claim: &Value) -> bool {
    !text(&claim["spec"], "volumeName").is_empty()
}

fn amount(capacity: &Value) -> String {
    capacity["storage"].as_str().unwrap_or("0").to_owned()
}

fn modes(modes: &[Value]) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let found = short.iter().filter(|(mode, _)| modes.iter().any(|m| m == mode)).map(|(_, short)| *short);
    found.collect::<Vec<_>>().join(",")
}

fn claimed(reference: &Value) -> String {
    if reference.is_null() {
        String::new()
    } else {
        format!("{}/{}", text(reference, "namespace"), text(reference, "name"))
    }
}

fn phase(object: &Value, _now: i64) -> Value {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating".into();
    }
    text(&object["status"], "phase").into()
}

fn attributes(object: &Value, _now: i64) -> Value {
    object["spec"]["volumeAttributesClassName"].as_str().unwrap_or(UNSET).into()
}

fn mode(object: &Value, _now: i64) -> Value {
    object["spec"]["volumeMode"].as_str().unwrap_or(UNSET).into()
}

fn fill_volume(volume: &mut Value) {
    let Some(spec) = volume.as_object_mut().and_then(|volume| object(volume, "spec")) else { return };
    fill(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill(spec, "volumeMode", "Filesystem");
    if let Some(path) = spec.get_mut("hostPath").and_then(Value::as_object_mut) {
        path.entry("type").or_insert_with(|| "".into());
    }
}

/// Also of the claims that a StatefulSet makes.
pub fn fill_claim(spec: &mut Map<String, Value>) {
    fill(spec, "volumeMode", "Filesystem");
    object(spec, "resources");
}

fn prepare(object: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        object["status"] = json!({"phase": "Pending"});
    }
}

fn check_volume(volume: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &volume["spec"];
    if list(spec, "accessModes").is_empty() {
        wrong.push(Invalid::required("spec.accessModes", ""));
    }
    check_modes(spec, &mut wrong);
    if spec["capacity"].as_object().is_none_or(Map::is_empty) {
        wrong.push(Invalid::required("spec.capacity", ""));
    } else {
        check_amount("spec.capacity[storage]", &spec["capacity"]["storage"], &mut wrong);
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    refuse_unsupported("spec.persistentVolumeReclaimPolicy", policy, &policies, &mut wrong);
    refuse_unsupported("spec.volumeMode", text(spec, "volumeMode"), &["Block", "Filesystem"], &mut wrong);
    match source(spec).len() {
        0 => wrong.push(Invalid::required("spec", "must specify a volume type")),
        1 => {}
        _ => wrong.push(Invalid::forbidden("spec", "may not specify more than 1 volume type")),
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        refuse("spec.storageClassName", class, meta::dns_subdomain(class), &mut wrong);
    }
    if let Some(old) = old {
        if source(spec) != source(&old["spec"]) {
            let why = "spec.persistentvolumesource is immutable after creation";
            wrong.push(Invalid::forbidden("spec.persistentvolumesource", why));
        }
        refuse_change("volumeMode", &spec["volumeMode"], &old["spec"]["volumeMode"], &mut wrong);
        if !old["spec"]["nodeAffinity"].is_null() {
            refuse_change("nodeAffinity", &spec["nodeAffinity"], &old["spec"]["nodeAffinity"], &mut wrong);
        }
    }
    wrong
}

/// Where the bytes of a volume are.
fn source(spec: &Value) -> Map<String, Value> {
    let mut fields = spec.as_object().cloned().unwrap_or_default();
    fields.retain(|field, value| !PLAIN.contains(&field.as_str()) && !value.is_null());
    fields
}

fn check_modes(spec: &Value, wrong: &mut Vec<Invalid>) {
    let modes = list(spec, "accessModes");
    for mode in modes.iter().filter_map(Value::as_str) {
        refuse_unsupported("spec.accessModes", mode, &MODES, wrong);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let why = "may not use ReadWriteOncePod with other access modes";
        wrong.push(Invalid::forbidden("spec.accessModes", why));
    }
}

fn check_amount(field: &str, amount: &Value, wrong: &mut Vec<Invalid>) {
    match thousandths(amount) {
        _ if amount.is_null() => wrong.push(Invalid::required(field, "")),
        Some(1..) => {}
        _ => wrong.push(Invalid::value(field, amount.clone(), "must be greater than zero")),
    }
}

fn check_claim(claim: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &claim["spec"];
    if list(spec, "accessModes").is_empty() {
        wrong.push(Invalid::required("spec.accessModes", "at least 1 access mode is required"));
    }
    check_label_selector(&spec["selector"], "spec.selector", &mut wrong);
    check_modes(spec, &mut wrong);
    check_amount("spec.resources[storage]", &spec["resources"]["requests"]["storage"], &mut wrong);
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        refuse("spec.storageClassName", class, meta::dns_subdomain(class), &mut wrong);
    }
    refuse_unsupported("spec.volumeMode", text(spec, "volumeMode"), &["Block", "Filesystem"], &mut wrong);
    if let Some(old) = old {
        check_claim_change(claim, old, &mut wrong);
    }
    wrong
}

/// A claim that has its volume may only ask for more; one that waits may get a volume, once.
fn check_claim_change(claim: &Value, old: &Value, wrong: &mut Vec<Invalid>) {
    let bound = text(&claim["status"], "phase") == "Bound";
    let waited = text(&old["spec"], "volumeName").is_empty();
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|field, value| {
                !(value.is_null() || *value == "" || waited && field == "volumeName" || bound && field == "resources")
                    && !(bound && field == "volumeAttributesClassName")
            });
        }
        spec
    };
    if fixed(&claim["spec"]) != fixed(&old["spec"]) {
        let why =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        wrong.push(Invalid::forbidden("spec", why));
    }
    let size = |object: &Value| thousandths(&object["spec"]["resources"]["requests"]["storage"]);
    let has = thousandths(&old["status"]["capacity"]["storage"]).unwrap_or(0);
    if size(claim) < size(old) && size(claim).is_some_and(|size| size <= has) {
        let why = "field can not be less than status.capacity";
        wrong.push(Invalid::forbidden("spec.resources.requests.storage", why));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};
    use crate::table::printed;

    fn complaints(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<String> {
        (kind.hooks.check)(object, old).iter().map(ToString::to_string).collect()
    }

    fn asked(storage: &str) -> Value {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}});
        filled(&claim(), json!({"metadata": {"name": "c"}, "spec": spec, "status": {"phase": "Pending"}}))
    }

    #[test]
    fn a_claim_says_how_much_and_how() {
        assert!(complaints(&claim(), &asked("1Gi"), None).is_empty());
        assert_eq!(
            complaints(&claim(), &filled(&claim(), json!({"spec": {"accessModes": ["Mine"]}})), None),
            [
                "spec.accessModes: Unsupported value: \"Mine\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
                 \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.resources[storage]: Required value",
            ]
        );
    }

    #[test]
    fn a_claim_gets_one_volume_and_then_may_only_grow() {
        let waiting = asked("1Gi");
        let mut bound = waiting.clone();
        bound["spec"]["volumeName"] = json!("v");
        assert!(complaints(&claim(), &bound, Some(&waiting)).is_empty());
        assert_eq!(complaints(&claim(), &asked("2Gi"), Some(&waiting)).len(), 1, "it is not bound yet");
        bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        let mut larger = bound.clone();
        larger["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
        assert!(complaints(&claim(), &larger, Some(&bound)).is_empty());
        assert_eq!(
            complaints(&claim(), &bound, Some(&larger)),
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
        );
        assert_eq!(
            printed(&claim(), &[waiting, bound], 0),
            "Name | Status | Volume | Capacity | Access Modes | StorageClass | VolumeAttributesClass | Age | (VolumeMode)\n\
             c | Pending |  |  |  |  | <unset> | <unknown> | Filesystem\n\
             c | Bound | v | 1Gi | RWO |  | <unset> | <unknown> | Filesystem"
        );
    }

    #[test]
    fn a_volume_has_one_place_and_keeps_it() {
        let spec =
            json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}});
        let old = filled(&volume(), json!({"metadata": {"name": "v"}, "spec": spec}));
        assert!(complaints(&volume(), &old, None).is_empty());
        assert!(complaints(&volume(), &old, Some(&old)).is_empty());
        let mut moved = old.clone();
        moved["spec"]["hostPath"]["path"] = json!("/b");
        assert_eq!(complaints(&volume(), &moved, Some(&old)).len(), 1);
        assert_eq!(
            complaints(&volume(), &filled(&volume(), json!({"spec": {}})), None),
            [
                "spec.accessModes: Required value",
                "spec.capacity: Required value",
                "spec: Required value: must specify a volume type",
            ]
        );
    }
}
