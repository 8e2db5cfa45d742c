//! The container a container spec asks for.

use super::env::{Environment, command_and_args};
use super::sandbox::pod_labels;
use super::{resources, security};
use crate::config::KubeletConfig;
use crate::pod::spec::{self, PodRef};
use crate::pod::state::labels;
use k8s_openapi::api::core::v1::{Container, Pod};
use pintle_runtime::{ContainerConfig, ContainerMetadata, Device, Mount};

/// What is known only when the container is about to be made.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// How often it was restarted before.
    pub attempt: u32,
    /// How often all of the pod's containers have been restarted together.
    pub round: u32,
    /// The image's id.
    pub image_id: String,
    /// Who the image runs as.
    pub image_user: security::ImageUser,
    /// Its environment.
    pub env: Environment,
    /// Its mounts.
    pub mounts: Vec<Mount>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// The container whose processes it wants to see.
    pub target: Option<String>,
    /// The node's memory.
    pub memory_capacity: i64,
}

/// Where a container's log is below the pod's log directory.
#[must_use]
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The container.
///
/// # Errors
/// What forbids it to run, in upstream's words.
pub fn of(pod: &Pod, c: &Container, p: Prepared, config: &KubeletConfig) -> Result<ContainerConfig, String> {
    let r = PodRef::of(pod);
    let (command, args) = command_and_args(c, &p.env.vars);
    let mut own_labels = pod_labels(&r);
    own_labels.insert(labels::CONTAINER_NAME.into(), c.name.clone());
    let text = |s: &Option<String>, or: &str| s.clone().unwrap_or_else(|| or.into());
    let mut annotations: pintle_runtime::StringMap = [
        (labels::CONTAINER_HASH, spec::container_hash(c)),
        (labels::RESTART_COUNT, p.attempt.to_string()),
        (labels::TERMINATION_MESSAGE_PATH, text(&c.termination_message_path, "/dev/termination-log")),
        (labels::TERMINATION_MESSAGE_POLICY, text(&c.termination_message_policy, "File")),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .into();
    if p.round > 0 {
        annotations.insert(labels::ROUND.into(), p.round.to_string());
    }
    if let Some(grace) = spec::spec(pod).termination_grace_period_seconds {
        annotations.insert(labels::GRACE_PERIOD.into(), grace.to_string());
    }
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        annotations.insert(labels::DELETION_GRACE_PERIOD.into(), grace.to_string());
    }
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: c.name.clone(), attempt: p.attempt },
        image: p.image_id,
        user_specified_image: c.image.clone().unwrap_or_default(),
        command,
        args,
        working_dir: c.working_dir.clone().unwrap_or_default(),
        envs: p.env.vars,
        mounts: p.mounts,
        devices: p.devices,
        labels: own_labels,
        annotations,
        log_path: log_path(&c.name, p.attempt),
        stdin: c.stdin.unwrap_or_default(),
        stdin_once: c.stdin_once.unwrap_or_default(),
        tty: c.tty.unwrap_or_default(),
        stop_signal: c.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).unwrap_or_default(),
        resources: resources::of_container(pod, c, config, p.memory_capacity),
        security_context: security::of_container(pod, c, &p.image_user, p.target.as_deref(), config)?,
    })
}
