//! Root CA publisher: every namespace has the ConfigMap by which its pods know the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pintle_client::Error;
use pintle_client::typed::decode;

use crate::context::{Context, Outcome};
use crate::support::namespaces::{self, Phase};

const WORKERS: usize = 1;
const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
const ABOUT: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// The controller. Without a bundle there is nothing to publish.
pub async fn run(cx: Context) {
    let Some(bundle) = cx.config.root_ca.clone() else { return };
    let queue = cx.queue("root_ca_cert_publisher");
    let namespaces = namespaces::view(&cx.informers);
    let maps = cx.informers.of::<ConfigMap>();
    let q = queue.clone();
    namespaces.on_change(move |change| q.add(change.key().clone()));
    let q = queue.clone();
    maps.on_change(move |change| {
        let map = change.last();
        // One that is new is ours or will be seen with its namespace.
        if map.name() == NAME && change.before().is_some() {
            q.add(map.namespace().into());
        }
    });
    let me = Arc::new((cx.clone(), namespaces, maps, bundle));
    cx.work(me, &queue, WORKERS, |me, key| async move {
        let (cx, namespaces, maps, bundle) = &*me;
        if namespaces.get(&key).is_none_or(|n| n.phase() == Phase::Terminating) {
            return Ok(None);
        }
        match maps.get(&format!("{key}/{NAME}")) {
            None => create(cx, &key, bundle).await,
            Some(object) => repair(cx, decode(&object)?, bundle).await,
        }
    })
    .await;
}

fn data(bundle: &str) -> BTreeMap<String, String> {
    [(FIELD.to_owned(), bundle.to_owned())].into()
}

async fn create(cx: &Context, namespace: &str, bundle: &str) -> Outcome {
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(namespace.into()),
            annotations: Some([(ABOUT.to_owned(), DESCRIPTION.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(data(bundle)),
        ..ConfigMap::default()
    };
    ignore_terminating(cx.client.of::<ConfigMap>().create(&map).await.map(drop))
}

async fn repair(cx: &Context, mut map: ConfigMap, bundle: &str) -> Outcome {
    let described = map.metadata.annotations.as_ref().and_then(|a| a.get(ABOUT)).is_some_and(|v| v == DESCRIPTION);
    if map.data.as_ref() == Some(&data(bundle)) && described {
        return Ok(None);
    }
    map.data = Some(data(bundle));
    map.metadata.annotations.get_or_insert_default().insert(ABOUT.into(), DESCRIPTION.into());
    ignore_terminating(cx.client.of::<ConfigMap>().update(&map).await.map(drop))
}

fn ignore_terminating(result: Result<(), Error>) -> Outcome {
    match result {
        Err(e) if !e.is_already_exists() && !e.is_namespace_terminating() && !e.is_not_found() => Err(e),
        _ => Ok(None),
    }
}
