//! What is looked at from time to time: logs that grew too large, images nobody uses, resources that run short.

use crate::kubelet::Shared;
use crate::logs;
use pintle_api::quantity::Quantity as Amount;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often images are looked at.
const IMAGES: Duration = Duration::from_secs(300);
/// How often the node's resources are looked at.
const RESOURCES: Duration = Duration::from_secs(10);

/// Looks after the node. Never ends.
pub async fn run(k: Arc<Shared>) {
    let ticker = |every: Duration| {
        let mut t = tokio::time::interval_at(tokio::time::Instant::now() + every, every.max(Duration::from_secs(1)));
        t.set_missed_tick_behavior(MissedTickBehavior::Delay);
        t
    };
    let mut log_ticks = ticker(k.config.container_log_monitor_interval);
    let mut image_ticks = ticker(IMAGES);
    let mut resource_ticks = ticker(RESOURCES);
    let mut images = crate::image_gc::ImageGc::default();
    let mut eviction = crate::eviction::Eviction::new(&k.config);
    loop {
        tokio::select! {
            _ = log_ticks.tick() => rotate_logs(&k).await,
            _ = image_ticks.tick() => images.run(&k, false).await,
            _ = resource_ticks.tick() => {
                crate::local_storage::check(&k).await;
                eviction.run(&k, &mut images).await;
            }
        }
    }
}

/// Rotates the logs of running containers that grew too large.
async fn rotate_logs(k: &Arc<Shared>) {
    let max = Amount::parse(&k.config.container_log_max_size).map_or(10 << 20, |a| a.value());
    let Ok(max) = u64::try_from(max) else { return };
    for h in k.all_workers() {
        let running: Vec<(String, PathBuf)> = {
            let seen = h.seen.lock();
            let all = seen.runtime.containers.iter();
            all.filter(|c| c.state == pintle_runtime::ContainerState::Running && !c.log_path.is_empty())
                .map(|c| (c.id.clone(), PathBuf::from(&c.log_path)))
                .collect()
        };
        for (id, path) in running {
            if std::fs::metadata(&path).is_ok_and(|m| m.len() > max) {
                let (keep, stamp) =
                    (k.config.container_log_max_files, k.clock.now().strftime("%Y%m%d-%H%M%S").to_string());
                let moved = path.clone();
                let worked = tokio::task::spawn_blocking(move || rotate(&moved, keep, &stamp)).await;
                match worked {
                    Ok(Ok(())) => {
                        if let Err(e) = k.runtime.reopen_container_log(&id).await {
                            tracing::warn!(container = id, error = %e, "cannot reopen the container's log");
                        }
                    }
                    Ok(Err(e)) => tracing::warn!(log = %path.display(), error = %e, "cannot rotate the log"),
                    Err(e) => tracing::warn!(log = %path.display(), error = %e, "cannot rotate the log"),
                }
            }
        }
    }
}

/// Moves a log away, compresses those moved before, and removes the oldest, so that at most `keep` files are there.
fn rotate(path: &Path, keep: usize, stamp: &str) -> std::io::Result<()> {
    let mut old = logs::rotated(path);
    // The one in use and the one about to be made count, too.
    while old.len() + 2 > keep.max(2) {
        std::fs::remove_file(old.remove(0))?;
    }
    for file in old.iter().filter(|f| f.extension().is_none_or(|e| e != "gz")) {
        let mut name = file.clone().into_os_string();
        name.push(".gz");
        let target = PathBuf::from(name);
        let temporary = target.with_extension("tmp");
        let mut out = flate2::write::GzEncoder::new(std::fs::File::create(&temporary)?, flate2::Compression::default());
        std::io::copy(&mut std::fs::File::open(file)?, &mut out)?;
        out.finish()?;
        std::fs::rename(&temporary, &target)?;
        std::fs::remove_file(file)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{stamp}"));
    std::fs::rename(path, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for i in 0..5 {
            std::fs::write(&path, "x").unwrap();
            rotate(&path, 3, &format!("20260101-00000{i}")).unwrap();
        }
        let names: Vec<_> = logs::rotated(&path).into_iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["0.log.20260101-000003.gz", "0.log.20260101-000004"]);
    }
}
