//! Which controllers there are, which of them run, and running them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pintle_api::service::UserInfo;
use pintle_client::{Client, Clock, Informers, Recorder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::{Config, Context};

type Run = fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One controller.
pub struct Controller {
    /// Its name, as `--controllers` takes it.
    pub name: &'static str,
    /// Its service account in `kube-system`.
    pub account: &'static str,
    /// Component name in its Events.
    pub component: &'static str,
    run: Run,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! controllers {
    ($($name:literal $account:literal $component:literal $run:path;)*) => {
        &[$(Controller { name: $name, account: $account, component: $component, run: |cx| Box::pin($run(cx)) },)*]
    };
}

/// Every controller there is, in the order they start.
#[must_use]
pub fn all() -> &'static [Controller] {
    controllers! {
        "namespace-controller" "namespace-controller" "namespace-controller" crate::namespace::run;
        "serviceaccount-controller" "service-account-controller" "service-account-controller" crate::serviceaccount::run;
        "root-ca-certificate-publisher-controller" "root-ca-cert-publisher" "root-ca-cert-publisher" crate::rootca::run;
        "endpoints-controller" "endpoint-controller" "endpoint-controller" crate::endpoints::run;
        "endpointslice-controller" "endpointslice-controller" "endpoint-slice-controller" crate::endpointslice::run;
        "endpointslice-mirroring-controller" "endpointslicemirroring-controller" "endpoint-slice-mirroring-controller" crate::endpointslicemirroring::run;
        "replicationcontroller-controller" "replication-controller" "replication-controller" crate::replicaset::run_replication;
        "replicaset-controller" "replicaset-controller" "replicaset-controller" crate::replicaset::run;
        "deployment-controller" "deployment-controller" "deployment-controller" crate::deployment::run;
        "daemonset-controller" "daemon-set-controller" "daemonset-controller" crate::daemonset::run;
        "statefulset-controller" "statefulset-controller" "statefulset-controller" crate::statefulset::run;
        "job-controller" "job-controller" "job-controller" crate::job::run;
        "cronjob-controller" "cronjob-controller" "cronjob-controller" crate::cronjob::run;
        "ttl-after-finished-controller" "ttl-after-finished-controller" "ttl-after-finished-controller" crate::ttlafterfinished::run;
        "horizontal-pod-autoscaler-controller" "horizontal-pod-autoscaler" "horizontal-pod-autoscaler" crate::horizontalpodautoscaler::run;
        "disruption-controller" "disruption-controller" "controllermanager" crate::disruption::run;
        "clusterrole-aggregation-controller" "clusterrole-aggregation-controller" "clusterrole-aggregation-controller" crate::clusterroleaggregation::run;
        "resourcequota-controller" "resourcequota-controller" "resourcequota-controller" crate::resourcequota::run;
        "persistentvolume-binder-controller" "persistent-volume-binder" "persistentvolume-controller" crate::persistentvolume::run;
        "persistentvolume-attach-detach-controller" "attachdetach-controller" "attachdetach-controller" crate::attachdetach::run;
        "persistentvolume-expander-controller" "expand-controller" "volume_expand" crate::expander::run;
        "ephemeral-volume-controller" "ephemeral-volume-controller" "ephemeral_volume" crate::ephemeralvolume::run;
        "volumeattributesclass-protection-controller" "volumeattributesclass-protection-controller" "volumeattributesclass-protection-controller" crate::volumeprotection::run_attributes_classes;
        "persistentvolumeclaim-protection-controller" "pvc-protection-controller" "pvc-protection-controller" crate::volumeprotection::run_claims;
        "persistentvolume-protection-controller" "pv-protection-controller" "pv-protection-controller" crate::volumeprotection::run_volumes;
        "certificatesigningrequest-approving-controller" "certificate-controller" "csrapproving" crate::certificates::run_approving;
        "certificatesigningrequest-signing-controller" "certificate-controller" "csrsigning" crate::certificates::run_signing;
        "certificatesigningrequest-cleaner-controller" "certificate-controller" "csrcleaner" crate::certificates::run_cleaning;
        "node-ipam-controller" "node-controller" "cidrAllocator" crate::nodeipam::run;
        "node-lifecycle-controller" "node-controller" "node-controller" crate::nodelifecycle::run;
        "taint-eviction-controller" "node-controller" "taint-eviction-controller" crate::tainteviction::run;
        "pod-garbage-collector-controller" "pod-garbage-collector" "pod-garbage-collector" crate::podgc::run;
        "garbage-collector-controller" "generic-garbage-collector" "garbage-collector-controller" crate::garbagecollector::run;
    }
}

/// The controllers that a `--controllers` list selects.
///
/// # Errors
/// When it names one that does not exist.
pub fn select(list: &[String]) -> Result<Vec<&'static Controller>, String> {
    for item in list {
        let name = item.strip_prefix('-').unwrap_or(item);
        if name != "*" && !all().iter().any(|c| c.name == name) {
            return Err(format!("{name:?} is not in the list of known controllers"));
        }
    }
    let on = |name: &str| {
        let out = list.iter().any(|i| i.strip_prefix('-') == Some(name));
        list.iter().any(|i| i == name || (i == "*" && !out))
    };
    Ok(all().iter().filter(|c| on(c.name)).collect())
}

/// Runs the selected controllers until `shutdown`. Informers are the caller's, so that the process shares them.
///
/// # Errors
/// When the configuration names a controller that does not exist.
pub async fn run(
    client: Client,
    informers: Informers,
    config: Config,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), String> {
    let selected = select(&config.controllers)?;
    let config = Arc::new(config);
    let mut tasks = JoinSet::new();
    for controller in selected {
        let client = client
            .as_user(UserInfo::service_account("kube-system", controller.account))
            .with_user_agent(&format!("pintle/{} ({})", env!("CARGO_PKG_VERSION"), controller.name));
        let context = Context {
            recorder: Recorder::new(client.clone(), controller.component, None, clock.clone()),
            client,
            informers: informers.handle(),
            clock: clock.clone(),
            config: config.clone(),
            shutdown: shutdown.clone(),
        };
        tasks.spawn((controller.run)(context));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller failed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection() {
        let select = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|s| (*s).to_owned()).collect();
            select(&list).map(|v| v.iter().map(|c| c.name).collect::<Vec<_>>())
        };
        assert_eq!(select(&["*"]).unwrap().len(), all().len());
        assert_eq!(select(&["deployment-controller"]).unwrap(), ["deployment-controller"]);
        assert!(!select(&["*", "-deployment-controller"]).unwrap().contains(&"deployment-controller"));
        assert_eq!(select(&["-deployment-controller"]).unwrap(), [""; 0]);
        assert!(select(&["*", "nope"]).unwrap_err().contains("nope"));
    }
}
