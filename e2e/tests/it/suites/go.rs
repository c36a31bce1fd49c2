//! Go's clients, client-go and controller-runtime, in the hands of a Go program.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{Said, World, tools};

/// How many tests the suite has.
const TESTS: usize = 13;

/// The suite as a program. `.ci/prepare tests` has built it before, so that only what changed since is built.
fn built() -> PathBuf {
    std::fs::create_dir_all(tools()).unwrap();
    let program = tools().join("go-suite");
    let mut go = Command::new("go");
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/go"))
        .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "auto"), ("GOFLAGS", "")])
        .args(["test", "-c", "-vet=off", "-o", program.to_str().unwrap(), "."]);
    Said::by("go test -c".to_owned(), go).ok();
    program
}

#[test]
fn go_programs_find_what_they_expect_with_and_without_streamed_lists() {
    let program = built();
    let world = World::start();
    // What compares each streamed list with a plain one stumbles over custom resources, of which client-go reads the kind from
    // a list and not from a watch.
    let compared = ["-test.skip=Operator"].as_slice();
    for (streamed, compares, arguments, tests) in
        [("false", "false", [].as_slice(), TESTS), ("true", "false", &[], TESTS), ("true", "true", compared, TESTS - 1)]
    {
        let mut suite = world.program(&program);
        suite
            .env("KUBE_FEATURE_WatchListClient", streamed)
            .env("KUBE_WATCHLIST_INCONSISTENCY_DETECTOR", compares)
            .args(["-test.v", "-test.timeout=150s"])
            .args(arguments);
        let said = Said::by(format!("go-suite, streamed: {streamed}, compared: {compares}"), suite);
        let complaints = said.err.clone();
        let said = said.ok();
        let ended = |how: &str| said.lines().filter(|line| line.starts_with(&format!("--- {how}: "))).count();
        assert_eq!((ended("PASS"), ended("FAIL"), ended("SKIP")), (tests, 0, 0), "{said}");
        assert!(!complaints.contains("initial-events-list-blueprint"), "{complaints}");
    }
}
