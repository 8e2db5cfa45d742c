//! The operations of a runtime.

use crate::*;
use async_trait::async_trait;
use std::time::Duration;

/// Pulls and keeps images.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// Makes the newest image of this name present and answers its reference (name with digest, or id). Names follow
    /// Docker's rules: `busybox` is `docker.io/library/busybox:latest`.
    async fn pull_image(&self, name: &str, auth: Option<&RegistryAuth>) -> Result<String>;
    /// The image with this name or id, if it is present.
    async fn image_status(&self, name: &str) -> Result<Option<Image>>;
    /// All images.
    async fn list_images(&self) -> Result<Vec<Image>>;
    /// Forgets the image with all its names; no error if it is absent. Containers that use it go on.
    async fn remove_image(&self, name: &str) -> Result<()>;
    /// What images take of the disk.
    async fn image_fs_info(&self) -> Result<ImageFsInfo>;
}

/// Runs sandboxes and containers. Ids are opaque; a full id or a unique beginning of one is accepted.
#[async_trait]
pub trait Runtime: ImageService {
    /// Name and version.
    async fn version(&self) -> Result<Version>;
    /// Health and abilities.
    async fn status(&self) -> Result<RuntimeStatus>;

    /// Makes and starts a sandbox: namespaces, network, cgroup. Answers its id.
    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String>;
    /// Kills what runs in it and gives back its network. Its containers' statuses and logs stay. No error when it is
    /// stopped or unknown.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Stops it and removes it with all its containers. No error when it is unknown.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    /// One sandbox.
    async fn pod_sandbox_status(&self, id: &str) -> Result<SandboxStatus>;
    /// The sandboxes that match.
    async fn list_pod_sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStatus>>;
    /// Changes what the pod's cgroup may use.
    async fn update_pod_sandbox_resources(&self, id: &str, resources: &LinuxResources) -> Result<()>;

    /// Makes a container. `sandbox` is the configuration the sandbox was made with. Answers the container's id.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &SandboxConfig,
    ) -> Result<String>;
    /// Starts it, once.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Sends its stop signal, waits, then kills it; returns when it is over. No error when it is over or unknown.
    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()>;
    /// Removes it, killing it first if it runs. Its log file stays. No error when it is unknown.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// The containers that match.
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStatus>>;
    /// One container.
    async fn container_status(&self, id: &str) -> Result<ContainerStatus>;
    /// Changes its limits.
    async fn update_container_resources(&self, id: &str, resources: &LinuxResources) -> Result<()>;
    /// Opens its log file anew, after someone moved the old one away.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;

    /// Runs a command in it to its end. After `timeout` (zero is none) the command is killed and the answer is
    /// `DeadlineExceeded`.
    async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecOutput>;
    /// Starts a command in it with streams.
    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Session>;
    /// Joins the streams of its first process.
    async fn attach(&self, id: &str, request: &AttachRequest) -> Result<Session>;
    /// Connects to a TCP port on the sandbox's loopback address.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>>;

    /// What one running container uses.
    async fn container_stats(&self, id: &str) -> Result<ContainerStats>;
    /// What the matching running containers use.
    async fn list_container_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>>;
    /// What a sandbox uses.
    async fn pod_sandbox_stats(&self, id: &str) -> Result<SandboxStats>;
    /// What the matching sandboxes use.
    async fn list_pod_sandbox_stats(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStats>>;

    /// Events from now on. To miss nothing, subscribe first and list then.
    fn events(&self) -> EventStream;
}
