//! Key pairs.

use serde_json::json;

use crate::world::{World, text};

#[tokio::test]
async fn a_key_is_told_once_and_is_of_its_user_only() {
    let world = World::new().await;
    let (id, alice) = world.user("alice").await;
    let (_, bob) = world.user("bob").await;
    let body = json!({ "name": "ci", "expires": world.seconds() + 60, "description": "for the pipeline" });
    let made = world.post("/v1/secrets", &alice, body.clone()).await.ok();
    world.post("/v1/secrets", &alice, body.clone()).await.fails(409, "SecretAlreadyExists");
    world.post("/v1/secrets", &bob, body).await.ok();
    let secret = world.get("/v1/secrets/ci", &alice).await.ok()["secret"].clone();
    assert_eq!((secret["userID"].as_str(), secret["status"].as_i64()), (Some(id.as_str()), Some(1)));
    assert_eq!((&secret["secretID"], &secret["description"]), (&made["secretID"], &json!("for the pipeline")));
    assert_eq!(secret["expires"], (world.seconds() + 60).to_string());
    let list = world.get("/v1/secrets", &alice).await.ok();
    assert_eq!((list["total"].as_str(), list["secrets"][0].clone()), (Some("1"), secret));
    assert!(!list.to_string().contains(&text(&made["secretKey"])));
    for path in ["/v1/secrets/other", "/v1/secrets/generated"] {
        world.get(path, &alice).await.fails(404, "SecretNotFound");
        world.put(path, &alice, json!({ "status": 0 })).await.fails(404, "SecretNotFound");
        world.delete(path, &alice).await.fails(404, "SecretNotFound");
    }
    world.delete("/v1/secrets/ci", &bob).await.ok();
    world.get("/v1/secrets/ci", &alice).await.ok();
}

#[tokio::test]
async fn a_key_that_is_disabled_expired_or_removed_is_refused_at_once() {
    let world = World::new().await;
    let (_, alice) = world.user("alice").await;
    let pair = world.secret(&alice, "ci").await;
    let token = world.signed(&pair);
    world.whose(&token).await.ok();
    world.put("/v1/secrets/ci", &alice, json!({ "status": 0 })).await.ok();
    world.whose(&token).await.fails(401, "Unauthorized");
    world.put("/v1/secrets/ci", &alice, json!({ "status": 1, "expires": world.seconds() + 10 })).await.ok();
    world.whose(&token).await.ok();
    world.pass(10);
    world.whose(&token).await.fails(401, "Unauthorized");
    world.put("/v1/secrets/ci", &alice, json!({ "expires": "0" })).await.ok();
    world.whose(&token).await.ok();
    world.delete("/v1/secrets/ci", &alice).await.ok();
    world.whose(&token).await.fails(401, "Unauthorized");
}

#[tokio::test]
async fn there_are_ten_at_most_also_when_they_are_made_at_once() {
    let world = World::new().await;
    let (_, alice) = world.user("alice").await;
    let names: Vec<_> = (0..15).map(|number| json!({ "name": format!("s{number}") })).collect();
    let all = names.into_iter().map(|body| world.post("/v1/secrets", &alice, body));
    let answers = futures::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 200).count(), 10);
    for answer in answers.into_iter().filter(|answer| answer.code != 200) {
        answer.fails(400, "SecretReachMaxCount");
    }
    let page = world.get("/v1/secrets?limit=4&offset=8", &alice).await.ok();
    assert_eq!((page["total"].as_str(), page["secrets"].as_array().map(Vec::len)), (Some("10"), Some(2)));
}
