//! The JavaScript client lives with the platform: `e2e/suites/javascript`.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use crate::world::{Said, World, tools};

#[test]
fn the_javascript_client_reads_writes_watches_and_informs_itself() {
    let world = World::shared();
    let modules = tools().join("javascript/node_modules");
    assert!(modules.is_dir(), "there is no JavaScript client: run `.ci/prepare tests`");
    // Modules are looked for beside the file that imports them.
    let home = tempfile::tempdir().unwrap();
    symlink(modules, home.path().join("node_modules")).unwrap();
    let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/javascript/client.test.mjs");
    fs::copy(test, home.path().join("client.test.mjs")).unwrap();
    let mut node: Command = world.program(Path::new("node"));
    node.current_dir(home.path()).args(["--test", "--test-reporter=tap", "client.test.mjs"]);
    let said = Said::by("node --test".to_owned(), node);
    let count = |what: &str| said.out.lines().find_map(|line| line.strip_prefix(&format!("# {what} "))?.parse().ok());
    assert_eq!(
        (count("pass"), count("fail"), count("skipped")),
        (Some(8), Some(0), Some(0)),
        "{}{}",
        said.out,
        said.err
    );
}
