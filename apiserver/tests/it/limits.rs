//! How many at once, for how long, and what becomes of them when the server ends.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, StatusCode, header};
use onex_apiserver::{Apiserver, Handles, Settings};
use onex_daemon::{listener::Peer, pki::Subject};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::world::{MAPS, World, map};

/// A body that goes on for ever.
fn endless() -> Body {
    Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>())
}

async fn as_bob(server: &Apiserver, path: &str) -> axum::response::Response {
    server.router_as("bob", &[]).oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
}

async fn storage() -> Arc<dyn onex_storage::Storage> {
    onex_storage::open(&"memory:".parse().unwrap(), &onex_storage::Settings::default()).await.unwrap()
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_is_told_to_come_back() {
    let settings = Settings { max_requests_in_flight: 1, max_mutating_requests_in_flight: 1, ..Settings::default() };
    let world = World::with(settings).await;
    let waiting = format!("{MAPS}?resourceVersion=999999&timeout=2s");
    let taken = async { tokio::join!(world.send(Method::POST, MAPS, &[], endless()), world.get(&waiting),) };
    let others = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let refused = as_bob(&world.server, "/version").await;
        assert_eq!(
            (refused.status(), &refused.headers()[header::RETRY_AFTER]),
            (StatusCode::TOO_MANY_REQUESTS, &1.into())
        );
        let body = axum::body::to_bytes(refused.into_body(), 1000).await.unwrap();
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&status["reason"], &status["code"]), (&json!("TooManyRequests"), &json!(429)));
        assert_eq!(as_bob(&world.server, "/readyz").await.status(), 200, "probes are never refused");
        world.get(MAPS).await.is(200); // nor is whoever may do everything
        world.post(MAPS, map("a")).await.is(201);
        let own = world.server.router_as("system:onex-controllers", &["system:masters"]);
        let asked = own.oneshot(Request::get("/version").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(asked.status(), 200);
    };
    tokio::select! { _ = taken => panic!("they take their places"), () = others => {} }
    let unlimited = Settings { max_requests_in_flight: 0, ..Settings::default() };
    assert_eq!(as_bob(&World::with(unlimited).await.server, "/version").await.status(), 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_and_nobody_is_told_to_repeat_it() {
    let world = World::new().await;
    let read = world.get("/api/v1/configmaps?resourceVersion=999999&timeout=20ms").await;
    assert_eq!(read.says(504), "Timeout: request did not complete within the allotted timeout");
    let write = world.send(Method::POST, &format!("{MAPS}?timeout=20ms"), &[], endless()).await;
    assert_eq!(
        write.says(504),
        "Timeout: request did not complete within requested timeout - context deadline exceeded"
    );
    assert!(write.headers.get(header::RETRY_AFTER).is_none() && read.headers.get(header::RETRY_AFTER).is_none());
    for (timeout, why) in [("soon", "invalid duration \"soon\""), ("5", "missing unit in duration \"5\"")] {
        let wrong = world.get(&format!("{MAPS}?timeout={timeout}")).await;
        assert_eq!(wrong.says(400), format!("invalid timeout specified in the request URL - time: {why}"));
    }
}

#[tokio::test(start_paused = true)]
async fn no_write_takes_longer_than_34_seconds() {
    // In memory in any case: nobody else's time stands still.
    let world = World::over(storage().await, Settings::default()).await;
    let began = tokio::time::Instant::now();
    world.send(Method::POST, &format!("{MAPS}?timeout=59s"), &[], endless()).await.is(504);
    // One second goes to what is left of the body.
    assert!((34..=35).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_ends_turns_away_what_is_new_and_finishes_what_is_not() {
    let settings = Settings { shutdown_delay_seconds: 1, ..Settings::default() };
    let server = Arc::new(Apiserver::new(settings, Handles::over(storage().await)).await.unwrap());
    let stop = CancellationToken::new();
    let run = tokio::spawn({
        let (server, stop) = (server.clone(), stop.clone());
        async move { server.run(stop).await }
    });
    server.ready().await;
    let router = server.router_as("admin", &["system:masters"]);
    let ask = async |request: Request<Body>| router.clone().oneshot(request).await.unwrap();
    let get = async |path: &str| ask(Request::get(path).body(Body::empty()).unwrap()).await;

    let mut watch = get("/api/v1/configmaps?watch=true&resourceVersion=0").await.into_body().into_data_stream();
    let (body, rest) = futures::channel::mpsc::unbounded::<Result<bytes::Bytes, std::io::Error>>();
    let in_flight = tokio::spawn(router.clone().oneshot(Request::post(MAPS).body(Body::from_stream(rest)).unwrap()));
    tokio::time::sleep(Duration::from_millis(50)).await;

    stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(get("/readyz").await.status(), 500, "nothing new should be sent here");
    assert_eq!(get("/livez").await.status(), 200);
    assert_eq!(get(MAPS).await.status(), 200, "and what is sent is answered for a while");
    assert!(!server.drained().is_cancelled());

    assert!(tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().is_none(), "watches end");
    let refused = get(MAPS).await;
    assert_eq!((refused.status(), &refused.headers()[header::RETRY_AFTER]), (StatusCode::TOO_MANY_REQUESTS, &5.into()));
    assert_eq!(get("/readyz").await.status(), 500);
    assert!(!run.is_finished(), "somebody is still being answered");

    body.unbounded_send(Ok(map("late").to_string().into())).unwrap();
    drop(body);
    assert_eq!(in_flight.await.unwrap().unwrap().status(), 201);
    tokio::time::timeout(Duration::from_secs(5), run).await.unwrap().unwrap();
    assert!(server.drained().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_the_store_is_being_read_is_told_to_come_back() {
    let storage = storage().await;
    World::over(storage.clone(), Settings::default()).await.post(MAPS, map("a")).await.is(201);
    let server = Apiserver::new(Settings::default(), Handles::over(storage)).await.unwrap(); // and nobody feeds it
    let router = server.router_as("admin", &["system:masters"]);
    let early = router.oneshot(Request::get(MAPS).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!((early.status(), &early.headers()[header::RETRY_AFTER]), (StatusCode::TOO_MANY_REQUESTS, &1.into()));
}

#[tokio::test]
async fn a_watch_ends_when_the_certificate_of_its_client_does() {
    let world = World::new().await;
    let now = jiff::Timestamp::now().as_second();
    let subject = Subject {
        common_name: "admin".to_owned(),
        organizations: vec!["system:masters".to_owned()],
        validity: now - 10..=now + 1,
    };
    let peer = Peer {
        certificates: Arc::new([vec![0].into()]),
        subject: Some(Arc::new(subject)),
        ..Peer::new(([127, 0, 0, 1], 1).into(), &[])
    };
    let mut request = Request::get(format!("{MAPS}?watch=true&timeoutSeconds=600")).body(Body::empty()).unwrap();
    request.extensions_mut().insert(peer);
    let answer = world.server.router().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let end = tokio::time::timeout(Duration::from_secs(10), answer.into_body().into_data_stream().next()).await;
    assert!(end.expect("nobody watches as somebody whom nobody knows any more").is_none());
}
