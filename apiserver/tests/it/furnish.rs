//! What every namespace has.

use std::time::Duration;

use onex_apiserver::{Furniture, Handles, Settings};
use serde_json::{Value, json};

use crate::world::World;

async fn furnished() -> World {
    let storage = onex_storage::open(&"memory:".parse().unwrap(), &onex_storage::Settings::default()).await.unwrap();
    let furniture = Furniture { authority: Some("PEM".to_owned()), address: Some("127.0.0.1:6443".parse().unwrap()) };
    let world = World::unready_of(Handles { furniture, ..Handles::over(storage) }, Settings::default()).await;
    world.server.ready().await;
    world
}

/// The object, once it is there and as it should be.
async fn soon(world: &World, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..300 {
        let answer = world.get(path).await;
        if answer.code == 200 && is_right(&answer.json()) {
            return answer.json();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} is not there: {}", world.get(path).await.text);
}

#[tokio::test]
async fn every_namespace_has_an_account_and_the_authority_and_gets_them_back() {
    let world = furnished().await;
    world.post("/api/v1/namespaces", json!({"metadata": {"name": "new"}})).await.is(201);
    for namespace in ["default", "kube-system", "new"] {
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        let map = format!("/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt");
        let first = soon(&world, &account, |_| true).await["metadata"]["uid"].clone();
        soon(&world, &map, |map| map["data"]["ca.crt"] == "PEM").await;
        world.delete(&account, json!(null)).await.is(200);
        soon(&world, &account, |account| account["metadata"]["uid"] != first).await;
        world.merge(&map, json!({"data": {"ca.crt": "forged", "more": "x"}})).await.is(200);
        soon(&world, &map, |map| map["data"] == json!({"ca.crt": "PEM"})).await;
    }
    // Nothing is put into a namespace that goes.
    world.delete("/api/v1/namespaces/new", json!(null)).await.is(200);
    world.delete("/api/v1/namespaces/new/serviceaccounts/default", json!(null)).await.is(200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.get("/api/v1/namespaces/new/serviceaccounts/default").await.is(404);
}

#[tokio::test]
async fn the_service_kubernetes_leads_to_where_we_listen() {
    let world = furnished().await;
    let service = soon(&world, "/api/v1/namespaces/default/services/kubernetes", |_| true).await;
    assert_eq!(service["spec"]["ports"][0]["port"], 443);
    let endpoints = soon(&world, "/api/v1/namespaces/default/endpoints/kubernetes", |_| true).await;
    assert_eq!(endpoints["subsets"][0]["addresses"], json!([{"ip": "127.0.0.1"}]));
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 6443);
}
