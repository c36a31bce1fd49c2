//! The kinds that clients expect: what kubectl, Helm and controllers do with them.

use http::Method;
use serde_json::{Value, json};

use crate::world::World;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn job(name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}}})
}

#[tokio::test]
async fn a_deployment_is_filled_in_scaled_and_counted() {
    let world = World::new().await;
    let made = world.post(DEPLOYMENTS, deployment("web")).await.is(201);
    assert_eq!((&made["spec"]["replicas"], &made["status"]), (&json!(1), &json!({})));
    assert_eq!(made["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    let scale = world.get(&format!("{DEPLOYMENTS}/web/scale")).await.is(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(1), &json!("app=web")));
    let scaled = world.merge(&format!("{DEPLOYMENTS}/web/scale"), json!({"spec": {"replicas": 3}})).await.is(200);
    assert_eq!(scaled["spec"]["replicas"], 3);
    let status = json!({"status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}});
    world.merge(&format!("{DEPLOYMENTS}/web/status"), status).await.is(200);
    let table = world.table(&format!("{DEPLOYMENTS}/web")).await.is(200);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..4], [json!("web"), json!("2/3"), json!(3), json!(1)]);
    let generation = world.get(&format!("{DEPLOYMENTS}/web")).await.is(200)["metadata"]["generation"].clone();
    assert_eq!(generation, 2, "by the scale, and not by the status");
    let annotated = json!({"metadata": {"annotations": {"kubernetes.io/change-cause": "x"}}});
    let annotated = world.merge(&format!("{DEPLOYMENTS}/web"), annotated).await.is(200);
    assert_eq!(annotated["metadata"]["generation"], 3);
}

#[tokio::test]
async fn the_selector_of_a_deployment_stays_and_finds_its_pods() {
    let world = World::new().await;
    let mut lost = deployment("web");
    lost["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    assert_eq!(
        world.post(DEPLOYMENTS, lost).await.says(422),
        "Deployment.apps \"web\" is invalid: spec.template.metadata.labels: Invalid value: \
         map[string]string{\"app\":\"web\"}: `selector` does not match template `labels`"
    );
    world.post(DEPLOYMENTS, deployment("web")).await.is(201);
    let mut other = deployment("web");
    other["spec"]["selector"]["matchLabels"]["tier"] = json!("x");
    other["spec"]["template"]["metadata"]["labels"]["tier"] = json!("x");
    let said = world.put(&format!("{DEPLOYMENTS}/web"), other).await.says(422);
    assert!(said.contains("spec.selector: Invalid value: v1.LabelSelector{MatchLabels:"), "{said}");
    assert!(said.ends_with(": field is immutable"), "{said}");
}

#[tokio::test]
async fn who_deletes_a_job_and_says_nothing_leaves_its_pods() {
    let world = World::new().await;
    let uid = |made: &Value| made["metadata"]["uid"].clone();
    let made = world.post(JOBS, job("a")).await.is(201);
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["batch.kubernetes.io/controller-uid"], uid(&made));
    let marked = world.delete(&format!("{JOBS}/a"), Value::Null).await.is(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
    world.post(JOBS, job("b")).await.is(201);
    let gone = world.delete(&format!("{JOBS}/b"), json!({"propagationPolicy": "Background"})).await.is(200);
    assert_eq!(gone["status"], "Success");
    let selected = world.get(&format!("{JOBS}?fieldSelector=status.successful%3D0")).await.is(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
}

async fn running(world: &World, name: &str, ready: &str) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.post(PODS, pod).await.is(201);
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    world.merge(&format!("{PODS}/{name}/status"), status).await.is(200);
}

fn eviction(name: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}})
}

#[tokio::test]
async fn evictions_are_refused_when_the_budget_is_spent() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        running(&world, name, if name == "c" { "False" } else { "True" }).await;
    }
    let budget =
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    world.post(BUDGETS, budget).await.is(201);
    let evict = async |name: &str, body: Value| world.post(&format!("{PODS}/{name}/eviction"), body).await;
    let early = evict("a", eviction("a")).await.is(429);
    assert_eq!(early["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        early["details"]["causes"][0]["message"],
        "The disruption budget web is still being processed by the server."
    );
    let counted = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 1,
        "currentHealthy": 2, "expectedPods": 3}});
    world.merge(&format!("{BUDGETS}/web/status"), counted).await.is(200);
    let mut dry = eviction("a");
    dry["deleteOptions"] = json!({"dryRun": ["All"]});
    evict("a", dry).await.is(201);
    assert_eq!(world.get(&format!("{BUDGETS}/web")).await.is(200)["status"]["disruptionsAllowed"], 1);
    evict("a", eviction("a")).await.is(201);
    world.get(&format!("{PODS}/a")).await.is(404);
    let spent = world.get(&format!("{BUDGETS}/web")).await.is(200);
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert!(spent["status"]["disruptedPods"]["a"].is_string());
    let refused = evict("b", eviction("b")).await.is(429);
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        "The disruption budget web needs 1 healthy pods and has 2 currently"
    );
    evict("c", eviction("c")).await.is(201); // nobody loses a Pod that is not ready
    assert_eq!(evict("b", eviction("x")).await.says(400), "name in URL does not match name in Eviction object");
    let other = json!({"metadata": {"name": "two"}, "spec": {"selector": {}}});
    world.post(BUDGETS, other).await.is(201);
    assert_eq!(
        evict("b", eviction("b")).await.says(500),
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
    evict("z", eviction("z")).await.is(404);
    assert_eq!(world.send(Method::GET, &format!("{PODS}/b/eviction"), &[], "").await.code, 405);
}

#[tokio::test]
async fn what_every_cluster_has_is_there_and_comes_back() {
    let world = World::new().await;
    let names = async |path: &str| {
        let list = world.get(path).await.is(200);
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
        list["items"].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    for _ in 0..500 {
        if names(schemas).await.len() == 13 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(names(classes).await, ["system-cluster-critical", "system-node-critical"]);
    assert_eq!(names(schemas).await.len(), 13);
    assert!(
        names("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations").await.contains(&"exempt".to_owned())
    );
}

/// For `CN=bob`, made with openssl.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlISU1IQUNBUUF3RGpFTU1Bb0dBMVVFQXd3RFltOWlNRmt3RXdZSEtvWkl6ajBDQVFZSUtvWkl6ajBEQVFjRApRZ0FFK2wwc2RFTXVmVVFuS3BQa1NUZlArM3lVcjNUS1doemVCSlc2akJ2M3lTZUFPNU9yNXI5cDczbkJudVFMCkhWUHE1YXJlekpBSFBTUmNDOUZHVVpRSkI2QUFNQW9HQ0NxR1NNNDlCQU1DQTBnQU1FVUNJRzNKNVgwR0pkejYKSUU3cnBZN2FRRjlmOFlyRndYSFNPQm03ZmdxVThGcjZBaUVBbHVpRU1UVWpBeXdNeWdQUVlJRFVKRXhaTEgxSwphQ1d5SFpMOEV2K0lTTnM9Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";

#[tokio::test]
async fn a_certificate_request_says_who_asked_and_only_an_approval_approves_it() {
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let world = World::new().await;
    let approved = json!([{"type": "Approved", "status": "True", "reason": "x"}]);
    let spec = json!({"request": REQUEST, "signerName": "a.example/b", "usages": ["client auth"], "username": "root",
        "groups": ["system:masters", "other"]});
    let asked = json!({"metadata": {"name": "bob"}, "spec": spec, "status": {"conditions": approved}});
    let made = world.post(REQUESTS, asked.clone()).await.is(201);
    assert_eq!(made["spec"]["username"], "admin", "who asks is what the server knows");
    assert_eq!(made["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(made["status"], json!({}), "nobody comes with an approval");
    let one = format!("{REQUESTS}/bob");
    let conditions = json!({"status": {"conditions": approved}});
    let said = world.merge(&format!("{one}/status"), conditions.clone()).await.says(422);
    assert!(said.contains("updates may not add a condition of type \"Approved\""), "{said}");
    let other = world.merge(&one, json!({"spec": {"signerName": "c.example/d"}})).await.is(200);
    assert_eq!(other["spec"]["signerName"], "a.example/b", "what was asked for stays");
    let mut wanted = world.get(&one).await.is(200);
    wanted["status"]["conditions"] = approved;
    wanted["spec"]["signerName"] = json!("c.example/d");
    let granted = world.put(&format!("{one}/approval"), wanted.clone()).await.is(200);
    assert_eq!(granted["spec"]["signerName"], "a.example/b");
    assert!(granted["status"]["conditions"][0]["lastUpdateTime"].is_string());
    let table = world.table(&one).await.is(200);
    assert_eq!(table["rows"][0]["cells"][5], "Approved");
    let removal = json!({"status": {"conditions": []}});
    let said = world.merge(&format!("{one}/approval"), removal).await.says(422);
    assert!(said.contains("updates may not remove a condition of type \"Approved\""), "{said}");
    let signed = world.merge(&format!("{one}/status"), json!({"status": {"certificate": "Y2VydA=="}})).await.is(200);
    assert_eq!(signed["status"]["conditions"][0]["type"], "Approved");
    let mut wrong = asked;
    wrong["spec"] = json!({"request": "Zm9v", "signerName": "b", "usages": ["x", "x"], "expirationSeconds": 5});
    wrong["metadata"]["name"] = json!("wrong");
    let causes = world.post(REQUESTS, wrong).await.is(422)["details"]["causes"].as_array().unwrap().len();
    assert_eq!(causes, 6);
}

/// One object of every kind is created, read as a table, patched in each way, and deleted with what kube answers.
#[tokio::test]
async fn every_kind_is_stored_shown_patched_and_deleted() {
    let world = World::new().await;
    let template = deployment("x")["spec"]["template"].clone();
    let workload = json!({"selector": {"matchLabels": {"app": "x"}}, "template": template});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let volume = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}});
    let attachment = json!({"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
    let target = json!({"kind": "Deployment", "name": "x", "apiVersion": "apps/v1"});
    let cases = [
        ("/apis/apps/v1/namespaces/default/replicasets", json!({ "spec": workload }), false),
        ("/apis/apps/v1/namespaces/default/statefulsets", json!({ "spec": workload }), false),
        ("/apis/apps/v1/namespaces/default/daemonsets", json!({ "spec": workload }), false),
        ("/apis/apps/v1/namespaces/default/controllerrevisions", json!({"revision": 1, "data": {"a": 1}}), false),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job("x")["spec"]}}}),
            false,
        ),
        ("/api/v1/namespaces/default/podtemplates", json!({ "template": template }), true),
        ("/api/v1/namespaces/default/persistentvolumeclaims", json!({ "spec": claim }), true),
        ("/api/v1/persistentvolumes", json!({ "spec": volume }), true),
        (
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3}}),
            false,
        ),
        ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", json!({"spec": {"minAvailable": 1}}), false),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            json!({"spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}}),
            false,
        ),
        ("/apis/networking.k8s.io/v1/ingressclasses", json!({"spec": {"controller": "a.io/b"}}), false),
        ("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", json!({"spec": {}}), false),
        ("/apis/networking.k8s.io/v1/servicecidrs", json!({"spec": {"cidrs": ["10.0.0.0/16"]}}), false),
        ("/apis/storage.k8s.io/v1/storageclasses", json!({"provisioner": "a.io/b"}), true),
        ("/apis/storage.k8s.io/v1/volumeattachments", json!({ "spec": attachment }), true),
        ("/apis/storage.k8s.io/v1/csidrivers", json!({"spec": {}}), true),
        ("/apis/storage.k8s.io/v1/csinodes", json!({"spec": {"drivers": []}}), true),
        ("/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities", json!({"storageClassName": "a"}), false),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": []}),
            false,
        ),
        ("/apis/node.k8s.io/v1/runtimeclasses", json!({"handler": "runc"}), false),
        ("/apis/scheduling.k8s.io/v1/priorityclasses", json!({"value": 5}), false),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            json!({"spec": {"priorityLevelConfiguration": {"name": "exempt"}}}),
            false,
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            json!({"spec": {"type": "Exempt"}}),
            false,
        ),
    ];
    for (path, mut object, returned) in cases {
        object["metadata"] = json!({"name": "x1"});
        let made = world.post(path, object).await.is(201);
        let one = format!("{path}/x1");
        let table = world.table(path).await.is(200);
        assert_eq!(
            table["rows"][0]["cells"].as_array().unwrap().len(),
            table["columnDefinitions"].as_array().unwrap().len(),
            "{path}"
        );
        for media in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
            let labelled =
                world.patch(media, &one, json!({"metadata": {"labels": {"a": media.len().to_string()}}})).await;
            let labelled = labelled.is(200);
            assert_eq!(labelled["spec"], made["spec"], "{path}");
        }
        let apply = json!({"apiVersion": made["apiVersion"], "kind": made["kind"], "metadata": {"name": "x1", "labels": {"b": "c"}}});
        let applied =
            world.patch("application/apply-patch+yaml", &format!("{one}?fieldManager=t"), apply).await.is(200);
        assert_eq!(applied["metadata"]["labels"]["b"], "c", "{path}");
        let gone = world.delete(&one, json!({"propagationPolicy": "Background"})).await.is(200);
        let expected = if returned { &made["kind"] } else { &json!("Status") };
        assert_eq!(&gone["kind"], expected, "{path}");
        world.get(&one).await.is(404);
    }
}

#[tokio::test]
async fn every_group_that_is_served_has_its_local_service_and_gets_it_back() {
    const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
    let world = World::new().await;
    let mut served = vec!["v1.".to_owned()];
    for group in world.get("/apis").await.is(200)["groups"].as_array().unwrap() {
        let versions = group["versions"].as_array().unwrap();
        let name =
            |version: &Value| format!("{}.{}", version["version"].as_str().unwrap(), group["name"].as_str().unwrap());
        served.extend(versions.iter().map(name));
    }
    assert!(served.len() > 15, "{served:?}");
    served.sort();
    let registered = async |expected: &[String]| {
        let mut names = Vec::new();
        for _ in 0..200 {
            let list = world.get(SERVICES).await.is(200);
            let items = list["items"].as_array().unwrap();
            names = items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
            names.sort();
            if names == expected {
                return list;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{names:?} is not {expected:?}");
    };
    let list = registered(&served).await;
    for item in list["items"].as_array().unwrap() {
        assert_eq!(item["status"]["conditions"][0]["status"], "True", "{item}");
        assert_eq!(item["spec"]["service"], Value::Null);
    }
    world.delete(&format!("{SERVICES}/v1.apps"), Value::Null).await.is(200);
    registered(&served).await;
    // A group that a client defines comes and goes with its definition.
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let names = json!({"plural": "stalls", "singular": "stall", "kind": "Stall", "listKind": "StallList"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
    let spec = json!({"group": "market.example.com", "names": names, "scope": "Namespaced", "versions": [version]});
    world.post(crds, json!({"metadata": {"name": "stalls.market.example.com"}, "spec": spec})).await.is(201);
    let with: Vec<String> = {
        let mut with = served.clone();
        with.push("v1.market.example.com".to_owned());
        with.sort();
        with
    };
    let list = registered(&with).await;
    let custom =
        list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "v1.market.example.com");
    assert_eq!(custom.unwrap()["spec"]["groupPriorityMinimum"], 1000);
    world.delete(&format!("{crds}/stalls.market.example.com"), Value::Null).await.is(200);
    registered(&served).await;
    // Nobody else serves anything here.
    let foreign = json!({"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": {"group": "metrics.k8s.io", "version": "v1beta1",
        "groupPriorityMinimum": 100, "versionPriority": 100, "service": {"name": "metrics-server", "namespace": "kube-system"}}});
    assert!(world.post(SERVICES, foreign).await.says(422).contains("spec.service: Forbidden"));
}

#[tokio::test]
async fn an_autoscaler_is_one_and_the_same_in_both_versions() {
    let world = World::new().await;
    let [old, new] = ["v1", "v2"].map(|v| format!("/apis/autoscaling/{v}/namespaces/default/horizontalpodautoscalers"));
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let spec = json!({"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 60});
    let made = world.post(&old, json!({"metadata": {"name": "h"}, "spec": spec})).await.is(201);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(60))
    );
    let seen = world.get(&format!("{new}/h")).await.is(200);
    assert_eq!(seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    assert_eq!(seen["metadata"]["uid"], made["metadata"]["uid"]);
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    world.merge(&format!("{new}/h"), json!({"spec": {"metrics": [memory]}})).await.is(200);
    // Who knows only the old version changes nothing else.
    world.merge(&format!("{old}/h"), json!({"spec": {"maxReplicas": 5}})).await.is(200);
    let seen = world.get(&format!("{new}/h")).await.is(200);
    assert_eq!((&seen["spec"]["maxReplicas"], &seen["spec"]["metrics"]), (&json!(5), &json!([memory])));
    assert_eq!(world.get("/apis/autoscaling").await.is(200)["preferredVersion"]["version"], "v2");
    let table = world.table(&old).await.is(200);
    assert_eq!(table["rows"][0]["cells"][2], "memory: <unknown>/1Gi");
    assert_eq!(world.post(&old, json!({"metadata": {"name": "i"}, "spec": {"maxReplicas": 0}})).await.code, 422);
}

/// In OneX itself, its own sample of a CronJob is refused: its Jobs have no template.
#[tokio::test]
async fn the_samples_of_jobs_are_taken_as_they_are_also_by_who_asks_for_strictness() {
    let world = World::new().await;
    let sample = |name: &str| -> Value {
        let path = format!("{}/../manifests/sample/onex/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let path = |plural: &str| format!("/apis/batch.onex.io/v1beta1/namespaces/default/{plural}");
    let strict = |plural: &str| format!("{}?fieldValidation=Strict", path(plural));
    let job = world.post(&strict("jobs"), sample("job.yaml")).await.is(201);
    assert_eq!((&job["spec"], &job["metadata"]["generation"]), (&sample("job.yaml")["spec"], &json!(1)));
    let cron = world.post(&strict("cronjobs"), sample("cronjob.yaml")).await.is(201);
    assert_eq!((&cron["spec"]["suspend"], &cron["spec"]["concurrencyPolicy"]), (&json!(false), &json!("Forbid")));
    let container = &cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"]["key"], "password");
    let mut wrong = sample("cronjob.yaml");
    wrong["metadata"]["name"] = json!("wrong");
    wrong["spec"]["jobTemplate"]["spec"]["template"]["spec"]["contaners"] = json!([]);
    let said = world.post(&strict("cronjobs"), wrong.clone()).await.says(400);
    assert!(said.contains("unknown field \"spec.jobTemplate.spec.template.spec.contaners\""), "{said}");
    wrong["spec"]["schedule"] = json!("0 25 * * *");
    wrong["spec"]["timeZone"] = json!("Mars/Olympus");
    wrong["spec"]["startingDeadlineSeconds"] = json!(-1);
    let said = world.post(&path("cronjobs"), wrong).await.says(422);
    for complaint in [
        "spec.schedule: Invalid value: \"0 25 * * *\": end of range (25) above maximum (23): 25",
        "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus",
        "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
    ] {
        assert!(said.contains(complaint), "{said}");
    }
    let status = json!({"status": {"phase": "Running", "providerStatus": {"instance": "i-1"}}});
    let told = world.merge(&format!("{}/my-aws-job/status", path("jobs")), status).await.is(200);
    assert_eq!((&told["status"]["phase"], &told["metadata"]["generation"]), (&json!("Running"), &json!(1)));
    let table = world.table(&path("jobs")).await.is(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("my-aws-job"), json!("AWS"), json!("Running")]
    );
}
