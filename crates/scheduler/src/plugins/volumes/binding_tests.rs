use super::*;
use crate::plugins::testing::{filter_all, pod as decode};
use crate::plugins::volumes::limits::NodeVolumeLimits;
use crate::plugins::volumes::restrictions::VolumeRestrictions;
use crate::plugins::volumes::testing::{claim, class, nodes, pod, put, volume};
use crate::plugins::volumes::zone::VolumeZone;
use serde_json::{Value, json};

fn reasons(plugin: &dyn Plugin, p: &Value, cache: &mut Cache) -> Vec<String> {
    filter_all(plugin, p, cache).into_iter().map(|(_, r)| r).collect()
}

#[test]
fn before_nodes_are_tried() {
    let check = |objects: &[(&str, Value)], p: &Value, want: &str| {
        let mut cache = nodes();
        objects.iter().for_each(|(kind, o)| put(&mut cache, kind, o));
        assert_eq!(reasons(&VolumeBinding::default(), p, &mut cache), [want], "{p}");
    };
    check(&[], &pod(&["x"]), "persistentvolumeclaim \"x\" not found");
    let immediate = "pod has unbound immediate PersistentVolumeClaims";
    check(&[("claim", claim("x", "now", "1Gi", ""))], &pod(&["x"]), immediate);
    check(&[("claim", claim("x", "unknown", "1Gi", ""))], &pod(&["x"]), immediate);
    let mut lost = claim("x", "now", "1Gi", "v");
    lost["status"] = json!({"phase": "Lost"});
    check(&[("claim", lost)], &pod(&["x"]), "persistentvolumeclaim \"x\" bound to non-existent persistentvolume \"v\"");
    let mut going = claim("x", "now", "1Gi", "v");
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    check(&[("claim", going)], &pod(&["x"]), "persistentvolumeclaim \"x\" is being deleted");
    let ephemeral = json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"},
        "spec": {"volumes": [{"name": "v", "ephemeral": {}}]}});
    let waiting = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\"";
    check(&[], &ephemeral, waiting);
    let foreign = "PVC d/p-v was not created for pod d/p (pod is not owner)";
    check(&[("claim", claim("p-v", "now", "1Gi", "v"))], &ephemeral, foreign);
}

#[test]
fn on_nodes() {
    let check = |objects: &[(&str, Value)], claims: &[&str], want: [&str; 2]| {
        let mut cache = nodes();
        objects.iter().for_each(|(kind, o)| put(&mut cache, kind, o));
        assert_eq!(reasons(&VolumeBinding::default(), &pod(claims), &mut cache), want, "{objects:?}");
    };
    let bound = ("claim", claim("x", "now", "1Gi", "v"));
    check(std::slice::from_ref(&bound), &["x"], [NO_VOLUME; 2]);
    check(&[bound, ("volume", volume("v", "now", "1Gi", &["a"]))], &["x"], ["", AFFINITY]);
    // Static volumes.
    let waiting = ("claim", claim("x", "wait", "2Gi", ""));
    check(std::slice::from_ref(&waiting), &["x"], [CONFLICT; 2]);
    let v = |name: &str, size: &str, nodes: &[&str]| ("volume", volume(name, "wait", size, nodes));
    check(&[waiting.clone(), v("v", "2Gi", &["b"])], &["x"], [CONFLICT, ""]);
    check(&[waiting.clone(), v("v", "1Gi", &["b"])], &["x"], [CONFLICT; 2]);
    let second = ("claim", claim("y", "wait", "1Gi", ""));
    check(&[waiting.clone(), second.clone(), v("v", "2Gi", &["b"])], &["x", "y"], [CONFLICT; 2]);
    check(&[waiting.clone(), second, v("v", "2Gi", &["b"]), v("w", "1Gi", &["b"])], &["x", "y"], [CONFLICT, ""]);
    let mut taken = volume("v", "wait", "2Gi", &["b"]);
    taken["spec"]["claimRef"] = json!({"namespace": "d", "name": "other", "uid": "other"});
    check(&[waiting.clone(), ("volume", taken.clone())], &["x"], [CONFLICT; 2]);
    taken["spec"]["claimRef"] = json!({"namespace": "d", "name": "x"});
    check(&[waiting, ("volume", taken)], &["x"], [CONFLICT, ""]);
    // Volumes that are made.
    check(&[("claim", claim("x", "make", "1Gi", ""))], &["x"], ["", ""]);
    let mut chosen = claim("x", "make", "1Gi", "");
    chosen["metadata"]["annotations"][SELECTED_NODE] = "b".into();
    check(&[("claim", chosen)], &["x"], [CONFLICT, ""]);
    let mut limited = class("make", "example.com/csi", true);
    limited["allowedTopologies"] = json!([{"matchLabelExpressions": [{"key": "host", "values": ["a"]}]}]);
    check(&[("claim", claim("x", "make", "1Gi", "")), ("class", limited)], &["x"], ["", CONFLICT]);
}

#[test]
fn capacity() {
    let mut cache = nodes();
    put(&mut cache, "claim", &claim("x", "make", "2Gi", ""));
    put(&mut cache, "driver", &json!({"metadata": {"name": "example.com/csi"}, "spec": {"storageCapacity": true}}));
    assert_eq!(reasons(&VolumeBinding::default(), &pod(&["x"]), &mut cache), [NO_SPACE; 2]);
    let capacity = |node: &str, size: &str| {
        json!({"metadata": {"name": node, "namespace": "s"}, "storageClassName": "make", "capacity": size,
            "nodeTopology": {"matchLabels": {"host": node}}})
    };
    put(&mut cache, "capacity", &capacity("a", "1Gi"));
    put(&mut cache, "capacity", &capacity("b", "2Gi"));
    assert_eq!(reasons(&VolumeBinding::default(), &pod(&["x"]), &mut cache), [NO_SPACE, ""]);
}

#[test]
fn reserves_and_gives_back() {
    let mut cache = nodes();
    put(&mut cache, "claim", &claim("x", "wait", "1Gi", ""));
    put(&mut cache, "claim", &claim("y", "wait", "1Gi", ""));
    put(&mut cache, "claim", &claim("z", "make", "1Gi", ""));
    put(&mut cache, "volume", &volume("big", "wait", "9Gi", &["a"]));
    put(&mut cache, "volume", &volume("small", "wait", "1Gi", &["a"]));
    let a = cache.node("a").unwrap().1.node.clone().unwrap();
    let p = decode(&pod(&["x", "z"]));
    let actions = VolumeBinding::default().reserve(&p, &a, &mut cache).unwrap();
    let want = [
        Action::BindVolume {
            volume: "small".into(),
            namespace: "d".into(),
            claim: "x".into(),
            uid: "x".into(),
            resource_version: "7".into(),
        },
        Action::SelectNode { namespace: "d".into(), claim: "z".into(), resource_version: "5".into(), node: "a".into() },
        Action::AwaitClaims { namespace: "d".into(), claims: vec!["x".into(), "z".into()], seconds: 600 },
    ];
    assert_eq!(actions, want);
    // Another pod gets the other volume, or none; who shares the claim gets the same.
    let mut other = pod(&["y"]);
    other["metadata"]["uid"] = "q".into();
    let actions = VolumeBinding::default().reserve(&decode(&other), &a, &mut cache).unwrap();
    assert!(matches!(&actions[0], Action::BindVolume { volume, .. } if volume == "big"), "{actions:?}");
    assert_eq!(reasons(&VolumeBinding::default(), &pod(&["z"]), &mut cache), ["", CONFLICT]);
    assert_eq!(reasons(&VolumeBinding::default(), &pod(&["x"]), &mut cache), ["", CONFLICT]);
    VolumeBinding::default().unreserve(&p, &mut cache);
    assert_eq!(reasons(&VolumeBinding::default(), &pod(&["z"]), &mut cache), ["", ""]);
    assert_eq!(cache.objects.assumed_volumes.len(), 1);
    // The volume's own word takes the assumption's place.
    let mut big = volume("big", "wait", "9Gi", &["a"]);
    big["spec"]["claimRef"] = json!({"namespace": "d", "name": "y", "uid": "y"});
    put(&mut cache, "volume", &big);
    assert!(cache.objects.assumed_volumes.is_empty());
}

#[test]
fn zones() {
    let zone = "node(s) had no available volume zone";
    for (value, want) in [("za", ["", zone]), ("za__zb", ["", ""]), ("zc", [zone; 2])] {
        let mut cache = nodes();
        put(&mut cache, "claim", &claim("x", "now", "1Gi", "v"));
        let mut v = volume("v", "now", "1Gi", &[]);
        v["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": value});
        put(&mut cache, "volume", &v);
        assert_eq!(reasons(&VolumeZone, &pod(&["x"]), &mut cache), want, "{value}");
    }
}

#[test]
fn only_one_pod() {
    let conflict = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    let mut cache = nodes();
    let mut c = claim("x", "now", "1Gi", "v");
    c["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    put(&mut cache, "claim", &c);
    assert_eq!(reasons(&VolumeRestrictions, &pod(&["x"]), &mut cache), ["", ""]);
    let mut there = decode(&pod(&["x"]));
    (there.uid, there.node_name) = ("there".into(), "a".into());
    cache.set_pod(Arc::new(there));
    assert_eq!(reasons(&VolumeRestrictions, &pod(&["x"]), &mut cache), [conflict; 2]);
    let p = decode(&pod(&["x"]));
    let mut state = VolumeRestrictions.pre_filter(&p, &mut cache).unwrap().state;
    let (node, info) = cache.node("b").unwrap();
    let other = cache.node("a").unwrap().1.pods["there"].clone();
    VolumeRestrictions.suppose(&mut state, &p, &other, info, false, &cache);
    assert!(VolumeRestrictions.filter(&state, &p, node, info, &cache).is_ok());
    cache.remove_pod("there");
    assert_eq!(reasons(&VolumeRestrictions, &pod(&["x"]), &mut cache), ["", ""]);
}

#[test]
fn disks_in_pods() {
    let disk = |read_only: bool| {
        json!({"metadata": {"name": "p", "namespace": "d"},
            "spec": {"volumes": [{"gcePersistentDisk": {"pdName": "disk", "readOnly": read_only}}]}})
    };
    for (a, b, ok) in [(false, false, false), (true, false, false), (true, true, true)] {
        let got = crate::plugins::testing::filter(
            &VolumeRestrictions,
            &disk(a),
            &json!({"metadata": {"name": "n"}}),
            &[disk(b)],
        );
        assert_eq!(got.is_empty(), ok, "{a} {b}");
    }
}

#[test]
fn limits() {
    let full = "node(s) exceed max volume count";
    let mut cache = nodes();
    let limit = |node: &str, n: i64| json!({"metadata": {"name": node}, "spec": {"drivers": [{"name": "example.com/csi", "allocatable": {"count": n}}]}});
    put(&mut cache, "csinode", &limit("a", 1));
    put(&mut cache, "csinode", &limit("b", 2));
    for n in ["x", "y"] {
        put(&mut cache, "claim", &claim(n, "now", "1Gi", n));
        let mut v = volume(n, "now", "1Gi", &[]);
        v["spec"]["csi"] = json!({"driver": "example.com/csi", "volumeHandle": n});
        put(&mut cache, "volume", &v);
    }
    put(&mut cache, "claim", &claim("z", "make", "1Gi", ""));
    assert_eq!(reasons(&NodeVolumeLimits, &pod(&["x"]), &mut cache), ["", ""]);
    assert_eq!(reasons(&NodeVolumeLimits, &pod(&["x", "y"]), &mut cache), [full, ""]);
    assert_eq!(reasons(&NodeVolumeLimits, &pod(&["x", "y", "z"]), &mut cache), [full; 2]);
    let attachment =
        json!({"metadata": {"name": "t"}, "spec": {"nodeName": "a", "source": {"persistentVolumeName": "y"}}});
    put(&mut cache, "attachment", &attachment);
    assert_eq!(reasons(&NodeVolumeLimits, &pod(&["x"]), &mut cache), [full, ""]);
    assert_eq!(reasons(&NodeVolumeLimits, &pod(&["y"]), &mut cache), ["", ""]);
}
