//! Cluster IPs and node ports of services: taken before a service is written, given back when it goes.

use std::sync::{Arc, OnceLock, Weak};

use futures::StreamExt;
use pintle_api::Status;
use pintle_api::object::{EventType, WatchEvent};
use serde_json::{Value, json};

use super::create::Write;
use super::options::{DeleteOptions, WriteOptions, causes};
use super::watch::{self, News};
use super::{Res, meta};
use crate::Server;
use crate::http::context::Ctx;
use crate::kinds::core::service::alloc::{AddressObjects, AllocError, BoxFuture, Reservation};

const GROUP: &str = "networking.k8s.io";

/// Writes `IPAddress` objects through the server that gives out the addresses.
#[derive(Clone, Default)]
pub(crate) struct Addresses(Arc<OnceLock<Weak<Server>>>);

impl Addresses {
    /// Says which server.
    pub(crate) fn attach(&self, server: &Arc<Server>) {
        // Set once, when the server is made.
        let _ = self.0.set(Arc::downgrade(server));
    }

    fn server(&self) -> Result<Arc<Server>, String> {
        self.0.get().and_then(Weak::upgrade).ok_or_else(|| "the server has gone".to_owned())
    }
}

impl AddressObjects for Addresses {
    fn create(&self, object: Value) -> BoxFuture<'_, Result<bool, String>> {
        Box::pin(async move {
            let server = self.server()?;
            let res = server.registry.must(GROUP, "v1", "ipaddresses").map_err(|e| e.message)?;
            let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
            let w = Write { ctx: &ctx, res, namespace: "", subresource: "", options: &options };
            match server.create(&w, object).await {
                Ok(_) => Ok(true),
                Err(e) if e.is("AlreadyExists") => Ok(false),
                Err(e) => Err(e.message),
            }
        })
    }

    fn delete(&self, name: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let server = self.server()?;
            let res = server.registry.must(GROUP, "v1", "ipaddresses").map_err(|e| e.message)?;
            let (ctx, options) = (Ctx::loopback(), WriteOptions::internal());
            let w = Write { ctx: &ctx, res, namespace: "", subresource: "", options: &options };
            match server.delete(&w, &name, &DeleteOptions::default()).await {
                Ok(_) => Ok(()),
                Err(e) if e.is("NotFound") => Ok(()),
                Err(e) => Err(e.message),
            }
        })
    }
}

fn is_service(res: &Res) -> bool {
    res.def.group.is_empty() && res.def.resource == "services"
}

fn status(e: AllocError, name: &str) -> Status {
    match e {
        AllocError::Invalid(errors) => Status::invalid("", "Service", name, causes(&errors)),
        AllocError::Internal(text) => Status::internal(text),
    }
}

impl Server {
    /// Takes what a new service needs, or what a changed one needs more.
    ///
    /// # Errors
    /// 422 for an address or port that cannot be had, 500 when none is left.
    pub(crate) async fn reserve(
        &self,
        res: &Res,
        new: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Option<Reservation>, Status> {
        if !is_service(res) {
            return Ok(None);
        }
        let name = meta::name(new).to_owned();
        let taken = match old {
            None => self.services.begin_create(new, dry_run).await,
            Some(old) => self.services.begin_update(new, old, dry_run).await,
        };
        taken.map(Some).map_err(|e| status(e, &name))
    }

    /// Ends a reservation.
    pub(crate) async fn settle(&self, reservation: Option<Reservation>, stored: bool) {
        if let Some(r) = reservation
            && let Err(e) = self.services.finish(r, stored).await
        {
            tracing::warn!("giving back an address failed: {e}");
        }
    }

    /// What a kind leaves behind elsewhere when it is gone.
    pub(crate) async fn after_delete(&self, res: &Res, object: &Value) {
        if is_service(res)
            && let Err(e) = self.services.deleted(object).await
        {
            tracing::warn!("giving back an address failed: {e}");
        }
    }
}

/// Learns what the services there are hold, mends what is recorded of it, and follows the networks that are added and
/// the addresses that other servers give out.
///
/// # Errors
/// When the store fails.
pub(crate) async fn start(server: &Arc<Server>) -> Result<(), Status> {
    let services = server.registry.must("", "v1", "services")?;
    for service in services.objects()?.fresh().await?.iter("") {
        server.services.observe(&service.view().map_err(Status::internal)?);
    }
    for address in server.registry.must(GROUP, "v1", "ipaddresses")?.objects()?.fresh().await?.iter("") {
        server.services.observe_address(address.name());
    }
    super::repair::start(server).await?;
    follow(server, "servicecidrs", |server, event| Box::pin(network(server, event))).await?;
    if server.config.store.local_revision().is_none() {
        // Where no other server is, none gives out addresses.
        follow(server, "ipaddresses", |server, event| {
            match event.kind {
                EventType::Deleted => server.services.forget_address(event.object.name()),
                _ => server.services.observe_address(event.object.name()),
            }
            Box::pin(std::future::ready(()))
        })
        .await?;
    }
    Ok(())
}

/// Takes up or gives up a network.
async fn network(server: &Server, event: WatchEvent) {
    let Ok(object) = event.object.view::<Value>() else { return };
    let ready = event.kind != EventType::Deleted
        && !event.object.is_deleting()
        && object
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    let own = event.object.name() == "kubernetes";
    for cidr in meta::strings(object.pointer("/spec/cidrs")) {
        if ready {
            if server.services.add_prefix(&cidr) {
                observe_all(server).await;
            }
        } else if !own {
            server.services.remove_prefix(&cidr);
        }
    }
}

/// Calls `each` with every object of a resource, and with every change from then on.
async fn follow(
    server: &Arc<Server>,
    resource: &str,
    each: for<'a> fn(&'a Server, WatchEvent) -> BoxFuture<'a, ()>,
) -> Result<(), Status> {
    let mut news = watch::keep_following(server, server.registry.must(GROUP, "v1", resource)?).await?;
    let server = Arc::clone(server);
    tokio::spawn(async move {
        while let Some(news) = news.next().await {
            if let News::Event(event) = news {
                each(&server, event).await;
            }
        }
    });
    Ok(())
}

async fn observe_all(server: &Server) {
    let Ok(res) = server.registry.must("", "v1", "services") else { return };
    let Ok(objects) = res.objects() else { return };
    let Ok(all) = objects.fresh().await else { return };
    for service in all.iter("") {
        server.services.observe(&service.view().unwrap_or_else(|_| json!({})));
    }
}
