//! `pintle up` on a machine of its own, and `kubectl` against it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::binary::pintle;
use crate::command::{Output, run};
use crate::machine::Machine;
use crate::wait::until;

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

const KUBELET_CONFIG: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}
";

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// More arguments of `pintle up`.
    pub args: Vec<String>,
    /// MiB of a disk of its own for the data directory; none is the machine's.
    pub disk: Option<u32>,
}

/// A running `pintle up`.
#[derive(Debug)]
pub struct Cluster {
    machine: Machine,
    dir: TempDir,
    options: Options,
    child: Option<Child>,
    said: Arc<Mutex<String>>,
}

impl Cluster {
    /// Starts one with default options and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start: the test has failed.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts one.
    ///
    /// # Panics
    /// When it does not start: the test has failed.
    #[must_use]
    pub fn start_with(options: Options) -> Self {
        Self::start_on(Machine::new(), options)
    }

    /// Starts one on a machine that is there already.
    ///
    /// # Panics
    /// When it does not start: the test has failed.
    #[must_use]
    pub fn start_on(machine: Machine, options: Options) -> Self {
        let dir = tempfile::Builder::new().prefix("pintle-test-").tempdir();
        assert!(dir.is_ok(), "a temporary directory: {dir:?}");
        let Ok(dir) = dir else { unreachable!("asserted above") };
        let written = std::fs::write(dir.path().join("kubelet.yaml"), KUBELET_CONFIG);
        assert!(written.is_ok(), "the node agent's configuration: {written:?}");
        let mut cluster = Self { machine, dir, options, child: None, said: Arc::default() };
        if let Some(size) = cluster.options.disk {
            let data = cluster.data_dir();
            let mut c = Command::new("sh");
            c.args(["-c", "mkdir -p \"$1\" && mount -t tmpfs -o size=\"$0\"M tmpfs \"$1\"", &size.to_string()])
                .arg(data);
            let _ = run(c, "").ok();
        }
        cluster.up();
        cluster
    }

    /// The node agent's configuration: a nearly full disk is no concern of a test.
    fn kubelet_config(&self) -> PathBuf {
        self.dir.path().join("kubelet.yaml")
    }

    /// The arguments all starts share.
    fn args(&self) -> Vec<String> {
        let data = self.data_dir();
        let mut args = vec![
            "up".to_owned(),
            format!("--data-dir={}", data.display()),
            format!("--node-name=node-{}", self.machine.address().octets()[2]),
            // Control groups are the host's: each cluster keeps to its own.
            format!("--cgroup-root=/{}", self.dir.path().file_name().unwrap_or_default().to_string_lossy()),
            format!("--kubelet-config={}", self.kubelet_config().display()),
        ];
        args.extend(self.options.args.iter().cloned());
        args
    }

    /// Starts the process (again) and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not become ready: the test has failed.
    pub fn up(&mut self) {
        let mut command = self.machine.command(&pintle().to_string_lossy());
        command.args(self.args()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn();
        assert!(child.is_ok(), "nsenter: {child:?}");
        let Ok(mut child) = child else { unreachable!("asserted above") };
        let said: Arc<Mutex<String>> = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut text = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    text.push_str(&line);
                    text.push('\n');
                }
            });
        }
        self.child = Some(child);
        self.said = said;
        until("pintle up", START, || {
            let said = self.said();
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            assert!(ended.is_none(), "pintle up ended with {ended:?}:\n{said}");
            if said.contains("The cluster is up") { Ok(()) } else { Err(said) }
        });
    }

    /// What it printed so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Its machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The name of its node.
    #[must_use]
    pub fn node(&self) -> String {
        format!("node-{}", self.machine.address().octets()[2])
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory for the test's own files; removed with the cluster.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    /// Process id of `pintle up`.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// A `kubectl` command on its machine.
    #[must_use]
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let program = std::env::var("PINTLE_TEST_KUBECTL").unwrap_or_else(|_| "kubectl".into());
        let mut c = self.machine.command(&program);
        c.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path()).args(args);
        c
    }

    /// Runs `kubectl`.
    #[must_use]
    pub fn kubectl(&self, args: &[&str]) -> Output {
        run(self.kubectl_command(args), "")
    }

    /// Runs `kubectl` with standard input, as for `apply -f -`.
    #[must_use]
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Output {
        run(self.kubectl_command(args), input)
    }

    /// Applies a manifest.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let _ = self.kubectl_with(&["apply", "-f", "-"], manifest).ok();
    }

    /// Imports an image archive.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn import(&self, archive: &Path) {
        let mut c = Command::new(pintle());
        c.args(["image", "import", "--data-dir"]).arg(self.data_dir()).arg(archive);
        let _ = run(c, "").ok();
    }

    /// Kills the process at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the process to end, as Ctrl-C does, and waits; answers its exit status.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
        let _ = kill_process(pid, Signal::INT);
        Some(until("pintle up to end", STOP, || match child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            Ok(None) => Err("it runs on".to_owned()),
            Err(e) => Err(e.to_string()),
        }))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what pintle up said:\n{}", self.said());
        }
        self.kill();
        // What outlives the process by design (containers, mounts) goes by the product's own clean-up.
        let mut c = self.machine.command(&pintle().to_string_lossy());
        c.args(["cluster", "reset", "--data-dir"])
            .arg(self.data_dir())
            .args(self.args().iter().filter(|a| a.starts_with("--cgroup-root")));
        let _ = run(c, "");
        if self.options.disk.is_some() {
            let mut c = Command::new("umount");
            c.arg("-l").arg(self.data_dir());
            let _ = run(c, "");
        }
    }
}
