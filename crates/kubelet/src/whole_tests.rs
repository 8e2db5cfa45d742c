//! The whole node agent, against an API and a runtime in memory.

use crate::config::{Authentication, Authorization, KubeletConfig};
use crate::testing::pod;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Event, Node, Pod};
use pintle_api::service::UserInfo;
use pintle_client::testing::FakeApi;
use pintle_client::{Client, Informers, View};
use pintle_runtime::fake::{FakeRuntime, OnStop};
use pintle_runtime::{Error, ImageConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long.
const LIMIT: Duration = Duration::from_secs(60);

struct Cluster {
    api: FakeApi,
    client: Client,
    runtime: Arc<FakeRuntime>,
    dir: tempfile::TempDir,
    pods: View<Pod>,
    events: View<Event>,
    _informers: Informers,
    port: u16,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), crate::KubeletError>>,
}

fn config(dir: &std::path::Path) -> KubeletConfig {
    let mut authentication = Authentication::default();
    authentication.anonymous.enabled = true;
    KubeletConfig {
        node_name: "n1".into(),
        node_ips: vec![[10, 0, 0, 1].into()],
        root_dir: dir.join("root"),
        pod_logs_dir: dir.join("logs"),
        address: [127, 0, 0, 1].into(),
        port: 0,
        healthz_port: 0,
        authentication,
        authorization: Authorization { mode: "AlwaysAllow".into() },
        static_pod_path: Some(dir.join("manifests")),
        ..Default::default()
    }
}

impl Cluster {
    async fn start() -> Self {
        let api = FakeApi::new();
        let client = Client::in_process(api.service(), UserInfo::authenticated("system:node:n1", &["system:nodes"]));
        let informers = Informers::new(client.clone());
        let runtime = FakeRuntime::new();
        runtime.add_image("busybox", ImageConfig::default(), 100);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("manifests")).unwrap();
        let mut c = Self {
            pods: informers.of::<Pod>().view::<Pod>(),
            events: informers.of::<Event>().view::<Event>(),
            _informers: informers,
            api,
            client,
            runtime,
            dir,
            port: 0,
            stop: CancellationToken::new(),
            task: tokio::spawn(async { Ok(()) }),
        };
        c.run().await;
        c
    }

    async fn run(&mut self) {
        let (bound, mut port) = tokio::sync::watch::channel(0);
        let config = KubeletConfig { bound: Some(bound), ..config(self.dir.path()) };
        self.stop = CancellationToken::new();
        let agent = crate::run(config, self.client.clone(), self.runtime.clone(), self.stop.clone());
        self.task = tokio::spawn(agent);
        self.port = *tokio::time::timeout(LIMIT, port.wait_for(|p| *p > 0)).await.unwrap().unwrap();
    }

    async fn restart(&mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap().unwrap();
        self.run().await;
    }

    async fn create(&self, yaml: &str) -> Pod {
        let mut p = pod(yaml);
        p.metadata.uid = None;
        let spec = p.spec.get_or_insert_default();
        spec.node_name = Some("n1".into());
        for c in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            c.image.get_or_insert_with(|| "busybox".into());
            c.image_pull_policy.get_or_insert_with(|| "IfNotPresent".into());
        }
        self.client.of::<Pod>().create(&p).await.unwrap()
    }

    /// Waits until the pod is so.
    async fn until(&self, name: &str, what: &str, is: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        let mut changes = self.pods.subscribe();
        let key = format!("ns/{name}");
        let wait = async {
            loop {
                if let Some(p) = self.pods.get(&key).filter(|p| is(p)) {
                    return p;
                }
                changes.next().await.unwrap();
            }
        };
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(p) => p,
            Err(_) => panic!("{name} is not {what}: {:#?}", self.pods.get(&key).and_then(|p| p.status.clone())),
        }
    }

    async fn phase(&self, name: &str, phase: &str) -> Arc<Pod> {
        self.until(name, phase, |p| crate::pod::spec::phase(p) == phase).await
    }

    async fn waiting(&self, name: &str, reason: &str) -> String {
        let message = |p: &Pod| {
            let w = container(p, 0)?.state?.waiting?;
            (w.reason.as_deref() == Some(reason)).then(|| w.message.unwrap_or_default())
        };
        message(&*self.until(name, reason, |p| message(p).is_some()).await).unwrap()
    }

    /// Waits for an Event with this reason about a pod.
    async fn event(&self, name: &str, reason: &str) -> String {
        let mut changes = self.events.subscribe();
        let wait = async {
            loop {
                let change = changes.next().await.unwrap();
                let Some(e) = change.now() else { continue };
                if e.reason.as_deref() == Some(reason) && e.involved_object.name.as_deref() == Some(name) {
                    return e.message.clone().unwrap_or_default();
                }
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("no event {reason} about {name}"))
    }
}

fn container(p: &Pod, i: usize) -> Option<ContainerStatus> {
    p.status.as_ref()?.container_statuses.as_ref()?.get(i).cloned()
}

#[tokio::test]
async fn a_node_registers() {
    let c = Cluster::start().await;
    let wait = async {
        loop {
            let nodes = c.client.of::<Node>();
            let lease = c.client.of::<Lease>().get_opt("kube-node-lease", "n1").await.unwrap();
            if let (Ok(Some(n)), Some(l)) = (nodes.get_opt("", "n1").await, lease) {
                return (n, l);
            }
            tokio::task::yield_now().await;
        }
    };
    let (node, lease) = tokio::time::timeout(LIMIT, wait).await.unwrap();
    let labels = node.metadata.labels.unwrap();
    assert_eq!((labels["kubernetes.io/hostname"].as_str(), labels["kubernetes.io/os"].as_str()), ("n1", "linux"));
    let status = node.status.unwrap();
    let ready = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("True", Some("KubeletReady")));
    assert_eq!(i32::from(c.port), status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port);
    assert_eq!(status.addresses.unwrap()[0].address, "10.0.0.1");
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some("n1"));
}

#[tokio::test]
async fn extended_resources_of_others_become_allocatable() {
    let c = Cluster::start().await;
    let informers = Informers::new(c.client.clone());
    let nodes = informers.of::<Node>().view::<Node>();
    let mut changes = nodes.subscribe();
    let mut until = async |count: Option<&str>| {
        let wait = async {
            loop {
                let status = nodes.get("n1").and_then(|n| n.status.clone()).unwrap_or_default();
                let allocatable = status.allocatable.unwrap_or_default();
                if allocatable.contains_key("cpu") && allocatable.get("example.com/gpu").map(|q| q.0.as_str()) == count
                {
                    return;
                }
                changes.next().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{count:?} gpus never became allocatable"));
    };
    let capacity = |count: &str| {
        let text = format!(r#"{{"status": {{"capacity": {{"example.com/gpu": {count}}}}}}}"#);
        let of_nodes = c.client.of::<Node>();
        async move { of_nodes.patch_status("", "n1", pintle_client::Patch::Merge(text.into())).await.unwrap() }
    };
    until(None).await;
    capacity("\"5\"").await;
    until(Some("5")).await;
    capacity("null").await;
    until(None).await;
}

#[tokio::test]
async fn a_container_that_is_replaced_stays_ready() {
    let c = Cluster::start().await;
    c.create("{metadata: {name: a}, spec: {containers: [{name: c}]}}").await;
    let ready = |p: &Pod| {
        let conditions = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.filter(|c| c.type_ == "Ready" && c.status == "True").count() == 1
    };
    c.until("a", "ready", ready).await;
    c.runtime.add_image("other", ImageConfig::default(), 100);
    let mut changes = c.pods.subscribe();
    let text = r#"{"spec": {"containers": [{"name": "c", "image": "other", "imagePullPolicy": "IfNotPresent"}]}}"#;
    c.client.of::<Pod>().patch("ns", "a", pintle_client::Patch::Merge(text.into())).await.unwrap();
    let wait = async {
        loop {
            let change = changes.next().await.unwrap();
            let Some(p) = change.now() else { continue };
            assert!(ready(p), "{:#?}", p.status);
            if container(p, 0).is_some_and(|s| s.restart_count == 1 && s.ready) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it is replaced");
}

#[tokio::test]
async fn life_of_a_pod() {
    let c = Cluster::start().await;
    c.create("{metadata: {name: a}, spec: {containers: [{name: c}], volumes: [{name: v, emptyDir: {}}]}}").await;
    let p = c.phase("a", "Running").await;
    let s = container(&p, 0).unwrap();
    assert!(s.ready && s.restart_count == 0 && s.container_id.unwrap().starts_with("pintle://"));
    let status = p.status.clone().unwrap();
    assert!(status.pod_ip.is_some() && status.start_time.is_some());
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(c.event("a", "Created").await, "Container created");
    assert_eq!(c.event("a", "Started").await, "Container started");
    let about = "Container image \"busybox\" already present on machine and can be accessed by the pod";
    assert_eq!(c.event("a", "Pulled").await, about);

    // It ends by itself: started again at once, then after a while.
    let first = c.runtime.find("a", "c").unwrap();
    c.runtime.exit(&first.id, 1);
    let p = c.until("a", "restarted", |p| container(p, 0).is_some_and(|s| s.restart_count == 1 && s.ready)).await;
    let last = container(&p, 0).unwrap().last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
    c.runtime.exit(&c.runtime.find("a", "c").unwrap().id, 2);
    let message = c.waiting("a", "CrashLoopBackOff").await;
    let uid = p.metadata.uid.clone().unwrap();
    assert_eq!(message, format!("back-off 10s restarting failed container=c pod=a_ns({uid})"));
    let text = format!("Back-off restarting failed container c in pod a_ns({uid})");
    assert_eq!(c.event("a", "BackOff").await, text);
}

#[tokio::test]
async fn pods_that_end_and_pods_that_are_deleted() {
    let c = Cluster::start().await;
    c.runtime.exit_on_start("done", 0);
    c.runtime.exit_on_start("failed", 3);
    c.create("{metadata: {name: ok}, spec: {restartPolicy: Never, containers: [{name: done}]}}").await;
    c.create("{metadata: {name: bad}, spec: {restartPolicy: Never, containers: [{name: failed}]}}").await;
    c.phase("ok", "Succeeded").await;
    let p = c.phase("bad", "Failed").await;
    assert_eq!(container(&p, 0).unwrap().state.unwrap().terminated.unwrap().exit_code, 3);

    // A finalizer keeps the object, so that its last state can be seen.
    let held = "{metadata: {name: held, finalizers: [x/y]}, spec: {terminationGracePeriodSeconds: 30, containers: [{name: c}]}}";
    c.create(held).await;
    c.phase("held", "Running").await;
    c.runtime.on_stop("c", OnStop::Exit(0));
    c.client.of::<Pod>().delete("ns", "held", None).await.unwrap();
    c.phase("held", "Succeeded").await;
    assert_eq!(c.event("held", "Killing").await, "Stopping container c");
    let deleted = async {
        while c.api.requests().iter().filter(|(m, u)| *m == "DELETE" && u.contains("/held")).count() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, deleted).await.expect("the node asks for the object's final deletion");

    // One whose object is gone at once leaves nothing behind.
    let p = c.create("{metadata: {name: gone}, spec: {containers: [{name: c}]}}").await;
    c.phase("gone", "Running").await;
    c.client.of::<Pod>().delete("ns", "gone", None).await.unwrap();
    let log_dir = config(c.dir.path()).pod_log_dir(&crate::pod::spec::PodRef::of(&p));
    let swept = c.runtime.wait(|rt| rt.find("gone", "c").is_none().then_some(()));
    tokio::time::timeout(LIMIT, swept).await.expect("containers and sandbox are removed");
    let dirs = async {
        while log_dir.exists() || config(c.dir.path()).pod_dir(p.metadata.uid.as_deref().unwrap()).exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, dirs).await.expect("logs and directory are removed");
}

#[tokio::test]
async fn what_is_missing() {
    let c = Cluster::start().await;
    c.runtime.pull_error("nope", Some(Error::not_found("no such image")));
    c.create("{metadata: {name: image}, spec: {containers: [{name: c, image: nope}]}}").await;
    assert_eq!(c.waiting("image", "ErrImagePull").await, "rpc error: code = NotFound desc = no such image");
    let back_off = "Back-off pulling image \"nope\": ErrImagePull: rpc error: code = NotFound desc = no such image";
    assert_eq!(c.waiting("image", "ImagePullBackOff").await, back_off);
    // Another image has no part in the back-off of the first.
    let other = r#"{"spec": {"containers": [{"name": "c", "image": "busybox"}]}}"#;
    c.client.of::<Pod>().patch("ns", "image", pintle_client::Patch::Merge(other.into())).await.unwrap();
    c.phase("image", "Running").await;

    c.create("{metadata: {name: env}, spec: {containers: [{name: c, envFrom: [{configMapRef: {name: later}}]}]}}")
        .await;
    assert_eq!(c.waiting("env", "CreateContainerConfigError").await, "configmap \"later\" not found");
    let map: ConfigMap = serde_saphyr::from_str("{metadata: {name: later, namespace: ns}, data: {K: v}}").unwrap();
    c.client.of::<ConfigMap>().create(&map).await.unwrap();
    c.phase("env", "Running").await;
    let config = c.runtime.container_config(&c.runtime.find("env", "c").unwrap().id).unwrap();
    assert!(config.envs.iter().any(|kv| kv.key == "K" && kv.value == "v"));

    c.create("{metadata: {name: big}, spec: {containers: [{name: c, resources: {requests: {cpu: '10000'}}}]}}").await;
    let p = c.phase("big", "Failed").await;
    let status = p.status.clone().unwrap();
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert!(
        status
            .message
            .unwrap()
            .starts_with("Pod was rejected: Node didn't have enough resource: cpu, requested: 10000000,")
    );
}

#[tokio::test]
async fn init_containers_come_first_and_probes_decide() {
    let c = Cluster::start().await;
    c.runtime.exit_on_start("i", 0);
    c.runtime.on_exec(|name, cmd| {
        let ok = !(name == "sick" && cmd[0] == "live");
        Ok(pintle_runtime::ExecOutput { exit_code: i32::from(!ok), stdout: b"bad".to_vec(), ..Default::default() })
    });
    c.create(
        "{metadata: {name: a}, spec: {initContainers: [{name: i}], containers: [{name: c, readinessProbe: {exec: {command: [x]}, periodSeconds: 1}}]}}",
    )
    .await;
    let p = c.until("a", "ready", |p| container(p, 0).is_some_and(|s| s.ready)).await;
    let init = p.status.as_ref().unwrap().init_container_statuses.as_ref().unwrap()[0].clone();
    assert_eq!(init.state.unwrap().terminated.unwrap().reason.as_deref(), Some("Completed"));
    c.create(
        "{metadata: {name: b}, spec: {containers: [{name: sick, livenessProbe: {exec: {command: [live]}, periodSeconds: 1, failureThreshold: 1}}]}}",
    )
    .await;
    c.until("b", "restarted", |p| container(p, 0).is_some_and(|s| s.restart_count >= 1)).await;
    assert_eq!(c.event("b", "Unhealthy").await, "Liveness probe failed: bad");
    assert_eq!(c.event("b", "Killing").await, "Container sick failed liveness probe, will be restarted");
}

#[tokio::test]
async fn what_runs_is_taken_over() {
    let mut c = Cluster::start().await;
    c.create("{metadata: {name: a}, spec: {containers: [{name: c}]}}").await;
    c.create("{metadata: {name: orphan}, spec: {containers: [{name: c}]}}").await;
    c.phase("a", "Running").await;
    c.phase("orphan", "Running").await;
    let before = c.runtime.find("a", "c").unwrap();
    c.stop.cancel();
    (&mut c.task).await.unwrap().unwrap();
    c.client.of::<Pod>().delete("ns", "orphan", None).await.unwrap();
    c.restart_after_stop().await;
    let swept = c.runtime.wait(|rt| rt.find("orphan", "c").is_none().then_some(()));
    tokio::time::timeout(LIMIT, swept).await.expect("a pod deleted meanwhile is removed");
    assert_eq!(c.runtime.find("a", "c").unwrap().id, before.id);
    c.runtime.exit(&before.id, 4);
    let p = c.until("a", "restarted", |p| container(p, 0).is_some_and(|s| s.restart_count == 1)).await;
    assert_eq!(container(&p, 0).unwrap().last_state.unwrap().terminated.unwrap().exit_code, 4);
}

impl Cluster {
    async fn restart_after_stop(&mut self) {
        self.task = tokio::spawn(async { Ok(()) });
        self.restart().await;
    }
}

#[tokio::test]
async fn logs_by_https() {
    let c = Cluster::start().await;
    c.create("{metadata: {name: a}, spec: {containers: [{name: c}]}}").await;
    c.phase("a", "Running").await;
    let id = c.runtime.find("a", "c").unwrap().id;
    let log = c.runtime.find("a", "c").unwrap().log_path;
    std::fs::create_dir_all(std::path::Path::new(&log).parent().unwrap()).unwrap();
    for line in ["one", "two", "three"] {
        c.runtime.write_log(&id, "stdout", line).unwrap();
    }
    let get = |path: &str| {
        let g = crate::probes::http::Get {
            https: true,
            host: "127.0.0.1".into(),
            port: c.port,
            path: path.into(),
            headers: hyper::HeaderMap::new(),
        };
        async move { g.send(LIMIT).await.unwrap() }
    };
    assert_eq!(get("/containerLogs/ns/a/c").await.body, "one\ntwo\nthree\n");
    assert_eq!(get("/containerLogs/ns/a/c?tailLines=1").await.body, "three\n");
    assert_eq!(get("/containerLogs/ns/a/c?limitBytes=5").await.body, "one\nt");
    let previous = get("/containerLogs/ns/a/c?previous=true").await;
    let text = "previous terminated container \"c\" in pod \"a\" not found";
    assert_eq!((previous.status, previous.body.as_str()), (400, text));
    assert_eq!(get("/containerLogs/ns/none/c").await.status, 404);
    assert_eq!(get("/healthz").await.body, "ok");
    let pods: serde_json::Value = serde_json::from_str(&get("/pods").await.body).unwrap();
    assert_eq!(pods["items"][0]["metadata"]["name"], "a");
    assert!(get("/metrics/resource").await.body.contains("container_cpu_usage_seconds_total"));
    assert_eq!(get("/nothing").await.status, 404);
}

#[tokio::test]
async fn static_pods_have_mirrors() {
    let mut c = Cluster::start().await;
    let file = c.dir.path().join("manifests/web.yaml");
    let manifest = "{metadata: {name: web, namespace: ns}, spec: {containers: [{name: c, image: 'busybox:latest', imagePullPolicy: Never}]}}";
    std::fs::write(&file, manifest).unwrap();
    let p = c.phase("web-n1", "Running").await;
    assert_eq!(p.metadata.owner_references.as_ref().unwrap()[0].kind, "Node");
    let running = c.runtime.find("web-n1", "c").unwrap();
    let first = p.metadata.uid.clone();

    c.client.of::<Pod>().delete("ns", "web-n1", None).await.unwrap();
    c.until("web-n1", "mirrored again", |p| p.metadata.uid != first && crate::pod::spec::phase(p) == "Running").await;
    assert_eq!(c.runtime.find("web-n1", "c").unwrap().id, running.id, "the pod itself is not touched");

    c.restart().await;
    std::fs::write(&file, manifest.replace("name: c,", "name: d,")).unwrap();
    let other = |p: &Pod| container(p, 0).is_some_and(|s| s.name == "d" && s.ready);
    c.until("web-n1", "the new one", other).await;
    std::fs::remove_file(&file).unwrap();
    let swept = c.runtime.wait(|rt| rt.find("web-n1", "d").is_none().then_some(()));
    tokio::time::timeout(LIMIT, swept).await.expect("its containers are removed");
}

#[tokio::test]
async fn resources_change_in_place() {
    let c = Cluster::start().await;
    c.create("{metadata: {name: a}, spec: {containers: [{name: c, resources: {requests: {cpu: 100m}}}]}}").await;
    c.phase("a", "Running").await;
    let id = c.runtime.find("a", "c").unwrap().id;
    let resize = |cpu: &str| {
        let text = format!(
            r#"{{"spec": {{"containers": [{{"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent", "resources": {{"requests": {{"cpu": "{cpu}"}}}}}}]}}}}"#
        );
        let pods = c.client.of::<Pod>();
        async move { pods.patch("ns", "a", pintle_client::Patch::Merge(text.into())).await.unwrap() }
    };
    resize("200m").await;
    let changed = c.runtime.wait(|rt| rt.find("a", "c").filter(|c| c.resources.cpu_shares == 204));
    let now = tokio::time::timeout(LIMIT, changed).await.expect("the container has more");
    assert_eq!((now.id, now.metadata.attempt), (id, 0), "without a restart");
    let told =
        |p: &Pod, cpu: &str| container(p, 0).and_then(|s| s.allocated_resources).is_some_and(|r| r["cpu"].0 == cpu);
    c.until("a", "told", |p| told(p, "200m")).await;
    resize("100000").await;
    let infeasible = |p: &Pod| {
        let all = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
        all.into_iter().any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"))
    };
    let p = c.until("a", "told that it cannot be", infeasible).await;
    assert!(told(&p, "200m"));
}

#[tokio::test]
async fn resources_of_the_whole_pod_change_in_place() {
    let c = Cluster::start().await;
    c.create("{metadata: {name: a}, spec: {resources: {requests: {cpu: 500m}, limits: {cpu: '1'}}, containers: [{name: c}]}}")
        .await;
    c.phase("a", "Running").await;
    let id = c.runtime.find("a", "c").unwrap().id;
    let wish = r#"{"spec": {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}}"#;
    c.client.of::<Pod>().patch("ns", "a", pintle_client::Patch::Merge(wish.into())).await.unwrap();
    let changed = c.runtime.wait(|rt| rt.find("a", "c").filter(|c| c.resources.cpu_quota == 200_000));
    let now = tokio::time::timeout(LIMIT, changed).await.expect("the container has the limit of its pod");
    assert_eq!((now.id, now.metadata.attempt), (id, 0), "without a restart");
    let told = |p: &Pod| {
        let status = p.status.as_ref().unwrap();
        let limits = status.resources.as_ref().and_then(|r| r.limits.as_ref());
        status.allocated_resources.as_ref().is_some_and(|r| r["cpu"].0 == "1")
            && limits.is_some_and(|l| l["cpu"].0 == "2")
    };
    c.until("a", "told", told).await;
}

#[tokio::test]
async fn one_container_restarts_all() {
    let c = Cluster::start().await;
    for _ in 0..2 {
        c.runtime.exit_on_start("i", 0);
    }
    c.create(
        "{metadata: {name: a}, spec: {restartPolicy: Never, initContainers: [{name: i}], containers: [{name: c, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}, {name: d}]}}",
    )
    .await;
    c.phase("a", "Running").await;
    let (first, other) = (c.runtime.find("a", "c").unwrap().id, c.runtime.find("a", "d").unwrap().id);
    c.runtime.exit(&first, 42);
    let again = |p: &Pod| {
        let all = p.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        all.filter(|s| s.restart_count == 1 && s.ready).count() == 2
    };
    let p = c.until("a", "restarted", again).await;
    let init = p.status.as_ref().unwrap().init_container_statuses.as_ref().unwrap()[0].clone();
    assert_eq!((init.restart_count, init.ready), (1, true), "init containers run again");
    assert_ne!(c.runtime.find("a", "d").unwrap().id, other);
    let ended = container(&p, 0).unwrap().last_state.unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 42);
    assert_eq!(c.event("a", "Killing").await, "Container d is restarted with all containers of the pod");
}

#[tokio::test]
async fn exec_by_websocket() {
    use futures::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    let c = Cluster::start().await;
    c.runtime.on_exec(|_, cmd| {
        Ok(pintle_runtime::ExecOutput { stdout: cmd.join(" ").into_bytes(), stderr: vec![], exit_code: 3 })
    });
    c.create("{metadata: {name: a}, spec: {containers: [{name: c}]}}").await;
    c.phase("a", "Running").await;
    let url = format!("wss://127.0.0.1:{}/exec/ns/a/c?command=echo&command=hi&output=1&error=1", c.port);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
    let stream = crate::probes::http::connect_tls("127.0.0.1", c.port).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    let (mut out, mut status) = (vec![], vec![]);
    while let Some(Ok(m)) = socket.next().await {
        let Message::Binary(data) = m else { continue };
        match data[0] {
            1 => out.extend_from_slice(&data[1..]),
            3 => status.extend_from_slice(&data[1..]),
            _ => {}
        }
    }
    // The other side has closed; whether the answer to that still arrives is of no interest.
    let _ = socket.close(None).await;
    let _ = socket.flush().await;
    assert_eq!(out, b"echo hi");
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}
