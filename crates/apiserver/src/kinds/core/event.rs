//! Events.

use jiff::Timestamp;
use pintle_api::names::qualified_name;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use crate::kinds::table::{self, Column, text};
use crate::kinds::{Ctx, Strategy};

/// The strategy of events; they are stored in the core group's form.
pub static EVENT: Strategy = Strategy {
    selectable: &[
        ("involvedObject.kind", &["involvedObject", "kind"], ""),
        ("involvedObject.namespace", &["involvedObject", "namespace"], ""),
        ("involvedObject.name", &["involvedObject", "name"], ""),
        ("involvedObject.uid", &["involvedObject", "uid"], ""),
        ("involvedObject.apiVersion", &["involvedObject", "apiVersion"], ""),
        ("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"], ""),
        ("involvedObject.fieldPath", &["involvedObject", "fieldPath"], ""),
        ("reason", &["reason"], ""),
        ("reportingComponent", &["reportingComponent"], ""),
        ("source", &["source", "component"], ""),
        ("source", &["reportingComponent"], ""),
        ("type", &["type"], ""),
    ],
    create_on_update: true,
    validate,
    columns: &[
        text("Last Seen", "@Event.lastTimestamp"),
        text("Type", "@Event.type"),
        text("Reason", "@Event.reason"),
        text("Object", "@Event.involvedObject"),
        text("Subobject", "@ObjectReference.fieldPath").wide(),
        text("Source", "@Event.source").wide(),
        text("Message", "@Event.message"),
        text("First Seen", "@Event.firstTimestamp").wide(),
        text("Count", "@Event.count").wide(),
        Column::NAME.wide(),
    ],
    row,
    ..Strategy::DEFAULT
};

fn validate(ctx: &Ctx<'_>, event: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let new_api = ctx.requested.group == "events.k8s.io";
    validate_old_api(event, new_api, errors);
    if new_api {
        validate_new_api(event, old, errors);
    }
}

fn validate_old_api(event: &Cursor<'_>, new_api: bool, errors: &mut Errors) {
    let involved = event.get("involvedObject").get("namespace");
    let namespace = event.get("metadata").get("namespace").str();
    let timed = !event.get("eventTime").is_empty();
    let fits = match (involved.str(), timed) {
        ("", false) => namespace == "default",
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (of, false) => of == namespace,
        (_, true) => true,
    };
    if !fits {
        errors.invalid_value(&involved, involved.str(), "does not match event.namespace");
    }
    if !timed {
        return;
    }
    let component = event.get("reportingComponent");
    let shown = if new_api { "reportingController" } else { "reportingComponent" };
    if component.is_empty() {
        errors.required(shown, "");
    }
    for message in qualified_name(component.str()) {
        errors.invalid_value(shown, component.str(), message);
    }
    for (field, required, most) in
        [("reportingInstance", true, 128), ("action", true, 128), ("reason", true, 128), ("message", false, 1024)]
    {
        let text = event.get(field);
        if required && text.is_empty() {
            errors.required(&text, "");
        }
        if text.str().len() > most {
            errors.invalid_value(&text, "", format!("can have at most {most} characters"));
        }
    }
}

/// What the newer API asks of an event beside what the old one does; its names are those of the stored form.
fn validate_new_api(event: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    // Upstream compares an update with itself, so that nothing of it is fixed; clients rely on that.
    if old.is_some() {
        return;
    }
    let series = event.get("series");
    if series.is_present() {
        if series.get("count").int() < 2 {
            errors.invalid_value("series.count", "", "should be at least 2");
        }
        if series.get("lastObservedTime").is_empty() {
            errors.required("series.lastObservedTime", "");
        }
    }
    if event.get("eventTime").is_empty() {
        errors.required("eventTime", "");
    }
    let kind = event.get("type").str();
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid_value("type", "", format!("has invalid value: {kind}"));
    }
    for field in ["firstTimestamp", "lastTimestamp", "source"] {
        if !event.get(field).is_empty() {
            errors.invalid_value(field, "", "needs to be unset");
        }
    }
    if event.get("count").int() != 0 {
        errors.invalid_value("count", "", "needs to be unset");
    }
}

fn row(event: &Cursor<'_>, now: Timestamp) -> Vec<Value> {
    let at = |field| event.get(field);
    let first = if at("firstTimestamp").is_empty() { at("eventTime") } else { at("firstTimestamp") };
    let first = table::since(&first, now);
    let series = at("series");
    let (last, count) = if series.is_present() {
        (table::since(&series.get("lastObservedTime"), now), series.get("count").int())
    } else {
        let last = if at("lastTimestamp").is_empty() { first.clone() } else { table::since(&at("lastTimestamp"), now) };
        (last, at("count").int().max(1))
    };
    let involved = at("involvedObject");
    let kind = involved.get("kind").str().to_lowercase();
    let target = match involved.get("name").str() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let either = |one: Cursor<'_>, other: Cursor<'_>| if one.is_empty() { other.str() } else { one.str() }.to_owned();
    let component = either(at("source").get("component"), at("reportingComponent"));
    let instance = either(at("source").get("host"), at("reportingInstance"));
    let source = if instance.is_empty() { component } else { format!("{component}, {instance}") };
    vec![
        last.into(),
        at("type").str().into(),
        at("reason").str().into(),
        target.into(),
        involved.get("fieldPath").str().into(),
        source.into(),
        at("message").str().trim().into(),
        first.into(),
        count.into(),
        table::name(event),
    ]
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Started",
            "message": "Started it\n", "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": "2024-01-01T00:00:30Z", "count": 4,
        });
        assert_eq!(
            testing::row(&event, 60),
            [
                json!("30s"),
                json!("Normal"),
                json!("Started"),
                json!("pod/p"),
                json!("spec.containers{a}"),
                json!("kubelet, n"),
                json!("Started it"),
                json!("60s"),
                json!(4),
                json!("e")
            ]
        );
        let series = json!({"count": 9, "lastObservedTime": "2024-01-01T00:00:50.000000Z"});
        let row = testing::row(&testing::changed(&event, "series", series), 60);
        assert_eq!((&row[0], &row[8]), (&json!("10s"), &json!(9)));
    }
}
