//! The life of a container.

use super::sandbox::remove_dir;
use super::spec::{self, Parts};
use super::state::{Container, ContainerRecord, containers_dir};
use super::{Inner, new_id, write_json};
use crate::shim::protocol::{ExitRecord, Reply, Request, files};
use crate::sys::{self, Context as _};
use crate::*;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// How long a killed container may take to end.
const KILLED: Duration = Duration::from_secs(120);

impl Inner {
    pub fn create_container(&self, sandbox_id: &str, config: &ContainerConfig) -> Result<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.ready() {
            return Err(Error::unknown(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        if let Some(twin) =
            self.containers_of(&sandbox.id).iter().find(|c| c.record.lock().config.metadata == config.metadata)
        {
            return Err(Error::new(
                Code::AlreadyExists,
                format!(
                    "failed to reserve container name {:?}: name is reserved for {:?}",
                    config.metadata.name, twin.id
                ),
            ));
        }
        let id = new_id()?;
        let result = self.make_container(&id, &sandbox, config);
        match result {
            Ok(container) => {
                self.state.lock().containers.insert(id.clone(), container);
                self.emit(&sandbox.id, &id, EventKind::ContainerCreated);
                Ok(id)
            }
            Err(e) => {
                self.images.release(&id);
                remove_dir(&containers_dir(&sandbox.dir).join(&id))?;
                Err(e)
            }
        }
    }

    fn make_container(
        &self,
        id: &str,
        sandbox: &Arc<super::state::Sandbox>,
        config: &ContainerConfig,
    ) -> Result<Arc<Container>> {
        let missing = |name: &str| Error::not_found(format!("failed to resolve image {name:?}: not found"));
        let image = self.images.find(&config.image).ok_or_else(|| missing(&config.image))?;
        let layers = self.images.hold(id, &image)?;
        let mut held = layers.chain.clone();
        let mut volumes = vec![];
        for m in config.mounts.iter().filter(|m| !m.image.is_empty()) {
            let image = self.images.find(&m.image).ok_or_else(|| missing(&m.image))?;
            let layers = self.images.hold(id, &image)?;
            held.extend(layers.chain);
            volumes.push(layers.dirs);
        }
        let dir = containers_dir(&sandbox.dir).join(id);
        for sub in ["upper", "work", "rootfs", "volume"] {
            fs::create_dir_all(dir.join(sub)).context("making the container's directory")?;
        }
        let stop_signal = [config.stop_signal.as_str(), image.config.stop_signal.as_str(), "SIGTERM"];
        let stop_signal = stop_signal.into_iter().find(|s| !s.is_empty()).unwrap_or_default().to_string();
        if sys::signal_number(&stop_signal).is_none() {
            return Err(Error::invalid(format!("invalid stop signal {stop_signal:?}")));
        }
        let sandbox_config = sandbox.record.lock().config.clone();
        let container = Container::new(id.into(), sandbox.clone(), dir.clone(), ContainerRecord::default());
        let made = spec::make(&Parts {
            id,
            config,
            sandbox: &sandbox_config,
            image: &image.config,
            layers: &layers.dirs,
            volumes: &volumes,
            cgroups: &self.cgroups,
            cgroup: &container.cgroup(),
            sandbox_dir: &sandbox.dir,
            dir: &dir,
        })
        .context(format!("failed to generate container {id:?} spec"))?;
        write_json(&dir.join(files::SPEC), &made.spec)?;
        *container.record.lock() = ContainerRecord {
            config: config.clone(),
            created_at: sys::now(),
            image_id: image.id.clone(),
            image_ref: image.reference(),
            stop_signal,
            log_path: made.spec.log_path.display().to_string(),
            layers: held,
            devices: made.devices,
        };
        container.save()?;
        Ok(container)
    }

    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let c = self.container(id)?;
        let _turn = c.turn.lock().await;
        if c.state() != ContainerState::Created {
            return Err(Error::unknown(format!("container {:?} is not in created state", c.id)));
        }
        let shim = c.sandbox.shim()?;
        let (resources, devices) = {
            let record = c.record.lock();
            (record.config.resources.clone(), record.devices.clone())
        };
        let path = c.cgroup();
        let prepared = self
            .blocking(move |inner| {
                inner.cgroups.create(&path)?;
                inner.cgroups.apply(&path, &resources)?;
                inner.cgroups.allow_devices(&path, &devices)
            })
            .await;
        let answer = match prepared {
            Ok(()) => shim.request(Request::Start { container: c.id.clone() }, &[]).await,
            Err(e) => Err(e),
        };
        match answer {
            Ok((Reply::Started(record), _)) => {
                // The lock keeps start and end in order.
                let mut started = c.started.lock();
                *started = Some(record);
                self.emit(&c.sandbox.id, &c.id, EventKind::ContainerStarted);
                // It may be over already, told before this was known.
                let over = c.exit.borrow().clone();
                if let Some(record) = over {
                    self.emit_exit(&c, &record);
                }
                Ok(())
            }
            Ok(other) => Err(Error::internal(format!("the shim answered {other:?}"))),
            Err(e) => {
                let record = c.exit_on_disk().unwrap_or_else(|| ExitRecord {
                    exit_code: 128,
                    finished_at: sys::now(),
                    reason: "StartError".into(),
                    message: e.message.clone(),
                });
                write_json(&c.dir.join(files::EXIT), &record)?;
                self.exited(&c, record);
                Err(e.context(format!("failed to start container {:?}", c.id)))
            }
        }
    }

    /// Notes that a container is over, once.
    pub fn exited(&self, c: &Arc<Container>, record: ExitRecord) {
        let started = c.started.lock();
        let first = c.exit.send_if_modified(|e| {
            let first = e.is_none();
            if first {
                *e = Some(record.clone());
            }
            first
        });
        if !first {
            return;
        }
        // Before the answer to its start is here, whoever started it tells.
        if started.is_some() || record.reason == "StartError" {
            self.emit_exit(c, &record);
        }
    }

    fn emit_exit(&self, c: &Container, record: &ExitRecord) {
        let kind = EventKind::ContainerExited { exit_code: record.exit_code, reason: record.reason.clone() };
        self.emit(&c.sandbox.id, &c.id, kind);
    }

    pub async fn stop_container(self: &Arc<Self>, id: &str, timeout: Duration) -> Result<()> {
        let Ok(c) = self.container(id) else { return Ok(()) };
        if c.state() != ContainerState::Running {
            return Ok(());
        }
        let shim = c.sandbox.shim()?;
        let mut exit = c.exit.subscribe();
        let signal = |signal: i32, all: bool| Request::Signal { container: c.id.clone(), signal, all };
        if !timeout.is_zero() {
            let number = sys::signal_number(&c.record.lock().stop_signal).unwrap_or(libc::SIGTERM);
            shim.request(signal(number, false), &[]).await.context(format!("failed to stop container {:?}", c.id))?;
            if tokio::time::timeout(timeout, exit.wait_for(Option::is_some)).await.is_ok() {
                return Ok(());
            }
        }
        shim.request(signal(libc::SIGKILL, true), &[]).await.context(format!("failed to kill container {:?}", c.id))?;
        match tokio::time::timeout(KILLED, exit.wait_for(Option::is_some)).await {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(Error::new(Code::DeadlineExceeded, format!("failed to kill container {:?}: it does not end", c.id)))
            }
        }
    }

    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(c) = self.container(id) else { return Ok(()) };
        self.stop_container(&c.id, Duration::ZERO).await?;
        let _turn = c.turn.lock().await;
        let shim = c.sandbox.shim.lock().clone();
        if let Some(shim) = shim {
            // If the shim is gone there is nothing to forget.
            let _ = shim.request(Request::Forget { container: c.id.clone() }, &[]).await;
        }
        // Nearly always the cgroup is empty by now, and all goes in one step.
        for patient in [false, true] {
            if patient {
                self.remove_cgroup(&c.cgroup()).await?;
            }
            let (cgroup, dir, id) = (c.cgroup(), c.dir.clone(), c.id.clone());
            let removed = self.blocking(move |inner| {
                if inner.cgroups.remove(&cgroup).is_err() {
                    return Ok(false);
                }
                remove_dir(&dir)?;
                inner.images.release(&id);
                Ok(true)
            });
            if removed.await? {
                break;
            }
        }
        if self.state.lock().containers.remove(&c.id).is_some() {
            self.emit(&c.sandbox.id, &c.id, EventKind::ContainerRemoved);
        }
        Ok(())
    }

    pub fn update_container(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        let c = self.container(id)?;
        if c.state() == ContainerState::Running {
            self.cgroups.apply(&c.cgroup(), resources)?;
        } else if c.state() == ContainerState::Exited {
            return Err(Error::unknown(format!("container {:?} is not running or created", c.id)));
        }
        {
            let mut record = c.record.lock();
            let old = &mut record.config.resources;
            merge(old, resources);
        }
        c.save()
    }
}

/// Takes over what `new` says; zero and `None` say nothing.
fn merge(old: &mut LinuxResources, new: &LinuxResources) {
    let number = |old: &mut i64, new: i64| *old = if new == 0 { *old } else { new };
    number(&mut old.cpu_quota, new.cpu_quota);
    number(&mut old.memory_limit, new.memory_limit);
    number(&mut old.memory_swap_limit, new.memory_swap_limit);
    number(&mut old.pids_limit, new.pids_limit);
    let unsigned = |old: &mut u64, new: u64| *old = if new == 0 { *old } else { new };
    unsigned(&mut old.cpu_shares, new.cpu_shares);
    unsigned(&mut old.cpu_period, new.cpu_period);
    let text = |old: &mut String, new: &String| {
        if !new.is_empty() {
            old.clone_from(new);
        }
    };
    text(&mut old.cpuset_cpus, &new.cpuset_cpus);
    text(&mut old.cpuset_mems, &new.cpuset_mems);
    old.oom_score_adj = new.oom_score_adj.or(old.oom_score_adj);
    old.hugepages.extend(new.hugepages.clone());
    old.unified.extend(new.unified.clone());
}
