//! One binary: `onex up` runs the whole platform, and every part can be run by its name.
//!
//! This is the only crate that knows all rooms: it reads the settings, opens the stores, and hands them out. It has no
//! behaviour of its own beyond starting, saying what it started, and stopping it again. Start at [`up`].

mod arguments;
mod config;
mod doctor;
mod keep;
mod kubeconfig;
mod lock;
mod meanings;
mod parts;
mod platform;
mod say;
mod settings;
mod signals;
mod sockets;
mod stores;
mod up;
mod usercenter;

use std::process::ExitCode;

use clap::Parser as _;
use onex_daemon::telemetry;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::arguments::{Arguments, Command};
use crate::up::What;

/// Objects are trees of many small pieces while they are changed, and threads free what others made: what a write costs is for
/// a large part the allocator. This one makes writes a quarter faster than the C library's does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|command| command == "shim") {
        // Before everything else: the shim stands between the node and every process it starts, so it must be quick, and
        // it must not have threads.
        return failed(&onex_node::shim(arguments).into());
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    say::wrong(&format!("error: {error:#}"));
    ExitCode::FAILURE
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Up(arguments) => many_threads()?.block_on(up::up(What::Everything, arguments)),
        Command::Apiserver(arguments) => many_threads()?.block_on(up::up(What::Apiserver, arguments)),
        Command::Usercenter(arguments) => many_threads()?.block_on(up::up(What::Usercenter, arguments)),
        Command::Controllers(part) => many_threads()?.block_on(up::up(What::Controllers(part.kubeconfig), part.up)),
        Command::Node(part) => many_threads()?.block_on(up::up(What::Node(part.kubeconfig), part.up)),
        Command::Backup(arguments) => many_threads()?.block_on(keep::backup(arguments)),
        Command::Restore(arguments) => many_threads()?.block_on(keep::restore(arguments)),
        Command::Doctor(arguments) => many_threads()?.block_on(doctor::doctor(arguments)),
        Command::Bench(arguments) => many_threads()?.block_on(onex_bench::run(arguments)),
        Command::Config(arguments) => {
            say::out(&config::print(&arguments.layers().read()?)?);
            Ok(())
        }
        // A miner is one of many on its machine, so it has one thread.
        Command::Toyblc(arguments) => one_thread()?.block_on(async {
            telemetry::init(&telemetry::Settings { filter: arguments.log_level.clone(), ..Default::default() })?;
            let stop = CancellationToken::new();
            signals::cancel_when_asked(stop.clone())?;
            onex_toyblc::run(arguments, stop).await
        }),
        Command::Version => {
            say::out(&format!("onex {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    }
}

fn many_threads() -> std::io::Result<Runtime> {
    /// Bodies may be nested a hundred levels deep, and are read and written by recursion. What is not used costs nothing.
    const STACK: usize = 8 << 20;
    Builder::new_multi_thread().thread_stack_size(STACK).enable_all().build()
}

fn one_thread() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
