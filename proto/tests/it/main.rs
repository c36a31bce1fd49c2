//! The contract as others see it: the JSON form of messages, and the whole document of the usercenter.

use onex_proto::usercenter as v1;
use onex_proto::{Timestamp, openapi};
use serde_json::json;

#[test]
fn messages_have_the_json_form_of_onex() {
    let reply = v1::LoginReply {
        refresh_token: "r".into(),
        access_token: "a".into(),
        r#type: "Bearer".into(),
        expires_at: 1_752_800_000,
    };
    let json = serde_json::to_value(&reply).unwrap();
    assert_eq!(
        json,
        json!({"refreshToken": "r", "accessToken": "a", "type": "Bearer", "expiresAt": "1752800000"}),
        "numbers of 64 bits are text"
    );
    assert_eq!(serde_json::from_value::<v1::LoginReply>(json).unwrap(), reply);
    let no = v1::AuthorizeResponse { allowed: false };
    assert_eq!(serde_json::to_value(no).unwrap(), json!({}), "what is zero is left out");
    let user = v1::User {
        user_id: "user-ab12cd".into(),
        secrets: 3,
        created_at: Some(Timestamp::from_microseconds(1_735_689_600_000_000)),
        ..Default::default()
    };
    let expected = json!({"userID": "user-ab12cd", "secrets": "3", "createdAt": "2025-01-01T00:00:00Z"});
    assert_eq!(serde_json::to_value(&user).unwrap(), expected);
}

#[test]
fn numbers_are_read_from_text_and_from_numbers_and_unknown_fields_are_refused() {
    let of = |json| serde_json::from_value::<v1::CreateSecretRequest>(json);
    assert_eq!(of(json!({"name": "a", "expires": "7"})).unwrap().expires, 7);
    assert_eq!(of(json!({"name": "a", "expires": 7})).unwrap().expires, 7);
    assert!(of(json!({"name": "a", "realName": "b"})).unwrap_err().to_string().contains("realName"));
    assert!(of(json!({"name": 1})).is_err());
    let update: v1::UpdateSecretRequest = serde_json::from_value(json!({"name": "a", "status": 0})).unwrap();
    assert_eq!((update.status, update.expires), (Some(0), None), "zero and left out are not the same");
}

#[test]
fn objects_of_the_apiserver_have_the_json_of_kubernetes() {
    let object = json!({
        "apiVersion": "apps.onex.io/v1beta1",
        "kind": "MinerSet",
        "metadata": {
            "name": "a", "generation": 3, "creationTimestamp": "2025-01-01T00:00:00Z", "labels": {"l": "v"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": true}],
        },
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"l": "v"}}, "deletePolicy": "Random",
            "template": {"metadata": {"labels": {"l": "v"}}, "spec": {"chainName": "genesis", "minerType": "M1"}},
        },
        "status": {"observedGeneration": 3, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let message: onex_proto::apps::MinerSet = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(message.metadata.as_ref().unwrap().generation, 3);
    assert_eq!(serde_json::to_value(&message).unwrap(), object, "numbers are numbers, and a set of none is one");
}

#[test]
fn the_documents_of_the_services_are_what_they_were() {
    insta::assert_json_snapshot!("gateway", openapi::document("gateway.v1.Gateway"));
    insta::assert_json_snapshot!("usercenter", openapi::document("usercenter.v1.UserCenter"));
}
