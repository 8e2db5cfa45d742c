//! How large each ReplicaSet is to be.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::replicasets::{available, by_age, desired, is_rolling, max_unavailable, most, size, sum};
use super::revision;

/// New sizes by index.
pub type Sizes = Vec<(usize, i32)>;

/// Size of the newest ReplicaSet at this step of a rollout.
pub fn new_size(d: &Deployment, total: i32, current: i32) -> i32 {
    if !is_rolling(d) {
        return desired(d);
    }
    let limit = most(d);
    if total >= limit {
        return current;
    }
    current + (limit - total).min(desired(d) - current)
}

/// Next size of the newest ReplicaSet of a rolling update, when it changes.
pub fn roll_new(d: &Deployment, all: &[ReplicaSet], new: usize) -> Option<i32> {
    let current = size(&all[new]);
    let next = if current > desired(d) { desired(d) } else { new_size(d, sum(all, size), current) };
    (next != current).then_some(next)
}

/// Sizes of the old ReplicaSets at this step of a rolling update: unhealthy pods go first, then as many as
/// availability allows, from the oldest on.
pub fn roll_old(d: &Deployment, all: &[ReplicaSet], new: Option<usize>) -> Sizes {
    let mut old: Vec<usize> = (0..all.len()).filter(|i| Some(*i) != new && size(&all[*i]) > 0).collect();
    old.sort_by(|a, b| by_age(&all[*a], &all[*b]));
    let new_unavailable = new.map_or(0, |n| size(&all[n]) - available(&all[n]));
    let min_available = desired(d) - max_unavailable(d);
    let mut room = sum(all, size).saturating_sub(min_available).saturating_sub(new_unavailable);
    if old.is_empty() || room <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|i| size(&all[*i])).collect();
    for (s, i) in sizes.iter_mut().zip(&old) {
        let down = room.min(*s - available(&all[*i])).max(0);
        *s -= down;
        room -= down;
    }
    let mut room = sum(all, available) - min_available;
    for s in &mut sizes {
        let down = room.min(*s).max(0);
        *s -= down;
        room -= down;
    }
    old.into_iter().zip(sizes).filter(|(i, s)| size(&all[*i]) != *s).collect()
}

/// Whether the Deployment's size changed since its ReplicaSets were last sized.
pub fn is_scaling(d: &Deployment, all: &[ReplicaSet]) -> bool {
    all.iter().filter(|r| size(r) > 0).filter_map(|r| revision::number(r, revision::DESIRED)).any(|n| n != desired(d))
}

/// Sizes after the Deployment itself was scaled: one active ReplicaSet takes all; several, amid a rollout, take their
/// proportion.
pub fn proportional(d: &Deployment, all: &[ReplicaSet], new: Option<usize>) -> Sizes {
    let active: Vec<usize> = (0..all.len()).filter(|i| size(&all[*i]) > 0).collect();
    let only = match active.as_slice() {
        [] => new.or_else(|| (0..all.len()).max_by(|a, b| by_age(&all[*a], &all[*b]))),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(i) = only {
        return if size(&all[i]) == desired(d) { Vec::new() } else { vec![(i, desired(d))] };
    }
    let saturated = |r: &ReplicaSet| {
        size(r) == desired(d)
            && revision::number(r, revision::DESIRED) == Some(desired(d))
            && available(r) == desired(d)
    };
    if new.is_some_and(|n| saturated(&all[n])) {
        return active.into_iter().filter(|i| Some(*i) != new).map(|i| (i, 0)).collect();
    }
    if !is_rolling(d) {
        return Vec::new();
    }
    let allowed = if desired(d) > 0 { most(d) } else { 0 };
    let to_add = allowed - sum(all, size);
    let mut order = active;
    // The largest take what rounding leaves; of equal ones the newest when growing, the oldest when shrinking.
    order.sort_by(|a, b| {
        let ages = by_age(&all[*a], &all[*b]);
        size(&all[*b]).cmp(&size(&all[*a])).then(if to_add > 0 { ages.reverse() } else { ages })
    });
    let mut added = 0;
    let mut sizes: Sizes = order
        .into_iter()
        .map(|i| {
            let part = proportion(&all[i], d, to_add, added);
            added += part;
            (i, size(&all[i]) + part)
        })
        .collect();
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + (to_add - added)).max(0);
    }
    sizes
}

fn proportion(rs: &ReplicaSet, d: &Deployment, to_add: i32, added: i32) -> i32 {
    if size(rs) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (fraction, allowed) = (fraction(rs, d), to_add - added);
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

fn fraction(rs: &ReplicaSet, d: &Deployment) -> i32 {
    if desired(d) == 0 {
        return -size(rs);
    }
    let before = revision::number(rs, revision::MAX)
        .filter(|n| *n > 0)
        .unwrap_or_else(|| d.status.as_ref().and_then(|s| s.replicas).unwrap_or(0));
    if before == 0 {
        return 0;
    }
    let whole = i64::from(size(rs)) * i64::from(most(d));
    // Rounded to the nearest.
    let scaled = (2 * whole + i64::from(before)) / (2 * i64::from(before));
    i32::try_from(scaled).unwrap_or(i32::MAX) - size(rs)
}
