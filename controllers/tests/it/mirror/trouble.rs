//! A database that is killed, an apiserver that breaks off, a row that cannot be.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::*;

/// One row that could not be written would have stopped the mirror for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_keeps_out_no_other() {
    let world = World::over_mariadb(Mariadb::shared).await;
    let Database::Server(server) = &world.database else { unreachable!() };
    world.db.ready().await.unwrap();
    let table = format!("{}.gateway_miner", world.db.place().rsplit('/').next().unwrap());
    server.ask(&format!("alter table {table} add constraint refuse check (name <> 'refused')"));
    world.miner("refused").await;
    world.miner("before").await;
    let _running = world.mirrored(never());
    world.ready().await;
    world.miner("after").await;
    world.eventually(|| async { world.rows().await.len() == 2 }).await;
    assert_eq!(world.rows().await.into_keys().collect::<Vec<_>>(), ["after", "before"]);
    assert_eq!(world.number("refused_rows_total", "Miner"), 1.0);
}

/// Kills the server again and again while objects change, and in the end nothing differs.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_in_the_middle_of_changes_has_them_all_in_the_end() {
    let world = World::over_mariadb(|| Arc::new(Mariadb::start())).await;
    let Database::Server(server) = &world.database else { unreachable!() };
    let _running = world.mirrored(mirror::Settings { batch: 20, ..never() });
    world.ready().await;
    let over = CancellationToken::new();
    let changing = async {
        let mut at = 0;
        while !over.is_cancelled() || at < 300 {
            let name = format!("m{}", at % 100);
            if at < 100 {
                world.miner(&name).await;
            } else {
                let phase = ["Running", "Failed", "Provisioning"][at / 100 % 3];
                world.status::<Miner>(USER, &name, json!({ "phase": phase })).await;
            }
            if at % 7 == 0 {
                world.miner(&format!("short-{at}")).await;
                world.delete(&format!("short-{at}")).await;
            }
            at += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let killing = async {
        for _ in 0..3 {
            let wrote = world.number("transactions_total", "Miner");
            world.eventually(|| async { world.number("transactions_total", "Miner") > wrote }).await;
            tokio::task::block_in_place(|| server.kill());
            world.eventually(|| async { world.monitor.unready().iter().any(|line| line.contains("Miners")) }).await;
            let (code, said) = world.page("/readyz").await;
            assert_eq!((code, world.page("/livez").await.0), (500, 200));
            assert!(said.contains("not up to date") && !said.contains(crate::mariadb::PASSWORD), "{said}");
            assert!(world.number("lag_seconds", "Miner") > 0.0);
            tokio::task::block_in_place(|| server.restart());
            world.ready().await;
            assert_eq!(world.page("/readyz").await, (200, "ok".to_owned()));
        }
        over.cancel();
    };
    tokio::join!(changing, killing);
    world.rows_equal_objects().await;
    assert!(world.number("errors_total", "Miner") >= 3.0);
    assert_eq!(world.rows().await.len(), 100);
}

/// The mirror begins before its database does, as after a power cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_comes_late_is_waited_for() {
    let world = World::over_mariadb(|| Arc::new(Mariadb::start())).await;
    let Database::Server(server) = &world.database else { unreachable!() };
    tokio::task::block_in_place(|| server.kill());
    let running = world.mirrored(never());
    world.miner("m").await;
    world.eventually(|| async { world.monitor.unready().len() == 3 }).await;
    world.eventually(|| async { world.number("errors_total", "Miner") >= 2.0 }).await;
    tokio::task::block_in_place(|| server.restart());
    world.ready().await;
    world.rows_equal_objects().await;
    // It also stops while it waits.
    tokio::task::block_in_place(|| server.kill());
    tokio::time::timeout(PATIENCE, running.stop()).await.unwrap();
}

/// Without tables there is nothing to do, and the others work.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_the_mirror_rests() {
    let world = World::over_a_file().await;
    let settings = Settings { controllers: vec![Name::Mirror], ..Settings::default() };
    let stop = CancellationToken::new();
    let running = tokio::spawn(Controllers::new(settings, world.client.clone()).run(stop.clone()));
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
}

/// What happens to a watch of Miners.
#[derive(Clone, Copy)]
enum Fate {
    /// It ends, as when its time is over.
    Ends,
    /// It is refused: the apiserver remembers no longer what happened since.
    Refused,
    /// The same, told in the watch.
    Told,
    /// The apiserver has a bad moment.
    Fails,
}

fn fate(fate: Fate) -> Response {
    let status = |code: u16| json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": if code == 410 { "Expired" } else { "InternalError" }, "code": code});
    match fate {
        Fate::Ends => "".into_response(),
        Fate::Refused => (StatusCode::GONE, axum::Json(status(410))).into_response(),
        Fate::Told => format!("{}\n", json!({"type": "ERROR", "object": status(410)})).into_response(),
        Fate::Fails => (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(status(500))).into_response(),
    }
}

/// Where it may have missed something it compares; where it has not it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_goes_on_and_one_that_missed_something_is_made_up_for() {
    let world = World::over_a_file().await;
    let fates = Arc::new(Mutex::new(VecDeque::from([Fate::Ends, Fate::Refused, Fate::Fails, Fate::Told])));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let door = {
        let (fates, asked, client) = (fates.clone(), asked.clone(), world.client.clone());
        from_fn(move |request: Request, next: Next| {
            let (fates, asked, client) = (fates.clone(), asked.clone(), client.clone());
            async move {
                if !request.uri().path().ends_with("/miners") {
                    return next.run(request).await;
                }
                let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
                asked.lock().unwrap().push(if watches { "watch" } else { "list" });
                let next_fate = if watches { fates.lock().unwrap().pop_front() } else { None };
                let Some(it) = next_fate else { return next.run(request).await };
                // What happens meanwhile is what could be missed.
                let made = serde_json::from_value(miner(&format!("m{}", fates.lock().unwrap().len()))).unwrap();
                Api::<Miner>::namespaced(client, USER).create(&PostParams::default(), &made).await.unwrap();
                fate(it)
            }
        })
    };
    let apiserver = onex_client::over_router(world.router.clone().layer(door), "default");
    let _running = world.mirrored_through(apiserver, never());
    world.eventually(|| async { world.rows().await.len() == 4 }).await;
    world.eventually(|| async { world.is_ready().await }).await;
    // The last watch begins a moment after the copy is complete.
    world.eventually(|| async { asked.lock().unwrap().len() >= 9 }).await;
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["list", "watch", "watch", "list", "watch", "list", "watch", "list", "watch"]);
    assert_eq!(world.number("errors_total", "Miner"), 1.0, "of these only one is a failure");
    world.rows_equal_objects().await;
}
