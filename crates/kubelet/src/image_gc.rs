//! Removes images nobody uses when the disk runs full, or when they were not used for long.

use crate::kubelet::Shared;
use crate::node::reference;
use pintle_runtime::Image;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// When each image was seen first, and used last.
#[derive(Default)]
pub struct ImageGc {
    seen: BTreeMap<String, Times>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    found: Instant,
    used: Instant,
}

/// The images to remove, the longest unused first, until `free` bytes are won. Those younger than `min_age` stay.
fn choose(mut unused: Vec<(Image, Duration, Duration)>, free: u64, min_age: Duration, max_age: Duration) -> Vec<Image> {
    unused.sort_by_key(|(_, idle, age)| std::cmp::Reverse((*idle, *age)));
    let mut won = 0;
    let mut out = vec![];
    for (image, idle, age) in unused {
        let too_old = !max_age.is_zero() && idle >= max_age;
        if age >= min_age && (too_old || won < free) {
            won += image.size;
            out.push(image);
        }
    }
    out
}

impl ImageGc {
    /// Looks at the images; `all` removes every unused one, whatever the disk says.
    pub async fn run(&mut self, k: &Shared, all: bool) {
        let Ok(images) = k.runtime.list_images().await else { return };
        let Ok(containers) = k.runtime.list_containers(&pintle_runtime::ContainerFilter::default()).await else {
            return;
        };
        let used: BTreeSet<&str> = containers.iter().map(|c| c.image_id.as_str()).collect();
        let now = Instant::now();
        let present: BTreeSet<&String> = images.iter().map(|i| &i.id).collect();
        self.seen.retain(|id, _| present.contains(id));
        for i in &images {
            let times = self.seen.entry(i.id.clone()).or_insert(Times { found: now, used: now });
            if used.contains(i.id.as_str()) {
                times.used = now;
            }
        }
        let Ok((total, available, _, _)) = crate::node::disk_of_images(k).await else { return };
        let percent = |part: u64| part.saturating_mul(100).checked_div(total).map_or(0, |p| 100 - p);
        let (high, low) = (k.config.image_gc_high_threshold_percent, k.config.image_gc_low_threshold_percent);
        let free = if all {
            u64::MAX
        } else if percent(available) >= u64::from(high) {
            (total / 100 * (100 - u64::from(low).min(100))).saturating_sub(available)
        } else {
            0
        };
        let unused = images
            .into_iter()
            .filter(|i| !i.pinned && !used.contains(i.id.as_str()))
            .filter_map(|i| {
                let t = *self.seen.get(&i.id)?;
                Some((i, now.duration_since(t.used), now.duration_since(t.found)))
            })
            .collect();
        let min_age = if all { Duration::ZERO } else { k.config.image_minimum_gc_age };
        let mut won = 0;
        for image in choose(unused, free, min_age, k.config.image_maximum_gc_age) {
            match k.runtime.remove_image(&image.id).await {
                Ok(()) => won += image.size,
                Err(e) => tracing::warn!(image = image.id, error = %e, "cannot remove an image"),
            }
        }
        if free > won && !all && free > 0 {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {free} bytes, but only found {won} bytes eligible to free."
            );
            k.recorder.warning(&reference(&k.config.node_name), "FreeDiskSpaceFailed", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_go_first() {
        let s = Duration::from_secs;
        let image = |id: &str, size| Image { id: id.into(), size, ..Default::default() };
        let list = || {
            vec![(image("a", 10), s(100), s(1000)), (image("b", 10), s(300), s(1000)), (image("new", 10), s(400), s(5))]
        };
        let ids = |free, max_age| choose(list(), free, s(120), max_age).into_iter().map(|i| i.id).collect::<Vec<_>>();
        assert_eq!(ids(5, s(0)), ["b"]);
        assert_eq!(ids(15, s(0)), ["b", "a"]);
        assert_eq!(ids(0, s(0)), Vec::<String>::new());
        assert_eq!(ids(0, s(200)), ["b"]);
    }
}
