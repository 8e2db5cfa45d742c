//! The things a worker does one at a time: volumes, sandbox, the start of a container.

use super::{Done, Worker};
use crate::images::NoImage;
use crate::kubelet::Shared;
use crate::pod::decide::Start;
use crate::pod::restart;
use crate::pod::spec::{self, Kind, PodRef};
use crate::pod::state::restart_count;
use crate::translate::env::{Objects, Sources, environment, service_links};
use crate::translate::fields::Addresses;
use crate::translate::{container, dns, hosts, sandbox, services};
use crate::volumes::{self, Inputs, ReadyVolumes, mounts, payload};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret, Volume};
use pintle_client::recorder::EventType;
use pintle_runtime::{self as rt, ContainerState};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// The outcome of a look at a pod's volumes.
pub(super) struct VolumesReady {
    pub ready: ReadyVolumes,
    pub failed: BTreeMap<String, String>,
    pub renew: Option<Timestamp>,
}

/// Why a container was not started.
pub(super) enum NotStarted {
    /// The pod is being ended.
    Cancelled,
    /// It failed.
    Failed { reason: String, message: String, retry: Option<Timestamp> },
}

fn failed(reason: &str, message: impl Into<String>) -> NotStarted {
    NotStarted::Failed { reason: reason.into(), message: message.into(), retry: None }
}

/// A name for a new directory that no other had.
fn stamp(now: Timestamp) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{:09}{n}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond())
}

/// The names of ConfigMaps and Secrets the container's environment reads.
fn env_references(c: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for f in c.env_from.iter().flatten() {
        maps.extend(f.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(f.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for s in c.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(s.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(s.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    (maps, secrets)
}

/// The files that the container's environment is read from.
async fn env_files(c: &Container, pod_dir: &Path) -> BTreeMap<(String, String), Result<String, String>> {
    let sources = c.env.iter().flatten().filter_map(|e| e.value_from.as_ref()?.file_key_ref.as_ref());
    let wanted: BTreeSet<(String, String)> = sources.map(|r| (r.volume_name.clone(), r.path.clone())).collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let dir = pod_dir.to_owned();
    let read = move |(volume, path): (String, String)| {
        // The API takes no other volumes for this.
        let text = volumes::read::text(&volumes::volume_dir(&dir, "empty-dir", &volume), &path);
        Some(((volume, path), text.map_err(|e| e.to_string()).transpose()?))
    };
    tokio::task::spawn_blocking(move || wanted.into_iter().filter_map(read).collect()).await.unwrap_or_default()
}

async fn objects(
    k: &Shared,
    r: &PodRef,
    maps: impl IntoIterator<Item = String>,
    secrets: impl IntoIterator<Item = String>,
) -> Result<Objects, String> {
    Ok(Objects {
        config_maps: k.config_maps.get_all(&r.namespace, maps, &r.uid).await?,
        secrets: k.secrets.get_all(&r.namespace, secrets, &r.uid).await?,
    })
}

impl Worker {
    /// Makes the pod's volumes ready, or brings them up to date.
    pub(super) fn prepare_volumes(&self) -> BoxFuture<'static, Done> {
        let (k, pod) = (self.k.clone(), self.pod.clone());
        async move { Done::Volumes(prepare(&k, &pod).await) }.boxed()
    }

    /// Makes the sandbox, after what is left of the one before is stopped.
    pub(super) fn make_sandbox(&self, attempt: u32) -> BoxFuture<'static, Done> {
        let (k, pod) = (self.k.clone(), self.pod.clone());
        let old: Vec<String> = self.runtime.sandboxes.iter().map(|s| s.id.clone()).collect();
        let init: BTreeSet<&str> = spec::init_containers(&self.pod).iter().map(|c| c.name.as_str()).collect();
        let purge: Vec<String> = self
            .runtime
            .containers
            .iter()
            .filter(|c| init.contains(c.metadata.name.as_str()))
            .map(|c| c.id.clone())
            .collect();
        if !old.is_empty() {
            self.event(EventType::Normal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
        }
        let about = self.reference();
        async move {
            let made = async {
                for id in &old {
                    k.runtime.stop_pod_sandbox(id).await.map_err(|e| e.to_string())?;
                }
                // Initialisation starts over.
                for id in &purge {
                    k.runtime.remove_container(id).await.map_err(|e| e.to_string())?;
                }
                let handler = runtime_handler(&k, &pod).await?;
                let node_dns = k.dns();
                let (config, notes) = sandbox::of(&pod, attempt, &handler, &node_dns, &k.config)?;
                for (reason, message) in notes {
                    k.recorder.warning(&about, reason, message);
                }
                let log_dir = config.log_directory.clone();
                tokio::fs::create_dir_all(&log_dir).await.map_err(|e| format!("{log_dir}: {e}"))?;
                let id = k.runtime.run_pod_sandbox(&config).await.map_err(|e| e.to_string())?;
                k.own_sandbox(&id, pod.metadata.uid.as_deref().unwrap_or_default());
                k.runtime.pod_sandbox_status(&id).await.map(Box::new).map_err(|e| e.to_string())
            };
            Done::Sandbox(made.await)
        }
        .boxed()
    }

    /// Starts a container: image, configuration, creation, start, hook.
    pub(super) fn start_container(&mut self, start: Start) -> BoxFuture<'static, Done> {
        let last = self.runtime.latest(&start.name);
        let attempt = last.map_or_else(|| self.attempt_after_loss(&start.name), |c| restart_count(c) + 1);
        if last.is_some_and(|c| c.state == ContainerState::Exited) {
            self.backoff.next(&start.name, self.k.clock.now());
        }
        let sandbox = self.runtime.ready_sandbox().cloned().unwrap_or_default();
        let target = spec::spec(&self.pod)
            .ephemeral_containers
            .iter()
            .flatten()
            .filter(|e| e.name == start.name)
            .find_map(|e| self.runtime.latest(e.target_container_name.as_deref()?))
            .filter(|c| c.state == ContainerState::Running)
            .map(|c| c.id.clone());
        // Of the runs before, the last one is kept for its log.
        let stale: Vec<String> = self
            .runtime
            .of(&start.name)
            .filter(|c| c.state != ContainerState::Running)
            .skip(self.k.config.max_dead_containers_per_container.max(1))
            .map(|c| c.id.clone())
            .collect();
        let round = self.runtime.round() + u32::from(restart::restarts_all(&self.pod, &self.runtime));
        let job = StartJob {
            k: self.k.clone(),
            pod: self.pod.clone(),
            start: start.clone(),
            attempt,
            round,
            sandbox,
            target,
            volumes: self.volumes.clone().unwrap_or_default(),
            cancel: self.cancel.clone(),
        };
        async move {
            let outcome = job.run().await;
            for id in stale {
                if let Err(e) = remove_container(&job.k, &id).await {
                    tracing::warn!(container = id, error = %e, "cannot remove an old container");
                }
            }
            Done::Started(start, outcome)
        }
        .boxed()
    }

    /// The number of a container's next run when the runtime has lost the ones before.
    fn attempt_after_loss(&self, name: &str) -> u32 {
        let status = &self.seen.lock().status;
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let told = lists.into_iter().flatten().flatten().find(|s| s.name == name);
        told.filter(|s| s.container_id.is_some() || s.restart_count > 0)
            .map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0) + u32::from(s.container_id.is_some()))
    }
}

/// Removes a container and its log.
pub(super) async fn remove_container(k: &Shared, id: &str) -> rt::Result<()> {
    let log = k.runtime.container_status(id).await.map(|c| c.log_path).unwrap_or_default();
    k.runtime.remove_container(id).await?;
    if !log.is_empty() {
        crate::logs::remove(std::path::Path::new(&log));
    }
    Ok(())
}

async fn runtime_handler(k: &Shared, pod: &Pod) -> Result<String, String> {
    if spec::spec(pod).resource_claims.as_ref().is_some_and(|c| !c.is_empty()) {
        return Err(
            "failed to prepare dynamic resources: no driver for resource claims is registered on this node".into()
        );
    }
    if spec::spec(pod).host_users == Some(false) {
        return Err("runtime handler \"\" does not support user namespaces".into());
    }
    let Some(name) = spec::spec(pod).runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
        return Ok(String::new());
    };
    let class = k.client.of::<k8s_openapi::api::node::v1::RuntimeClass>().get("", name).await;
    class.map(|c| c.handler).map_err(|e| format!("failed to get sandbox runtime: {e}"))
}

/// Makes the pod's directories and volumes ready.
async fn prepare(k: &Arc<Shared>, pod: &Arc<Pod>) -> VolumesReady {
    let r = PodRef::of(pod);
    let used = volumes::used(pod);
    let all: Vec<&Volume> = spec::spec(pod).volumes.iter().flatten().filter(|v| used.contains(&v.name)).collect();
    let mut inputs = Inputs::default();
    let mut renew = None;
    let references: Vec<(bool, String)> = all.iter().flat_map(|v| payload::references(v)).collect();
    let names = |maps: bool| references.iter().filter(move |(m, _)| *m == maps).map(|(_, n)| n.clone());
    let fetched = objects(k, &r, names(true), names(false)).await;
    let allocatable = k.node.allocatable();
    let mut sources = payload::Sources { allocatable: Some(&allocatable), ..Default::default() };
    let mut fetch_error = None;
    match fetched {
        Ok(found) => sources.objects = found,
        Err(e) => fetch_error = Some(e),
    }
    for v in &all {
        let mut token_error = None;
        for (source, _) in payload::token_sources(v) {
            match k.tokens.get(pod, &source, k.clock.now()).await {
                Ok((token, at)) => {
                    sources.tokens.insert(source, token);
                    renew = Some(renew.map_or(at, |r: Timestamp| r.min(at)));
                }
                Err(e) => token_error = Some(e),
            }
        }
        if let Some(p) = payload::payload(pod, v, &sources) {
            let p = match (token_error, &fetch_error) {
                (Some(e), _) => Err(e),
                (None, Some(e)) if !payload::references(v).is_empty() => Err(e.clone()),
                _ => p,
            };
            inputs.payloads.insert(v.name.clone(), p);
        }
        if let Some(image) = &v.image {
            inputs.images.insert(v.name.clone(), volume_image(k, pod, image).await);
        }
        if v.persistent_volume_claim.is_some() || v.ephemeral.is_some() {
            inputs.claims.insert(v.name.clone(), claim(k, &r, v).await);
        }
    }
    let (pod, config, stamp) = (pod.clone(), k.config.clone(), stamp(k.clock.now()));
    let worked = tokio::task::spawn_blocking(move || {
        let dir = config.pod_dir(&r.uid);
        std::fs::create_dir_all(dir.join("containers")).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(volumes::set_up_all(&pod, &inputs, &config, &stamp))
    });
    let (ready, failed) = match worked.await {
        Ok(Ok(out)) => out,
        Ok(Err(e)) => (BTreeMap::new(), [(String::new(), e)].into()),
        Err(e) => (BTreeMap::new(), [(String::new(), e.to_string())].into()),
    };
    VolumesReady { ready, failed, renew }
}

async fn volume_image(
    k: &Shared,
    pod: &Pod,
    source: &k8s_openapi::api::core::v1::ImageVolumeSource,
) -> Result<String, String> {
    let as_container = Container {
        image: source.reference.clone(),
        image_pull_policy: source.pull_policy.clone(),
        ..Default::default()
    };
    let secrets = pull_secrets(k, pod).await;
    let about = pintle_client::recorder::reference_of(pod);
    let tell = |kind: EventType, reason: &str, message: String| k.recorder.event(&about, kind, reason, message);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    k.images.ensure(uid, &as_container, &secrets, &tell).await.map(|p| p.id).map_err(|e| e.message)
}

/// The claim of a volume and the volume it is bound to.
async fn claim(
    k: &Shared,
    r: &PodRef,
    v: &Volume,
) -> Result<(k8s_openapi::api::core::v1::PersistentVolumeClaim, k8s_openapi::api::core::v1::PersistentVolume), String> {
    use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
    let name = match &v.persistent_volume_claim {
        Some(c) => c.claim_name.clone(),
        None => format!("{}-{}", r.name, v.name),
    };
    let claims = k.client.of::<PersistentVolumeClaim>();
    let claim = claims
        .get(&r.namespace, &name)
        .await
        .map_err(|e| format!("failed to get PVC {}/{name} from the API server: {e}", r.namespace))?;
    let bound = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|n| !n.is_empty());
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let Some(bound) = bound.filter(|_| phase == "Bound") else {
        return Err(format!(
            "PVC {}/{name} has non-bound phase ({phase:?}) or empty pvc.Spec.VolumeName ({:?})",
            r.namespace, ""
        ));
    };
    let volume = k.client.of::<PersistentVolume>().get("", &bound).await;
    let volume = volume.map_err(|e| format!("failed to fetch PV {bound:?} from API server: {e}"))?;
    Ok((claim, volume))
}

/// The pod's pull secrets that exist; the others are told of.
async fn pull_secrets(k: &Shared, pod: &Pod) -> Vec<Arc<Secret>> {
    let r = PodRef::of(pod);
    let (mut out, mut missing) = (vec![], vec![]);
    for s in spec::spec(pod).image_pull_secrets.iter().flatten() {
        match k.secrets.get(&r.namespace, &s.name, &r.uid).await {
            Ok(Some(found)) => out.push(found),
            Ok(None) | Err(_) => missing.push(s.name.clone()),
        }
    }
    if !missing.is_empty() {
        let about = pintle_client::recorder::reference_of(pod);
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        k.recorder.warning(&about, "FailedToRetrieveImagePullSecret", message);
    }
    out
}

struct StartJob {
    k: Arc<Shared>,
    pod: Arc<Pod>,
    start: Start,
    attempt: u32,
    round: u32,
    sandbox: rt::SandboxStatus,
    target: Option<String>,
    volumes: ReadyVolumes,
    cancel: CancellationToken,
}

impl StartJob {
    fn tell(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        let mut about = pintle_client::recorder::reference_of(&*self.pod);
        about.field_path = Some(spec::field_path(self.start.kind, &self.start.name));
        self.k.recorder.event(&about, kind, reason, message);
    }

    fn fail(&self, reason: &str, message: impl Into<String>) -> NotStarted {
        let message = message.into();
        self.tell(EventType::Warning, "Failed", format!("Error: {message}"));
        failed(reason, message)
    }

    async fn run(&self) -> Result<(), NotStarted> {
        let Some((_, c)) = spec::container(&self.pod, &self.start.name) else { return Err(NotStarted::Cancelled) };
        let c: &Container = &c;
        let image = tokio::select! {
            image = self.image(c) => image?,
            () = self.cancel.cancelled() => return Err(NotStarted::Cancelled),
        };
        let config = self.configure(c, image).await.map_err(|e| self.fail("CreateContainerConfigError", e))?;
        let (sandbox_config, _) = sandbox::of(
            &self.pod,
            self.sandbox.metadata.attempt,
            &self.sandbox.runtime_handler,
            &self.k.dns(),
            &self.k.config,
        )
        .map_err(|e| self.fail("CreateContainerConfigError", e))?;
        if self.cancel.is_cancelled() {
            return Err(NotStarted::Cancelled);
        }
        let runtime = &self.k.runtime;
        let made = runtime.create_container(&self.sandbox.id, &config, &sandbox_config).await;
        let id = made.map_err(|e| self.fail("CreateContainerError", e.message))?;
        self.tell(EventType::Normal, "Created", "Container created");
        runtime.start_container(&id).await.map_err(|e| self.fail("RunContainerError", e.message))?;
        self.tell(EventType::Normal, "Started", "Container started");
        self.hook(c, &id).await
    }

    async fn image(&self, c: &Container) -> Result<crate::images::Present, NotStarted> {
        let secrets = pull_secrets(&self.k, &self.pod).await;
        let tell = |kind: EventType, reason: &str, message: String| self.tell(kind, reason, message);
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        self.k.images.ensure(uid, c, &secrets, &tell).await.map_err(|NoImage { reason, message, retry }| {
            self.tell(EventType::Warning, "Failed", format!("Error: {reason}"));
            NotStarted::Failed { reason: reason.into(), message, retry: Some(retry) }
        })
    }

    async fn configure(&self, c: &Container, image: crate::images::Present) -> Result<rt::ContainerConfig, String> {
        let (k, pod) = (&self.k, &self.pod);
        let r = PodRef::of(pod);
        let (maps, secrets) = env_references(c);
        let pod_ips: Vec<String> = if spec::host_network(pod) {
            k.node.addresses().iter().map(ToString::to_string).collect()
        } else {
            self.sandbox.ips.iter().map(ToString::to_string).collect()
        };
        let known = k.services().await?;
        let sources = Sources {
            objects: objects(k, &r, maps, secrets).await?,
            files: env_files(c, &k.config.pod_dir(&r.uid)).await,
            services: services::variables(&known, &r.namespace, service_links(pod)),
            addresses: Addresses {
                host: k.node.addresses().iter().map(ToString::to_string).collect(),
                pod: pod_ips.clone(),
            },
            allocatable: k.node.allocatable(),
        };
        let env = environment(pod, c, &sources)?;
        for message in &env.skipped {
            let about = pintle_client::recorder::reference_of(&**pod);
            k.recorder.warning(&about, "InvalidEnvironmentVariableNames", message.clone());
        }
        let pod_dir = k.config.pod_dir(&r.uid);
        let hosts = self.hosts_file(&pod_dir, &pod_ips).await?;
        let log = self.termination_file(c, &pod_dir).await?;
        let (owned, volumes, env_vars) = (c.clone(), self.volumes.clone(), env.vars.clone());
        let dir = pod_dir.clone();
        let mounts = tokio::task::spawn_blocking(move || {
            let cx = mounts::Context {
                pod_dir: &dir,
                volumes: &volumes,
                env: &env_vars,
                hosts: Some(&hosts),
                termination_log: log.as_deref(),
            };
            mounts::of_container(&owned, &cx)
        });
        let mounts = mounts.await.map_err(|e| e.to_string())??;
        let prepared = container::Prepared {
            attempt: self.attempt,
            round: self.round,
            image_id: image.id,
            image_user: image.user,
            env,
            mounts,
            devices: mounts::devices(c, &self.volumes)?,
            target: self.target.clone(),
            memory_capacity: k.node.memory_capacity(),
        };
        container::of(pod, c, prepared, &k.config)
    }

    /// Writes the pod's `/etc/hosts`.
    async fn hosts_file(&self, pod_dir: &std::path::Path, ips: &[String]) -> Result<PathBuf, String> {
        let aliases = spec::spec(&self.pod).host_aliases.as_deref().unwrap_or_default();
        let text = if spec::host_network(&self.pod) {
            hosts::of_host(&tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default(), aliases)
        } else {
            let (name, fqdn) = dns::hostname(&self.pod, &self.k.config.cluster_domain)?;
            let fqdn = fqdn.filter(|f| *f != name);
            hosts::managed(ips, &name, fqdn.as_deref(), aliases)
        };
        let path = pod_dir.join("etc-hosts");
        // Containers that run already have the file mounted: the same file is written again.
        tokio::fs::write(&path, text).await.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }

    /// Makes the file for the container's last words.
    async fn termination_file(&self, c: &Container, pod_dir: &std::path::Path) -> Result<Option<PathBuf>, String> {
        if c.termination_message_path.as_deref() == Some("") {
            return Ok(None);
        }
        let dir = pod_dir.join("containers").join(&c.name);
        let path = dir.join(format!("{}", self.attempt));
        let made = async {
            tokio::fs::create_dir_all(&dir).await?;
            tokio::fs::write(&path, b"").await?;
            // Whoever the container runs as may write to it.
            use std::os::unix::fs::PermissionsExt as _;
            tokio::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).await
        };
        made.await.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Some(path))
    }

    async fn hook(&self, c: &Container, id: &str) -> Result<(), NotStarted> {
        let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
        let ip = self.sandbox.ips.first().map(ToString::to_string);
        let ip = ip.or_else(|| self.k.node.addresses().first().map(ToString::to_string)).unwrap_or_default();
        let name = PodRef::of(&self.pod).to_string();
        let ran = tokio::select! {
            ran = crate::hooks::run(&*self.k.runtime, id, c, &name, &ip, hook) => ran,
            () = self.cancel.cancelled() => return Err(NotStarted::Cancelled),
        };
        let Err(message) = ran else { return Ok(()) };
        self.tell(EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
        self.tell(EventType::Normal, "Killing", "FailedPostStartHook");
        let grace = spec::spec(&self.pod).termination_grace_period_seconds.unwrap_or(30);
        let grace = std::time::Duration::from_secs(u64::try_from(grace).unwrap_or(0).max(2));
        if let Err(e) = self.k.runtime.stop_container(id, grace).await {
            tracing::warn!(container = id, error = %e, "cannot stop a container whose hook failed");
        }
        Err(NotStarted::Failed {
            reason: "PostStartHookError".into(),
            message,
            // It is an end like any other: back-off decides when it starts again.
            retry: Some(self.k.clock.now()),
        })
    }
}

/// Whether a kind of container is part of the pod's own work.
#[must_use]
pub(super) fn is_probed(kind: Kind, c: &Container) -> bool {
    kind == Kind::Regular || (kind == Kind::Init && spec::is_sidecar(c))
}
