use super::tests::{cpu, node, pod, step};
use super::*;
use crate::cache::Cache;
use crate::framework::points::{Point, Points};
use crate::framework::profile::Enabled;
use crate::framework::{Permission, Plugin, Rejection};
use crate::plugins::default_profile;
use serde_json::json;

/// Asks pods to wait that are labelled so, and lets go all that wait when one comes that is not.
struct Doorkeeper(&'static str, u64);

impl Plugin for Doorkeeper {
    fn name(&self) -> &'static str {
        self.0
    }

    fn permit(&self, pod: &Pod, node: &str, cache: &Cache) -> Result<Permission, Rejection> {
        assert!(cache.node(node).unwrap().1.pods.contains_key(&pod.uid), "it is on its node already");
        match pod.name.as_str() {
            "never" => Err(Rejection::new("no")),
            name if name.starts_with("wait") => {
                Ok(Permission::Wait { milliseconds: self.1, activate: vec!["other".to_owned()] })
            }
            _ => Ok(Permission::Allow),
        }
    }

    fn allows_too(&self, allowed: &Pod, _: &Pod) -> bool {
        allowed.name == self.0 || allowed.name == "open"
    }

    fn hint(&self, _: ClusterEvent<'_>, _: &Pod, _: &Cache) -> bool {
        false
    }
}

fn engine(keepers: Vec<Doorkeeper>) -> Engine {
    let mut profile = default_profile("default-scheduler");
    let points = Points::all(&[Point::Permit]);
    profile.plugins.extend(keepers.into_iter().map(|k| Enabled { plugin: Box::new(k), weight: 0, points }));
    let mut e = Engine::new([profile], 7);
    e.set_node(&node("n", "2"), 0);
    e
}

#[test]
fn waits_for_all_who_asked_it_to() {
    let mut e = engine(vec![Doorkeeper("one", 60_000), Doorkeeper("two", 60_000)]);
    e.set_pod(None, &cpu("wait", "1"), 0);
    assert_eq!(step(&mut e, 0), "nothing");
    // It has its room meanwhile.
    assert_eq!(e.cache().sizes(), (1, 1, 1));
    assert_eq!(e.next_wake(), Some(60_000));
    e.set_pod(None, &cpu("one", "0"), 0);
    assert_eq!((step(&mut e, 0), step(&mut e, 0)), ("one on n".into(), "nothing".into()));
    e.set_pod(None, &cpu("two", "0"), 0);
    assert_eq!((step(&mut e, 0), step(&mut e, 0)), ("two on n".into(), "wait on n".into()));
    assert_eq!((step(&mut e, 0), e.next_wake()), ("nothing".into(), None));
}

#[test]
fn patience_ends() {
    // The less patient one decides; nobody is more patient than for a quarter of an hour.
    for (first, second, at, why) in
        [(90_000, 60_000, 60_000, "1m0s at plugin two"), (1_000_000_000, 1_000_000_000, 900_000, "15m0s at plugin one")]
    {
        let mut e = engine(vec![Doorkeeper("one", first), Doorkeeper("two", second)]);
        e.set_pod(None, &cpu("wait", "2"), 0);
        assert_eq!(
            (step(&mut e, 0), step(&mut e, at - 1), e.next_wake()),
            ("nothing".into(), "nothing".into(), Some(at))
        );
        let text = format!("wait: 0/1 nodes are available: 1 rejected due to timeout after waiting {why}.");
        assert_eq!(step(&mut e, at), text);
        // Its room is free.
        e.set_pod(None, &cpu("a", "2"), at);
        assert_eq!((step(&mut e, at), e.pending().unschedulable), ("a on n".into(), 1));
    }
}

#[test]
fn rejected_at_once() {
    let mut e = engine(vec![Doorkeeper("one", 0)]);
    e.set_pod(None, &cpu("never", "2"), 0);
    assert_eq!(step(&mut e, 0), "never: 0/1 nodes are available: 1 no.");
    assert_eq!((e.cache().sizes(), e.pending().unschedulable), ((1, 0, 0), 1));
}

#[test]
fn gone_while_it_waits() {
    let waits = cpu("wait", "2");
    let mut deleted = cpu("wait", "2");
    Arc::get_mut(&mut deleted).unwrap().deleting = true;
    for delete in [true, false] {
        let mut e = engine(vec![Doorkeeper("one", 60_000)]);
        e.set_pod(None, &waits, 0);
        e.set_pod(None, &cpu("other", "2"), 0);
        assert!(step(&mut e, 0).starts_with("other: 0/1"));
        if delete {
            e.set_pod(Some(&waits), &deleted, 2000);
        } else {
            e.remove_pod(&waits, 2000);
        }
        assert_eq!((step(&mut e, 2000), e.next_wake()), ("other on n".into(), None));
        e.remove_pod(&waits, 2000);
        assert_eq!(e.cache().sizes(), (1, 1, 1));
    }
}

#[test]
fn who_waits_makes_room_without_being_removed() {
    let mut e = engine(vec![Doorkeeper("one", 60_000)]);
    e.set_pod(None, &cpu("wait", "2"), 0);
    assert_eq!(step(&mut e, 0), "nothing");
    let vip = pod("vip", json!({"priority": 9, "containers": [{"resources": {"requests": {"cpu": "2"}}}]}));
    e.set_pod(None, &vip, 0);
    let Some(Outcome::Unschedulable(f)) = e.step(0) else { panic!("it has to wait") };
    assert_eq!((f.nominate.as_deref(), f.victims.len()), (Some("n"), 0));
    assert_eq!(step(&mut e, 0), "wait: 0/1 nodes are available: 1 preempted.");
    assert_eq!(step(&mut e, 1000), "vip on n");
}
