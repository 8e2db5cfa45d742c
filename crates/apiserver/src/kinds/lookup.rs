//! Which strategy a resource has.

use super::strategy::Strategy;
use super::{
    admissionregistration as admission, apiextensions, apiregistration, apps, autoscaling, batch, certificates,
    coordination, core, flowcontrol, groups, networking, node, policy, rbac, resource, scheduling, storage,
};
use pintle_api::resources::Resource;

/// The strategy of custom resources: their schema says the rest.
pub static CUSTOM: Strategy =
    Strategy { generation: &[&["spec"]], unconditional_update: false, free_finalizers: true, ..Strategy::DEFAULT };

static DEFAULT: Strategy = Strategy::DEFAULT;

/// The strategy of a built-in resource. All versions of a resource share one.
pub fn strategy(resource: &Resource) -> &'static Strategy {
    match (resource.group, resource.resource) {
        ("", "componentstatuses") => &core::components::COMPONENT_STATUS,
        ("", "configmaps") => &core::config::CONFIG_MAP,
        ("", "endpoints") => &core::endpoints::ENDPOINTS,
        ("" | "events.k8s.io", "events") => &core::event::EVENT,
        ("", "limitranges") => &core::quota::LIMIT_RANGE,
        ("", "namespaces") => &core::namespace::NAMESPACE,
        ("", "nodes") => &core::node::NODE,
        ("", "persistentvolumeclaims") => &core::volume::PERSISTENT_VOLUME_CLAIM,
        ("", "persistentvolumes") => &core::volume::PERSISTENT_VOLUME,
        ("", "pods") => &core::pod::POD,
        ("", "podtemplates") => &core::replication::POD_TEMPLATE,
        ("", "replicationcontrollers") => &core::replication::REPLICATION_CONTROLLER,
        ("", "resourcequotas") => &core::quota::RESOURCE_QUOTA,
        ("", "secrets") => &core::config::SECRET,
        ("", "serviceaccounts") => &core::config::SERVICE_ACCOUNT,
        ("", "services") => &core::service::SERVICE,
        ("admissionregistration.k8s.io", kind) => match kind {
            "mutatingwebhookconfigurations" => &admission::MUTATING_WEBHOOK,
            "validatingwebhookconfigurations" => &admission::VALIDATING_WEBHOOK,
            "mutatingadmissionpolicies" => &admission::MUTATING_POLICY,
            "validatingadmissionpolicies" => &admission::VALIDATING_POLICY,
            "mutatingadmissionpolicybindings" => &admission::MUTATING_BINDING,
            "validatingadmissionpolicybindings" => &admission::VALIDATING_BINDING,
            _ => &DEFAULT,
        },
        ("apiextensions.k8s.io", "customresourcedefinitions") => &apiextensions::CUSTOM_RESOURCE_DEFINITION,
        ("apiregistration.k8s.io", "apiservices") => &apiregistration::API_SERVICE,
        ("apps", kind) => match kind {
            "controllerrevisions" => &apps::CONTROLLER_REVISION,
            "daemonsets" => &apps::DAEMON_SET,
            "deployments" => &apps::DEPLOYMENT,
            "replicasets" => &apps::REPLICA_SET,
            "statefulsets" => &apps::STATEFUL_SET,
            _ => &DEFAULT,
        },
        ("autoscaling", "horizontalpodautoscalers") => &autoscaling::HORIZONTAL_POD_AUTOSCALER,
        ("batch", "cronjobs") => &batch::CRON_JOB,
        ("batch", "jobs") => &batch::JOB,
        ("certificates.k8s.io", "certificatesigningrequests") => &certificates::CERTIFICATE_SIGNING_REQUEST,
        ("certificates.k8s.io", "clustertrustbundles") => &certificates::CLUSTER_TRUST_BUNDLE,
        ("coordination.k8s.io", "leasecandidates") => &coordination::LEASE_CANDIDATE,
        ("coordination.k8s.io", "leases") => &coordination::LEASE,
        ("discovery.k8s.io", "endpointslices") => &networking::ENDPOINT_SLICE,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flowcontrol::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &flowcontrol::PRIORITY_LEVEL,
        ("networking.k8s.io", kind) => match kind {
            "ingressclasses" => &networking::INGRESS_CLASS,
            "ingresses" => &networking::INGRESS,
            "ipaddresses" => &networking::IP_ADDRESS,
            "networkpolicies" => &networking::NETWORK_POLICY,
            "servicecidrs" => &networking::SERVICE_CIDR,
            _ => &DEFAULT,
        },
        ("node.k8s.io", "runtimeclasses") => &node::RUNTIME_CLASS,
        ("policy", "poddisruptionbudgets") => &policy::POD_DISRUPTION_BUDGET,
        ("rbac.authorization.k8s.io", kind) => match kind {
            "clusterrolebindings" => &rbac::CLUSTER_ROLE_BINDING,
            "clusterroles" => &rbac::CLUSTER_ROLE,
            "rolebindings" => &rbac::ROLE_BINDING,
            "roles" => &rbac::ROLE,
            _ => &DEFAULT,
        },
        ("resource.k8s.io", kind) => match kind {
            "deviceclasses" => &resource::DEVICE_CLASS,
            "resourceclaims" => &resource::RESOURCE_CLAIM,
            "resourceclaimtemplates" => &resource::RESOURCE_CLAIM_TEMPLATE,
            "resourceslices" => &resource::RESOURCE_SLICE,
            _ => &DEFAULT,
        },
        ("scheduling.k8s.io", "podgroups") => &groups::POD_GROUP,
        ("scheduling.k8s.io", "priorityclasses") => &scheduling::PRIORITY_CLASS,
        ("scheduling.k8s.io", "workloads") => &groups::WORKLOAD,
        ("storage.k8s.io", kind) => match kind {
            "csidrivers" => &storage::CSI_DRIVER,
            "csinodes" => &storage::CSI_NODE,
            "csistoragecapacities" => &storage::CSI_STORAGE_CAPACITY,
            "storageclasses" => &storage::STORAGE_CLASS,
            "volumeattachments" => &storage::VOLUME_ATTACHMENT,
            "volumeattributesclasses" => &storage::VOLUME_ATTRIBUTES_CLASS,
            _ => &DEFAULT,
        },
        _ => &DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing;
    use pintle_api::resources::{self, Stage};
    use serde_json::json;

    /// Every stored GA resource has a strategy of its own, and each makes a row of as many cells as columns, even of an
    /// object that has nothing.
    #[test]
    fn every_stored_kind() {
        for r in resources::all().iter().filter(|r| r.stage == Stage::Ga && r.storage_key.is_some()) {
            assert!(!std::ptr::eq(strategy(r), &raw const DEFAULT), "{}", r.group_resource());
            testing::row(&json!({"apiVersion": r.api_version(), "kind": r.kind, "metadata": {"name": "x"}}), 0);
        }
    }
}
