//! Login, refresh, logout, and what tokens are believed.

use onex_proto::token::{Algorithm, Audience, Claims, sign};
use serde_json::json;

use crate::world::{PASSWORD, World, settings, text};

#[tokio::test]
async fn a_login_gives_tokens_that_last_as_long_as_they_say() {
    let world = World::new().await;
    let id = world.register("alice").await;
    let reply = world.login("alice", PASSWORD).await.ok();
    assert_eq!(reply["type"], "Bearer");
    assert_eq!(reply["expiresAt"], (world.seconds() + 7200).to_string());
    let (access, refresh) = (text(&reply["accessToken"]), text(&reply["refreshToken"]));
    assert_eq!(world.whose(&access).await.ok()["userID"], id.as_str());
    // The gateway takes no refresh tokens; the usercenter takes both.
    world.whose(&refresh).await.fails(401, "Unauthorized");
    for token in [&access, &refresh] {
        world.get(&format!("/v1/users/{id}"), token).await.ok();
    }
    world.pass(7199);
    world.whose(&access).await.ok();
    world.pass(1);
    let expired = world.whose(&access).await.fails(401, "Unauthorized");
    assert_eq!(expired["message"], "The token has expired");
    let renewed = world.post("/v1/auth/refresh-token", &refresh, json!({})).await.ok();
    assert_eq!(world.whose(&text(&renewed["accessToken"])).await.ok()["userID"], id.as_str());
    world.pass(86_400);
    let refresh = text(&renewed["refreshToken"]);
    world.post("/v1/auth/refresh-token", &refresh, json!({})).await.fails(401, "Unauthorized");
}

#[tokio::test]
async fn a_refresh_token_that_is_shown_twice_ends_its_session() {
    let world = World::new().await;
    world.register("alice").await;
    let first = world.login("alice", PASSWORD).await.ok();
    let elsewhere = world.login("alice", PASSWORD).await.ok();
    let stolen = text(&first["refreshToken"]);
    let second = world.post("/v1/auth/refresh-token", &stolen, json!({})).await.ok();
    world.whose(&text(&second["accessToken"])).await.ok();
    world.get("/v1/secrets", &stolen).await.fails(401, "Unauthorized");
    world.post("/v1/auth/refresh-token", &stolen, json!({})).await.fails(401, "Unauthorized");
    world.whose(&text(&second["accessToken"])).await.fails(401, "Unauthorized");
    world.post("/v1/auth/refresh-token", &text(&second["refreshToken"]), json!({})).await.fails(401, "Unauthorized");
    world.whose(&text(&elsewhere["accessToken"])).await.ok();
}

#[tokio::test]
async fn a_logout_ends_one_session_by_either_token() {
    let world = World::new().await;
    world.register("alice").await;
    for token in ["accessToken", "refreshToken"] {
        let (here, there) = (world.login("alice", PASSWORD).await.ok(), world.login("alice", PASSWORD).await.ok());
        world.whose(&text(&here["accessToken"])).await.ok();
        world.post("/v1/auth/logout", &text(&here[token]), json!({})).await.ok();
        world.whose(&text(&here["accessToken"])).await.fails(401, "Unauthorized");
        world.post("/v1/auth/refresh-token", &text(&here["refreshToken"]), json!({})).await.fails(401, "Unauthorized");
        world.whose(&text(&there["accessToken"])).await.ok();
    }
}

#[tokio::test]
async fn guessing_locks_out_whoever_guesses_and_nobody_learns_which_names_there_are() {
    let world = World::new().await;
    world.register("alice").await;
    for name in ["alice", "nobody"] {
        for _ in 0..5 {
            let refused = world.login(name, "wrong horse 1").await.fails(401, "UserLoginFailed");
            assert_eq!(refused["message"], "Incorrect username or password");
        }
        let locked = world.login(name, PASSWORD).await;
        assert_eq!(locked.headers["retry-after"], "30");
        locked.fails(429, "RATELIMIT");
    }
    world.pass(30);
    world.login("alice", PASSWORD).await.ok();
}

#[tokio::test]
async fn many_sessions_end_the_oldest() {
    let world = World::with(onex_usercenter::Settings { sessions_per_user: 2, ..settings() }).await;
    world.register("alice").await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(text(&world.login("alice", PASSWORD).await.ok()["accessToken"]));
    }
    world.whose(&tokens[0]).await.fails(401, "Unauthorized");
    world.whose(&tokens[1]).await.ok();
    world.whose(&tokens[2]).await.ok();
}

#[tokio::test]
async fn a_token_signed_with_a_key_pair_is_believed_by_any_of_three_algorithms_and_only_as_it_may_be() {
    let world = World::new().await;
    let (id, token) = world.user("alice").await;
    let (other, _) = world.user("bob").await;
    let pair = world.secret(&token, "ci").await;
    let with = |algorithm, claims: Claims| sign(pair.1.as_bytes(), algorithm, Some(&pair.0), &claims);
    for &algorithm in Algorithm::ALL {
        let token = with(algorithm, world.claims());
        assert_eq!(world.whose(&token).await.ok()["userID"], id.as_str());
        // The usercenter takes it too.
        world.get("/v1/secrets", &token).await.ok();
    }
    let audience = |name: &str| Some(Audience::Many(vec![name.to_owned()]));
    for claims in [
        Claims { sub: id.clone(), ..world.claims() },
        Claims { aud: audience("onex"), ..world.claims() },
        Claims { nbf: world.seconds() + 4, ..world.claims() },
    ] {
        world.whose(&with(Algorithm::Hs256, claims)).await.ok();
    }
    for claims in [
        Claims { sub: other, ..world.claims() },
        Claims { iss: "onex-usercenter".to_owned(), sub: id, sid: pair.0.clone(), ..world.claims() },
        Claims { exp: None, ..world.claims() },
        Claims { exp: Some(world.seconds()), ..world.claims() },
        Claims { nbf: world.seconds() + 60, ..world.claims() },
        Claims { aud: audience("elsewhere"), ..world.claims() },
    ] {
        world.whose(&with(Algorithm::Hs256, claims.clone())).await.fails(401, "Unauthorized");
        world.get("/v1/secrets", &with(Algorithm::Hs256, claims)).await.fails(401, "Unauthorized");
    }
}

#[tokio::test]
async fn no_kind_of_token_is_taken_for_another() {
    let world = World::new().await;
    let (id, access) = world.user("alice").await;
    let pair = world.secret(&access, "ci").await;
    let session = onex_proto::token::Unverified::read(&access).unwrap().kid().to_owned();
    let ours = Claims { iss: "onex-usercenter".to_owned(), sub: id, sid: session.clone(), ..world.claims() };
    for forged in [
        // A key pair's key under the name of a session, and the other way round.
        sign(pair.1.as_bytes(), Algorithm::Hs512, Some(&session), &ours),
        sign(pair.1.as_bytes(), Algorithm::Hs512, None, &Claims { jti: "1".to_owned(), ..ours.clone() }),
        sign(b"", Algorithm::Hs512, None, &Claims { jti: "1".to_owned(), ..ours.clone() }),
        sign(b"", Algorithm::Hs256, Some(&pair.0), &world.claims()),
        sign(pair.1.as_bytes(), Algorithm::Hs256, Some("../../etc/passwd"), &world.claims()),
        sign(pair.1.as_bytes(), Algorithm::Hs256, Some("' or '1'='1"), &world.claims()),
        sign(pair.1.as_bytes(), Algorithm::Hs256, Some(&uuid::Uuid::new_v4().to_string()), &world.claims()),
        sign(pair.0.as_bytes(), Algorithm::Hs256, Some(&pair.0), &world.claims()),
    ] {
        world.whose(&forged).await.fails(401, "Unauthorized");
        world.get("/v1/secrets", &forged).await.fails(401, "Unauthorized");
        world.post("/v1/auth/refresh-token", &forged, json!({})).await.fails(401, "Unauthorized");
    }
    // A refresh takes a refresh token only.
    world.post("/v1/auth/refresh-token", &access, json!({})).await.fails(401, "Unauthorized");
    world.post("/v1/auth/refresh-token", &world.signed(&pair), json!({})).await.fails(401, "Unauthorized");
}
