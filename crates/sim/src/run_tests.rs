use super::*;
use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node as TypedNode, Pod as TypedPod};
use pintle_api::service::UserInfo;
use pintle_client::testing::FakeApi;
use serde_json::json;

fn config() -> Config {
    Config {
        nodes: 3,
        group: "sim".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        taints: Vec::new(),
        zones: 0,
        capacity: [("cpu".into(), "4".into())].into(),
        node_addresses: "198.18.0.0/15".parse().unwrap(),
        pod_addresses: "100.64.0.0/10".parse().unwrap(),
        rules: rules::Rules { start_delay: Duration::ZERO, job_runs_for: Duration::from_secs(1) },
        lease_duration: Duration::from_secs(40),
        status_interval: Duration::from_secs(300),
        concurrency: 2,
        remove: true,
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_live_have_pods_and_go() {
    let client = Client::in_process(FakeApi::new().service(), UserInfo::default());
    let clock = Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap());
    let (stop, (tell, ready)) = (CancellationToken::new(), tokio::sync::oneshot::channel());
    let told = |n| assert_eq!(tell.send(n), Ok(()));
    let simulated = tokio::spawn(run(client.clone(), config(), clock.clone(), stop.clone(), told));
    assert_eq!(ready.await, Ok(3));

    let informers = Informers::new(client.clone());
    let pods = informers.of::<TypedPod>();
    let mut changes = pods.subscribe();
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "sim-1", "containers": [{"name": "c", "image": "x"}]}});
    client.of::<TypedPod>().create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    let running = loop {
        let pod: TypedPod = changes.next().await.unwrap().last().view().unwrap();
        if let Some(status) = pod.status.filter(|s| s.phase.as_deref() == Some("Running")) {
            break status;
        }
    };
    let node = client.of::<TypedNode>().get("", "sim-1").await.unwrap();
    let addresses = node.status.unwrap().addresses.unwrap();
    assert_eq!((running.pod_ip.as_deref(), running.host_ip), (Some("100.64.0.1"), Some(addresses[0].address.clone())));

    tokio::time::sleep(Duration::from_secs(100)).await;
    for i in 0..3 {
        let lease = client.of::<Lease>().get("kube-node-lease", &format!("sim-{i}")).await.unwrap();
        let renewed = lease.spec.unwrap().renew_time.unwrap().0;
        let age = pintle_client::clock::since(renewed, clock.now());
        assert!(age <= Duration::from_millis(10_500), "sim-{i}: {age:?}");
    }
    stop.cancel();
    simulated.await.unwrap().unwrap();
    assert_eq!(client.of::<TypedNode>().get_opt("", "sim-1").await.unwrap(), None);
}
