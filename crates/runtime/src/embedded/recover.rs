//! Taking over what an earlier run of this process left, running or not.

use super::state::{CONFIG, Container, Sandbox, SandboxRecord, containers_dir};
use super::{Inner, read_json};
use crate::sys::Context as _;
use crate::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn sub_dirs(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect()
}

impl Inner {
    pub async fn recover(self: &Arc<Self>) -> Result<()> {
        for (id, dir) in sub_dirs(&self.dir.join("sandboxes")) {
            let Some(record) = read_json::<SandboxRecord>(&dir.join(CONFIG)) else {
                // Nobody was ever told of it.
                fs::remove_dir_all(&dir).context(format!("removing {}", dir.display()))?;
                continue;
            };
            let sandbox = Sandbox::new(id.clone(), dir, record);
            self.state.lock().sandboxes.insert(id, sandbox.clone());
            self.recover_containers(&sandbox)?;
            self.recover_shim(&sandbox).await;
        }
        let holders = self.state.lock().containers.keys().cloned().collect();
        self.images.release_others(&holders);
        Ok(())
    }

    fn recover_containers(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        for (id, dir) in sub_dirs(&containers_dir(&sandbox.dir)) {
            let Some(record) = read_json::<super::state::ContainerRecord>(&dir.join(CONFIG)) else {
                fs::remove_dir_all(&dir).context(format!("removing {}", dir.display()))?;
                continue;
            };
            let container = Container::new(id.clone(), sandbox.clone(), dir, record);
            container.load();
            container.exit.send_replace(container.exit_on_disk());
            self.state.lock().containers.insert(id, container);
        }
        Ok(())
    }

    async fn recover_shim(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        // A sandbox that was not ready was on its way up or down: it goes down.
        if sandbox.ready() && self.connect(sandbox).is_ok() {
            // What ended before the line was open is on disk by now.
            for c in self.containers_of(&sandbox.id) {
                c.load();
                if let Some(record) = c.exit_on_disk() {
                    self.exited(&c, record);
                }
            }
            if let (true, Some(netns)) = (sandbox.own_network(), sandbox.netns()) {
                let ips = sandbox.record.lock().ips.clone();
                if let Err(e) = self.network.restore(&sandbox.network(), &netns, &ips).await {
                    tracing::warn!(sandbox = sandbox.id, "restoring the network: {e}");
                }
            }
            return;
        }
        *sandbox.shim_record.lock() = read_json(&sandbox.dir.join(crate::shim::protocol::files::SHIM));
        self.lost(sandbox).await;
    }
}
