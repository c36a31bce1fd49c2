//! The shim alone, for the tests of this crate: they cannot start themselves as `onex shim`.

fn main() -> std::process::ExitCode {
    let error = onex_node::shim(std::env::args_os().skip(1));
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{error}\n").as_bytes());
    std::process::ExitCode::from(127)
}
