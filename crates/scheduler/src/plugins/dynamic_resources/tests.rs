use super::*;
use crate::cache::objects::Delta;
use crate::plugins::testing::{cluster, filter_all, pod as decode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn new<T: DeserializeOwned>(text: &Value) -> Delta<T> {
    Delta { old: None, new: Some(Arc::new(serde_json::from_value(text.clone()).unwrap())) }
}

/// Nodes a (with two small devices and a large one) and b (with one small device), and a class for all of the driver's.
fn nodes() -> Cache {
    let node = |n: &str| (json!({"metadata": {"name": n, "labels": {"host": n}}}), vec![]);
    let mut cache = cluster(&[node("a"), node("b")]);
    let device = |name: &str, memory: &str, numa: i64| json!({"name": name, "attributes": {"numa": {"int": numa}}, "capacity": {"memory": {"value": memory}}});
    let slice = |node: &str, devices: Vec<Value>| {
        json!({"metadata": {"name": format!("s-{node}")}, "spec": {"driver": "gpu.example.com", "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}, "devices": devices}})
    };
    let a = slice("a", vec![device("a0", "10Gi", 0), device("a1", "10Gi", 1), device("a2", "40Gi", 1)]);
    cache.apply(&ObjectChange::ResourceSlice(new(&a)));
    cache.apply(&ObjectChange::ResourceSlice(new(&slice("b", vec![device("b0", "10Gi", 0)]))));
    let class = json!({"metadata": {"name": "gpu"}, "spec": {
        "selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}],
        "config": [{"opaque": {"driver": "gpu.example.com", "parameters": {"x": 1}}}]}});
    cache.apply(&ObjectChange::DeviceClass(new(&class)));
    cache
}

fn claim(name: &str, devices: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": "3"}, "spec": {"devices": devices}})
}

fn exactly(more: &Value) -> Value {
    let mut wanted = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    for (k, v) in more.as_object().unwrap() {
        wanted[k] = v.clone();
    }
    wanted
}

fn one(more: &Value) -> Value {
    json!({"requests": [{"name": "r", "exactly": exactly(more)}]})
}

fn pod(claims: &[&str]) -> Value {
    let list: Vec<Value> = claims.iter().map(|c| json!({"name": c, "resourceClaimName": c})).collect();
    json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"}, "spec": {"resourceClaims": list}})
}

fn put(cache: &mut Cache, text: &Value) {
    cache.apply(&ObjectChange::ResourceClaim(new(text)));
}

const NO: &str = "cannot allocate all claims";

fn check(devices: &Value, want: [&str; 2]) {
    let mut cache = nodes();
    put(&mut cache, &claim("c", devices));
    let got = filter_all(&DynamicResources::default(), &pod(&["c"]), &mut cache);
    let got: Vec<&str> = got.iter().map(|(_, r)| r.as_str()).collect();
    assert_eq!(got, want, "{devices}");
}

#[test]
fn requests() {
    check(&one(&json!({})), ["", ""]);
    check(&one(&json!({"count": 2})), ["", NO]);
    check(&one(&json!({"count": 4})), [NO, NO]);
    check(&one(&json!({"allocationMode": "All"})), ["", ""]);
    let large = "device.capacity['gpu.example.com'].memory.compareTo(quantity('20Gi')) > 0";
    check(&one(&json!({"selectors": [{"cel": {"expression": large}}]})), ["", NO]);
    let large = exactly(&json!({"name": "large", "selectors": [{"cel": {"expression": large}}]}));
    let any = exactly(&json!({"name": "any"}));
    check(&json!({"requests": [{"name": "r", "firstAvailable": [large, any]}]}), ["", ""]);
    check(&json!({"requests": [{"name": "r", "firstAvailable": [large]}]}), ["", NO]);
}

#[test]
fn constraints() {
    let two = |constraint: Value| {
        json!({"requests": [{"name": "r", "exactly": exactly(&json!({}))}, {"name": "s", "exactly": exactly(&json!({}))}],
            "constraints": [constraint]})
    };
    check(&two(json!({"matchAttribute": "gpu.example.com/numa"})), ["", NO]);
    check(&two(json!({"distinctAttribute": "gpu.example.com/numa"})), ["", NO]);
    check(&two(json!({"matchAttribute": "gpu.example.com/missing"})), [NO, NO]);
    check(&two(json!({"matchAttribute": "gpu.example.com/missing", "requests": ["t"]})), ["", NO]);
}

#[test]
fn before_nodes_are_tried() {
    let check = |prepare: &dyn Fn(&mut Cache), p: &Value, want: &str| {
        let mut cache = nodes();
        prepare(&mut cache);
        let got = filter_all(&DynamicResources::default(), p, &mut cache);
        assert_eq!(got[0].1, want);
    };
    check(&|_| {}, &pod(&["c"]), "resourceclaim.resource.k8s.io \"c\" not found");
    let by_template = json!({"metadata": {"name": "p", "namespace": "d"},
        "spec": {"resourceClaims": [{"name": "x", "resourceClaimTemplateName": "t"}]}});
    check(&|_| {}, &by_template, "pod \"d/p\": ResourceClaim not created yet for pod.spec.resourceClaims[\"x\"]");
    let unknown = claim("c", &one(&json!({"deviceClassName": "tpu"})));
    check(&|c| put(c, &unknown), &pod(&["c"]), "request r: device class tpu does not exist");
    let mut going = claim("c", &one(&json!({})));
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    check(&|c| put(c, &going), &pod(&["c"]), "resourceclaim \"c\" is being deleted");
}

#[test]
fn gives_and_takes_back() {
    let mut cache = nodes();
    let plugin = DynamicResources::default();
    put(&mut cache, &claim("c", &one(&json!({}))));
    put(&mut cache, &claim("d", &one(&json!({}))));
    let b = cache.node("b").unwrap().1.node.clone().unwrap();
    let p = decode(&pod(&["c"]));
    let actions = plugin.reserve(&p, &b, &mut cache).unwrap();
    let [Action::GiveDevices { claim: name, resource_version, finalizers, allocation, reserved_for, .. }] =
        &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((name.as_str(), resource_version.as_str()), ("c", "3"));
    assert_eq!(finalizers.as_deref(), Some(&[FINALIZER.to_owned()][..]));
    assert_eq!(reserved_for[0], json!({"resource": "pods", "name": "p", "uid": "p"}));
    let want = json!({
        "devices": {
            "results": [{"request": "r", "driver": "gpu.example.com", "pool": "b", "device": "b0"}],
            "config": [{"source": "FromClass", "requests": ["r"], "opaque": {"driver": "gpu.example.com", "parameters": {"x": 1}}}],
        },
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]},
    });
    assert_eq!(allocation.as_ref(), Some(&want));
    let reasons = |p: &Value, cache: &mut Cache| -> Vec<String> {
        filter_all(&plugin, p, cache).into_iter().map(|(_, r)| r).collect()
    };
    // The device is gone; who shares the claim must go where it is.
    assert_eq!(reasons(&pod(&["d"]), &mut cache), ["", NO]);
    assert_eq!(reasons(&pod(&["c"]), &mut cache), ["resourceclaim not available on the node", ""]);
    plugin.unreserve(&p, &mut cache);
    assert_eq!(reasons(&pod(&["d"]), &mut cache), ["", ""]);
    // What the API says takes the assumption's place.
    plugin.reserve(&p, &b, &mut cache).unwrap();
    let mut given = claim("c", &one(&json!({})));
    given["status"] = json!({"allocation": want, "reservedFor": [{"uid": "p"}]});
    let old = cache.objects.resource_claims["d/c"].clone();
    let mut delta: Delta<ResourceClaim> = new(&given);
    delta.old = Some(old);
    cache.apply(&ObjectChange::ResourceClaim(delta.clone()));
    assert!(cache.objects.assumed_claims.is_empty());
    assert_eq!(cache.objects.given_devices.values().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(plugin.reserve(&p, &b, &mut cache).unwrap(), []);
    cache.apply(&ObjectChange::ResourceClaim(Delta { old: delta.new, new: None }));
    assert!(cache.objects.given_devices.is_empty());
}

#[test]
fn shared_counters_and_taints() {
    let mut cache = nodes();
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "card", "counters": {"memory": {"value": memory}}}]});
    let mut tainted = part("p2", "1Gi");
    tainted["taints"] = json!([{"key": "broken", "effect": "NoSchedule"}]);
    let slice = json!({"metadata": {"name": "s-a"}, "spec": {"driver": "gpu.example.com", "nodeName": "a",
        "pool": {"name": "a", "generation": 2, "resourceSliceCount": 1},
        "sharedCounters": [{"name": "card", "counters": {"memory": {"value": "40Gi"}}}],
        "devices": [part("p0", "30Gi"), part("p1", "20Gi"), tainted]}});
    cache.apply(&ObjectChange::ResourceSlice(new(&slice)));
    for (more, want) in [
        (json!({"count": 1}), ""),
        (json!({"count": 2}), NO),
        (json!({"count": 2, "tolerations": [{"key": "broken", "operator": "Exists"}]}), ""),
        (json!({"count": 3, "tolerations": [{"operator": "Exists"}]}), NO),
    ] {
        put(&mut cache, &claim("c", &one(&more)));
        let got = filter_all(&DynamicResources::default(), &pod(&["c"]), &mut cache);
        assert_eq!(got[0].1, want, "{more}");
    }
}

#[test]
fn what_keeps_a_pod_from_all_nodes_is_given_back() {
    let mut cache = nodes();
    let check = |cache: &mut Cache, reserved: Value, on: &str, want: bool| {
        let mut c = claim("c", &one(&json!({})));
        let selector = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [on]}]}]});
        c["status"] = json!({"allocation": {"devices": {}, "nodeSelector": selector}, "reservedFor": reserved});
        put(cache, &c);
        let (plugin, pod) = (DynamicResources::default(), crate::plugins::testing::pod(&pod(&["c"])));
        let state = plugin.pre_filter(&pod, cache).unwrap().state;
        let rejected = cache.iter().filter_map(|(n, i)| Some((i.id, plugin.filter(&state, &pod, n, i, cache).err()?)));
        let diagnosis = Diagnosis { rejected: rejected.collect(), ..Diagnosis::default() };
        let taken = plugin.give_back(&pod, &diagnosis, cache);
        let taken = taken.map(|a| matches!(a, Action::TakeDevices { claim, .. } if claim == "c"));
        assert_eq!(taken, want.then_some(true), "{reserved} {on}");
    };
    check(&mut cache, json!([]), "none", true);
    check(&mut cache, json!([{"uid": "p"}]), "none", true);
    check(&mut cache, json!([{"uid": "p"}, {"uid": "other"}]), "none", false);
    // Every node that rejected the pod for the claim counts; the others are not the claim's fault.
    check(&mut cache, json!([{"uid": "other"}]), "a", false);
}
