//! Horizontal pod autoscaler: as many replicas as the metrics of a workload ask for, looked at every 15 seconds.

mod behavior;
mod calculate;
mod metrics;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{ObjectReference, Pod as TypedPod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as TypedQuantity;
use parking_lot::Mutex;
use pintle_api::metrics::{Family, Kind, Stability};
use pintle_api::quantity::Quantity;
use pintle_api::resources::Resource;
use pintle_api::selector::Selector;
use pintle_client::client::encode;
use pintle_client::clock::time;
use pintle_client::informers::View;
use pintle_client::meta::split_key;
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, Key, WriteParams};

use crate::context::{Context, Outcome};
use crate::support::pods::{self, Pod};
use crate::support::status;

use behavior::{Bounds, Memory};
use calculate::{Aim, Proposal, Tolerance};

const WORKERS: usize = 5;
/// How often metrics are looked at (`--horizontal-pod-autoscaler-sync-period`).
const PERIOD: Duration = Duration::from_secs(15);
/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

static RECONCILIATIONS: Family = Family::new(
    "horizontal_pod_autoscaler_controller_reconciliations_total",
    Kind::Counter,
    Stability::Alpha,
    &["action", "error"],
    "Number of reconciliations of HPA controller. The label 'action' should be either 'scale_down', 'scale_up', or 'none'. Also, the label 'error' should be either 'spec', 'internal', or 'none'. Note that if both spec and internal errors happen during a reconciliation, the first one to occur is reported in `error` label.",
);

struct Controller {
    cx: Context,
    autoscalers: Informer,
    pods: Informer,
    pod_views: View<Pod>,
    memory: Mutex<HashMap<Key, Memory>>,
    /// What each one selects: pods must have one autoscaler only.
    selectors: Mutex<HashMap<Key, Selector>>,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("horizontalpodautoscaler");
    let me = Arc::new(Controller {
        autoscalers: cx.informers.of::<HorizontalPodAutoscaler>(),
        pods: cx.informers.of::<TypedPod>(),
        pod_views: pods::view(&cx.informers),
        memory: Mutex::default(),
        selectors: Mutex::default(),
        cx: cx.clone(),
    });
    let q = queue.clone();
    me.autoscalers.on_change(move |change| {
        let spec = |o: Option<&Arc<pintle_api::Object>>| o.and_then(|o| o.at(&["spec"]).map(<[u8]>::to_vec));
        // Our own status is no reason to look again.
        if spec(change.before()) != spec(change.now()) {
            q.add(change.key().clone());
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move {
        if me.autoscalers.get(&key).is_none() {
            me.memory.lock().remove(&key);
            me.selectors.lock().remove(&key);
            return Ok(None);
        }
        if let Err(error) = me.sync(&key).await {
            tracing::debug!(%key, %error, "cannot autoscale");
        }
        Ok(Some(PERIOD))
    })
    .await;
}

/// Sets a condition; its time is that of its last change.
fn condition(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    value: bool,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) {
    let value = if value { "True" } else { "False" };
    let all = status.conditions.get_or_insert_default();
    let kept = all.iter().find(|c| c.type_ == kind && c.status == value).and_then(|c| c.last_transition_time.clone());
    let new = HorizontalPodAutoscalerCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(kept.unwrap_or_else(|| time(now))),
    };
    match all.iter_mut().find(|c| c.type_ == kind) {
        Some(c) => *c = new,
        None => all.push(new),
    }
}

fn milli(q: Option<&TypedQuantity>) -> Option<i64> {
    q?.0.parse::<Quantity>().ok().map(|q| q.milli_value())
}

/// A number of thousandths as a quantity.
fn quantity(milli: i64) -> TypedQuantity {
    TypedQuantity(format!("{milli}m").parse::<Quantity>().map(|q| q.to_string()).unwrap_or_default())
}

fn average(value: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(quantity(value)), ..MetricValueStatus::default() }
}

/// A metric that asks for a number of replicas.
struct Computed {
    replicas: i32,
    /// What is said of it.
    name: String,
    status: MetricStatus,
}

/// Why a metric says nothing: reason of the condition, what is wrong, and that within its own words.
type Trouble = (&'static str, String, String);

/// What is scaled, and by what it is known.
struct Target<'a> {
    namespace: &'a str,
    spec: i32,
    status: i32,
    labels: &'a str,
    selector: &'a Selector,
    tolerance: Tolerance,
    now: Timestamp,
}

/// Everything that came of looking at the metrics.
#[derive(Default)]
struct Outlook {
    replicas: Option<(i32, String)>,
    statuses: Vec<MetricStatus>,
    /// The first that failed, and how many.
    trouble: Option<Trouble>,
    failed: usize,
}

fn tolerance(hpa: &HorizontalPodAutoscaler) -> Tolerance {
    let behavior = hpa.spec.behavior.as_ref();
    #[expect(clippy::cast_precision_loss, reason = "a tolerance is a small number")]
    let of = |r: Option<&HPAScalingRules>| {
        r.and_then(|r| milli(r.tolerance.as_ref())).map_or(TOLERANCE, |m| m as f64 / 1000.0)
    };
    Tolerance {
        up: of(behavior.and_then(|b| b.scale_up.as_ref())),
        down: of(behavior.and_then(|b| b.scale_down.as_ref())),
    }
}

impl Controller {
    async fn sync(&self, k: &Key) -> Outcome {
        let Some(object) = self.autoscalers.get(k) else { return Ok(None) };
        let hpa: HorizontalPodAutoscaler = decode(&object)?;
        let spec = &hpa.spec;
        let about = reference_of(&hpa);
        let now = self.cx.clock.now();
        let mut new = hpa.status.clone().unwrap_or_default();
        let namespace = object.namespace();
        let (resource, scale) = match self.scale(namespace, &hpa).await {
            Ok(found) => found,
            Err(error) => {
                self.cx.recorder.warning(&about, "FailedGetScale", error.clone());
                let message = format!("the HPA controller was unable to get the target's current scale: {error}");
                condition(&mut new, "AbleToScale", false, "FailedGetScale", message, now);
                self.put(&object, &hpa, new).await?;
                RECONCILIATIONS.with(&["none", "internal"]).inc();
                return Err(Error::Config(error));
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        condition(&mut new, "AbleToScale", true, "SucceededGetScale", message, now);
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        self.memory.lock().entry(k.clone()).or_default().begin(current, now);
        let min = spec.min_replicas.unwrap_or(1);
        let (mut statuses, mut failure) = (Vec::new(), None);
        let (desired, reason) = if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            condition(&mut new, "ScalingActive", false, "ScalingDisabled", message, now);
            (0, String::new())
        } else if current > spec.max_replicas {
            (spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < min {
            (min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            let outlook = match self.outlook(k, &hpa, &scale, &about, &mut new, now).await {
                Ok(outlook) => outlook,
                Err(error) => return self.give_up(&object, &hpa, new, current, Vec::new(), error).await,
            };
            let total = spec.metrics.as_ref().map_or(0, Vec::len);
            statuses = outlook.statuses;
            failure = outlook.trouble.as_ref().map(|(_, _, e)| {
                format!("invalid metrics ({} invalid out of {total}), first error is: {e}", outlook.failed)
            });
            // What is not heard of might ask for more: nothing is made smaller meanwhile.
            let proposed = outlook.replicas.filter(|(n, _)| failure.is_none() || *n >= current);
            let Some((proposed, name)) = proposed else {
                if let Some((reason, error, _)) = &outlook.trouble {
                    let message = format!("the HPA was unable to compute the replica count: {error}");
                    condition(&mut new, "ScalingActive", false, reason, message, now);
                }
                return self.give_up(&object, &hpa, new, current, statuses, failure.unwrap_or_default()).await;
            };
            let message = format!("the HPA was able to successfully calculate a replica count from {name}");
            condition(&mut new, "ScalingActive", true, "ValidMetricFound", message, now);
            let why = match proposed.cmp(&current) {
                std::cmp::Ordering::Greater => format!("{name} above target"),
                std::cmp::Ordering::Less => "All metrics below target".to_owned(),
                std::cmp::Ordering::Equal => String::new(),
            };
            let bounds = Bounds { min, max: spec.max_replicas, current, desired: proposed };
            let mut memory = self.memory.lock();
            let memory = memory.entry(k.clone()).or_default();
            let (desired, able, limited) = memory.normalize(spec.behavior.as_ref(), bounds, now);
            condition(&mut new, "AbleToScale", able.0, able.1, able.2, now);
            condition(&mut new, "ScalingLimited", limited.0, limited.1, limited.2, now);
            (desired, why)
        };
        let rescale = desired != current && !(current == 0 && min != 0);
        if rescale {
            if let Err(e) = self.rescale(resource, namespace, scale, desired).await {
                let message = format!("New size: {desired}; reason: {reason}; error: {e}");
                self.cx.recorder.warning(&about, "FailedRescale", message);
                let message = format!("the HPA controller was unable to update the target scale: {e}");
                condition(&mut new, "AbleToScale", false, "FailedUpdateScale", message, now);
                new.current_replicas = Some(current);
                self.put(&object, &hpa, new).await?;
                return Err(e);
            }
            let message = format!("the HPA controller was able to update the target scale to {desired}");
            condition(&mut new, "AbleToScale", true, "SucceededRescale", message, now);
            self.cx.recorder.normal(&about, "SuccessfulRescale", format!("New size: {desired}; reason: {reason}"));
            self.memory.lock().entry(k.clone()).or_default().scaled(spec.behavior.as_ref(), current, desired, now);
            new.last_scale_time = Some(time(now));
        }
        let action = match desired.cmp(&current) {
            _ if !rescale => "none",
            std::cmp::Ordering::Greater => "scale_up",
            _ => "scale_down",
        };
        RECONCILIATIONS.with(&[action, if failure.is_some() { "internal" } else { "none" }]).inc();
        new.current_replicas = Some(current);
        new.desired_replicas = if rescale { desired } else { current };
        new.current_metrics = (!statuses.is_empty()).then_some(statuses);
        self.put(&object, &hpa, new).await?;
        Ok(None)
    }

    /// Nothing can be said about the number: it stays.
    async fn give_up(
        &self,
        object: &pintle_api::Object,
        hpa: &HorizontalPodAutoscaler,
        mut new: HorizontalPodAutoscalerStatus,
        current: i32,
        statuses: Vec<MetricStatus>,
        error: String,
    ) -> Outcome {
        new.current_replicas = Some(current);
        new.current_metrics = (!statuses.is_empty()).then_some(statuses);
        self.cx.recorder.warning(&reference_of(hpa), "FailedComputeMetricsReplicas", error.clone());
        self.put(object, hpa, new).await?;
        RECONCILIATIONS.with(&["none", "internal"]).inc();
        Err(Error::Config(error))
    }

    async fn put(
        &self,
        object: &pintle_api::Object,
        hpa: &HorizontalPodAutoscaler,
        new: HorizontalPodAutoscalerStatus,
    ) -> Result<(), Error> {
        if hpa.status.as_ref() == Some(&new) {
            return Ok(());
        }
        let resource = resource_of::<HorizontalPodAutoscaler>();
        let fresh = self.autoscalers.get(&pintle_client::meta::key(object.namespace(), object.name()));
        let fresh = fresh.filter(|f| f.uid() == object.uid());
        match status::put(&self.cx.client, resource, fresh.as_deref().unwrap_or(object), &new).await {
            Err(e) if !e.is_not_found() => {
                let message = e.to_string();
                self.cx.recorder.warning(&reference_of(hpa), "FailedUpdateStatus", message);
                Err(e)
            }
            _ => Ok(()),
        }
    }

    /// The target's resource and its scale.
    async fn scale(
        &self,
        namespace: &str,
        hpa: &HorizontalPodAutoscaler,
    ) -> Result<(&'static Resource, Scale), String> {
        let of = &hpa.spec.scale_target_ref;
        let resource = metrics::target(&self.cx.client, of).await?;
        let path = pintle_client::client::object_path(resource, namespace, &of.name, "scale");
        let body = self.cx.client.get_path(&path).await.map_err(|e| e.to_string())?;
        let scale = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        Ok((resource, scale))
    }

    async fn rescale(
        &self,
        resource: &'static Resource,
        namespace: &str,
        mut scale: Scale,
        replicas: i32,
    ) -> Result<(), Error> {
        scale.spec = Some(ScaleSpec { replicas: Some(replicas) });
        let name = scale.metadata.name.clone().unwrap_or_default();
        let params = WriteParams::default();
        self.cx.client.update(resource, namespace, &name, "scale", encode(&scale)?, &params).await.map(drop)
    }

    /// Looks at every metric.
    async fn outlook(
        &self,
        k: &Key,
        hpa: &HorizontalPodAutoscaler,
        scale: &Scale,
        about: &ObjectReference,
        new: &mut HorizontalPodAutoscalerStatus,
        now: Timestamp,
    ) -> Result<Outlook, String> {
        let namespace = split_key(k).0;
        let of_scale = scale.status.clone().unwrap_or_default();
        let labels = of_scale.selector.as_deref().unwrap_or_default();
        let mut wrong = |reason: &str, told: &str, message: String| {
            self.cx.recorder.warning(about, reason, told.to_owned());
            condition(
                new,
                "ScalingActive",
                false,
                if reason == "SelectorRequired" { "InvalidSelector" } else { reason },
                message,
                now,
            );
        };
        if labels.is_empty() {
            wrong("SelectorRequired", "selector is required", "the HPA target's scale is missing a selector".into());
            return Err("selector is required".into());
        }
        let selector = match Selector::parse(labels) {
            Ok(s) => s,
            Err(e) => {
                let m = format!("couldn't convert selector into a corresponding internal selector object: {e}");
                wrong("InvalidSelector", &m, m.clone());
                return Err(m);
            }
        };
        self.selectors.lock().insert(k.clone(), selector.clone());
        let rivals = self.rivals(namespace, &selector);
        if rivals.len() > 1 {
            let list: Vec<String> =
                rivals.iter().map(|r| format!("{{{} {}}}", split_key(r).1, split_key(r).0)).collect();
            let m = format!("pods by selector {labels} are controlled by multiple HPAs: [{}]", list.join(" "));
            wrong("AmbiguousSelector", &m, m.clone());
            return Err(m);
        }
        let target = Target {
            namespace,
            spec: scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0),
            status: of_scale.replicas,
            labels,
            selector: &selector,
            tolerance: tolerance(hpa),
            now,
        };
        let mut out = Outlook::default();
        for metric in hpa.spec.metrics.iter().flatten() {
            match self.metric(&target, metric).await {
                Ok(c) => {
                    out.statuses.push(c.status);
                    if out.replicas.as_ref().is_none_or(|(n, _)| c.replicas > *n) {
                        out.replicas = Some((c.replicas, c.name));
                    }
                }
                Err(trouble) => {
                    self.cx.recorder.warning(about, trouble.0, trouble.1.clone());
                    out.statuses.push(MetricStatus::default());
                    out.failed += 1;
                    out.trouble = out.trouble.or(Some(trouble));
                }
            }
        }
        Ok(out)
    }

    /// The autoscalers that select pods this selector selects.
    fn rivals(&self, namespace: &str, selector: &Selector) -> BTreeSet<Key> {
        let selectors: Vec<(Key, Selector)> = self
            .selectors
            .lock()
            .iter()
            .filter(|(k, _)| split_key(k).0 == namespace)
            .map(|(k, s)| (k.clone(), s.clone()))
            .collect();
        if selectors.len() < 2 {
            return BTreeSet::new();
        }
        let pods = self.pod_views.select(namespace, |p| selector.matches_labels(&p.metadata.labels));
        let ours = pods.iter().map(|p| &p.metadata.labels);
        ours.flat_map(|l| selectors.iter().filter(|(_, s)| s.matches_labels(l)).map(|(k, _)| k.clone())).collect()
    }

    fn pods_of(&self, target: &Target<'_>) -> Result<Vec<TypedPod>, String> {
        let views = self.pod_views.select(target.namespace, |p| target.selector.matches_labels(&p.metadata.labels));
        let pods: Vec<TypedPod> = views
            .iter()
            .filter_map(|p| self.pods.get(&p.metadata.key()))
            .map(|o| decode(&o).map_err(|e: Error| e.to_string()))
            .collect::<Result<_, _>>()?;
        Ok(pods)
    }

    fn some_pods_of(&self, target: &Target<'_>) -> Result<Vec<TypedPod>, String> {
        let pods = self.pods_of(target)?;
        if pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        Ok(pods)
    }

    async fn metric(&self, target: &Target<'_>, m: &MetricSpec) -> Result<Computed, Trouble> {
        let again = |reason, outer: Option<String>| {
            move |e: String| {
                let whole = outer.map_or_else(|| e.clone(), |o| format!("{o}: {e}"));
                (reason, e, whole)
            }
        };
        let mut status = MetricStatus { type_: m.type_.clone(), ..MetricStatus::default() };
        let (replicas, name) =
            match (m.type_.as_str(), &m.resource, &m.container_resource, &m.pods, &m.object, &m.external) {
                ("Resource", Some(r), ..) => {
                    let trouble = again(
                        "FailedGetResourceMetric",
                        Some(format!("failed to get {} resource metric value", r.name)),
                    );
                    let (p, name) = self.resource(target, "", &r.name, &r.target).await.map_err(trouble)?;
                    let current = MetricValueStatus { average_utilization: p.percent, ..average(p.average) };
                    status.resource = Some(ResourceMetricStatus { name: r.name.clone(), current });
                    (p.replicas, name)
                }
                ("ContainerResource", _, Some(r), ..) => {
                    let outer = format!("failed to get {} container metric value", r.container);
                    let trouble = again("FailedGetContainerResourceMetric", Some(outer));
                    let (p, name) = self.resource(target, &r.container, &r.name, &r.target).await.map_err(trouble)?;
                    let current = MetricValueStatus { average_utilization: p.percent, ..average(p.average) };
                    status.container_resource = Some(ContainerResourceMetricStatus {
                        name: r.name.clone(),
                        container: r.container.clone(),
                        current,
                    });
                    (p.replicas, name)
                }
                ("Pods", _, _, Some(s), ..) => {
                    let trouble = again("FailedGetPodsMetric", Some("failed to get pods metric value".into()));
                    let p = self.by_pods_metric(target, &s.metric, &s.target).await.map_err(trouble)?;
                    status.pods = Some(PodsMetricStatus { metric: s.metric.clone(), current: average(p.average) });
                    (p.replicas, format!("pods metric {}", s.metric.name))
                }
                ("Object", _, _, _, Some(s), _) => {
                    let trouble = again("FailedGetObjectMetric", Some("failed to get object metric value".into()));
                    let value = async {
                        let v =
                            metrics::object(&self.cx.client, target.namespace, &s.described_object, &s.metric).await;
                        v.map_err(|e| {
                            let o = &s.described_object;
                            format!(
                                "unable to get metric {}: {} on {} {}/{e}",
                                s.metric.name, o.kind, target.namespace, o.name
                            )
                        })
                    };
                    let (p, current) = self.by_one_value(target, &s.target, value, "object").await.map_err(trouble)?;
                    let name = if s.target.type_ == "Value" {
                        format!("{} metric {}", s.described_object.kind, s.metric.name)
                    } else {
                        external_name(&s.metric)
                    };
                    status.object = Some(ObjectMetricStatus {
                        metric: s.metric.clone(),
                        described_object: s.described_object.clone(),
                        current,
                    });
                    (p.replicas, name)
                }
                ("External", _, _, _, _, Some(s)) => {
                    let outer = format!("failed to get {} external metric value", s.metric.name);
                    let trouble = again("FailedGetExternalMetric", Some(outer));
                    let value = async {
                        let v = metrics::external(&self.cx.client, target.namespace, &s.metric).await;
                        v.map_err(|e| {
                            let labels = metrics::selector(s.metric.selector.as_ref()).unwrap_or_default();
                            format!(
                                "unable to get external metric {}/{}/{labels}: {e}",
                                target.namespace, s.metric.name
                            )
                        })
                    };
                    let (p, current) =
                        self.by_one_value(target, &s.target, value, "external").await.map_err(trouble)?;
                    status.external = Some(ExternalMetricStatus { metric: s.metric.clone(), current });
                    (p.replicas, external_name(&s.metric))
                }
                (other, ..) => {
                    let e = format!("unknown metric source type {other:?}");
                    return Err(("InvalidMetricSourceType", e.clone(), e));
                }
            };
        Ok(Computed { replicas, name, status })
    }

    async fn resource(
        &self,
        target: &Target<'_>,
        container: &str,
        resource: &str,
        aim: &MetricTarget,
    ) -> Result<(Proposal, String), String> {
        let compute = async {
            let samples = metrics::resource(&self.cx.client, target.namespace, target.labels, container, resource)
                .await
                .map_err(|e| format!("unable to get metrics for resource {resource}: {e}"))?;
            let pods = self.some_pods_of(target)?;
            let groups = calculate::group(&pods, &samples, resource, target.now);
            if let Some(value) = milli(aim.average_value.as_ref()) {
                return calculate::by_pods(target.spec, &Aim::Average(value), samples, &groups, target.tolerance);
            }
            let percent = aim.average_utilization.unwrap_or_default();
            let requests = calculate::requests(&pods, container, resource)?;
            let aim = Aim::Utilization(percent, &requests);
            calculate::by_pods(target.spec, &aim, samples, &groups, target.tolerance)
        };
        if aim.average_value.is_none() && aim.average_utilization.is_none() {
            return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".into());
        }
        let of = if container.is_empty() {
            format!("{resource} resource")
        } else {
            format!("{resource} container resource")
        };
        let (what, name) = if aim.average_value.is_some() {
            ("usage", of)
        } else {
            ("utilization", format!("{of} utilization (percentage of request)"))
        };
        let proposal: Result<Proposal, String> = compute.await;
        Ok((proposal.map_err(|e| format!("failed to get {resource} {what}: {e}"))?, name))
    }

    async fn by_pods_metric(
        &self,
        target: &Target<'_>,
        metric: &MetricIdentifier,
        aim: &MetricTarget,
    ) -> Result<Proposal, String> {
        let samples = metrics::pods(&self.cx.client, target.namespace, target.labels, metric)
            .await
            .map_err(|e| format!("unable to get metric {}: {e}", metric.name))?;
        let pods = self.some_pods_of(target)?;
        let groups = calculate::group(&pods, &samples, "", target.now);
        let value = milli(aim.average_value.as_ref()).unwrap_or_default();
        calculate::by_pods(target.spec, &Aim::Average(value), samples, &groups, target.tolerance)
    }

    /// By one value, that each replica or all of them together are to have.
    async fn by_one_value(
        &self,
        target: &Target<'_>,
        aim: &MetricTarget,
        value: impl Future<Output = Result<i64, String>>,
        kind: &str,
    ) -> Result<(Proposal, MetricValueStatus), String> {
        match (milli(aim.average_value.as_ref()), milli(aim.value.as_ref())) {
            (Some(share), _) => {
                let p = calculate::by_share(target.status, share, value.await?, target.tolerance);
                Ok((p, average(p.average)))
            }
            (None, Some(want)) => {
                let pods = self.pods_of(target)?;
                let p = calculate::by_value(target.spec, want, value.await?, &pods, target.tolerance)?;
                Ok((p, MetricValueStatus { value: Some(quantity(p.average)), ..MetricValueStatus::default() }))
            }
            (None, None) => {
                Err(format!("invalid {kind} metric source: neither a value target nor an average value target was set"))
            }
        }
    }
}

fn external_name(metric: &MetricIdentifier) -> String {
    let labels = match &metric.selector {
        None => "nil".to_owned(),
        Some(s) => {
            let labels: Vec<String> = s.match_labels.iter().flatten().map(|(k, v)| format!("{k}: {v},")).collect();
            format!(
                "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{}},}}",
                labels.join("")
            )
        }
    };
    format!("external metric {}({labels})", metric.name)
}
