//! One line of the audit log, as audit.k8s.io/v1 has it.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use onex_audit::{Decision, Object, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{authn::User, request::Target};

/// How much of a request is recorded; each has what the ones before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who did what to what, and how it ended.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It is known who asks for what.
    RequestReceived,
    /// The answer of a watch or a log begins.
    ResponseStarted,
    /// The answer is over.
    ResponseComplete,
    /// It met a bug.
    Panic,
}

/// What is known of a request that is recorded.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How much is recorded.
    pub level: Level,
    /// The id that the client was told.
    pub id: String,
    /// The path and the query.
    pub uri: String,
    /// What was asked for.
    pub target: Arc<Target>,
    /// Who asked.
    pub user: Arc<User>,
    /// Whom they were taken for.
    pub impersonated: Option<Arc<User>>,
    /// Where from: the client first, then those who passed it on.
    pub source: Vec<String>,
    /// What the client calls itself.
    pub agent: String,
    /// When it came.
    pub received: Timestamp,
    /// What was sent.
    pub request: Option<Value>,
}

/// How a request stands.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The HTTP status; 0 while it is not known.
    pub code: u16,
    /// What an error said, and its reason.
    pub status: Option<(String, String)>,
    /// What was answered.
    pub response: Option<Value>,
    /// The name that a new object got, and its uid.
    pub made: Option<(String, String)>,
    /// What those said who were asked on the way.
    pub annotations: BTreeMap<String, String>,
}

/// Why a request was let in, or was not: the two annotations of every event.
pub const DECISION: &str = "authorization.k8s.io/decision";
/// See [`DECISION`].
pub const REASON: &str = "authorization.k8s.io/reason";

impl Facts {
    /// The event at this stage.
    pub fn event(&self, stage: Stage, outcome: &Outcome, now: Timestamp) -> Value {
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": self.level,
            "auditID": self.id,
            "stage": stage,
            "requestURI": self.uri,
            "verb": self.target.verb,
            "user": shown(&self.user),
            "sourceIPs": self.source,
            "requestReceivedTimestamp": micro(self.received),
            "stageTimestamp": micro(now),
        });
        if let Some(user) = &self.impersonated {
            event["impersonatedUser"] = shown(user);
        }
        if !self.agent.is_empty() {
            event["userAgent"] = self.agent.clone().into();
        }
        if self.target.is_resource {
            event["objectRef"] = self.object_ref(outcome);
        }
        if outcome.code != 0 {
            event["responseStatus"] = json!({"metadata": {}, "code": outcome.code});
            if let Some((message, reason)) = &outcome.status {
                event["responseStatus"]["status"] = "Failure".into();
                event["responseStatus"]["message"] = message.clone().into();
                event["responseStatus"]["reason"] = reason.clone().into();
            }
        }
        if let Some(object) = &self.request {
            event["requestObject"] = object.clone();
        }
        if let Some(object) = &outcome.response {
            event["responseObject"] = object.clone();
        }
        if !outcome.annotations.is_empty() {
            event["annotations"] = json!(outcome.annotations);
        }
        event
    }

    fn object_ref(&self, outcome: &Outcome) -> Value {
        let Target { group, version, resource, subresource, namespace, name, .. } = &*self.target;
        let (made, uid) = outcome.made.clone().unwrap_or_default();
        let name = if name.is_empty() { &made } else { name };
        let mut object = json!({"resource": resource, "apiVersion": version});
        let more = [
            ("namespace", namespace),
            ("name", name),
            ("uid", &uid),
            ("apiGroup", group),
            ("subresource", subresource),
        ];
        for (field, value) in more.into_iter().filter(|(_, value)| !value.is_empty()) {
            object[field] = value.clone().into();
        }
        object
    }

    /// The same for the platform's own log.
    pub fn record(&self, outcome: &Outcome, now: Timestamp) -> Record {
        let Target { group, version, resource, subresource, namespace, name, .. } = Target::clone(&self.target);
        let made = outcome.made.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
        let known = |user: &User| onex_audit::User {
            name: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.to_vec(),
        };
        let decision = match outcome.annotations.get(DECISION).map(String::as_str) {
            Some("allow") => Decision::Allow,
            Some(_) => Decision::Deny,
            None => Decision::Refuse,
        };
        let mut details = json!({});
        for (field, object) in [("requestObject", &self.request), ("responseObject", &outcome.response)] {
            if let Some(object) = object {
                details[field] = object.clone();
            }
        }
        if let Some((message, _)) = &outcome.status {
            details["message"] = message.clone().into();
        }
        Record {
            id: Record::new_id(),
            time: now,
            component: "apiserver".to_owned(),
            user: known(&self.user),
            impersonated: self.impersonated.as_deref().map(known),
            verb: self.target.verb.to_owned(),
            object: Object {
                group,
                version,
                resource,
                subresource,
                namespace,
                name: if name.is_empty() { made } else { name },
                path: self.uri.clone(),
            },
            decision,
            reason: outcome.annotations.get(REASON).cloned().unwrap_or_default(),
            code: outcome.code,
            source: self.source.clone(),
            agent: self.agent.clone(),
            request_id: self.id.clone(),
            details: if details.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { details },
        }
    }
}

fn shown(user: &User) -> Value {
    let mut shown = json!({"username": user.name, "groups": *user.groups});
    if !user.uid.is_empty() {
        shown["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        shown["extra"] = json!(*user.extra);
    }
    shown
}

fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
