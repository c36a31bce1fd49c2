//! What may change of a Pod that is there, each through a subresource of its own: what its containers may use, and containers
//! that look into it.

use std::collections::HashSet;

use onex_crds::{Invalid, Problem};
use serde_json::{Value, json};

use super::{
    items, list, object,
    pod::{quality, request_limits},
    pod_spec::{check_spec, fill_container},
    quantity::thousandths,
    text,
};
use crate::registry::Part;

/// What a container may use more or less of while it runs.
const RESIZED: [&str; 2] = ["cpu", "memory"];
/// What a container that looks into a Pod may not have, as it could be relied upon.
const RELIED_UPON: [&str; 6] = ["lifecycle", "livenessProbe", "ports", "readinessProbe", "resources", "startupProbe"];

/// Makes of the wanted Pod the old one with its part changed, and says what is wrong.
pub fn amend(part: Part, pod: &mut Value, old: &Value, _now: &str) -> Vec<Invalid> {
    let (Some(fields), true) = (pod.as_object_mut(), old["spec"].is_object()) else { return Vec::new() };
    let wanted = fields.insert("spec".to_owned(), old["spec"].clone()).unwrap_or_default();
    let mut wrong = match part {
        Part::Resize => resize(pod, &wanted, old),
        Part::EphemeralContainers => add_ephemeral(pod, &wanted, old),
        _ => return Vec::new(),
    };
    if wrong.is_empty() {
        check_spec(&pod["spec"], "spec", &[], &mut wrong);
    }
    wrong
}

fn resize(pod: &mut Value, wanted: &Value, old: &Value) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    for kind in ["containers", "initContainers"] {
        check_same(list(wanted, kind), list(&old["spec"], kind), &format!("spec.{kind}"), kind, &mut wrong);
    }
    if !wrong.is_empty() {
        return wrong;
    }
    if let Some(spec) = pod.as_object_mut().and_then(|pod| object(pod, "spec")) {
        for kind in ["containers", "initContainers"] {
            for (container, wanted) in items(spec, kind).zip(list(wanted, kind)) {
                for field in ["resources", "resizePolicy"] {
                    match &wanted[field] {
                        Value::Null => container.remove(field),
                        value => container.insert(field.to_owned(), value.clone()),
                    };
                }
                if let Some(resources) = object(container, "resources") {
                    request_limits(resources);
                }
            }
        }
    }
    if quality(&pod["spec"]) != quality(&old["spec"]) {
        let why = "Pod QOS Class may not change as a result of resizing";
        wrong.push(Invalid::value("spec", old["status"]["qosClass"].clone(), why));
    }
    let running =
        list(&old["status"], "containerStatuses").iter().find(|status| status["state"]["running"].is_object());
    if running.is_some_and(|status| status["resources"].is_null()) {
        wrong.push(Invalid::forbidden("spec", "Pod running on node without support for resize"));
    }
    for kind in ["containers", "initContainers"] {
        let pairs = list(&pod["spec"], kind).iter().zip(list(&old["spec"], kind));
        for (index, (new, old)) in pairs.enumerate() {
            check_resize(kind, new, old, &format!("spec.{kind}[{index}].resources"), &mut wrong);
        }
    }
    wrong
}

fn check_same(new: &[Value], old: &[Value], at: &str, kind: &str, wrong: &mut Vec<Invalid>) {
    if new.len() != old.len() {
        wrong.push(Invalid::forbidden(at, format!("{kind} may not be added or removed on resize")));
        return;
    }
    for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new["name"] != old["name"]) {
        let why = format!("{kind} may not be renamed or reordered on resize");
        wrong.push(Invalid::forbidden(format!("{at}[{index}].name"), why));
    }
}

fn check_resize(kind: &str, new: &Value, old: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let is_sidecar = old["restartPolicy"] == "Always";
    if kind == "initContainers" && !is_sidecar {
        if new != old {
            wrong.push(Invalid::forbidden("spec", "resources for non-sidecar init containers are immutable"));
        }
        return;
    }
    let (new_resources, old_resources) = (&new["resources"], &old["resources"]);
    for which in ["requests", "limits"] {
        let before = old_resources[which].as_object().into_iter().flatten();
        if before.into_iter().any(|(name, _)| new_resources[which][name].is_null()) {
            wrong.push(Invalid::forbidden(format!("{at}.{which}"), format!("resource {which} cannot be removed")));
        }
    }
    let restarts = |policy: &Value| policy["resourceName"] == "memory" && policy["restartPolicy"] == "RestartContainer";
    if !list(new, "resizePolicy").iter().any(restarts) {
        let limit = |resources: &Value| thousandths(&resources["limits"]["memory"]);
        let unless = "unless resizePolicy is RestartContainer";
        match (limit(new_resources), limit(old_resources)) {
            (Some(new), Some(old)) if new < old => {
                let why = format!("memory limits cannot be decreased {unless}");
                wrong.push(Invalid::forbidden(format!("{at}.limits[memory]"), why));
            }
            (Some(_), None) => {
                let why = format!("memory limits cannot be added {unless}");
                wrong.push(Invalid::forbidden(format!("{at}.limits[memory]"), why));
            }
            _ => {}
        }
    }
    if fixed(new) != fixed(old) {
        let whose = if is_sidecar { " for sidecar containers" } else { "" };
        wrong.push(Invalid::forbidden("spec", format!("only cpu and memory resources{whose} are mutable")));
    }
}

/// A container without what a resize may change.
fn fixed(container: &Value) -> Value {
    let mut container = container.clone();
    if let Some(fields) = container.as_object_mut() {
        let resources = fields.entry("resources").or_insert_with(|| json!({}));
        for which in ["requests", "limits"] {
            let amounts = resources[which].as_object().cloned().unwrap_or_default();
            let others = amounts.into_iter().filter(|(name, _)| !RESIZED.contains(&name.as_str()));
            resources[which] = Value::Object(others.collect());
        }
    }
    container
}

fn add_ephemeral(pod: &mut Value, wanted: &Value, old: &Value) -> Vec<Invalid> {
    const AT: &str = "spec.ephemeralContainers";
    let mut wrong = Vec::new();
    if let Some(spec) = pod.as_object_mut().and_then(|pod| object(pod, "spec")) {
        match &wanted["ephemeralContainers"] {
            Value::Null => spec.remove("ephemeralContainers"),
            all => spec.insert("ephemeralContainers".to_owned(), all.clone()),
        };
        items(spec, "ephemeralContainers").for_each(fill_container);
    }
    let all = list(&pod["spec"], "ephemeralContainers");
    for before in list(&old["spec"], "ephemeralContainers") {
        let name = text(before, "name");
        match all.iter().find(|container| container["name"] == before["name"]) {
            None => wrong
                .push(Invalid::forbidden(AT, format!("existing ephemeral containers {name:?} may not be removed\n"))),
            Some(now) if now != before => {
                wrong.push(Invalid::forbidden(
                    AT,
                    format!("existing ephemeral containers {name:?} may not be changed\n"),
                ));
            }
            Some(_) => {}
        }
    }
    let others = || ["containers", "initContainers"].into_iter().flat_map(|kind| list(&old["spec"], kind));
    let others: HashSet<&str> = others().map(|container| text(container, "name")).collect();
    for (index, container) in all.iter().enumerate() {
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            let field = format!("{AT}[{index}].targetContainerName");
            wrong.push(Invalid { field, problem: Problem::NotFound(target.into()) });
        }
        let is_set = |value: &Value| match value {
            Value::Null => false,
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        for field in RELIED_UPON.iter().filter(|field| is_set(&container[**field])) {
            let why = "cannot be set for an Ephemeral Container";
            wrong.push(Invalid::forbidden(format!("{AT}[{index}].{field}"), why));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str) -> Value {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": "2"}});
        json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}, "status": {}})
    }

    fn complaints(part: Part, wanted: &Value, old: &Value) -> Vec<String> {
        amend(part, &mut wanted.clone(), old, "").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_gets_more_and_nothing_else_changes() {
        let (mut wanted, old) = (pod("1"), pod("500m"));
        wanted["spec"]["containers"][0]["image"] = "other".into();
        wanted["spec"]["nodeName"] = "elsewhere".into();
        assert_eq!(amend(Part::Resize, &mut wanted, &old, ""), []);
        assert_eq!(wanted, pod("1"));
    }

    #[test]
    fn what_a_resize_cannot_do_is_named() {
        let old = pod("500m");
        let with = |change: fn(&mut Value)| {
            let mut wanted = pod("500m");
            change(&mut wanted["spec"]["containers"]);
            complaints(Part::Resize, &wanted, &old)
        };
        assert_eq!(
            with(|containers| containers[0]["name"] = "d".into()),
            ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
        );
        assert_eq!(
            with(|containers| *containers = json!([])),
            ["spec.containers: Forbidden: containers may not be added or removed on resize"]
        );
        assert_eq!(
            with(|containers| containers[0]["resources"]["limits"] = json!({})),
            ["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"]
        );
        assert_eq!(
            with(|containers| containers[0]["resources"]["limits"]["memory"] = "1Gi".into()),
            [
                "spec.containers[0].resources.limits[memory]: Forbidden: memory limits cannot be added unless resizePolicy is \
              RestartContainer"
            ]
        );
        assert_eq!(
            with(|containers| containers[0]["resources"]["requests"]["example.com/gpu"] = 1.into()),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
        let mut old = pod("500m");
        old["spec"]["containers"][0]["resources"] = json!({});
        assert!(complaints(Part::Resize, &pod("1"), &old)[0].contains("Pod QOS Class may not change"));
    }

    #[test]
    fn containers_that_look_into_a_pod_come_and_stay() {
        let mut old = pod("1");
        let mut wanted = pod("2");
        wanted["spec"]["ephemeralContainers"] =
            json!([{"name": "debug", "image": "busybox", "targetContainerName": "c"}]);
        assert_eq!(amend(Part::EphemeralContainers, &mut wanted, &old, ""), []);
        assert_eq!(wanted["spec"]["containers"], old["spec"]["containers"]);
        assert_eq!(wanted["spec"]["ephemeralContainers"][0]["terminationMessagePath"], "/dev/termination-log");
        old["spec"] = wanted["spec"].clone();
        assert_eq!(
            complaints(Part::EphemeralContainers, &pod("1"), &old),
            ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be removed\n"]
        );
        let with = |extra: Value| {
            let mut wanted = pod("1");
            wanted["spec"]["ephemeralContainers"] = json!([extra]);
            complaints(Part::EphemeralContainers, &wanted, &pod("1"))
        };
        assert_eq!(
            with(json!({"name": "debug", "image": "i", "ports": [{"containerPort": 1}], "targetContainerName": "x"})),
            [
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ]
        );
        assert!(with(json!({"name": "c", "image": "i"}))[0].contains("Duplicate value"));
    }
}
