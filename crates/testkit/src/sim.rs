//! Simulated nodes beside a cluster.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Cluster, binary, until};

/// How long it may take to clean up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `pintle sim`; ended when it is dropped.
#[derive(Debug)]
pub struct Sim(Child);

impl Sim {
    /// `pintle sim` on a cluster's machine, with these arguments.
    #[must_use]
    pub fn command(cluster: &Cluster, args: &[&str]) -> Command {
        let mut c = cluster.machine().command(&binary::pintle().to_string_lossy());
        c.arg("sim").args(args).arg("--kubeconfig").arg(cluster.kubeconfig());
        c
    }

    /// Starts it.
    ///
    /// # Panics
    /// When there is no `nsenter`.
    #[must_use]
    #[expect(clippy::panic, reason = "a test's verdict")]
    pub fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let mut c = Self::command(cluster, args);
        let sim = c.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(sim.unwrap_or_else(|e| panic!("nsenter: {e}")))
    }

    /// Asks it to end, as Ctrl-C does; answers its exit status.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    #[expect(clippy::panic, reason = "a test's verdict")]
    pub fn stop(mut self) -> Option<i32> {
        let asked = kill_process(Pid::from_child(&self.0), Signal::INT);
        asked.unwrap_or_else(|e| panic!("pintle sim: {e}"));
        until("pintle sim to end", PATIENCE, || match self.0.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // It ends with the machine it works for, whatever this says.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
