//! Policies, decisions and their reasons.

use serde_json::{Value, json};

use crate::world::{World, text};

fn ask(sub: &str, obj: &str, act: &str) -> Value {
    json!({ "sub": sub, "obj": obj, "act": act })
}

#[tokio::test]
async fn a_policy_holds_from_when_it_is_made_until_it_is_removed() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    let auth = async |obj: &str| {
        let body = json!({ "token": token, "obj": obj, "act": "mine" });
        let answer = world.post("/v1/auth/auth", "", body).await.ok();
        assert_eq!(answer["userID"], id.as_str());
        answer["allowed"].as_bool().unwrap_or(false)
    };
    assert!(!auth("minersets/a").await);
    let number = world.policy([&id, "minersets/*", "mine", "allow"]).await;
    assert!(auth("minersets/a").await);
    let deny = world.policy([&id, "minersets/b", "mine", "deny"]).await;
    assert!(auth("minersets/a").await && !auth("minersets/b").await);
    let admin = world.admin().await;
    world.delete(&format!("/v1/policies/{number}"), &admin).await.ok();
    assert!(!auth("minersets/a").await);
    world.delete(&format!("/v1/policies/{number}"), &admin).await.fails(404, "PolicyNotFound");
    world.delete(&format!("/v1/policies/{deny}"), &admin).await.ok();
}

#[tokio::test]
async fn a_role_gives_what_it_has() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    let admin = world.admin().await;
    world.get("/v1/users", &token).await.fails(403, "UserOperationForbidden");
    let role = json!({ "policy": { "ptype": "g", "sub": id, "role": "role:admin" } });
    let made = world.post("/v1/policies", &admin, role.clone()).await.ok();
    world.post("/v1/policies", &admin, role).await.fails(409, "PolicyAlreadyExists");
    world.get("/v1/users", &token).await.ok();
    let listed = world.get(&format!("/v1/policies?sub={id}"), &admin).await.ok();
    assert_eq!(listed["total"], "2", "{listed}");
    assert_eq!(
        listed["policies"][0],
        json!({ "policyID": listed["policies"][0]["policyID"], "ptype": "g", "sub": id, "role": "role:user" })
    );
    world.delete(&format!("/v1/policies/{}", text(&made["policyID"])), &admin).await.ok();
    world.get("/v1/users", &token).await.fails(403, "UserOperationForbidden");
}

#[tokio::test]
async fn policies_are_for_administrators_and_they_cannot_lock_themselves_out() {
    let world = World::new().await;
    let (_, token) = world.user("alice").await;
    let policy =
        |sub: &str, eft: &str| json!({ "policy": { "ptype": "p", "sub": sub, "obj": "*", "act": "*", "eft": eft } });
    world.get("/v1/policies", &token).await.fails(403, "Forbidden");
    world.post("/v1/policies", &token, policy("role:user", "allow")).await.fails(403, "Forbidden");
    world.delete("/v1/policies/1", &token).await.fails(403, "Forbidden");
    let admin = world.admin().await;
    for sub in ["user-admin", "role:admin"] {
        world.post("/v1/policies", &admin, policy(sub, "deny")).await.fails(409, "PolicyLocksOut");
    }
    let all = world.get("/v1/policies?limit=100", &admin).await.ok();
    let mut kept = 0;
    for policy in all["policies"].as_array().unwrap() {
        let answer = world.delete(&format!("/v1/policies/{}", text(&policy["policyID"])), &admin).await;
        if answer.code != 200 {
            answer.fails(409, "PolicyLocksOut");
            kept += 1;
        }
    }
    assert_eq!(kept, 2, "the administrator's role, and what it may do: {all}");
    world.get("/v1/policies", &admin).await.ok();
}

#[tokio::test]
async fn one_may_ask_about_oneself_and_administrators_about_everybody() {
    let world = World::new().await;
    let (alice, token) = world.user("alice").await;
    let (bob, _) = world.user("bob").await;
    let list = "/gateway.v1.Gateway/ListMiner";
    let about = async |token: &str, sub: &str| world.post("/v1/auth/authorize", token, ask(sub, "*", list)).await;
    assert_eq!(about(&token, &alice).await.ok(), json!({ "allowed": true }));
    about(&token, &bob).await.fails(403, "Forbidden");
    world.post("/v1/auth/explain", &token, ask(&bob, "*", list)).await.fails(403, "Forbidden");
    let admin = world.admin().await;
    assert_eq!(about(&admin, &bob).await.ok()["allowed"], true);
    assert_eq!(about(&admin, "user-nobody").await.ok(), json!({}));
}

#[tokio::test]
async fn an_explanation_names_the_policy_that_decides_in_the_callers_language() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    let explain = async |obj: &str| {
        let body = ask(&id, obj, "/gateway.v1.Gateway/GetMiner");
        let request = axum::http::Request::post("/v1/auth/explain")
            .header("authorization", format!("Bearer {token}"))
            .header("accept-language", "zh-CN")
            .body(body.to_string().into());
        world.send(request.unwrap()).await.ok()
    };
    let why = explain("*").await;
    assert_eq!((why["allowed"].as_bool(), why["roles"].clone()), (Some(true), json!([id, "role:user"])));
    assert!(text(&why["reason"]).ends_with("允许，且没有策略拒绝"), "{why}");
    let number = world.policy([&id, "miners/*", "*", "deny"]).await;
    let why = explain("miners/a").await;
    assert_eq!(why.get("allowed"), None);
    assert_eq!(why["reason"], format!("策略 {number} 拒绝"));
    assert_eq!(why["policies"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn each_decision_is_recorded_also_when_it_is_a_denial() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    for act in ["/gateway.v1.Gateway/GetMiner", "elsewhere"] {
        world.post("/v1/auth/auth", "", json!({ "token": token, "obj": "*", "act": act })).await.ok();
    }
    let records = world.audit.read("test", 10).await.unwrap().records;
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].details["result"], true);
    assert_eq!(records[1].details["result"], false, "a denial has a result too");
    assert_eq!(records[1].details["request"], json!([id, "*", "elsewhere"]));
    assert_eq!(records[0].details["explains"], json!([["role:user", "*", "/gateway.v1.Gateway/*", "allow"]]));
    assert_eq!((records[1].decision, records[1].source[0].as_str()), (onex_audit::Decision::Deny, "192.0.2.1"));
    assert!(!serde_json::to_string(&records).unwrap().contains(&token));
}
