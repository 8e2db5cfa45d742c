use super::*;
use pintle_api::Object;
use pintle_api::features::FeatureGates;
use pintle_api::service::UserInfo;
use pintle_client::testing::FakeApi;
use pintle_client::{Cache, WriteParams};
use serde_json::{Value, json};

struct World {
    client: Client,
    pods: Cache<Object>,
    shutdown: CancellationToken,
    informers: Informers,
}

impl World {
    fn start(config: Config) -> Self {
        let w = Self::idle();
        tokio::spawn(run(w.client.clone(), w.informers.clone(), config, w.shutdown.clone()));
        w
    }

    /// Without a scheduler.
    fn idle() -> Self {
        let client =
            Client::in_process(FakeApi::new().service(), UserInfo::authenticated("system:kube-scheduler", &[]));
        let informers = Informers::new(client.clone());
        let shutdown = CancellationToken::new();
        let pods = (*informers.get(by_resource("", "v1", "pods").unwrap())).clone();
        Self { client, pods, shutdown, informers }
    }

    async fn create(&self, resource: &str, kind: &str, namespace: &str, mut object: Value) {
        object["apiVersion"] = "v1".into();
        object["kind"] = kind.into();
        let resource = by_resource("", "v1", resource).unwrap();
        let body = serde_json::to_vec(&object).unwrap().into();
        self.client.create(resource, namespace, body, &WriteParams::default()).await.unwrap();
    }

    async fn node(&self, name: &str, cpu: &str) {
        let status = json!({"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}});
        self.create("nodes", "Node", "", json!({"metadata": {"name": name}, "status": status})).await;
    }

    async fn pod(&self, name: &str, more: &Value, cpu: &str) {
        let mut spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]});
        for (k, v) in more.as_object().unwrap() {
            spec[k] = v.clone();
        }
        self.create("pods", "Pod", "d", json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec})).await;
    }

    /// Waits until a pod is as it should be; `None` for one that is gone.
    async fn until(&self, name: &str, want: impl Fn(Option<&Value>) -> bool) {
        let mut changes = self.pods.subscribe();
        loop {
            let pod = self.pods.get(&format!("d/{name}"));
            let pod: Option<Value> = pod.map(|p| serde_json::from_slice(p.bytes()).unwrap());
            if want(pod.as_ref()) {
                return;
            }
            changes.next().await.unwrap();
        }
    }

    async fn on(&self, name: &str, node: &str) {
        self.until(name, |p| p.is_some_and(|p| p["spec"]["nodeName"] == node)).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test]
async fn binds_and_says_why_not() {
    let w = World::start(Config::default());
    w.node("n", "1").await;
    w.pod("a", &json!({}), "1").await;
    w.on("a", "n").await;
    w.pod("b", &json!({}), "2").await;
    let want = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
                available: 1 Preemption is not helpful for scheduling.";
    w.until("b", |p| {
        let conditions = p.and_then(|p| p["status"]["conditions"].as_array());
        conditions.into_iter().flatten().any(|c| {
            c["type"] == "PodScheduled"
                && c["status"] == "False"
                && c["reason"] == "Unschedulable"
                && c["message"] == want
        })
    })
    .await;
    // A node that fits ends the wait.
    w.node("m", "2").await;
    w.on("b", "m").await;
}

#[tokio::test]
async fn makes_room() {
    let w = World::start(Config::default());
    w.node("n", "1").await;
    w.pod("low", &json!({"priority": 1}), "1").await;
    w.on("low", "n").await;
    w.pod("vip", &json!({"priority": 10}), "1").await;
    w.until("low", |p| p.is_none_or(|p| !p["metadata"]["deletionTimestamp"].is_null())).await;
    w.until("vip", |p| p.is_some_and(|p| p["status"]["nominatedNodeName"] == "n" || p["spec"]["nodeName"] == "n"))
        .await;
    w.on("vip", "n").await;
}

#[tokio::test]
async fn a_gang_is_bound_at_once_and_its_group_is_told() {
    let gates = FeatureGates::parse("GenericWorkload=true,GangScheduling=true").unwrap();
    let w = World::start(Config::with(&gates));
    w.node("n", "2").await;
    let member = json!({"schedulingGroup": {"podGroupName": "g"}});
    let groups = by_resource(POD_GROUPS.0, POD_GROUPS.1, POD_GROUPS.2).unwrap();
    w.pod("a", &member, "1").await;
    let group = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
        "metadata": {"name": "g", "namespace": "d"}, "spec": {"schedulingPolicy": {"gang": {"minCount": 3}}}});
    let body = serde_json::to_vec(&group).unwrap().into();
    w.client.create(groups, "d", body, &WriteParams::default()).await.unwrap();
    let seen = (*w.informers.get(groups)).clone();
    let until = async |status: &str, reason: &str, message: &str| {
        let mut changes = seen.subscribe();
        loop {
            let group = seen.get("d/g").map(|g| serde_json::from_slice::<Value>(g.bytes()).unwrap());
            let condition = group.map(|g| g["status"]["conditions"][0].clone()).unwrap_or_default();
            if condition["status"] == status && condition["reason"] == reason && condition["message"] == message {
                assert_eq!(condition["type"], "PodGroupScheduled");
                assert!(condition["lastTransitionTime"].is_string());
                return;
            }
            changes.next().await.unwrap();
        }
    };
    w.pod("b", &member, "1").await;
    w.pod("c", &member, "1").await;
    until("False", "Unschedulable", "pod group is unschedulable").await;
    for pod in ["a", "b", "c"] {
        w.until(pod, |p| p.is_some_and(|p| p["spec"]["nodeName"].is_null())).await;
    }
    w.node("m", "1").await;
    for pod in ["a", "b", "c"] {
        w.until(pod, |p| p.is_some_and(|p| p["spec"]["nodeName"].is_string())).await;
    }
    until("True", "Scheduled", "").await;
}

#[tokio::test]
async fn serves_its_own_names_only() {
    let text = "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles: [{schedulerName: one}, {schedulerName: two, plugins: {filter: {disabled: [{name: NodeResourcesFit}]}}}]";
    let w = World::start(Config::parse(text, &FeatureGates::default()).unwrap());
    w.node("n", "1").await;
    w.pod("other", &json!({"schedulerName": "three"}), "1").await;
    w.pod("a", &json!({"schedulerName": "one"}), "1").await;
    w.on("a", "n").await;
    // The second profile does not look at room.
    w.pod("b", &json!({"schedulerName": "two"}), "4").await;
    w.on("b", "n").await;
    w.until("other", |p| p.is_some_and(|p| p["spec"]["nodeName"].is_null())).await;
}

#[tokio::test]
async fn who_holds_the_lease_schedules() {
    let mut config = Config::default();
    let lease = config.leader_election.as_mut().unwrap();
    lease.retry_period = Duration::from_millis(5);
    let w = World::idle();
    let start = |who: &'static str| {
        let (informers, stop) = (Informers::new(w.client.clone()), CancellationToken::new());
        let task = tokio::spawn(lead(w.client.clone(), informers, config.clone(), who, stop.clone()));
        (stop, task)
    };
    let leases = by_resource("coordination.k8s.io", "v1", "leases").unwrap();
    let holder = async || {
        let lease = w.client.get(leases, "kube-system", "kube-scheduler").await.unwrap();
        serde_json::from_slice::<Value>(lease.bytes()).unwrap()["spec"]["holderIdentity"].clone()
    };
    let (stop_a, a) = start("a");
    w.node("n", "4").await;
    w.pod("one", &json!({}), "1").await;
    w.on("one", "n").await;
    assert_eq!(holder().await, "a");
    let (stop_b, b) = start("b");
    stop_a.cancel();
    a.await.unwrap().unwrap();
    w.pod("two", &json!({}), "1").await;
    w.on("two", "n").await;
    assert_eq!(holder().await, "b");
    stop_b.cancel();
    b.await.unwrap().unwrap();

    // What cannot be used is told before anything is scheduled.
    let bad = "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
extenders: [{urlPrefix: 'https://h', tlsConfig: {caFile: /none}}]";
    let informers = Informers::new(w.client.clone());
    let ended = lead(
        w.client.clone(),
        informers,
        Config::parse(bad, &FeatureGates::default()).unwrap(),
        "c",
        CancellationToken::new(),
    )
    .await;
    assert!(ended.unwrap_err().starts_with("extender https://h: /none: "));
}
