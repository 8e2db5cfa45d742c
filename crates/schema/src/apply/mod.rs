//! Server-side apply, and the tracking of owners on every other write. Pure: the object, the configuration, who, when.
//!
//! [`apply`] merges a configuration into the live object, takes away what its manager no longer states and nobody else
//! owns, and refuses to change what others own unless forced. [`update`] finds what a write has changed and gives it to
//! the writer.

mod managers;
mod path;
mod schema;
mod set;
mod walk;

use crate::quote::quoted;
use managers::{Entry, MAX_UPDATERS, Managers, is_reset};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use walk::{Comparison, Way};

pub use managers::Manager;
pub use path::{Element, path_text};
pub use schema::Schema;
pub use set::Set;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The owner of what was there before anyone applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The most that the annotations of an object may hold together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The other versions of a kind, for owners that wrote in one of them.
pub trait Versions {
    /// The schema of the kind in a version; nothing where the version is not served any more.
    fn schema(&self, api_version: &str) -> Option<Schema<'_>>;
    /// The object in a version.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// A write, and by whom.
pub struct Request<'a> {
    /// The schema of the object.
    pub schema: Schema<'a>,
    /// Its apiVersion.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// The sub-resource written through, or "".
    pub subresource: &'a str,
    /// The field manager's name.
    pub manager: &'a str,
    /// The present time as the API writes it.
    pub now: &'a str,
    /// Fields that this endpoint does not let its callers change: the status on the main endpoint, and so on.
    pub reset: &'a Set,
    /// Other versions of the kind; without them every version counts as this one.
    pub versions: Option<&'a dyn Versions>,
}

/// A field that another manager owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// Its owner.
    pub manager: Manager,
    /// The field.
    pub path: Vec<Element>,
}

impl Conflict {
    /// The message of the cause: `conflict with "kubectl" using apps/v1`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager.shown())
    }

    /// The field of the cause: `.spec.replicas`.
    pub fn field(&self) -> String {
        path_text(&self.path)
    }
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyError {
    /// The configuration is no good: 400.
    BadRequest(String),
    /// Others own what it would change: 409, each with a cause of type `FieldManagerConflict`.
    Conflicts(Vec<Conflict>),
    /// It does not fit the schema, or the live object's owners cannot be read: 500, as upstream answers.
    Internal(String),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyError::BadRequest(message) | ApplyError::Internal(message) => f.write_str(message),
            ApplyError::Conflicts(conflicts) => match conflicts.as_slice() {
                [one] => write!(f, "Apply failed with 1 conflict: {}: {}", one.message(), one.field()),
                many => {
                    let mut by_manager: BTreeMap<&Manager, Vec<String>> = BTreeMap::new();
                    for conflict in many {
                        by_manager.entry(&conflict.manager).or_default().push(format!("- {}", conflict.field()));
                    }
                    let mut lines = vec![];
                    for (manager, fields) in by_manager {
                        lines.push(format!("conflicts with {}:", manager.shown()));
                        lines.extend(fields);
                    }
                    write!(f, "Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
                }
            },
        }
    }
}

impl std::error::Error for ApplyError {}

impl Request<'_> {
    /// The object as it is before it exists.
    fn nothing(&self) -> Value {
        match self.schema {
            Schema::Type(ty) => ty.zero().clone(),
            _ => json!({"apiVersion": self.api_version, "kind": self.kind}),
        }
    }

    fn schema_of(&self, api_version: &str) -> Option<Schema<'_>> {
        match self.versions {
            Some(versions) if api_version != self.api_version => versions.schema(api_version),
            _ => Some(self.schema),
        }
    }

    fn converted<'v>(&self, object: &'v Value, from: &str, to: &str) -> Option<Cow<'v, Value>> {
        match self.versions {
            Some(versions) if from != to => versions.convert(object, to).map(Cow::Owned),
            _ => Some(Cow::Borrowed(object)),
        }
    }

    /// What changed, as an owner in this version sees it; nothing where the version is gone.
    fn comparison(&self, live: &Value, new: &Value, api_version: &str) -> Option<Comparison> {
        let schema = self.schema_of(api_version)?;
        let own = self.api_version;
        let (live, new) = (self.converted(live, own, api_version)?, self.converted(new, own, api_version)?);
        Some(Comparison::of(schema, &live, &new).without(self.reset))
    }

    fn gvk(&self, api_version: &str, kind: &str) -> String {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        format!("{group}/{version}, Kind={kind}")
    }

    fn named(&self, object: &Value) -> String {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or("").to_owned();
        let gvk = self.gvk(&text("/apiVersion"), &text("/kind"));
        format!("{}/{}; {gvk}", text("/metadata/namespace"), text("/metadata/name"))
    }
}

fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata").and_then(|m| m.get("managedFields")).filter(|f| !f.is_null())
}

fn set_managed_fields(object: &mut Value, fields: Option<Value>) {
    let Value::Object(object) = object else { return };
    match fields {
        Some(fields) => {
            let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(metadata) = metadata {
                metadata.insert("managedFields".to_owned(), fields);
            }
        }
        None => {
            if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                metadata.remove("managedFields");
            }
        }
    }
}

/// A copy of the object without its owners, which are not copied only to be dropped.
fn without_managed_fields(object: &Value) -> Value {
    let Value::Object(map) = object else { return object.clone() };
    let copy = |(key, value): (&String, &Value)| match value {
        Value::Object(metadata) if key == "metadata" => {
            let kept = metadata.iter().filter(|(k, _)| *k != "managedFields");
            (key.clone(), Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect()))
        }
        value => (key.clone(), value.clone()),
    };
    Value::Object(map.iter().map(copy).collect())
}

/// The owners that an object states, taken out of it.
fn take_managed_fields(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields").filter(|f| !f.is_null())
}

/// The fields that nobody owns.
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    Set::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// Notes in `new` who owns what after a create, update or patch. `live` is the object before, none on a create. The
/// owners that `new` states are taken over, unless it is written through a sub-resource.
pub fn update(live: Option<&Value>, new: &mut Value, request: &Request<'_>) {
    let live_fields = live.and_then(managed_fields);
    let stated = take_managed_fields(new);
    // Owners that cannot be read are forgotten. Those of the live object have been looked into when they were noted.
    let of_live = || Managers::decode(live_fields.cloned(), false).unwrap_or_default();
    let mut managers = if !request.subresource.is_empty() {
        of_live()
    } else if is_reset(stated.as_ref()) {
        Managers::default()
    } else {
        let check = stated.as_ref() != live_fields;
        match Managers::decode(stated, check) {
            Ok(managers) if !managers.0.is_empty() => managers,
            _ => of_live(),
        }
    };
    // An object that has no owners yet gets them when it is made, or when someone applies.
    if !managers.0.is_empty() || live.is_none() {
        // The live object's own note of its owners differs from the new one's lack of it; nobody owns that.
        let before = live.map_or_else(|| Cow::Owned(request.nothing()), Cow::Borrowed);
        track(&before, new, &mut managers, request, request.manager);
        managers.cap(MAX_UPDATERS);
    }
    set_managed_fields(new, managers.encode());
}

/// Gives what changed to an updater, and takes it from all others.
fn track(live: &Value, new: &Value, managers: &mut Managers, request: &Request<'_>, name: &str) {
    fit(managers, request, false);
    let Ok(comparison) = settle(live, new, managers, request, None, true) else { return };
    let mut own = comparison.modified;
    own.absorb(comparison.added);
    own.subtract(&STRIPPED);
    if own.is_empty() {
        return;
    }
    let manager = Manager::new(name, false, request.api_version, request.subresource);
    let (api_version, time) = (request.api_version.to_owned(), Some(request.now.to_owned()));
    match managers.0.get_mut(&manager) {
        Some(entry) => {
            entry.set.add(&own);
            (entry.api_version, entry.time) = (api_version, time);
        }
        None => {
            managers.0.insert(manager, Entry { set: own.into(), api_version, time });
        }
    }
}

/// Follows changes of the schema since the owners were noted. The table does not change while it is in use, and what
/// an older one has noted is followed when someone applies.
fn fit(managers: &mut Managers, request: &Request<'_>, table_too: bool) {
    if matches!(request.schema, Schema::Type(_)) && !table_too {
        return;
    }
    for entry in managers.0.values_mut() {
        if let Some(schema) = request.schema_of(&entry.api_version).filter(|s| !entry.set.fits(*s)) {
            entry.set = entry.set.fitted(schema).into();
        }
    }
}

/// Takes from all other managers what has changed or gone. Without force, changing what others own is a conflict.
fn settle(
    live: &Value,
    new: &Value,
    managers: &mut Managers,
    request: &Request<'_>,
    workflow: Option<&Manager>,
    force: bool,
) -> Result<Comparison, Vec<Conflict>> {
    let own = request.comparison(live, new, request.api_version).unwrap_or_default();
    let own_changed = OnceCell::new();
    let mut others: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
    let mut kept = BTreeMap::new();
    let mut conflicts = vec![];
    for (manager, mut entry) in std::mem::take(&mut managers.0) {
        if Some(&manager) == workflow {
            kept.insert(manager, entry);
            continue;
        }
        let comparison = if entry.api_version == request.api_version {
            Some(&own)
        } else {
            others
                .entry(entry.api_version.clone())
                .or_insert_with(|| request.comparison(live, new, &entry.api_version))
                .as_ref()
        };
        // A manager of a version that is gone is forgotten.
        let Some(comparison) = comparison else { continue };
        let changed = if std::ptr::eq(comparison, &raw const own) {
            own_changed.get_or_init(|| own.modified.union(&own.added))
        } else {
            &comparison.modified.union(&comparison.added)
        };
        if entry.set.touched_by(changed) {
            if !force {
                let paths = entry.set.intersection(changed).paths().into_iter();
                conflicts.extend(paths.map(|path| Conflict { manager: manager.clone(), path }));
            }
            entry.set.remove(changed);
        }
        if entry.set.touched_by(&comparison.removed) {
            entry.set.remove(&comparison.removed);
        }
        kept.insert(manager, entry);
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    managers.0 = kept;
    managers.drop_empty();
    Ok(own)
}

/// Applies a configuration to the live object, which is none when it is to be made. The result is to be decoded,
/// defaulted and validated as any other write.
pub fn apply(live: Option<&Value>, config: &Value, request: &Request<'_>, force: bool) -> Result<Value, ApplyError> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or("");
    if text("apiVersion") != request.api_version || text("kind") != request.kind {
        let gvk = request.gvk(text("apiVersion"), text("kind"));
        return Err(ApplyError::BadRequest(format!("invalid object type: {gvk}")));
    }
    let mut managers = Managers::decode(live.and_then(managed_fields).cloned(), true)
        .map_err(|e| ApplyError::Internal(format!("failed to decode managed fields: {e}")))?;
    let before = live.map_or_else(|| request.nothing(), without_managed_fields);
    if managers.0.is_empty() {
        track(&request.nothing(), &before, &mut managers, request, BEFORE_FIRST_APPLY);
    }
    // What `kubectl apply` has set on the client's side may be taken over by `kubectl apply --server-side`.
    let again = (request.manager == "kubectl").then(|| managers.clone());
    let mut result = apply_with(&before, config, managers, request, force);
    if let (Err(ApplyError::Conflicts(conflicts)), Some(managers)) = (&result, again)
        && let Some(allowed) = last_applied_set(&before, request)
    {
        let rest: Vec<_> = conflicts.iter().filter(|c| !allowed.has(&c.path)).cloned().collect();
        result = if rest.is_empty() {
            apply_with(&before, config, managers, request, true)
        } else {
            Err(ApplyError::Conflicts(rest))
        };
    }
    let mut object = result?;
    if request.manager == "kubectl" {
        keep_last_applied(&mut object, config);
    }
    Ok(object)
}

fn apply_with(
    live: &Value,
    config: &Value,
    mut managers: Managers,
    request: &Request<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    if managed_fields(config).is_some() {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let mut errors = vec![];
    walk::validate(request.schema, config, &Way::Root, &mut errors);
    if !errors.is_empty() {
        let detail = match errors.as_slice() {
            [one] => one.clone(),
            many => format!("errors:\n  {}", many.join("\n  ")),
        };
        let object = request.named(config);
        return Err(ApplyError::Internal(format!("failed to create typed patch object ({object}): {detail}")));
    }
    fit(&mut managers, request, true);
    let me = Manager::new(request.manager, true, request.api_version, request.subresource);
    let last = managers.0.get(&me).cloned();
    let set = walk::field_set(request.schema, config).without(request.reset);
    let time = last.as_ref().and_then(|l| l.time.clone());
    managers.0.insert(me.clone(), Entry { set: set.into(), api_version: request.api_version.to_owned(), time });
    let merged = walk::merge(request.schema, Some(live), Some(config)).unwrap_or_else(|| live.clone());
    let mut new = match last.filter(|l| !l.set.is_empty()) {
        Some(last) => prune(merged, &managers, &last, request),
        None => merged,
    };
    settle(live, &new, &mut managers, request, Some(&me), force).map_err(ApplyError::Conflicts)?;
    let changed = !walk::equal(live, &new);
    if let Some(entry) = managers.0.get_mut(&me) {
        entry.set = entry.set.difference(&STRIPPED).into();
        if changed {
            entry.time = Some(request.now.to_owned());
        }
        if entry.set.is_empty() {
            managers.0.remove(&me);
        }
    }
    if !changed {
        new = live.clone();
    }
    set_managed_fields(&mut new, managers.encode());
    Ok(new)
}

/// Takes away what the applier stated last time, does not state now, and nobody else owns.
fn prune(merged: Value, managers: &Managers, last: &Entry, request: &Request<'_>) -> Value {
    let version = &last.api_version;
    // Mostly the applier states what it stated, and there is nothing to take away.
    if managers.0.values().any(|e| e.api_version == *version && last.set.is_within(&e.set)) {
        return merged;
    }
    let (Some(schema), Some(base)) =
        (request.schema_of(version), request.converted(&merged, request.api_version, version))
    else {
        return merged;
    };
    let base = base.into_owned();
    let last_set = last.set.with_named_fields(Some(schema));
    let mut pruned = walk::remove(schema, &base, &last_set);
    // What anyone owns, the applier itself included, comes back: first what is owned in the version at hand.
    let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
    for entry in managers.0.values() {
        let set = owned.entry(&entry.api_version).or_default();
        *set = set.union(&entry.set);
    }
    let mut versions: Vec<&str> = owned.keys().copied().collect();
    versions.sort_by_key(|v| *v != version);
    let (mut at, mut base) = (version.as_str(), base);
    let moved = |object: &Value, from: &str, to: &str| request.converted(object, from, to).map(Cow::into_owned);
    for version in versions {
        let Some(schema) = request.schema_of(version) else { continue };
        let (Some(base_there), Some(pruned_there)) = (moved(&base, at, version), moved(&pruned, at, version)) else {
            continue;
        };
        let named = |set: &Set| set.with_named_fields(Some(schema));
        let all = named(&walk::field_set(schema, &base_there));
        let left = named(&walk::field_set(schema, &pruned_there)).union(&named(&owned[version]));
        pruned = walk::remove(schema, &base_there, &all.difference(&left));
        (at, base) = (version, base_there);
    }
    // And what was not the applier's to take away.
    if let (Some(base), Some(there)) = (moved(&base, at, version), moved(&pruned, at, version)) {
        let named = |set: &Set| set.with_named_fields(Some(schema));
        let all = named(&walk::field_set(schema, &base));
        let left = named(&walk::field_set(schema, &there));
        pruned = walk::remove(schema, &base, &all.difference(&left).intersection(&last_set));
        at = version;
    }
    moved(&pruned, at, request.api_version).unwrap_or(pruned)
}

/// The fields of the annotation that `kubectl apply` leaves, where they still are as it says.
fn last_applied_set(live: &Value, request: &Request<'_>) -> Option<Set> {
    let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    let applied = serde_json::from_str::<Value>(text).ok().filter(Value::is_object)?;
    if applied.get("apiVersion").and_then(Value::as_str) != Some(request.api_version) {
        return None;
    }
    let mut errors = vec![];
    walk::validate(request.schema, &applied, &Way::Root, &mut errors);
    if !errors.is_empty() {
        return None;
    }
    let comparison = Comparison::of(request.schema, &applied, live);
    let set = walk::field_set(request.schema, &applied);
    Some(set.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed))
}

/// Keeps the annotation in step, so that `kubectl apply` on the client's side can still be used.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let Some(annotations) = object
        .get_mut("metadata")
        .and_then(|m| m.get_mut("annotations"))
        .and_then(Value::as_object_mut)
        .filter(|a| a.get(LAST_APPLIED).is_some_and(|v| v.as_str() != Some("")))
    else {
        return;
    };
    let mut config = config.clone();
    if let Some(Value::Object(metadata)) = config.get_mut("metadata")
        && let Some(Value::Object(own)) = metadata.get_mut("annotations")
    {
        own.remove(LAST_APPLIED);
        if own.is_empty() {
            metadata.remove("annotations");
        }
    }
    let mut text = String::from_utf8_lossy(&crate::encode::encode_untyped(&config)).into_owned();
    text.push('\n');
    annotations.insert(LAST_APPLIED.to_owned(), Value::from(text));
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}

/// Owners of a scale: those of the parent that own its replicas, as the Scale sees them. `replicas` says where the
/// parent keeps them in each of its versions.
pub fn to_scale(parent: &Value, replicas: &dyn Fn(&str) -> Option<Vec<Element>>) -> Option<Value> {
    let managers = Managers::decode(managed_fields(parent).cloned(), true).ok()?;
    let in_scale = Set::of(&[&["spec", "replicas"]]);
    let kept = managers.0.into_iter().filter(|(_, e)| replicas(&e.api_version).is_some_and(|p| e.set.has(&p)));
    let kept =
        kept.map(|(m, e)| (m, Entry { set: in_scale.clone().into(), api_version: "autoscaling/v1".to_owned(), ..e }));
    Managers(kept.collect()).encode()
}

/// Owners of the parent after a write to its scale, from those the Scale then has.
pub fn from_scale(
    parent: &Value,
    scale_fields: Option<&Value>,
    api_version: &str,
    replicas: &dyn Fn(&str) -> Option<Vec<Element>>,
) -> Option<Value> {
    let parents = Managers::decode(managed_fields(parent).cloned(), true).unwrap_or_default();
    let mut scales = Managers::decode(scale_fields.cloned(), true).unwrap_or_default();
    let mut out = BTreeMap::new();
    // An updater of the parent and the same one of the Scale differ in the version that they name.
    let twin = |m: &Manager, scales: &Managers| {
        let same = |s: &&Manager| (&s.name, s.applies, &s.subresource) == (&m.name, m.applies, &m.subresource);
        scales.0.keys().find(same).cloned()
    };
    for (manager, entry) in parents.0 {
        let Some(path) = replicas(&entry.api_version).filter(|p| entry.set.has(p)) else {
            out.insert(manager, entry);
            continue;
        };
        if let Some(twin) = twin(&manager, &scales) {
            scales.0.remove(&twin);
            out.insert(manager, entry);
            continue;
        }
        // Someone else has set the replicas since.
        let mut own = Set::new();
        own.insert(&path);
        let set = entry.set.difference(&own);
        if !set.is_empty() {
            out.insert(manager, Entry { set: set.into(), ..entry });
        }
    }
    let in_scale = [Element::field("spec"), Element::field("replicas")];
    for (manager, entry) in scales.0 {
        if entry.set.has(&in_scale)
            && let Some(path) = replicas(api_version)
        {
            let mut set = Set::new();
            set.insert(&path);
            let manager = Manager::new(&manager.name, manager.applies, api_version, &manager.subresource);
            out.insert(manager, Entry { set: set.into(), api_version: api_version.to_owned(), time: entry.time });
        }
    }
    Managers(out).encode()
}

/// The reason of a conflict's cause.
pub const CONFLICT_CAUSE: &str = "FieldManagerConflict";

/// A manager's name from a user agent, as upstream derives it when none is given: what comes before the first slash,
/// and no more than 128 printable characters.
pub fn manager_or_user_agent(manager: &str, user_agent: &str) -> String {
    if !manager.is_empty() {
        return manager.to_owned();
    }
    let name = user_agent.split('/').next().unwrap_or("");
    let printable = |c: &char| quoted(c.encode_utf8(&mut [0; 4])).chars().count() == 3 || matches!(c, '"' | '\\');
    let mut out = String::new();
    for c in name.chars().filter(printable) {
        if out.len() + c.len_utf8() > 128 {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests;
