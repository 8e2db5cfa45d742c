//! Clears away tokens that were made for accounts by themselves, long ago, and that nobody uses: first they are marked
//! invalid, and a year later deleted.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use pintle_client::typed::decode;
use pintle_client::{Informer, Key, Patch, UnlessGone};
use serde_json::json;

use crate::context::{Context, Outcome, listen};

use super::account_of;

const WORKERS: usize = 1;
/// How long a token must not have been used.
const UNUSED_DAYS: i32 = 365;
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// Since when the API server notes which tokens are used.
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

struct Controller {
    cx: Context,
    secrets: Informer,
    accounts: Informer,
    pods: Informer,
}

/// The controller.
pub async fn run(cx: Context) {
    let queue = cx.queue("legacy_service_account_token_cleaner");
    let me = Arc::new(Controller {
        secrets: cx.informers.of::<Secret>(),
        accounts: cx.informers.of::<ServiceAccount>(),
        pods: cx.informers.of::<Pod>(),
        cx: cx.clone(),
    });
    let q = queue.clone();
    listen(&me.secrets, &me, move |_, change| {
        if change.now().is_some_and(|s| account_of(s).is_some()) {
            q.add(change.key().clone());
        }
    });
    cx.work(me, &queue, WORKERS, |me, key| async move { me.sync(&key).await }).await;
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    MarkInvalid(String),
    Delete,
}

fn date(text: Option<&str>) -> Option<Date> {
    text?.parse().ok()
}

/// What becomes of a token made for an account by itself that no pod mounts.
fn judge(
    created: Timestamp,
    last_used: Option<&str>,
    invalid_since: Option<&str>,
    tracked_since: Option<Date>,
    now: Timestamp,
) -> Verdict {
    let today = now.to_zoned(TimeZone::UTC).date();
    let old = today.saturating_sub(UNUSED_DAYS.days());
    // Before use was noted nothing is known.
    if tracked_since.is_none_or(|d| d > old) || created.to_zoned(TimeZone::UTC).date() > old {
        return Verdict::Keep;
    }
    if date(last_used).is_some_and(|d| d > old) {
        return Verdict::Keep;
    }
    match date(invalid_since) {
        None => Verdict::MarkInvalid(today.to_string()),
        Some(d) if d <= old => Verdict::Delete,
        Some(_) => Verdict::Keep,
    }
}

impl Controller {
    async fn sync(&self, k: &Key) -> Outcome {
        let Some(object) = self.secrets.get(k) else { return Ok(None) };
        let Some(account) = account_of(&object) else { return Ok(None) };
        let (namespace, name) = (object.namespace(), object.name());
        let account: Option<ServiceAccount> =
            self.accounts.get(&pintle_client::meta::key(namespace, &account)).map(|o| decode(&o)).transpose()?;
        // Only those that an account names were made by themselves.
        let own = account.is_some_and(|a| a.secrets.iter().flatten().any(|s| s.name.as_deref() == Some(name)));
        if !own {
            return Ok(None);
        }
        let mounts = |p: &Pod| {
            let volumes = p.spec.iter().flat_map(|s| s.volumes.iter().flatten());
            volumes.into_iter().any(|v| v.secret.as_ref().is_some_and(|s| s.secret_name.as_deref() == Some(name)))
        };
        let mounted = self.pods.namespace(namespace).iter().any(|o| decode::<Pod>(o).is_ok_and(|p| mounts(&p)));
        if mounted {
            return Ok(Some(EVERY));
        }
        let tracking = self.cx.client.of::<ConfigMap>().get_opt(TRACKING.0, TRACKING.1).await?;
        let since = tracking.and_then(|m| date(m.data?.get("since").map(String::as_str)));
        let created = decode::<Secret>(&object)?.metadata.creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        let verdict = judge(created, object.label(LAST_USED), object.label(INVALID_SINCE), since, self.cx.clock.now());
        match verdict {
            Verdict::Keep => {}
            Verdict::MarkInvalid(today) => {
                let version = object.resource_version().to_string();
                let patch = json!({"metadata": {"uid": object.uid(), "resourceVersion": version, "labels": {INVALID_SINCE: today}}});
                self.cx.client.of::<Secret>().patch(namespace, name, Patch::merge(&patch)?).await.unless_gone()?;
            }
            Verdict::Delete => match self.cx.client.of::<Secret>().delete(namespace, name, Some(object.uid())).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => return Ok(None),
            },
        }
        Ok(Some(EVERY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_and_another() {
        let at = |d: &str| format!("{d}T12:00:00Z").parse::<Timestamp>().unwrap();
        for (created, used, invalid, tracked, want) in [
            ("2020-01-01", None, None, Some("2022-01-01"), Verdict::MarkInvalid("2024-01-01".into())),
            ("2020-01-01", None, None, None, Verdict::Keep),
            ("2020-01-01", None, None, Some("2023-06-01"), Verdict::Keep),
            ("2023-06-01", None, None, Some("2022-01-01"), Verdict::Keep),
            ("2020-01-01", Some("2023-06-01"), None, Some("2022-01-01"), Verdict::Keep),
            ("2020-01-01", Some("2022-06-01"), Some("2023-06-01"), Some("2021-01-01"), Verdict::Keep),
            ("2020-01-01", None, Some("2022-12-31"), Some("2021-01-01"), Verdict::Delete),
        ] {
            let tracked = tracked.map(|d: &str| d.parse().unwrap());
            assert_eq!(
                judge(at(created), used, invalid, tracked, at("2024-01-01")),
                want,
                "{created} {used:?} {invalid:?}"
            );
        }
    }
}
