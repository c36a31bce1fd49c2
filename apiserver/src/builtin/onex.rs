//! The kinds of OneX: descriptors from the typed CRDs, and the hooks as functions over the value.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use onex_crds::{Chain, CronJob, Invalid, Job, Miner, MinerSet};
use serde_json::{Value, json};

use super::{
    batch::{check_zone, cron_columns},
    schemas,
    templates::{check_template, fill_template},
};
use crate::{
    kinds::{Cell, Column, Hooks, Kind, Names, Published, Scale},
    selector::Labels,
    table::{age_column, column, name_column, path, since, wide_column},
};

/// Chains, miner sets and miners.
pub fn kinds() -> Vec<Kind> {
    let mut chain = onex::<Chain>();
    chain.columns = vec![name_column(), age_column()];
    let mut miner_set = onex::<MinerSet>();
    miner_set.columns = miner_set_columns();
    let mut miner = onex::<Miner>();
    miner.columns = miner_columns();
    miner.generate_name = Some("mi-");
    vec![chain, miner_set, miner]
}

/// Cron jobs and jobs. Kubernetes has kinds of these names, which mean more to most people: these are listed after them.
pub fn batch_kinds() -> Vec<Kind> {
    let mut cron_job = onex::<CronJob>();
    cron_job.columns = cron_job_columns();
    cron_job.hooks = Hooks { fill: fill_cron_job, check: check_cron_job, ..cron_job.hooks };
    cron_job.published = Published::new(|| with_templates(schemas::publish::<CronJob>(BATCH, VERSION, "CronJob")));
    let mut job = onex::<Job>();
    job.columns = job_columns();
    job.hooks = Hooks { fill: fill_job, check: check_job, ..job.hooks };
    job.published = Published::new(|| with_templates(schemas::publish::<Job>(BATCH, VERSION, "Job")));
    vec![cron_job, job]
}

const BATCH: &str = onex_crds::BATCH_GROUP;
const VERSION: &str = onex_crds::VERSION;

/// Says what the templates are, which the types leave open: a CRD cannot name a type of somebody else.
fn with_templates((name, mut schemas): (String, BTreeMap<String, Value>)) -> (String, BTreeMap<String, Value>) {
    schemas.extend(schemas::definitions::<PodTemplateSpec>());
    for (owner, field, target) in [
        ("JobSpec", "template", "io.k8s.api.core.v1.PodTemplateSpec"),
        ("JobTemplateSpec", "metadata", schemas::OBJECT_META),
    ] {
        let Some(schema) = schemas.get_mut(&schemas::renamed(owner)) else { continue };
        let field = &mut schema["properties"][field];
        let description = field["description"].take();
        *field = json!({"description": description, "allOf": [{"$ref": format!("#/components/schemas/{target}")}]});
    }
    (name, schemas)
}

/// The descriptor of a typed kind. Everything but the columns comes from its CRD.
fn onex<K: onex_crds::Kind>() -> Kind {
    let crd = K::crd().spec;
    let version = crd.versions.into_iter().next().expect("every kind has a version");
    let (group, names) = (crd.group, crd.names);
    let published = {
        let (group, version, name) = (group.clone(), version.name.clone(), names.kind.clone());
        Published::new(move || schemas::publish::<K>(&group, &version, &name))
    };
    let subresources = version.subresources.unwrap_or_default();
    let mut kind = Kind::new(&group, &version.name, &names.kind, &names.plural, published);
    kind.singular = names.singular.unwrap_or(kind.singular);
    kind.short_names = names.short_names.unwrap_or_default();
    kind.categories = names.categories.unwrap_or_default();
    kind.namespaced = crd.scope == "Namespaced";
    kind.status = subresources.status.is_some();
    kind.scale = subresources.scale.map(|scale| Scale {
        spec: split(&scale.spec_replicas_path),
        status: split(&scale.status_replicas_path),
        // The object under `spec` rather than the text under `status`, so that it is there before any controller ran.
        selector: split(".spec.selector"),
    });
    kind.selectable = version
        .selectable_fields
        .into_iter()
        .flatten()
        .map(|field| (field.json_path.trim_start_matches('.').to_owned(), split(&field.json_path)))
        .collect();
    kind.prefix = format!("/registry/{group}/{}/", names.plural);
    kind.generation = true;
    // The typed check speaks about the name: it knows what the names of children need.
    kind.names = Names::Segment;
    kind.hooks = Hooks { fill: fill::<K>, check: check::<K>, warn_of_new: warn::<K>, ..Hooks::default() };
    kind
}

fn split(path: &str) -> Vec<String> {
    path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The object as its type. As in Go, null is the same as nothing.
fn typed<K: onex_crds::Kind>(value: &Value) -> Result<K, serde_json::Error> {
    if !holds_null(value) {
        return K::deserialize(value);
    }
    let mut value = value.clone();
    remove_nulls(&mut value);
    K::deserialize(&value)
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(|field| field.is_null() || holds_null(field)),
        Value::Array(items) => items.iter().any(holds_null),
        _ => false,
    }
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// Fills through the type, and writes back only what that changed: all else stays as the client wrote it.
fn fill<K: onex_crds::Kind>(value: &mut Value) {
    remove_nulls(value);
    // A spec in which nothing is written may be left out whole: all that it needs can be filled in.
    if let Some(fields) = value.as_object_mut() {
        super::object(fields, "spec");
    }
    // What does not decode is `check`'s to complain about.
    let Ok(before) = typed::<K>(value) else { return };
    let mut after = before.clone();
    after.fill();
    if after == before {
        return;
    }
    let (Ok(before), Ok(after)) = (serde_json::to_value(&before), serde_json::to_value(&after)) else { return };
    write_changes(value, &before, &after);
}

fn write_changes(value: &mut Value, before: &Value, after: &Value) {
    if before == after {
        return;
    }
    match (value, after) {
        (Value::Object(fields), Value::Object(wanted)) => {
            for (name, wanted) in wanted.iter().filter(|(name, wanted)| before[name.as_str()] != **wanted) {
                write_changes(fields.entry(name.clone()).or_insert(Value::Null), &before[name], wanted);
            }
        }
        (value, after) => *value = after.clone(),
    }
}

fn check<K: onex_crds::Kind>(value: &Value, old: Option<&Value>) -> Vec<Invalid> {
    match (typed::<K>(value), old.map(typed::<K>).transpose()) {
        (Ok(object), Ok(old)) => object.check(old.as_ref()),
        // An old object of another time that no longer decodes must not keep anybody from mending it.
        (Ok(object), Err(_)) => object.check(None),
        (Err(error), _) => vec![Invalid::value("spec", value["spec"].clone(), error.to_string())],
    }
}

fn warn<K: onex_crds::Kind>(value: &Value) -> Vec<String> {
    typed::<K>(value).map(|object| object.warn()).unwrap_or_default()
}

fn fill_job(job: &mut Value) {
    fill::<Job>(job);
    fill_pod(job.get_mut("spec"));
}

fn fill_cron_job(cron_job: &mut Value) {
    fill::<CronJob>(cron_job);
    fill_pod(cron_job.pointer_mut("/spec/jobTemplate/spec"));
}

/// What Kubernetes fills in of a template of Pods, where there is one.
fn fill_pod(spec: Option<&mut Value>) {
    if let Some(spec) = spec.and_then(Value::as_object_mut).filter(|spec| spec.contains_key("template")) {
        fill_template(spec);
    }
}

fn check_job(job: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = check::<Job>(job, old);
    check_pod(&job["spec"], "spec", &mut wrong);
    wrong
}

fn check_cron_job(cron_job: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = check::<CronJob>(cron_job, old);
    let zone = &cron_job["spec"]["timeZone"];
    if old.is_none_or(|old| old["spec"]["timeZone"] != *zone) {
        check_zone(zone, &mut wrong);
    }
    check_pod(&cron_job["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec", &mut wrong);
    wrong
}

fn check_pod(spec: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    if spec["template"].is_object() {
        check_template(&spec["template"], &format!("{at}.template"), &[], wrong);
    }
}

fn cron_job_columns() -> Vec<Column> {
    let success = Cell::Function(|object, now| match &object["status"]["lastSuccessfulTime"] {
        Value::Null => "<none>".into(),
        time => since(time, now).into(),
    });
    let mut columns = cron_columns();
    columns.push(wide_column("Last Success", "string", "When a job last succeeded.", success));
    columns
}

fn job_columns() -> Vec<Column> {
    vec![
        name_column(),
        column(
            "Type",
            "string",
            "Who does the job, in a word.",
            Cell::Function(|job, _| job["spec"]["type"].as_str().unwrap_or("<none>").into()),
        ),
        column("Phase", "string", "How far it is.", Cell::Function(phase)),
        age_column(),
        wide_column(
            "Failed",
            "integer",
            "How often it failed.",
            Cell::Function(|job, _| job["status"]["failed"].as_i64().unwrap_or_default().into()),
        ),
        wide_column(
            "Pod",
            "string",
            "The pod that does it, or did last.",
            Cell::Function(|job, _| job["status"]["podRef"]["name"].as_str().unwrap_or("<none>").into()),
        ),
    ]
}

fn miner_set_columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Ready", "integer", "Miners that are ready, of those wanted.", Cell::Function(ready)),
        column(
            "Current",
            "integer",
            "Miners that are there.",
            Cell::Function(|set, _| counted(set, "replicas").into()),
        ),
        column(
            "Available",
            "string",
            "Miners that have been ready for at least minReadySeconds.",
            Cell::Function(|set, _| counted(set, "availableReplicas").into()),
        ),
        age_column(),
        wide_column("Selector", "string", "The labels by which the set knows its miners.", Cell::Function(selector)),
    ]
}

fn counted(set: &Value, field: &str) -> i64 {
    set["status"][field].as_i64().unwrap_or_default()
}

fn ready(set: &Value, _now: i64) -> Value {
    let wanted = set["spec"]["replicas"].as_i64().unwrap_or(onex_crds::minerset::DEFAULT_REPLICAS.into());
    format!("{}/{wanted}", counted(set, "readyReplicas")).into()
}

fn selector(set: &Value, _now: i64) -> Value {
    Labels::from_label_selector(&set["spec"]["selector"]).to_string().into()
}

fn miner_columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Status", "string", "How far the miner is.", Cell::Function(phase)),
        age_column(),
        wide_column("Type", "string", "The miner type, which says how large the miner is.", path(".spec.minerType")),
    ]
}

fn phase(miner: &Value, _now: i64) -> Value {
    match &miner["status"]["phase"] {
        Value::String(phase) if !phase.is_empty() => phase.clone().into(),
        _ => "Pending".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::printed;

    fn kind(name: &str) -> Kind {
        kinds().into_iter().chain(batch_kinds()).find(|kind| kind.kind == name).expect("a kind of OneX")
    }

    fn object(kind: &Kind, spec: Value) -> Value {
        let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.kind,
            "metadata": {"name": "a", "namespace": "kube-system"}, "spec": spec});
        (kind.hooks.fill)(&mut object);
        let once = object.clone();
        (kind.hooks.fill)(&mut object);
        assert_eq!(object, once, "filling twice is filling once");
        object
    }

    #[test]
    fn what_was_written_stays_and_what_was_not_is_filled() {
        let set = object(&kind("MinerSet"), json!({"replicas": 0, "displayName": null, "unheard": [1]}));
        assert_eq!(set["spec"]["replicas"], 0);
        assert_eq!(set["spec"]["unheard"], json!([1]));
        assert_eq!(set["spec"]["template"]["spec"]["minerType"], "S1.SMALL1");
        assert!(set["spec"].get("displayName").is_none());
        let chain = object(&kind("Chain"), Value::Null);
        assert_eq!(chain["spec"]["minerType"], "S1.SMALL2");
    }

    #[test]
    fn every_kind_refuses_a_name_that_its_children_could_not_have() {
        for kind in kinds() {
            let mut object = object(&kind, json!({"chainName": "c", "template": {"spec": {"chainName": "c"}}}));
            assert_eq!((kind.hooks.check)(&object, None), [], "{}", kind.kind);
            object["metadata"]["name"] = json!("A_b");
            let fields: Vec<String> = (kind.hooks.check)(&object, None).into_iter().map(|wrong| wrong.field).collect();
            assert_eq!(fields, ["metadata.name"], "{}", kind.kind);
        }
    }

    #[test]
    fn what_does_not_decode_is_refused_rather_than_stored() {
        let set = kind("MinerSet");
        let wrong = (set.hooks.check)(&json!({"metadata": {"name": "a"}, "spec": {"replicas": "many"}}), None);
        assert_eq!(wrong[0].field, "spec");
        assert!(wrong[0].message().contains("invalid type: string \"many\""), "{}", wrong[0].message());
    }

    #[test]
    fn kubectl_shows_what_is_there_of_what_is_wanted() {
        let set = kind("MinerSet");
        let mut shown = object(&set, json!({"replicas": 3, "selector": {"matchLabels": {"x": "y"}}}));
        shown["status"] = json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1});
        assert_eq!(
            printed(&set, &[shown], 0),
            "Name | Ready | Current | Available | Age | (Selector)\na | 1/3 | 2 | 1 | <unknown> | x=y"
        );
        let miner = object(&kind("Miner"), json!({"chainName": "c"}));
        assert_eq!(
            printed(&kind("Miner"), &[miner], 0),
            "Name | Status | Age | (Type)\na | Pending | <unknown> | S1.SMALL1"
        );
    }

    #[test]
    fn descriptors_are_those_of_the_crds() {
        let set = kind("MinerSet");
        assert_eq!(set.prefix, "/registry/apps.onex.io/minersets/");
        assert_eq!(
            (set.short_names.as_slice(), set.categories.as_slice()),
            (["ms".to_owned()].as_slice(), ["all".to_owned()].as_slice())
        );
        assert_eq!(set.scale.expect("a set scales").spec, ["spec", "replicas"]);
        assert!(set.status && set.namespaced && set.generation && set.strategic);
        assert_eq!(kind("Job").prefix, "/registry/batch.onex.io/jobs/");
        assert_eq!(kind("Chain").short_names, ["ch"]);
        assert_eq!(kind("Miner").short_names, ["mi"]);
    }

    /// In OneX, a Job had the short name of a Miner. Ours have none that anybody else has.
    #[test]
    fn b27_the_short_names_of_onex_are_nobody_elses() {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        super::super::kinds().into_iter().flat_map(|kind| kind.short_names).for_each(|name| {
            *count.entry(name).or_default() += 1;
        });
        for name in kinds().into_iter().chain(batch_kinds()).flat_map(|kind| kind.short_names) {
            assert_eq!(count[&name], 1, "{name}");
        }
    }

    fn complaints(kind: &Kind, object: &Value) -> Vec<String> {
        (kind.hooks.check)(object, None).iter().map(ToString::to_string).collect()
    }

    fn pod(image: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "image": image}]}})
    }

    #[test]
    fn the_template_of_a_job_is_filled_and_checked_as_a_pod() {
        let job = kind("Job");
        let made = object(&job, json!({"template": pod("i")}));
        assert_eq!(made["spec"]["template"]["spec"]["restartPolicy"], "Never");
        assert_eq!(made["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        assert_eq!(complaints(&job, &made), Vec::<String>::new());
        let empty = object(&job, json!({"template": {"spec": {}}}));
        assert_eq!(complaints(&job, &empty), ["spec.template.spec.containers: Required value"]);
        let elsewhere = object(&job, json!({"type": "AWS", "providerSpec": {"a": 1}}));
        assert_eq!(elsewhere["spec"], json!({"type": "AWS", "providerSpec": {"a": 1}}));
    }

    #[test]
    fn a_cron_job_says_when_where_and_what() {
        let cron = kind("CronJob");
        let with = |spec: Value| {
            let mut whole = json!({"schedule": "0 2 * * *", "jobTemplate": {"spec": {"template": pod("i")}}});
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            object(&cron, whole)
        };
        assert_eq!(complaints(&cron, &with(json!({"timeZone": "Europe/Berlin"}))), Vec::<String>::new());
        for (spec, complaint) in [
            (
                json!({"schedule": "0 2 * *"}),
                "spec.schedule: Invalid value: \"0 2 * *\": expected exactly 5 fields, found 4: [0 2 * *]",
            ),
            (json!({"timeZone": "Mars//X"}), "spec.timeZone: Invalid value: \"Mars//X\": unknown time zone Mars//X"),
            (
                json!({"jobTemplate": {"spec": {"template": {"spec": {}}}}}),
                "spec.jobTemplate.spec.template.spec.containers: Required value",
            ),
        ] {
            assert_eq!(complaints(&cron, &with(spec)), [complaint]);
        }
    }

    #[test]
    fn kubectl_shows_when_a_cron_job_is_due_and_how_far_jobs_are() {
        let cron = kind("CronJob");
        let mut shown = object(&cron, json!({"schedule": "@hourly", "jobTemplate": {"spec": {"type": "x"}}}));
        shown["status"] = json!({"active": [{}], "lastScheduleTime": "1970-01-01T00:00:00Z"});
        assert_eq!(
            printed(&cron, &[shown], 60),
            "Name | Schedule | Timezone | Suspend | Active | Last Schedule | Age | (Last Success)\n\
             a | @hourly | <none> | False | 1 | 60s | <unknown> | <none>"
        );
        let job = kind("Job");
        let mut shown = object(&job, json!({"type": "AWS"}));
        let fresh = shown.clone();
        shown["status"] = json!({"phase": "Running", "failed": 1, "podRef": {"name": "a-1"}});
        assert_eq!(
            printed(&job, &[fresh, shown], 0),
            "Name | Type | Phase | Age | (Failed) | (Pod)\na | AWS | Pending | <unknown> | 0 | <none>\n\
             a | AWS | Running | <unknown> | 1 | a-1"
        );
    }
}
