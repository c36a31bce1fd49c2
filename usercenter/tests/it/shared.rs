//! Two usercenters over one MariaDB, which dies and comes back.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::mariadb::Mariadb;
use crate::world::{Answer, PASSWORD, World, settings, text};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until the answer has this code.
async fn until(code: u16, what: &str, ask: impl AsyncFn() -> Answer) {
    let started = Instant::now();
    loop {
        let answer = ask().await;
        if answer.code == code {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_at_one_is_refused_at_the_other_and_both_outlive_a_crash_of_the_database() {
    let server = tokio::task::spawn_blocking(Mariadb::start).await.unwrap();
    let url = server.database();
    let one = World::over(&url, settings()).await;
    let quick = onex_db::Settings { connect_seconds: 1, answer_seconds: 5, ..onex_db::Settings::default() };
    let other = one.another_over(onex_db::open(&url, &quick).unwrap()).await;
    let stop = CancellationToken::new();
    let following = tokio::spawn(other.center.clone().run(stop.clone()));

    let (_, token) = one.user("alice").await;
    other.whose(&token).await.ok();
    one.post("/v1/auth/logout", &token, json!({})).await.ok();
    until(401, "the logout is noticed", async || other.whose(&token).await).await;

    // A user who is made here may there what every user may.
    let (id, token) = one.user("bob").await;
    let ask = json!({ "token": token, "obj": "*", "act": "/gateway.v1.Gateway/ListMiner" });
    let allowed = async || {
        let answer = other.post("/v1/auth/auth", "", ask.clone()).await;
        if answer.body["allowed"] == true { answer } else { Answer { code: 0, ..answer } }
    };
    until(200, "the role is noticed", allowed).await;
    let signed = one.signed(&one.secret(&token, "ci").await);
    other.whose(&signed).await.ok();

    server.kill();
    until(503, "who is not remembered cannot be known", async || other.whose(&signed).await).await;
    other.login("bob", PASSWORD).await.fails(503, "Unavailable");
    tokio::task::block_in_place(|| server.restart());
    until(200, "the database is back", async || other.whose(&signed).await).await;
    until(200, "the other finds it too", async || one.login("bob", PASSWORD).await).await;
    let token = text(&one.login("bob", PASSWORD).await.ok()["accessToken"]);
    one.delete(&format!("/v1/users/{id}"), &token).await.ok();
    until(401, "the removal is noticed", async || other.whose(&signed).await).await;

    stop.cancel();
    following.await.unwrap().unwrap();
}
