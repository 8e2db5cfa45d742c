//! Following objects the server itself decides by.

use std::sync::Arc;

use futures::StreamExt;
use pintle_api::Status;
use pintle_api::object::EventType;

use crate::Server;
use crate::authz::rbac::Kind;
use crate::registry::watch::{self, News};

/// Keeps the index of roles and bindings.
pub(crate) async fn rbac(server: &Arc<Server>) -> Result<(), Status> {
    for (resource, kind) in [
        ("roles", Kind::Role),
        ("clusterroles", Kind::ClusterRole),
        ("rolebindings", Kind::RoleBinding),
        ("clusterrolebindings", Kind::ClusterRoleBinding),
    ] {
        let Some(res) = server.registry.get("rbac.authorization.k8s.io", "v1", resource) else { continue };
        let mut news = watch::keep_following(server, res).await?;
        // The state first, before requests are judged by it.
        while let Some(one) = news.next().await {
            if matches!(one, News::Complete) {
                break;
            }
            note(server, kind, one);
        }
        let server = Arc::clone(server);
        tokio::spawn(async move {
            while let Some(one) = news.next().await {
                note(&server, kind, one);
            }
        });
    }
    Ok(())
}

fn note(server: &Server, kind: Kind, news: News) {
    match news {
        News::Event(e) => {
            let gone = e.kind == EventType::Deleted;
            server.rbac.put(kind, &e.object.key(), (!gone).then_some(e.object));
        }
        News::Complete => {}
        // Objects that went meanwhile would stay.
        News::Anew => server.rbac.clear(kind),
    }
}
