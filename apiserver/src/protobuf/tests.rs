//! Bodies of real clients, messages made by hand, and anything at all.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Value, json};

use super::{decode, encode_openapi_v2, table::table};

/// A message made field by field.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(self, number: u32, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }

    fn bytes(mut self, number: u32, bytes: &[u8]) -> Self {
        encode_key(number, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(mut self, number: u32, value: i64) -> Self {
        encode_key(number, WireType::Varint, &mut self.0);
        encode_varint(value.cast_unsigned(), &mut self.0);
        self
    }

    fn double(mut self, number: u32, value: f64) -> Self {
        encode_key(number, WireType::SixtyFourBit, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn message(self, number: u32, message: Message) -> Self {
        self.bytes(number, &message.0)
    }

    fn entry(self, number: u32, key: &str, value: Message) -> Self {
        self.message(number, message().text(1, key).message(2, value))
    }
}

fn message() -> Message {
    Message::default()
}

fn body(api_version: &str, kind: &str, object: Message) -> Vec<u8> {
    let envelope = message().message(1, message().text(1, api_version).text(2, kind)).message(2, object);
    [b"k8s\0".to_vec(), envelope.text(3, "").text(4, "").0].concat()
}

fn read(api_version: &str, kind: &str, object: Message) -> Value {
    let decoded = decode(&body(api_version, kind, object)).unwrap();
    assert_eq!((decoded.api_version.as_str(), decoded.kind.as_str()), (api_version, kind));
    decoded.object
}

/// What kubectl sent, with the object as kubectl prints it.
fn samples() -> Vec<(&'static str, Vec<u8>, Value)> {
    let lines: Vec<&str> =
        include_str!("../../wire/kubectl-1.33.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    lines.chunks(3).map(|l| (l[0], BASE64.decode(l[1]).unwrap(), serde_json::from_str(l[2]).unwrap())).collect()
}

#[test]
fn what_kubectl_sends_is_what_kubectl_prints() {
    assert_eq!(samples().len(), 18);
    for (command, body, expected) in samples() {
        assert_eq!(decode(&body).unwrap().object, expected, "{command}");
    }
}

#[test]
fn a_pod_keeps_every_kind_of_field() {
    let probe = message()
        .message(
            1,
            message().message(
                2,
                message().text(1, "/healthz").message(2, message().number(1, 1).number(2, 0).text(3, "http")),
            ),
        )
        .number(2, 0)
        .number(3, 5)
        .number(7, 0);
    let key = message().message(1, message().text(1, "secret")).text(2, "password").number(3, 0);
    let container = message()
        .text(1, "c")
        .text(2, "")
        .text(4, "-v")
        .text(4, "")
        .message(6, message().text(1, "").number(2, 0).number(3, 80).text(4, "").text(5, ""))
        .message(7, message().text(1, "P").text(2, "").message(3, message().message(4, key)))
        .message(8, message().entry(1, "cpu", message().text(1, "500m")).entry(2, "memory", message().text(1, "1Gi")))
        .message(10, probe)
        .number(16, 0);
    let volume = message().text(1, "v").message(2, message().message(6, message().text(1, "secret").number(3, 0o400)));
    let metadata = message()
        .text(1, "pod")
        .text(2, "")
        .number(7, 0)
        .message(8, message())
        .message(9, message().number(1, 1_700_000_000).number(2, 5))
        .number(10, 0)
        .bytes(11, &message().text(1, "a").text(2, "b").0)
        .bytes(11, &message().text(1, "empty").0)
        .message(17, message().text(1, "m").message(7, message().text(1, "{\"f:spec\":{}}")));
    let spec = message()
        .message(1, volume)
        .message(2, container)
        .number(4, 0)
        .number(5, -1)
        .number(21, 0)
        .bytes(7, &message().text(1, "disk").text(2, "ssd").0)
        .number(99_999, 7);
    assert_eq!(
        read("v1", "Pod", message().message(1, metadata).message(2, spec).message(3, message())),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "pod", "deletionTimestamp": "2023-11-14T22:13:20Z", "deletionGracePeriodSeconds": 0,
                "labels": {"a": "b", "empty": ""}, "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {
                "volumes": [{"name": "v", "secret": {"secretName": "secret", "defaultMode": 256}}],
                "containers": [{
                    "name": "c", "args": ["-v", ""], "ports": [{"containerPort": 80}],
                    "env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "password", "optional": false}}}],
                    "resources": {"limits": {"cpu": "500m"}, "requests": {"memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "timeoutSeconds": 5, "terminationGracePeriodSeconds": 0},
                }],
                "terminationGracePeriodSeconds": 0, "activeDeadlineSeconds": -1, "automountServiceAccountToken": false,
                "nodeSelector": {"disk": "ssd"},
            },
            "status": {},
        })
    );
}

#[test]
fn times_bytes_and_options_are_read() {
    let lease = message().message(
        2,
        message()
            .text(1, "me")
            .number(2, 0)
            .message(3, message().number(1, 1_700_000_000).number(2, 1_500_000))
            .number(5, 0),
    );
    assert_eq!(
        read("coordination.k8s.io/v1", "Lease", lease)["spec"],
        json!({"holderIdentity": "me", "leaseDurationSeconds": 0, "acquireTime": "2023-11-14T22:13:20.001500Z", "leaseTransitions": 0})
    );

    let secret =
        message().bytes(2, &message().text(1, "k").bytes(2, &[0, 255]).0).bytes(2, &message().text(1, "none").0);
    assert_eq!(read("v1", "Secret", secret)["data"], json!({"k": "AP8=", "none": ""}));

    let options = message().number(1, 0).message(2, message().text(1, "uid")).text(4, "Background").text(5, "All");
    let expected = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "uid"}, "propagationPolicy": "Background", "dryRun": ["All"]});
    for version in ["v1", "meta.k8s.io/v1", "apps/v1", "apps.onex.io/v1beta1"] {
        let mut options = read(version, "DeleteOptions", options.clone());
        let fields = options.as_object_mut().unwrap();
        assert_eq!(
            (fields.remove("apiVersion"), fields.remove("kind")),
            (Some(version.into()), Some("DeleteOptions".into()))
        );
        assert_eq!(options, expected);
    }

    let review = message().message(2, message().entry(5, "scopes", message().text(1, "a").text(1, "b")));
    assert_eq!(
        read("authorization.k8s.io/v1", "SubjectAccessReview", review)["spec"]["extra"],
        json!({"scopes": ["a", "b"]})
    );
}

#[test]
fn the_schema_of_a_definition_is_read_with_its_unions() {
    let text = || message().text(5, "string");
    let props = message()
        .text(3, "#/x")
        .message(8, message().text(1, "{\"a\":1}"))
        .double(9, 5.0)
        .double(11, 0.5)
        .message(20, message().text(1, "\"x\""))
        .message(24, message().message(1, text()))
        .entry(29, "p", text())
        .message(30, message().number(1, 0).message(2, text()))
        .message(33, message().number(1, 1))
        .entry(32, "d", message().text(2, "a").text(2, "b"))
        .number(38, 0)
        .number(40, 1);
    let version = message().text(1, "v1").message(4, message().message(1, props));
    let definition = message().message(2, message().message(7, version));
    assert_eq!(
        read("apiextensions.k8s.io/v1", "CustomResourceDefinition", definition)["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        json!({
            "$ref": "#/x", "default": {"a": 1}, "maximum": 5, "minimum": 0.5, "enum": ["x"], "items": {"type": "string"},
            "properties": {"p": {"type": "string"}}, "additionalProperties": {"type": "string"}, "additionalItems": true,
            "dependencies": {"d": ["a", "b"]},
            "x-kubernetes-preserve-unknown-fields": false, "x-kubernetes-int-or-string": true,
        })
    );
}

#[test]
fn an_object_within_an_object_may_be_protobuf_too() {
    let inner = body("v1", "ConfigMap", message().message(1, message().text(1, "x")));
    let revision = message().message(2, message().bytes(1, &inner)).number(3, 1);
    assert_eq!(
        read("apps/v1", "ControllerRevision", revision)["data"],
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    );
}

#[test]
fn what_makes_no_sense_is_refused_as_such() {
    let error = |body: &[u8]| {
        let error = decode(body).unwrap_err();
        (error.code, error.reason.into_owned(), error.message)
    };
    assert_eq!(
        error(b"{}"),
        (
            400,
            "BadRequest".to_owned(),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".to_owned()
        )
    );
    assert_eq!(error(&body("v1", "Miner", message())).0, 400);
    assert_eq!(error(&body("", "", message())).0, 400);
    assert_eq!(error(b"k8s\0").0, 400);
    assert_eq!(error(&body("example.com/v1", "Thing", message())).0, 415);
    assert_eq!(error(&body("v1", "Pod", message().number(1, 1))).0, 400);
    assert_eq!(error(&body("v1", "Pod", message().message(1, message().bytes(1, &[255])))).0, 400);
    assert_eq!(
        error(&body("v1", "Pod", message().message(1, message().message(8, message().number(1, i64::MAX))))).0,
        400
    );
    let mut cut = body("v1", "Pod", message().message(1, message().text(1, "name")));
    cut.pop();
    assert_eq!(error(&cut).0, 400);
}

#[test]
fn messages_are_not_nested_without_end() {
    let nested = |depth: usize| {
        let props = (0..depth).fold(message(), |inner, _| message().message(28, inner));
        let version = message().message(4, message().message(1, props));
        decode(&body(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            message().message(2, message().message(7, version)),
        ))
    };
    assert!(nested(80).is_ok());
    assert_eq!(nested(100).unwrap_err().code, 400);
    assert_eq!(nested(50_000).unwrap_err().code, 400);

    let endless = (0..200).fold(Vec::new(), |inner: Vec<u8>, _| {
        body("apps/v1", "ControllerRevision", message().message(2, message().bytes(1, &inner)))
    });
    assert_eq!(decode(&endless).unwrap_err().code, 400);
}

#[test]
fn the_table_has_every_kind_that_clients_write() {
    for kind in [
        "v1 Namespace",
        "v1 ConfigMap",
        "v1 Secret",
        "v1 Event",
        "v1 ServiceAccount",
        "v1 Service",
        "v1 Endpoints",
        "v1 Pod",
        "v1 Node",
        "v1 Binding",
        "v1 ResourceQuota",
        "v1 LimitRange",
        "v1 PodTemplate",
        "v1 ReplicationController",
        "v1 PersistentVolume",
        "v1 PersistentVolumeClaim",
        "v1 DeleteOptions",
        "coordination.k8s.io/v1 Lease",
        "events.k8s.io/v1 Event",
        "rbac.authorization.k8s.io/v1 Role",
        "rbac.authorization.k8s.io/v1 ClusterRoleBinding",
        "authorization.k8s.io/v1 SelfSubjectAccessReview",
        "authorization.k8s.io/v1 SelfSubjectRulesReview",
        "authorization.k8s.io/v1 LocalSubjectAccessReview",
        "authentication.k8s.io/v1 TokenRequest",
        "authentication.k8s.io/v1 TokenReview",
        "authentication.k8s.io/v1 SelfSubjectReview",
        "apps/v1 Deployment",
        "apps/v1 StatefulSet",
        "apps/v1 DaemonSet",
        "apps/v1 ReplicaSet",
        "batch/v1 Job",
        "batch/v1 CronJob",
        "autoscaling/v1 Scale",
        "autoscaling/v1 HorizontalPodAutoscaler",
        "policy/v1 Eviction",
        "policy/v1 PodDisruptionBudget",
        "apiextensions.k8s.io/v1 CustomResourceDefinition",
        "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration",
        "flowcontrol.apiserver.k8s.io/v1 FlowSchema",
    ] {
        let (version, kind) = kind.split_once(' ').unwrap();
        assert!(table().kind(version, kind).is_some(), "{version} {kind}");
    }
}

mod openapi {
    use super::*;

    /// The fields of a message as numbers and bytes, so that the test knows nothing of the encoder's names.
    fn fields(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let all = super::super::wire::fields(bytes).map(Result::unwrap);
        all.map(|(number, written)| (number, written.bytes().map(<[u8]>::to_vec).unwrap_or_default())).collect()
    }

    fn at(bytes: &[u8], path: &[u32]) -> Vec<u8> {
        path.iter().fold(bytes.to_vec(), |bytes, number| {
            fields(&bytes).into_iter().find(|(n, _)| n == number).unwrap_or_else(|| panic!("{path:?}")).1
        })
    }

    #[test]
    fn a_document_is_written_where_gnostic_looks() {
        let document = json!({
            "swagger": "2.0", "info": {"title": "t", "version": "v"},
            "paths": {"/a": {"get": {
                "operationId": "id", "x-kubernetes-action": "list",
                "parameters": [{"name": "q", "in": "query", "type": "string", "uniqueItems": true}, {"name": "b", "in": "body", "schema": {"$ref": "#/b"}}],
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/d"}}},
            }}},
            "definitions": {"d": {
                "type": "object", "required": ["p"], "x-kubernetes-group-version-kind": [{"group": "g"}],
                "properties": {"p": {"type": "array", "items": {"type": "string"}}, "m": {"additionalProperties": {"type": "integer"}}},
            }},
        });
        let bytes = encode_openapi_v2(&document);
        let text = |path: &[u32]| String::from_utf8(at(&bytes, path)).unwrap();
        assert_eq!(text(&[1]), "2.0");
        assert_eq!(text(&[2, 1]), "t");
        assert_eq!(text(&[8, 2, 1]), "/a");
        assert_eq!(text(&[8, 2, 2, 2, 5]), "id");
        assert_eq!(text(&[8, 2, 2, 2, 13, 1]), "x-kubernetes-action");
        assert_eq!(text(&[8, 2, 2, 2, 13, 2, 2]), "\"list\"");
        assert_eq!(text(&[8, 2, 2, 2, 8, 1, 2, 3, 4]), "q");
        assert_eq!(text(&[8, 2, 2, 2, 9, 1, 1]), "200");
        assert_eq!(text(&[8, 2, 2, 2, 9, 1, 2, 1, 2, 1, 1]), "#/d");
        assert_eq!(text(&[9, 1, 1]), "d");
        assert_eq!(text(&[9, 1, 2, 22, 1]), "object");
        assert_eq!(text(&[9, 1, 2, 19]), "p");
        assert_eq!(text(&[9, 1, 2, 31, 2, 2]), "[{\"group\":\"g\"}]");
        assert_eq!(text(&[9, 1, 2, 25, 1, 1]), "m");
        assert_eq!(text(&[9, 1, 2, 25, 1, 2, 21, 1, 22, 1]), "integer");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..18) {
        let _ = decode(&bytes);
        let _ = decode(&[b"k8s\0", bytes.as_slice()].concat());
        let (_, _, object) = &samples()[kind];
        let text = |name: &str| object[name].as_str().unwrap().to_owned();
        let _ = decode(&body(&text("apiVersion"), &text("kind"), Message(bytes)));
    }

    #[test]
    fn no_change_to_a_body_makes_it_panic(sample in 0usize..18, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>()) {
        let (_, mut body, _) = samples().swap_remove(sample);
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] = to }
        let _ = decode(&body);
    }
}
