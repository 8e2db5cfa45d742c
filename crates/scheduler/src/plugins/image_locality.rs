//! `ImageLocality`: nodes that have a pod's images already score higher, the more so the larger and rarer they are.

use crate::cache::{Cache, NodeId};
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, State, state_as};
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

    fn scores_locally(&self) -> bool {
        true
    }

    fn scores(&self) -> bool {
        true
    }

    fn pre_score(&self, pod: &Pod, _: &[NodeId], cache: &mut Cache) -> Option<State> {
        let images = pod.images.iter().map(|image| {
            let name = normalized(image);
            let spread = cache.nodes_with_image(&name);
            (name, i64::try_from(spread).unwrap_or(i64::MAX))
        });
        // An image that no node has favours none.
        let images: Vec<(String, i64)> = images.filter(|(_, spread)| *spread > 0).collect();
        if images.is_empty() { None } else { Some(Some(Box::new(images))) }
    }

    fn score(&self, state: &State, pod: &Pod, node: &Node, _: &NodeInfo, cache: &Cache) -> i64 {
        let nodes = i64::try_from(cache.nodes().len()).unwrap_or(i64::MAX).max(1);
        let images = state_as::<Vec<(String, i64)>>(state).into_iter().flatten();
        let weights = images.filter_map(|(name, spread)| Some(node.images.get(name)?.saturating_mul(*spread) / nodes));
        let sum = weights.fold(0, i64::saturating_add);
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
