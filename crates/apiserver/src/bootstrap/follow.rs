//! Following objects the server itself decides by.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use pintle_api::Status;
use pintle_api::object::EventType;

use crate::Server;
use crate::authz::rbac::Kind;
use crate::registry::watch;

/// Keeps the index of roles and bindings.
pub(crate) async fn rbac(server: &Arc<Server>) -> Result<(), Status> {
    for (resource, kind) in [
        ("roles", Kind::Role),
        ("clusterroles", Kind::ClusterRole),
        ("rolebindings", Kind::RoleBinding),
        ("clusterrolebindings", Kind::ClusterRoleBinding),
    ] {
        let Some(res) = server.registry.get("rbac.authorization.k8s.io", "v1", resource).cloned() else { continue };
        let mut events = watch::follow(&res).await?;
        // The state first, before requests are judged by it.
        while let Some(event) = events.next().await {
            let event = event?;
            if event.kind == EventType::Bookmark {
                break;
            }
            server.rbac.put(kind, &event.object.key(), Some(event.object));
        }
        let server = Arc::clone(server);
        tokio::spawn(async move {
            loop {
                loop {
                    let next = tokio::select! {
                        n = events.next() => n,
                        () = server.stopping.cancelled() => return,
                    };
                    match next {
                        Some(Ok(e)) if e.kind == EventType::Bookmark => {}
                        Some(Ok(e)) => {
                            let gone = e.kind == EventType::Deleted;
                            server.rbac.put(kind, &e.object.key(), (!gone).then_some(e.object));
                        }
                        Some(Err(e)) => {
                            tracing::warn!(resource, "watch failed: {e}");
                            break;
                        }
                        None => break,
                    }
                }
                // Begin anew; objects that went meanwhile would stay, so the index is emptied first.
                match watch::follow(&res).await {
                    Ok(new) => {
                        server.rbac.clear(kind);
                        events = new;
                    }
                    Err(e) => {
                        tracing::warn!(resource, "watch failed: {e}");
                        tokio::select! {
                            () = tokio::time::sleep(Duration::from_secs(1)) => {}
                            () = server.stopping.cancelled() => return,
                        }
                    }
                }
            }
        });
    }
    Ok(())
}
