//! What is recorded of requests.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use onex_apiserver::{Handles, Settings};
use onex_audit::{AuditLog, Decision, Memory};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{MAPS, World, map};

/// An apiserver that records, and where it does.
struct Audited {
    world: World,
    log: PathBuf,
    platform: Arc<Memory>,
    _directory: tempfile::TempDir,
}

impl Audited {
    async fn by(policy: &str) -> Self {
        Self::with(policy, |_| {}).await
    }

    async fn with(policy: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (directory.path().join("policy.yaml"), directory.path().join("audit.log"));
        std::fs::write(&file, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}")).unwrap();
        let mut settings = Settings::default();
        settings.audit.policy_file = file.display().to_string();
        settings.audit.log_file = log.display().to_string();
        settings.audit.platform = true;
        settings.audit.wait = true;
        change(&mut settings);
        let platform = Arc::new(Memory::new(&onex_audit::Settings::default()));
        let handles = Handles { audit: Some(platform.clone()), ..Handles::over(storage().await) };
        let world = World::unready_of(handles, settings).await;
        world.server.ready().await;
        Self { world, log, platform, _directory: directory }
    }

    /// The events so far, without those that are expected to be there.
    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The events, once there are so many.
    async fn events_are(&self, count: usize) -> Vec<Value> {
        for _ in 0..500 {
            if self.events().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let events = self.events();
        assert_eq!(events.len(), count, "{events:#?}");
        events
    }
}

async fn storage() -> Arc<dyn onex_storage::Storage> {
    onex_storage::open(&"memory:".parse().unwrap(), &onex_storage::Settings::default()).await.unwrap()
}

async fn ask(router: Router, request: Request<Body>) -> u16 {
    let response = router.oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    code
}

#[tokio::test]
async fn an_event_says_who_did_what_and_how_it_ended() {
    let audited = Audited::by("rules: [{level: Metadata}]").await;
    let mut object = map("");
    object["metadata"] = json!({"generateName": "made-"});
    let made = audited.world.post(&format!("{MAPS}?fieldManager=me"), object).await.is(201);
    let events = audited.events();
    assert_eq!(events.len(), 2);
    let (received, complete) = (&events[0], &events[1]);
    assert_eq!((&received["stage"], &complete["stage"]), (&json!("RequestReceived"), &json!("ResponseComplete")));
    assert_eq!(received["auditID"], complete["auditID"]);
    for field in ["kind", "apiVersion", "level", "verb", "requestURI"] {
        let wanted = match field {
            "kind" => "Event",
            "apiVersion" => "audit.k8s.io/v1",
            "level" => "Metadata",
            "verb" => "create",
            _ => "/api/v1/namespaces/default/configmaps?fieldManager=me",
        };
        assert_eq!(complete[field], wanted);
    }
    assert_eq!(complete["user"]["username"], "admin");
    assert_eq!(complete["user"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(complete["responseStatus"]["code"], 201);
    assert_eq!(complete["annotations"]["authorization.k8s.io/decision"], "allow");
    let about = &complete["objectRef"];
    assert_eq!((&about["resource"], &about["namespace"]), (&json!("configmaps"), &json!("default")));
    assert_eq!((&about["name"], &about["uid"]), (&made["metadata"]["name"], &made["metadata"]["uid"]));
    assert!(complete.get("requestObject").is_none() && complete.get("responseObject").is_none());
    let time = complete["stageTimestamp"].as_str().unwrap();
    assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    let answered = audited.world.get(&format!("{MAPS}/nothing")).await;
    assert_eq!(answered.headers["audit-id"], audited.events()[2]["auditID"].as_str().unwrap());
    let failed = &audited.events()[3]["responseStatus"];
    assert_eq!((&failed["code"], &failed["reason"]), (&json!(404), &json!("NotFound")));
}

#[tokio::test]
async fn objects_are_recorded_as_far_as_the_policy_says() {
    let audited = Audited::by(
        r#"
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: RequestResponse, verbs: [create, list]}
- {level: Request}
"#,
    )
    .await;
    let kept = audited.world.post(MAPS, map("a")).await.is(201);
    audited.world.merge(&format!("{MAPS}/a"), json!({"data": {"b": "2"}})).await.is(200);
    let listed = audited.world.get(MAPS).await.is(200);
    let events = audited.events();
    assert_eq!(events.len(), 3);
    assert_eq!(events[0]["requestObject"]["data"], json!({"a": "1"}));
    assert_eq!(events[0]["responseObject"]["metadata"]["uid"], kept["metadata"]["uid"]);
    assert!(events[0]["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(events[1]["requestObject"], json!({"data": {"b": "2"}}));
    assert!(events[1].get("responseObject").is_none());
    let items = |list: &Value| list["items"].as_array().unwrap().len();
    assert_eq!(items(&events[2]["responseObject"]), items(&listed));
}

#[tokio::test]
async fn what_is_secret_stays_secret() {
    let audited = Audited::by("rules: [{level: RequestResponse}]").await;
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hunter2"}});
    audited.world.post("/api/v1/namespaces/default/secrets", secret).await.is(201);
    let text = std::fs::read_to_string(&audited.log).unwrap();
    assert!(text.contains("\"secrets\"") && !text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
}

#[tokio::test]
async fn those_who_are_not_let_in_are_recorded_too() {
    let audited = Audited::by("omitStages: [RequestReceived]\nrules: [{level: Metadata}]").await;
    let router = audited.world.server.router();
    let wrong = Request::get("/api/v1/pods").header(header::AUTHORIZATION, "Bearer guessed").body(Body::empty());
    assert_eq!(ask(router.clone(), wrong.unwrap()).await, 401);
    let stranger = Request::get("/api/v1/pods").header("x-forwarded-for", "203.0.113.7, junk").body(Body::empty());
    assert_eq!(ask(router, stranger.unwrap()).await, 403);
    let other = Request::get(MAPS).header("impersonate-user", "bob").body(Body::empty()).unwrap();
    assert_eq!(ask(audited.world.server.router_as("ann", &["system:masters"]), other).await, 403);
    let events = audited.events_are(3).await;
    assert_eq!(events[0]["responseStatus"]["code"], 401);
    assert!(!events[0].to_string().contains("guessed"));
    assert_eq!(events[1]["user"]["username"], "system:anonymous");
    assert_eq!(events[1]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(events[1]["sourceIPs"], json!(["203.0.113.7"]));
    assert_eq!(
        (&events[2]["user"]["username"], &events[2]["impersonatedUser"]["username"]),
        (&json!("ann"), &json!("bob"))
    );
}

#[tokio::test]
async fn a_watch_is_recorded_when_it_begins_and_when_it_ends() {
    let audited = Audited::by("omitStages: [RequestReceived]\nrules: [{level: Metadata}]").await;
    let watch = audited.world.watch(&format!("{MAPS}?watch=true")).await;
    let events = audited.events_are(1).await;
    assert_eq!((&events[0]["stage"], &events[0]["verb"]), (&json!("ResponseStarted"), &json!("watch")));
    drop(watch);
    let events = audited.events_are(2).await;
    assert_eq!(events[1]["stage"], "ResponseComplete");
}

#[tokio::test]
async fn each_request_is_one_record_of_the_platforms_own_log() {
    let audited = Audited::by("rules: [{level: None, verbs: [list]}, {level: Request}]").await;
    audited.world.get(MAPS).await.is(200);
    audited.world.post(MAPS, map("a")).await.is(201);
    ask(audited.world.server.router_as("bob", &[]), Request::delete(MAPS).body(Body::empty()).unwrap()).await;
    let records = audited.platform.read("test", 99).await.unwrap().records;
    assert_eq!(records.len(), 2, "{records:#?}");
    let (made, refused) = (&records[0], &records[1]);
    assert_eq!((made.user.name.as_str(), made.verb.as_str(), made.object.name.as_str()), ("admin", "create", "a"));
    assert_eq!((made.decision, made.code), (Decision::Allow, 201));
    assert_eq!(made.details["requestObject"]["data"], json!({"a": "1"}));
    assert_eq!((refused.decision, refused.code, refused.verb.as_str()), (Decision::Deny, 403, "deletecollection"));
}

#[tokio::test]
async fn what_cannot_be_recorded_does_not_happen_where_recording_is_a_must() {
    struct Full;
    #[async_trait::async_trait]
    impl AuditLog for Full {
        async fn append(&self, _: &[onex_audit::Record]) -> onex_audit::Result<()> {
            Err(onex_audit::Error::Unavailable("the disk is full".into()))
        }
        async fn read(&self, _: &str, _: usize) -> onex_audit::Result<onex_audit::Batch> {
            unreachable!("the apiserver only appends")
        }
        async fn commit(&self, _: &str, _: onex_audit::Position) -> onex_audit::Result<()> {
            unreachable!("the apiserver only appends")
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.yaml");
    std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]").unwrap();
    let mut settings = Settings::default();
    settings.audit.policy_file = policy.display().to_string();
    settings.audit.log_file = "/dev/full".to_owned();
    settings.audit.wait = true;
    let handles = Handles { audit: Some(Arc::new(Full)), ..Handles::over(storage().await) };
    let world = World::unready_of(handles, settings).await;
    world.server.ready().await;
    let refused = world.send(Method::POST, MAPS, &[("content-type", "application/json")], map("a").to_string()).await;
    assert!(refused.says(500).contains("cannot be recorded"), "{}", refused.text);
    let metrics = world.get("/metrics").await.text;
    assert!(!metrics.contains("apiserver_audit_error_total{plugin=\"log\"} 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_keeps_the_apiserver_from_starting() {
    let mut settings = Settings::default();
    settings.audit.policy_file = "/nowhere/policy.yaml".to_owned();
    let refused =
        onex_apiserver::Apiserver::new(settings, Handles::over(storage().await)).await.err().unwrap().to_string();
    assert!(refused.contains("/nowhere/policy.yaml"), "{refused}");
}
