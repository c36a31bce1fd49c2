//! The table of what is compatible names tests that there are.

use std::{collections::BTreeSet, fs, path::Path};

fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| line.split_once("fn ")?.1.split_once('('));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut there = BTreeSet::new();
    for directory in ["src", "tests", "../e2e/tests", "../onex/tests"] {
        functions(&root.join(directory), &mut there);
    }
    let table = fs::read_to_string(root.join("COMPATIBILITY.md")).unwrap();
    let named: Vec<&str> =
        table.split('`').skip(1).step_by(2).filter(|code| code.contains("::") && !code.contains('…')).collect();
    assert!(named.len() > 100);
    let missing: Vec<_> = named.iter().filter(|name| !there.contains(name.rsplit("::").next().unwrap())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
