//! Webhooks that are asked before a write, over real HTTPS.

use std::time::{Duration, Instant};

use onex_apiserver::Settings;
use serde_json::{Value, json};

use crate::{
    webhook_server::{WebhookServer, patch, yes},
    world::{MAPS, SETS, World, labelled, map, set},
};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

async fn configure(world: &World, path: &str, name: &str, webhooks: Value) -> Value {
    let kind = if path == MUTATING { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": webhooks});
    world.post(path, object).await.is(201)
}

#[tokio::test]
async fn a_webhook_is_told_everything_about_a_write() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| yes()).await;
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    configure(&world, VALIDATING, "all", json!([hook.webhook("all.example.com", "/v", all)])).await;
    world.post(&format!("{MAPS}?fieldManager=me&fieldValidation=Strict"), map("a")).await.is(201);
    world.merge(&format!("{MAPS}/a"), json!({"data": {"a": "2"}})).await.is(200);
    world.delete(&format!("{MAPS}/a"), json!({"propagationPolicy": "Background"})).await.is(200);
    let [create, update, delete] = hook.requests().try_into().unwrap();
    assert_eq!(hook.paths()[0], "/v?timeout=10s");
    assert_eq!(create["uid"].as_str().unwrap().len(), 36);
    assert_eq!(create["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(create["requestKind"], create["kind"]);
    assert_eq!(create["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(create["requestResource"], create["resource"]);
    assert_eq!((&create["name"], &create["namespace"]), (&json!("a"), &json!("default")));
    assert_eq!((&create["operation"], &create["dryRun"]), (&json!("CREATE"), &json!(false)));
    assert_eq!(create["userInfo"], json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]}));
    assert_eq!(create["object"]["data"], json!({"a": "1"}));
    assert_eq!(create["oldObject"], Value::Null);
    assert_eq!(
        create["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "fieldValidation": "Strict"})
    );
    assert_eq!((&update["operation"], &update["options"]["kind"]), (&json!("UPDATE"), &json!("PatchOptions")));
    assert_eq!((&update["object"]["data"]["a"], &update["oldObject"]["data"]["a"]), (&json!("2"), &json!("1")));
    assert_eq!(delete["operation"], "DELETE");
    assert_eq!((&delete["object"], &delete["oldObject"]["data"]["a"]), (&Value::Null, &json!("2")));
    assert_eq!(delete["options"]["propagationPolicy"], "Background");
}

#[tokio::test]
async fn a_refusal_has_the_code_and_the_words_of_the_webhook() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, request| match request["name"].as_str().unwrap() {
        "silent" => json!({"allowed": false}),
        "teapot" => {
            json!({"allowed": false, "status": {"code": 418, "reason": "Teapot", "message": "short and stout"}})
        }
        _ => yes(),
    })
    .await;
    for (path, name) in [(VALIDATING, "v"), (MUTATING, "m")] {
        let made = configure(&world, path, name, json!([hook.webhook("deny.example.com", "/", json!({}))])).await;
        assert_eq!(made["metadata"]["generation"], 1);
        let silent = world.post(MAPS, map("silent")).await;
        assert_eq!(silent.says(400), r#"admission webhook "deny.example.com" denied the request without explanation"#);
        let teapot = world.post(MAPS, map("teapot")).await;
        assert_eq!(teapot.says(418), r#"admission webhook "deny.example.com" denied the request: short and stout"#);
        assert_eq!(teapot.json()["reason"], "Teapot");
        world.get(&format!("{MAPS}/teapot")).await.is(404);
        world.post(MAPS, map(name)).await.is(201);
        world.delete(&format!("{path}/{name}"), Value::Null).await.is(200);
        world.post(MAPS, map(&format!("silent-{name}"))).await.is(201); // whoever removed it is not asked any more
    }
}

#[tokio::test]
async fn a_mutation_is_defaulted_pruned_and_checked_and_may_not_change_who_it_is() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, request| match request["name"].as_str().unwrap() {
        "good" => patch(json!([
            {"op": "add", "path": "/metadata/labels", "value": {"by": "webhook"}},
            {"op": "add", "path": "/data/b", "value": "2"},
            {"op": "add", "path": "/nonsense", "value": 1},
        ])),
        "bad" => patch(json!([{"op": "add", "path": "/data/a~1b", "value": "2"}])),
        "nowhere" => patch(json!([{"op": "remove", "path": "/data/none"}])),
        "other" => patch(json!([{"op": "replace", "path": "/metadata/name", "value": "mine"}])),
        "types" => patch(json!([{"op": "replace", "path": "/data", "value": 7}])),
        _ => patch(json!([])),
    })
    .await;
    configure(&world, MUTATING, "m", json!([hook.webhook("m.example.com", "/", json!({}))])).await;
    let good = world.post(MAPS, map("good")).await.is(201);
    assert_eq!(good["data"], json!({"a": "1", "b": "2"}));
    assert_eq!(good["metadata"]["labels"], json!({"by": "webhook"}));
    assert!(good["nonsense"].is_null());
    assert!(world.post(MAPS, map("bad")).await.says(422).contains("a valid config key must consist of"));
    world.post(MAPS, map("nowhere")).await.is(500);
    assert!(
        world
            .post(MAPS, map("other"))
            .await
            .says(422)
            .contains("metadata.name: Invalid value: \"mine\": field is immutable")
    );
    world.post(MAPS, map("types")).await.is(500);
    world.post(MAPS, map("empty")).await.is(201);
}

#[tokio::test]
async fn our_rules_have_the_last_word_over_what_a_webhook_made() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| {
        patch(json!([{"op": "replace", "path": "/spec/selector", "value": {"matchLabels": {"mine": "yes"}}}]))
    })
    .await;
    let sets = json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["apps.onex.io"], "apiVersions": ["*"], "resources": ["minersets"]}]});
    configure(&world, MUTATING, "m", json!([hook.webhook("m.example.com", "/", sets)])).await;
    let made = world.post(SETS, set("a")).await.is(201);
    assert_eq!(made["spec"]["selector"]["matchLabels"]["apps.onex.io/minerset"], "a");
}

#[tokio::test]
async fn warnings_of_webhooks_reach_the_client_whatever_the_answer_is() {
    let world = World::new().await;
    let hook = WebhookServer::new(
        |_, request| json!({"allowed": request["name"] != "no", "warnings": ["mind the gap", "mind the gap"]}),
    )
    .await;
    configure(&world, VALIDATING, "v", json!([hook.webhook("w.example.com", "/", json!({}))])).await;
    for (name, code) in [("yes", 201), ("no", 400)] {
        let answer = world.post(MAPS, map(name)).await;
        answer.is(code);
        assert_eq!(answer.warnings(), [r#"299 - "mind the gap""#]);
    }
}

#[tokio::test]
async fn a_dry_run_asks_only_webhooks_without_side_effects() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| patch(json!([{"op": "add", "path": "/data/b", "value": "2"}]))).await;
    configure(&world, MUTATING, "m", json!([hook.webhook("m.example.com", "/", json!({}))])).await;
    let shown = world.post(&format!("{MAPS}?dryRun=All"), map("a")).await.is(201);
    assert_eq!(shown["data"]["b"], "2");
    assert_eq!(hook.requests()[0]["dryRun"], true);
    assert_eq!(hook.requests()[0]["options"]["dryRun"], json!(["All"]));
    world.get(&format!("{MAPS}/a")).await.is(404);
}

#[tokio::test]
async fn a_webhook_that_is_late_or_away_fails_as_its_policy_says() {
    let world = World::new().await;
    let hook = WebhookServer::slow(|_, _| (Duration::from_secs(30), yes())).await;
    let late =
        |policy: &str| hook.webhook("late.example.com", "/late", json!({"timeoutSeconds": 1, "failurePolicy": policy}));
    configure(&world, VALIDATING, "late", json!([late("Fail")])).await;
    let refused = world.post(MAPS, map("a")).await;
    let post = format!("Post \"https://127.0.0.1:{}/late?timeout=1s\"", hook.port);
    assert_eq!(
        refused.says(500),
        format!(
            "Internal error occurred: failed calling webhook \"late.example.com\": failed to call webhook: {post}: context deadline exceeded"
        )
    );
    assert_eq!(refused.json()["reason"], "InternalError");
    world.merge(&format!("{VALIDATING}/late"), json!({"webhooks": [late("Ignore")]})).await.is(200);
    world.post(MAPS, map("a")).await.is(201);
    let away = json!({"clientConfig": {"url": "https://127.0.0.1:1/x", "caBundle": hook.authority}});
    configure(&world, MUTATING, "away", json!([hook.webhook("away.example.com", "/", away)])).await;
    assert_eq!(
        world.post(MAPS, map("b")).await.says(500),
        "Internal error occurred: failed calling webhook \"away.example.com\": failed to call webhook: Post \
         \"https://127.0.0.1:1/x?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
    // Whoever has shut themselves out can let themselves in again.
    world.delete(&format!("{MUTATING}/away"), Value::Null).await.is(200);
    world.post(MAPS, map("b")).await.is(201);
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_not_believed() {
    let world = World::new().await;
    let (hook, other) = (WebhookServer::new(|_, _| yes()).await, WebhookServer::new(|_, _| yes()).await);
    let url = format!("https://127.0.0.1:{}/", hook.port);
    let config = json!({"clientConfig": {"url": url, "caBundle": other.authority}});
    configure(&world, VALIDATING, "v", json!([hook.webhook("w.example.com", "/", config)])).await;
    let why = world.post(MAPS, map("a")).await.says(500);
    assert!(why.contains("failed calling webhook") && why.contains("certificate"), "{why}");
    assert!(hook.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_that_stands_in_the_bundle_itself_is_believed_under_its_own_names() {
    let world = World::new().await;
    let (hook, other) = (WebhookServer::new(|_, _| yes()).await, WebhookServer::new(|_, _| yes()).await);
    let config = |host: &str, bundle: &str| {
        let url = format!("https://{host}:{}/", hook.port);
        json!([hook.webhook("w.example.com", "/", json!({"clientConfig": {"url": url, "caBundle": bundle}}))])
    };
    configure(&world, VALIDATING, "v", config("127.0.0.1", &hook.certificate)).await;
    world.post(MAPS, map("a")).await.is(201);
    assert_eq!(hook.requests().len(), 1);
    for wrong in [config("127.0.0.1", &other.certificate), config("localhost", &hook.certificate)] {
        world.merge(&format!("{VALIDATING}/v"), json!({"webhooks": wrong})).await.is(200);
        let why = world.post(MAPS, map("b")).await.says(500);
        assert!(why.contains("certificate"), "{why}");
    }
    assert_eq!(hook.requests().len(), 1);
}

#[tokio::test]
async fn all_webhooks_of_a_request_together_have_one_budget() {
    let settings = Settings { webhook_budget_seconds: 1, ..Settings::default() };
    let world = World::with(settings).await;
    let hook = WebhookServer::slow(|_, _| (Duration::from_millis(600), yes())).await;
    let names = ["a", "b", "c", "d"];
    let webhook = |name: &&str| hook.webhook(&format!("{name}.example.com"), "/", json!({"failurePolicy": "Ignore"}));
    let webhooks: Vec<Value> = names.iter().map(webhook).collect();
    configure(&world, MUTATING, "many", json!(webhooks)).await;
    let began = Instant::now();
    world.post(MAPS, map("a")).await.is(201);
    assert!(began.elapsed() < Duration::from_millis(2200), "{:?}", began.elapsed()); // one after the other: 2.4 s
    assert_eq!(hook.requests().len(), 2);
}

#[tokio::test]
async fn validating_webhooks_are_asked_all_at_once() {
    let world = World::new().await;
    let hook = WebhookServer::slow(|_, _| (Duration::from_millis(500), yes())).await;
    let webhooks: Vec<Value> =
        (0..8).map(|index| hook.webhook(&format!("w{index}.example.com"), "/", json!({}))).collect();
    configure(&world, VALIDATING, "many", json!(webhooks)).await;
    let began = Instant::now();
    world.post(MAPS, map("a")).await.is(201);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed()); // one after the other: 4 s
    assert_eq!(hook.requests().len(), 8);
}

#[tokio::test]
async fn mutating_webhooks_are_asked_in_the_order_of_names_and_validating_ones_see_the_end() {
    let world = World::new().await;
    let hook = WebhookServer::new(|path, request| match path {
        "/see" => yes(),
        path => {
            let before = request["object"]["data"]["a"].as_str().unwrap();
            patch(json!([{"op": "replace", "path": "/data/a", "value": format!("{before}{path}")}]))
        }
    })
    .await;
    configure(&world, VALIDATING, "a", json!([hook.webhook("see.example.com", "/see", json!({}))])).await;
    configure(&world, MUTATING, "z", json!([hook.webhook("three.example.com", "/3", json!({}))])).await;
    let two = [hook.webhook("one.example.com", "/1", json!({})), hook.webhook("two.example.com", "/2", json!({}))];
    configure(&world, MUTATING, "b", json!(two)).await;
    assert_eq!(world.post(MAPS, map("a")).await.is(201)["data"]["a"], "1/1/2/3");
    assert_eq!(hook.requests().last().unwrap()["object"]["data"]["a"], "1/1/2/3");
}

#[tokio::test]
async fn a_webhook_is_asked_again_if_another_one_changed_the_object_after_it() {
    let world = World::new().await;
    let hook = WebhookServer::new(|path, request| match (path, request["object"]["data"]["late"].is_null()) {
        ("/last", true) => patch(json!([{"op": "add", "path": "/data/late", "value": "1"}])),
        _ => yes(),
    })
    .await;
    let first = hook.webhook("first.example.com", "/first", json!({"reinvocationPolicy": "IfNeeded"}));
    let never = hook.webhook("never.example.com", "/never", json!({}));
    let last = hook.webhook("last.example.com", "/last", json!({"reinvocationPolicy": "IfNeeded"}));
    configure(&world, MUTATING, "m", json!([first, never, last])).await;
    world.post(MAPS, map("a")).await.is(201);
    let paths: Vec<String> = hook.paths().iter().map(|path| path.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/first", "/never", "/last", "/first"]);
    assert_eq!(hook.requests()[3]["object"]["data"]["late"], "1");
}

#[tokio::test]
async fn selectors_say_which_namespaces_and_objects_a_webhook_is_asked_about() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| yes()).await;
    let webhooks = json!([
        hook.webhook("n.example.com", "/namespace", json!({"namespaceSelector": {"matchLabels": {"watched": "yes"}}})),
        hook.webhook(
            "o.example.com",
            "/object",
            json!({"objectSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}})
        ),
    ]);
    configure(&world, VALIDATING, "v", webhooks).await;
    let namespaces = "/api/v1/namespaces";
    let watched = json!({"metadata": {"name": "watched", "labels": {"watched": "yes"}}});
    world.post(namespaces, watched).await.is(201);
    world.post(MAPS, map("a")).await.is(201);
    assert!(hook.paths().is_empty());
    world.post("/api/v1/namespaces/watched/configmaps", map("a")).await.is(201);
    assert_eq!(hook.paths(), ["/namespace?timeout=10s"]);
    world.post(MAPS, labelled("b", json!({"app": "x"}))).await.is(201);
    // Also when the label is only on the object before the change.
    world.merge(&format!("{MAPS}/b"), json!({"metadata": {"labels": {"app": null}}})).await.is(200);
    world.merge(&format!("{MAPS}/b"), json!({"data": {"x": "y"}})).await.is(200);
    assert_eq!(hook.paths()[1..], ["/object?timeout=10s", "/object?timeout=10s"]);
}

#[tokio::test]
async fn a_webhook_on_deletion_sees_what_goes_and_can_keep_it() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, request| json!({"allowed": request["oldObject"]["data"]["a"] != "keep"})).await;
    let delete = json!({"rules": [{"operations": ["DELETE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps"]}]});
    configure(&world, VALIDATING, "v", json!([hook.webhook("d.example.com", "/", delete)])).await;
    let mut kept = map("kept");
    kept["data"]["a"] = "keep".into();
    world.post(MAPS, kept).await.is(201);
    world.post(MAPS, map("gone")).await.is(201);
    world.delete(&format!("{MAPS}/kept"), Value::Null).await.is(400);
    world.delete(MAPS, Value::Null).await.is(400);
    world.get(&format!("{MAPS}/kept")).await.is(200);
    world.get(&format!("{MAPS}/gone")).await.is(404);
}

#[tokio::test]
async fn a_webhook_knows_an_object_by_its_other_name_too() {
    let world = World::new().await;
    let hook =
        WebhookServer::new(|_, _| patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}])))
            .await;
    let rule = |groups: Value| json!([{"operations": ["CREATE"], "apiGroups": groups, "apiVersions": ["v1"], "resources": ["events"]}]);
    let webhooks = json!([
        hook.webhook("equivalent.example.com", "/equivalent", json!({"rules": rule(json!(["events.k8s.io"]))})),
        hook.webhook(
            "exact.example.com",
            "/exact",
            json!({"rules": rule(json!(["events.k8s.io"])), "matchPolicy": "Exact"})
        ),
    ]);
    configure(&world, MUTATING, "m", webhooks).await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "reason": "R", "message": "a note"});
    let made = world.post("/api/v1/namespaces/default/events", event).await.is(201);
    assert_eq!(made["metadata"]["labels"], json!({"seen": "yes"}));
    assert_eq!(made["message"], "a note");
    let [request] = hook.requests().try_into().unwrap();
    assert_eq!(request["kind"], json!({"group": "events.k8s.io", "version": "v1", "kind": "Event"}));
    assert_eq!(request["requestKind"], json!({"group": "", "version": "v1", "kind": "Event"}));
    assert_eq!(request["object"]["note"], "a note");
}

#[tokio::test]
async fn a_scale_is_shown_as_a_scale_and_a_status_as_a_subresource() {
    let world = World::new().await;
    let hook = WebhookServer::new(|path, _| match path {
        "/scale" => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 3}])),
        _ => yes(),
    })
    .await;
    let about = |resource: &str| json!({"rules": [{"operations": ["UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]}]});
    let webhooks = json!([
        hook.webhook("scale.example.com", "/scale", about("minersets/scale")),
        hook.webhook("status.example.com", "/status", about("*/status")),
    ]);
    configure(&world, MUTATING, "m", webhooks).await;
    world.post(SETS, set("a")).await.is(201);
    let scaled = world.merge(&format!("{SETS}/a/scale"), json!({"spec": {"replicas": 9}})).await.is(200);
    assert_eq!(scaled["spec"]["replicas"], 3);
    world.merge(&format!("{SETS}/a/status"), json!({"status": {"replicas": 1}})).await.is(200);
    let [scale, status] = hook.requests().try_into().unwrap();
    assert_eq!(scale["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!((&scale["subResource"], &scale["object"]["spec"]["replicas"]), (&json!("scale"), &json!(9)));
    assert_eq!((&status["subResource"], &status["kind"]["kind"]), (&json!("status"), &json!("MinerSet")));
}

#[tokio::test]
async fn a_service_is_found_among_our_own_objects() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| json!({"allowed": false})).await;
    let service = json!({"clientConfig": {"caBundle": hook.authority, "service": {"namespace": "default", "name": "hook", "path": "/p"}}});
    configure(&world, VALIDATING, "v", json!([hook.webhook("s.example.com", "/", service)])).await;
    let post = "failed calling webhook \"s.example.com\": failed to call webhook: Post \"https://hook.default.svc:443/p?timeout=10s\"";
    let why = world.post(MAPS, map("a")).await.says(500);
    assert_eq!(why, format!("Internal error occurred: {post}: service \"hook\" not found"));
    let services = "/api/v1/namespaces/default/services";
    let object =
        json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}});
    world.post(services, object).await.is(201);
    let why = world.post(MAPS, map("a")).await.says(500);
    assert_eq!(why, format!("Internal error occurred: {post}: no endpoints available for service \"hook\""));
    let endpoints = json!({"metadata": {"name": "hook"}, "subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "https", "port": hook.port}]}]});
    world.post("/api/v1/namespaces/default/endpoints", endpoints).await.is(201);
    world.post(MAPS, map("a")).await.is(400);
    assert_eq!(hook.paths(), ["/p?timeout=10s"]);
}

#[tokio::test]
async fn exempt_namespaces_and_webhook_configurations_are_nobodys_to_stop() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| json!({"allowed": false})).await;
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    for path in [MUTATING, VALIDATING] {
        configure(&world, path, "all", json!([hook.webhook("all.example.com", "/", all.clone())])).await;
    }
    world.post("/api/v1/namespaces/kube-system/configmaps", map("a")).await.is(201);
    world.post(MAPS, map("a")).await.is(400);
    world.delete(&format!("{MUTATING}/all"), Value::Null).await.is(200);
    world.delete(&format!("{VALIDATING}/all"), Value::Null).await.is(200);
    world.post(MAPS, map("a")).await.is(201);
}

#[tokio::test]
async fn configurations_are_shown_as_kubectl_shows_them_and_refused_for_their_mistakes() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| yes()).await;
    configure(&world, MUTATING, "m", json!([hook.webhook("m.example.com", "/", json!({}))])).await;
    let table = world.table(MUTATING).await.is(200);
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Webhooks", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], 1);
    let mut object = world.get(&format!("{MUTATING}/m")).await.is(200);
    object["webhooks"][0]["matchConditions"] = json!([
        {"name": "a", "expression": "object.a >"},
        {"name": "a", "expression": "nobody == 1"},
        {"name": "b c", "expression": "'text'"},
        {"name": "", "expression": " "},
        {"name": "good", "expression": "authorizer.requestResource.check('get').allowed()"},
    ]);
    let why = world.put(&format!("{MUTATING}/m"), object).await.says(422);
    for said in [
        "[0].expression: Invalid value: \"object.a >\": compilation failed: ",
        "[1].expression: Invalid value: \"nobody == 1\": compilation failed: undeclared reference to 'nobody'",
        "[1].name: Duplicate value: \"a\"",
        "[2].expression: Invalid value: \"'text'\": must evaluate to bool",
        "[2].name: Invalid value: \"b c\": name part must consist of",
        "[3].expression: Required value",
        "[3].name: Required value",
    ] {
        assert!(why.contains(&format!("webhooks[0].matchConditions{said}")), "{said} in {why}");
    }
    assert!(!why.contains("matchConditions[4]"), "{why}");
}

fn conditions(expressions: &[&str]) -> Value {
    let conditions = expressions.iter().enumerate();
    let named = conditions.map(|(index, text)| json!({"name": format!("c{index}"), "expression": text}));
    json!({"matchConditions": named.collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_webhook_is_asked_only_where_its_conditions_hold() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| yes()).await;
    let asked = |path: &str, expressions: &[&str]| {
        hook.webhook(&format!("{}.example.com", &path[1..]), path, conditions(expressions))
    };
    let webhooks = json!([
        asked("/object", &["has(object.data.a) && object.data.a == '1'", "object.metadata.name != 'other'"]),
        asked("/update", &["oldObject != null", "request.operation == 'UPDATE' && !(oldObject == object)"]),
        asked("/who", &["!('system:masters' in request.userInfo.groups)", "request.resource.resource == 'configmaps'"]),
        asked(
            "/may",
            &["authorizer.group('').resource('secrets').namespace('default').name('x').check('get').allowed()"]
        ),
        asked("/request", &["authorizer.requestResource.check('delete').allowed()"]),
        asked(
            "/path",
            &[
                "authorizer.path('/readyz').check('get').allowed() && !authorizer.path('/metrics').check('get').allowed()"
            ]
        ),
        asked(
            "/account",
            &[
                "authorizer.serviceAccount('default', 'robot').group('').resource('configmaps').namespace('default').check('create').allowed()"
            ]
        ),
        asked("/never", &["object.nothing.deep == 1", "false"]),
    ]);
    configure(&world, VALIDATING, "v", webhooks).await;
    let paths = || {
        let mut paths: Vec<_> = hook.paths().iter().map(|path| path.split('?').next().unwrap().to_owned()).collect();
        paths.sort();
        paths
    };
    world.post(MAPS, map("a")).await.is(201);
    assert_eq!(paths(), ["/may", "/object", "/request"]);
    world.post(MAPS, map("other")).await.is(201);
    assert_eq!(paths()[3..], ["/request", "/request"], "{:?}", paths());
    // Somebody who may do little, asked about as well.
    let rules =
        json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "patch", "get"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    world.post(&format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": rules})).await.is(201);
    let subjects = json!([{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]);
    let role = json!({"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"});
    world
        .post(
            &format!("{rbac}/rolebindings"),
            json!({"metadata": {"name": "b"}, "subjects": subjects, "roleRef": role}),
        )
        .await
        .is(201);
    let before = paths().len();
    let bob = world.as_user("bob", &["system:authenticated"]);
    bob.merge(&format!("{MAPS}/a"), json!({"data": {"a": "2"}})).await.is(200);
    let mut since: Vec<_> =
        hook.paths()[before..].iter().map(|path| path.split('?').next().unwrap().to_owned()).collect();
    since.sort();
    assert_eq!(since, ["/account", "/path", "/update", "/who"]);
}

#[tokio::test]
async fn a_condition_that_fails_does_what_the_failure_policy_says() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| yes()).await;
    let mut ignored = conditions(&["object.nothing == 1"]);
    ignored["failurePolicy"] = "Ignore".into();
    configure(&world, MUTATING, "m", json!([hook.webhook("m.example.com", "/", ignored)])).await;
    world.post(MAPS, map("a")).await.is(201);
    let failing = conditions(&["true", "object.nothing == 1", "object.data"]);
    configure(&world, VALIDATING, "v", json!([hook.webhook("v.example.com", "/", failing)])).await;
    let why = world.post(MAPS, map("b")).await.says(403);
    assert!(
        why.starts_with("configmaps \"b\" is forbidden: [expression 'object.nothing == 1' resulted in error: "),
        "{why}"
    );
    assert!(why.ends_with("expression 'object.data' resulted in map, not in a bool]"), "{why}");
    assert!(hook.paths().is_empty());
}

#[tokio::test]
async fn no_condition_keeps_the_server_busy() {
    let world = World::new().await;
    let hook = WebhookServer::new(|_, _| yes()).await;
    let nested = "object.data.all(a, object.data.all(b, object.data.all(c, a != b || b != c || a == c)))";
    configure(&world, VALIDATING, "v", json!([hook.webhook("v.example.com", "/", conditions(&[nested]))])).await;
    world.post(MAPS, map("small")).await.is(201);
    let data: serde_json::Map<_, _> = (0..2000).map(|n| (format!("k{n}"), "".into())).collect();
    let began = Instant::now();
    let why = world.post(MAPS, json!({"metadata": {"name": "large"}, "data": data})).await.says(403);
    assert!(why.contains("running out of cost budget"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_rule_that_is_to_be_switched_off_must_exist() {
    let settings = Settings { disable_admission: vec!["MinerSets".to_owned()], ..Settings::default() };
    let storage = onex_storage::open(&"memory:".parse().unwrap(), &Default::default()).await.unwrap();
    let handles = onex_apiserver::Handles::over(storage);
    let refused = onex_apiserver::Apiserver::new(settings, handles).await.err().unwrap().to_string();
    assert!(
        refused.starts_with("disable_admission names \"MinerSets\", and there are only NamespaceAutoProvision, "),
        "{refused}"
    );
    assert!(refused.ends_with(", ResourceQuota") && !refused.contains("RoleEscalation"), "{refused}");
}
