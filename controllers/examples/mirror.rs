//! Measures how many changes a second the mirror writes: `cargo run --release -p onex-controllers --example mirror -- URL [CHANGES] [OBJECTS]`.
//!
//! The apiserver is only pretended: it tells changes of Miners as fast as they are taken, so that what is measured is the mirror
//! (reading, decoding, writing) and the database. Changes go round all objects, so that nearly none is spared because
//! another change of the same object came with it.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for the terminal")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt;
use onex_controllers::{Controllers, Name, Settings, mirror};
use onex_db::mirror::Miner;
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(default, |number| number.parse::<usize>().unwrap());
    let url = arguments.first().expect("the URL of a database").parse().unwrap();
    let (changes, objects) = (number(1, 500_000), number(2, 100_000));
    let db = onex_db::open(&url, &Default::default()).unwrap();
    let position = db.mirror::<Miner>().position().await.unwrap();
    assert_eq!(position, Default::default(), "somebody has mirrored into this database before: give an empty one");
    let service = tower::service_fn(move |request: Request<kube::client::Body>| async move {
        Ok::<_, Infallible>(answer(request.uri(), changes, objects))
    });
    let settings = Settings { controllers: vec![Name::Mirror], ..Settings::default() };
    let monitor = Arc::<mirror::Monitor>::default();
    let controllers = Controllers::new(settings, kube::Client::new(service, "default"));
    let stop = CancellationToken::new();
    let table = db.mirror::<Miner>();
    let running = tokio::spawn(controllers.with_mirror(db, monitor.clone()).run(stop.clone()));
    let began = Instant::now();
    let last = u64::try_from(changes).unwrap() + 1;
    while !table.reached(last, Duration::from_secs(60)).await.unwrap() {}
    let took = began.elapsed();
    let rate = changes as f64 / took.as_secs_f64();
    let rows = table.list(&Default::default()).await.unwrap().total;
    println!(
        "{changes} changes of {objects} Miners in {took:.1?}: {rate:.0} changes/s; {rows} rows over {}",
        table.place()
    );
    for line in monitor.metrics().lines().filter(|line| line.contains("Miner\"") && !line.contains("#")) {
        println!("  {line}");
    }
    stop.cancel();
    running.await.unwrap();
}

fn answer(uri: &http::Uri, changes: usize, objects: usize) -> Response<Body> {
    let (is_miners, query) = (uri.path().ends_with("/miners"), uri.query().unwrap_or_default());
    if !query.contains("watch=true") {
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
        return Response::new(Body::from(list.to_string()));
    }
    if !is_miners || !query.contains("resourceVersion=1") {
        return Response::new(Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>()));
    }
    // Many lines at once, as a connection that is read slowly has them.
    let frames = futures::stream::iter((0..changes).collect::<Vec<_>>()).chunks(100).map(move |some| {
        let text: String = some.into_iter().map(|at| line(at, objects)).collect();
        Ok::<_, Infallible>(Bytes::from(text))
    });
    Response::new(Body::from_stream(frames.chain(futures::stream::pending())))
}

fn line(at: usize, objects: usize) -> String {
    let (object, round) = (at % objects, at / objects);
    let (phase, revision) = (["Pending", "Provisioning", "Running"][round % 3], at + 2);
    // As large as a real one without its managed fields.
    format!(
        r#"{{"type":"{kind}","object":{{"apiVersion":"apps.onex.io/v1beta1","kind":"Miner","metadata":{{"name":"miner-{object}","namespace":"user-admin","uid":"7c5c4a3e-5b7d-4f4e-9d8e-{object:012}","resourceVersion":"{revision}","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{{"apps.onex.io/minerset":"test","apps.onex.io/minerset-name":"test"}},"annotations":{{"apps.onex.io/vCPU":"50m","apps.onex.io/memoryMb":"128Mi"}},"finalizers":["miner.onex.io/finalizer"]}},"spec":{{"metadata":{{}},"displayName":"miner-for-test-minerset","minerType":"S1.SMALL1","chainName":"genesis","restartPolicy":"Always","podDeletionTimeout":"10s"}},"status":{{"podRef":{{"kind":"Pod","namespace":"user-admin","name":"miner-{object}"}},"phase":"{phase}","observedGeneration":1,"conditions":[{{"type":"PodHealthy","status":"True","severity":"","lastTransitionTime":"2026-01-01T00:00:00Z"}}]}}}}}}
"#,
        kind = if round == 0 { "ADDED" } else { "MODIFIED" },
    )
}
