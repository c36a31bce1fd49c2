//! Controllers that are asked to stop do so, whatever the apiserver does.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use onex_controllers::{Controllers, Settings};
use tokio_util::sync::CancellationToken;

#[tokio::test(start_paused = true)]
async fn controllers_that_never_saw_the_apiserver_stop_when_they_are_asked_to() {
    let away = Router::new().fallback(|| async { StatusCode::SERVICE_UNAVAILABLE });
    let stop = CancellationToken::new();
    let running = tokio::spawn(
        Controllers::new(Settings::default(), onex_client::over_router(away, "default")).run(stop.clone()),
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!running.is_finished(), "they wait for the apiserver");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("they stop").unwrap();
}
