//! The operations of a [`FakeRuntime`].

use super::*;
use async_trait::async_trait;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

fn no_sandbox(id: &str) -> Error {
    Error::not_found(format!("an error occurred when try to find sandbox {id:?}: not found"))
}
fn no_container(id: &str) -> Error {
    Error::not_found(format!("an error occurred when try to find container {id:?}: not found"))
}

impl State {
    fn new_id(&mut self) -> String {
        self.next_id += 1;
        // The number leads, so that beginnings are unique.
        format!("{:012x}{:052x}", self.next_id, 0)
    }
    fn sandbox(&mut self, id: &str) -> Result<&mut Sandbox> {
        let found = self.sandboxes.iter_mut().find(|(k, _)| !id.is_empty() && k.starts_with(id));
        found.map(|(_, s)| s).ok_or_else(|| no_sandbox(id))
    }
    fn container(&mut self, id: &str) -> Result<&mut Container> {
        let found = self.containers.iter_mut().find(|(k, _)| !id.is_empty() && k.starts_with(id));
        found.map(|(_, c)| c).ok_or_else(|| no_container(id))
    }
    fn image(&self, name: &str) -> Option<&Image> {
        let full = full_name(name);
        self.images.values().find(|i| i.id == name || i.repo_tags.contains(&full) || i.repo_digests.contains(&full))
    }
    fn stats(c: &Container) -> ContainerStats {
        let at = now();
        ContainerStats {
            id: c.status.id.clone(),
            metadata: c.status.metadata.clone(),
            labels: c.status.labels.clone(),
            annotations: c.status.annotations.clone(),
            cpu: CpuUsage { timestamp: at, usage_core_nano_seconds: 1_000_000 },
            memory: MemoryUsage {
                timestamp: at,
                working_set_bytes: 1 << 20,
                usage_bytes: 1 << 20,
                ..Default::default()
            },
            process_count: 1,
            ..Default::default()
        }
    }
    fn sandbox_stats(&self, s: &Sandbox) -> SandboxStats {
        let running = self
            .containers
            .values()
            .filter(|c| c.status.sandbox_id == s.status.id && c.status.state == ContainerState::Running);
        SandboxStats {
            id: s.status.id.clone(),
            metadata: s.status.metadata.clone(),
            labels: s.status.labels.clone(),
            annotations: s.status.annotations.clone(),
            containers: running.map(Self::stats).collect(),
            ..Default::default()
        }
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn pull_image(&self, name: &str, _auth: Option<&RegistryAuth>) -> Result<String> {
        self.call("pull_image", name)?;
        let full = full_name(name);
        let gate = self.state.lock().held_pulls.get(&full).map(watch::Sender::subscribe);
        if let Some(mut gate) = gate {
            // An error means the gate was dropped, which releases, too.
            let _ = gate.wait_for(|open| *open).await;
        }
        if let Some(e) = self.state.lock().pull_errors.get(&full) {
            return Err(e.clone());
        }
        if self.state.lock().image(name).is_none() {
            self.add_image(name, ImageConfig { cmd: vec!["/bin/sh".into()], ..Default::default() }, 1 << 20);
        }
        let s = self.state.lock();
        let image = s.image(name).ok_or_else(|| Error::internal("the image vanished"))?;
        Ok(image.repo_digests.first().cloned().unwrap_or_else(|| image.id.clone()))
    }
    async fn image_status(&self, name: &str) -> Result<Option<Image>> {
        self.call("image_status", name)?;
        Ok(self.state.lock().image(name).cloned())
    }
    async fn list_images(&self) -> Result<Vec<Image>> {
        self.call("list_images", "")?;
        Ok(self.state.lock().images.values().cloned().collect())
    }
    async fn remove_image(&self, name: &str) -> Result<()> {
        self.call("remove_image", name)?;
        let mut s = self.state.lock();
        if let Some(id) = s.image(name).map(|i| i.id.clone()) {
            s.images.retain(|_, i| i.id != id);
        }
        Ok(())
    }
    async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        self.call("image_fs_info", "")?;
        let used = self.state.lock().images.values().map(|i| i.size).sum();
        let usage = FilesystemUsage { timestamp: now(), mountpoint: "/".into(), used_bytes: used, inodes_used: 1 };
        Ok(ImageFsInfo { images: vec![usage.clone()], containers: vec![usage] })
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<Version> {
        self.call("version", "")?;
        Ok(Version { runtime_name: "fake".into(), runtime_version: "0.1.0".into(), runtime_api_version: "v1".into() })
    }
    async fn status(&self) -> Result<RuntimeStatus> {
        self.call("status", "")?;
        let ready = |kind: &str| Condition { kind: kind.into(), status: true, ..Default::default() };
        Ok(RuntimeStatus {
            conditions: vec![ready("RuntimeReady"), ready("NetworkReady")],
            features: Features {
                recursive_read_only_mounts: true,
                user_namespaces: true,
                supplemental_groups_policy: true,
            },
        })
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.call("run_pod_sandbox", &config.metadata.name)?;
        let mut s = self.state.lock();
        let id = s.new_id();
        s.next_ip = s.next_ip.wrapping_add(1).max(1);
        let host = config.linux.security_context.namespaces.network == NamespaceMode::Node;
        let ips = if host { vec![] } else { vec![[10, 88, 0, s.next_ip].into()] };
        let status = SandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: SandboxState::Ready,
            created_at: now(),
            ips,
            namespaces: config.linux.security_context.namespaces.clone(),
            netns: None,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: config.runtime_handler.clone(),
        };
        s.sandboxes.insert(id.clone(), Sandbox { status, config: config.clone(), resources: None });
        drop(s);
        self.emit(&id, "", EventKind::SandboxReady);
        Ok(id)
    }
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.call("stop_pod_sandbox", id)?;
        self.stop_sandbox(id, "Error");
        Ok(())
    }
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.call("remove_pod_sandbox", id)?;
        self.stop_sandbox(id, "Error");
        let removed = {
            let mut s = self.state.lock();
            s.containers.retain(|_, c| c.status.sandbox_id != id);
            s.sandboxes.remove(id).is_some()
        };
        if removed {
            self.emit(id, "", EventKind::SandboxRemoved);
        }
        Ok(())
    }
    async fn pod_sandbox_status(&self, id: &str) -> Result<SandboxStatus> {
        self.call("pod_sandbox_status", id)?;
        Ok(self.state.lock().sandbox(id)?.status.clone())
    }
    async fn list_pod_sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStatus>> {
        self.call("list_pod_sandboxes", "")?;
        let s = self.state.lock();
        Ok(s.sandboxes.values().map(|s| &s.status).filter(|s| sandbox_matches(filter, s)).cloned().collect())
    }
    async fn update_pod_sandbox_resources(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        self.call("update_pod_sandbox_resources", id)?;
        self.state.lock().sandbox(id)?.resources = Some(resources.clone());
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &SandboxConfig,
    ) -> Result<String> {
        self.call("create_container", &config.metadata.name)?;
        let mut s = self.state.lock();
        let parent = s.sandbox(sandbox_id)?;
        if parent.status.state != SandboxState::Ready {
            return Err(Error::unknown(format!("sandbox container {sandbox_id:?} is not running")));
        }
        let sandbox_id = parent.status.id.clone();
        let Some(image) = s.image(&config.image).cloned() else {
            return Err(Error::not_found(format!("failed to resolve image {:?}: not found", config.image)));
        };
        let id = s.new_id();
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox_id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at: now(),
            image: config.user_specified_image.clone(),
            image_ref: image.repo_digests.first().cloned().unwrap_or_else(|| image.id.clone()),
            image_id: image.id,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: log_path(sandbox, config),
            resources: config.resources.clone(),
            stop_signal: if config.stop_signal.is_empty() { "SIGTERM".into() } else { config.stop_signal.clone() },
            ..Default::default()
        };
        let container = Container { status, config: config.clone(), exit: watch::Sender::new(None) };
        s.containers.insert(id.clone(), container);
        drop(s);
        self.emit(&sandbox_id, &id, EventKind::ContainerCreated);
        Ok(id)
    }
    async fn start_container(&self, id: &str) -> Result<()> {
        self.call("start_container", id)?;
        let mut s = self.state.lock();
        let pid = u32::try_from(s.next_id).unwrap_or(1) + 1000;
        let c = s.container(id)?;
        if c.status.state != ContainerState::Created {
            return Err(Error::unknown(format!("container {id:?} is not in created state")));
        }
        c.status.state = ContainerState::Running;
        c.status.started_at = now();
        c.status.pid = pid;
        let uid = c.config.security_context.run_as_user.unwrap_or(0);
        c.status.user = Some(ProcessUser { uid, gid: 0, supplemental_groups: vec![] });
        let (id, sandbox, name) = (c.status.id.clone(), c.status.sandbox_id.clone(), c.status.metadata.name.clone());
        let exit = s.on_start.get_mut(&name).and_then(VecDeque::pop_front);
        drop(s);
        self.emit(&sandbox, &id, EventKind::ContainerStarted);
        if let Some(code) = exit {
            self.exit(&id, code);
        }
        Ok(())
    }
    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        self.call("stop_container", id)?;
        let (id, what, mut exit) = {
            let mut s = self.state.lock();
            let Ok(c) = s.container(id) else { return Ok(()) };
            let (id, name, exit) = (c.status.id.clone(), c.status.metadata.name.clone(), c.exit.subscribe());
            (id, s.on_stop.get(&name).copied().unwrap_or(OnStop::Exit(0)), exit)
        };
        match what {
            OnStop::Exit(code) if !timeout.is_zero() => self.finish(&id, code, reason_of(code)),
            _ => {
                // It may still end by itself in the meantime.
                let _ = tokio::time::timeout(timeout, exit.wait_for(Option::is_some)).await;
                self.finish(&id, 137, "Error")
            }
        };
        Ok(())
    }
    async fn remove_container(&self, id: &str) -> Result<()> {
        self.call("remove_container", id)?;
        let found = self.state.lock().container(id).map(|c| (c.status.id.clone(), c.status.sandbox_id.clone()));
        let Ok((id, sandbox)) = found else { return Ok(()) };
        self.finish(&id, 137, "Error");
        self.state.lock().containers.remove(&id);
        self.emit(&sandbox, &id, EventKind::ContainerRemoved);
        Ok(())
    }
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStatus>> {
        self.call("list_containers", "")?;
        let s = self.state.lock();
        Ok(s.containers.values().map(|c| &c.status).filter(|c| container_matches(filter, c)).cloned().collect())
    }
    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.call("container_status", id)?;
        Ok(self.state.lock().container(id)?.status.clone())
    }
    async fn update_container_resources(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        self.call("update_container_resources", id)?;
        self.state.lock().container(id)?.status.resources = resources.clone();
        Ok(())
    }
    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.call("reopen_container_log", id)?;
        self.state.lock().container(id).map(|_| ())
    }

    async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecOutput> {
        self.call("exec_sync", id)?;
        let _ = timeout;
        self.run_exec(id, cmd)
    }
    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Session> {
        self.call("exec", id)?;
        let out = self.run_exec(id, &request.cmd)?;
        let (resize, _) = tokio::sync::mpsc::channel(4);
        Ok(Session {
            stdin: request.stdin.then(|| Box::new(tokio::io::sink()) as Writer),
            stdout: request.stdout.then(|| Box::new(std::io::Cursor::new(out.stdout)) as Reader),
            stderr: (request.stderr && !request.tty).then(|| Box::new(std::io::Cursor::new(out.stderr)) as Reader),
            resize: request.tty.then_some(resize),
            exit: Box::pin(async move { Ok(out.exit_code) }),
        })
    }
    async fn attach(&self, id: &str, request: &AttachRequest) -> Result<Session> {
        self.call("attach", id)?;
        let mut s = self.state.lock();
        let c = s.container(id)?;
        if c.status.state != ContainerState::Running {
            return Err(Error::unknown("container is in CONTAINER_EXITED state"));
        }
        let mut exit = c.exit.subscribe();
        let (resize, _) = tokio::sync::mpsc::channel(4);
        Ok(Session {
            stdin: (request.stdin && c.config.stdin).then(|| Box::new(tokio::io::sink()) as Writer),
            stdout: request.stdout.then(|| Box::new(tokio::io::empty()) as Reader),
            stderr: (request.stderr && !c.config.tty).then(|| Box::new(tokio::io::empty()) as Reader),
            resize: c.config.tty.then_some(resize),
            exit: Box::pin(async move {
                let code = exit.wait_for(Option::is_some).await.ok().and_then(|c| *c);
                code.ok_or_else(|| Error::unknown("the container was removed"))
            }),
        })
    }
    /// Echoes what it is sent.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        self.call("port_forward", &format!("{sandbox_id} {port}"))?;
        self.state.lock().sandbox(sandbox_id)?;
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let (mut r, mut w) = tokio::io::split(theirs);
            // The end of either side is the end of the connection.
            let _ = tokio::io::copy(&mut r, &mut w).await;
            let _ = w.shutdown().await;
        });
        Ok(Box::new(ours))
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        self.call("container_stats", id)?;
        Ok(State::stats(self.state.lock().container(id)?))
    }
    async fn list_container_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>> {
        self.call("list_container_stats", "")?;
        let s = self.state.lock();
        let running = s.containers.values().filter(|c| c.status.state == ContainerState::Running);
        Ok(running.filter(|c| container_matches(filter, &c.status)).map(State::stats).collect())
    }
    async fn pod_sandbox_stats(&self, id: &str) -> Result<SandboxStats> {
        self.call("pod_sandbox_stats", id)?;
        let mut s = self.state.lock();
        let id = s.sandbox(id)?.status.id.clone();
        s.sandboxes.get(&id).map(|b| s.sandbox_stats(b)).ok_or_else(|| no_sandbox(&id))
    }
    async fn list_pod_sandbox_stats(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStats>> {
        self.call("list_pod_sandbox_stats", "")?;
        let s = self.state.lock();
        Ok(s.sandboxes.values().filter(|b| sandbox_matches(filter, &b.status)).map(|b| s.sandbox_stats(b)).collect())
    }

    fn events(&self) -> EventStream {
        self.event_stream()
    }
}

impl FakeRuntime {
    fn run_exec(&self, id: &str, cmd: &[String]) -> Result<ExecOutput> {
        let (name, handler) = {
            let mut s = self.state.lock();
            let c = s.container(id)?;
            if c.status.state != ContainerState::Running {
                return Err(Error::unknown("container not running"));
            }
            (c.status.metadata.name.clone(), s.exec.clone())
        };
        handler.map_or_else(|| Ok(ExecOutput::default()), |h| h(&name, cmd))
    }
}
