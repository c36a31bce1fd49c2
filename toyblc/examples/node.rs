//! `onex toyblc` without the rest of OneX: one node on a current-thread runtime, until Ctrl-C.

use clap::Parser;
use onex_daemon::telemetry;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    arguments: onex_toyblc::Arguments,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Command { arguments } = Command::parse();
    telemetry::init(&telemetry::Settings { filter: arguments.log_level.clone(), ..Default::default() })?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    onex_toyblc::run(arguments, shutdown).await
}
