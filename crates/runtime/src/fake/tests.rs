use super::*;
use std::time::Duration;

async fn pod(rt: &FakeRuntime, container: &str) -> (String, String) {
    let sandbox =
        SandboxConfig { metadata: SandboxMetadata { name: "p".into(), ..Default::default() }, ..Default::default() };
    let sid = rt.run_pod_sandbox(&sandbox).await.unwrap();
    rt.pull_image("busybox", None).await.unwrap();
    let config = ContainerConfig {
        metadata: ContainerMetadata { name: container.into(), attempt: 0 },
        image: "busybox".into(),
        ..Default::default()
    };
    let cid = rt.create_container(&sid, &config, &sandbox).await.unwrap();
    (sid, cid)
}

#[tokio::test]
async fn life_of_a_container() {
    let rt = FakeRuntime::new();
    let mut events = rt.events();
    let (sid, cid) = pod(&rt, "c").await;
    rt.start_container(&cid).await.unwrap();
    assert_eq!(rt.container_status(&cid).await.unwrap().state, ContainerState::Running);
    rt.oom(&cid);
    let status = rt.container_status(&cid[..12]).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    rt.remove_pod_sandbox(&sid).await.unwrap();
    let mut kinds = vec![];
    while kinds.last() != Some(&EventKind::SandboxRemoved) {
        kinds.push(events.next().await.unwrap().kind);
    }
    assert_eq!(
        kinds,
        [
            EventKind::SandboxReady,
            EventKind::ContainerCreated,
            EventKind::ContainerStarted,
            EventKind::ContainerOom,
            EventKind::ContainerExited { exit_code: 137, reason: "OOMKilled".into() },
            EventKind::SandboxGone,
            EventKind::SandboxRemoved,
        ]
    );
    assert!(rt.container_status(&cid).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn scripts() {
    let rt = FakeRuntime::new();
    rt.fail_next("start_container", Error::unknown("no"));
    rt.exit_on_start("c", 3);
    rt.pull_error("nope", Some(Error::not_found("not found")));
    assert!(rt.pull_image("docker.io/library/nope:latest", None).await.unwrap_err().is_not_found());
    let (_, cid) = pod(&rt, "c").await;
    assert_eq!(rt.start_container(&cid).await.unwrap_err(), Error::unknown("no"));
    rt.start_container(&cid).await.unwrap();
    assert_eq!(rt.find("p", "c").unwrap().exit_code, 3);
    assert!(rt.calls().contains(&format!("start_container {cid}")));
}

#[tokio::test(start_paused = true)]
async fn slow_pulls_and_stubborn_containers() {
    let rt = FakeRuntime::new();
    rt.hold_pulls("slow");
    let pull = tokio::spawn({
        let rt = rt.clone();
        async move { rt.pull_image("slow", None).await }
    });
    rt.wait(|rt| rt.calls().contains(&"pull_image slow".to_string()).then_some(())).await;
    assert!(!pull.is_finished());
    rt.release_pulls("slow");
    pull.await.unwrap().unwrap();

    rt.on_stop("c", OnStop::Ignore);
    let (_, cid) = pod(&rt, "c").await;
    rt.start_container(&cid).await.unwrap();
    rt.stop_container(&cid, Duration::from_secs(30)).await.unwrap();
    assert_eq!(rt.container_status(&cid).await.unwrap().exit_code, 137);
}
