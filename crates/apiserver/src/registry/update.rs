//! Changing an object: PUT and PATCH, of the object or a sub-resource.

use std::sync::Arc;

use pintle_api::Status;
use pintle_api::object::Object;
use pintle_schema::cursor::Cursor;
use pintle_schema::errors::Errors;
use pintle_schema::quote::quoted;
use serde_json::Value;

use super::create::{Write, check_size, dedup_owners, ensure_namespace};
use super::meta;
use super::options::WriteOptions;
use super::storage::Lost;
use crate::Server;
use crate::admission::Operation;

/// How often a change is made anew on a newer state before giving up.
const ATTEMPTS: usize = 50;

/// What an update needs beyond the write itself.
pub(crate) struct Change<'a> {
    /// Name of the object.
    pub(crate) name: &'a str,
    /// The object may be created when it is not there.
    pub(crate) allow_create: bool,
    /// The uid the object must have.
    pub(crate) uid: Option<String>,
    /// Makes the new state from the present one (with its resourceVersion), `None` when there is none.
    pub(crate) make: &'a mut (dyn FnMut(Option<&Value>) -> Result<Value, Status> + Send),
}

/// The finalizers that a deletion waits for.
fn has_finalizers(res: &super::Res, object: &Value) -> bool {
    !meta::finalizers(object).is_empty()
        || (res.def.group.is_empty()
            && res.def.resource == "namespaces"
            && object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty()))
}

impl Server {
    /// Changes an object; answers the new state and whether it was created.
    ///
    /// # Errors
    /// 404, 409 and whatever is wrong with the new state.
    pub(crate) async fn update(&self, w: &Write<'_>, change: &mut Change<'_>) -> Result<(Arc<Object>, bool), Status> {
        let res = w.res;
        let objects = res.objects()?;
        let namespace = if res.def.namespaced { w.namespace } else { "" };
        let mut existing = objects.get(namespace, change.name).await?;
        for _ in 0..ATTEMPTS {
            let Some(present) = existing else {
                if !change.allow_create {
                    return Err(res.not_found(change.name));
                }
                if let Some(uid) = &change.uid {
                    return Err(uid_mismatch(res, &objects.key(namespace, change.name), change.name, uid, ""));
                }
                match self.create_by_update(w, change).await {
                    Err(e) if e.is("AlreadyExists") => {
                        existing = objects.get(namespace, change.name).await?;
                        continue;
                    }
                    other => return other.map(|o| (o, true)),
                }
            };
            match self.update_once(w, change, &present).await {
                Ok(done) => return Ok((done, false)),
                Err(Lost::Now(now)) => existing = now,
                Err(Lost::Error(e)) => return Err(e),
            }
        }
        Err(Status::modified(res.def.group, res.def.resource, change.name))
    }

    async fn create_by_update(&self, w: &Write<'_>, change: &mut Change<'_>) -> Result<Arc<Object>, Status> {
        let mut object = (change.make)(None)?;
        if meta::name(&object) != change.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                meta::name(&object),
                change.name
            )));
        }
        if !meta::get(&object, "uid").is_empty() {
            return Err(Status::conflict(
                w.res.def.group,
                w.res.def.resource,
                change.name,
                &format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    meta::get(&object, "uid")
                ),
            ));
        }
        // Whoever may update may not create for that.
        self.authorize_verb(w.ctx, "create", w.res.def, w.subresource, w.namespace, change.name).await?;
        meta::remove(&mut object, "resourceVersion");
        self.create(w, object).await
    }

    async fn update_once(
        &self,
        w: &Write<'_>,
        change: &mut Change<'_>,
        present: &Arc<Object>,
    ) -> Result<Arc<Object>, Lost> {
        let res = w.res;
        let objects = res.objects().map_err(Lost::Error)?;
        let namespace = if res.def.namespaced { w.namespace } else { "" };
        if let Some(uid) = &change.uid
            && uid != present.uid()
        {
            let key = objects.key(namespace, change.name);
            return Err(Lost::Error(uid_mismatch(res, &key, change.name, uid, present.uid())));
        }
        let old: Value = present.view().map_err(|e| Lost::Error(Status::internal(e)))?;
        let mut new = (change.make)(Some(&old)).map_err(Lost::Error)?;
        ensure_namespace(&mut new, res, w.namespace).map_err(Lost::Error)?;
        if meta::name(&new) != change.name {
            return Err(Lost::Error(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                meta::name(&new),
                change.name
            ))));
        }
        dedup_owners(w.ctx, &mut new, false);
        self.track(w, Some(&old), &mut new);
        let a = w.attributes(Operation::Update, change.name, Some(&old));
        self.admission.admit(self, &a, &mut new).await.map_err(Lost::Error)?;
        dedup_owners(w.ctx, &mut new, true);

        // The version the caller saw.
        match meta::version(&new) {
            Ok(Some(v)) if v == present.resource_version() => {}
            Ok(Some(v)) if v != 0 => {
                return Err(Lost::Error(Status::modified(res.def.group, res.def.resource, change.name)));
            }
            Ok(_) if res.strategy.unconditional_update => {}
            Ok(_) => {
                let mut errors = Errors::new();
                errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update");
                return Err(Lost::Error(Status::invalid(
                    res.def.group,
                    res.def.resource,
                    change.name,
                    super::options::causes(&errors),
                )));
            }
            Err(text) => {
                let mut errors = Errors::new();
                errors.invalid_value(
                    "metadata.resourceVersion",
                    text.as_str(),
                    format!("strconv.ParseUint: parsing {}: invalid syntax", quoted(&text)),
                );
                return Err(Lost::Error(Status::invalid(
                    res.def.group,
                    res.def.resource,
                    change.name,
                    super::options::causes(&errors),
                )));
            }
        }
        meta::set(&mut new, "resourceVersion", present.resource_version().to_string());

        let reservation = match w.subresource {
            "" => self.reserve(res, &mut new, Some(&old), w.options.dry_run).await.map_err(Lost::Error)?,
            _ => None,
        };
        let done = self.update_reserved(w, change.name, present, &old, new).await;
        self.settle(reservation, done.is_ok()).await;
        done
    }

    /// Everything after mutating admission.
    async fn update_reserved(
        &self,
        w: &Write<'_>,
        name: &str,
        present: &Arc<Object>,
        old: &Value,
        mut new: Value,
    ) -> Result<Arc<Object>, Lost> {
        let res = w.res;
        let objects = res.objects().map_err(Lost::Error)?;
        let namespace = if res.def.namespaced { w.namespace } else { "" };
        let a = w.attributes(Operation::Update, name, Some(old));
        let now = self.clock.now();
        let ctx = res.strategy_ctx(namespace, &w.ctx.user, now);
        let sub = match w.subresource {
            "" => None,
            name => res.strategy.subresource(name),
        };
        match sub {
            Some(sub) => sub.prepare_update(&ctx, &mut new, old),
            None => res.strategy.prepare_update(&ctx, &mut new, old),
        }
        keep_system_fields(&mut new, old);
        let mut errors = Errors::new();
        {
            let (n, o) = (Cursor::root(&new), Cursor::root(old));
            match sub {
                Some(sub) => sub.validate_update(&ctx, &n, &o, &mut errors),
                None => {
                    res.strategy.validate_update(&ctx, &n, &o, &mut errors);
                }
            }
            w.check(name, &errors).map_err(Lost::Error)?;
            if sub.is_none() {
                for text in (res.strategy.warnings)(&ctx, &n, Some(&o)) {
                    w.ctx.warn(text);
                }
            }
        }
        self.admission.validate(self, &a, &new).await.map_err(Lost::Error)?;

        let goes = meta::has(old, "deletionTimestamp")
            && !has_finalizers(res, &new)
            && meta::int(old, "deletionGracePeriodSeconds").unwrap_or(0) == 0;
        super::managed::keep_times(&mut new, old);
        meta::remove(&mut new, "resourceVersion");
        let bytes = res.encode(&new);
        check_size(bytes.len()).map_err(Lost::Error)?;
        let as_now = || {
            let object = Object::from_stored(&bytes, present.resource_version(), res.strategy.selectable);
            object.map(Arc::new).map_err(|e| Lost::Error(Status::internal(e)))
        };
        if goes {
            let gone = as_now()?;
            if !w.options.dry_run {
                objects.delete(namespace, name, present.resource_version()).await?;
                self.after_delete(res, old).await;
            }
            return Ok(gone);
        }
        if present.is_stored_as(&bytes) {
            return Ok(Arc::clone(present));
        }
        if w.options.dry_run {
            return as_now();
        }
        objects.update(namespace, name, present.resource_version(), bytes, w.ttl(self)).await
    }
}

impl Server {
    /// Changes a stored object past admission and strategy: for sub-resources that touch one field.
    ///
    /// # Errors
    /// 404, what `change` answers, and the store's.
    pub(crate) async fn modify(
        &self,
        res: &super::Res,
        namespace: &str,
        name: &str,
        dry_run: bool,
        change: &mut (dyn FnMut(&mut Value) -> Result<(), Status> + Send),
    ) -> Result<Arc<Object>, Status> {
        let objects = res.objects()?;
        let mut existing = objects.get(namespace, name).await?;
        for _ in 0..ATTEMPTS {
            let Some(present) = existing else { return Err(res.not_found(name)) };
            let mut object: Value = present.view().map_err(Status::internal)?;
            change(&mut object)?;
            meta::remove(&mut object, "resourceVersion");
            let bytes = res.encode(&object);
            check_size(bytes.len())?;
            if present.is_stored_as(&bytes) {
                return Ok(present);
            }
            if dry_run {
                let as_now = Object::from_stored(&bytes, present.resource_version(), res.strategy.selectable);
                return as_now.map(Arc::new).map_err(Status::internal);
            }
            match objects.update(namespace, name, present.resource_version(), bytes, None).await {
                Ok(updated) => return Ok(updated),
                Err(Lost::Now(now)) => existing = now,
                Err(Lost::Error(e)) => return Err(e),
            }
        }
        Err(Status::modified(res.def.group, res.def.resource, name))
    }
}

/// Puts back what no update changes.
fn keep_system_fields(new: &mut Value, old: &Value) {
    if meta::get(new, "uid").is_empty() {
        meta::set(new, "uid", meta::get(old, "uid"));
    }
    for key in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(v) = old.pointer(&format!("/metadata/{key}")).filter(|v| !v.is_null()) {
            meta::set(new, key, v.clone());
        }
    }
    if !meta::has(new, "deletionGracePeriodSeconds")
        && let Some(v) = meta::int(old, "deletionGracePeriodSeconds")
    {
        meta::set(new, "deletionGracePeriodSeconds", v);
    }
}

/// 409 about the uid that a write expects.
fn uid_mismatch(res: &super::Res, key: &str, name: &str, wanted: &str, have: &str) -> Status {
    Status::conflict(
        res.def.group,
        res.def.resource,
        name,
        &format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {have}"
        ),
    )
}

impl WriteOptions {
    /// Options of the server's own writes.
    pub(crate) fn internal() -> Self {
        Self { field_manager: "kube-apiserver".into(), ..Self::default() }
    }
}
