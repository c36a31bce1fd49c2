//! The usercenter within the platform: over TLS, with the administrator's first password, and again after a restart.

use std::sync::Arc;

use axum::http::{Request, Uri};
use onex_proto::usercenter as v1;
use onex_proto::usercenter::user_center_client::UserCenterClient;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::up::{Platform, said};

fn endpoint(platform: &Platform, part: &str) -> Uri {
    let text = std::fs::read(platform.path().join("endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_slice(&text).unwrap();
    endpoints[part].as_str().unwrap_or_else(|| panic!("{endpoints}")).parse().unwrap()
}

fn authority(platform: &Platform) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(platform.path().join("pki/ca.crt")).unwrap()
}

async fn post(platform: &Platform, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let mut config = kube::Config::new(endpoint(platform, "usercenter"));
    config.root_cert = Some(vec![authority(platform).to_vec()]);
    let client = kube::Client::try_from(config).unwrap();
    let request = Request::post(path).header("content-type", "application/json").body(body.to_string().into_bytes());
    Ok(serde_json::from_str(&client.request_text(request.unwrap()).await?).unwrap())
}

async fn login_over_grpc(platform: &Platform, password: &str) -> v1::LoginReply {
    let tls = onex_daemon::pki::client_config(&authority(platform), None).unwrap();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(Arc::unwrap_or_clone(tls))
        .https_only()
        .enable_http2()
        .build();
    let executor = hyper_util::rt::TokioExecutor::new();
    let http = hyper_util::client::legacy::Client::builder(executor).http2_only(true).build(connector);
    let mut client = UserCenterClient::with_origin(http, endpoint(platform, "usercenterGrpc"));
    let request = v1::LoginRequest { username: "admin".into(), password: password.into() };
    client.login(request).await.unwrap().into_inner()
}

#[test]
fn a_backup_of_a_running_platform_has_its_users_and_their_sessions() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut first = Platform::ready();
    let text = String::from_utf8(first.end().stdout).unwrap();
    let password = text.lines().find_map(|line| line.strip_prefix("password: ")).unwrap();
    let mut platform = first.again();
    let login = json!({ "username": "admin", "password": password });
    let reply = runtime.block_on(post(&platform, "/v1/auth/login", &login)).unwrap();
    let (backup, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = backup.path().join("copy");
    let place = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let says = |arguments: &[&str]| {
        let output = crate::up::onex(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    says(&["backup", &place(&copy), "--data-dir", &place(platform.path())]);
    platform.end();
    says(&["restore", &place(&copy), "--data-dir", &place(data.path())]);
    let mut restored = Platform::ready_in(data);
    runtime.block_on(async {
        let whose = json!({ "token": reply["accessToken"] });
        assert_eq!(post(&restored, "/v1/auth/authenticate", &whose).await.unwrap()["userID"], "user-admin");
        post(&restored, "/v1/auth/login", &login).await.unwrap();
    });
    let output = said(&restored.end());
    assert!(!output.contains("password: "), "{output}");
}

#[test]
fn the_administrator_is_told_a_password_once_and_logs_in_over_both_doors_also_after_a_restart() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut platform = Platform::ready();
    let first = platform.end();
    let text = String::from_utf8(first.stdout.clone()).unwrap();
    let password = text.lines().find_map(|line| line.strip_prefix("password: ")).unwrap_or_else(|| panic!("{text}"));
    let mut platform = platform.again();
    runtime.block_on(async {
        let login = json!({ "username": "admin", "password": password });
        let reply = post(&platform, "/v1/auth/login", &login).await.unwrap();
        let whose = json!({ "token": reply["accessToken"] });
        assert_eq!(post(&platform, "/v1/auth/authenticate", &whose).await.unwrap()["userID"], "user-admin");
        // A token from one door opens the other.
        let token = login_over_grpc(&platform, password).await.access_token;
        let whose = post(&platform, "/v1/auth/authenticate", &json!({ "token": token })).await.unwrap();
        assert_eq!(whose["userID"], "user-admin");
        let wrong = json!({ "username": "admin", "password": "wrong horse 1" });
        post(&platform, "/v1/auth/login", &wrong).await.unwrap_err();
    });
    let second = said(&platform.end());
    assert!(!second.contains("password: "), "{second}");
    assert!(!second.contains(password), "{second}");
}
