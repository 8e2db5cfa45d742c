//! The `pintle` binary: arguments, configuration, wiring.

mod cli;
mod image;
mod reset;
mod sample;
mod sim;
mod snapshot;
mod up;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

/// A tenth less processor time a request than the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The runtime's helper is chosen before any thread is started: it stays small and single-threaded.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|role| role == pintle_runtime::shim::ROLE) {
        std::process::exit(pintle_runtime::shim::main(args));
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("pintle: no threads to run on: {e}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Up(options) => {
                log_to_stderr(&options.log);
                up::run(*options).await
            }
            Command::Sim(options) => {
                log_to_stderr(&options.log);
                sim::run(*options).await
            }
            Command::Image(what) => image::run(what).await,
            Command::Cluster(cli::Cluster::Reset { data_dir, cgroup_root }) => {
                reset::run(&data_dir, &cgroup_root).await
            }
            Command::Snapshot(what) => snapshot::run(what).await,
            Command::Sample(what) => sample::run(what).await,
        }
    });
    // Blocking reads of standard input must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pintle: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::new(filter);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
