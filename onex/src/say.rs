//! What the program tells the person who started it. Everything else is a log line.

use std::io::Write as _;

/// Prints a line on standard output.
pub fn out(line: &str) {
    // Whoever closed the pipe does not want to read it; that is no reason to stop the platform.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints a line on standard error.
pub fn wrong(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
