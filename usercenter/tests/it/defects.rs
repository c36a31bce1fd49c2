//! Each defect of OneX's usercenter, by its number, and how it is here.

use onex_db::accounts::User;
use serde_json::json;

use crate::world::{PASSWORD, World, settings, text};

#[tokio::test]
async fn b_uc_1_nothing_is_allowed_that_no_policy_allows() {
    let world = World::new().await;
    let (_, token) = world.user("alice").await;
    let ask =
        async |act: &str| world.post("/v1/auth/auth", "", json!({ "token": token, "obj": "*", "act": act })).await.ok();
    assert_eq!(ask("/gateway.v1.Gateway/ListMiner").await["allowed"], true);
    assert_eq!(ask("/usercenter.v1.UserCenter/ListUser").await.get("allowed"), None);
    assert_eq!(ask("/anything.v1.Else/Do").await.get("allowed"), None);
}

#[tokio::test]
async fn b_uc_2_no_answer_has_a_hash_or_a_key_and_keys_are_hidden_in_the_database() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    let (_, key) = world.secret(&token, "ci").await;
    let admin = world.admin().await;
    for (path, token) in [
        (format!("/v1/users/{id}"), &token),
        ("/v1/users".into(), &admin),
        ("/v1/secrets".into(), &token),
        ("/v1/secrets/ci".into(), &token),
    ] {
        let body = world.get(&path, token).await.ok().to_string();
        assert!(!body.contains("argon2") && !body.contains("\"password\"") && !body.contains(&key), "{body}");
        assert!(!body.contains("secretKey") && !body.contains("v1."), "{body}");
    }
    let kept = world.db.accounts().secret(&id, "ci").await.unwrap().unwrap();
    assert!(!kept.secret_key.contains(&key) && kept.secret_key.starts_with("v1."));
    let user = world.db.accounts().user(&id).await.unwrap().unwrap().user;
    assert!(user.password.starts_with("$argon2id$"));
}

#[tokio::test]
async fn b_uc_3_a_key_that_was_used_is_looked_at_again_when_it_changes() {
    let world = World::new().await;
    let (_, token) = world.user("alice").await;
    // Access tokens of a later session are good although those of an earlier one have expired.
    world.whose(&token).await.ok();
    world.pass(7200);
    world.whose(&token).await.fails(401, "Unauthorized");
    let token = text(&world.login("alice", PASSWORD).await.ok()["accessToken"]);
    world.whose(&token).await.ok();
    // A key that is prolonged is good again.
    let body = json!({ "name": "ci", "expires": world.seconds() + 5 });
    let pair = world.post("/v1/secrets", &token, body).await.ok();
    let signed = world.signed(&(text(&pair["secretID"]), text(&pair["secretKey"])));
    world.whose(&signed).await.ok();
    world.pass(5);
    world.whose(&signed).await.fails(401, "Unauthorized");
    world.put("/v1/secrets/ci", &token, json!({ "expires": world.seconds() + 5 })).await.ok();
    world.whose(&signed).await.ok();
}

#[tokio::test]
async fn b_uc_4_whoever_is_not_active_is_not_let_in_by_anything() {
    let world = World::new().await;
    let admin = world.admin().await;
    for status in ["registered", "locked", "blacklisted", "disabled", "need_active", "need_disable"] {
        let name = format!("u_{status}");
        let (id, access) = world.user(&name).await;
        let reply = world.login(&name, PASSWORD).await.ok();
        let signed = world.signed(&world.secret(&access, "ci").await);
        for token in [&access, &signed] {
            world.whose(token).await.ok();
        }
        let path = format!("/v1/users/{id}");
        world.put(&path, &access, json!({ "status": "actived" })).await.fails(403, "UserOperationForbidden");
        world.put(&path, &admin, json!({ "status": status })).await.ok();
        for token in [&access, &signed] {
            world.whose(token).await.fails(401, "Unauthorized");
            world.get(&path, token).await.fails(401, "Unauthorized");
        }
        let refresh = text(&reply["refreshToken"]);
        world.post("/v1/auth/refresh-token", &refresh, json!({})).await.fails(401, "Unauthorized");
        world.login(&name, PASSWORD).await.fails(401, "UserLoginFailed");
        world.put(&path, &admin, json!({ "status": "actived" })).await.ok();
        world.whose(&signed).await.ok();
        world.whose(&access).await.fails(401, "Unauthorized");
    }
    world
        .put("/v1/users/user-admin", &admin, json!({ "status": "disabled" }))
        .await
        .fails(403, "UserOperationForbidden");
}

#[tokio::test]
async fn b_uc_5_logout_password_change_and_removal_revoke_tokens_at_every_usercenter() {
    let world = World::new().await;
    let other = world.another().await;
    let (id, token) = world.user("alice").await;
    let pair = world.secret(&token, "ci").await;
    let second = text(&world.login("alice", PASSWORD).await.ok()["accessToken"]);
    let signed = world.signed(&pair);
    for token in [&token, &second, &signed] {
        other.whose(token).await.ok();
    }
    world.post("/v1/auth/logout", &token, json!({})).await.ok();
    world.whose(&token).await.fails(401, "Unauthorized");
    other.center.follow().await.unwrap();
    other.whose(&token).await.fails(401, "Unauthorized");
    other.whose(&second).await.ok();
    let change = json!({ "oldPassword": PASSWORD, "newPassword": "another horse 2" });
    world.put(&format!("/v1/users/{id}/update-password"), &second, change).await.ok();
    other.center.follow().await.unwrap();
    other.whose(&second).await.fails(401, "Unauthorized");
    other.whose(&signed).await.ok();
    world.delete(&format!("/v1/users/{id}"), &signed).await.ok();
    world.whose(&signed).await.fails(401, "Unauthorized");
    other.center.follow().await.unwrap();
    other.whose(&signed).await.fails(401, "Unauthorized");
    // Policies are learned the same way.
    let admin = other.admin().await;
    let (bob, token) = world.user("bob").await;
    other.center.follow().await.unwrap();
    let ask = json!({ "token": token, "obj": "*", "act": "/gateway.v1.Gateway/ListMiner" });
    assert_eq!(other.post("/v1/auth/auth", "", ask.clone()).await.ok()["allowed"], true);
    let deny = json!({ "policy": { "ptype": "p", "sub": bob, "obj": "*", "act": "*", "eft": "deny" } });
    other.post("/v1/policies", &admin, deny).await.ok();
    world.center.follow().await.unwrap();
    assert_eq!(world.post("/v1/auth/auth", "", ask).await.ok().get("allowed"), None);
}

#[tokio::test]
async fn b_uc_6_decisions_about_others_are_not_told_to_strangers_and_guessing_is_throttled() {
    let world = World::new().await;
    world.register("alice").await;
    let ask = json!({ "sub": "user-admin", "obj": "*", "act": "x" });
    world.post("/v1/auth/authorize", "", ask).await.fails(401, "Unauthorized");
    let unknown = world.login("nobody", "wrong horse 1").await.fails(401, "UserLoginFailed");
    let wrong = world.login("alice", "wrong horse 1").await.fails(401, "UserLoginFailed");
    assert_eq!(unknown, wrong, "nobody learns which names there are");
}

#[tokio::test]
async fn b_uc_7_errors_have_their_declared_codes() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    world.login("alice", "wrong horse 1").await.fails(401, "UserLoginFailed");
    let (head, _) = token.rsplit_once('.').unwrap();
    world.whose(&format!("{head}.AAAA")).await.fails(401, "Unauthorized");
    world.get("/v1/users", &token).await.fails(403, "UserOperationForbidden");
    world.put("/v1/secrets/none", &token, json!({ "status": 0 })).await.fails(404, "SecretNotFound");
    world.delete("/v1/secrets/none", &token).await.fails(404, "SecretNotFound");
    world.delete(&format!("/v1/users/{id}"), &token).await.ok();
}

#[tokio::test]
async fn b_uc_8_a_name_that_is_taken_meanwhile_is_a_conflict() {
    let world = World::new().await;
    let all = (0..4).map(|_| world.post("/v1/users", "", json!({ "username": "same", "password": PASSWORD })));
    let mut codes: Vec<u16> = futures::future::join_all(all).await.into_iter().map(|answer| answer.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 409, 409, 409]);
}

#[tokio::test]
async fn b_uc_9_the_usercenter_takes_every_kind_of_token() {
    let world = World::new().await;
    let (id, access) = world.user("alice").await;
    let refresh = text(&world.login("alice", PASSWORD).await.ok()["refreshToken"]);
    let signed = world.signed(&world.secret(&access, "ci").await);
    for token in [access, refresh, signed] {
        world.get(&format!("/v1/users/{id}"), &token).await.ok();
    }
}

#[tokio::test]
async fn b_uc_10_the_path_says_who_is_meant() {
    let world = World::new().await;
    let (alice, _) = world.user("alice").await;
    let (_, bob) = world.user("bob").await;
    world.get(&format!("/v1/users/{alice}"), &bob).await.fails(403, "UserOperationForbidden");
    let admin = world.admin().await;
    let path = format!("/v1/users/{alice}");
    world.put(&path, &admin, json!({ "username": "alicia" })).await.ok();
    assert_eq!(world.get(&path, &admin).await.ok()["user"]["username"], "alicia");
}

#[tokio::test]
async fn b_uc_11_what_a_token_claims_is_checked() {
    use onex_proto::token::{Algorithm, Claims, sign};
    let world = World::new().await;
    let (_, token) = world.user("alice").await;
    let pair = world.secret(&token, "ci").await;
    let with = |claims: Claims| sign(pair.1.as_bytes(), Algorithm::Hs256, Some(&pair.0), &claims);
    world.whose(&with(world.claims())).await.ok();
    world.whose(&with(Claims { exp: None, ..world.claims() })).await.fails(401, "Unauthorized");
    world.whose(&with(Claims { sub: "user-admin".into(), ..world.claims() })).await.fails(401, "Unauthorized");
    world.whose(&with(Claims { iss: "onex-usercenter".into(), ..world.claims() })).await.fails(401, "Unauthorized");
}

#[tokio::test]
async fn b_uc_12_names_of_key_pairs_are_there_once_and_system_keys_are_nobodys() {
    let world = World::new().await;
    let (_, token) = world.user("alice").await;
    assert_eq!(world.get("/v1/secrets", &token).await.ok(), json!({}), "a session's secret is none of the user's");
    world.secret(&token, "ci").await;
    world.post("/v1/secrets", &token, json!({ "name": "ci" })).await.fails(409, "SecretAlreadyExists");
    let reserved = json!({ "name": "_onex.io/temporary_key" });
    world.post("/v1/secrets", &token, reserved).await.fails(400, "InvalidParameter");
    world.delete("/v1/secrets/_onex.io%2Ftemporary_key", &token).await.fails(404, "SecretNotFound");
    world.put("/v1/secrets/ci", &token, json!({ "status": 7 })).await.fails(400, "InvalidParameter");
}

#[tokio::test]
async fn b_uc_13_policies_hold_at_once_and_a_deny_for_others_does_not_touch_administrators() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    let act = "/gateway.v1.Gateway/ListMiner";
    world.policy([&id, "*", act, "deny"]).await;
    let ask = json!({ "token": token, "obj": "*", "act": act });
    assert_eq!(world.post("/v1/auth/auth", "", ask).await.ok().get("allowed"), None);
    let ask = json!({ "token": world.admin().await, "obj": "*", "act": act });
    assert_eq!(world.post("/v1/auth/auth", "", ask).await.ok()["allowed"], true);
}

#[tokio::test]
async fn b_uc_14_a_decision_that_cannot_be_recorded_is_not_told() {
    let mut world = World::new().await;
    let (_, token) = world.user("alice").await;
    world.replace_audit(std::sync::Arc::new(Broken)).await;
    let ask = json!({ "token": token, "obj": "*", "act": "/gateway.v1.Gateway/ListMiner" });
    world.post("/v1/auth/auth", "", ask).await.fails(503, "Unavailable");
}

struct Broken;

#[async_trait::async_trait]
impl onex_audit::AuditLog for Broken {
    async fn append(&self, _: &[onex_audit::Record]) -> onex_audit::Result<()> {
        Err(onex_audit::Error::Unavailable("the disk is full".into()))
    }

    async fn read(&self, _: &str, _: usize) -> onex_audit::Result<onex_audit::Batch> {
        std::future::pending().await
    }

    async fn commit(&self, _: &str, _: onex_audit::Position) -> onex_audit::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn b_uc_15_settings_of_lifetimes_have_an_effect() {
    let short =
        onex_usercenter::Settings { access_seconds: 60, refresh_seconds: 120, self_signed_seconds: 60, ..settings() };
    let world = World::with(short).await;
    world.register("alice").await;
    let reply = world.login("alice", PASSWORD).await.ok();
    assert_eq!(reply["expiresAt"], (world.seconds() + 60).to_string());
    let token = text(&reply["accessToken"]);
    let pair = world.secret(&token, "ci").await;
    world.whose(&world.signed(&pair)).await.fails(401, "Unauthorized");
    world.pass(60);
    world.whose(&token).await.fails(401, "Unauthorized");
    world.pass(60);
    world.post("/v1/auth/refresh-token", &text(&reply["refreshToken"]), json!({})).await.fails(401, "Unauthorized");
}

#[tokio::test]
async fn b_uc_16_every_declared_rule_and_text_is_used() {
    let world = World::new().await;
    for body in [json!({ "username": "ab", "password": PASSWORD }), json!({ "username": "alice", "password": "short" })]
    {
        world.post("/v1/users", "", body).await.fails(400, "InvalidParameter");
    }
}

#[tokio::test]
async fn b_com_3_an_offset_is_no_number_of_a_page() {
    let world = World::new().await;
    for name in ["one", "two", "three", "four"] {
        world.register(name).await;
    }
    let admin = world.admin().await;
    let first =
        async |query: &str| world.get(&format!("/v1/users?{query}"), &admin).await.ok()["users"][0]["username"].clone();
    assert_eq!(first("offset=0&limit=2").await, "four");
    assert_eq!(first("offset=1&limit=2").await, "three");
    assert_eq!(first("offset=3&limit=2").await, "one");
}

#[tokio::test]
async fn b_com_12_ids_are_made_before_the_row_and_two_usercenters_do_not_clash() {
    let (one, mut ids) = (World::new().await, Vec::new());
    let two = one.another().await;
    for number in 0..10 {
        let world = if number % 2 == 0 { &one } else { &two };
        ids.push(world.register(&format!("user_{number}")).await);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10);
}

#[tokio::test]
async fn onexs_bcrypt_hashes_let_in_and_are_replaced() {
    let world = World::new().await;
    let user = User {
        user_id: "user-old123".into(),
        username: "veteran".into(),
        status: "actived".into(),
        // "U*U", made by the reference implementation.
        password: "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".into(),
        ..User::default()
    };
    let mut change = world.db.accounts().change().await.unwrap();
    change.add_user(&user).await.unwrap();
    change.commit().await.unwrap();
    world.login("veteran", "U*V").await.fails(401, "UserLoginFailed");
    world.login("veteran", "U*U").await.ok();
    let kept = world.db.accounts().user("user-old123").await.unwrap().unwrap().user.password;
    assert!(kept.starts_with("$argon2id$"));
    world.login("veteran", "U*U").await.ok();
}
