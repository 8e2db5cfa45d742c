//! Images from a registry that asks who one is.

use pintle_testkit::registry::USER;
use pintle_testkit::{Cluster, Registry, images, until};

use crate::PATIENCE;

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: c, image: \"{image}\", command: [echo, hello]}}\n{more}"
    )
}

#[test]
fn private_images_are_pulled_with_their_secret() {
    let cluster = Cluster::start();
    let registry = Registry::start_on(cluster.machine(), USER);
    let archive = images::busybox(cluster.scratch(), "busybox:latest");
    let digest = registry.put_archive("team/app", "v1", &archive);
    let name = format!("{}/team/app", registry.address);

    cluster.apply(&pod("stranger", &format!("{name}:v1"), ""));
    let said = until("stranger to be refused", PATIENCE, || {
        let said = cluster.kubectl(&["describe", "pod", "stranger"]).ok();
        if said.contains("ImagePullBackOff") { Ok(said) } else { Err(said) }
    });
    assert!(said.contains(&format!("Failed to pull image \"{name}:v1\"")), "{said}");

    let made = cluster.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "login",
        &format!("--docker-server={}", registry.address),
        "--docker-username=user",
        "--docker-password=secret",
    ]);
    assert_eq!(made.ok(), "secret/login created\n");
    let secret = "  imagePullSecrets: [{name: login}]\n";
    cluster.apply(&pod("tagged", &format!("{name}:v1"), secret));
    cluster.apply(&pod("pinned", &format!("{name}@{digest}"), secret));
    for pod in ["tagged", "pinned"] {
        let _ = cluster
            .kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", &format!("pod/{pod}"), "--timeout=60s"])
            .ok();
        assert_eq!(cluster.kubectl(&["logs", pod]).ok(), "hello\n");
        let id = cluster.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].imageID}"]).ok();
        assert_eq!(id, format!("{name}@{digest}"), "{pod}");
    }
}
