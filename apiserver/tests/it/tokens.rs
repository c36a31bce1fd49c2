//! Tokens of ServiceAccounts: asked for, shown, and refused when what they stand on is gone.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use onex_apiserver::{Settings, service_accounts};
use serde_json::{Value, json};

use crate::world::World;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// A resource that nobody without a role may see: 403 says that the token was believed, and 401 that it was not.
const GUARDED: &str = "/api/v1/namespaces/default/configmaps";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn account(world: &World, name: &str) -> Value {
    world.post(ACCOUNTS, json!({"metadata": {"name": name}})).await.is(201)
}

/// Asks for a token of the account `a`.
async fn request(world: &World, spec: Value) -> Value {
    world.post(&format!("{ACCOUNTS}/a/token"), json!({"spec": spec})).await.is(201)
}

async fn token(world: &World, spec: Value) -> String {
    request(world, spec).await["status"]["token"].as_str().unwrap().to_owned()
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

fn claims(token: &str) -> Value {
    part(token, 1)
}

async fn is_believed(world: &World, token: &str) -> bool {
    match world.with_token(token, GUARDED).await {
        answer if answer.code == 401 => false,
        answer => {
            assert!(answer.says(403).contains("User \"system:serviceaccount:default:a\""), "{}", answer.text);
            true
        }
    }
}

#[tokio::test]
async fn a_token_request_answers_a_token_that_names_its_account() {
    let world = World::new().await;
    let account = account(&world, "a").await;
    let answer = request(&world, json!({})).await;
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(answer["metadata"]["name"], "a");
    assert_eq!(answer["metadata"]["namespace"], "default");
    assert_eq!(answer["spec"], json!({"audiences": [ISSUER], "expirationSeconds": 3600}));
    let token = answer["status"]["token"].as_str().unwrap();
    let claims = claims(token);
    let begin = claims["iat"].as_i64().unwrap();
    assert_eq!(claims["nbf"], begin);
    assert_eq!(claims["exp"], begin + 3600);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], json!([ISSUER]));
    assert_eq!(claims["sub"], "system:serviceaccount:default:a");
    assert!(!claims["jti"].as_str().unwrap().is_empty());
    let uid = &account["metadata"]["uid"];
    assert_eq!(claims["kubernetes.io"], json!({"namespace": "default", "serviceaccount": {"name": "a", "uid": uid}}));
    let until: String = answer["status"]["expirationTimestamp"].as_str().unwrap().to_owned();
    assert!(until.ends_with('Z') && until.len() == 20, "{until}");
    assert!(is_believed(&world, token).await);
}

#[tokio::test]
async fn a_token_may_be_asked_for_in_yaml_and_in_protobuf_with_an_empty_spec() {
    let world = World::new().await;
    account(&world, "a").await;
    let path = format!("{ACCOUNTS}/a/token");
    let yaml = "kind: TokenRequest\napiVersion: authentication.k8s.io/v1\nspec:\n  expirationSeconds: 700\n";
    let answer = world.send(Method::POST, &path, &[("content-type", "application/yaml")], yaml).await.is(201);
    assert_eq!(answer["spec"]["expirationSeconds"], 700);
    // As kubectl 1.33 writes it: an envelope, metadata and a spec in which nothing is set.
    let mut inside = vec![0x0a, 0];
    inside.extend([0x12, 0, 0x1a, 0]);
    let mut body = b"k8s\0".to_vec();
    let (version, kind) = (b"authentication.k8s.io/v1", b"TokenRequest");
    let mut head = vec![0x0a, u8::try_from(version.len()).unwrap()];
    head.extend(version);
    head.extend([0x12, u8::try_from(kind.len()).unwrap()]);
    head.extend(kind);
    body.extend([0x0a, u8::try_from(head.len()).unwrap()]);
    body.extend(head);
    body.extend([0x12, u8::try_from(inside.len()).unwrap()]);
    body.extend(inside);
    let headers = [("content-type", "application/vnd.kubernetes.protobuf"), ("accept", "application/json")];
    let answer = world.send(Method::POST, &path, &headers, body).await.is(201);
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    assert!(is_believed(&world, answer["status"]["token"].as_str().unwrap()).await);
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_in_the_words_of_kubernetes() {
    let world = World::new().await;
    account(&world, "a").await;
    account(&world, "b").await;
    let ask = async |name: &str, request: Value| world.post(&format!("{ACCOUNTS}/{name}/token"), request).await;
    let short = ask("a", json!({"spec": {"expirationSeconds": 599}})).await;
    assert_eq!(
        short.says(422),
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a \
         duration less than 10 minutes"
    );
    let long = ask("a", json!({"spec": {"expirationSeconds": (1_i64 << 32) + 1}})).await;
    assert!(long.says(422).ends_with("may not specify a duration larger than 2^32 seconds"));
    let other = ask("a", json!({"metadata": {"name": "b"}})).await;
    assert_eq!(
        other.says(422),
        "TokenRequest.authentication.k8s.io \"a\" is invalid: metadata.name: Invalid value: \"b\": must match the service \
         account name if specified"
    );
    assert_eq!(ask("none", json!({})).await.says(404), "serviceaccounts \"none\" not found");
    let bound = async |name: &str, reference: Value| ask(name, json!({"spec": {"boundObjectRef": reference}})).await;
    let missing = bound("a", json!({"kind": "Secret", "apiVersion": "v1", "name": "none"})).await;
    assert_eq!(missing.says(404), "secrets \"none\" not found");
    let strange = bound("a", json!({"kind": "ConfigMap", "apiVersion": "v1", "name": "x"})).await;
    assert_eq!(strange.says(400), "cannot bind token to object of type /v1, Kind=ConfigMap");
    let secret = json!({"metadata": {"name": "s"}});
    world.post(SECRETS, secret).await.is(201);
    let wrong = bound("a", json!({"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "other"})).await;
    assert!(
        wrong.says(409).contains("the UID in the bound object reference (other) does not match the UID in record.")
    );
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "b", "containers": [{"name": "c", "image": "i"}]},
    });
    world.post(PODS, pod).await.is(201);
    let foreign = bound("a", json!({"kind": "Pod", "apiVersion": "v1", "name": "p"})).await;
    assert_eq!(
        foreign.says(400),
        "cannot bind token for serviceaccount \"a\" to pod running with different serviceaccount name."
    );
    assert_eq!(ask("a", json!({"kind": "Pod"})).await.code, 400);
    assert_eq!(world.get(&format!("{ACCOUNTS}/a/token")).await.code, 405);
    assert_eq!(world.post("/api/v1/namespaces/default/configmaps/a/token", json!({})).await.code, 404);
}

#[tokio::test]
async fn a_token_lasts_no_longer_than_the_platform_allows() {
    let service_accounts = service_accounts::Settings { max_token_seconds: 1000, ..Default::default() };
    let world = World::with(Settings { service_accounts, ..Settings::default() }).await;
    account(&world, "a").await;
    let path = format!("{ACCOUNTS}/a/token");
    let answer = world.post(&path, json!({"spec": {"expirationSeconds": 5000}})).await;
    assert!(answer.warnings()[0].contains("requested expiration of 5000 seconds shortened to 1000 seconds"));
    let answer = answer.is(201);
    assert_eq!(answer["spec"]["expirationSeconds"], 1000);
    let claims = claims(answer["status"]["token"].as_str().unwrap());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 1000);
}

#[tokio::test]
async fn a_token_for_somebody_else_is_not_for_us() {
    let world = World::new().await;
    account(&world, "a").await;
    assert!(!is_believed(&world, &token(&world, json!({"audiences": ["vault"]})).await).await);
    assert!(is_believed(&world, &token(&world, json!({"audiences": ["vault", ISSUER]})).await).await);
}

#[tokio::test]
async fn a_token_ends_with_its_account_also_when_a_new_one_takes_the_name() {
    let world = World::new().await;
    account(&world, "a").await;
    let token = token(&world, json!({})).await;
    assert!(is_believed(&world, &token).await);
    let gone = world.delete(&format!("{ACCOUNTS}/a"), Value::Null).await.is(200);
    assert_eq!(gone["kind"], "ServiceAccount", "a deletion answers the object");
    assert!(!is_believed(&world, &token).await);
    account(&world, "a").await;
    assert!(!is_believed(&world, &token).await);
}

#[tokio::test]
async fn a_token_ends_with_the_object_that_it_is_bound_to() {
    let world = World::new().await;
    account(&world, "a").await;
    let secret = json!({"metadata": {"name": "s"}});
    let made = world.post(SECRETS, secret.clone()).await.is(201);
    let reference = json!({"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": made["metadata"]["uid"]});
    let token = token(&world, json!({ "boundObjectRef": reference })).await;
    let bound = &claims(&token)["kubernetes.io"]["secret"];
    assert_eq!(*bound, json!({"name": "s", "uid": made["metadata"]["uid"]}));
    assert!(is_believed(&world, &token).await);
    world.delete(&format!("{SECRETS}/s"), Value::Null).await.is(200);
    assert!(!is_believed(&world, &token).await);
    world.post(SECRETS, secret).await.is(201);
    assert!(!is_believed(&world, &token).await, "it is another Secret");
}

#[tokio::test]
async fn the_token_of_a_pod_says_where_it_runs_and_is_good_for_longer_than_it_says() {
    let world = World::new().await;
    account(&world, "a").await;
    let node = world.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.is(201);
    let spec = json!({"serviceAccountName": "a", "nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
    let pod = world.post(PODS, json!({"metadata": {"name": "p"}, "spec": spec})).await.is(201);
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "p"});
    let answer = request(&world, json!({"boundObjectRef": reference, "expirationSeconds": 3607})).await;
    assert_eq!(answer["spec"]["expirationSeconds"], 3607);
    let token = answer["status"]["token"].as_str().unwrap();
    let claims = claims(token);
    let begin = claims["iat"].as_i64().unwrap();
    assert_eq!(claims["exp"], begin + 365 * 24 * 3600);
    let bound = &claims["kubernetes.io"];
    assert_eq!(bound["warnafter"], begin + 3607);
    assert_eq!(bound["pod"], json!({"name": "p", "uid": pod["metadata"]["uid"]}));
    assert_eq!(bound["node"], json!({"name": "n", "uid": node["metadata"]["uid"]}));
    world.delete("/api/v1/nodes/n", Value::Null).await.is(200);
    assert!(is_believed(&world, token).await, "the node is only told of");
    world.delete(&format!("{PODS}/p"), json!({"gracePeriodSeconds": 0})).await.is(200);
    assert!(!is_believed(&world, token).await);
}

#[tokio::test]
async fn a_token_of_a_node_ends_with_the_node() {
    let world = World::new().await;
    account(&world, "a").await;
    world.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.is(201);
    let token = token(&world, json!({"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "n"}})).await;
    assert!(is_believed(&world, &token).await);
    world.delete("/api/v1/nodes/n", Value::Null).await.is(200);
    assert!(!is_believed(&world, &token).await);
}

#[tokio::test]
async fn what_we_did_not_sign_is_refused() {
    let world = World::new().await;
    account(&world, "a").await;
    let token = token(&world, json!({})).await;
    let elsewhere = World::new().await;
    account(&elsewhere, "a").await;
    let parts: Vec<&str> = token.split('.').collect();
    let mut raised = claims(&token);
    raised["sub"] = "system:serviceaccount:kube-system:root".into();
    let raised = URL_SAFE_NO_PAD.encode(raised.to_string());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let foreign = self::token(&elsewhere, json!({})).await;
    for forged in [
        foreign,
        format!("{}.{raised}.{}", parts[0], parts[2]),
        format!("{none}.{}.", parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        "nonsense".to_owned(),
    ] {
        assert_eq!(world.with_token(&forged, GUARDED).await.says(401), "Unauthorized", "{forged}");
        assert_eq!(world.with_token(&forged, "/version").await.code, 401, "not even as nobody");
    }
}

#[tokio::test]
async fn tokens_stay_good_when_the_platform_starts_anew_with_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys").to_str().unwrap().to_owned();
    let service_accounts = service_accounts::Settings { keys, ..Default::default() };
    let settings = Settings { service_accounts, ..Settings::default() };
    let storage = onex_storage::open(&"memory:".parse().unwrap(), &Default::default()).await.unwrap();
    let first = World::over(storage.clone(), settings.clone()).await;
    account(&first, "a").await;
    let token = token(&first, json!({})).await;
    drop(first);
    let second = World::over(storage, settings).await;
    assert!(is_believed(&second, &token).await);
}

#[tokio::test]
async fn other_programs_find_the_keys_and_can_check_a_token_with_them() {
    let world = World::new().await;
    account(&world, "a").await;
    let paths = world.get("/").await.is(200);
    for path in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
        assert!(paths["paths"].as_array().unwrap().contains(&path.into()));
    }
    let headers = [("host", "apiserver.example:6443")];
    let answer = world.send(Method::GET, "/.well-known/openid-configuration", &headers, "").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "public, max-age=3600");
    assert_eq!(
        answer.is(200),
        json!({
            "issuer": ISSUER, "jwks_uri": "https://apiserver.example:6443/openid/v1/jwks",
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    );
    let answer = world.get("/openid/v1/jwks").await;
    assert_eq!(answer.headers["content-type"], "application/jwk-set+json");
    let keys = answer.is(200);
    let key = &keys["keys"][0];
    let token = token(&world, json!({})).await;
    assert_eq!(part(&token, 0), json!({"alg": "ES256", "kid": key["kid"]}));
    let bytes = |text: &Value| URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap();
    let point = [vec![4], bytes(&key["x"]), bytes(&key["y"])].concat();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &signature).unwrap();
    assert_eq!(world.get("/openid/v1").await.code, 404);
}

#[tokio::test]
async fn discovery_speaks_of_token_requests() {
    let world = World::new().await;
    let core = world.get("/api/v1").await.is(200);
    let resources = core["resources"].as_array().unwrap();
    let token = resources.iter().find(|resource| resource["name"] == "serviceaccounts/token").unwrap();
    assert_eq!(
        *token,
        json!({
            "name": "serviceaccounts/token", "singularName": "", "namespaced": true,
            "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest", "verbs": ["create"],
        })
    );
}
