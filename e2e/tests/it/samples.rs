//! The samples of OneX, word for word, and what must come of them.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::door::ask_miner;
use crate::world::{PATIENCE, World, eventually};

/// How long the samples may take until everything runs.
const READY: Duration = Duration::from_secs(10);

fn sample(name: &str) -> String {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("manifests/sample/onex");
    samples.join(name).to_str().unwrap().to_owned()
}

fn apply_samples(world: &World) {
    let (mut line, mut created) = ("apply".to_owned(), String::new());
    for (file, name) in [
        ("namespace.yaml", "namespace/user-admin"),
        ("chain.yaml", "chain.apps.onex.io/genesis"),
        ("minerset.yaml", "minerset.apps.onex.io/test"),
        ("miner.yaml", "miner.apps.onex.io/freeminer"),
    ] {
        line += &format!(" -f {}", sample(file));
        created += &format!("{name} created\n");
    }
    assert_eq!(world.kubectl(&line).ok(), created);
}

/// From the first object that was created to the last that became Ready, as the platform wrote it down: how long kubectl takes
/// to start is not the platform's.
fn took(world: &World) -> Duration {
    let objects = world.get("chains,minersets,miners,pods -A")["items"].clone();
    let objects = objects.as_array().unwrap();
    let second = |time: &Value| serde_json::from_value::<Time>(time.clone()).unwrap().0.as_second();
    let created = objects.iter().map(|object| second(&object["metadata"]["creationTimestamp"]));
    let conditions = objects.iter().filter_map(|object| object["status"]["conditions"].as_array()).flatten();
    let ready = conditions.filter(|condition| condition["type"] == "Ready").map(|condition| {
        assert_eq!(condition["status"], "True", "{condition}");
        second(&condition["lastTransitionTime"])
    });
    let (ready, first) = (ready.collect::<Vec<_>>(), created.min().unwrap());
    assert!(ready.len() >= 5, "four Pods and a set are Ready: {ready:?}");
    Duration::from_secs(u64::try_from(ready.into_iter().max().unwrap() - first).unwrap())
}

/// The table as words, so that widths and ages do not matter: `<age>` stands for an age.
fn table(world: &World, line: &str) -> Vec<Vec<String>> {
    let age = |word: &str| {
        word.len() > 1 && word.ends_with(['s', 'm']) && word.starts_with(|first: char| first.is_ascii_digit())
    };
    let word = |word: &str| if age(word) { "<age>".to_owned() } else { word.to_owned() };
    world.kubectl(line).ok().lines().map(|row| row.split_whitespace().map(word).collect()).collect()
}

fn words(table: &[&str]) -> Vec<Vec<String>> {
    table.iter().map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn the_samples_apply_as_they_are_and_run_within_ten_seconds_with_the_columns_people_know() {
    let world = World::start();
    apply_samples(&world);
    eventually(PATIENCE, || {
        let phases = world.kubectl("get miners -A -o jsonpath={.items[*].status.phase}").ok();
        let ready = world.kubectl("get minerset test -n user-admin -o jsonpath={.status.readyReplicas}").ok();
        let all = phases.split_whitespace().filter(|&phase| phase == "Running").count() == 4 && ready == "2";
        if all { Ok(()) } else { Err(format!("the miners are {phases}, {ready} of the set")) }
    });
    assert!(took(&world) <= READY, "it took {:?}", took(&world));

    assert_eq!(
        table(&world, "get chains,minersets,miners,pods -A"),
        words(&[
            "NAMESPACE NAME AGE",
            "kube-system chain.apps.onex.io/genesis <age>",
            "",
            "NAMESPACE NAME READY CURRENT AVAILABLE AGE",
            "user-admin minerset.apps.onex.io/test 2/2 2 2 <age>",
            "",
            "NAMESPACE NAME STATUS AGE",
            "kube-system miner.apps.onex.io/genesis Running <age>",
            "user-admin miner.apps.onex.io/freeminer Running <age>",
            "user-admin miner.apps.onex.io/test-0 Running <age>",
            "user-admin miner.apps.onex.io/test-1 Running <age>",
            "",
            "NAMESPACE NAME READY STATUS RESTARTS AGE",
            "kube-system pod/genesis 1/1 Running 0 <age>",
            "user-admin pod/freeminer 1/1 Running 0 <age>",
            "user-admin pod/test-0 1/1 Running 0 <age>",
            "user-admin pod/test-1 1/1 Running 0 <age>",
        ])
    );
    assert_eq!(
        table(&world, "get ms -n user-admin -o wide"),
        words(&["NAME READY CURRENT AVAILABLE AGE SELECTOR", "test 2/2 2 2 <age> apps.onex.io/minerset=test",])
    );
    assert_eq!(
        table(&world, "get mi freeminer -n user-admin -o wide"),
        words(&["NAME STATUS AGE TYPE", "freeminer Running <age> M1.MEDIUM2"])
    );
    assert_eq!(world.nodes().len(), 4, "a process a miner: {:?}", world.nodes());

    // Applying them again changes nothing.
    for (file, name) in [("minerset.yaml", "minerset.apps.onex.io/test"), ("chain.yaml", "chain.apps.onex.io/genesis")]
    {
        assert_eq!(world.kubectl(&format!("apply -f {}", sample(file))).ok(), format!("{name} unchanged\n"));
    }
    the_server_fills_in_what_the_samples_leave_out(&world);
}

fn the_server_fills_in_what_the_samples_leave_out(world: &World) {
    let chain = world.get("chain genesis -n kube-system");
    assert_eq!(chain["metadata"]["finalizers"], json!(["chain.onex.io/finalizer"]));
    assert_eq!(chain["metadata"]["generation"], 1);
    assert_eq!(chain["spec"]["bootstrapAccount"], "0x210d9eD12CEA87E33a98AA7Bcb4359eABA9e800e");
    assert_eq!(chain["status"]["minerRef"]["name"], "genesis");
    assert_eq!(condition(&chain, "MinersCreated"), "True");

    let keystore = chain["status"]["configMapRef"]["name"].as_str().unwrap().to_owned();
    assert!(keystore.starts_with("genesis-"), "{keystore}");
    let keystore = world.get(&format!("configmap {keystore} -n kube-system"));
    assert_eq!(keystore["metadata"]["labels"]["apps.onex.io/chain-name"], "genesis");
    assert_eq!(keystore["metadata"]["ownerReferences"][0]["uid"], chain["metadata"]["uid"]);

    let genesis = world.get("miner genesis -n kube-system");
    assert_eq!(genesis["metadata"]["labels"]["apps.onex.io/chain-name"], "genesis");
    assert_eq!(genesis["metadata"]["ownerReferences"][0]["controller"], true);
    assert_eq!(genesis["metadata"]["finalizers"], json!(["miner.onex.io/finalizer"]));
    assert_eq!(
        (&genesis["spec"]["minerType"], &genesis["spec"]["chainName"]),
        (&json!("S1.SMALL2"), &json!("genesis"))
    );
    for annotation in ["apps.onex.io/vCPU", "apps.onex.io/memoryMb"] {
        assert!(genesis["metadata"]["annotations"][annotation].is_string(), "{annotation}: {genesis:#}");
    }

    let set = world.get("minerset test -n user-admin");
    assert_eq!(set["spec"]["selector"], json!({"matchLabels": {"apps.onex.io/minerset": "test"}}));
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["apps.onex.io/minerset"], "test");
    assert_eq!(set["spec"]["template"]["spec"]["displayName"], "miner-for-test-minerset");
    assert_eq!(set["metadata"]["labels"]["apps.onex.io/chain-name"], "genesis");
    for count in ["replicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"] {
        assert_eq!(set["status"][count], 2, "{count}: {set:#}");
    }
    for kind in ["Ready", "MinersCreated", "Resized"] {
        assert_eq!(condition(&set, kind), "True", "{kind}");
    }
    let member = world.get("miner test-0 -n user-admin");
    assert_eq!(member["metadata"]["labels"]["apps.onex.io/minerset"], "test");
    assert_eq!(member["metadata"]["labels"]["apps.onex.io/minerset-name"], "test");
    assert_eq!(member["metadata"]["ownerReferences"][0]["uid"], set["metadata"]["uid"]);
    assert_eq!(condition(&member, "PodHealthy"), "True");
}

fn condition(object: &Value, kind: &str) -> Value {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind).map_or(Value::Null, |condition| condition["status"].clone())
}

#[test]
fn miners_of_one_chain_agree_on_it_and_it_grows() {
    let world = World::start();
    let chain = std::fs::read_to_string(sample("chain.yaml")).unwrap();
    assert!(chain.contains("minMineIntervalSeconds: 43200"));
    world.create(&chain.replace("minMineIntervalSeconds: 43200", "minMineIntervalSeconds: 1"));
    world.kubectl(&format!("create -f {} -f {}", sample("minerset.yaml"), sample("miner.yaml"))).ok();
    world.sized("user-admin", "test", 2);
    world.running("user-admin", &["freeminer"]);
    world.running("kube-system", &["genesis"]);
    let pods =
        [("kube-system", "genesis"), ("user-admin", "freeminer"), ("user-admin", "test-0"), ("user-admin", "test-1")];
    let addresses = pods.map(|(namespace, pod)| address(&world, namespace, pod));
    let first = common_height(&addresses, 2);
    common_height(&addresses, first + 3);
}

fn address(world: &World, namespace: &str, pod: &str) -> Ipv4Addr {
    let address = world.kubectl(&format!("get pod {pod} -n {namespace} -o jsonpath={{.status.podIP}}")).ok();
    address.parse().unwrap_or_else(|_| panic!("{pod} has the address {address:?}"))
}

/// Waits until all nodes have the same block at some height of at least `least`, and answers the height.
///
/// Their tips may differ by a block that is still on its way; what lies below must be the same.
fn common_height(addresses: &[Ipv4Addr], least: u64) -> u64 {
    eventually(PATIENCE, || {
        let heights: Vec<u64> = addresses
            .iter()
            .map(|&address| ask_miner(address, "/v1/height").map(|answer| answer["height"].as_u64().unwrap()))
            .collect::<Result<_, _>>()?;
        let height = *heights.iter().min().unwrap();
        if height < least {
            return Err(format!("the heights are {heights:?}, and should reach {least}"));
        }
        let hashes: Vec<Value> = addresses
            .iter()
            .map(|&address| ask_miner(address, &format!("/v1/blocks/{height}")).map(|block| block["hash"].clone()))
            .collect::<Result<_, _>>()?;
        let same = hashes.iter().all(|hash| hash.is_string() && *hash == hashes[0]);
        if same { Ok(height) } else { Err(format!("they disagree about block {height}: {hashes:?}")) }
    })
}
