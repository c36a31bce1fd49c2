//! Methods, paths, headers and media types: what a request may look like.

use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::world::{MAPS, SETS, TABLE, World, map, set};

#[tokio::test]
async fn a_path_that_leads_nowhere_is_not_found_and_a_method_that_does_not_apply_is_not_allowed() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    world.post(SETS, set("a")).await.is(201);
    let cases = [
        (Method::GET, format!("{SETS}/a/status/more"), 404),
        (Method::GET, format!("{MAPS}/a/status"), 404),
        (Method::GET, "/api/v1/namespaces/default/namespaces".to_owned(), 404),
        (Method::DELETE, "/api/v1/namespaces/default/namespaces/kube-system".to_owned(), 404),
        (Method::GET, "/api/v2/configmaps".to_owned(), 404),
        (Method::GET, "/nowhere".to_owned(), 404),
        (Method::POST, "/version".to_owned(), 405),
        (Method::POST, "/api/v1/configmaps".to_owned(), 405),
        (Method::DELETE, "/api/v1/configmaps".to_owned(), 405),
        (Method::DELETE, "/api/v1/namespaces".to_owned(), 405),
        (Method::DELETE, format!("{SETS}/a/status"), 405),
        (Method::POST, "/api/v1/watch/namespaces/default/configmaps".to_owned(), 405),
        (Method::OPTIONS, MAPS.to_owned(), 405),
        (Method::PATCH, MAPS.to_owned(), 405),
    ];
    for (method, path, code) in cases {
        let answer = world.send(method.clone(), &path, &[], "{}").await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.text);
        let reason = if code == 404 { "NotFound" } else { "MethodNotAllowed" };
        assert_eq!(
            (&answer.json()["reason"], &answer.json()["details"]),
            (&json!(reason), &json!({})),
            "{method} {path}"
        );
    }
    let verbs = world.get("/api/v1").await.is(200);
    let namespaces = verbs["resources"].as_array().unwrap().iter().find(|r| r["name"] == "namespaces").unwrap();
    assert!(!namespaces["verbs"].as_array().unwrap().contains(&json!("deletecollection")));
}

#[tokio::test]
async fn slashes_at_the_end_and_empty_queries_do_no_harm() {
    let world = World::new().await;
    for path in [
        "/api/v1/configmaps?watch=false",
        "/api/v1/configmaps?watch=0",
        "/api/",
        "/apis/",
        "/version/",
        "/api/v1/",
        "/api/v1/namespaces/",
        "/api/v1/namespaces?",
        "/apis?&a=b",
    ] {
        assert_eq!(world.get(path).await.code, 200, "{path}");
    }
}

#[tokio::test]
async fn a_client_is_told_the_address_at_which_it_found_us() {
    let world = World::new().await;
    let legacy = |host| [("accept", "application/json"), ("host", host)];
    let address = |answer: Value| answer["serverAddressByClientCIDRs"][0]["serverAddress"].clone();
    let named = world.send(Method::GET, "/api", &legacy("10.0.0.1:52443"), "").await.is(200);
    assert_eq!(address(named), "10.0.0.1:52443");
    let http2 =
        world.send(Method::GET, "https://[::1]:52443/api/", &[("accept", "application/json")], "").await.is(200);
    assert_eq!(address(http2), "[::1]:52443");
}

#[tokio::test]
async fn the_old_paths_of_watches_still_watch() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    world.post(MAPS, map("b")).await.is(201);
    let mut all = world.watch("/api/v1/watch/namespaces/default/configmaps").await;
    assert_eq!((all.told().await, all.told().await), ("ADDED a".to_owned(), "ADDED b".to_owned()));
    let mut one = world.watch("/api/v1/watch/namespaces/default/configmaps/b").await;
    assert_eq!(one.told().await, "ADDED b");
    one.is_silent().await;
    let mut named = world.watch(&format!("{MAPS}/b?watch=1")).await;
    assert_eq!(named.told().await, "ADDED b");
    named.is_silent().await;
}

#[tokio::test]
async fn every_answer_has_an_audit_id_and_says_that_it_is_not_to_be_kept() {
    let world = World::new().await;
    let answer = world.get(MAPS).await;
    assert_eq!(answer.headers["cache-control"], "no-cache, private");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["audit-id"].len(), 36);
    let echoed = world.send(Method::GET, &format!("{MAPS}/none"), &[("audit-id", "mine-1")], "").await;
    assert_eq!(echoed.headers["audit-id"], "mine-1");
    echoed.is(404);
}

#[tokio::test]
async fn what_is_not_served_is_refused_with_the_list_of_what_is() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let accept = async |path: &str, accept: &str| world.send(Method::GET, path, &[("accept", accept)], "").await;
    let served = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    assert_eq!(accept(MAPS, "text/html").await.says(406), served);
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    accept(MAPS, metadata).await.is(406);
    accept(&format!("{MAPS}/a"), "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").await.is(406);
    assert_eq!(accept(&format!("{MAPS}/a"), metadata).await.is(200)["kind"], "PartialObjectMetadata");
    assert_eq!(accept(MAPS, "application/json; charset=utf-8; profile=x").await.is(200)["kind"], "ConfigMapList");
    accept("/openapi/v3/api/v1", "text/html").await.is(406);
    accept("/openapi/v3", "application/vnd.kubernetes.protobuf").await.is(200); // which leaves no choice
    let patch = world.send(Method::PATCH, &format!("{MAPS}/a"), &[("content-type", "text/plain")], "{}").await;
    assert_eq!(
        patch.says(415),
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
         application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
    );
    let charset = [("content-type", "application/json; charset=utf-8")];
    world.send(Method::POST, MAPS, &charset, map("b").to_string()).await.is(201);
    let yaml = accept(&format!("{MAPS}/a"), "application/yaml").await;
    assert!(
        yaml.text.starts_with("apiVersion: v1\n") && yaml.headers["content-type"] == "application/yaml",
        "{}",
        yaml.text
    );
    let pretty = world.get(&format!("{MAPS}/a?pretty=true")).await;
    assert!(pretty.text.starts_with("{\n  \"apiVersion\""), "{}", pretty.text);
}

#[tokio::test]
async fn metadata_alone_can_be_watched() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let mut watch = world
        .watch_as(&format!("{MAPS}?watch=1"), "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .await;
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["object"]["kind"], &event["object"]["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("a"))
    );
    assert!(event["object"].get("data").is_none());
}

#[tokio::test]
async fn every_kind_has_a_table_and_metadata_alone_even_when_it_is_empty() {
    let world = World::new().await;
    let mut seen = 0;
    for version in ["/api/v1", "/apis/apps.onex.io/v1beta1", "/apis/coordination.k8s.io/v1", "/apis/events.k8s.io/v1"] {
        let resources = world.get(version).await.is(200)["resources"].clone();
        let is_listed = |resource: &&Value| resource["verbs"].as_array().unwrap().contains(&json!("list"));
        for resource in resources.as_array().unwrap().iter().filter(is_listed) {
            let path = format!("{version}/{}", resource["name"].as_str().unwrap());
            let table = world.table(&path).await.is(200);
            assert_eq!(table["kind"], "Table", "{path}");
            let columns = table["columnDefinitions"].as_array().unwrap().len();
            assert!(columns > 1, "{path}");
            for row in table["rows"].as_array().unwrap() {
                assert_eq!(row["cells"].as_array().unwrap().len(), columns, "{path}");
            }
            seen += 1;
        }
    }
    assert!(seen > 10);
    world.send(Method::GET, &format!("{MAPS}?includeObject=Everything"), &[("accept", TABLE)], "").await.is(400);
}

#[tokio::test]
async fn nobody_is_somebody_else_without_being_allowed() {
    use tower::ServiceExt;
    let world = World::new().await;
    let ask = async |router: axum::Router, path: &str, headers: &[(&str, &str)]| {
        let mut request = http::Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
        (
            code,
            serde_json::from_slice::<Value>(&body).unwrap_or_default()["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let admin = || world.server.router_as("admin", &["system:masters"]);
    let bob = || world.server.router_as("bob", &[]);
    let secrets = "/api/v1/secrets";
    assert_eq!(
        ask(bob(), secrets, &[("impersonate-user", "admin"), ("impersonate-group", "system:masters")]).await,
        (403, r#"users "admin" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope"#.to_owned())
    );
    assert_eq!(ask(world.server.router(), "/version", &[("impersonate-user", "admin")]).await.0, 403);
    assert_eq!(
        ask(admin(), secrets, &[("impersonate-user", "jane")]).await,
        (
            403,
            r#"secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" at the cluster scope"#
                .to_owned()
        )
    );
    assert_eq!(
        ask(admin(), secrets, &[("impersonate-user", "jane"), ("impersonate-group", "system:masters")]).await.0,
        200
    );
    assert_eq!(ask(admin(), "/apis", &[("impersonate-user", "system:anonymous")]).await.0, 403);
    assert_eq!(ask(admin(), "/apis", &[("impersonate-user", "system:serviceaccount:a:b")]).await.0, 200);
    assert_eq!(ask(admin(), secrets, &[("impersonate-group", "dev")]).await.0, 400);
    assert_eq!(ask(admin(), secrets, &[("impersonate-extra-scopes", "dev")]).await.0, 400);
}

#[tokio::test]
async fn probes_that_were_written_for_kubernetes_find_their_checks() {
    let world = World::new().await;
    assert_eq!(world.get("/livez/etcd").await.text, "ok");
    assert!(world.get("/livez?exclude=etcd&verbose").await.text.contains("[+]storage excluded: ok"));
    assert!(
        world
            .get("/livez?exclude=x&verbose")
            .await
            .text
            .contains("warn: some health checks cannot be excluded: no matches for \"x\"")
    );
}

#[tokio::test]
async fn watches_can_be_asked_for_no_beginning_and_for_no_end() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let mut watch =
        world.watch(&format!("{MAPS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")).await;
    watch.is_silent().await;
    world.post(MAPS, map("b")).await.is(201);
    assert_eq!(watch.told().await, "ADDED b");
    let mut endless =
        world.watch(&format!("{MAPS}?watch=1&timeoutSeconds=9223372036854775807&resourceVersion=0")).await;
    assert_eq!(endless.told().await, "ADDED a");
    let mut ignorant = world.watch(&format!("{MAPS}?watch=1&limit=1&timeout=5s")).await;
    assert_eq!((ignorant.told().await, ignorant.told().await), ("ADDED a".to_owned(), "ADDED b".to_owned()));
    let cases = [
        "sendInitialEvents=true",
        "resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true&resourceVersionMatch=Exact",
    ];
    for query in cases {
        let answer = world.get(&format!("{MAPS}?watch=1&{query}")).await;
        let said = answer.says(422);
        let causes = said.strip_prefix("ListOptions.meta.k8s.io \"\" is invalid: ").unwrap_or_default();
        assert!(causes.trim_start_matches('[').starts_with("resourceVersionMatch: "), "{said}");
    }
    world.get(&format!("{MAPS}?watch=1&resourceVersion=abc")).await.is(400);
}

#[tokio::test]
async fn a_forged_token_cannot_show_the_future() {
    use base64::Engine as _;
    let world = World::new().await;
    for token in [r#"{"v":"meta.k8s.io/v1","rv":99999999,"start":"default/a\u0000"}"#, r#"{"v":"x"}"#, "[]", "{"] {
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token);
        let answer = world.get(&format!("{MAPS}?limit=1&continue={text}")).await;
        assert!(matches!(answer.code, 400 | 504), "{token}: {}", answer.text);
    }
    world.get(&format!("{MAPS}?continue=%25%25")).await.is(400);
    let lists = [
        "resourceVersionMatch=Exact",
        "resourceVersionMatch=Exact&resourceVersion=0",
        "resourceVersionMatch=Some&resourceVersion=1",
        "sendInitialEvents=true",
    ];
    for query in lists {
        world.get(&format!("{MAPS}?{query}")).await.is(422);
    }
}

#[tokio::test]
async fn a_body_that_is_refused_early_is_still_read_so_that_the_connection_can_go_on() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    let world = World::new().await;
    let read = Arc::new(AtomicUsize::new(0));
    let body = |pieces: usize| {
        let read = read.clone();
        let pieces = futures::stream::iter(0..pieces).map(move |_| {
            read.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::convert::Infallible>(bytes::Bytes::from(vec![b'x'; 1024]))
        });
        axum::body::Body::from_stream(pieces)
    };
    world.send(Method::POST, "/apis/nowhere/v1/things", &[], body(20)).await.is(404);
    assert_eq!(read.swap(0, Ordering::SeqCst), 20);
    world.send(Method::POST, "/version", &[], body(20)).await.is(405);
    assert_eq!(read.swap(0, Ordering::SeqCst), 20);
    world.send(Method::POST, "/version", &[], body(100_000)).await.is(405);
    assert!(read.load(Ordering::SeqCst) < 1000, "no more than a bounded part is read");
}
