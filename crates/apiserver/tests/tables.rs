//! The columns of every kind's Table.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt;
use pintle_api::service::{InProcessUser, UserInfo, full};
use pintle_apiserver::{ApiServer, Config, runtime_setting};
use pintle_store::MemoryStore;
use tower::ServiceExt;

/// Resource, and its columns; `+` shown with `-o wide` only; `#` an integer, `?` a boolean, `@` a date.
const COLUMNS: &[(&str, &str)] = &[
    ("componentstatuses", "Name|Status|Message|Error"),
    ("configmaps", "Name|Data|Age"),
    ("endpoints", "Name|Endpoints|Age"),
    ("events", "Last Seen|Type|Reason|Object|+Subobject|+Source|Message|+First Seen|+Count|+Name"),
    ("limitranges", "Name|@Created At"),
    ("namespaces", "Name|Status|Age"),
    ("nodes", "Name|Status|Roles|Age|Version|+Internal-IP|+External-IP|+OS-Image|+Kernel-Version|+Container-Runtime"),
    (
        "persistentvolumeclaims",
        "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|+VolumeMode",
    ),
    (
        "persistentvolumes",
        "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|+VolumeMode",
    ),
    ("pods", "Name|Ready|Status|Restarts|Age|+IP|+Node|+Nominated Node|+Readiness Gates"),
    ("podtemplates", "Name|Containers|Images|Pod Labels"),
    ("replicationcontrollers", "Name|#Desired|#Current|#Ready|Age|+Containers|+Images|+Selector"),
    ("resourcequotas", "Name|Request|Limit|Age"),
    ("secrets", "Name|Type|Data|Age"),
    ("serviceaccounts", "Name|Age"),
    ("services", "Name|Type|Cluster-IP|External-IP|Port(s)|Age|+Selector"),
    ("mutatingadmissionpolicies.admissionregistration.k8s.io", "Name|#Mutations|ParamKind|Age"),
    ("mutatingadmissionpolicybindings.admissionregistration.k8s.io", "Name|PolicyName|ParamRef|Age"),
    ("mutatingwebhookconfigurations.admissionregistration.k8s.io", "Name|#Webhooks|Age"),
    ("validatingadmissionpolicies.admissionregistration.k8s.io", "Name|#Validations|ParamKind|Age"),
    ("validatingadmissionpolicybindings.admissionregistration.k8s.io", "Name|PolicyName|ParamRef|Age"),
    ("validatingwebhookconfigurations.admissionregistration.k8s.io", "Name|#Webhooks|Age"),
    ("customresourcedefinitions.apiextensions.k8s.io", "Name|@Created At"),
    ("apiservices.apiregistration.k8s.io", "Name|Service|Available|Age"),
    ("controllerrevisions.apps", "Name|Controller|Revision|Age"),
    (
        "daemonsets.apps",
        "Name|#Desired|#Current|#Ready|#Up-to-date|#Available|Node Selector|Age|+Containers|+Images|+Selector",
    ),
    ("deployments.apps", "Name|Ready|Up-to-date|Available|Age|+Containers|+Images|+Selector"),
    ("replicasets.apps", "Name|#Desired|#Current|#Ready|Age|+Containers|+Images|+Selector"),
    ("statefulsets.apps", "Name|Ready|Age|+Containers|+Images"),
    ("horizontalpodautoscalers.autoscaling", "Name|Reference|Targets|MinPods|MaxPods|Replicas|Age"),
    ("cronjobs.batch", "Name|Schedule|Timezone|?Suspend|#Active|Last Schedule|Age|+Containers|+Images|+Selector"),
    ("jobs.batch", "Name|Status|Completions|Duration|Age|+Containers|+Images|+Selector"),
    ("certificatesigningrequests.certificates.k8s.io", "Name|Age|SignerName|Requestor|RequestedDuration|Condition"),
    ("leases.coordination.k8s.io", "Name|Holder|Age"),
    ("endpointslices.discovery.k8s.io", "Name|AddressType|Ports|Endpoints|Age"),
    ("events.events.k8s.io", "Last Seen|Type|Reason|Object|+Subobject|+Source|Message|+First Seen|+Count|+Name"),
    (
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "Name|PriorityLevel|MatchingPrecedence|DistinguisherMethod|Age|MissingPL",
    ),
    (
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        "Name|Type|NominalConcurrencyShares|Queues|HandSize|QueueLengthLimit|Age",
    ),
    ("ingressclasses.networking.k8s.io", "Name|Controller|Parameters|Age"),
    ("ingresses.networking.k8s.io", "Name|Class|Hosts|Address|Ports|Age"),
    ("ipaddresses.networking.k8s.io", "Name|ParentRef"),
    ("networkpolicies.networking.k8s.io", "Name|Pod-Selector|Age"),
    ("servicecidrs.networking.k8s.io", "Name|CIDRs|Age"),
    ("runtimeclasses.node.k8s.io", "Name|Handler|Age"),
    ("poddisruptionbudgets.policy", "Name|Min Available|Max Unavailable|#Allowed Disruptions|Age"),
    ("clusterrolebindings.rbac.authorization.k8s.io", "Name|Role|Age|+Users|+Groups|+ServiceAccounts"),
    ("clusterroles.rbac.authorization.k8s.io", "Name|@Created At"),
    ("rolebindings.rbac.authorization.k8s.io", "Name|Role|Age|+Users|+Groups|+ServiceAccounts"),
    ("roles.rbac.authorization.k8s.io", "Name|@Created At"),
    ("deviceclasses.resource.k8s.io", "Name|Age"),
    ("resourceclaims.resource.k8s.io", "Name|State|Age"),
    ("resourceclaimtemplates.resource.k8s.io", "Name|Age"),
    ("resourceslices.resource.k8s.io", "Name|Node|Driver|Pool|Age"),
    ("priorityclasses.scheduling.k8s.io", "Name|#Value|?Global-Default|Age|PreemptionPolicy"),
    (
        "csidrivers.storage.k8s.io",
        "Name|?AttachRequired|?PodInfoOnMount|?StorageCapacity|TokenRequests|?RequiresRepublish|Modes|Age",
    ),
    ("csinodes.storage.k8s.io", "Name|#Drivers|Age"),
    ("csistoragecapacities.storage.k8s.io", "Name|StorageClassName|Capacity"),
    ("storageclasses.storage.k8s.io", "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age"),
    ("volumeattachments.storage.k8s.io", "Name|Attacher|PV|Node|?Attached|Age"),
    ("volumeattributesclasses.storage.k8s.io", "Name|DriverName|Age"),
];

#[tokio::test]
async fn columns_are_upstreams() {
    let mut config = Config::new(Arc::new(MemoryStore::new()));
    config.runtime_config = vec![runtime_setting("api/all").unwrap()];
    let api = ApiServer::new(config).unwrap();
    api.start().await.unwrap();
    let want: BTreeMap<&str, &str> = COLUMNS.iter().copied().collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for r in pintle_api::resources::all().iter().filter(|r| r.has_verb("list")) {
        let mut request = Request::builder()
            .uri(r.path(None))
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(full(""))
            .unwrap();
        let admin = UserInfo::authenticated("a", &["system:masters"]);
        request.extensions_mut().insert(InProcessUser(Arc::new(admin)));
        let answer = api.service().oneshot(request).await.unwrap();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let table: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let columns: Vec<String> = table["columnDefinitions"]
            .as_array()
            .unwrap_or_else(|| panic!("{}: {table}", r.group_resource()))
            .iter()
            .map(|c| {
                assert!(!c["description"].as_str().unwrap().is_empty(), "{c}");
                let wide = if c["priority"] == 1 { "+" } else { "" };
                let kind = match c["type"].as_str().unwrap() {
                    "integer" => "#",
                    "boolean" => "?",
                    "date" => "@",
                    _ => "",
                };
                format!("{wide}{kind}{}", c["name"].as_str().unwrap())
            })
            .collect();
        let Some(want) = want.get(r.group_resource().as_str()) else { continue };
        seen += 1;
        if columns.join("|") != *want {
            wrong.push(format!("{}: {} and not {want}", r.group_resource(), columns.join("|")));
        }
    }
    assert!(wrong.is_empty() && seen >= COLUMNS.len(), "{seen} seen; {wrong:#?}");
}
