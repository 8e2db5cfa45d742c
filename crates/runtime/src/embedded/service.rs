//! The operations of CRI on the embedded runtime.

use super::state::{Container, Sandbox};
use super::{Embedded, stats};
use crate::shim::protocol::Request;
use crate::sys::Context as _;
use crate::*;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

fn labels_match(wanted: &StringMap, labels: &StringMap) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

impl Embedded {
    fn filtered_containers(&self, f: &ContainerFilter) -> Vec<Arc<Container>> {
        let all: Vec<_> = self.inner.state.lock().containers.values().cloned().collect();
        all.into_iter()
            .filter(|c| {
                f.id.as_ref().is_none_or(|id| c.id.starts_with(id.as_str()))
                    && f.sandbox_id.as_ref().is_none_or(|id| c.sandbox.id.starts_with(id.as_str()))
                    && f.state.is_none_or(|s| c.state() == s)
                    && labels_match(&f.labels, &c.record.lock().config.labels)
            })
            .collect()
    }

    fn filtered_sandboxes(&self, f: &SandboxFilter) -> Vec<Arc<Sandbox>> {
        let all: Vec<_> = self.inner.state.lock().sandboxes.values().cloned().collect();
        all.into_iter()
            .filter(|s| {
                let record = s.record.lock();
                f.id.as_ref().is_none_or(|id| s.id.starts_with(id.as_str()))
                    && f.state.is_none_or(|x| record.state == x)
                    && labels_match(&f.labels, &record.config.labels)
            })
            .collect()
    }
}

#[async_trait]
impl ImageService for Embedded {
    async fn pull_image(&self, name: &str, auth: Option<&RegistryAuth>) -> Result<String> {
        crate::image::pull(&self.inner.images, &self.inner.registries, name, auth).await
    }
    async fn image_status(&self, name: &str) -> Result<Option<Image>> {
        Ok(self.inner.images.find(name).map(|r| r.image()))
    }
    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(self.inner.images.all().iter().map(|r| r.image()).collect())
    }
    async fn remove_image(&self, name: &str) -> Result<()> {
        let name = name.to_string();
        self.inner.blocking(move |inner| inner.images.remove(&name)).await
    }
    async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        self.inner
            .blocking(|inner| {
                let images = inner.images.usage();
                let containers = stats::disk_usage(&inner.dir.join("sandboxes"));
                Ok(ImageFsInfo { images: vec![images], containers: vec![containers] })
            })
            .await
    }
}

#[async_trait]
impl Runtime for Embedded {
    async fn version(&self) -> Result<Version> {
        Ok(Version {
            runtime_name: "pintle".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let condition = |kind: &str, result: Result<()>, reason: &str| match result {
            Ok(()) => Condition { kind: kind.into(), status: true, ..Default::default() },
            Err(e) => Condition { kind: kind.into(), status: false, reason: reason.into(), message: e.message },
        };
        let network = self.inner.network.ready().await;
        Ok(RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", Ok(()), ""),
                condition("NetworkReady", network, "NetworkPluginNotReady"),
            ],
            features: Features {
                recursive_read_only_mounts: true,
                user_namespaces: false,
                supplemental_groups_policy: true,
            },
        })
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.inner.run_sandbox(config).await
    }
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.inner.stop_sandbox(id).await
    }
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.inner.remove_sandbox(id).await
    }
    async fn pod_sandbox_status(&self, id: &str) -> Result<SandboxStatus> {
        Ok(self.inner.sandbox(id)?.status())
    }
    async fn list_pod_sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStatus>> {
        Ok(self.filtered_sandboxes(filter).iter().map(|s| s.status()).collect())
    }
    async fn update_pod_sandbox_resources(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        let sandbox = self.inner.sandbox(id)?;
        self.inner.cgroups.apply(&sandbox.cgroup(), resources)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        _sandbox: &SandboxConfig,
    ) -> Result<String> {
        let (id, config) = (sandbox_id.to_string(), config.clone());
        self.inner.blocking(move |inner| inner.create_container(&id, &config)).await
    }
    async fn start_container(&self, id: &str) -> Result<()> {
        self.inner.start_container(id).await
    }
    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        self.inner.stop_container(id, timeout).await
    }
    async fn remove_container(&self, id: &str) -> Result<()> {
        self.inner.remove_container(id).await
    }
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStatus>> {
        Ok(self.filtered_containers(filter).iter().map(|c| c.status()).collect())
    }
    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        Ok(self.inner.container(id)?.status())
    }
    async fn update_container_resources(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        self.inner.update_container(id, resources)
    }
    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let c = self.inner.container(id)?;
        c.running()?;
        let ask = Request::ReopenLog { container: c.id.clone() };
        c.sandbox.shim()?.request(ask, &[]).await.context("failed to reopen container log")?;
        Ok(())
    }

    async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecOutput> {
        self.inner.exec_sync(id, cmd, timeout).await
    }
    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Session> {
        self.inner.exec(id, request).await
    }
    async fn attach(&self, id: &str, request: &AttachRequest) -> Result<Session> {
        self.inner.attach(id, request).await
    }
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        self.inner.port_forward(sandbox_id, port).await
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let c = self.inner.container(id)?;
        self.inner.container_usage(&c).await
    }
    async fn list_container_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>> {
        let mut out = vec![];
        for c in self.filtered_containers(filter) {
            if c.state() == ContainerState::Running
                && let Ok(usage) = self.inner.container_usage(&c).await
            {
                out.push(usage);
            }
        }
        Ok(out)
    }
    async fn pod_sandbox_stats(&self, id: &str) -> Result<SandboxStats> {
        let s = self.inner.sandbox(id)?;
        self.inner.sandbox_usage(&s).await
    }
    async fn list_pod_sandbox_stats(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStats>> {
        let mut out = vec![];
        for s in self.filtered_sandboxes(filter) {
            out.push(self.inner.sandbox_usage(&s).await?);
        }
        Ok(out)
    }

    fn events(&self) -> EventStream {
        self.inner.event_stream()
    }
}
