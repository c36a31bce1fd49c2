//! StatefulSets.

use k8s_openapi::api::apps::v1::StatefulSet;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{
    super::{
        items, list, refuse,
        replicas::check_status,
        scale,
        templates::{check_lasting, check_selector, check_template, container_columns, fill_template, images, names},
    },
    fill, number, object, refuse_negative, text, workload,
};
use crate::{
    builtin::volumes,
    kinds::{Cell, Hooks, Kind, Names},
    meta,
    table::{age_column, column, name_column},
};

/// What may change of a spec.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// StatefulSets.
pub fn kind() -> Kind {
    let mut kind = workload::<StatefulSet>("statefulsets", "sts");
    kind.scale = Some(scale(&["spec", "selector"]));
    kind.names = Names::Label;
    kind.columns = vec![
        name_column(),
        column(
            "Ready",
            "string",
            "Pods that are ready, of those wanted.",
            Cell::Function(|object, _| {
                format!("{}/{}", number(&object["status"], "readyReplicas"), number(&object["spec"], "replicas")).into()
            }),
        ),
        age_column(),
    ];
    kind.columns.extend(container_columns(names, images));
    kind.hooks = Hooks { fill: fill_set, check, prepare, warn, ..Hooks::default() };
    kind
}

fn fill_set(set: &mut Value) {
    let Some(spec) = set.as_object_mut().and_then(|set| object(set, "spec")) else { return };
    fill_template(spec);
    fill(spec, "podManagementPolicy", "OrderedReady");
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = object(spec, "updateStrategy") {
        if strategy.get("type").and_then(Value::as_str).unwrap_or_default().is_empty() {
            object(strategy, "rollingUpdate");
        }
        fill(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut)
        {
            fill(rolling, "partition", 0);
        }
    }
    if let Some(policy) = object(spec, "persistentVolumeClaimRetentionPolicy") {
        fill(policy, "whenDeleted", "Retain");
        fill(policy, "whenScaled", "Retain");
    }
    for claim in items(spec, "volumeClaimTemplates") {
        fill(claim, "apiVersion", "v1");
        fill(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = object(claim, "spec") {
            volumes::fill_claim(spec);
        }
        if let Some(status) = object(claim, "status") {
            fill(status, "phase", "Pending");
        }
    }
}

fn prepare(set: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        set["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }
}

fn warn(set: &Value) -> Vec<String> {
    let negative = set["spec"]["revisionHistoryLimit"].as_i64().is_some_and(|limit| limit < 0);
    let why =
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
    negative.then(|| why.to_owned()).into_iter().collect()
}

fn check(set: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &set["spec"];
    let policy = text(spec, "podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        wrong.push(Invalid::value("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"));
    }
    check_strategy(&spec["updateStrategy"], &mut wrong);
    for field in ["whenDeleted", "whenScaled"] {
        let policy = text(&spec["persistentVolumeClaimRetentionPolicy"], field);
        if !["Retain", "Delete"].contains(&policy) {
            let field = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
            wrong.push(Invalid::not_supported(field, policy, &["Retain", "Delete"]));
        }
    }
    refuse_negative(spec, "spec", &["replicas", "minReadySeconds"], &mut wrong);
    refuse_negative(&spec["ordinals"], "spec.ordinals", &["start"], &mut wrong);
    let service = text(spec, "serviceName");
    if old.is_none() && !service.is_empty() {
        refuse("spec.serviceName", service, meta::dns_label(service), &mut wrong);
    }
    check_selector(spec, "empty selector is invalid for statefulset", &mut wrong);
    let claims: Vec<&str> =
        list(spec, "volumeClaimTemplates").iter().map(|claim| text(&claim["metadata"], "name")).collect();
    check_template(&spec["template"], "spec.template", &claims, &mut wrong);
    check_lasting(&spec["template"], "spec.template", "StatefulSet", &mut wrong);
    if old.is_some_and(|old| fixed(spec) != fixed(&old["spec"])) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                   'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        wrong.push(Invalid::forbidden("spec", why));
    }
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    check_status(&set["status"], old, &parts, "status.readyReplicas", &mut wrong);
    wrong
}

fn check_strategy(strategy: &Value, wrong: &mut Vec<Invalid>) {
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "OnDelete" if rolling.is_object() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            wrong.push(Invalid::value("spec.updateStrategy.rollingUpdate", rolling.clone(), why));
        }
        "OnDelete" => {}
        "RollingUpdate" => refuse_negative(rolling, "spec.updateStrategy.rollingUpdate", &["partition"], wrong),
        _ => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            wrong.push(Invalid::value("spec.updateStrategy", strategy.clone(), why));
        }
    }
}

/// The spec without what may change.
fn fixed(spec: &Value) -> Value {
    let mut fixed = spec.clone();
    if let Some(fields) = fixed.as_object_mut() {
        fields.retain(|field, value| !CHANGEABLE.contains(&field.as_str()) && !value.is_null() && *value != "");
    }
    fixed
}

#[cfg(test)]
mod tests {
    use super::{super::super::core::filled, *};

    fn set(spec: Value) -> Value {
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}});
        let mut set = json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}});
        for (field, value) in spec.as_object().unwrap() {
            set["spec"][field] = value.clone();
        }
        filled(&kind(), set)
    }

    fn complaints(set: &Value, old: Option<&Value>) -> Vec<String> {
        check(set, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn containers_may_mount_what_the_set_claims() {
        assert!(complaints(&set(json!({})), None).is_empty());
        let without = complaints(&set(json!({"volumeClaimTemplates": []})), None);
        assert_eq!(without, ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]);
    }

    #[test]
    fn little_of_a_set_may_change() {
        let old = set(json!({"serviceName": "a"}));
        assert!(
            complaints(&set(json!({"serviceName": "a", "replicas": 5, "minReadySeconds": 3})), Some(&old)).is_empty()
        );
        let said = complaints(&set(json!({"serviceName": "b"})), Some(&old));
        assert!(said[0].starts_with("spec: Forbidden: updates to statefulset spec for fields other than"), "{said:?}");
    }

    #[test]
    fn a_strategy_says_what_it_does() {
        let strategy = |strategy: Value| complaints(&set(json!({ "updateStrategy": strategy })), None);
        assert!(strategy(json!({"type": "OnDelete"})).is_empty());
        assert_eq!(
            strategy(json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}})).len()
                + strategy(json!({"rollingUpdate": {"partition": -1}})).len()
                + strategy(json!({"type": "X"})).len(),
            3
        );
    }
}
