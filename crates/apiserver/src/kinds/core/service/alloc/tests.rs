use super::super::ports::Recorded;
use super::*;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Runs a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waited"),
    }
}

fn allocator() -> ServiceAllocator {
    with(&["10.96.0.0/24", "fd00::/112"], None, &Record::default())
}

fn with(cidrs: &[&str], objects: Option<Box<dyn AddressObjects>>, record: &Record) -> ServiceAllocator {
    ServiceAllocator::new(cidrs, (30000, 32767), 42, objects, Box::new(record.clone())).unwrap()
}

/// The ports of several allocators.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Recorded>>);

impl PortRecord for Record {
    fn read(&self) -> BoxFuture<'_, Result<Recorded, String>> {
        Box::pin(std::future::ready(Ok(self.0.lock().unwrap().clone())))
    }

    fn write(&self, record: Recorded) -> BoxFuture<'_, Result<bool, String>> {
        let mut now = self.0.lock().unwrap();
        let same = now.mark == record.mark;
        if same {
            *now = Recorded { mark: record.mark + 1, ..record };
        }
        Box::pin(std::future::ready(Ok(same)))
    }
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})
}

fn create(to: &ServiceAllocator, service: &mut Value) -> Result<(), String> {
    match now(to.begin_create(service, false)) {
        Ok(reservation) => now(to.finish(reservation, true)),
        Err(error) => Err(text(error)),
    }
}

fn update(to: &ServiceAllocator, new: &mut Value, old: &Value) -> Result<(), String> {
    match now(to.begin_update(new, old, false)) {
        Ok(reservation) => now(to.finish(reservation, true)),
        Err(error) => Err(text(error)),
    }
}

fn text(error: AllocError) -> String {
    match error {
        AllocError::Invalid(errors) => errors.to_string(),
        AllocError::Internal(text) => text,
    }
}

fn ips(service: &Value) -> Vec<String> {
    cluster_ips(service).into_iter().map(str::to_owned).collect()
}

#[test]
fn addresses() {
    let a = allocator();
    let mut one = service(json!({"type": "ClusterIP", "ports": [{"port": 80}]}));
    create(&a, &mut one).unwrap();
    assert!(ips(&one)[0].starts_with("10.96.0."), "{one}");
    assert_eq!(one["spec"]["clusterIP"], one["spec"]["clusterIPs"][0]);
    let mut both = service(json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"}));
    create(&a, &mut both).unwrap();
    assert!(ips(&both).len() == 2 && ips(&both)[1].starts_with("fd00::"), "{both}");
    let mut fixed = service(json!({"type": "ClusterIP", "clusterIP": "10.96.0.1"}));
    create(&a, &mut fixed).unwrap();
    let mut again = service(json!({"type": "ClusterIP", "clusterIP": "10.96.0.1"}));
    assert_eq!(
        create(&a, &mut again).unwrap_err(),
        "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: provided IP is already allocated"
    );
    now(a.deleted(&fixed)).unwrap();
    create(&a, &mut again).unwrap();
    let mut outside = service(json!({"type": "ClusterIP", "clusterIP": "10.0.0.1"}));
    assert!(create(&a, &mut outside).unwrap_err().ends_with("the provided network does not match the current range"));
    let mut headless = service(json!({"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}}));
    create(&a, &mut headless).unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let mut name = service(json!({"type": "ExternalName", "externalName": "x"}));
    create(&a, &mut name).unwrap();
    assert_eq!(name["spec"].get("clusterIPs"), None);
}

#[test]
fn full_and_dry_runs() {
    let a = with(&["10.0.0.0/30"], None, &Record::default());
    for _ in 0..5 {
        let mut dry = service(json!({"type": "ClusterIP"}));
        let reservation = now(a.begin_create(&mut dry, true)).unwrap();
        assert_eq!(ips(&dry).len(), 1);
        now(a.finish(reservation, true)).unwrap();
    }
    for _ in 0..2 {
        create(&a, &mut service(json!({"type": "ClusterIP"}))).unwrap();
    }
    let error = create(&a, &mut service(json!({"type": "ClusterIP"}))).unwrap_err();
    assert_eq!(error, "failed to allocate a serviceIP: range is full");
    a.add_prefix("10.0.1.0/24");
    let mut more = service(json!({"type": "ClusterIP"}));
    create(&a, &mut more).unwrap();
    assert!(ips(&more)[0].starts_with("10.0.1."));
}

#[test]
fn a_refused_write_keeps_nothing() {
    let a = allocator();
    let mut taken = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
    create(&a, &mut taken).unwrap();
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30081}, {"port": 81, "nodePort": 30080}]});
    assert_eq!(
        create(&a, &mut service(spec)).unwrap_err(),
        "spec.ports[1].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30081}]});
    create(&a, &mut service(spec)).unwrap();
    let error =
        create(&a, &mut service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}))).unwrap_err();
    assert_eq!(
        error,
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
    );
}

#[test]
fn node_ports_follow_the_type() {
    let a = allocator();
    let ports = json!([{"name": "a", "port": 53, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}, {"name": "c", "port": 80}]);
    let mut old = service(json!({"type": "NodePort", "ports": ports}));
    create(&a, &mut old).unwrap();
    let got = node_ports(&old);
    assert!(got[0] == got[1] && got[1] != got[2] && got.iter().all(|p| (30086..=32767).contains(p)), "{got:?}");
    // A PUT of the manifest gets the same values back.
    let mut same = service(json!({"type": "NodePort", "ports": ports}));
    update(&a, &mut same, &old).unwrap();
    assert_eq!(same["spec"], old["spec"]);
    // To ClusterIP: the node ports are free again.
    let mut plain = same.clone();
    plain["spec"]["type"] = "ClusterIP".into();
    update(&a, &mut plain, &same).unwrap();
    let mut other = service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": got[2]}]}));
    create(&a, &mut other).unwrap();
    // To ExternalName: the address is free again.
    let ip = ips(&plain)[0].clone();
    let mut external = plain.clone();
    external["spec"]["type"] = "ExternalName".into();
    update(&a, &mut external, &plain).unwrap();
    create(&a, &mut service(json!({"type": "ClusterIP", "clusterIP": ip}))).unwrap();
}

#[test]
fn health_check_ports() {
    let a = allocator();
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]});
    let mut local = service(spec);
    create(&a, &mut local).unwrap();
    let port = local["spec"]["healthCheckNodePort"].as_i64().unwrap();
    assert_eq!(node_ports(&local), [] as [i64; 0]);
    let taken = |port: i64| {
        let mut asks = service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]}));
        create(&a, &mut asks).is_err()
    };
    assert!(taken(port));
    let mut cluster = local.clone();
    cluster["spec"]["externalTrafficPolicy"] = "Cluster".into();
    update(&a, &mut cluster, &local).unwrap();
    assert!(!taken(port));
}

#[test]
fn dual_stack_up_and_down() {
    let a = allocator();
    let mut one = service(json!({"type": "ClusterIP"}));
    create(&a, &mut one).unwrap();
    let mut two = one.clone();
    two["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    update(&a, &mut two, &one).unwrap();
    assert_eq!((ips(&two).len(), &ips(&two)[0]), (2, &ips(&one)[0]));
    let mut down = two.clone();
    down["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    update(&a, &mut down, &two).unwrap();
    assert_eq!((&down["spec"]["clusterIPs"], &down["spec"]["ipFamilies"]), (&json!(ips(&one)), &json!(["IPv4"])));
    create(&a, &mut service(json!({"type": "ClusterIP", "clusterIP": ips(&two)[1]}))).unwrap();
}

#[test]
fn observed_services_hold_what_they_have() {
    let a = allocator();
    let stored =
        service(json!({"type": "NodePort", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 1, "nodePort": 30001}]}));
    a.observe(&stored);
    a.observe_address("10.96.0.8");
    for ip in ["10.96.0.7", "10.96.0.8"] {
        assert!(create(&a, &mut service(json!({"type": "ClusterIP", "clusterIP": ip}))).is_err());
    }
    a.forget_address("10.96.0.8");
    create(&a, &mut service(json!({"type": "ClusterIP", "clusterIP": "10.96.0.8"}))).unwrap();
}

/// IPAddress objects that several allocators share.
#[derive(Clone, Default)]
struct Objects(Arc<Mutex<BTreeMap<String, Value>>>);

impl AddressObjects for Objects {
    fn create(&self, object: Value) -> BoxFuture<'_, Result<bool, String>> {
        let name = value::str_at(&object, &["metadata", "name"]).to_owned();
        let new = self.0.lock().unwrap().insert(name, object).is_none();
        Box::pin(std::future::ready(Ok(new)))
    }

    fn delete(&self, name: String) -> BoxFuture<'_, Result<(), String>> {
        self.0.lock().unwrap().remove(&name);
        Box::pin(std::future::ready(Ok(())))
    }
}

#[test]
fn objects_hold_between_servers() {
    let objects = Objects::default();
    let make = || with(&["10.0.0.0/29"], Some(Box::new(objects.clone())), &Record::default());
    let (a, b) = (make(), make());
    let mut seen = Vec::new();
    for server in [&a, &b, &a, &b, &a, &b] {
        let mut made = service(json!({"type": "ClusterIP"}));
        create(server, &mut made).unwrap();
        seen.extend(ips(&made));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 6);
    let parent = objects.0.lock().unwrap()[&seen[0]]["spec"]["parentRef"].clone();
    assert_eq!(parent, json!({"resource": "services", "namespace": "n", "name": "s"}));
    now(a.deleted(&service(json!({"type": "ClusterIP", "clusterIPs": [seen[0]]})))).unwrap();
    assert!(!objects.0.lock().unwrap().contains_key(&seen[0]));
}

#[test]
fn ports_hold_between_servers() {
    let record = Record::default();
    let (a, b) = (with(&["10.0.0.0/24"], None, &record), with(&["10.0.0.0/24"], None, &record));
    let mut seen = Vec::new();
    for server in [&a, &b, &a, &b] {
        let mut made = service(json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}));
        create(server, &mut made).unwrap();
        seen.extend(node_ports(&made));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 8);
    let asks = |port: i64| service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]}));
    assert_eq!(
        create(&a, &mut asks(seen[0])).unwrap_err(),
        format!("spec.ports[0].nodePort: Invalid value: {}: provided port is already allocated", seen[0])
    );
    // What one gives back, and what a dry run takes, is the other's to have.
    now(b.deleted(&asks(seen[0]))).unwrap();
    let dry = now(a.begin_create(&mut asks(seen[0]), true)).unwrap();
    now(a.finish(dry, true)).unwrap();
    create(&a, &mut asks(seen[0])).unwrap();
}

#[test]
fn a_faster_server_is_not_overwritten() {
    /// Somebody else takes a port between the first read and the first write.
    struct Raced(Record, Mutex<bool>);
    impl PortRecord for Raced {
        fn read(&self) -> BoxFuture<'_, Result<Recorded, String>> {
            self.0.read()
        }
        fn write(&self, record: Recorded) -> BoxFuture<'_, Result<bool, String>> {
            if !std::mem::replace(&mut *self.1.lock().unwrap(), true) {
                let other = with(&["10.0.0.0/24"], None, &self.0);
                let mut service = service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30007}]}));
                create(&other, &mut service).unwrap();
            }
            self.0.write(record)
        }
    }
    let raced = Box::new(Raced(Record::default(), Mutex::new(false)));
    let a = ServiceAllocator::new(&["10.0.0.0/24"], (30000, 32767), 1, None, raced).unwrap();
    let spec = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30007}]});
    assert!(create(&a, &mut service(spec)).unwrap_err().ends_with("provided port is already allocated"));
}
