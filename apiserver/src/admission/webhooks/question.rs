//! `AdmissionReview`: what a webhook is shown, and what it answers.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    admission::{Operation, Review, Sent},
    cel::authorizer::Resource,
    handlers::scale,
    kinds::Kind,
    registry::{Part, Registry},
};

/// What rules look at, besides the resource.
pub(super) struct Subject<'a> {
    pub(super) operation: &'a str,
    pub(super) subresource: &'a str,
    pub(super) is_namespaced: bool,
}

impl<'a> Subject<'a> {
    pub(super) fn of(review: &Review<'a>) -> Self {
        Self {
            operation: operation(review),
            subresource: review.part.subresource(),
            is_namespaced: !review.namespace.is_empty(),
        }
    }
}

fn operation(review: &Review<'_>) -> &'static str {
    match review.operation {
        // A binding is a new object of its own, though what is stored is a change of the Pod.
        _ if review.part == Part::Binding => "CREATE",
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    }
}

/// The namespace that a write is about. A Namespace is about itself.
pub(super) fn namespace<'a>(review: &'a Review<'_>) -> &'a str {
    if review.kind.group.is_empty() && review.kind.plural == "namespaces" { name(review) } else { review.namespace }
}

/// The name of the object.
pub(super) fn name<'a>(review: &'a Review<'_>) -> &'a str {
    let object = review.object.as_deref().or(review.old);
    object.and_then(|object| object["metadata"]["name"].as_str()).unwrap_or_default()
}

/// What the request is about, as authorization sees it.
pub(super) fn resource(review: &Review<'_>) -> Resource {
    Resource {
        group: review.kind.group.clone(),
        resource: review.kind.plural.clone(),
        subresource: review.part.subresource().to_owned(),
        namespace: namespace(review).to_owned(),
        name: name(review).to_owned(),
    }
}

/// What a webhook is asked about, in the kind that it knows.
pub(super) struct Asked {
    /// The kind that the object is shown as.
    pub(super) kind: Arc<Kind>,
    pub(super) object: Option<Value>,
    old: Option<Value>,
}

impl Asked {
    /// `equivalent` is the kind that the webhook knows, if it is not the one of the request.
    pub(super) fn of(review: &Review<'_>, registry: &Registry, equivalent: Option<Arc<Kind>>) -> Self {
        let asked = || registry.kinds().find(&review.kind.group, &review.kind.version, &review.kind.plural);
        let kind = equivalent.or_else(asked).expect("a kind that is written to is served");
        let object = review.object.as_deref().map(|object| shown(&kind, review.part, review.namespace, object));
        // A binding is new, whatever the Pod was before.
        let old = review.old.filter(|_| review.part != Part::Binding);
        let old = old.map(|old| shown(&kind, review.part, review.namespace, old));
        Self { kind, object, old }
    }

    /// From what a webhook made of the object to what is stored.
    pub(super) fn stored(&self, mut object: Value, kind: &Kind) -> Value {
        if let Some(conversion) = &self.kind.conversion {
            return (conversion.store)(object);
        }
        if kind.conversion.is_none() {
            object["apiVersion"] = kind.api_version().into();
        }
        object
    }

    /// The object as it was before the write.
    pub(super) fn old(&self) -> Option<&Value> {
        self.old.as_ref()
    }

    /// The review as it is sent.
    pub(super) fn question(&self, review: &Review<'_>, version: &str, uid: &str) -> Value {
        let mut request = self.about(review);
        request["uid"] = uid.into();
        request["object"] = self.object.clone().into();
        request["oldObject"] = self.old.clone().into();
        json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
    }

    /// The request, without the objects.
    pub(super) fn about(&self, review: &Review<'_>) -> Value {
        let subresource = review.part.subresource();
        let user = review.user;
        let extra: BTreeMap<_, _> = user.extra.iter().collect();
        let mut who = json!({"username": user.name, "groups": &*user.groups});
        if !user.uid.is_empty() {
            who["uid"] = user.uid.as_str().into();
        }
        if !extra.is_empty() {
            who["extra"] = json!(extra);
        }
        let mut request = json!({
            "kind": group_version_kind(&self.kind, review.part),
            "resource": group_version_resource(&self.kind),
            "requestKind": group_version_kind(review.kind, review.part),
            "requestResource": group_version_resource(review.kind),
            "name": name(review),
            "operation": operation(review),
            "userInfo": who,
            "dryRun": review.dry_run,
            "options": options(review),
        });
        let namespace = namespace(review);
        for (field, text) in
            [("subResource", subresource), ("requestSubResource", subresource), ("namespace", namespace)]
        {
            if !text.is_empty() {
                request[field] = text.into();
            }
        }
        request
    }
}

/// The object as the webhook sees it.
fn shown(kind: &Kind, part: Part, namespace: &str, object: &Value) -> Value {
    match (part, &kind.scale) {
        (Part::Scale, Some(paths)) => scale::of(paths, object),
        (Part::Binding, _) => json!({
            "kind": "Binding", "apiVersion": "v1",
            "metadata": {"name": object["metadata"]["name"], "namespace": namespace},
            "target": {"kind": "Node", "name": object["spec"]["nodeName"]},
        }),
        _ => {
            let mut served = match &kind.conversion {
                Some(conversion) => (conversion.serve)(object.clone()),
                None => object.clone(),
            };
            served["apiVersion"] = kind.api_version().into();
            served["kind"] = kind.kind.as_str().into();
            served
        }
    }
}

fn group_version_kind(kind: &Kind, part: Part) -> Value {
    let (group, version, kind) = match part {
        Part::Scale => ("autoscaling", "v1", "Scale"),
        Part::Binding => ("", "v1", "Binding"),
        _ => (kind.group.as_str(), kind.version.as_str(), kind.kind.as_str()),
    };
    json!({"group": group, "version": version, "kind": kind})
}

fn group_version_resource(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "resource": kind.plural})
}

/// The options of the request, as Kubernetes writes them.
fn options(review: &Review<'_>) -> Value {
    let mut options = json!({"apiVersion": "meta.k8s.io/v1"});
    if review.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    match review.sent {
        Sent::Write(sent) => {
            let asked = &sent.asked;
            options["kind"] = match review.operation {
                Operation::Create => "CreateOptions",
                _ if review.part == Part::Binding => "CreateOptions",
                _ if asked.patch => "PatchOptions",
                _ => "UpdateOptions",
            }
            .into();
            if asked.named {
                options["fieldManager"] = sent.manager.as_str().into();
            }
            if !asked.validation.is_empty() {
                options["fieldValidation"] = asked.validation.into();
            }
            if let Some(force) = asked.force.filter(|_| options["kind"] == "PatchOptions") {
                options["force"] = force.into();
            }
        }
        Sent::Delete(sent) => {
            options["kind"] = "DeleteOptions".into();
            if let Some(seconds) = sent.grace_seconds {
                options["gracePeriodSeconds"] = seconds.into();
            }
            if let Some(propagation) = &sent.propagation {
                options["propagationPolicy"] = propagation.as_str().into();
            }
            for (field, value) in [("uid", &sent.uid), ("resourceVersion", &sent.resource_version)] {
                if let Some(value) = value {
                    options["preconditions"][field] = value.as_str().into();
                }
            }
        }
    }
    options
}

/// What a webhook answered.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    pub(super) status: Value,
    /// A JSON patch; empty if there is none.
    pub(super) patch: Vec<u8>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
    audit_annotations: Option<BTreeMap<String, String>>,
}

impl Verdict {
    /// Reads the answer to the question `uid`, or says what is wrong with it in Kubernetes' words.
    pub(super) fn read(bytes: &[u8], version: &str, uid: &str, mutates: bool) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let Some(response) = answer.response else { return Err("webhook response was absent".to_owned()) };
        if version == "v1" {
            if response.uid != uid {
                return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
            }
            if answer.api_version != "admission.k8s.io/v1" || answer.kind != "AdmissionReview" {
                let got = format!("{}, Kind={}", answer.api_version, answer.kind);
                return Err(format!(
                    "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {got}"
                ));
            }
        }
        let patch = response.patch.filter(|patch| !patch.is_empty());
        match (mutates, &patch, &response.patch_type) {
            (false, Some(_), _) if version == "v1" => {
                return Err("validating webhook may not return response.patch".to_owned());
            }
            (false, _, Some(_)) if version == "v1" => {
                return Err("validating webhook may not return response.patchType".to_owned());
            }
            (true, Some(_), None) if version == "v1" => {
                return Err("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, None, Some(_)) if version == "v1" => {
                return Err("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, Some(_), Some(kind)) if kind != "JSONPatch" => {
                return Err(format!("unsupported patch type {kind:?}"));
            }
            _ => {}
        }
        let patch = patch.filter(|_| mutates).map(|patch| STANDARD.decode(patch)).transpose();
        Ok(Self {
            allowed: response.allowed,
            status: response.status.unwrap_or_default(),
            patch: patch.map_err(|error| format!("response.patch is no base64: {error}"))?.unwrap_or_default(),
            warnings: response.warnings.unwrap_or_default(),
            annotations: response.audit_annotations.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(response: Value, mutates: bool) -> Result<Verdict, String> {
        let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        Verdict::read(answer.to_string().as_bytes(), "v1", "u", mutates)
    }

    #[test]
    fn an_answer_must_be_one_to_the_question_and_of_its_kind() {
        let refused = |response: Value, mutates: bool| read(response, mutates).unwrap_err();
        assert_eq!(refused(json!({"uid": "x"}), true), r#"expected response.uid="u", got "x""#);
        assert_eq!(refused(Value::Null, true), "webhook response was absent");
        assert_eq!(
            refused(json!({"uid": "u", "patch": "W10="}), true),
            "webhook returned response.patch but not response.patchType"
        );
        assert_eq!(
            refused(json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"}), false),
            "validating webhook may not return response.patch"
        );
        let other = Verdict::read(br#"{"apiVersion": "v1", "kind": "Pod", "response": {"uid": "u"}}"#, "v1", "u", true);
        assert_eq!(
            other.unwrap_err(),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=Pod"
        );
        let good = read(json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}), true).unwrap();
        assert_eq!((good.allowed, good.patch), (true, b"[]".to_vec()));
        assert!(Verdict::read(br#"{"response": {"allowed": true}}"#, "v1beta1", "u", true).unwrap().allowed);
    }
}
