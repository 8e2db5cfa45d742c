//! Creating an object.

use std::sync::Arc;
use std::time::Duration;

use pintle_api::Status;
use pintle_api::object::Object;
use pintle_schema::cursor::Cursor;
use pintle_schema::errors::Errors;
use rand::RngExt;
use serde_json::Value;

use super::options::{WriteOptions, causes};
use super::storage::Lost;
use super::{Res, meta};
use crate::Server;
use crate::admission::{Attributes, Operation};
use crate::http::context::Ctx;

/// Largest stored object, as etcd limits it by default.
pub(crate) const MAX_OBJECT: usize = 3 * 512 * 1024;

/// How often a generated name is tried anew when it is taken.
const NAME_ATTEMPTS: usize = 8;

/// One write: who, what, where and how.
#[derive(Clone, Copy)]
pub(crate) struct Write<'a> {
    pub(crate) ctx: &'a Ctx,
    pub(crate) res: &'a Res,
    pub(crate) namespace: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) options: &'a WriteOptions,
}

impl<'a> Write<'a> {
    /// Its attributes for admission.
    pub(crate) fn attributes(&self, operation: Operation, name: &'a str, old: Option<&'a Value>) -> Attributes<'a> {
        Attributes {
            ctx: self.ctx,
            res: self.res,
            subresource: self.subresource,
            operation,
            namespace: self.namespace,
            name,
            old,
            dry_run: self.options.dry_run,
        }
    }

    /// 422 about the object, when there are errors.
    pub(crate) fn check(&self, name: &str, errors: &Errors) -> Result<(), Status> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(self.res.def.group, self.res.def.kind, name, causes(errors)))
    }

    /// How long an object of this resource lives by itself; only events do not live for ever.
    pub(crate) fn ttl(&self, server: &Server) -> Option<Duration> {
        (self.res.storage.resource == "events").then_some(server.config.event_ttl)
    }
}

/// Makes the object's namespace that of the request.
///
/// # Errors
/// 400 when the object names another.
pub(crate) fn ensure_namespace(object: &mut Value, res: &Res, namespace: &str) -> Result<(), Status> {
    let wanted = if res.def.namespaced { namespace } else { "" };
    let have = meta::namespace(object);
    if have == wanted {
        if wanted.is_empty() {
            meta::remove(object, "namespace");
        }
        return Ok(());
    }
    if wanted.is_empty() {
        meta::remove(object, "namespace");
    } else if have.is_empty() {
        meta::set(object, "namespace", wanted);
    } else {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

const DUPLICATE_OWNERS: &str = ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: ";
const DUPLICATE_OWNERS_AFTER: &str = ".metadata.ownerReferences contains duplicate entries after mutating admission happens; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: ";

/// Drops double owner references with a warning.
pub(crate) fn dedup_owners(ctx: &Ctx, object: &mut Value, after_admission: bool) {
    let dropped = meta::dedup_owner_references(object);
    if !dropped.is_empty() {
        let text = if after_admission { DUPLICATE_OWNERS_AFTER } else { DUPLICATE_OWNERS };
        ctx.warn(format!("{text}{}", dropped.join(", ")));
    }
}

/// A name that begins with `base`, cut so that five random characters fit.
pub(crate) fn generate_name(base: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut cut = base.len().min(58);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut rng = rand::rng();
    let mut name = base[..cut].to_owned();
    name.extend((0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])));
    name
}

/// When the object is over the limit: upstream hands on what its store says of it.
pub(crate) fn check_size(len: usize) -> Result<(), Status> {
    if len > MAX_OBJECT {
        return Err(Status::failure(500, "", "etcdserver: request is too large"));
    }
    Ok(())
}

impl Server {
    /// Creates an object, given decoded and defaulted in the stored version. `name` is that of the request's path, for
    /// the few that have one.
    ///
    /// # Errors
    /// Whatever is wrong with it or stands in its way.
    pub(crate) async fn create(&self, w: &Write<'_>, mut object: Value) -> Result<Arc<Object>, Status> {
        meta::wipe_system_fields(&mut object);
        ensure_namespace(&mut object, w.res, w.namespace)?;
        dedup_owners(w.ctx, &mut object, false);
        if let Some(record) = &w.ctx.audit {
            record.about(&object);
        }
        let asked = meta::name(&object).to_owned();
        let namespace =
            if w.res.def.group.is_empty() && w.res.def.resource == "namespaces" { &asked } else { w.namespace };
        let w = &Write { namespace, ..*w };
        self.track(w, None, &mut object);
        {
            let a = w.attributes(Operation::Create, &asked, None);
            self.admission.admit(self, &a, &mut object).await?;
        }
        dedup_owners(w.ctx, &mut object, true);
        let base = meta::get(&object, "generateName").to_owned();
        if !asked.is_empty() || base.is_empty() {
            return self.create_once(w, object).await;
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.create_once(w, object.clone()).await {
                Err(e) if e.is("AlreadyExists") && attempt < NAME_ATTEMPTS => {}
                other => return other,
            }
        }
    }

    /// Everything after mutating admission.
    pub(crate) async fn create_once(&self, w: &Write<'_>, mut object: Value) -> Result<Arc<Object>, Status> {
        let now = self.clock.now();
        let res = w.res;
        let base = meta::get(&object, "generateName").to_owned();
        let generated = meta::name(&object).is_empty() && !base.is_empty();
        if generated {
            meta::set(&mut object, "name", generate_name(&base));
        }
        if meta::has(&object, "resourceVersion") && !meta::get(&object, "resourceVersion").is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        meta::remove(&mut object, "resourceVersion");
        meta::set(&mut object, "uid", uuid::Uuid::new_v4().to_string());
        meta::set(&mut object, "creationTimestamp", pintle_api::time::format(now));
        let reservation = self.reserve(res, &mut object, None, w.options.dry_run).await?;
        let done = self.create_reserved(w, object, now, generated).await;
        self.settle(reservation, done.is_ok()).await;
        done
    }

    async fn create_reserved(
        &self,
        w: &Write<'_>,
        mut object: Value,
        now: jiff::Timestamp,
        generated: bool,
    ) -> Result<Arc<Object>, Status> {
        let res = w.res;
        let mut errors = Errors::new();
        let ctx = res.strategy_ctx(if res.def.namespaced { w.namespace } else { "" }, &w.ctx.user, now);
        res.strategy.prepare_create(&ctx, &mut object);
        ctx.notes.lock().drain(..).for_each(|text| w.ctx.warn(text));
        let name = meta::name(&object).to_owned();
        {
            let cursor = Cursor::root(&object);
            res.strategy.validate_create(&ctx, &cursor, &mut errors);
            w.check(&name, &errors)?;
            for text in (res.strategy.warnings)(&ctx, &cursor, None) {
                w.ctx.warn(text);
            }
        }
        self.admission.validate(self, &w.attributes(Operation::Create, &name, None), &object).await?;

        let bytes = res.encode(&object);
        check_size(bytes.len())?;
        let objects = res.objects()?;
        let namespace = if res.def.namespaced { w.namespace } else { "" };
        if w.options.dry_run {
            return match objects.get(namespace, &name).await? {
                Some(there) => Err(taken(res, &name, &there, generated)),
                None => Object::from_wire(bytes, res.strategy.selectable).map(Arc::new).map_err(Status::internal),
            };
        }
        match objects.create(namespace, &name, bytes, w.ttl(self)).await {
            Ok(created) => Ok(created),
            Err(Lost::Now(Some(there))) => Err(taken(res, &name, &there, generated)),
            Err(Lost::Now(None)) => Err(Status::already_exists(res.def.group, res.def.resource, &name)),
            Err(Lost::Error(e)) => Err(e),
        }
    }
}

fn taken(res: &Res, name: &str, there: &Object, generated: bool) -> Status {
    let mut s = Status::already_exists(res.def.group, res.def.resource, name);
    if generated {
        s.message = format!("{}, the server was not able to generate a unique name for the object", s.message);
        s = s.retry_after(1);
    }
    if there.is_deleting() {
        s.message = format!("object is being deleted: {}", s.message);
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let n = generate_name("abc-");
        assert!(n.starts_with("abc-") && n.len() == 9);
        assert_eq!(generate_name(&"x".repeat(100)).len(), 63);
        assert!(generate_name(&"é".repeat(40)).is_char_boundary(58));
    }
}
