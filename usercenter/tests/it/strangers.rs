//! Whoever shows nothing, or what is not believed, gets nowhere.

use onex_proto::token::{Algorithm, sign};
use onex_proto::{Who, usercenter_routes};
use serde_json::{Value, json};

use crate::world::World;

/// A body and path that break no rule.
fn sample(path: &str) -> (String, Value) {
    let path = path.replace("{userID}", "user-admin").replace("{name}", "ci").replace("{policyID}", "1");
    let body = match path.as_str() {
        "/v1/auth/authorize" | "/v1/auth/explain" => json!({ "sub": "user-admin", "obj": "*", "act": "x" }),
        "/v1/secrets" => json!({ "name": "ci" }),
        "/v1/policies" => {
            json!({ "policy": { "ptype": "p", "sub": "x", "obj": "*", "act": "*", "eft": "allow" } })
        }
        path if path.ends_with("update-password") => json!({ "oldPassword": "x", "newPassword": "correct horse 9" }),
        _ => json!({}),
    };
    (path, body)
}

#[tokio::test]
async fn no_route_that_takes_a_token_takes_none_or_a_strangers() {
    let world = World::new().await;
    let elsewhere = World::new().await;
    let (_, theirs) = elsewhere.user("alice").await;
    let pair = elsewhere.secret(&theirs, "ci").await;
    let ended = world.user("ended").await.1;
    world.post("/v1/auth/logout", &ended, json!({})).await.ok();
    let tokens = [
        theirs.clone(),
        elsewhere.signed(&pair),
        ended,
        sign(b"guess", Algorithm::Hs512, None, &world.claims()),
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(20_000),
    ];
    for route in usercenter_routes().iter().filter(|route| route.who == Who::Users) {
        let (path, body) = sample(route.path);
        let body = if route.method.has_body() { body } else { Value::Null };
        let method = route.method.name().to_uppercase();
        let missing = world.call(&method, &path, "", body.clone()).await.fails(401, "Unauthorized");
        assert_eq!(missing["message"], "The token is missing", "{}", route.rpc);
        for token in &tokens {
            world.call(&method, &path, token, body.clone()).await.fails(401, "Unauthorized");
        }
    }
    for token in &tokens {
        let body = json!({ "token": token, "obj": "*", "act": "x" });
        let answer = world.post("/v1/auth/auth", "", body).await;
        assert!([400, 401].contains(&answer.code), "{answer:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told_in_the_form_of_all_errors() {
    let world = World::new().await;
    let (_, token) = world.user("alice").await;
    let send = async |method: &str, path: &str, kind: &str, body: &str| {
        let request = axum::http::Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.header("authorization", format!("Bearer {token}")).body(body.to_owned().into());
        world.send(request.unwrap()).await
    };
    let json = "application/json; charset=utf-8";
    for body in ["{", "[]", "null", "1", "\"x\"", "{\"name\": 1}", "{\"realName\": \"x\"}", "{\"expires\": \"x\"}"] {
        send("POST", "/v1/secrets", json, body).await.fails(400, "CODEC");
    }
    send("POST", "/v1/secrets", "text/plain", "{}").await.fails(400, "CODEC");
    send("POST", "/v1/secrets", json, &"[".repeat(60_000)).await.fails(400, "CODEC");
    send("POST", "/v1/secrets", json, &" ".repeat(70_000)).await.fails(413, "TooLarge");
    send("GET", "/v1/secrets?limit=x", json, "").await.fails(400, "CODEC");
    send("GET", "/v1/secrets?page=1", json, "").await.fails(400, "CODEC");
    send("GET", "/v1/secrets/%ff", json, "").await.fails(400, "CODEC");
    send("GET", "/nowhere", json, "").await.fails(404, "PageNotFound");
    send("PATCH", "/v1/secrets", json, "").await.fails(405, "MethodNotAllowed");
    let answer = send("GET", "/v1/secrets", json, "").await;
    assert_eq!(answer.headers["x-trace-id"].len(), 32);
}

#[tokio::test]
async fn the_document_and_its_page_are_shown_unless_they_are_switched_off() {
    let world = World::new().await;
    assert_eq!(world.get("/openapi/openapi.json", "").await.ok()["openapi"], "3.1.0");
    assert_eq!(world.get("/openapi/", "").await.code, 200);
    let hidden = World::with(onex_usercenter::Settings { openapi: false, ..crate::world::settings() }).await;
    hidden.get("/openapi/openapi.json", "").await.fails(404, "PageNotFound");
    assert_eq!(hidden.get("/healthz", "").await.ok(), json!({ "status": "ok" }));
}
