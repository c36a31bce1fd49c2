//! A Job again and again, on a schedule.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{CustomResource, ResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::job::JobSpec;
use crate::schedule::Schedule;
use crate::{Invalid, Kind, names};

/// The words a `concurrencyPolicy` may be.
pub const CONCURRENCY_POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];
/// How many Jobs that succeeded are kept, when the CronJob does not say.
pub const DEFAULT_SUCCESSFUL_JOBS: i32 = 3;
/// How many Jobs that failed are kept, when the CronJob does not say.
pub const DEFAULT_FAILED_JOBS: i32 = 1;
/// The longest name: with the time that its Jobs append, it is a label.
pub const NAME_LENGTH: usize = 52;

/// What a CronJob should do, and when.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "batch.onex.io",
    version = "v1beta1",
    kind = "CronJob",
    plural = "cronjobs",
    singular = "cronjob",
    shortname = "ocj",
    category = "all",
    namespaced,
    status = "CronJobStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A job again and again, on a schedule.",
    printcolumn(
        name = "Schedule",
        type_ = "string",
        json_path = ".spec.schedule",
        description = "When jobs are made."
    ),
    printcolumn(
        name = "Timezone",
        type_ = "string",
        json_path = ".spec.timeZone",
        description = "Where the schedule is read."
    ),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend", description = "No jobs are made."),
    printcolumn(
        name = "Last Schedule",
        type_ = "date",
        json_path = ".status.lastScheduleTime",
        description = "When the last job was made."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccessfulTime",
        description = "When a job last succeeded.",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("default" = {}))]
pub struct CronJobSpec {
    /// When jobs are made: five fields as cron has them, or @hourly, @daily, @weekly, @monthly, @yearly or @every with a
    /// duration.
    pub schedule: String,
    /// Where the schedule is read, as the database of time zones names it, for example Europe/Berlin. UTC if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How late a job may be made, in seconds. Later, it is left out. Jobs that were missed for longer than that are made up
    /// for, but only the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub starting_deadline_seconds: Option<i64>,
    /// What happens when the last job still runs: Allow starts another one beside it, Forbid waits, Replace ends it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("default" = "Allow", "enum" = ["Allow", "Forbid", "Replace"]))]
    pub concurrency_policy: String,
    /// Whether to make no jobs for now. Those that run are left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub suspend: Option<bool>,
    /// What the jobs should be.
    pub job_template: JobTemplate,
    /// How many jobs that succeeded are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 3))]
    pub successful_jobs_history_limit: Option<i32>,
    /// How many jobs that failed are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 1))]
    pub failed_jobs_history_limit: Option<i32>,
}

/// What the Jobs of a CronJob should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "JobTemplateSpec")]
pub struct JobTemplate {
    /// The labels and annotations of the jobs.
    #[schemars(schema_with = "any_metadata")]
    pub metadata: ObjectMeta,
    /// The spec of the jobs.
    pub spec: JobSpec,
}

/// What was last seen of a CronJob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobStatus {
    /// The jobs that have not ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub active: Vec<ObjectReference>,
    /// The time for which a job was last made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When a job last succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
}

/// What happens when it is time for a Job and the last one still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Concurrency {
    /// Another one is started beside it.
    #[default]
    Allow,
    /// Nothing, until it ended.
    Forbid,
    /// It is ended.
    Replace,
}

/// Metadata that somebody else defines; see the templates of Jobs.
fn any_metadata(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

impl CronJobSpec {
    /// The policy that is written; Allow when none is.
    pub fn concurrency(&self) -> Concurrency {
        match self.concurrency_policy.as_str() {
            "Forbid" => Concurrency::Forbid,
            "Replace" => Concurrency::Replace,
            // Anything else was refused by `check` before it was stored.
            _ => Concurrency::Allow,
        }
    }
}

impl Kind for CronJob {
    fn fill(&mut self) {
        let spec = &mut self.spec;
        if spec.concurrency_policy.is_empty() {
            spec.concurrency_policy = CONCURRENCY_POLICIES[0].to_owned();
        }
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(DEFAULT_SUCCESSFUL_JOBS);
        spec.failed_jobs_history_limit.get_or_insert(DEFAULT_FAILED_JOBS);
        spec.job_template.spec.fill();
    }

    // Whether the zone is one is not asked here: it takes a database of them.
    fn check(&self, old: Option<&Self>) -> Vec<Invalid> {
        let (mut wrong, spec) = (Vec::new(), &self.spec);
        if old.is_none() {
            wrong.extend(self.wrong_name().map(|why| Invalid::value("metadata.name", self.name_any(), why)));
        }
        let schedule = spec.schedule.as_str();
        if schedule.is_empty() {
            wrong.push(Invalid::required("spec.schedule", ""));
        } else if schedule.contains("TZ") {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            wrong.push(Invalid::value("spec.schedule", schedule, why));
        } else if let Err(why) = Schedule::parse(schedule) {
            wrong.push(Invalid::value("spec.schedule", schedule, why));
        }
        let policy = spec.concurrency_policy.as_str();
        if !policy.is_empty() && !CONCURRENCY_POLICIES.contains(&policy) {
            wrong.push(Invalid::not_supported("spec.concurrencyPolicy", policy, &CONCURRENCY_POLICIES));
        }
        for (field, number) in [
            ("spec.startingDeadlineSeconds", spec.starting_deadline_seconds),
            ("spec.successfulJobsHistoryLimit", spec.successful_jobs_history_limit.map(i64::from)),
            ("spec.failedJobsHistoryLimit", spec.failed_jobs_history_limit.map(i64::from)),
        ] {
            if let Some(number) = number.filter(|number| *number < 0) {
                wrong.push(Invalid::value(field, number, "must be greater than or equal to 0"));
            }
        }
        wrong.extend(spec.job_template.spec.check("spec.jobTemplate.spec"));
        wrong
    }

    fn warn(&self) -> Vec<String> {
        // A name that is yet to be generated is not looked at: it ends in a dash.
        let why = self.metadata.name.as_deref().and_then(names::not_a_label);
        why.map(|why| format!("metadata.name: this is used in Job names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{why}]"))
            .into_iter()
            .collect()
    }
}

impl CronJob {
    fn wrong_name(&self) -> Option<String> {
        let name = self.name_any();
        let long = || (name.len() > NAME_LENGTH).then(|| format!("must be no more than {NAME_LENGTH} characters"));
        names::not_a_subdomain(&name).or_else(long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cron(spec: Value) -> CronJob {
        let mut whole = json!({"schedule": "0 2 * * *", "jobTemplate": {"spec": {"type": "x"}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut cron: CronJob = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": whole})).unwrap();
        cron.fill();
        cron
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        assert_eq!(
            serde_json::to_value(&cron(json!({})).spec).unwrap(),
            json!({
                "schedule": "0 2 * * *", "concurrencyPolicy": "Allow", "suspend": false,
                "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
                "jobTemplate": {"metadata": {}, "spec": {"type": "x"}},
            })
        );
    }

    #[test]
    fn each_bad_field_is_named() {
        for (spec, field) in [
            (json!({"schedule": ""}), "spec.schedule"),
            (json!({"schedule": "0 2 * *"}), "spec.schedule"),
            (json!({"schedule": "TZ=UTC 0 2 * * *"}), "spec.schedule"),
            (json!({"schedule": "CRON_TZ=UTC 0 2 * * *"}), "spec.schedule"),
            (json!({"concurrencyPolicy": "Wait"}), "spec.concurrencyPolicy"),
            (json!({"startingDeadlineSeconds": -1}), "spec.startingDeadlineSeconds"),
            (json!({"successfulJobsHistoryLimit": -1}), "spec.successfulJobsHistoryLimit"),
            (json!({"failedJobsHistoryLimit": -1}), "spec.failedJobsHistoryLimit"),
            (json!({"jobTemplate": {}}), "spec.jobTemplate.spec.type"),
            (
                json!({"jobTemplate": {"spec": {"type": "x", "activeDeadlineSeconds": -1}}}),
                "spec.jobTemplate.spec.activeDeadlineSeconds",
            ),
        ] {
            let fields: Vec<String> = cron(spec).check(None).into_iter().map(|wrong| wrong.field).collect();
            assert_eq!(fields, [field]);
        }
    }

    #[test]
    fn a_name_leaves_room_for_the_time_and_is_asked_for_once() {
        let mut named = cron(json!({}));
        for (name, fine) in [("a".repeat(52), true), ("a".repeat(53), false), ("A".to_owned(), false)] {
            named.metadata.name = Some(name);
            assert_eq!(named.check(None).is_empty(), fine);
            assert!(named.check(Some(&named)).is_empty());
        }
        named.metadata.name = Some("a.b".to_owned());
        assert_eq!((named.check(None), named.warn().len()), (vec![], 1));
    }
}
