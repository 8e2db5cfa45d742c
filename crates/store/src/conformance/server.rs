//! A real etcd, which Debian has as `etcd-server`, for tests.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{EtcdOptions, EtcdStore, Store};

/// Waits for what nothing tells of, such as that a server is ready: asks again and again.
pub async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect(what);
}

/// A running etcd; it ends, and its data goes, with the value.
pub struct EtcdServer {
    process: Child,
    arguments: Vec<String>,
    directory: PathBuf,
    /// Where it listens on loopback.
    pub port: u16,
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn run(arguments: &[String]) -> Child {
    Command::new("etcd")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd can be run; Debian's package is etcd-server")
}

impl EtcdServer {
    /// Starts one, with further arguments for TLS, and a store on it. A port that was free may be taken by another
    /// process meanwhile, hence several attempts.
    pub async fn start(tls: &[String], options: impl Fn(u16) -> EtcdOptions) -> (EtcdStore, Self) {
        for _ in 0..10 {
            let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let ports = taken.map(|listener| listener.local_addr().unwrap().port());
            let mut server = Self::new(&ports, tls);
            if let Some(store) = server.ready(&options(ports[0])).await {
                return (store, server);
            }
        }
        panic!("etcd does not start; Debian's package is etcd-server");
    }

    fn new([port, peer]: &[u16; 2], tls: &[String]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // In memory where possible: this is not about etcd's disk.
        let memory = Path::new("/dev/shm").to_owned();
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = parent.join(format!("pintle-etcd-{}-{number}", std::process::id()));
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let plain = [
            ("--name", "test".to_owned()),
            ("--logger", "zap".to_owned()),
            ("--log-outputs", "/dev/null".to_owned()),
            ("--data-dir", directory.display().to_string()),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer.clone()),
            ("--initial-cluster", format!("test={peer}")),
        ];
        let plain = plain.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let arguments: Vec<String> = plain.chain(tls.iter().cloned()).collect();
        Self { process: run(&arguments), arguments, directory, port: *port }
    }

    /// A store on it once it answers; `None` when it ended instead.
    async fn ready(&mut self, options: &EtcdOptions) -> Option<EtcdStore> {
        let mut ready = None;
        wait_until("etcd answers or ends", async || {
            if self.process.try_wait().unwrap().is_some() {
                return true;
            }
            if let Ok(store) = EtcdStore::connect(options).await
                && store.current_revision().await.is_ok()
            {
                ready = Some(store);
            }
            ready.is_some()
        })
        .await;
        ready
    }

    /// Ends the process.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Runs it again on its data.
    pub fn run_again(&mut self) {
        self.process = run(&self.arguments);
    }
}

/// How to reach one without TLS.
pub fn plain(port: u16) -> EtcdOptions {
    EtcdOptions::new([format!("http://127.0.0.1:{port}")])
}
