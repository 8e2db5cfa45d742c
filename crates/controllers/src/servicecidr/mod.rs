//! Service CIDRs: each is ready once it is there, and goes only when no address of it is in use.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR, ServiceCIDRStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pintle_client::clock::{since, time};
use pintle_client::recorder::reference_of;
use pintle_client::typed::{decode, resource_of};
use pintle_client::{Error, Informer, Key};
use serde_json::json;

use crate::context::{Context, Outcome, listen};
use crate::nodeipam::Cidr;
use crate::support::status;

const WORKERS: usize = 5;
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long one that is being deleted stays: an allocator may not have heard of it yet.
const GRACE: Duration = Duration::from_secs(10);
/// Who keeps addresses of Services.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

struct Controller {
    cx: Context,
    cidrs: Informer,
    addresses: Informer,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("ipaddresses");
    let me = Arc::new(Controller {
        cidrs: cx.informers.of::<ServiceCIDR>(),
        addresses: cx.informers.of::<IPAddress>(),
        cx: cx.clone(),
    });
    let q = queue.clone();
    listen(&me.cidrs, &me, move |me, change| {
        q.add(change.key().clone());
        // One more or less may free those it overlaps with.
        if change.before().is_none() || change.now().is_none() {
            me.deleting().into_iter().for_each(|k| q.add(k));
        }
    });
    let q = queue.clone();
    listen(&me.addresses, &me, move |me, change| {
        if change.now().is_none() {
            me.deleting().into_iter().for_each(|k| q.add(k));
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

fn prefixes(cidr: &ServiceCIDR) -> Vec<Cidr> {
    cidr.spec.iter().flat_map(|s| s.cidrs.iter().flatten()).filter_map(|c| c.parse().ok()).collect()
}

/// Whether a service CIDR may go: all of it is within others, or none of its addresses is its alone.
fn may_go(own: &[Cidr], others: &[Cidr], used: &[IpAddr]) -> bool {
    own.iter().all(|c| others.iter().any(|o| o.contains_network(c)))
        || !used.iter().any(|ip| own.iter().any(|c| c.contains(*ip)) && !others.iter().any(|c| c.contains(*ip)))
}

impl Controller {
    fn deleting(&self) -> Vec<Key> {
        self.cidrs.keys().into_iter().filter(|k| self.cidrs.get(k).is_some_and(|o| o.is_deleting())).collect()
    }

    async fn sync(&self, name: &Key) -> Outcome {
        let Some(object) = self.cidrs.get(name) else { return Ok(None) };
        let cidr: ServiceCIDR = decode(&object)?;
        let now = self.cx.clock.now();
        let held = cidr.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        let Some(deleted) = &cidr.metadata.deletion_timestamp else {
            let object = if held { object } else { self.finalizers(&object, &cidr, true).await? };
            let message = "Kubernetes Service CIDR is ready";
            let ready = cidr
                .status
                .as_ref()
                .and_then(|s| s.conditions.as_ref())
                .is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
            if !ready {
                self.ready(&object, &cidr, true, "", message).await?;
            }
            return Ok(None);
        };
        if !held {
            return Ok(None);
        }
        let others: Vec<ServiceCIDR> = self
            .cidrs
            .list()
            .iter()
            .filter(|o| o.name() != object.name())
            .map(|o| decode(o))
            .collect::<Result<_, Error>>()?;
        let others: Vec<Cidr> =
            others.iter().filter(|c| c.metadata.deletion_timestamp.is_none()).flat_map(prefixes).collect();
        let used: Vec<IpAddr> = self
            .addresses
            .list()
            .iter()
            .filter(|a| a.label(MANAGED_BY.0) == Some(MANAGED_BY.1))
            .filter_map(|a| a.name().parse().ok())
            .collect();
        if !may_go(&prefixes(&cidr), &others, &used) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            self.cx.recorder.normal(&reference_of(&cidr), "KubernetesServiceCIDRTerminating", message);
            self.ready(&object, &cidr, false, "Terminating", message).await?;
            return Ok(None);
        }
        let left = GRACE.saturating_sub(since(deleted.0, now));
        if !left.is_zero() {
            return Ok(Some(left));
        }
        self.finalizers(&object, &cidr, false).await?;
        Ok(None)
    }

    async fn finalizers(
        &self,
        object: &pintle_api::Object,
        cidr: &ServiceCIDR,
        held: bool,
    ) -> Result<Arc<pintle_api::Object>, Error> {
        let mut all: Vec<String> =
            cidr.metadata.finalizers.iter().flatten().filter(|f| *f != FINALIZER).cloned().collect();
        if held {
            all.push(FINALIZER.into());
        }
        status::put_metadata(&self.cx.client, resource_of::<ServiceCIDR>(), object, |m| {
            drop(m.insert("finalizers".into(), json!(all)));
        })
        .await
    }

    async fn ready(
        &self,
        object: &pintle_api::Object,
        cidr: &ServiceCIDR,
        ready: bool,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let value = if ready { "True" } else { "False" };
        let mut conditions = cidr.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Ready" && c.status == value && c.message == message) {
            return Ok(());
        }
        conditions.retain(|c| c.type_ != "Ready");
        conditions.push(Condition {
            type_: "Ready".into(),
            status: value.into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: time(self.cx.clock.now()),
            observed_generation: None,
        });
        let new = ServiceCIDRStatus { conditions: Some(conditions) };
        status::put(&self.cx.client, resource_of::<ServiceCIDR>(), object, &new).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_when_nothing_is_its_alone() {
        for (own, others, used, want) in [
            ("10.0.0.0/24", "", "", true),
            ("10.0.0.0/24", "", "10.0.0.5", false),
            ("10.0.0.0/24", "", "10.0.1.5", true),
            ("10.0.0.0/24", "10.0.0.0/16", "10.0.0.5", true),
            ("10.0.0.0/16", "10.0.0.0/24", "10.0.0.5", true),
            ("10.0.0.0/16", "10.0.0.0/24", "10.0.1.5", false),
            ("10.0.0.0/24 fd00::/112", "10.0.0.0/16", "fd00::5", false),
        ] {
            let list = |t: &str| t.split_whitespace().map(|c| c.parse().unwrap()).collect::<Vec<Cidr>>();
            let used: Vec<IpAddr> = used.split_whitespace().map(|a| a.parse().unwrap()).collect();
            assert_eq!(may_go(&list(own), &list(others), &used), want, "{own} {others} {used:?}");
        }
    }
}
