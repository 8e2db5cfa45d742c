//! The life of a sandbox.

use super::shim_client::{self, ShimClient};
use super::state::{Sandbox, SandboxRecord};
use super::{Inner, new_id, write_json};
use crate::process::spec::SandboxSpec;
use crate::shim::protocol::{ExitRecord, Request, ShimRecord, files};
use crate::sys::{self, Context as _};
use crate::*;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long killed processes may take to be gone. The kernel may hold them up, a disk that hangs for instance.
const GONE: Duration = Duration::from_secs(60);

impl Inner {
    pub async fn run_sandbox(self: &Arc<Self>, config: &SandboxConfig) -> Result<String> {
        if !config.runtime_handler.is_empty() {
            return Err(Error::invalid(format!(
                "failed to get sandbox runtime: no runtime for {:?} is configured",
                config.runtime_handler
            )));
        }
        if config.linux.security_context.namespaces.user.is_some() {
            return Err(Error::unsupported("user namespaces are not supported"));
        }
        let id = new_id()?;
        let dir = self.dir.join("sandboxes").join(&id);
        let record = SandboxRecord {
            config: config.clone(),
            created_at: sys::now(),
            state: SandboxState::NotReady,
            ips: vec![],
        };
        let sandbox = Sandbox::new(id.clone(), dir, record);
        {
            let mut state = self.state.lock();
            let twin = state.sandboxes.values().find(|s| s.record.lock().config.metadata == config.metadata);
            if let Some(twin) = twin {
                return Err(Error::new(
                    Code::AlreadyExists,
                    format!(
                        "failed to reserve sandbox name {:?}: name is reserved for {:?}",
                        config.metadata.name, twin.id
                    ),
                ));
            }
            state.sandboxes.insert(id.clone(), sandbox.clone());
        }
        match self.bring_up(&sandbox).await {
            Ok(()) => {
                self.emit(&id, "", EventKind::SandboxReady);
                Ok(id)
            }
            Err(e) => {
                if let Err(e) = self.remove_sandbox(&id).await {
                    tracing::warn!(sandbox = id, "cleaning up after a failed start: {e}");
                }
                Err(e)
            }
        }
    }

    async fn bring_up(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let own_network = sandbox.own_network();
        let prepared = sandbox.clone();
        self.blocking(move |inner| inner.prepare(&prepared)).await?;
        let pid = shim_client::spawn(&self.shim_program.path, &sandbox.dir).await?;
        self.cgroups.leave_service(pid);
        self.connect(sandbox)?;
        if own_network {
            let netns = sandbox.netns().ok_or_else(|| Error::internal("the sandbox has no network namespace"))?;
            let ips = self.network.attach(&sandbox.network(), &netns).await;
            let ips = ips.context(format!("failed to setup network for sandbox {:?}", sandbox.id))?;
            sandbox.record.lock().ips = ips;
        }
        sandbox.record.lock().state = SandboxState::Ready;
        sandbox.save()
    }

    /// Writes what the shim and the containers will read, and makes the pod's cgroup.
    fn prepare(&self, sandbox: &Sandbox) -> Result<()> {
        let config = sandbox.record.lock().config.clone();
        let namespaces = &config.linux.security_context.namespaces;
        fs::create_dir_all(sandbox.dir.join(files::CONTAINERS)).context("making the sandbox's directory")?;
        sandbox.save()?;
        let own_network = sandbox.own_network();
        write_etc(&sandbox.dir, &config, own_network)?;
        let spec = SandboxSpec {
            id: sandbox.id.clone(),
            hostname: config.hostname.clone(),
            network: own_network,
            ipc: namespaces.ipc != NamespaceMode::Node,
            shared_pid: namespaces.pid == NamespaceMode::Pod,
            sysctls: config.linux.sysctls.clone(),
        };
        write_json(&sandbox.dir.join(files::SANDBOX), &spec)?;
        self.cgroups.create(&sandbox.cgroup())?;
        match &config.linux.resources {
            Some(resources) => self.cgroups.apply(&sandbox.cgroup(), resources),
            None => Ok(()),
        }
    }

    /// Connects to a sandbox's shim and begins to listen to it.
    pub fn connect(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let record: Option<ShimRecord> = super::read_json(&sandbox.dir.join(files::SHIM));
        let record = record.ok_or_else(|| Error::not_found("the sandbox has no shim"))?;
        let client = ShimClient::connect(&sandbox.dir)?;
        *sandbox.shim_record.lock() = Some(record);
        *sandbox.shim.lock() = Some(client.clone());
        let (inner, sandbox) = (Arc::downgrade(self), sandbox.clone());
        tokio::spawn(async move {
            let weak = inner.clone();
            client
                .listen(move |what| {
                    if let Some(inner) = weak.upgrade() {
                        inner.happened(what);
                    }
                })
                .await;
            if let Some(inner) = inner.upgrade()
                && sandbox.shim.lock().take().is_some()
            {
                // Nobody told it to stop.
                tracing::warn!(sandbox = sandbox.id, "the shim ended unexpectedly");
                inner.lost(&sandbox).await;
            }
        });
        Ok(())
    }

    /// Cleans up after a shim that is gone.
    pub async fn lost(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let _turn = sandbox.turn.lock().await;
        if let Err(e) = self.end(sandbox).await {
            tracing::warn!(sandbox = sandbox.id, "cleaning up after a lost shim: {e}");
        }
    }

    /// Makes sure that nothing of a sandbox runs, and says so. Its turn must be held.
    async fn end(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let containers = self.containers_of(&sandbox.id);
        for c in containers.iter().filter(|c| c.state() != ContainerState::Exited) {
            self.cgroups.kill(&c.cgroup())?;
        }
        if let Some(record) = sandbox.shim_record.lock().take()
            && sys::start_time(record.pid) == Some(record.start_time)
        {
            sys::kill(record.pid.cast_signed(), libc::SIGKILL).context("killing the shim")?;
        }
        for c in containers {
            let never = ContainerState::Created;
            if c.state() == never && !c.dir.join(files::STARTED).exists() {
                continue;
            }
            let record = c.exit_on_disk().unwrap_or_else(|| ExitRecord {
                exit_code: 255,
                finished_at: sys::now(),
                reason: "Unknown".into(),
                message: "the container's shim ended before it".into(),
            });
            if c.exit_on_disk().is_none() {
                write_json(&c.dir.join(files::EXIT), &record)?;
            }
            self.exited(&c, record);
        }
        if sandbox.own_network() {
            let network = self.network.detach(&sandbox.network(), sandbox.netns().as_deref()).await;
            network.context(format!("failed to destroy network for sandbox {:?}", sandbox.id))?;
        }
        let was = std::mem::replace(&mut sandbox.record.lock().state, SandboxState::NotReady);
        if was == SandboxState::Ready {
            sandbox.save()?;
            self.emit(&sandbox.id, "", EventKind::SandboxGone);
        }
        Ok(())
    }

    pub async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        self.stop_held(&sandbox).await
    }

    async fn stop_held(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        // Containers, then the network while its namespace is there, then the shim that holds it.
        let was_ready = sandbox.ready();
        if sandbox.shim.lock().is_some() {
            for c in self.containers_of(&sandbox.id) {
                if let Err(e) = self.stop_container(&c.id, Duration::ZERO).await {
                    // The shim's own stop is the second try.
                    tracing::warn!(container = c.id, "{e}");
                }
            }
        }
        if was_ready && sandbox.own_network() {
            let network = self.network.detach(&sandbox.network(), sandbox.netns().as_deref()).await;
            network.context(format!("failed to destroy network for sandbox {:?}", sandbox.id))?;
        }
        let shim = sandbox.shim.lock().take();
        if let Some(shim) = shim {
            let containers = self.containers_of(&sandbox.id);
            let asked = tokio::time::timeout(GONE, shim.request(Request::Stop, &[])).await;
            match asked {
                Ok(Ok(_)) => *sandbox.shim_record.lock() = None,
                Ok(Err(e)) => tracing::warn!(sandbox = sandbox.id, "stopping the shim: {e}"),
                Err(_) => tracing::warn!(sandbox = sandbox.id, "the shim does not stop"),
            }
            for c in containers {
                if c.state() == ContainerState::Running
                    && let Some(record) = c.exit_on_disk()
                {
                    self.exited(&c, record);
                }
            }
        }
        self.end(sandbox).await
    }

    pub async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        self.stop_held(&sandbox).await?;
        for c in self.containers_of(&sandbox.id) {
            self.remove_container(&c.id).await?;
        }
        self.remove_cgroup(&sandbox.cgroup()).await?;
        let dir = sandbox.dir.clone();
        self.blocking(move |_| remove_dir(&dir)).await?;
        if self.state.lock().sandboxes.remove(&sandbox.id).is_some() {
            self.emit(&sandbox.id, "", EventKind::SandboxRemoved);
        }
        Ok(())
    }

    /// Removes a cgroup, waiting for killed processes to be gone.
    pub async fn remove_cgroup(self: &Arc<Self>, path: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + GONE;
        let mut wait = Duration::from_millis(1);
        loop {
            let own = path.to_string();
            // What keeps a cgroup is processes that are dying already, or should be.
            let tried = self.blocking(move |inner| match inner.cgroups.remove(&own) {
                Ok(()) => Ok(Ok(())),
                Err(e) => inner.cgroups.kill(&own).map(|()| Err(e)),
            });
            match tried.await? {
                Ok(()) => return Ok(()),
                Err(e) if tokio::time::Instant::now() > deadline => return Err(e),
                Err(_) => {}
            }
            // Version 1 has nothing to wait on.
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(200));
        }
    }
}

pub fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.context(format!("removing {}", dir.display())),
    }
}

/// Writes the files that every container of the sandbox finds in `/etc`, unless it mounts its own.
fn write_etc(dir: &Path, config: &SandboxConfig, own_network: bool) -> Result<()> {
    let put = |name: &str, text: &str| fs::write(dir.join(name), text).context(format!("writing {name}"));
    let hostname = if own_network && !config.hostname.is_empty() {
        config.hostname.clone()
    } else {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    };
    put("hostname", &format!("{hostname}\n"))?;
    put("hosts", &fs::read_to_string("/etc/hosts").unwrap_or_default())?;
    let resolv = match &config.dns_config {
        None => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        Some(dns) => resolv_conf(dns)?,
    };
    put("resolv.conf", &resolv)
}

fn resolv_conf(dns: &DnsConfig) -> Result<String> {
    let line_break = |list: &[String]| list.iter().any(|s| s.contains(['\n', '\r']));
    if line_break(&dns.servers) || line_break(&dns.searches) || line_break(&dns.options) {
        return Err(Error::invalid("a DNS setting holds a line break"));
    }
    let mut out = String::new();
    if !dns.searches.is_empty() {
        out.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        out.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        out.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_confs() {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let dns = DnsConfig {
            servers: strings(&["10.96.0.10"]),
            searches: strings(&["a.svc", "b"]),
            options: strings(&["ndots:5"]),
        };
        assert_eq!(resolv_conf(&dns).unwrap(), "search a.svc b\nnameserver 10.96.0.10\noptions ndots:5\n");
        assert_eq!(resolv_conf(&DnsConfig::default()).unwrap(), "");
        assert!(resolv_conf(&DnsConfig { searches: strings(&["a\nb"]), ..Default::default() }).is_err());
    }
}
