//! Tells the API what became of a pod: only when something changed, the newest state first, again after a failure.

use super::Message;
use crate::kubelet::Shared;
use crate::pod::conditions;
use crate::pod::spec::{self, PodRef};
use crate::pod::state::labels;
use crate::pod::status::Ending;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions, Time};
use pintle_client::Patch;
use pintle_runtime::ContainerStatus;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the writer has to say to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The object is gone, or is another one of the same name.
    Gone,
}

#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    status: PodStatus,
    delete: bool,
}

/// The API object a status is written to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Target {
    r: PodRef,
    /// The version of the object that has it.
    version: u64,
    /// Its status as the API has it.
    status: PodStatus,
}

impl Target {
    fn of(pod: &Pod) -> Self {
        Self { r: PodRef::of(pod), version: version(pod), status: pod.status.clone().unwrap_or_default() }
    }

    /// Whether a state of the object tells something that is not known: it is another object, or newer and somebody has
    /// written over the node's conditions.
    fn is_outdone_by(&self, pod: &Pod) -> bool {
        let newer = version(pod) > self.version;
        self.r != PodRef::of(pod)
            || (newer && !own_conditions(Some(&self.status)).eq(own_conditions(pod.status.as_ref())))
    }

    /// The same once somebody else has written over the node's conditions, as in a newer state of the object: the node
    /// controller marks pods unready when it has not heard of their node for a while.
    fn overwritten(mut self, newer: &Self) -> Self {
        if newer.version > self.version {
            self.version = newer.version;
            let mut all = self.status.conditions.take().unwrap_or_default();
            let own = || own_conditions(Some(&newer.status));
            all.retain(|c| !conditions::is_own(&c.type_) || own().any(|n| n.type_ == c.type_));
            for condition in own() {
                match all.iter_mut().find(|c| c.type_ == condition.type_) {
                    Some(known) => condition.clone_into(known),
                    None => all.push(condition.clone()),
                }
            }
            self.status.conditions = Some(all);
        }
        self
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn own_conditions(status: Option<&PodStatus>) -> impl Iterator<Item = &PodCondition> {
    status.and_then(|s| s.conditions.as_ref()).into_iter().flatten().filter(|c| conditions::is_own(&c.type_))
}

/// Hands statuses to a task that writes them.
pub struct Reporter {
    wanted: watch::Sender<Option<Wanted>>,
    target: watch::Sender<Option<Target>>,
}

impl Reporter {
    /// A reporter for this pod; a static pod has no object until [`Reporter::saw`] is told of its mirror.
    pub fn new(k: Arc<Shared>, pod: &Pod, tx: mpsc::UnboundedSender<Message>) -> Self {
        let target = (!spec::is_static(pod)).then(|| Target::of(pod));
        let (wanted, target) = (watch::Sender::new(None), watch::Sender::new(target));
        tokio::spawn(write(k, wanted.subscribe(), target.subscribe(), tx));
        Self { wanted, target }
    }

    /// Asks for this status to be written, and then maybe for the object to be deleted.
    pub fn want(&self, status: PodStatus, delete: bool) {
        let new = Some(Wanted { status, delete });
        self.wanted.send_if_modified(|old| {
            let differs = *old != new;
            if differs {
                *old = new;
            }
            differs
        });
    }

    /// The API's object as it was seen last. (For a static pod: its mirror's.)
    pub fn saw(&self, pod: &Pod) {
        if spec::is_static(pod) {
            return;
        }
        self.aim(pod);
    }

    /// The object that the status is written to; for a static pod the one that stands for it.
    pub fn aim(&self, pod: &Pod) {
        self.target.send_if_modified(|t| {
            let news = t.as_ref().is_none_or(|t| t.is_outdone_by(pod));
            if news {
                *t = Some(Target::of(pod));
            }
            news
        });
    }
}

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(10);

async fn write(
    k: Arc<Shared>,
    mut wanted: watch::Receiver<Option<Wanted>>,
    mut target: watch::Receiver<Option<Target>>,
    tx: mpsc::UnboundedSender<Message>,
) {
    let pods = k.client.of::<Pod>();
    let mut retry = FIRST_RETRY;
    let mut written: Option<Target> = None;
    let mut asked = false;
    loop {
        let (w, t) = (wanted.borrow_and_update().clone(), target.borrow_and_update().clone());
        if let (Some(w), Some(t)) = (w, t) {
            let base = match written.take().filter(|b| b.r == t.r) {
                Some(base) => base.overwritten(&t),
                None => t,
            };
            let outcome = async {
                let mut base = base.clone();
                if let Some(patch) = status_patch(&base.status, &w.status, &base.r.uid) {
                    let (namespace, name) = (&base.r.namespace, &base.r.name);
                    let now = pods.patch_status(namespace, name, Patch::strategic(&patch)?).await?;
                    base.version = version(&now);
                    base.status = w.status;
                }
                if w.delete && !asked {
                    let options = DeleteOptions {
                        grace_period_seconds: Some(0),
                        preconditions: Some(Preconditions { uid: Some(base.r.uid.clone()), resource_version: None }),
                        ..Default::default()
                    };
                    pods.delete_with(&base.r.namespace, &base.r.name, &options).await?;
                }
                Ok::<_, pintle_client::Error>((base, w.delete))
            };
            match outcome.await {
                Ok((base, deleted)) => {
                    retry = FIRST_RETRY;
                    // The watch tells when the object is really gone; a finalizer may hold it.
                    asked |= deleted;
                    written = Some(base);
                }
                // Another object of the same name answers a uid precondition with a conflict.
                Err(e) if e.is_not_found() || e.is_conflict() => {
                    let _ = tx.send(Message::Written(Written::Gone));
                    tokio::select! {
                        changed = wanted.changed() => if changed.is_err() { return },
                        changed = target.changed() => if changed.is_err() { return },
                    }
                    continue;
                }
                Err(e) => {
                    tracing::warn!(pod = %base.r, error = %e, "cannot write the pod's status");
                    written = Some(base);
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                    continue;
                }
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            changed = target.changed() => if changed.is_err() { return },
        }
    }
}

/// Lists of a status that are merged by this key, not replaced.
const MERGED: [(&str, &str); 4] =
    [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip"), ("resourceClaimStatuses", "name")];

/// The strategic merge patch that leads from `old` to `new`; `None` if they are the same.
#[must_use]
pub fn status_patch(old: &PodStatus, new: &PodStatus, uid: &str) -> Option<Value> {
    let as_map = |s: &PodStatus| match serde_json::to_value(s) {
        Ok(Value::Object(m)) => m,
        _ => Map::new(),
    };
    let (old, new) = (as_map(old), as_map(new));
    let mut out = Map::new();
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        out.insert(key.clone(), Value::Null);
    }
    for (key, value) in &new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let by = MERGED.iter().find(|(k, _)| k == key).map(|(_, by)| *by);
        let patched = match (by, before.and_then(Value::as_array), value.as_array()) {
            (Some(by), Some(before), Some(after)) => merged(by, before, after),
            _ => value.clone(),
        };
        out.insert(key.clone(), patched);
    }
    (!out.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": out}))
}

/// What changed in a list that is merged by a key: new and changed elements, and which ones to delete.
fn merged(by: &str, before: &[Value], after: &[Value]) -> Value {
    let same = |a: &Value, b: &Value| a.get(by) == b.get(by);
    let mut out: Vec<Value> = after.iter().filter(|a| !before.contains(a)).cloned().collect();
    for gone in before.iter().filter(|b| !after.iter().any(|a| same(a, b))) {
        out.push(json!({"$patch": "delete", by: gone.get(by)}));
    }
    // A field that went away inside an element is said so.
    for element in &mut out {
        let Some(old) = before.iter().find(|b| same(b, element)).and_then(Value::as_object) else { continue };
        let Some(map) = element.as_object_mut().filter(|m| !m.contains_key("$patch")) else { continue };
        for key in old.keys() {
            map.entry(key.clone()).or_insert(Value::Null);
        }
    }
    Value::Array(out)
}

/// Our own last status with the conditions that others wrote since.
#[must_use]
pub fn with_others(mut own: PodStatus, api: Option<&PodStatus>) -> PodStatus {
    let others = api.and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut all: Vec<_> = others.into_iter().filter(|c| !conditions::is_own(&c.type_)).collect();
    let ours = own.conditions.take().unwrap_or_default().into_iter();
    all.extend(ours.filter(|c| conditions::is_own(&c.type_) || c.type_ == "DisruptionTarget"));
    all.dedup_by(|a, b| a.type_ == b.type_);
    own.conditions = Some(all);
    if let Some(api) = api {
        own.nominated_node_name.clone_from(&api.nominated_node_name);
        own.resource_claim_statuses.clone_from(&api.resource_claim_statuses);
    }
    own
}

/// The status of a pod that the node did not take.
#[must_use]
pub fn rejected(pod: &Pod, old: &PodStatus, ending: Option<&Ending>) -> PodStatus {
    PodStatus {
        phase: Some("Failed".into()),
        reason: ending.map(|e| e.reason.clone()),
        message: ending.map(|e| e.message.clone()),
        qos_class: Some(spec::qos(pod).name().into()),
        observed_generation: pod.metadata.generation,
        start_time: old.start_time.clone().or_else(|| {
            Some(Time(jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default()))
        }),
        conditions: old.conditions.clone(),
        nominated_node_name: old.nominated_node_name.clone(),
        ..Default::default()
    }
}

const MAX_MESSAGE: usize = 4096;
const MAX_LOG_BYTES: u64 = 2048;
const MAX_LOG_LINES: usize = 80;

/// What a container left in its termination message file, or, when its policy says so, the end of its log.
#[must_use]
pub fn last_words(c: &ContainerStatus) -> String {
    let annotation = |key: &str| c.annotations.get(key).map(String::as_str).unwrap_or_default();
    let path = Path::new(annotation(labels::TERMINATION_MESSAGE_PATH));
    let mut message = String::new();
    if let Some(m) = c.mounts.iter().find(|m| !path.as_os_str().is_empty() && m.container_path == path) {
        message = match crate::logs::read_start(&m.host_path, MAX_MESSAGE) {
            Ok(data) => String::from_utf8_lossy(&data).into_owned(),
            Err(e) => format!("Error on reading termination log {}: {e}", m.host_path.display()),
        };
    }
    let fall_back = annotation(labels::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError";
    if message.is_empty() && fall_back && c.exit_code != 0 {
        message = crate::logs::tail(Path::new(&c.log_path), MAX_LOG_LINES, MAX_LOG_BYTES).unwrap_or_default();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_wrote_over_is_written_again() {
        let seen = |version: u64, ready: &str, other: &str| {
            let pod = json!({"metadata": {"name": "p", "resourceVersion": version.to_string()}, "status": {"conditions": [
                {"type": "Ready", "status": ready}, {"type": "example.com/gate", "status": other}]}});
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        let written = Target::of(&seen(7, "True", "False"));
        let patch = |newer: Pod| {
            let told = written.is_outdone_by(&newer);
            let base = written.clone().overwritten(&Target::of(&newer));
            assert_eq!(told, base.status != written.status, "who writes is told just of what is to be written");
            status_patch(&base.status, &written.status, "u").map(|p| p["status"]["conditions"][0]["status"].clone())
        };
        assert_eq!(patch(seen(6, "False", "False")), None, "older than what was written");
        assert_eq!(patch(seen(8, "True", "True")), None, "another's condition");
        assert_eq!(patch(seen(8, "False", "False")), Some(json!("True")));
    }

    #[test]
    fn patches_say_only_what_changed() {
        let status = |s: &str| -> PodStatus { serde_saphyr::from_str(s).unwrap() };
        let old = status(
            "{phase: Pending, reason: X, conditions: [{type: A, status: 'False', reason: R}, {type: B, status: 'True'}, {type: C, status: 'True'}], podIPs: [{ip: 1.1.1.1}]}",
        );
        let new = status(
            "{phase: Running, conditions: [{type: A, status: 'True'}, {type: B, status: 'True'}], podIPs: [{ip: 2.2.2.2}]}",
        );
        assert_eq!(status_patch(&old, &old, "u"), None);
        assert_eq!(
            status_patch(&old, &new, "u").unwrap(),
            json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running",
                "reason": null,
                "conditions": [{"type": "A", "status": "True", "reason": null}, {"$patch": "delete", "type": "C"}],
                "podIPs": [{"ip": "2.2.2.2"}, {"$patch": "delete", "ip": "1.1.1.1"}],
            }})
        );
    }
}
