//! `SchedulingGates`: a pod with gates stays out of the queue.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Plugin, Rejection};
use crate::model::Pod;

/// The plugin.
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &Pod, _: &Cache) -> Result<(), Rejection> {
        if pod.scheduling_gates.is_empty() {
            return Ok(());
        }
        Err(Rejection::unresolvable(format!("waiting for scheduling gates: [{}]", pod.scheduling_gates.join(" "))))
    }

    fn hint(&self, _event: ClusterEvent<'_>, _pod: &Pod, _: &Cache) -> bool {
        // Only the pod itself can lift its gates.
        false
    }
}
