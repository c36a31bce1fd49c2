//! The few system calls between "a new process" and "the program": this is what `onex shim` does.
//!
//! A child cannot be told to die with its parent from outside, and code between fork and exec would have to be unsafe. So
//! every program is started as `onex shim --parent PID --cgroup DIRECTORY -- PROGRAM ARGUMENT…`: a fresh process that
//! arranges things for itself, and then becomes the program.

use crate::Error;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// What the shim was asked to do.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    parent: i32,
    cgroups: Vec<PathBuf>,
    program: OsString,
    arguments: Vec<OsString>,
}

/// Becomes the program named in `arguments` (those after `shim`), and returns only when that failed.
///
/// The program is killed when the thread that started the shim ends, and it is in the cgroups given. Call it before
/// any thread is started, and exit with a code other than 0 after it returned.
pub fn shim(arguments: impl IntoIterator<Item = OsString>) -> Error {
    match parse(arguments).and_then(prepare) {
        Ok(order) => {
            Error::Execute { source: Command::new(&order.program).args(order.arguments).exec(), program: order.program }
        }
        Err(error) => error,
    }
}

fn prepare(order: Order) -> Result<Order, Error> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| Error::ParentDeathSignal(errno.into()))?;
    // The parent may have died before it could be told that we care.
    if getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(order.parent) {
        return Err(Error::ParentGone(order.parent));
    }
    for cgroup in &order.cgroups {
        // A limit that cannot be had is no reason not to run; the node has said so once. 0 means "who is writing".
        let _ = fs::write(cgroup.join("cgroup.procs"), "0");
    }
    Ok(order)
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Order, Error> {
    let mut arguments = arguments.into_iter();
    let (mut parent, mut cgroups) = (None, Vec::new());
    loop {
        let flag = arguments.next().ok_or(Error::ShimUsage("there is no `--`"))?;
        match flag.to_str() {
            Some("--") => break,
            Some("--parent") => parent = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()),
            Some("--cgroup") => cgroups.extend(arguments.next().map(PathBuf::from)),
            _ => return Err(Error::ShimUsage("there is another flag")),
        }
    }
    Ok(Order {
        parent: parent.ok_or(Error::ShimUsage("there is no parent"))?,
        cgroups,
        program: arguments.next().ok_or(Error::ShimUsage("there is no program"))?,
        arguments: arguments.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Order, Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn an_order_is_read_from_the_command_line() {
        let order = parsed("--parent 12 --cgroup /a --cgroup /b -- sleep -- 5").unwrap();
        assert_eq!(order.parent, 12);
        assert_eq!(order.cgroups, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(order.program, "sleep");
        assert_eq!(order.arguments, ["--", "5"]);
    }

    #[test]
    fn a_wrong_order_is_refused() {
        for line in ["", "--parent 1", "--parent x -- a", "-- a", "--parent 1 --", "--nice -- a"] {
            assert!(matches!(parsed(line), Err(Error::ShimUsage(_))), "{line}");
        }
    }

    #[test]
    fn a_program_is_not_started_for_a_parent_that_is_gone() {
        let order = parsed("--parent 1999999999 -- true").unwrap();
        // Safe to call here: the death signal would only reach this test when its own parent dies.
        assert!(matches!(prepare(order), Err(Error::ParentGone(_))));
    }
}
