//! Users: registration, profiles, passwords.

use serde_json::json;

use crate::world::{PASSWORD, World, settings, text};

#[tokio::test]
async fn somebody_registers_logs_in_and_sees_themselves() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    assert!(id.starts_with("user-") && id.len() == 11, "{id}");
    let user = world.get(&format!("/v1/users/{id}"), &token).await.ok()["user"].clone();
    assert_eq!((user["username"].as_str(), user["nickname"].as_str()), (Some("alice"), Some("alice")));
    assert_eq!((user["status"].as_str(), user["email"].as_str()), (Some("actived"), Some("a@b.example")));
    assert_eq!(user["createdAt"], "2027-01-15T08:00:00Z");
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let world = World::new().await;
    world.register("alice").await;
    let again = json!({ "username": "alice", "password": PASSWORD });
    world.post("/v1/users", "", again.clone()).await.fails(409, "UserAlreadyExists");
    let all: Vec<_> =
        (0..8).map(|_| world.post("/v1/users", "", json!({ "username": "bob", "password": PASSWORD }))).collect();
    let codes: Vec<u16> = futures::future::join_all(all).await.into_iter().map(|answer| answer.code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| [200, 409].contains(code)), "{codes:?}");
}

#[tokio::test]
async fn what_is_given_is_changed_and_the_rest_stays() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    world.register("bob").await;
    let path = format!("/v1/users/{id}");
    world.put(&path, &token, json!({ "nickname": "Ali", "email": "" })).await.ok();
    let user = world.get(&path, &token).await.ok()["user"].clone();
    assert_eq!((user["nickname"].as_str(), user["email"].as_str()), (Some("Ali"), None));
    assert_eq!(user["username"], "alice");
    world.put(&path, &token, json!({ "username": "bob" })).await.fails(409, "UserAlreadyExists");
    world.put(&path, &token, json!({ "username": "alicia" })).await.ok();
    world.login("alicia", PASSWORD).await.ok();
    world.login("alice", PASSWORD).await.fails(401, "UserLoginFailed");
    // What is in the path wins over what is in the body.
    world.put(&path, &token, json!({ "userID": "user-admin", "nickname": "me" })).await.ok();
    assert_eq!(world.get(&path, &token).await.ok()["user"]["nickname"], "me");
}

#[tokio::test]
async fn nobody_touches_others_but_administrators() {
    let world = World::new().await;
    let (alice, _) = world.user("alice").await;
    let (_, mallory) = world.user("mallory").await;
    let admin = world.admin().await;
    let path = format!("/v1/users/{alice}");
    let change = json!({ "oldPassword": PASSWORD, "newPassword": "another horse 2" });
    for id in [alice.as_str(), "user-nobody", "user-admin"] {
        let path = format!("/v1/users/{id}");
        world.get(&path, &mallory).await.fails(403, "UserOperationForbidden");
        world.put(&path, &mallory, json!({ "nickname": "x" })).await.fails(403, "UserOperationForbidden");
        world.delete(&path, &mallory).await.fails(403, "UserOperationForbidden");
        let answer = world.put(&format!("{path}/update-password"), &mallory, change.clone()).await;
        answer.fails(403, "UserOperationForbidden");
    }
    world.get("/v1/users", &mallory).await.fails(403, "UserOperationForbidden");
    assert_eq!(world.get(&path, &admin).await.ok()["user"]["username"], "alice");
    world.put(&path, &admin, json!({ "nickname": "by admin" })).await.ok();
    for path in ["/v1/users/user-nobody"] {
        world.get(path, &admin).await.fails(404, "UserNotFound");
        world.put(path, &admin, json!({ "nickname": "x" })).await.fails(404, "UserNotFound");
        world.delete(path, &admin).await.fails(404, "UserNotFound");
        let answer = world.put(&format!("{path}/update-password"), &admin, change.clone()).await;
        answer.fails(404, "UserNotFound");
    }
    world.delete(&path, &admin).await.ok();
    world.get(&path, &admin).await.fails(404, "UserNotFound");
    world.delete("/v1/users/user-admin", &admin).await.fails(403, "UserOperationForbidden");
}

#[tokio::test]
async fn a_list_has_pages_and_a_total() {
    let world = World::new().await;
    for name in ["one", "two", "three"] {
        world.register(name).await;
    }
    let admin = world.admin().await;
    let names = |page: serde_json::Value| -> Vec<String> {
        page["users"].as_array().unwrap().iter().map(|user| text(&user["username"])).collect()
    };
    let page = world.get("/v1/users?offset=1&limit=2", &admin).await.ok();
    assert_eq!(page["total"], "4");
    assert_eq!(names(page), ["two", "one"]);
    assert_eq!(names(world.get("/v1/users", &admin).await.ok()), ["three", "two", "one", "admin"]);
    assert_eq!(world.get("/v1/users?offset=9", &admin).await.ok(), json!({ "total": "4" }));
}

#[tokio::test]
async fn a_new_password_takes_the_old_one_and_ends_all_sessions() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    let path = format!("/v1/users/{id}/update-password");
    let change = |old: &str, new: &str| json!({ "username": "alice", "oldPassword": old, "newPassword": new });
    world.put(&path, &token, change("wrong 1", "another horse 2")).await.fails(401, "UserLoginFailed");
    let other = json!({ "username": "bob", "oldPassword": PASSWORD, "newPassword": "another horse 2" });
    world.put(&path, &token, other).await.fails(401, "UserLoginFailed");
    world.put(&path, &token, change(PASSWORD, PASSWORD)).await.fails(400, "InvalidParameter");
    world.put(&path, &token, change(PASSWORD, "another horse 2")).await.ok();
    world.whose(&token).await.fails(401, "Unauthorized");
    world.login("alice", PASSWORD).await.fails(401, "UserLoginFailed");
    world.login("alice", "another horse 2").await.ok();
    // Guesses of the old password are guesses.
    let token = text(&world.login("alice", "another horse 2").await.ok()["accessToken"]);
    for _ in 0..5 {
        world.put(&path, &token, change("wrong 1", "third horse 3")).await.fails(401, "UserLoginFailed");
    }
    world.put(&path, &token, change("another horse 2", "third horse 3")).await.fails(429, "RATELIMIT");
}

#[tokio::test]
async fn an_administrator_sets_a_password_by_showing_their_own() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    let admin = world.admin().await;
    let path = format!("/v1/users/{id}/update-password");
    let change = |old: &str| json!({ "oldPassword": old, "newPassword": "another horse 2" });
    world.put(&path, &admin, change(PASSWORD)).await.fails(401, "UserLoginFailed");
    world.put(&path, &admin, change(&world.admin_password)).await.ok();
    world.whose(&token).await.fails(401, "Unauthorized");
    world.login("alice", "another horse 2").await.ok();
}

#[tokio::test]
async fn registration_can_be_left_to_administrators_and_is_throttled() {
    let world = World::with(onex_usercenter::Settings { registration: false, ..settings() }).await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    world.post("/v1/users", "", body.clone()).await.fails(403, "UserOperationForbidden");
    let admin = world.admin().await;
    world.post("/v1/users", &admin, body.clone()).await.ok();
    let token = text(&world.login("alice", PASSWORD).await.ok()["accessToken"]);
    let bob = json!({ "username": "bob", "password": PASSWORD });
    world.post("/v1/users", &token, bob).await.fails(403, "UserOperationForbidden");

    let mut few = settings();
    few.throttle.registrations_per_address = 3;
    let world = World::with(few).await;
    for name in ["one", "two", "three"] {
        world.register(name).await;
    }
    let answer = world.post("/v1/users", "", body).await;
    assert!(answer.headers.contains_key("retry-after"));
    answer.fails(429, "RATELIMIT");
}
