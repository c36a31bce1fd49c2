//! The published suites of the Python clients: kubernetes' dynamic client, and kr8s.
//!
//! A stand-in for the scheduler and the kubelet lets Pods run (`e2e/suites/python/kubelet.py`): the suites were written for
//! whole clusters, and it is the apiserver that they are run for here.

use std::{collections::BTreeSet, path::Path, process::Command};

use crate::world::{Said, World, kubectl, tools};

/// These three ask for `apiextensions.k8s.io/v1beta1`, which no cluster since 1.22 has; the last one finds that two clients
/// are not the same object.
const DYNAMIC_FAILS: [&str; 4] = [
    "test_async_namespaced_custom_resources",
    "test_cluster_custom_resources",
    "test_namespaced_custom_resources",
    "test_cache_decoder_resource_and_subresource",
];
/// Not run: they look into running containers, which the stand-in has none of.
const NEEDS_CONTAINERS: [&str; 4] = ["exec", "port_forward", "pod_logs", "adoption"];
/// Not run: they count the Pods of a Deployment, which kube-controller-manager makes.
const NEEDS_CONTROLLERS: [&str; 2] = ["wait_replicas", "deployment_scale"];
/// Not run: one wants a server that answers no sooner than after 10 microseconds, the other an older `kubernetes`.
const NOT_ABOUT_US: [&str; 2] = ["api_timeout", "cast_to_from_kubernetes"];

fn python(world: &World) -> Command {
    let program = tools().join("python/bin/python");
    assert!(program.is_file(), "there is no Python with the suites: run `.ci/prepare tests`");
    let mut command = world.program(&program);
    command.env("PYTHONPATH", suites().join("shim")).env("PYTHONDONTWRITEBYTECODE", "1").env("KUBECTL", kubectl());
    command
}

fn suites() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/python")
}

/// Runs pytest in a directory. Answers how many tests passed, which did not, and all that it said.
fn pytest(world: &World, directory: &Path, arguments: &[&str]) -> (usize, BTreeSet<String>, String) {
    let mut command = python(world);
    command.current_dir(directory).args(["-m", "pytest", "-q", "-rfE", "--tb=short", "-p", "onex_suites"]);
    command.args(["-p", "no:cacheprovider", "-o", "addopts=", "--timeout=60"]).args(arguments);
    let said = Said::by(format!("pytest {}", arguments.join(" ")), command);
    let out = format!("{}{}", said.out, said.err);
    let named = |line: &str| Some(line.strip_prefix("FAILED ").or(line.strip_prefix("ERROR "))?.to_owned());
    let name = |line: String| {
        let test = line.split(" - ").next().unwrap_or_default();
        test.rsplit("::").next().unwrap_or_default().to_owned()
    };
    let failed = out.lines().filter_map(named).map(name).collect();
    let count = |line: &str| line.split(", ").find_map(|part| part.strip_suffix(" passed")?.parse().ok());
    let counted = |line: &str| count(line.split(" in ").next().unwrap_or_default());
    let passed = out.lines().rev().find_map(counted).unwrap_or_else(|| panic!("no test passed:\n{out}"));
    (passed, failed, out)
}

#[test]
fn the_dynamic_client_of_python_finds_a_cluster() {
    let world = World::shared();
    let installed = "import kubernetes.dynamic; print(list(kubernetes.dynamic.__path__)[0])";
    let mut find = python(&world);
    find.args(["-c", installed]);
    let directory = Said::by("where is the dynamic client".to_owned(), find).ok();
    let (passed, failed, out) = pytest(&world, Path::new(directory.trim()), &["test_client.py", "test_discovery.py"]);
    assert_eq!(failed, DYNAMIC_FAILS.map(str::to_owned).into(), "{out}");
    assert!(passed >= 10, "{passed}");
}

#[test]
fn the_suite_of_kr8s_passes_where_no_container_has_to_run() {
    let world = World::start_with(&["--ports", "auto", "--set", "node.cgroup_parent=", "--set", "node.max_pods=0"]);
    let mut stand_in = python(&world);
    stand_in.arg(suites().join("kubelet.py"));
    let stand_in = world.running_on(stand_in);
    stand_in.prints(|out| out.contains("ready"));
    let left_out = [&NEEDS_CONTAINERS[..], &NEEDS_CONTROLLERS[..], &NOT_ABOUT_US[..]].concat().join(" or ");
    let (passed, failed, out) = pytest(
        &world,
        &tools().join("kr8s"),
        &["kr8s/tests/test_api.py", "kr8s/tests/test_objects.py", "-k", &format!("not ({left_out})")],
    );
    assert_eq!(failed, BTreeSet::new(), "{out}");
    assert!(passed >= 140, "{passed}");
}
