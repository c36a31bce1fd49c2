//! Something that is done once, to the end.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, ResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conditions::Truth;
use crate::{Invalid, Kind, LocalReference, is_zero, names};

/// How often a Job may fail that does not say.
pub const DEFAULT_BACKOFF_LIMIT: i32 = 6;
/// The restart policies that the Pod of a Job may have: one that starts again whatever comes of it never ends.
pub const RESTART_POLICIES: [&str; 2] = ["OnFailure", "Never"];

/// Job: nothing is done until somebody lets it go on.
pub const SUSPENDED: &str = "Suspended";
/// Job: it is done.
pub const COMPLETE: &str = "Complete";
/// Job: it came to nothing.
pub const FAILED: &str = "Failed";
/// Job: it will have failed as soon as its Pod is gone.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// Job: it did what it was to do.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";

/// It took longer than `activeDeadlineSeconds`.
pub const REASON_DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
/// It failed more often than `backoffLimit`.
pub const REASON_BACKOFF_LIMIT_EXCEEDED: &str = "BackoffLimitExceeded";
/// Its Pod succeeded.
pub const REASON_COMPLETIONS_REACHED: &str = "CompletionsReached";
/// Somebody suspended it.
pub const REASON_SUSPENDED: &str = "JobSuspended";
/// Somebody let it go on.
pub const REASON_RESUMED: &str = "JobResumed";

/// What a Job should do.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "batch.onex.io",
    version = "v1beta1",
    kind = "Job",
    plural = "jobs",
    singular = "job",
    shortname = "oj",
    category = "all",
    namespaced,
    status = "JobStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Something that is done once, to the end.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type", description = "Who does it, in a word."),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "How far it is: Pending, Running, Succeeded, Failed or Unknown."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.failed",
        description = "How often it failed.",
        priority = 1
    ),
    printcolumn(
        name = "Pod",
        type_ = "string",
        json_path = ".status.podRef.name",
        description = "The pod that does it, or did last.",
        priority = 1
    ),
    selectable = ".spec.type",
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("default" = {}))]
pub struct JobSpec {
    /// Who does the job, in a word. A job with a template is done by its pod; any other is left to whoever knows the type,
    /// and who says in the status how far it is.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub type_: String,
    /// Whether to do nothing for now. A pod that runs is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How long the job may take from when it was started, in seconds. Then its pod is deleted, and it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub active_deadline_seconds: Option<i64>,
    /// How often the pod may fail and be tried again.
    // Not in OneX, whose Jobs nobody does; as in Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub backoff_limit: Option<i32>,
    /// How long the job is kept after it ended, in seconds. Jobs that do not say are kept.
    // Not in OneX; as in Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// What is to be done, for who knows the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub provider_spec: Option<Value>,
    /// The pod that does the job.
    // Not in OneX's types, although its own sample has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub template: Option<Value>,
}

/// What was last seen of a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// What is known about the job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-patch-strategy" = "merge",
        "x-kubernetes-patch-merge-key" = "type"
    ))]
    pub conditions: Vec<JobCondition>,
    /// When it was started, or let go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<JobPhase>,
    /// Why it failed, or what keeps it from running.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_message: String,
    /// How far it is, in the words of who does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub provider_status: Option<Value>,
    /// How often the pod failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: i32,
    /// The pod that does it, or did last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_ref: Option<LocalReference>,
}

/// How far a Job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum JobPhase {
    /// It waits.
    #[default]
    Pending,
    /// Its pod runs.
    Running,
    /// It is done.
    Succeeded,
    /// It came to nothing.
    Failed,
    /// Nobody can tell.
    Unknown,
}

/// One thing that is known about a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobCondition {
    /// What it is about, in CamelCase: Suspended, Complete, Failed, FailureTarget or SuccessCriteriaMet.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: Truth,
    /// When somebody last looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// When the status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// Why, in one CamelCase word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An object that somebody else defines. A CRD cannot name another type; the apiserver puts its own schema here.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

impl JobSpec {
    /// What the user left out of the template.
    pub(crate) fn fill(&mut self) {
        let Some(spec) = self.template.as_mut().and_then(|template| template.get_mut("spec")) else { return };
        let Some(spec) = spec.as_object_mut() else { return };
        let policy = spec.entry("restartPolicy").or_insert(Value::Null);
        // A job that failed is tried in another Pod, so that what the first one said can still be read.
        if policy.is_null() || policy == "" {
            *policy = Value::from("Never");
        }
    }

    /// What is wrong with the spec that is at `at`.
    pub(crate) fn check(&self, at: &str) -> Vec<Invalid> {
        let field = |name: &str| format!("{at}.{name}");
        let mut wrong = Vec::new();
        for (name, number) in [
            ("activeDeadlineSeconds", self.active_deadline_seconds),
            ("backoffLimit", self.backoff_limit.map(i64::from)),
            ("ttlSecondsAfterFinished", self.ttl_seconds_after_finished.map(i64::from)),
        ] {
            if let Some(number) = number.filter(|number| *number < 0) {
                wrong.push(Invalid::value(field(name), number, "must be greater than or equal to 0"));
            }
        }
        match &self.template {
            None if self.type_.is_empty() => {
                wrong.push(Invalid::required(field("type"), "a job has a type, or a template of the pod that does it"));
            }
            Some(template) => {
                let policy = template["spec"]["restartPolicy"].as_str().unwrap_or_default();
                if !policy.is_empty() && !RESTART_POLICIES.contains(&policy) {
                    let field = field("template.spec.restartPolicy");
                    wrong.push(Invalid::not_supported(field, policy, &RESTART_POLICIES));
                }
            }
            None => {}
        }
        wrong
    }

    /// How often the pod may fail and be tried again.
    pub fn backoff_limit(&self) -> i32 {
        self.backoff_limit.unwrap_or(DEFAULT_BACKOFF_LIMIT)
    }
}

impl Kind for Job {
    fn fill(&mut self) {
        self.spec.fill();
    }

    fn check(&self, old: Option<&Self>) -> Vec<Invalid> {
        let mut wrong = Vec::new();
        match old {
            None => {
                let name = self.name_any();
                // Every Pod of the Job carries its name as a label.
                let why = names::not_a_subdomain(&name).or_else(|| names::not_a_label_value(&name));
                wrong.extend(why.map(|why| Invalid::value("metadata.name", name, why)));
            }
            // What is being done cannot become something else. A Job that never began may still be corrected.
            Some(old) if old.spec.template != self.spec.template && !old.waits() => {
                let template = self.spec.template.clone().unwrap_or_default();
                wrong.push(Invalid::value("spec.template", template, "field is immutable"));
            }
            Some(_) => {}
        }
        wrong.extend(self.spec.check("spec"));
        wrong
    }
}

impl Job {
    /// Whether it is suspended, and never began.
    fn waits(&self) -> bool {
        self.spec.suspend == Some(true) && self.status.as_ref().is_none_or(|status| status.started_at.is_none())
    }

    /// How it ended, if it did: whether it succeeded. Whoever does a Job may say so by a condition or by the phase.
    pub fn outcome(&self) -> Option<bool> {
        let status = self.status.as_ref()?;
        let holds = |type_: &str| get(&status.conditions, type_).is_some_and(|found| found.status == Truth::True);
        match status.phase {
            _ if holds(COMPLETE) => Some(true),
            _ if holds(FAILED) => Some(false),
            Some(JobPhase::Succeeded) => Some(true),
            Some(JobPhase::Failed) => Some(false),
            _ => None,
        }
    }
}

/// The condition of this type, if there is one.
pub fn get<'a>(conditions: &'a [JobCondition], type_: &str) -> Option<&'a JobCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(spec: Value) -> Job {
        let mut job: Job = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
        job.fill();
        job
    }

    fn complaints(job: &Job, old: Option<&Job>) -> Vec<String> {
        job.check(old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_job_that_somebody_else_does_is_left_as_it_was_written() {
        let spec = json!({"type": "AWS", "providerSpec": {"instanceType": "m4.xlarge", "placement": {"region": "r"}}});
        let job = job(spec.clone());
        assert_eq!(complaints(&job, None), Vec::<String>::new());
        assert_eq!(serde_json::to_value(&job.spec).unwrap(), spec);
    }

    #[test]
    fn each_bad_field_is_named() {
        for (spec, complaint) in [
            (json!({}), "spec.type: Required value: a job has a type, or a template of the pod that does it"),
            (
                json!({"type": "x", "activeDeadlineSeconds": -1}),
                "spec.activeDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"type": "x", "backoffLimit": -1}),
                "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"type": "x", "ttlSecondsAfterFinished": -1}),
                "spec.ttlSecondsAfterFinished: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"template": {"spec": {"restartPolicy": "Always"}}}),
                "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\"",
            ),
        ] {
            assert_eq!(complaints(&job(spec), None), [complaint]);
        }
        let mut long = job(json!({"type": "x"}));
        long.metadata.name = Some("a".repeat(64));
        assert!(complaints(&long, None)[0].starts_with("metadata.name"));
    }

    #[test]
    fn what_a_job_does_stays_once_it_began() {
        let with = |image: &str| job(json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}));
        let (old, new) = (with("a"), with("b"));
        assert_eq!(complaints(&new, Some(&old)), ["spec.template: Invalid value: \"object\": field is immutable"]);
        assert_eq!(complaints(&old, Some(&old)), Vec::<String>::new());
        let mut waiting = old;
        waiting.spec.suspend = Some(true);
        assert_eq!(complaints(&new, Some(&waiting)), Vec::<String>::new());
        waiting.status.get_or_insert_default().started_at = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(complaints(&new, Some(&waiting)).len(), 1);
    }

    #[test]
    fn a_pod_that_fails_is_not_started_again_unless_that_is_asked_for() {
        let policy = |spec: Value| job(spec).spec.template.unwrap()["spec"]["restartPolicy"].clone();
        assert_eq!(policy(json!({"template": {"spec": {"containers": []}}})), "Never");
        assert_eq!(policy(json!({"template": {"spec": {"restartPolicy": "OnFailure"}}})), "OnFailure");
    }

    #[test]
    fn who_does_a_job_may_say_how_it_ended_in_either_way() {
        let mut job = job(json!({"type": "x"}));
        assert_eq!(job.outcome(), None);
        for (status, outcome) in [
            (json!({"phase": "Running"}), None),
            (json!({"phase": "Succeeded"}), Some(true)),
            (json!({"phase": "Failed"}), Some(false)),
            (json!({"conditions": [{"type": "Complete", "status": "True"}]}), Some(true)),
            (json!({"conditions": [{"type": "Failed", "status": "True"}]}), Some(false)),
            (json!({"conditions": [{"type": "Failed", "status": "False"}]}), None),
        ] {
            job.status = Some(serde_json::from_value(status).unwrap());
            assert_eq!(job.outcome(), outcome);
        }
    }
}
