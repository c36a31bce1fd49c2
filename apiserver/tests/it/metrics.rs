//! What scrapers of kube-apiserver find here.

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;
use tower::ServiceExt;

use crate::world::{MAPS, World, map};

/// The value of the one series that begins like this.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("there is no {series} in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_happened_is_counted_under_the_names_that_scrapers_know() {
    let world = World::new().await;
    let mut watch = world.watch(&format!("{MAPS}?watch=1")).await;
    world.post(MAPS, map("a")).await.is(201);
    world.post(&format!("{MAPS}?dryRun=All"), map("b")).await.is(201);
    world.post(MAPS, map("a")).await.is(409);
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"b": "1"}});
    world.patch("application/apply-patch+yaml", &format!("{MAPS}/a?fieldManager=m"), applied).await.is(200);
    watch.told().await;
    watch.told().await;
    world.get(&format!("{MAPS}?resourceVersion=999999&timeout=5ms")).await.is(504);
    let stranger = Request::get(MAPS).header("authorization", "Bearer none").body(Body::empty()).unwrap();
    assert_eq!(world.server.router().oneshot(stranger).await.unwrap().status(), 401);
    world.send(Method::GET, "/api/v1/made/up", &[], Body::empty()).await.is(404);

    let page = world.get("/metrics").await.text;
    let maps = |verb: &str, dry_run: &str, scope: &str| {
        format!(
            r#"{{verb="{verb}",dry_run="{dry_run}",group="",version="v1",resource="configmaps",subresource="",scope="{scope}",component="apiserver""#
        )
    };
    for (series, expected) in [
        (format!(r#"apiserver_request_total{},code="201""#, maps("POST", "", "resource")), 1.0),
        (format!(r#"apiserver_request_total{},code="409""#, maps("POST", "", "resource")), 1.0),
        (format!(r#"apiserver_request_total{},code="201""#, maps("POST", "All", "resource")), 1.0),
        (format!(r#"apiserver_request_total{},code="200""#, maps("APPLY", "", "resource")), 1.0),
        // One histogram for all codes.
        (format!("apiserver_request_duration_seconds_count{}}}", maps("POST", "", "resource")), 2.0),
        (format!(r#"apiserver_request_duration_seconds_bucket{},le="+Inf"}}"#, maps("POST", "", "resource")), 2.0),
        (format!(r#"apiserver_request_terminations_total{},code="504""#, maps("LIST", "", "namespace")), 1.0),
        (r#"apiserver_longrunning_requests{verb="WATCH",group="",version="v1",resource="configmaps""#.to_owned(), 1.0),
        (r#"apiserver_watch_events_total{group="",version="v1",kind="ConfigMap"}"#.to_owned(), 2.0),
        (r#"apiserver_current_inflight_requests{request_kind="readOnly"}"#.to_owned(), 1.0),
        (r#"apiserver_storage_objects{resource="configmaps"}"#.to_owned(), 1.0),
        (r#"authentication_attempts{result="failure"}"#.to_owned(), 1.0),
        (r#"kubernetes_build_info{major="1",minor="33","#.to_owned(), 1.0),
    ] {
        assert_eq!(value(&page, &series), expected, "{series}\n{page}");
    }
    for series in [
        r#"authentication_attempts{result="success"}"#,
        r#"etcd_request_duration_seconds_count{operation="put"}"#,
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(value(&page, series) > 0.0, "{series}");
    }
    assert!(!page.contains("made"), "nobody makes up labels");
    // Every family is described once, and every line belongs to one.
    let mut families: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.dedup();
    assert_eq!(families.len(), count);
}
