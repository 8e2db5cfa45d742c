//! The embedded runtime with real containers. Needs root, and Debian's `busybox-static` for `/bin/busybox`.
//!
//! The test program is its own shim and, for the test of recovery, its own daemon, so it has a `main` of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crash;
mod files;
mod fixture;
mod life;
mod limits;
mod security;
mod streams;

use libtest_mimic::{Arguments, Trial};
use std::future::Future;

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let limit = std::time::Duration::from_secs(120);
            tokio::time::timeout(limit, test()).await.map_err(|_| "the test hangs".to_string())
        })?;
        Ok(())
    })
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    // Roles first, while this process has one thread.
    match args.next().as_ref().and_then(|a| a.to_str()) {
        Some(pintle_runtime::shim::ROLE) => std::process::exit(pintle_runtime::shim::main(args)),
        Some("daemon") => crash::daemon(args),
        _ => {}
    }
    let mut arguments = Arguments::from_args();
    // Two cores: more at once only makes each slower.
    arguments.test_threads.get_or_insert(2);
    let tests = vec![
        trial("runs_and_exits", life::runs_and_exits),
        trial("logs", life::logs),
        trial("start_errors", life::start_errors),
        trial("stop_signals", life::stop_signals),
        trial("events", life::events),
        trial("stats", life::stats),
        trial("sandbox_stop_kills", life::sandbox_stop_kills),
        trial("many_in_a_row", life::many_in_a_row),
        trial("many_at_once", life::many_at_once),
        trial("shared_pids", life::shared_pids),
        trial("mounts", files::mounts),
        trial("etc_files", files::etc_files),
        trial("layers_are_not_written", files::layers_are_not_written),
        trial("image_volumes", files::image_volumes),
        trial("propagation", files::propagation),
        trial("exec_sync", streams::exec_sync),
        trial("exec_with_streams", streams::exec_with_streams),
        trial("exec_on_a_terminal", streams::exec_on_a_terminal),
        trial("attach", streams::attach),
        trial("attach_to_a_terminal", streams::attach_to_a_terminal),
        trial("port_forward", streams::port_forward),
        trial("log_rotation", streams::log_rotation),
        trial("out_of_memory", limits::out_of_memory),
        trial("process_limit", limits::process_limit),
        trial("update", limits::update),
        trial("device_filter_of_v2", limits::device_filter_of_v2),
        trial("users", security::users),
        trial("capabilities", security::capabilities),
        trial("filters", security::filters),
        trial("read_only_root", security::read_only_root),
        trial("masked_and_private", security::masked_and_private),
        trial("devices", security::devices),
        trial("privileged", security::privileged),
        trial("host_namespaces", security::host_namespaces),
        trial("sysctls", security::sysctls),
        trial("daemon_is_killed", crash::daemon_is_killed),
        trial("shim_is_killed", crash::shim_is_killed),
    ];
    libtest_mimic::run(&arguments, tests).exit();
}
