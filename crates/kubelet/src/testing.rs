//! Fixtures for this crate's tests.

use crate::pod::state::RuntimeState;
use k8s_openapi::api::core::v1::Pod;
use pintle_runtime::*;

/// A pod from YAML; uid, name and namespace are filled in when they are missing.
pub fn pod(yaml: &str) -> Pod {
    let mut p: Pod = serde_saphyr::from_str(yaml).unwrap();
    p.metadata.name.get_or_insert_with(|| "p".into());
    p.metadata.namespace.get_or_insert_with(|| "ns".into());
    p.metadata.uid.get_or_insert_with(|| "uid-1".into());
    p
}

/// A moment `secs` after some beginning.
pub fn at(secs: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_700_000_000 + secs).unwrap()
}

/// A ready sandbox with an address.
pub fn sandbox(attempt: u32) -> SandboxStatus {
    SandboxStatus {
        id: format!("sandbox-{attempt}"),
        metadata: SandboxMetadata { name: "p".into(), uid: "uid-1".into(), namespace: "ns".into(), attempt },
        state: SandboxState::Ready,
        created_at: 1_700_000_000_000_000_000 + i64::from(attempt),
        ips: vec![[10, 0, 0, 5].into()],
        ..Default::default()
    }
}

/// A container `name` with id `name-0` in the given state: `created`, `running`, `unknown` or `exit N`.
pub fn container(name: &str, state: &str) -> ContainerStatus {
    let began = 1_700_000_000_000_000_000;
    let mut c = ContainerStatus {
        id: format!("{name}-0"),
        sandbox_id: "sandbox-0".into(),
        metadata: ContainerMetadata { name: name.into(), attempt: 0 },
        created_at: began,
        ..Default::default()
    };
    c.state = match state.split(' ').collect::<Vec<_>>()[..] {
        ["created"] => ContainerState::Created,
        ["running"] => ContainerState::Running,
        ["unknown"] => ContainerState::Unknown,
        ["exit", code] => {
            c.exit_code = code.parse().unwrap();
            c.finished_at = began + 2_000_000_000;
            c.reason = if c.exit_code == 0 { "Completed".into() } else { "Error".into() };
            ContainerState::Exited
        }
        _ => panic!("{state}"),
    };
    if c.state != ContainerState::Created {
        c.started_at = began + 1_000_000_000;
    }
    c
}

/// A state of these sandboxes and containers.
pub fn state(sandboxes: &[SandboxStatus], containers: &[ContainerStatus]) -> RuntimeState {
    RuntimeState::new(sandboxes.to_vec(), containers.to_vec())
}
