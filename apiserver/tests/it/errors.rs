//! Bad input gets the error that kube-apiserver would give, and the server serves on.

use http::Method;
use serde_json::{Value, json};

use crate::world::{MAPS, SETS, World, map, set};

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_warned_of_or_ignored() {
    let world = World::new().await;
    let mut object = set("a");
    object["spec"]["foo"] = 1.into();
    object["bar"] = 2.into();
    let strict = world.post(&format!("{SETS}?fieldValidation=Strict"), object.clone()).await;
    assert_eq!(
        strict.says(400),
        r#"MinerSet in version "v1beta1" cannot be handled as a MinerSet: strict decoding error: unknown field "spec.foo", unknown field "bar""#
    );
    let ignored = world.post(&format!("{SETS}?fieldValidation=Ignore&dryRun=All"), object.clone()).await;
    ignored.is(201);
    assert!(ignored.warnings().is_empty());
    let warned = world.post(SETS, object).await;
    assert!(warned.is(201)["spec"].get("foo").is_none());
    assert_eq!(warned.warnings().len(), 2);
    let twice = r#"{"metadata":{"name":"b"},"data":{"a":"1","a":"2"}}"#;
    let answer = world.send(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &[], twice).await;
    assert!(answer.says(400).contains(r#"duplicate field "data.a""#));
    world.post(&format!("{MAPS}?fieldValidation=Perhaps"), map("c")).await.is(422);
}

#[tokio::test]
async fn wrong_types_are_named_as_go_names_them() {
    let world = World::new().await;
    let mut object = set("a");
    object["spec"]["replicas"] = "many".into();
    assert_eq!(
        world.post(SETS, object).await.says(400),
        r#"MinerSet in version "v1beta1" cannot be handled as a MinerSet: json: cannot unmarshal string into Go struct field MinerSetSpec.spec.replicas of type int32"#
    );
    for body in ["", "{", "[]", "null", "7", "\"text\"", "{\"metadata\":7}", "\u{0}"] {
        let answer = world.send(Method::POST, SETS, &[], body.to_owned()).await;
        assert!(matches!(answer.code, 400 | 422), "{body:?}: {}", answer.text);
        assert_eq!(answer.json()["kind"], "Status");
    }
}

#[tokio::test]
async fn what_is_too_large_or_too_deep_is_refused_and_the_server_serves_on() {
    let world = World::new().await;
    let mut big = map("big");
    big["data"]["a"] = "x".repeat(10 * 1024 * 1024).into();
    let answer = world.post(MAPS, big).await;
    assert_eq!(answer.says(413), "Request entity too large: limit is 3145728");
    assert_eq!(answer.json()["reason"], "RequestEntityTooLarge");
    let deep = format!("{}1{}", r#"{"a":"#.repeat(1000), "}".repeat(1000));
    world.send(Method::POST, MAPS, &[], deep).await.is(400);
    world.post(MAPS, map("fine")).await.is(201);
}

#[tokio::test]
async fn values_that_make_no_sense_are_all_named() {
    let world = World::new().await;
    let mut object = set("Bad_Name");
    object["spec"]["replicas"] = (-1).into();
    object["spec"]["deletePolicy"] = "Never".into();
    let answer = world.post(SETS, object).await;
    let message = answer.says(422);
    assert!(message.starts_with(r#"MinerSet.apps.onex.io "Bad_Name" is invalid: ["#), "{message}");
    let causes = answer.json()["details"]["causes"].as_array().unwrap().clone();
    let fields: Vec<&str> = causes.iter().map(|c| c["field"].as_str().unwrap()).collect();
    for field in ["metadata.name", "spec.replicas", "spec.deletePolicy"] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
    let chain = json!({"metadata": {"name": "c"}, "spec": {}});
    let elsewhere = world.post("/apis/apps.onex.io/v1beta1/namespaces/default/chains", chain).await;
    assert!(elsewhere.says(422).contains("metadata.namespace"), "{}", elsewhere.text);
}

#[tokio::test]
async fn paths_bodies_and_names_must_agree() {
    let world = World::new().await;
    let mut other = map("a");
    other["metadata"]["namespace"] = "elsewhere".into();
    assert_eq!(
        world.post(MAPS, other).await.says(400),
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    world.post(MAPS, map("a")).await.is(201);
    assert_eq!(
        world.put(&format!("{MAPS}/a"), map("b")).await.says(400),
        "the name of the object (b) does not match the name on the URL (a)"
    );
    let version = json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}});
    assert_eq!(
        world.post(MAPS, version).await.says(400),
        "the API version in the data (v2) does not match the expected API version (v1)"
    );
    let kind = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}});
    assert!(world.post(MAPS, kind).await.says(400).contains("cannot be handled as a ConfigMap"));
    let set_version = json!({"metadata": {"name": "x", "resourceVersion": "1"}});
    assert_eq!(
        world.post(MAPS, set_version.clone()).await.says(500),
        "resourceVersion should not be set on objects to be created"
    );
    let shown = world.post(&format!("{MAPS}?dryRun=All"), set_version).await.is(201);
    assert_eq!(shown["metadata"]["resourceVersion"], Value::Null, "what is not stored has no revision");
    let wrong = json!({"metadata": {"name": "Bad_Name", "resourceVersion": "1"}});
    assert!(world.post(MAPS, wrong).await.says(422).contains("metadata.name"));
}

#[tokio::test]
async fn what_is_not_there_and_what_cannot_be_done() {
    let world = World::new().await;
    let nothing = world.get("/apis/apps.onex.io/v1beta1/namespaces/default/bogus").await;
    assert_eq!(nothing.says(404), "the server could not find the requested resource");
    let missing = world.get(&format!("{SETS}/x")).await;
    assert_eq!(missing.says(404), r#"minersets.apps.onex.io "x" not found"#);
    world.send(Method::POST, &format!("{SETS}/x"), &[], "{}").await.is(405);
    world.send(Method::PUT, SETS, &[], "{}").await.is(405);
    world.get("/api/v1/configmaps/x").await.is(404);
    world.send(Method::POST, MAPS, &[("content-type", "text/csv")], "a,b").await.is(415);
    world.get(&format!("{MAPS}/a?timeout=soon")).await.is(400);
}

#[tokio::test]
async fn yaml_is_as_good_as_json() {
    let world = World::new().await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  a: \"1\"\n";
    let answer = world.send(Method::POST, MAPS, &[("content-type", "application/yaml")], text).await;
    assert_eq!(answer.is(201)["data"]["a"], "1");
}

#[tokio::test]
async fn a_key_that_yaml_has_twice_is_refused_warned_of_or_ignored() {
    let world = World::new().await;
    let text = "metadata:\n  name: y\ndata:\n  a: \"1\"\n  a: \"2\"\n";
    let ask = async |validation: &str| {
        let path = format!("{MAPS}?dryRun=All&fieldValidation={validation}");
        world.send(Method::POST, &path, &[("content-type", "application/yaml")], text).await
    };
    let strict = ask("Strict").await.says(400);
    assert!(
        strict.ends_with("strict decoding error: yaml: unmarshal errors:\n  line 5: key \"a\" already set in map"),
        "{strict}"
    );
    let warned = ask("Warn").await;
    assert_eq!((warned.is(201)["data"]["a"].clone(), warned.warnings().len()), (json!("2"), 1));
    let ignored = ask("Ignore").await;
    assert_eq!((ignored.is(201)["data"]["a"].clone(), ignored.warnings().len()), (json!("2"), 0));
}

#[tokio::test]
async fn strangers_see_health_and_version_and_nothing_else() {
    use tower::ServiceExt;
    let world = World::new().await;
    let ask = async |path: &str, token: Option<&str>| {
        let mut request = http::Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        world.server.router().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    for path in ["/readyz", "/livez", "/healthz", "/version", "/readyz/ping"] {
        assert_eq!(ask(path, None).await, 200, "{path}");
    }
    for path in ["/apis", "/metrics", "/api/v1/secrets", "/openapi/v3"] {
        assert_eq!(ask(path, None).await, 403, "{path}");
    }
    assert_eq!(ask("/readyz", Some("wrong")).await, 401);
}

#[tokio::test]
async fn static_tokens_say_who_one_is() {
    use tower::ServiceExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret,alice,1,\"system:masters,dev\"\nother,bob,2\n").unwrap();
    let settings = onex_apiserver::Settings { token_file: file.path().display().to_string(), ..Default::default() };
    let world = World::with(settings).await;
    let ask = async |token: &str| {
        let request = http::Request::get("/api/v1/secrets").header("authorization", format!("Bearer {token}"));
        let response = world.server.router().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        response.status().as_u16()
    };
    assert_eq!(ask("secret").await, 200);
    assert_eq!(ask("other").await, 403);
    assert_eq!(ask("nobody").await, 401);
}

/// Connections are kept for days: who was an administrator when one began may be nobody by now.
#[tokio::test]
async fn a_certificate_counts_for_as_long_as_it_is_good_and_no_longer_than_that() {
    use onex_daemon::{listener::Peer, pki::Authority};
    use tower::ServiceExt;
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    let admin = Authority::open_or_create(directory.path()).unwrap().issue_client("admin", "system:masters").unwrap();
    let peer = Peer::new("127.0.0.1:1".parse().unwrap(), &[admin.certificate().clone()]);
    let ask = async |peer: &Peer| {
        let request = http::Request::get("/api/v1/secrets").extension(peer.clone());
        let response = world.server.router().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        response.status().as_u16()
    };
    assert_eq!(ask(&peer).await, 200);
    let (from, until) = peer.subject.as_ref().unwrap().validity.clone().into_inner();
    for shift in [from - until, until - from] {
        let mut other = peer.clone();
        std::sync::Arc::make_mut(other.subject.as_mut().unwrap()).validity = from + shift..=until + shift;
        assert_eq!(ask(&other).await, 401);
    }
    let nobody = Peer { subject: None, ..peer };
    assert_eq!(ask(&nobody).await, 401);
}

#[tokio::test]
async fn health_is_told_check_by_check() {
    let world = World::new().await;
    let page = world.get("/readyz?verbose").await;
    assert!(page.text.contains("[+]ping ok") && page.text.ends_with("readyz check passed\n"), "{}", page.text);
    assert_eq!(world.get("/livez?exclude=ping&verbose").await.text.lines().next(), Some("[+]ping excluded: ok"));
    assert_eq!(world.get("/readyz/poststarthook/start-system-namespaces-controller").await.text, "ok");
    for bogus in ["/livez/bogus", "/readyz/poststarthook", "/readyz/ping/more"] {
        assert_eq!(world.get(bogus).await.code, 404, "{bogus}");
    }
    assert_eq!(world.get("/version").await.is(200)["minor"], "33");
    let metrics = world.get("/metrics").await.text;
    assert!(
        metrics.contains("apiserver_request_total{verb=\"GET\"")
            && metrics.contains("apiserver_storage_objects{resource=\"namespaces\"} 4")
    );
    let paths = world.get("/").await.is(200);
    assert!(paths["paths"].as_array().unwrap().contains(&json!("/apis/apps.onex.io/v1beta1")));
    let _: Value = paths;
}

#[tokio::test]
async fn what_strangers_make_up_is_no_label_of_the_metrics() {
    use tower::ServiceExt;
    let world = World::new().await;
    for path in ["pods/p/made%22up%0Aline", "pods/p/exec", "made%22up/x", "pods/p/log"] {
        let request = http::Request::get(format!("/api/v1/namespaces/default/{path}"));
        let response = world.server.router().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 403, "{path}");
    }
    let metrics = world.get("/metrics").await.text;
    assert!(!metrics.contains("made") && !metrics.contains("exec"), "{metrics}");
    let series = |subresource: &str| {
        format!(
            r#"apiserver_request_total{{verb="GET",dry_run="",group="",version="v1",resource="pods",subresource="{subresource}",scope="resource",component="apiserver",code="403"}}"#
        )
    };
    assert!(metrics.contains(&format!("{} 2\n", series(""))), "{metrics}");
    assert!(metrics.contains(&format!("{} 1\n", series("log"))), "{metrics}");
}

#[tokio::test]
async fn a_client_that_goes_away_is_no_longer_in_flight() {
    let world = World::new().await;
    let endless = axum::body::Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let request = world.send(Method::POST, MAPS, &[], endless);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), request).await.is_err());
    let metrics = world.get("/metrics").await.text;
    assert!(metrics.contains("\napiserver_current_inflight_requests{request_kind=\"mutating\"} 0\n"), "{metrics}");
    // The one is who asks.
    assert!(metrics.contains("\napiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn what_no_node_offers_is_said_so() {
    let world = World::new().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.post("/api/v1/namespaces/default/pods", pod).await.is(201);
    let answer = world.send(Method::POST, "/api/v1/namespaces/default/pods/p/exec?command=sh", &[], "").await;
    assert_eq!(answer.says(501), "this platform offers no exec: its Pods are processes of the node");
    for path in ["pods/p/proxy", "services/s:http/proxy/index.html"] {
        let answer = world.get(&format!("/api/v1/namespaces/default/{path}")).await;
        assert_eq!(answer.says(501), "this platform offers no proxy: its Pods are processes of the node", "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_parsed_is_told_with_the_kind_that_was_wanted() {
    let world = World::new().await;
    let answer = world.send(Method::POST, MAPS, &[("content-type", "application/json")], "{\"metadata\":").await;
    let message = answer.says(400);
    assert_eq!(
        message,
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: \
         unexpected end of JSON input ({\"metadata\":)"
    );
}
