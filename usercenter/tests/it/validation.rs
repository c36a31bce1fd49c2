//! Each rule of each field, over REST.

use serde_json::{Value, json};

use crate::world::World;

/// A field, and a value that it must not have.
type Broken = (&'static str, Value);

/// Each call with a body that breaks no rule, and what breaks one.
fn cases() -> Vec<(&'static str, &'static str, Value, Vec<Broken>)> {
    let long = |length: usize| Value::from("x".repeat(length));
    let user = json!({ "username": "alice_1", "password": "correct horse 1" });
    let policy = json!({ "policy": { "ptype": "p", "sub": "a", "obj": "*", "act": "*", "eft": "allow" } });
    let role = json!({ "policy": { "ptype": "g", "sub": "a", "role": "b" } });
    vec![
        (
            "POST",
            "/v1/auth/login",
            json!({ "username": "a", "password": "b" }),
            vec![("username", "".into()), ("username", long(254)), ("password", "".into()), ("password", long(1025))],
        ),
        ("POST", "/v1/auth/authenticate", json!({ "token": "a" }), vec![("token", "".into()), ("token", long(8193))]),
        (
            "POST",
            "/v1/auth/authorize",
            json!({ "sub": "a", "obj": "b", "act": "c" }),
            vec![
                ("sub", "".into()),
                ("sub", long(254)),
                ("obj", "".into()),
                ("obj", "a\nb".into()),
                ("act", "".into()),
                ("act", long(254)),
            ],
        ),
        (
            "POST",
            "/v1/auth/explain",
            json!({ "sub": "a", "obj": "b", "act": "c" }),
            vec![("sub", "".into()), ("obj", "".into()), ("act", "".into())],
        ),
        (
            "POST",
            "/v1/auth/auth",
            json!({ "token": "a", "obj": "b", "act": "c" }),
            vec![("token", "".into()), ("token", long(8193)), ("obj", "".into()), ("act", "".into())],
        ),
        (
            "POST",
            "/v1/users",
            user,
            vec![
                ("username", "".into()),
                ("username", "ab".into()),
                ("username", long(21)),
                ("username", "a b".into()),
                ("username", "ab-c".into()),
                ("password", "".into()),
                ("password", "short 1".into()),
                ("password", "onlyletters".into()),
                ("password", "1234567890".into()),
                ("password", long(129)),
                ("nickname", long(65)),
                ("nickname", "a\u{7}".into()),
                ("email", "nobody".into()),
                ("email", format!("a@{}.b", "c".repeat(253)).into()),
                ("phone", "12".into()),
                ("phone", "phone".into()),
            ],
        ),
        (
            "PUT",
            "/v1/users/user-admin",
            json!({}),
            vec![
                ("username", "ab".into()),
                ("username", "a b c".into()),
                ("nickname", long(65)),
                ("email", "x".into()),
                ("phone", "x".into()),
                ("status", "free".into()),
            ],
        ),
        (
            "PUT",
            "/v1/users/user-admin/update-password",
            json!({ "oldPassword": "a", "newPassword": "correct horse 9" }),
            vec![
                ("username", long(254)),
                ("oldPassword", "".into()),
                ("oldPassword", long(1025)),
                ("newPassword", "".into()),
                ("newPassword", "short 1".into()),
                ("newPassword", "onlyletters".into()),
                ("newPassword", long(129)),
            ],
        ),
        (
            "POST",
            "/v1/secrets",
            json!({ "name": "a" }),
            vec![
                ("name", "".into()),
                ("name", "_onex.io/temporary_key".into()),
                ("name", "a b".into()),
                ("name", long(254)),
                ("expires", (-1).into()),
                ("expires", 1.into()),
                ("description", long(256)),
                ("description", "a\nb".into()),
            ],
        ),
        (
            "PUT",
            "/v1/secrets/a",
            json!({}),
            vec![
                ("expires", (-1).into()),
                ("expires", 1.into()),
                ("status", 2.into()),
                ("status", (-1).into()),
                ("description", long(256)),
            ],
        ),
        (
            "POST",
            "/v1/policies",
            policy,
            vec![
                ("policy", Value::Null),
                ("policy.ptype", "".into()),
                ("policy.ptype", "x".into()),
                ("policy.sub", "".into()),
                ("policy.sub", long(101)),
                ("policy.obj", "".into()),
                ("policy.obj", "*a".into()),
                ("policy.act", "".into()),
                ("policy.act", "a*b".into()),
                ("policy.eft", "".into()),
                ("policy.eft", "maybe".into()),
                ("policy.role", "r".into()),
                ("policy.policyID", 7.into()),
            ],
        ),
        (
            "POST",
            "/v1/policies",
            role,
            vec![
                ("policy.role", "".into()),
                ("policy.role", long(101)),
                ("policy.obj", "o".into()),
                ("policy.act", "a".into()),
                ("policy.eft", "deny".into()),
            ],
        ),
    ]
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    match field.split_once('.') {
        Some((outer, inner)) => body[outer][inner] = value,
        None if value.is_null() => body.as_object_mut().unwrap().retain(|name, _| name != field),
        None => body[field] = value,
    }
    body
}

#[tokio::test]
async fn a_field_that_breaks_a_rule_is_named_and_one_that_breaks_none_is_not() {
    let world = World::new().await;
    let admin = world.admin().await;
    for (method, path, good, broken) in cases() {
        let answer = world.call(method, path, &admin, good.clone()).await;
        assert_ne!(answer.body["reason"], "InvalidParameter", "{path}: {answer:?}");
        for (field, value) in broken {
            let answer = world.call(method, path, &admin, with(good.clone(), field, value)).await;
            let body = answer.fails(400, "InvalidParameter");
            assert_eq!(body["metadata"].as_object().unwrap().keys().collect::<Vec<_>>(), [field], "{path}: {body}");
            assert!(body["message"].as_str().unwrap().contains(field), "{body}");
        }
    }
    for (path, field) in [
        ("/v1/users?limit=1001", "limit"),
        ("/v1/users?limit=-1", "limit"),
        ("/v1/users?offset=-1", "offset"),
        ("/v1/secrets?limit=1001", "limit"),
        ("/v1/secrets?offset=-1", "offset"),
        ("/v1/policies?limit=1001", "limit"),
        ("/v1/policies?offset=-1", "offset"),
    ] {
        let body = world.get(path, &admin).await.fails(400, "InvalidParameter");
        assert!(body["metadata"].get(field).is_some(), "{path}: {body}");
    }
    let body = world.delete("/v1/policies/0", &admin).await.fails(400, "InvalidParameter");
    assert!(body["metadata"].get("policyID").is_some());
    for path in ["/v1/users/", "/v1/secrets/"] {
        let long = format!("{path}{}", "x".repeat(254));
        world.get(&long, &admin).await.fails(400, "InvalidParameter");
        world.delete(&long, &admin).await.fails(400, "InvalidParameter");
        world.put(&long, &admin, json!({})).await.fails(400, "InvalidParameter");
    }
}

#[tokio::test]
async fn all_violations_are_told_at_once_in_the_language_that_is_asked_for() {
    let world = World::new().await;
    let body = json!({ "username": "a!", "password": "x", "email": "nobody" });
    let told = |language: &'static str| {
        let body = body.to_string();
        let request = axum::http::Request::post("/v1/users").header("accept-language", language);
        world.send(request.body(body.into()).unwrap())
    };
    let english = told("en").await.fails(400, "InvalidParameter");
    assert_eq!(english["metadata"].as_object().unwrap().len(), 3);
    assert_eq!(english["metadata"]["email"], "must be an e-mail address");
    let chinese = told("zh").await.fails(400, "InvalidParameter");
    assert_eq!(chinese["metadata"]["email"], "必须是有效的邮箱地址");
}
