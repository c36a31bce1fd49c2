//! apiregistration: APIServices, which say who serves a group in a version. Here we always do.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use onex_crds::Invalid;
use serde_json::{Value, json};

use super::{kubernetes, list, refuse, text};
use crate::{
    kinds::{Cell, Hooks, Kind, Names},
    meta,
    table::{age_column, column, name_column},
};

/// Says that an APIService follows the table of kinds.
pub const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// APIServices.
pub fn kind() -> Kind {
    let mut kind = kubernetes::<APIService>("apiservices", &[]);
    kind.prefix = "/registry/apiregistration.k8s.io/apiservices/".to_owned();
    kind.categories = vec!["api-extensions".to_owned()];
    kind.namespaced = false;
    kind.status = true;
    kind.names = Names::Segment;
    kind.columns = vec![
        name_column(),
        column(
            "Service",
            "string",
            "Who serves it.",
            Cell::Function(|service, _| match &service["spec"]["service"] {
                Value::Null => "Local".into(),
                other => format!("{}/{}", text(other, "namespace"), text(other, "name")).into(),
            }),
        ),
        column("Available", "string", "Whether it is served.", Cell::Function(|service, _| available(service).into())),
        age_column(),
    ];
    kind.hooks = Hooks { check, prepare, ..Hooks::default() };
    kind
}

/// The APIService of a group in a version.
pub fn local(group: &str, version: &str, managed: &str, priorities: (u32, u32)) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1,
        },
    })
}

fn available(service: &Value) -> String {
    let conditions = list(&service["status"], "conditions");
    let Some(condition) = conditions.iter().find(|condition| condition["type"] == "Available") else {
        return "Unknown".to_owned();
    };
    match text(condition, "status") {
        "True" => "True".to_owned(),
        other => format!("{other} ({})", text(condition, "reason")),
    }
}

/// What we serve is available.
fn prepare(service: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        let since = service["metadata"]["creationTimestamp"].clone();
        service["status"] = json!({"conditions": [{
            "type": "Available", "status": "True", "lastTransitionTime": since, "reason": "Local",
            "message": "Local APIServices are always available",
        }]});
    }
}

fn check(service: &Value, _old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &service["spec"];
    let (name, group, version) = (text(&service["metadata"], "name"), text(spec, "group"), text(spec, "version"));
    let needed = format!("{version}.{group}");
    if name != needed {
        let why = format!("must be `spec.version+\".\"+spec.group`: {needed:?}");
        wrong.push(Invalid::value("metadata.name", name, why));
    }
    if group.is_empty() && version != "v1" {
        wrong.push(Invalid::required("spec.group", "only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        refuse("spec.group", group, meta::dns_subdomain(group), &mut wrong);
    }
    refuse("spec.version", version, meta::dns_1035_label(version), &mut wrong);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec[field].as_i64().unwrap_or(0);
        if !(1..=most).contains(&priority) {
            let why = format!("must be positive and less than {most}");
            wrong.push(Invalid::value(format!("spec.{field}"), priority, why));
        }
    }
    if spec["service"].is_object() {
        wrong.push(Invalid::forbidden("spec.service", "nothing is served by others here: only local APIServices are"));
    }
    if !text(spec, "caBundle").is_empty() {
        let shown = format!("{} bytes", text(spec, "caBundle").trim_end_matches('=').len() * 3 / 4);
        wrong.push(Invalid::value("spec.caBundle", shown, "local APIServices may not have a caBundle"));
    }
    if spec["insecureSkipTLSVerify"] == true {
        let why = "local APIServices may not have insecureSkipTLSVerify";
        wrong.push(Invalid::value("spec.insecureSkipTLSVerify", true, why));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::printed;

    #[test]
    fn a_service_is_named_after_what_it_serves_and_served_here() {
        let mut service = local("apps", "v1", "onstart", (17_800, 15));
        assert_eq!(check(&service, None), []);
        prepare(&mut service, None);
        assert_eq!(
            printed(&kind(), std::slice::from_ref(&service), 0),
            "Name | Service | Available | Age\nv1.apps | Local | True | <unknown>"
        );
        service["metadata"]["name"] = "other".into();
        service["spec"]["versionPriority"] = 0.into();
        service["spec"]["service"] = json!({"name": "s", "namespace": "n"});
        let wrong: Vec<_> = check(&service, None).iter().map(ToString::to_string).collect();
        assert_eq!(
            wrong,
            [
                "metadata.name: Invalid value: \"other\": must be `spec.version+\".\"+spec.group`: \"v1.apps\"",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                "spec.service: Forbidden: nothing is served by others here: only local APIServices are",
            ]
        );
        assert_eq!(check(&local("", "v1", "onstart", (18_000, 1)), None), []);
    }
}
