//! Keeps services and the records of their ports and addresses in agreement, and tells by Events where they were not.

use std::sync::Arc;
use std::time::Duration;

use pintle_api::{Status, time};
use serde_json::{Value, json};

use super::create::Write;
use super::meta;
use super::options::WriteOptions;
use super::update::Change;
use crate::Server;
use crate::http::context::Ctx;
use crate::kinds::core::service::alloc::AddressObjects;
use crate::kinds::core::service::repair::{self, Leaks, Mend, Note};

const INTERVAL: Duration = Duration::from_secs(180);
const PORTS: &str = "portallocator-repair-controller";
const ADDRESSES: &str = "ipallocator-repair-controller";

/// Repairs now, and from now on whenever there may be something to repair.
///
/// # Errors
/// When the store fails.
pub(super) async fn start(server: &Arc<Server>) -> Result<(), Status> {
    let mut leaks = Leaks::new();
    // The first time nobody is told: where nothing was recorded yet all there is would be missing.
    let mut seen = once(server, &mut leaks, false).await?;
    let server = Arc::clone(server);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = server.stopping.cancelled() => return,
            }
            match look(&server).await {
                // A cluster at rest is left so.
                Ok(now) if now == seen && leaks.is_empty() => continue,
                _ => {}
            }
            match once(&server, &mut leaks, true).await {
                Ok(now) => seen = now,
                Err(e) => tracing::warn!("repairing the addresses and ports of services failed: {}", e.message),
            }
        }
    });
    Ok(())
}

/// What tells whether anything changed: the objects there are, by number and revision.
type Seen = [(usize, u64); 2];

async fn objects(server: &Server, group: &str, resource: &str) -> Result<crate::cache::Snapshot, Status> {
    server.registry.must(group, "v1", resource)?.objects()?.fresh().await
}

fn summary(snapshot: &crate::cache::Snapshot) -> (usize, u64) {
    (snapshot.len(), snapshot.iter("").map(|o| o.resource_version()).max().unwrap_or(0))
}

async fn look(server: &Server) -> Result<Seen, Status> {
    let services = objects(server, "", "services").await?;
    let addresses = objects(server, "networking.k8s.io", "ipaddresses").await?;
    Ok([summary(&services), summary(&addresses)])
}

fn views(snapshot: &crate::cache::Snapshot) -> Result<Vec<Value>, Status> {
    snapshot.iter("").map(|o| o.view().map_err(Status::internal)).collect()
}

async fn once(server: &Arc<Server>, leaks: &mut Leaks, tell: bool) -> Result<Seen, Status> {
    // A port is recorded before its service is written, and freed after it is gone: read in this order no service
    // is taken for one whose port was not recorded, unless it is just being deleted; that is found out the next times.
    let node_ports = server.services.node_ports();
    let before = node_ports.look().await.map_err(Status::internal)?;
    let addresses = objects(server, "networking.k8s.io", "ipaddresses").await?;
    let services = objects(server, "", "services").await?;
    let seen = [summary(&services), summary(&addresses)];
    let (services, addresses) = (views(&services)?, views(&addresses)?);
    let (ports, mut told) = repair::ports(node_ports.bounds(), &before.ports, &services, leaks);
    if !node_ports.replace(&before, &ports).await.map_err(Status::internal)? {
        // Another server was faster; the next time will do.
        told.clear();
    }
    let in_network = |ip| server.services.has_network_of(ip);
    let (mends, notes) = repair::addresses(&services, &addresses, in_network, server.clock.now());
    for mend in mends {
        let done = match mend {
            Mend::Put(object) => {
                let name = meta::name(&object).to_owned();
                match server.addresses.delete(name).await {
                    Ok(()) => server.addresses.create(object).await.map(drop),
                    Err(e) => Err(e),
                }
            }
            Mend::Delete(name) => server.addresses.delete(name).await,
        };
        if let Err(e) = done {
            tracing::warn!("repairing an address failed: {e}");
        }
    }
    if tell {
        for (controller, note) in told.iter().map(|n| (PORTS, n)).chain(notes.iter().map(|n| (ADDRESSES, n))) {
            if let Err(e) = event(server, controller, note).await {
                tracing::warn!(reason = note.reason, "an event could not be written: {}", e.message);
            }
        }
    }
    Ok(seen)
}

/// Writes a note as an Event; what was told before is counted.
async fn event(server: &Server, controller: &str, note: &Note<'_>) -> Result<(), Status> {
    use sha2::Digest;
    let res = server.registry.must("", "v1", "events")?;
    let now = server.clock.now();
    let about = note.about;
    let digest = hex::encode(sha2::Sha256::digest(format!("{controller} {} {}", note.reason, note.message)));
    let name = format!("{}.{}", meta::name(about), &digest[..16]);
    let namespace = Some(meta::namespace(about)).filter(|n| !n.is_empty()).unwrap_or("default");
    let mut object = json!({"kind": "Event", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"kind": about["kind"], "apiVersion": about["apiVersion"], "name": meta::name(about),
            "namespace": meta::namespace(about), "uid": meta::get(about, "uid"),
            "resourceVersion": meta::get(about, "resourceVersion")},
        "reason": note.reason, "message": note.message, "type": "Warning"});
    if note.action.is_empty() {
        object["source"] = json!({"component": controller});
        object["reportingComponent"] = controller.into();
        object["reportingInstance"] = "".into();
        object["count"] = 1.into();
        object["firstTimestamp"] = time::format(now).into();
        object["lastTimestamp"] = time::format(now).into();
    } else {
        object["action"] = note.action.into();
        object["reportingComponent"] = controller.into();
        object["reportingInstance"] = controller.into();
        object["eventTime"] = time::format_micro(now).into();
    }
    res.default(&mut object);
    let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
    let w = Write { ctx: &ctx, res, namespace, subresource: "", options: &options };
    let mut make = |present: Option<&Value>| {
        let Some(present) = present else { return Ok(object.clone()) };
        let mut new = present.clone();
        if note.action.is_empty() {
            new["count"] = (present["count"].as_i64().unwrap_or(0) + 1).into();
            new["lastTimestamp"] = time::format(now).into();
        } else {
            let count = present.pointer("/series/count").and_then(Value::as_i64).unwrap_or(1);
            new["series"] = json!({"count": count + 1, "lastObservedTime": time::format_micro(now)});
        }
        Ok(new)
    };
    server.update(&w, &mut Change { name: &name, allow_create: true, uid: None, make: &mut make }).await.map(drop)
}
