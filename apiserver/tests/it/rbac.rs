//! Who may do what, and how they find out.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::world::{MAPS, World, map};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

fn role(kind: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules})
}

fn binding(kind: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}, "subjects": [subject],
    })
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "name": name})
}

async fn bind_everywhere(world: &World, role: &str, subject: Value) {
    let name = format!("{role}-{}", subject["name"].as_str().unwrap()).replace(':', ".");
    let binding = binding("ClusterRoleBinding", &name, ("ClusterRole", role), subject);
    world.post(&format!("{RBAC}/clusterrolebindings"), binding).await.is(201);
}

#[tokio::test]
async fn who_is_bound_to_a_role_may_do_what_it_says_from_the_moment_that_the_binding_is_there() {
    let world = World::new().await;
    let bob = world.as_user("bob", &["dev"]);
    let refused = bob.get(MAPS).await.says(403);
    assert_eq!(
        refused,
        "configmaps is forbidden: User \"bob\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]}]);
    let roles = format!("{RBAC}/namespaces/default/roles");
    world.post(&roles, role("Role", "reader", rules)).await.is(201);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    world.post(&bindings, binding("RoleBinding", "b", ("Role", "reader"), user("bob"))).await.is(201);
    bob.get(MAPS).await.is(200);
    bob.post(MAPS, map("a")).await.is(403);
    bob.get("/api/v1/namespaces/other/configmaps").await.is(403);
    bob.get("/api/v1/configmaps").await.is(403);
    // Another role of the same name, then none at all.
    let change = json!({"rules": [{"verbs": ["create"], "apiGroups": [""], "resources": ["configmaps"]}]});
    world.merge(&format!("{roles}/reader"), change).await.is(200);
    bob.get(MAPS).await.is(403);
    bob.post(MAPS, map("a")).await.is(201);
    world.delete(&format!("{roles}/reader"), json!(null)).await.is(200);
    let refused = bob.post(MAPS, map("b")).await.says(403);
    assert!(refused.ends_with(": RBAC: role.rbac.authorization.k8s.io \"reader\" not found"), "{refused}");
    world.delete(&format!("{bindings}/b"), json!(null)).await.is(200);
    let refused = bob.post(MAPS, map("b")).await.says(403);
    assert!(refused.ends_with("in the namespace \"default\""), "{refused}");
}

#[tokio::test]
async fn groups_and_service_accounts_can_be_bound_too() {
    let world = World::new().await;
    bind_everywhere(&world, "view", json!({"kind": "Group", "name": "dev"})).await;
    world.as_user("any", &["dev"]).get(MAPS).await.is(200);
    world.as_user("any", &["ops"]).get(MAPS).await.is(403);
    world.as_user("dev", &[]).get(MAPS).await.is(403);
    let account = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "default"});
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    world.post(&bindings, binding("RoleBinding", "r", ("ClusterRole", "view"), account)).await.is(201);
    let robot = world.as_user("system:serviceaccount:default:robot", &[]);
    robot.get(MAPS).await.is(200);
    robot.get("/api/v1/namespaces/kube-system/configmaps").await.is(403);
}

#[tokio::test]
async fn the_usual_roles_are_there_and_know_our_kinds() {
    let world = World::new().await;
    for who in ["viewer", "editor", "admin"] {
        let role = ["view", "edit", "admin"][["viewer", "editor", "admin"].iter().position(|w| *w == who).unwrap()];
        let bindings = format!("{RBAC}/namespaces/default/rolebindings");
        world.post(&bindings, binding("RoleBinding", who, ("ClusterRole", role), user(who))).await.is(201);
    }
    // Roles that are made of others are completed right after the start.
    let viewer = world.as_user("viewer", &[]);
    for _ in 0..200 {
        if viewer.get(crate::world::SETS).await.code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    viewer.get(crate::world::SETS).await.is(200);
    viewer.get("/api/v1/namespaces/default/secrets").await.is(403);
    viewer.post(crate::world::SETS, crate::world::set("s")).await.is(403);
    let editor = world.as_user("editor", &[]);
    editor.post(crate::world::SETS, crate::world::set("s")).await.is(201);
    editor.get("/api/v1/namespaces/default/secrets").await.is(200);
    editor.get(&format!("{RBAC}/namespaces/default/roles")).await.is(403);
    let admin = world.as_user("admin", &[]);
    admin.get(&format!("{RBAC}/namespaces/default/roles")).await.is(200);
    let cluster_admin = world.get(&format!("{RBAC}/clusterroles/cluster-admin")).await.is(200);
    assert_eq!(cluster_admin["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    assert_eq!(cluster_admin["rules"][0], json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
}

#[tokio::test]
async fn a_role_is_made_of_those_that_its_selectors_find() {
    let world = World::new().await;
    let mut whole = role("ClusterRole", "whole", json!([]));
    whole["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]});
    world.post(&format!("{RBAC}/clusterroles"), whole).await.is(201);
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let mut part = role("ClusterRole", "part", rules.clone());
    part["metadata"]["labels"] = json!({"part": "yes"});
    world.post(&format!("{RBAC}/clusterroles"), part).await.is(201);
    let path = format!("{RBAC}/clusterroles/whole");
    let mut seen = json!(null);
    for _ in 0..200 {
        seen = world.get(&path).await.is(200)["rules"].clone();
        if seen == rules {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen, rules);
}

#[tokio::test]
async fn a_role_may_name_the_only_object_that_a_list_or_a_watch_is_about() {
    let world = World::new().await;
    world.post(MAPS, map("a")).await.is(201);
    let rules = json!([{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"]}]);
    world.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "one", rules)).await.is(201);
    bind_everywhere(&world, "one", user("bob")).await;
    let bob = world.as_user("bob", &[]);
    bob.get(&format!("{MAPS}/a")).await.is(200);
    bob.get(&format!("{MAPS}/b")).await.is(403);
    bob.get(MAPS).await.is(403);
    bob.get(&format!("{MAPS}?fieldSelector=metadata.name%3Da")).await.is(200);
    bob.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.is(403);
    bob.get(&format!("{MAPS}?fieldSelector=metadata.name!%3Da")).await.is(403);
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let world = World::new().await;
    let rules = json!([
        {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings", "clusterroles"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
    ]);
    // `*` would let them escalate and bind.
    let verbs = json!(["create", "get", "update", "patch", "delete"]);
    let mut limited = rules.clone();
    limited[0]["verbs"] = verbs;
    world.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "keeper", limited)).await.is(201);
    world.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "master", rules)).await.is(201);
    bind_everywhere(&world, "keeper", user("bob")).await;
    bind_everywhere(&world, "master", user("eve")).await;
    let (bob, eve) = (world.as_user("bob", &["dev"]), world.as_user("eve", &[]));
    let roles = format!("{RBAC}/namespaces/default/roles");
    let held = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    bob.post(&roles, role("Role", "held", held)).await.is(201);
    let more = json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]);
    assert_eq!(
        bob.post(&roles, role("Role", "more", more.clone())).await.says(403),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"bob\" (groups=[\"dev\" \"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    bob.merge(&format!("{roles}/held"), json!({"rules": more})).await.is(403);
    bob.merge(&format!("{roles}/held"), json!({"metadata": {"labels": {"a": "b"}}})).await.is(200);
    eve.post(&roles, role("Role", "more", more.clone())).await.is(201);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let to = |name: &str, role: &str| binding("RoleBinding", name, ("Role", role), user("x"));
    bob.post(&bindings, to("held", "held")).await.is(201);
    bob.post(&bindings, to("more", "more")).await.is(403);
    bob.post(&bindings, to("absent", "absent")).await.is(404);
    eve.post(&bindings, to("more", "more")).await.is(201);
    let cluster_admin = binding("RoleBinding", "all", ("ClusterRole", "cluster-admin"), user("bob"));
    bob.post(&bindings, cluster_admin).await.is(403);
}

#[tokio::test]
async fn somebody_else_can_be_only_who_may() {
    let world = World::new().await;
    let rules = json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["dev"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"]},
    ]);
    world.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "actor", rules)).await.is(201);
    bind_everywhere(&world, "actor", user("bob")).await;
    let bob = world.as_user("bob", &[]);
    let whoami = |headers: Vec<(&'static str, &'static str)>| {
        let bob = &bob;
        async move {
            let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
            let mut all = vec![("content-type", "application/json")];
            all.extend(headers);
            bob.send(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &all, question.to_string())
                .await
        }
    };
    let ann =
        whoami(vec![("impersonate-user", "ann"), ("impersonate-group", "dev"), ("impersonate-extra-scopes", "a")]);
    let info = ann.await.is(201)["status"]["userInfo"].clone();
    assert_eq!(info, json!({"username": "ann", "groups": ["dev", "system:authenticated"], "extra": {"scopes": ["a"]}}));
    assert_eq!(
        whoami(vec![("impersonate-user", "eve")]).await.says(403),
        "users \"eve\" is forbidden: User \"bob\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    assert_eq!(whoami(vec![("impersonate-user", "ann"), ("impersonate-group", "ops")]).await.code, 403);
    assert_eq!(whoami(vec![("impersonate-user", "ann"), ("impersonate-uid", "1")]).await.code, 403);
    assert_eq!(whoami(vec![("impersonate-user", "ann"), ("impersonate-extra-other", "a")]).await.code, 403);
    assert_eq!(whoami(vec![("impersonate-user", "system:serviceaccount:a:b")]).await.code, 403);
    assert_eq!(whoami(vec![("impersonate-group", "dev")]).await.code, 400);
}

#[tokio::test]
async fn questions_about_access_are_answered_as_requests_would_be() {
    let world = World::new().await;
    bind_everywhere(&world, "view", user("bob")).await;
    let bob = world.as_user("bob", &[]);
    let may = |attributes: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": attributes});
    let own = format!("{REVIEWS}/selfsubjectaccessreviews");
    let pods = json!({"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}});
    for _ in 0..200 {
        if bob.post(&own, may(pods.clone())).await.is(201)["status"]["allowed"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await; // `view` is made of others right after the start
    }
    let status = bob.post(&own, may(pods)).await.is(201)["status"].clone();
    assert_eq!(
        status,
        json!({"allowed": true, "reason": "RBAC: allowed by ClusterRoleBinding \"view-bob\" of ClusterRole \"view\" to User \"bob\""})
    );
    let secrets = json!({"resourceAttributes": {"verb": "list", "resource": "secrets", "namespace": "default"}});
    assert_eq!(bob.post(&own, may(secrets.clone())).await.is(201)["status"], json!({"allowed": false}));
    let metrics = json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}});
    assert_eq!(bob.post(&own, may(metrics)).await.is(201)["status"]["allowed"], false);
    bob.post(&own, may(json!({}))).await.is(422);
    // About others, only who may ask.
    let mut about = may(secrets);
    about["kind"] = "SubjectAccessReview".into();
    about["spec"]["user"] = "ann".into();
    about["spec"]["groups"] = json!(["system:masters"]);
    let others = format!("{REVIEWS}/subjectaccessreviews");
    bob.post(&others, about.clone()).await.is(403);
    assert_eq!(world.post(&others, about.clone()).await.is(201)["status"]["allowed"], true);
    about["spec"]["groups"] = json!(null);
    assert_eq!(world.post(&others, about.clone()).await.is(201)["status"]["allowed"], false);
    about["kind"] = "LocalSubjectAccessReview".into();
    let local = |namespace: &str| format!("{REVIEWS}/namespaces/{namespace}/localsubjectaccessreviews");
    world.post(&local("default"), about.clone()).await.is(201);
    world.post(&local("other"), about).await.is(422);
    // They are answered, and that is all.
    world.get(&own).await.is(405);
    world.get(&format!("{own}/x")).await.is(404);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", "application/json")];
    world.send(Method::POST, &own, &table, may(json!({})).to_string()).await.is(406);
}

#[tokio::test]
async fn somebody_can_ask_what_they_may_and_who_they_are() {
    let world = World::new().await;
    let nobody = world.as_user("nobody", &["dev"]);
    let question = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let own = format!("{REVIEWS}/selfsubjectrulesreviews");
    let status = nobody.post(&own, question.clone()).await.is(201)["status"].clone();
    assert_eq!(status["incomplete"], false);
    let text = status.to_string();
    assert!(text.contains("selfsubjectaccessreviews") && text.contains("/openapi/*"), "{text}");
    nobody
        .post(&own, json!({"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "spec": {}}))
        .await
        .is(400);
    let masters = world.post(&own, question).await.is(201)["status"]["resourceRules"].clone();
    let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    assert!(masters.as_array().unwrap().contains(&all), "{masters}");
    let me = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let me = nobody.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", me).await.is(201);
    assert_eq!(me["status"]["userInfo"], json!({"username": "nobody", "groups": ["dev", "system:authenticated"]}));
}

#[tokio::test]
async fn a_token_can_be_shown_to_those_who_know_whose_it_is() {
    let world = World::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    world.post("/api/v1/namespaces/default/serviceaccounts", account).await.is(201);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let given = world.post("/api/v1/namespaces/default/serviceaccounts/robot/token", request).await.is(201);
    let ask = |spec: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = world.post(path, ask(json!({"token": given["status"]["token"]}))).await.is(201);
    let status = &known["status"];
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["audiences"].as_array().unwrap().len(), 1);
    let unknown = world.post(path, ask(json!({"token": "guessed"}))).await.is(201);
    assert_eq!(unknown["status"]["authenticated"], json!(null));
    assert!(!unknown["status"]["error"].as_str().unwrap().is_empty());
    world.post(path, ask(json!({}))).await.is(400);
    world.as_user("bob", &[]).post(path, ask(json!({"token": "guessed"}))).await.is(403);
}

#[tokio::test]
async fn what_was_taken_from_the_first_roles_comes_back_with_the_next_start() {
    let storage = onex_storage::open(&"memory:".parse().unwrap(), &onex_storage::Settings::default()).await.unwrap();
    let world = World::over(storage.clone(), Default::default()).await;
    let path = format!("{RBAC}/clusterroles/system:discovery");
    world.merge(&path, json!({"rules": []})).await.is(200);
    let other = format!("{RBAC}/clusterroles/system:basic-user");
    let own =
        json!({"rules": [], "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    world.merge(&other, own).await.is(200);
    world.delete(&format!("{RBAC}/clusterrolebindings/system:monitoring"), json!(null)).await.is(200);
    drop(world);
    let world = World::over(storage, Default::default()).await;
    assert_ne!(world.get(&path).await.is(200)["rules"], json!([]));
    assert_eq!(world.get(&other).await.is(200)["rules"], json!([]));
    world.get(&format!("{RBAC}/clusterrolebindings/system:monitoring")).await.is(200);
}

/// A hundred thousand are looked through in no more time than a few: this many would take minutes otherwise.
#[tokio::test]
async fn many_bindings_do_not_slow_a_decision() {
    const MANY: usize = 20_000;
    let world = World::new().await;
    let rules = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"]}]);
    world.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "reader", rules)).await.is(201);
    let bindings = format!("{RBAC}/clusterrolebindings");
    for chunk in (0..MANY).collect::<Vec<_>>().chunks(500) {
        let each = chunk.iter().map(|n| {
            let binding =
                binding("ClusterRoleBinding", &format!("b{n}"), ("ClusterRole", "reader"), user(&format!("u{n}")));
            world.post(&bindings, binding)
        });
        futures::future::join_all(each).await;
    }
    let last = world.as_user(&format!("u{}", MANY - 1), &["a", "b", "c"]);
    last.get(MAPS).await.is(200);
    let began = Instant::now();
    for n in 0..200 {
        // One binding is new each time.
        let binding =
            binding("ClusterRoleBinding", &format!("n{n}"), ("ClusterRole", "reader"), user(&format!("n{n}")));
        world.post(&bindings, binding).await.is(201);
        world.as_user(&format!("n{n}"), &[]).get(MAPS).await.is(200);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nobody_keeps_an_owner_whom_they_could_not_keep_themselves_where_that_is_asked() {
    let rule = "OwnerReferencesPermissionEnforcement".to_owned();
    let settings = onex_apiserver::Settings { enable_admission: vec![rule], ..Default::default() };
    let (world, usual) = (World::with(settings).await, World::new().await);
    for world in [&world, &usual] {
        let rules =
            json!([{"verbs": ["create", "update", "patch", "get"], "apiGroups": [""], "resources": ["configmaps"]}]);
        world.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "writer", rules)).await.is(201);
        bind_everywhere(world, "writer", user("bob")).await;
        world.post(MAPS, map("owner")).await.is(201);
    }
    let owned = |name: &str, blocks: bool| {
        let owner =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "u", "blockOwnerDeletion": blocks});
        let mut object = map(name);
        object["metadata"]["ownerReferences"] = json!([owner]);
        object
    };
    let bob = world.as_user("bob", &[]);
    // What is new may have an owner, and may not hold it back.
    bob.post(MAPS, owned("a", false)).await.is(201);
    let refused = bob.post(MAPS, owned("b", true)).await.says(403);
    let why = "configmaps \"b\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't \
               set finalizers on: ";
    assert!(refused.starts_with(why), "{refused}");
    // What is there would go with its owner: who cannot delete it cannot give it one.
    bob.post(MAPS, map("c")).await.is(201);
    let refused = bob.put(&format!("{MAPS}/c"), owned("c", false)).await.says(403);
    assert!(refused.contains("cannot set an ownerRef on a resource you can't delete: "), "{refused}");
    let more = json!([{"verbs": ["delete"], "apiGroups": [""], "resources": ["configmaps"]},
        {"verbs": ["update"], "apiGroups": [""], "resources": ["configmaps/finalizers"]}]);
    world.post(&format!("{RBAC}/clusterroles"), role("ClusterRole", "more", more)).await.is(201);
    bind_everywhere(&world, "more", user("bob")).await;
    bob.put(&format!("{MAPS}/c"), owned("c", true)).await.is(200);
    // It is not asked unless it is wanted, as in Kubernetes.
    usual.as_user("bob", &[]).post(MAPS, owned("b", true)).await.is(201);
}
