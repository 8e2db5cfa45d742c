//! Deleting an object or a collection.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use pintle_api::Status;
use pintle_api::object::Object;
use pintle_api::time;
use serde_json::Value;

use super::create::Write;
use super::list::list;
use super::options::{DeleteOptions, ListOptions, Propagation};
use super::storage::Lost;
use super::{Res, meta};
use crate::Server;
use crate::admission::Operation;
use crate::kinds;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const ATTEMPTS: usize = 50;

/// How a deletion ended.
pub(crate) struct Deleted {
    /// The object, in its last or present state.
    pub(crate) object: Arc<Object>,
    /// Whether it is gone; else it will go when its finalizers or its grace period are done.
    pub(crate) gone: bool,
}

/// What the first look at an object decides.
enum Step {
    /// Deletion is under way; there is nothing to do.
    Pending,
    /// Write the object in this state; then, if so, remove it.
    Mark { object: Value, then_remove: bool },
    /// Remove it.
    Remove,
}

/// The finalizers a deletion asks for, when they differ from those there are.
fn collector_finalizers(res: &Res, object: &Value, o: &DeleteOptions) -> Option<Vec<String>> {
    let have = meta::finalizers(object);
    let has = |f: &str| have.iter().any(|h| h == f);
    let (orphan, foreground) = match (o.orphan_dependents, o.propagation) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(p)) => (p == Propagation::Orphan, p == Propagation::Foreground),
        (None, None) => {
            let first = have.iter().find(|f| matches!(f.as_str(), ORPHAN | FOREGROUND)).map(String::as_str);
            let default = res.strategy.propagation == kinds::Propagation::Orphan;
            (first.map_or(default, |f| f == ORPHAN), first == Some(FOREGROUND))
        }
    };
    if orphan == has(ORPHAN) && foreground == has(FOREGROUND) {
        return None;
    }
    let mut out: Vec<String> = have.into_iter().filter(|f| f != ORPHAN && f != FOREGROUND).collect();
    if orphan {
        out.push(ORPHAN.into());
    }
    if foreground {
        out.push(FOREGROUND.into());
    }
    Some(out)
}

fn bump_generation(object: &mut Value) {
    if let Some(g) = meta::int(object, "generation").filter(|g| *g > 0) {
        meta::set(object, "generation", g + 1);
    }
}

/// Sets the time of deletion: `(graceful, pending)` as upstream's `BeforeDelete`.
fn begin_graceful(res: &Res, object: &mut Value, o: &DeleteOptions, now: Timestamp) -> (Option<i64>, bool) {
    let wanted = o.grace_period_seconds.map(|g| if g < 0 { 1 } else { g });
    let options = kinds::DeleteOptions { grace_period_seconds: wanted };
    let Some(grace) = (res.strategy.graceful_delete)(object, options) else { return (None, false) };
    let Some(since) = object.pointer("/metadata/deletionTimestamp").and_then(Value::as_str).and_then(time::parse)
    else {
        let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        meta::set(object, "deletionTimestamp", time::format(at));
        meta::set(object, "deletionGracePeriodSeconds", grace);
        bump_generation(object);
        return (Some(grace), false);
    };
    let before = meta::int(object, "deletionGracePeriodSeconds").unwrap_or(0);
    if before == 0 {
        return (None, false);
    }
    // A deletion under way may only be made quicker.
    let Some(mut period) = wanted.filter(|w| *w < before) else { return (None, true) };
    let mut at = since.checked_add(SignedDuration::from_secs(period - before)).unwrap_or(now);
    if at < now {
        at = now;
        if period != 0 {
            period = 1;
        }
    }
    meta::set(object, "deletionTimestamp", time::format(at));
    meta::set(object, "deletionGracePeriodSeconds", period);
    (Some(period), false)
}

fn step(res: &Res, mut object: Value, o: &DeleteOptions, now: Timestamp) -> Step {
    let (graceful, pending) = begin_graceful(res, &mut object, o, now);
    if pending {
        return Step::Pending;
    }
    if let Some(finalizers) = collector_finalizers(res, &object, o) {
        meta::set_finalizers(&mut object, finalizers);
    }
    let waits = !meta::finalizers(&object).is_empty();
    match (graceful, waits) {
        (None, false) => Step::Remove,
        (None, true) => {
            mark(&mut object, now);
            Step::Mark { object, then_remove: false }
        }
        (Some(grace), waits) => Step::Mark { object, then_remove: !waits && grace == 0 },
    }
}

/// Marks an object as being deleted, with nothing left to wait for but its finalizers.
fn mark(object: &mut Value, now: Timestamp) {
    let since = object.pointer("/metadata/deletionTimestamp").and_then(Value::as_str).and_then(time::parse);
    if since.is_none() {
        bump_generation(object);
    }
    if since.is_none_or(|t| t > now) {
        meta::set(object, "deletionTimestamp", time::format(now));
    }
    meta::set(object, "deletionGracePeriodSeconds", 0);
}

fn check_preconditions(res: &Res, object: &Object, o: &DeleteOptions) -> Result<(), Status> {
    // Upstream names the kind here.
    let conflict = |why: String| Status::conflict(res.def.group, res.def.kind, object.name(), &why);
    if let Some(uid) = &o.uid
        && uid != object.uid()
    {
        return Err(conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            object.uid()
        )));
    }
    if let Some(v) = &o.resource_version
        && *v != object.resource_version().to_string()
    {
        return Err(conflict(format!(
            "the ResourceVersion in the precondition ({v}) does not match the ResourceVersion in record ({}). The object might have been modified",
            object.resource_version()
        )));
    }
    Ok(())
}

impl Server {
    /// Deletes one object.
    ///
    /// # Errors
    /// 404, 409 for preconditions, and refusals of admission.
    pub(crate) async fn delete(&self, w: &Write<'_>, name: &str, o: &DeleteOptions) -> Result<Deleted, Status> {
        let res = w.res;
        let objects = res.objects()?;
        let namespace = if res.def.namespaced { w.namespace } else { "" };
        let mut present = objects.get(namespace, name).await?.ok_or_else(|| res.not_found(name))?;
        let mut options = o.clone();
        let mut admitted = false;
        let mut marked = false;
        for _ in 0..ATTEMPTS {
            check_preconditions(res, &present, &options)?;
            let old: Value = present.view().map_err(Status::internal)?;
            if !admitted {
                let a = w.attributes(Operation::Delete, name, Some(&old));
                let mut nothing = Value::Null;
                self.admission.admit(self, &a, &mut nothing).await?;
                self.admission.validate(self, &a, &nothing).await?;
                admitted = true;
            }
            let now = self.clock.now();
            let next = if res.def.group.is_empty() && res.def.resource == "namespaces" {
                namespace_step(old.clone(), now, &options, res)
            } else {
                step(res, old.clone(), &options, now)
            };
            let outcome = match next {
                Step::Pending => return Ok(Deleted { object: present, gone: false }),
                Step::Remove if w.options.dry_run => return Ok(Deleted { object: present, gone: true }),
                Step::Remove => match objects.delete(namespace, name, present.resource_version()).await {
                    Ok(revision) => {
                        self.after_delete(res, &old).await;
                        let object = present.at_revision(revision).map_err(Status::internal)?;
                        return Ok(Deleted { object: Arc::new(object), gone: true });
                    }
                    // Someone else finished what was marked here.
                    Err(Lost::Now(None)) if marked => return Ok(Deleted { object: present, gone: true }),
                    Err(lost) => Err(lost),
                },
                Step::Mark { mut object, then_remove } => {
                    meta::remove(&mut object, "resourceVersion");
                    let bytes = res.encode(&object);
                    if w.options.dry_run || (!then_remove && present.is_stored_as(&bytes)) {
                        let same = Object::from_stored(&bytes, present.resource_version(), res.strategy.selectable);
                        let object = Arc::new(same.map_err(Status::internal)?);
                        return Ok(Deleted { object, gone: then_remove });
                    }
                    match objects.update(namespace, name, present.resource_version(), bytes, None).await {
                        Ok(updated) if !then_remove => return Ok(Deleted { object: updated, gone: false }),
                        Ok(updated) => {
                            marked = true;
                            options.resource_version = None;
                            present = updated;
                            match objects.delete(namespace, name, present.resource_version()).await {
                                Ok(revision) => {
                                    self.after_delete(res, &object).await;
                                    let object = present.at_revision(revision).map_err(Status::internal)?;
                                    return Ok(Deleted { object: Arc::new(object), gone: true });
                                }
                                Err(Lost::Now(None)) => return Ok(Deleted { object: present, gone: true }),
                                Err(lost) => Err(lost),
                            }
                        }
                        Err(lost) => Err(lost),
                    }
                }
            };
            match outcome {
                Ok(()) => {}
                Err(Lost::Now(Some(now))) => present = now,
                Err(Lost::Now(None)) => return Err(res.not_found(name)),
                Err(Lost::Error(e)) => return Err(e),
            }
        }
        Err(Status::modified(res.def.group, res.def.resource, name))
    }

    /// Deletes all objects a list finds; answers the list.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) async fn delete_collection(
        &self,
        w: &Write<'_>,
        lo: &ListOptions,
        o: &DeleteOptions,
    ) -> Result<(Vec<Arc<Object>>, u64), Status> {
        let found = list(w.res, w.namespace, lo).await?;
        let mut done = Vec::with_capacity(found.items.len());
        for object in found.items {
            let each = Write { namespace: object.namespace(), ..*w };
            match self.delete(&each, object.name(), o).await {
                Ok(_) => done.push(object),
                Err(e) if e.is("NotFound") => done.push(object),
                Err(e) => return Err(e),
            }
        }
        Ok((done, found.revision))
    }
}

/// A namespace goes through `Terminating` and is removed when `spec.finalizers` is empty.
fn namespace_step(mut object: Value, now: Timestamp, o: &DeleteOptions, res: &Res) -> Step {
    let finalizers = object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    if let Some(f) = collector_finalizers(res, &object, o) {
        meta::set_finalizers(&mut object, f);
    }
    let waits = finalizers || !meta::finalizers(&object).is_empty();
    if !meta::has(&object, "deletionTimestamp") {
        meta::set(&mut object, "deletionTimestamp", time::format(now));
    }
    if let Some(status) = object.as_object_mut() {
        let s = status.entry("status").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if s.is_null() {
            *s = Value::Object(serde_json::Map::new());
        }
        s["phase"] = "Terminating".into();
    }
    if waits { Step::Mark { object, then_remove: false } } else { Step::Remove }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_once() {
        let now = time::parse("2024-01-01T00:00:00Z").unwrap();
        let mut o = serde_json::json!({"metadata": {"name": "a", "generation": 3}});
        mark(&mut o, now);
        assert_eq!(o["metadata"]["generation"], 4);
        assert_eq!(o["metadata"]["deletionTimestamp"], "2024-01-01T00:00:00Z");
        mark(&mut o, now.checked_add(SignedDuration::from_secs(5)).unwrap());
        assert_eq!(o["metadata"]["generation"], 4);
        assert_eq!(o["metadata"]["deletionTimestamp"], "2024-01-01T00:00:00Z");
    }
}
