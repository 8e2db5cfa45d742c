//! Which controllers there are, which of them run, and running them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pintle_api::service::UserInfo;
use pintle_client::{Client, Clock, Informers, LeaderConfig, Recorder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::{Config, Context};

type Run = fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One controller.
pub struct Controller {
    /// Its name, as `--controllers` takes it.
    pub name: &'static str,
    /// Its older name, which `--controllers` takes too; empty when it never had one.
    pub alias: &'static str,
    /// Its service account in `kube-system`; without one it acts as the controller manager.
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
    ($($name:literal $alias:literal $account:literal $component:literal $run:path;)*) => {
        &[$(Controller { name: $name, alias: $alias, account: $account, component: $component, run: |cx| Box::pin($run(cx)) },)*]
    };
}

/// Every controller there is, in the order they start.
#[must_use]
pub fn all() -> &'static [Controller] {
    controllers! {
        "serviceaccount-token-controller" "serviceaccount-token" "" "serviceaccount-token-controller" crate::serviceaccounttokens::run;
        "namespace-controller" "namespace" "namespace-controller" "namespace-controller" crate::namespace::run;
        "serviceaccount-controller" "serviceaccount" "service-account-controller" "service-account-controller" crate::serviceaccount::run;
        "root-ca-certificate-publisher-controller" "root-ca-cert-publisher" "root-ca-cert-publisher" "root-ca-cert-publisher" crate::rootca::run;
        "endpoints-controller" "endpoint" "endpoint-controller" "endpoint-controller" crate::endpoints::run;
        "endpointslice-controller" "endpointslice" "endpointslice-controller" "endpoint-slice-controller" crate::endpointslice::run;
        "endpointslice-mirroring-controller" "endpointslicemirroring" "endpointslicemirroring-controller" "endpoint-slice-mirroring-controller" crate::endpointslicemirroring::run;
        "replicationcontroller-controller" "replicationcontroller" "replication-controller" "replication-controller" crate::replicaset::run_replication;
        "replicaset-controller" "replicaset" "replicaset-controller" "replicaset-controller" crate::replicaset::run;
        "deployment-controller" "deployment" "deployment-controller" "deployment-controller" crate::deployment::run;
        "daemonset-controller" "daemonset" "daemon-set-controller" "daemonset-controller" crate::daemonset::run;
        "statefulset-controller" "statefulset" "statefulset-controller" "statefulset-controller" crate::statefulset::run;
        "job-controller" "job" "job-controller" "job-controller" crate::job::run;
        "cronjob-controller" "cronjob" "cronjob-controller" "cronjob-controller" crate::cronjob::run;
        "ttl-after-finished-controller" "ttl-after-finished" "ttl-after-finished-controller" "ttl-after-finished-controller" crate::ttlafterfinished::run;
        "horizontal-pod-autoscaler-controller" "horizontalpodautoscaling" "horizontal-pod-autoscaler" "horizontal-pod-autoscaler" crate::horizontalpodautoscaler::run;
        "disruption-controller" "disruption" "disruption-controller" "controllermanager" crate::disruption::run;
        "clusterrole-aggregation-controller" "clusterrole-aggregation" "clusterrole-aggregation-controller" "clusterrole-aggregation-controller" crate::clusterroleaggregation::run;
        "resourcequota-controller" "resourcequota" "resourcequota-controller" "resourcequota-controller" crate::resourcequota::run;
        "persistentvolume-binder-controller" "persistentvolume-binder" "persistent-volume-binder" "persistentvolume-controller" crate::persistentvolume::run;
        "persistentvolume-attach-detach-controller" "attachdetach" "attachdetach-controller" "attachdetach-controller" crate::attachdetach::run;
        "persistentvolume-expander-controller" "persistentvolume-expander" "expand-controller" "volume_expand" crate::expander::run;
        "ephemeral-volume-controller" "ephemeral-volume" "ephemeral-volume-controller" "ephemeral_volume" crate::ephemeralvolume::run;
        "volumeattributesclass-protection-controller" "" "volumeattributesclass-protection-controller" "volumeattributesclass-protection-controller" crate::volumeprotection::run_attributes_classes;
        "persistentvolumeclaim-protection-controller" "pvc-protection" "pvc-protection-controller" "pvc-protection-controller" crate::volumeprotection::run_claims;
        "persistentvolume-protection-controller" "pv-protection" "pv-protection-controller" "pv-protection-controller" crate::volumeprotection::run_volumes;
        "certificatesigningrequest-approving-controller" "csrapproving" "certificate-controller" "csrapproving" crate::certificates::run_approving;
        "certificatesigningrequest-signing-controller" "csrsigning" "certificate-controller" "csrsigning" crate::certificates::run_signing;
        "certificatesigningrequest-cleaner-controller" "csrcleaner" "certificate-controller" "csrcleaner" crate::certificates::run_cleaning;
        "node-ipam-controller" "nodeipam" "node-controller" "cidrAllocator" crate::nodeipam::run;
        "node-lifecycle-controller" "nodelifecycle" "node-controller" "node-controller" crate::nodelifecycle::run;
        "taint-eviction-controller" "" "node-controller" "taint-eviction-controller" crate::tainteviction::run;
        "pod-garbage-collector-controller" "podgc" "pod-garbage-collector" "pod-garbage-collector" crate::podgc::run;
        "garbage-collector-controller" "garbagecollector" "generic-garbage-collector" "garbage-collector-controller" crate::garbagecollector::run;
        "legacy-serviceaccount-token-cleaner-controller" "legacy-service-account-token-cleaner" "legacy-service-account-token-cleaner" "legacy-service-account-token-cleaner" crate::serviceaccounttokens::run_cleaner;
        "ttl-controller" "ttl" "ttl-controller" "ttl-controller" crate::ttl::run;
        "service-cidr-controller" "" "service-cidrs-controller" "service-cidr-controller" crate::servicecidr::run;
        "validatingadmissionpolicy-status-controller" "" "validatingadmissionpolicy-status-controller" "validatingadmissionpolicy-status-controller" crate::policystatus::run;
        "resourceclaim-controller" "resource-claim-controller" "resource-claim-controller" "resource_claim" crate::resourceclaim::run;
        "bootstrap-signer-controller" "bootstrapsigner" "bootstrap-signer" "bootstrap-signer" crate::bootstrap::run_signer;
        "token-cleaner-controller" "tokencleaner" "token-cleaner" "token-cleaner" crate::bootstrap::run_cleaner;
    }
}

/// Those that `*` does not mean: who wants machines to join by tokens asks for them.
const OFF: [&str; 2] = ["bootstrap-signer-controller", "token-cleaner-controller"];

/// The controllers that a `--controllers` list selects. Of what is said of one the first counts.
///
/// # Errors
/// When it names one that does not exist.
pub fn select(list: &[String]) -> Result<Vec<&'static Controller>, String> {
    let is = |c: &Controller, name: &str| c.name == name || (!c.alias.is_empty() && c.alias == name);
    for item in list {
        let name = item.strip_prefix('-').unwrap_or(item);
        if item != "*" && !all().iter().any(|c| is(c, name)) {
            return Err(format!("{name:?} is not in the list of known controllers"));
        }
    }
    let on = |c: &Controller| {
        for item in list {
            match item.strip_prefix('-') {
                Some(name) if is(c, name) => return false,
                None if is(c, item) => return true,
                _ => {}
            }
        }
        list.iter().any(|i| i == "*") && !OFF.contains(&c.name)
    };
    Ok(all().iter().filter(|c| on(c)).collect())
}

/// Runs the selected controllers whenever this replica holds the Lease `kube-system/kube-controller-manager`, until
/// `shutdown`. Informers are the caller's, so that the process shares them.
///
/// # Errors
/// When the configuration names a controller that does not exist.
pub async fn lead(
    client: Client,
    informers: Informers,
    config: Config,
    identity: &str,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), String> {
    select(&config.controllers)?;
    let lease = LeaderConfig::new("kube-system", "kube-controller-manager", identity);
    let recorder = Recorder::new(client.clone(), identity, None, clock.clone());
    let lead = |stop| {
        let work = run(client.clone(), informers.clone(), config.clone(), clock.clone(), stop);
        async move {
            // The list of controllers was checked.
            if let Err(error) = work.await {
                tracing::error!(%error, "the controllers ended");
            }
        }
    };
    pintle_client::leader::stand(&client, &lease, &clock, Some(&recorder), &shutdown, lead).await;
    Ok(())
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
        let client = match controller.account {
            "" => client.clone(),
            account => client.as_user(UserInfo::service_account("kube-system", account)),
        };
        let client = client.with_user_agent(&format!("kube-controller-manager/v1.36.0 pintle/{}", controller.name));
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
        assert_eq!(select(&["*"]).unwrap().len(), all().len() - OFF.len());
        assert!(select(&["*", "bootstrap-signer-controller"]).unwrap().contains(&"bootstrap-signer-controller"));
        assert_eq!(select(&["tokencleaner"]).unwrap(), ["token-cleaner-controller"]);
        assert!(!select(&["-podgc", "*"]).unwrap().contains(&"pod-garbage-collector-controller"));
        assert_eq!(select(&["deployment-controller"]).unwrap(), ["deployment-controller"]);
        assert!(!select(&["*", "-deployment-controller"]).unwrap().contains(&"deployment-controller"));
        assert_eq!(select(&["-deployment-controller"]).unwrap(), [""; 0]);
        assert_eq!(select(&["*", "-nope"]).unwrap_err(), "\"nope\" is not in the list of known controllers");
    }
}
