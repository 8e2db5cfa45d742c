//! Service accounts: every namespace has one called `default`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pintle_client::Change;

use crate::context::{Context, Outcome};
use crate::support::namespaces::{self, Phase};

const WORKERS: usize = 1;
const NAME: &str = "default";

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("serviceaccount");
    let namespaces = namespaces::view(&cx.informers);
    let accounts = cx.informers.of::<ServiceAccount>();
    let q = queue.clone();
    namespaces.on_change(move |change| q.add(change.key().clone()));
    let q = queue.clone();
    accounts.on_change(move |change| {
        if let Change::Deleted(_, account) = change
            && account.name() == NAME
        {
            q.add(account.namespace().into());
        }
    });
    let me = Arc::new((cx.clone(), namespaces, accounts));
    cx.work(me, &queue, WORKERS, |me, key| async move {
        let (cx, namespaces, accounts) = &*me;
        let active = namespaces.get(&key).is_some_and(|n| n.phase() == Phase::Active);
        if active && accounts.get(&format!("{key}/{NAME}")).is_none() { create(cx, &key).await } else { Ok(None) }
    })
    .await;
}

async fn create(cx: &Context, namespace: &str) -> Outcome {
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(NAME.into()), namespace: Some(namespace.into()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    match cx.client.of::<ServiceAccount>().create(&account).await {
        Err(e) if !e.is_already_exists() && !e.is_namespace_terminating() && !e.is_not_found() => Err(e),
        _ => Ok(None),
    }
}
