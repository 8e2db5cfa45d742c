//! `ImageLocality`: nodes that have a pod's images already score higher, the more so the larger and rarer they are.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, State};
use crate::model::{Node, NodeInfo, Pod};

/// The plugin.
pub struct ImageLocality;

const MB: i64 = 1024 * 1024;
/// Below so many bytes an image counts for nothing, as upstream.
const MIN: i64 = 23 * MB;
/// Above so many bytes a container, an image counts fully, as upstream.
const MAX_PER_CONTAINER: i64 = 1000 * MB;

/// The name with `:latest` added when it has neither tag nor digest.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn scores(&self) -> bool {
        true
    }

    fn score(&self, _: &State, pod: &Pod, node: &Node, _: &NodeInfo, cache: &Cache) -> i64 {
        let nodes = i64::try_from(cache.nodes().len()).unwrap_or(i64::MAX).max(1);
        let mut sum = 0;
        for image in &pod.images {
            let name = normalized(image);
            if let Some(size) = node.images.get(&name) {
                let spread = i64::try_from(cache.nodes_with_image(&name)).unwrap_or(i64::MAX);
                sum += size.saturating_mul(spread) / nodes;
            }
        }
        let max = MAX_PER_CONTAINER * i64::try_from(pod.images.len()).unwrap_or(1).max(1);
        (sum.clamp(MIN, max) - MIN) * MAX_SCORE / (max - MIN)
    }

    fn hint(&self, _: ClusterEvent<'_>, _: &Pod, _: &Cache) -> bool {
        // It rejects nobody.
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::scores;
    use serde_json::json;

    #[test]
    fn prefers_where_it_is() {
        let pod = json!({"spec": {"containers": [{"image": "example.com/a"}]}});
        let with = |name: &str, size: i64| {
            (
                json!({"metadata": {"name": name}, "status": {"images": [{"names": ["example.com/a:latest"], "sizeBytes": size}]}}),
                vec![],
            )
        };
        let without = (json!({"metadata": {"name": "c"}}), vec![]);
        assert_eq!(scores(&ImageLocality, &pod, &[with("a", 1000 * MB), without.clone()]), [48, 0]);
        assert_eq!(scores(&ImageLocality, &pod, &[with("a", 10 * MB), with("b", 2000 * MB)]), [0, 100]);
        assert_eq!(scores(&ImageLocality, &pod, &[with("a", 1000 * MB)]), [100]);
    }
}
