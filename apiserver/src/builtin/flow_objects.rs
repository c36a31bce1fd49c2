//! The FlowSchemas and PriorityLevelConfigurations that every cluster has.

use serde_json::{Value, json};

/// Objects with this annotation are kept as the server says.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

type Level = (&'static str, i64, i64, Option<(i64, i64)>);

/// Name, shares, percentage that may be lent, queues and hand size; no queues: what does not fit is refused.
const LEVELS: [Level; 7] = [
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6))),
    ("node-high", 40, 25, Some((64, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
    ("global-default", 20, 50, Some((128, 6))),
];

/// The levels.
pub fn levels() -> impl Iterator<Item = Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LEVELS.iter().map(|(name, shares, lendable, queues)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => {
                json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
            }
        };
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        (*name, json!({"type": "Limited", "limited": limited}))
    });
    std::iter::once(("exempt", exempt))
        .chain(limited)
        .map(|(name, spec)| object("PriorityLevelConfiguration", name, spec))
}

/// The schemas.
pub fn schemas() -> impl Iterator<Item = Value> {
    let everyone = || groups(&["system:unauthenticated", "system:authenticated"]);
    let nodes = || groups(&["system:nodes"]);
    let system_accounts = |names: &[&str]| accounts(names);
    let controllers = || json!([user("system:kube-controller-manager")]);
    let leases = || some(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false);
    let election = joined([
        json!([user("system:kube-controller-manager"), user("system:kube-scheduler")]),
        system_accounts(&["*"]),
    ]);
    let endpoints =
        joined([controllers(), system_accounts(&["endpoint-controller", "endpointslicemirroring-controller"])]);
    let writes = |resources: &[&str]| some(&["get", "create", "update"], "", resources, false);
    let probes = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]);
    let by_user = Some("ByUser");
    let by_namespace = Some("ByNamespace");
    [
        schema("exempt", "exempt", 1, None, groups(&["system:masters"]), all(), anywhere()),
        schema("catch-all", "catch-all", 10_000, by_user, everyone(), all(), anywhere()),
        schema("system-nodes", "system", 500, by_user, nodes(), all(), anywhere()),
        schema(
            "system-node-high",
            "node-high",
            400,
            by_user,
            nodes(),
            joined([
                some(&["*"], "", &["nodes", "nodes/status"], true),
                some(&["*"], "coordination.k8s.io", &["leases"], false),
            ]),
            Value::Null,
        ),
        schema("probes", "exempt", 2, None, everyone(), Value::Null, probes),
        schema("system-leader-election", "leader-election", 100, by_user, election, leases(), Value::Null),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            by_user,
            system_accounts(&["*"]),
            joined([writes(&["endpoints", "configmaps"]), leases()]),
            Value::Null,
        ),
        schema("endpoint-controller", "workload-high", 150, by_user, endpoints, writes(&["endpoints"]), Value::Null),
        schema("kube-controller-manager", "workload-high", 800, by_namespace, controllers(), all(), anywhere()),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            by_namespace,
            json!([user("system:kube-scheduler")]),
            all(),
            anywhere(),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            system_accounts(&["*"]),
            all(),
            anywhere(),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            by_user,
            groups(&["system:serviceaccounts"]),
            all(),
            anywhere(),
        ),
        schema("global-default", "global-default", 9900, by_user, everyone(), all(), anywhere()),
    ]
    .into_iter()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

fn schema(
    name: &str,
    level: &str,
    precedence: i64,
    method: Option<&str>,
    subjects: Value,
    resources: Value,
    paths: Value,
) -> Value {
    let mut rule = json!({ "subjects": subjects });
    for (field, rules) in [("resourceRules", resources), ("nonResourceRules", paths)] {
        if !rules.is_null() {
            rule[field] = rules;
        }
    }
    let mut spec =
        json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule]});
    if let Some(method) = method {
        spec["distinguisherMethod"] = json!({ "type": method });
    }
    object("FlowSchema", name, spec)
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

/// Service accounts of the system.
fn accounts(names: &[&str]) -> Value {
    let account =
        |name: &&str| json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": "kube-system"}});
    names.iter().map(account).collect()
}

fn joined<const N: usize>(lists: [Value; N]) -> Value {
    lists.into_iter().filter_map(|list| list.as_array().cloned()).flatten().collect()
}

fn some(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    json!([rule])
}

fn all() -> Value {
    some(&["*"], "*", &["*"], true)
}

fn anywhere() -> Value {
    json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::builtin::flowcontrol;

    #[test]
    fn every_schema_leads_to_a_level_and_all_are_as_they_should_be() {
        let (levels, schemas): (Vec<Value>, Vec<Value>) = (levels().collect(), schemas().collect());
        assert_eq!((levels.len(), schemas.len()), (8, 13));
        let names: HashSet<&Value> = levels.iter().map(|level| &level["metadata"]["name"]).collect();
        for schema in &schemas {
            assert!(names.contains(&schema["spec"]["priorityLevelConfiguration"]["name"]), "{schema}");
        }
        for (kind, objects) in flowcontrol::kinds().iter().zip([&schemas, &levels]) {
            for object in objects {
                assert_eq!((kind.hooks.check)(object, None), [], "{object}");
            }
        }
    }
}
