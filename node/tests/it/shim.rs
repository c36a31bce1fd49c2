//! What the shim promises about the life of a program.

use crate::world::{dies, is_alive, line, shim};
use std::process::Command;

#[tokio::test]
async fn a_program_does_not_outlive_who_started_it() {
    let directory = tempfile::tempdir().unwrap();
    let written = directory.path().join("pid");
    let script = r#""$0" --parent $$ -- sleep 1000 & echo $! > "$1"; wait"#;
    let mut parent = Command::new("sh").args(["-c", script]).arg(shim()).arg(&written).spawn().unwrap();
    let program = line(&written).await;
    // Only when it has become the program is it known that the shim has done its part.
    let executable = std::path::PathBuf::from(format!("/proc/{program}/cmdline"));
    while !std::fs::read_to_string(&executable).unwrap().starts_with("sleep") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(is_alive(&program));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(dies(&program).await);
}

#[test]
fn a_program_is_not_started_for_somebody_else() {
    let output = Command::new(shim()).args(["--parent", "1", "--", "echo", "started"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("parent process 1 is gone"));
}

#[test]
fn the_shim_becomes_the_program_with_its_arguments_and_exit_code() {
    let parent = std::process::id().to_string();
    let arguments = ["--parent", &parent, "--", "sh", "-c", "echo $1; exit 3", "name", "a b"];
    let output = Command::new(shim()).args(arguments).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"a b\n".as_slice()));
}
