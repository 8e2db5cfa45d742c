//! ResourceQuotas and LimitRanges.

use jiff::Timestamp;
use pintle_schema::cursor::Cursor;
use serde_json::Value;

use crate::kinds::Strategy;
use crate::kinds::table::{self, Column, text};

/// The strategy of limit ranges.
pub static LIMIT_RANGE: Strategy = Strategy { create_on_update: true, ..Strategy::DEFAULT };

/// The strategy of resource quotas.
pub static RESOURCE_QUOTA: Strategy = Strategy {
    columns: &[
        Column::NAME,
        text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
        text(
            "Limit",
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        ),
        Column::AGE,
    ],
    row,
    ..Strategy::DEFAULT
};

fn row(quota: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = quota.get("status").get("used");
    for (resource, hard) in quota.get("status").get("hard").entries() {
        let used = used.key(resource).opt_str().unwrap_or("0");
        let list = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(format!("{resource}: {used}/{}", hard.str()));
    }
    vec![table::name(quota), requests.join(", ").into(), limits.join(", ").into(), table::age(quota, now)]
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "q", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "status": {"hard": {"pods": "4", "limits.cpu": "2", "requests.cpu": "1"}, "used": {"pods": "1"}},
        });
        assert_eq!(testing::row(&quota, 5), ["q", "pods: 1/4, requests.cpu: 0/1", "limits.cpu: 0/2", "5s"]);
    }
}
