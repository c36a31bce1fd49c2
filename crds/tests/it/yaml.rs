//! `crds/yaml/` is printed from the types. `UPDATE=1 cargo test -p onex-crds` prints it anew.

use std::fs;
use std::path::Path;

use onex_crds::{Chain, Kind, Miner, MinerSet, crds};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The schema as the apiserver takes it from the type: also with what a CRD has no place for.
fn schema<K: Kind>() -> Value {
    let generator = SchemaSettings::openapi3()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(kube::core::schema::StructuralSchemaRewriter)
        .into_generator();
    generator.into_root_schema_for::<K>().to_value()
}

#[test]
fn the_yaml_is_as_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for crd in crds() {
        let path = folder.join(format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural));
        let fresh = serde_saphyr::to_string(&crd).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &fresh).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == fresh, "{} is stale: run UPDATE=1 cargo test -p onex-crds", path.display());
    }
}

#[test]
fn merge_keys_are_where_strategic_merge_needs_them() {
    let conditions = &schema::<MinerSet>()["properties"]["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(conditions["x-kubernetes-patch-merge-key"], "type");
    let status = &schema::<Miner>()["properties"]["status"]["properties"];
    assert_eq!(status["addresses"]["x-kubernetes-patch-merge-key"], "type");
    assert_eq!(status["conditions"]["x-kubernetes-patch-merge-key"], Value::Null);
    assert_eq!(
        schema::<Chain>()["properties"]["status"]["properties"]["conditions"]["x-kubernetes-patch-strategy"],
        Value::Null
    );
}

#[test]
fn the_schema_says_the_defaults_and_needs_nothing() {
    let chain = schema::<Chain>();
    let spec = &chain["properties"]["spec"];
    assert_eq!(spec["default"], json!({}));
    assert_eq!(spec["required"], Value::Null);
    assert_eq!(spec["properties"]["minerType"]["default"], "S1.SMALL2");
    assert_eq!(spec["properties"]["minMineIntervalSeconds"]["format"], "int32");
    let set = schema::<MinerSet>();
    let spec = &set["properties"]["spec"]["properties"];
    assert_eq!(spec["replicas"]["default"], 1);
    assert_eq!(spec["replicas"]["minimum"].as_f64(), Some(0.0));
    assert_eq!(spec["deletePolicy"]["enum"], json!(["Random", "Newest", "Oldest"]));
}

#[test]
fn names_and_subresources_are_those_of_onex() {
    let names: Vec<Value> = crds().iter().map(|crd| json!(crd.spec.names)).collect();
    assert_eq!(
        names,
        [
            json!({"kind": "Chain", "plural": "chains", "singular": "chain", "shortNames": ["ch"], "categories": ["all"]}),
            json!({"kind": "MinerSet", "plural": "minersets", "singular": "minerset", "shortNames": ["ms"], "categories": ["all"]}),
            json!({"kind": "Miner", "plural": "miners", "singular": "miner", "shortNames": ["mi"], "categories": ["all"]}),
            json!({"kind": "CronJob", "plural": "cronjobs", "singular": "cronjob", "shortNames": ["ocj"], "categories": ["all"]}),
            json!({"kind": "Job", "plural": "jobs", "singular": "job", "shortNames": ["oj"], "categories": ["all"]}),
        ]
    );
    let version = json!(crds()[1].spec.versions[0]);
    assert_eq!(version["subresources"]["scale"]["specReplicasPath"], ".spec.replicas");
    assert_eq!(version["selectableFields"], json!([{"jsonPath": ".status.replicas"}]));
}

/// In OneX, a Job had the short name of a Miner, and `kubectl get mi` could mean either.
#[test]
fn b27_no_two_kinds_share_a_short_name() {
    let mut names: Vec<String> = crds().into_iter().flat_map(|crd| crd.spec.names.short_names.unwrap()).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "{names:?}");
}
