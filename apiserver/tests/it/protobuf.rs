//! Answers in protobuf, as client-go asks for them. What they say is what JSON says.

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, header};
use onex_apiserver::{Settings, protobuf::decode};
use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::{Value, json};

use crate::world::{Answer, MAPS, SETS, Watch, World, labelled, map, set};

/// What typed clients of Go send.
const TYPED: &str = "application/vnd.kubernetes.protobuf,application/json";
const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// What the metadata client of Go sends.
fn metadata(kind: &str) -> String {
    format!("{MEDIA};as={kind};g=meta.k8s.io;v=v1,application/json;as={kind};g=meta.k8s.io;v=v1,application/json")
}

/// The fields of a message that are bytes, each with its number.
fn fields(mut message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let (number, wire) = decode_key(&mut message).unwrap();
        let length = usize::try_from(decode_varint(&mut message).unwrap()).unwrap();
        if wire == WireType::LengthDelimited {
            let (bytes, rest) = message.split_at(length);
            found.push((number, bytes.to_vec()));
            message = rest;
        }
    }
    found
}

fn field(message: &[u8], number: u32) -> Vec<u8> {
    fields(message).into_iter().find(|(n, _)| *n == number).map(|(_, bytes)| bytes).unwrap_or_default()
}

fn text(message: &[u8], number: u32) -> String {
    String::from_utf8(field(message, number)).unwrap()
}

/// A message as the object that it would be alone.
fn alone(api_version: &str, kind: &str, message: &[u8]) -> Value {
    let bytes = |number: u8, bytes: &[u8]| {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut field);
        field.extend_from_slice(bytes);
        field
    };
    let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    decode(&[b"k8s\0".to_vec(), bytes(1, &type_meta), bytes(2, message)].concat()).unwrap().object
}

/// A list, read: what it is, its metadata, and its items as objects of that kind.
fn list(body: &[u8], item: &str) -> (String, Vec<u8>, Vec<Value>) {
    let envelope = body.strip_prefix(b"k8s\0").unwrap();
    let type_meta = field(envelope, 1);
    let (api_version, kind) = (text(&type_meta, 1), text(&type_meta, 2));
    let raw = field(envelope, 2);
    let items = fields(&raw).into_iter().filter(|(number, _)| *number == 2);
    let items = items.map(|(_, message)| alone(&api_version, item, &message)).collect();
    (format!("{api_version} {kind}"), field(&raw, 1), items)
}

async fn typed(world: &World, path: &str) -> Answer {
    let answer = world.send(Method::GET, path, &[("accept", TYPED)], Body::empty()).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], MEDIA, "{}", answer.text);
    answer
}

/// The next event of a watch in protobuf: its type, and its object.
async fn event(watch: &mut Watch, buffer: &mut Vec<u8>) -> Option<(String, Value)> {
    loop {
        if let Some((length, rest)) = buffer.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if rest.len() >= length {
                let frame: Vec<u8> = buffer.drain(..4 + length).skip(4).collect();
                return Some((text(&frame, 1), decode(&field(&field(&frame, 2), 1)).unwrap().object));
            }
        }
        buffer.extend(watch.piece().await?);
    }
}

#[tokio::test]
async fn an_object_in_protobuf_is_the_object_in_json() {
    let world = World::new().await;
    let objects = [
        (
            MAPS,
            json!({"metadata": {"name": "a", "labels": {"b": "u", "a": ""}}, "data": {"a": "ü", "e": ""}, "binaryData": {"b": "AP8="}}),
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "a"}, "data": {"k": "AP8="}, "immutable": false}),
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({
                "metadata": {"name": "a"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http"}]},
            }),
        ),
        (
            "/api/v1/namespaces/default/pods",
            json!({
                "metadata": {"name": "a", "annotations": {"x": "y"}},
                "spec": {
                    "containers": [{"name": "c", "image": "i", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": false}}}],
                        "resources": {"limits": {"cpu": "500m"}}, "readinessProbe": {"httpGet": {"port": 8080}}}],
                    "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "m", "items": [{"key": "a", "path": "b"}]}}],
                    "terminationGracePeriodSeconds": 0,
                },
            }),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({
                "metadata": {"name": "a"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-02T03:04:05.000006Z"},
            }),
        ),
        (
            "/apis/events.k8s.io/v1/namespaces/default/events",
            json!({
                "metadata": {"name": "a"}, "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "c", "reportingInstance": "i",
                "action": "a", "reason": "r", "type": "Normal", "note": "n", "regarding": {"kind": "Pod", "name": "a", "namespace": "default"},
            }),
        ),
        (SETS, set("a")),
    ];
    for (path, object) in objects {
        // What POST answers is what GET answers, and that is what JSON says.
        let headers = [("accept", TYPED), ("content-type", "application/json")];
        let made = world.send(Method::POST, path, &headers, object.to_string()).await;
        assert_eq!(
            (made.code, &made.headers[header::CONTENT_TYPE]),
            (201, &header::HeaderValue::from_static(MEDIA)),
            "{}",
            made.text
        );
        let plain = world.get(&format!("{path}/a")).await.is(200);
        let binary = typed(&world, &format!("{path}/a")).await;
        assert_eq!(binary.bytes, made.bytes, "{path}");
        assert_eq!(decode(&binary.bytes).unwrap().object, without_zeros(plain.clone()), "{path}");
        let (_, _, items) = list(&typed(&world, path).await.bytes, plain["kind"].as_str().unwrap());
        assert!(items.contains(&without_zeros(plain)), "{path}: {items:?}");
    }
}

/// Go knows no difference between nothing and an empty list, or a null.
fn without_zeros(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, field| {
                *field = without_zeros(field.take());
                let empty = [json!(null), json!([])].contains(field) || name == "fieldsV1" && *field == json!({});
                let zero = ["minReadySeconds", "unavailableReplicas"].contains(&name.as_str()) && *field == 0;
                !(empty || zero)
            });
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_zeros(item.take())),
        _ => {}
    }
    value
}

#[tokio::test]
async fn a_list_in_protobuf_has_every_item_and_says_how_long_it_is() {
    let world = World::new().await;
    for index in 0..300 {
        let mut object = labelled(&format!("m{index:03}"), json!({"odd": (index % 2).to_string()}));
        object["data"]["a"] = "x".repeat(1000).into(); // longer than one piece of the stream
        world.post(MAPS, object).await.is(201);
    }
    for _ in 0..2 {
        // The second time the lengths are known already.
        let answer = typed(&world, MAPS).await;
        let (kind, metadata, items) = list(&answer.bytes, "ConfigMap");
        let plain = world.get(MAPS).await.is(200);
        assert_eq!(kind, "v1 ConfigMapList");
        assert_eq!(text(&metadata, 2), plain["metadata"]["resourceVersion"]);
        assert_eq!(items.len(), plain["items"].as_array().unwrap().len());
        for (item, plain) in items.iter().zip(plain["items"].as_array().unwrap()) {
            assert_eq!(item, plain);
        }
    }
    let (_, metadata, items) =
        list(&typed(&world, &format!("{MAPS}?limit=7&labelSelector=odd%3D1")).await.bytes, "ConfigMap");
    assert_eq!(items.iter().map(|item| &item["metadata"]["name"]).collect::<Vec<_>>()[5..], ["m011", "m013"]);
    let more = format!("{MAPS}?limit=7&labelSelector=odd%3D1&continue={}", text(&metadata, 3));
    assert_eq!(list(&typed(&world, &more).await.bytes, "ConfigMap").2[0]["metadata"]["name"], "m015");

    let headers = [("accept", TYPED), ("accept-encoding", "gzip")];
    let packed = world.send(Method::GET, MAPS, &headers, Body::empty()).await;
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed.bytes), &mut unpacked).unwrap();
    assert_eq!(unpacked, typed(&world, MAPS).await.bytes);
}

#[tokio::test]
async fn a_watch_in_protobuf_tells_what_a_watch_in_json_tells() {
    let world = World::new().await;
    world.post(MAPS, labelled("a", json!({"x": "1"}))).await.is(201);
    for path in
        [format!("{MAPS}?watch=true&fieldSelector=metadata.name=a"), format!("{MAPS}?watch=true&labelSelector=x%3D1")]
    {
        let mut plain = world.watch(&path).await;
        let (mut binary, mut again) = (world.watch_as(&path, TYPED).await, world.watch_as(&path, TYPED).await);
        world.merge(&format!("{MAPS}/a"), json!({"data": {"b": path}})).await.is(200);
        let (mut buffer, mut buffer_again) = (Vec::new(), Vec::new());
        for expected in ["ADDED", "MODIFIED"] {
            let told = plain.next().await.unwrap();
            let (change, object) = event(&mut binary, &mut buffer).await.unwrap();
            assert_eq!((change.as_str(), &told["type"]), (expected, &json!(expected)));
            assert_eq!(object, told["object"]);
            assert_eq!(event(&mut again, &mut buffer_again).await.unwrap(), (change, object));
        }
    }
    let all = "/api/v1/configmaps?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let (mut binary, mut buffer) = (world.watch_as(all, TYPED).await, Vec::new());
    let (change, _) = event(&mut binary, &mut buffer).await.unwrap();
    assert_eq!(change, "ADDED");
    let bookmark = loop {
        let (change, object) = event(&mut binary, &mut buffer).await.unwrap();
        if change == "BOOKMARK" {
            break object;
        }
    };
    assert_eq!(bookmark["kind"], "ConfigMap");
    let annotations = &bookmark["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
    let list = STANDARD.decode(annotations["kubernetes.io/initial-events-list-blueprint"].as_str().unwrap()).unwrap();
    assert!(list.starts_with(b"k8s\0") && list.windows(13).any(|word| word == b"ConfigMapList"), "{list:?}");
    world.delete(&format!("{MAPS}/a"), Value::Null).await.is(200);
    let (change, object) = event(&mut binary, &mut buffer).await.unwrap();
    assert_eq!((change.as_str(), &object["metadata"]["name"]), ("DELETED", &json!("a")));
    assert!(object["metadata"]["resourceVersion"].as_str() > bookmark["metadata"]["resourceVersion"].as_str());
}

#[tokio::test]
async fn a_watch_in_protobuf_says_what_it_is_and_that_it_begins_too_late() {
    let world = World::with(Settings { history_bytes: 1, ..Settings::default() }).await;
    for name in ["a", "b"] {
        world.post(MAPS, map(name)).await.is(201);
    }
    let answer = world
        .send(Method::GET, &format!("{MAPS}?watch=true&timeoutSeconds=1"), &[("accept", TYPED)], Body::empty())
        .await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/vnd.kubernetes.protobuf;stream=watch");
    let mut late = world.watch_as(&format!("{MAPS}?watch=true&resourceVersion=1"), TYPED).await;
    let (change, status) = event(&mut late, &mut Vec::new()).await.unwrap();
    assert_eq!((change.as_str(), &status["reason"], &status["code"]), ("ERROR", &json!("Expired"), &json!(410)));
    let refused =
        world.send(Method::GET, &format!("{MAPS}?watch=true"), &[("accept", "application/yaml")], Body::empty()).await;
    assert_eq!(refused.code, 406);
}

#[tokio::test]
async fn the_metadata_client_gets_metadata_in_protobuf() {
    let world = World::new().await;
    world.post(MAPS, labelled("a", json!({"x": "1"}))).await.is(201);
    let ask = |path: String, kind: &'static str| {
        let world = &world;
        async move { world.send(Method::GET, &path, &[("accept", &metadata(kind))], Body::empty()).await }
    };
    let one = ask(format!("{MAPS}/a"), "PartialObjectMetadata").await;
    assert_eq!(one.headers[header::CONTENT_TYPE], MEDIA);
    let plain = world.get(&format!("{MAPS}/a")).await.is(200);
    let partial =
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": plain["metadata"]});
    assert_eq!(decode(&one.bytes).unwrap().object, partial);
    let (kind, _, items) =
        list(&ask(MAPS.to_owned(), "PartialObjectMetadataList").await.bytes, "PartialObjectMetadata");
    assert_eq!((kind.as_str(), &items), ("meta.k8s.io/v1 PartialObjectMetadataList", &vec![partial.clone()]));
    let path = format!("{MAPS}?watch=true&fieldSelector=metadata.name=a");
    let mut watch = world.watch_as(&path, &metadata("PartialObjectMetadata")).await;
    assert_eq!(event(&mut watch, &mut Vec::new()).await.unwrap(), ("ADDED".to_owned(), partial));
}

#[tokio::test]
async fn refusals_are_told_in_protobuf_to_those_who_read_it() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let cases = [
        (Method::GET, format!("{MAPS}/none"), Value::Null, 404),
        (Method::GET, "/api/v1/nowhere".to_owned(), Value::Null, 404),
        (Method::POST, MAPS.to_owned(), map("a"), 409),
        (Method::POST, MAPS.to_owned(), map("Not a name"), 422),
        (Method::POST, MAPS.to_owned(), json!({"data": 7}), 400),
        (Method::POST, "/api/v1/nodes/x/status".to_owned(), json!({}), 405),
        (Method::GET, format!("{MAPS}?resourceVersion=999999&timeout=10ms"), Value::Null, 504),
    ];
    for (method, path, body, code) in cases {
        let body = body.to_string();
        let send = async |accept: &'static str| {
            let headers = [("accept", accept), ("content-type", "application/json")];
            world.send(method.clone(), &path, &headers, body.clone()).await
        };
        let (binary, plain, yaml) = (send(TYPED).await, send("application/json").await, send("application/yaml").await);
        assert_eq!(
            (binary.code, &binary.headers[header::CONTENT_TYPE]),
            (code, &header::HeaderValue::from_static(MEDIA)),
            "{path}"
        );
        let mut plain = plain.is(code);
        assert!(
            yaml.headers[header::CONTENT_TYPE] == "application/yaml" && yaml.text.contains("kind: Status"),
            "{}",
            yaml.text
        );
        // Empty is as good as nothing.
        let empty = |value: &Value| *value == json!({}) || *value == json!("");
        plain
            .get_mut("details")
            .and_then(Value::as_object_mut)
            .into_iter()
            .for_each(|details| details.retain(|_, value| !empty(value)));
        assert_eq!(decode(&binary.bytes).unwrap().object, plain, "{path}");
    }
    let deleted = world.send(Method::DELETE, &format!("{MAPS}/a"), &[("accept", TYPED)], Body::empty()).await;
    let status = decode(&deleted.bytes).unwrap().object;
    assert_eq!(
        (&status["kind"], &status["status"], &status["details"]["name"]),
        (&json!("Status"), &json!("Success"), &json!("a"))
    );
}

#[tokio::test]
async fn tables_are_json_and_json_is_what_others_get() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let ask = |accept: &'static str| {
        let world = &world;
        async move { world.send(Method::GET, MAPS, &[("accept", accept)], Body::empty()).await }
    };
    let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(ask(table).await.code, 406);
    assert_eq!(ask("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io").await.json()["kind"], "Table");
    for accept in [
        "application/json,application/vnd.kubernetes.protobuf",
        "*/*",
        "application/vnd.kubernetes.protobuf;q=0.3,application/json",
        "",
    ] {
        assert_eq!(ask(accept).await.json()["kind"], "ConfigMapList", "{accept}");
    }
}
