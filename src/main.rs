//! The program: reads the command line, sets up logging, runs the command.

use clap::Parser;
use rowcast::cli::{self, Cli};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Ok(filter) = EnvFilter::builder().parse(cli.log_filter()) else {
        anstream::eprintln!("rowcast: `--log {}` is not a filter; try `info` or `rowcast=debug`", cli.log_filter());
        return ExitCode::from(2);
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if cli.log_json {
        log.json().init();
    } else {
        log.with_target(false).init();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("rowcast: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(cli::run(cli))
}
