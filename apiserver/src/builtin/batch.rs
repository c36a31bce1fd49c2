//! batch: Jobs and CronJobs.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use onex_crds::Invalid;
use serde_json::{Map, Value, json};

use super::{
    cron, fill, go, kubernetes, list, object, refuse_change, refuse_negative, refuse_unsupported,
    templates::{
        check_finds, check_label_selector, check_template, container_columns, fill_template, images, joined, names,
        selector, selector_column,
    },
    text,
};
use crate::{
    kinds::{Cell, Column, Hooks, Kind},
    table::{age_column, column, human_duration, name_column, path, seconds, since, wide_column},
};

const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
/// The name of a CronJob and the time that its Jobs append must be a name together.
const CRON_NAME_LENGTH: usize = 52;

/// The kinds of the group.
pub fn kinds() -> Vec<Kind> {
    vec![cron_job(), job()]
}

fn job() -> Kind {
    let mut kind = kubernetes::<Job>("jobs", &[]);
    kind.categories = vec!["all".to_owned()];
    kind.status = true;
    kind.generation = true;
    kind.orphans_dependents = true; // as batch/v1 has always done
    kind.columns = vec![
        name_column(),
        column("Status", "string", "How the job is.", Cell::Function(|job, _| state(job).into())),
        column("Completions", "string", "Pods that succeeded, of those wanted.", Cell::Function(completions)),
        column("Duration", "string", "How long it took, or takes.", Cell::Function(duration)),
        age_column(),
    ];
    kind.columns.extend(container_columns(names, images));
    kind.columns.push(selector_column());
    kind.selectable = vec![("status.successful".to_owned(), vec!["status".to_owned(), "succeeded".to_owned()])];
    kind.hooks = Hooks { fill: fill_job, check: check_job, prepare: prepare_job, ..Hooks::default() };
    kind
}

fn state(job: &Value) -> &'static str {
    let holds =
        |kind: &str| list(&job["status"], "conditions").iter().any(|c| c["type"] == kind && c["status"] == "True");
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if job["metadata"]["deletionTimestamp"].is_string() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () => "Running",
    }
}

fn completions(job: &Value, _now: i64) -> Value {
    let succeeded = job["status"]["succeeded"].as_i64().unwrap_or(0);
    match (job["spec"]["completions"].as_i64(), job["spec"]["parallelism"].as_i64()) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}").into(),
        (None, Some(parallel @ 2..)) => format!("{succeeded}/1 of {parallel}").into(),
        _ => format!("{succeeded}/1").into(),
    }
}

fn duration(job: &Value, now: i64) -> Value {
    let Some(start) = seconds(&job["status"]["startTime"]) else { return "".into() };
    human_duration(seconds(&job["status"]["completionTime"]).unwrap_or(now) - start).into()
}

fn fill_job(job: &mut Value) {
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    let Some(fields) = job.as_object_mut() else { return };
    if labels.as_object().is_some_and(|labels| !labels.is_empty())
        && let Some(meta) = object(fields, "metadata")
        && meta.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty)
    {
        meta.insert("labels".to_owned(), labels);
    }
    if let Some(spec) = object(fields, "spec") {
        fill_spec(spec);
        fill(spec, "manualSelector", false);
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        let policy = spec.get("podFailurePolicy").is_some_and(Value::is_object);
        fill(spec, "podReplacementPolicy", if policy { "Failed" } else { "TerminatingOrFailed" });
        let written = |name: &str| spec.get(name).is_some_and(|value| !value.is_null());
        if !written("completions") && !written("parallelism") {
            spec.insert("completions".to_owned(), 1.into());
        }
        fill(spec, "parallelism", 1);
        let each = spec.get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
        fill(spec, "backoffLimit", if each { i32::MAX } else { 6 });
    }
}

/// What is filled in also of the Jobs that a CronJob makes.
fn fill_spec(spec: &mut Map<String, Value>) {
    fill_template(spec);
    if let Some(rules) = spec.get_mut("podFailurePolicy").and_then(Value::as_object_mut) {
        for rule in super::items(rules, "rules") {
            super::items(rule, "onPodConditions").for_each(|pattern| fill(pattern, "status", "True"));
        }
    }
}

/// A Job finds its Pods by its own uid, unless the user says that they know better.
fn prepare_job(job: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        return;
    }
    job["status"] = json!({});
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (job["metadata"]["name"].clone(), job["metadata"]["uid"].clone());
    let Some(spec) = job.as_object_mut().and_then(|job| object(job, "spec")) else { return };
    let labels = object(spec, "template").and_then(|t| object(t, "metadata")).and_then(|m| object(m, "labels"));
    if let Some(labels) = labels {
        NAME_LABELS.iter().for_each(|label| fill(labels, label, name.clone()));
        UID_LABELS.iter().for_each(|label| fill(labels, label, uid.clone()));
    }
    if let Some(labels) = object(spec, "selector").and_then(|selector| object(selector, "matchLabels")) {
        fill(labels, UID_LABELS[1], uid);
    }
}

fn check_job(job: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &job["spec"];
    check_generated(job, &mut wrong);
    check_spec(spec, "spec", &mut wrong);
    match &spec["selector"] {
        Value::Null => wrong.push(Invalid::required("spec.selector", "")),
        selector => {
            check_label_selector(selector, "spec.selector", &mut wrong);
            check_finds(spec, &mut wrong);
        }
    }
    if let Some(old) = old {
        check_change(spec, old, &mut wrong);
    }
    refuse_negative(&job["status"], "status", &["active", "succeeded", "failed", "ready", "terminating"], &mut wrong);
    wrong
}

/// The labels that tell a Job's Pods from others'.
fn check_generated(job: &Value, wrong: &mut Vec<Invalid>) {
    if job["spec"]["manualSelector"] == true || job["spec"]["selector"].is_null() {
        return;
    }
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    let expected = [(UID_LABELS, text(&job["metadata"], "uid")), (NAME_LABELS, text(&job["metadata"], "name"))];
    for (names, expected) in expected {
        for name in names {
            match labels[name].as_str() {
                None => {
                    let why = format!("must be '{expected}'");
                    wrong.push(Invalid::required(format!("spec.template.metadata.labels[{name}]"), why));
                }
                Some(found) if found != expected => {
                    let why = format!("must be '{expected}'");
                    wrong.push(Invalid::printed("spec.template.metadata.labels", go::labels(labels), why));
                }
                Some(_) => {}
            }
        }
    }
}

fn check_spec(spec: &Value, at: &str, wrong: &mut Vec<Invalid>) {
    let field = |name: &str| format!("{at}.{name}");
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    refuse_negative(spec, at, &counts, wrong);
    let mode = text(spec, "completionMode");
    refuse_unsupported(&field("completionMode"), mode, &["NonIndexed", "Indexed"], wrong);
    if mode == "Indexed" {
        if spec["completions"].is_null() {
            wrong.push(Invalid::required(field("completions"), "when completion mode is Indexed"));
        }
        if let Some(many) = spec["parallelism"].as_i64().filter(|many| *many > 100_000) {
            let why = "must be less than or equal to 100000 when completion mode is Indexed";
            wrong.push(Invalid::value(field("parallelism"), many, why));
        }
    } else {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(number) = spec[name].as_i64() {
                wrong.push(Invalid::value(field(name), number, "requires indexed completion mode"));
            }
        }
    }
    let replacements: &[&str] =
        if spec["podFailurePolicy"].is_object() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    refuse_unsupported(&field("podReplacementPolicy"), text(spec, "podReplacementPolicy"), replacements, wrong);
    check_template(&spec["template"], &field("template"), &[], wrong);
    let restart = field("template.spec.restartPolicy");
    match text(&spec["template"]["spec"], "restartPolicy") {
        "" | "Always" => wrong.push(Invalid::required(restart, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec["podFailurePolicy"].is_object() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            wrong.push(Invalid::value(restart, "OnFailure", why));
        }
        "OnFailure" | "Never" => {}
        other => wrong.push(Invalid::not_supported(restart, other, &["OnFailure", "Never"])),
    }
}

fn check_change(spec: &Value, old: &Value, wrong: &mut Vec<Invalid>) {
    let before = &old["spec"];
    if spec["completionMode"] != "Indexed" {
        refuse_change("spec.completions", &spec["completions"], &before["completions"], wrong);
    } else if spec["completions"] != before["completions"] && spec["completions"] != spec["parallelism"] {
        let why = "can only be modified in tandem with spec.parallelism";
        wrong.push(Invalid::value("spec.completions", spec["completions"].clone(), why));
    }
    super::templates::check_same_selector(spec, before, wrong);
    // A suspended Job that never began may still be told where to run.
    let waits = before["suspend"] == true && old["status"]["startTime"].is_null();
    if fixed(&spec["template"], waits) != fixed(&before["template"], waits) {
        wrong.push(Invalid::value("spec.template", spec["template"].clone(), "field is immutable"));
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        refuse_change(&format!("spec.{field}"), &spec[field], &before[field], wrong);
    }
}

/// The template without what may change.
fn fixed(template: &Value, waits: bool) -> Value {
    let mut fixed = template.clone();
    if waits {
        for (part, fields) in [
            ("metadata", ["labels", "annotations"].as_slice()),
            ("spec", ["nodeSelector", "tolerations", "schedulingGates"].as_slice()),
        ] {
            if let Some(part) = fixed.get_mut(part).and_then(Value::as_object_mut) {
                part.retain(|field, _| !fields.contains(&field.as_str()));
            }
        }
        if let Some(affinity) = fixed.pointer_mut("/spec/affinity").and_then(Value::as_object_mut) {
            affinity.remove("nodeAffinity");
        }
    }
    fixed
}

fn cron_job() -> Kind {
    let mut kind = kubernetes::<CronJob>("cronjobs", &["cj"]);
    kind.categories = vec!["all".to_owned()];
    kind.status = true;
    kind.generation = true;
    kind.columns = cron_columns();
    kind.columns.extend(container_columns(
        |object, _| joined(&object["spec"]["jobTemplate"]["spec"]["template"], "name"),
        |object, _| joined(&object["spec"]["jobTemplate"]["spec"]["template"], "image"),
    ));
    kind.columns.push(wide_column(
        "Selector",
        "string",
        "The labels by which Pods are found.",
        Cell::Function(|object, _| selector(&object["spec"]["jobTemplate"]["spec"]["selector"]).into()),
    ));
    kind.hooks = Hooks { fill: fill_cron_job, check: check_cron_job, prepare: prepare_cron_job, ..Hooks::default() };
    kind
}

/// What is shown of a CronJob, also of OneX's.
pub fn cron_columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Schedule", "string", "When jobs are made.", path(".spec.schedule")),
        column(
            "Timezone",
            "string",
            "Where the schedule is read.",
            Cell::Function(|object, _| object["spec"]["timeZone"].as_str().unwrap_or("<none>").into()),
        ),
        column(
            "Suspend",
            "boolean",
            "No jobs are made.",
            Cell::Function(|object, _| match object["spec"]["suspend"].as_bool() {
                Some(true) => "True".into(),
                Some(false) => "False".into(),
                None => "<unset>".into(),
            }),
        ),
        column(
            "Active",
            "integer",
            "Jobs that run.",
            Cell::Function(|object, _| list(&object["status"], "active").len().into()),
        ),
        column(
            "Last Schedule",
            "string",
            "When the last job was made.",
            Cell::Function(|object, now| match &object["status"]["lastScheduleTime"] {
                Value::Null => "<none>".into(),
                time => since(time, now).into(),
            }),
        ),
        age_column(),
    ]
}

fn fill_cron_job(cron_job: &mut Value) {
    let Some(spec) = cron_job.as_object_mut().and_then(|object| super::object(object, "spec")) else { return };
    fill(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    if let Some(spec) = object(spec, "jobTemplate").and_then(|template| object(template, "spec")) {
        fill_spec(spec);
    }
}

fn prepare_cron_job(cron_job: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        cron_job["status"] = json!({});
    }
}

fn check_cron_job(cron_job: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut wrong = Vec::new();
    let spec = &cron_job["spec"];
    let name = text(&cron_job["metadata"], "name");
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        wrong.push(Invalid::required("spec.schedule", ""));
    } else if let Err(why) = cron::check(schedule) {
        wrong.push(Invalid::value("spec.schedule", schedule, why));
    }
    if schedule.contains("TZ") && !old.is_some_and(|old| text(&old["spec"], "schedule").contains("TZ")) {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        wrong.push(Invalid::value("spec.schedule", schedule, why));
    }
    refuse_negative(spec, "spec", &["startingDeadlineSeconds"], &mut wrong);
    if old.is_none_or(|old| old["spec"]["timeZone"] != spec["timeZone"]) {
        check_zone(&spec["timeZone"], &mut wrong);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    refuse_unsupported("spec.concurrencyPolicy", text(spec, "concurrencyPolicy"), &policies, &mut wrong);
    check_spec(&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", &mut wrong);
    let made = &spec["jobTemplate"]["spec"];
    if !made["selector"].is_null() {
        let selector = go::label_selector(&made["selector"]);
        wrong.push(Invalid::printed("spec.jobTemplate.spec.selector", selector, "`selector` will be auto-generated"));
    }
    if made["manualSelector"] == true {
        wrong.push(Invalid::not_supported("spec.jobTemplate.spec.manualSelector", true, &["nil", "false"]));
    }
    refuse_negative(spec, "spec", &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], &mut wrong);
    if old.is_none() && name.len() > CRON_NAME_LENGTH {
        wrong.push(Invalid::value("metadata.name", name, "must be no more than 52 characters"));
    }
    wrong
}

/// What is wrong with a time zone, if one is written.
pub fn check_zone(zone: &Value, wrong: &mut Vec<Invalid>) {
    let Some(zone) = zone.as_str() else { return };
    let mut refuse = |why: &str| wrong.push(Invalid::value("spec.timeZone", zone, why));
    if zone.is_empty() {
        return refuse("timeZone must be nil or non-empty string");
    }
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    let fits = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.chars().all(known)
    };
    if zone.eq_ignore_ascii_case("Local") {
        refuse("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if !zone.split('/').all(fits)
        // Where this machine knows no zones at all, the name must do.
        || (!jiff::tz::db().is_definitively_empty() && jiff::tz::db().get(zone).is_err())
    {
        refuse(&format!("unknown time zone {zone}"));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::core::filled, *};
    use crate::table::printed;

    fn complaints(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<String> {
        (kind.hooks.check)(object, old).iter().map(ToString::to_string).collect()
    }

    fn template() -> Value {
        json!({"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}})
    }

    fn made(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": template()}});
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        let mut object = filled(&job(), object);
        prepare_job(&mut object, None);
        object
    }

    #[test]
    fn a_job_knows_its_pods_by_its_own_uid() {
        insta::assert_json_snapshot!(made(json!({})));
        assert!(complaints(&job(), &made(json!({})), None).is_empty());
        let mut template = template();
        template["metadata"] = json!({"labels": {"job-name": "other"}});
        let said = complaints(&job(), &made(json!({ "template": template })), None);
        assert!(said[0].ends_with("must be 'j'"), "{said:?}");
        let mut own = template.clone();
        own["metadata"]["labels"] = json!({"a": "b"});
        let manual = json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": own});
        assert!(complaints(&job(), &made(manual), None).is_empty());
    }

    #[test]
    fn a_job_ends_and_so_its_pods_must_be_able_to() {
        let mut template = template();
        template["spec"]["restartPolicy"] = Value::Null;
        assert_eq!(
            complaints(&job(), &made(json!({ "template": template })), None),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
        assert_eq!(
            complaints(&job(), &made(json!({"completionMode": "Indexed", "parallelism": 1})), None),
            ["spec.completions: Required value: when completion mode is Indexed"]
        );
    }

    #[test]
    fn what_a_job_does_stays() {
        let old = made(json!({}));
        let changed = |pointer: &str, value: Value| {
            let mut new = old.clone();
            *new.pointer_mut(pointer).unwrap() = value;
            complaints(&job(), &new, Some(&old))
        };
        assert!(changed("/spec/parallelism", json!(4)).is_empty());
        assert_eq!(changed("/spec/completions", json!(4)), ["spec.completions: Invalid value: 4: field is immutable"]);
        assert_eq!(
            changed("/spec/template/spec/containers/0/image", json!("x")),
            ["spec.template: Invalid value: \"object\": field is immutable"]
        );
        let mut waiting = old.clone();
        waiting["spec"]["suspend"] = json!(true);
        let mut new = waiting.clone();
        new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        assert!(complaints(&job(), &new, Some(&waiting)).is_empty());
        assert_eq!(complaints(&job(), &new, Some(&old)).len(), 1);
    }

    #[test]
    fn a_cron_job_says_when_and_what() {
        let cron = |spec: Value| {
            let mut object = json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *",
                "jobTemplate": {"spec": {"template": template()}}}});
            for (field, value) in spec.as_object().unwrap() {
                object["spec"][field] = value.clone();
            }
            filled(&cron_job(), object)
        };
        insta::assert_json_snapshot!(cron(json!({})));
        assert!(complaints(&cron_job(), &cron(json!({"timeZone": "Europe/Berlin"})), None).is_empty());
        let cases = [
            (json!({"schedule": ""}), "spec.schedule: Required value"),
            (
                json!({"schedule": "* *"}),
                "spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]",
            ),
            (json!({"timeZone": "Mars//X"}), "spec.timeZone: Invalid value: \"Mars//X\": unknown time zone Mars//X"),
            (
                json!({"concurrencyPolicy": "X"}),
                "spec.concurrencyPolicy: Unsupported value: \"X\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(complaints(&cron_job(), &cron(spec), None), [expected]);
        }
        assert_eq!(
            printed(&cron_job(), &[cron(json!({}))], 0),
            "Name | Schedule | Timezone | Suspend | Active | Last Schedule | Age | (Containers) | (Images) | (Selector)\n\
             c | * * * * * | <none> | False | 0 | <none> | <unknown> | c | i | <none>"
        );
    }

    #[test]
    fn kubectl_shows_how_far_a_job_is() {
        let mut job_one = made(json!({"completions": 3}));
        job_one["status"] = json!({"succeeded": 1, "startTime": "1970-01-01T00:00:00Z"});
        let mut job_two = job_one.clone();
        job_two["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
        job_two["status"]["completionTime"] = json!("1970-01-01T00:00:09Z");
        assert_eq!(
            printed(&job(), &[job_one, job_two], 60),
            "Name | Status | Completions | Duration | Age | (Containers) | (Images) | (Selector)\n\
             j | Running | 1/3 | 60s | <unknown> | c | i | batch.kubernetes.io/controller-uid=u\n\
             j | Complete | 1/3 | 9s | <unknown> | c | i | batch.kubernetes.io/controller-uid=u"
        );
    }
}
