//! Validation of resource slices.

use pintle_api::names::{dns1123_label, label_value};
use pintle_api::quantity::Quantity;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::validate::{EFFECTS, few, pool_name, qualified, unique};
use crate::kinds::core::pod::resources::quantity;
use crate::kinds::core::pod::scheduling::node_selector;
use crate::kinds::core::volume::csi_driver_name;
use crate::kinds::value::same;
use crate::kinds::{Ctx, checks, meta};

const MOST_DEVICES: usize = 128;
/// When devices have taints, consume counters or have lists as attributes.
const MOST_ADVANCED_DEVICES: usize = 64;
const MOST_ATTRIBUTES: usize = 32;
const MOST_VALUES: usize = 48;
const LONGEST_VALUE: usize = 64;
const MOST_TAINTS: usize = 16;
const MOST_COUNTER_SETS: usize = 8;
const MOST_COUNTERS: usize = 32;
const MOST_CONSUMPTIONS: usize = 2;
const MOST_CONDITIONS: usize = 4;
const MOST_CHOICES: usize = 10;

/// A slice.
pub(super) fn slice(_: &Ctx<'_>, slice: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let spec = slice.get("spec");
    csi_driver_name(&spec.get("driver"), errors);
    let pool = spec.get("pool");
    pool_name(&pool.get("name"), errors);
    let slices = pool.get("resourceSliceCount");
    if slices.int() <= 0 {
        errors.invalid_value(&slices, slices.int(), checks::NOT_POSITIVE);
    }
    let generation = pool.get("generation");
    if generation.int() < 0 {
        errors.invalid(&generation, "must be greater than or equal to zero");
    }
    let old = old.map(|o| o.get("spec"));
    if let Some(old) = &old {
        meta::immutable(&pool.get("name"), &old.get("pool").get("name"), errors);
        for field in ["driver", "nodeName"] {
            meta::immutable(&spec.get(field), &old.get(field), errors);
        }
    }
    where_to_be_had(&spec, errors);
    let (devices, counters) = (spec.get("devices"), spec.get("sharedCounters"));
    if devices.is_present() && counters.is_present() {
        errors.invalid_value(&spec, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let advanced = devices.items().any(|d| {
        let lists = |a: &Cursor<'_>| LISTS.iter().any(|list| a.get(list).is_present());
        !d.get("taints").is_empty()
            || !d.get("consumesCounters").is_empty()
            || d.get("attributes").entries().any(|(_, a)| lists(&a))
    });
    if few(&devices, if advanced { MOST_ADVANCED_DEVICES } else { MOST_DEVICES }, errors) {
        let each = spec.get("perDeviceNodeSelection").bool();
        for one in devices.items() {
            let name = one.get("name").str();
            let list = old.as_ref().map(|o| o.get("devices"));
            let before = list.as_ref().and_then(|l| l.items().find(|d| d.get("name").str() == name));
            device(&one, before.as_ref(), each, errors);
        }
        unique(&devices, |d| d.get("name").str().to_owned(), errors);
    }
    if few(&counters, MOST_COUNTER_SETS, errors) {
        for set in counters.items() {
            counter_set(&set, "name", errors);
        }
        unique(&counters, |s| s.get("name").str().to_owned(), errors);
    }
}

fn where_to_be_had(spec: &Cursor<'_>, errors: &mut Errors) {
    const RULE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let several = format!("{RULE}, but multiple fields are set");
    nodes(spec, "must be either unset or set to a non-empty string", true, (RULE, &several), errors);
}

/// The nodes that have a device or all of a slice. They are said in one way, or the rule about that is told: when they
/// are said in none, and when in several.
fn nodes(of: &Cursor<'_>, no_node: &str, slice: bool, (none, several): (&str, &str), errors: &mut Errors) {
    let mut set = Vec::new();
    let node = of.get("nodeName");
    if node.is_present() && node.is_empty() {
        errors.invalid(&node, no_node);
    } else if node.is_present() {
        set.push("`nodeName`");
        checks::subdomain(&node, errors);
    }
    let selector = of.get("nodeSelector");
    if selector.is_present() {
        set.push("`nodeSelector`");
        node_selector(&selector, false, errors);
        let terms = selector.get("nodeSelectorTerms");
        if slice && terms.len() != 1 {
            errors.invalid(&terms, "must have exactly one node selector term");
        }
    }
    let flags = [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")];
    for &(field, shown) in &flags[..if slice { 2 } else { 1 }] {
        match of.get(field).opt_bool() {
            Some(true) => set.push(shown),
            Some(false) => errors.invalid(&of.get(field), "must be either unset or set to true"),
            None => {}
        }
    }
    match set.len() {
        0 => errors.required(of, none),
        1 => {}
        _ => errors.invalid_value(of, format!("{{{}}}", set.join(", ")), several),
    }
}

fn device(device: &Cursor<'_>, old: Option<&Cursor<'_>>, each: bool, errors: &mut Errors) {
    checks::label(&device.get("name"), errors);
    let (attributes, capacity) = (device.get("attributes"), device.get("capacity"));
    let count = attributes.len() + capacity.len();
    if count > MOST_ATTRIBUTES {
        let message = format!("the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}");
        errors.invalid_value(device, count, message);
    }
    let values: usize =
        attributes.entries().map(|(_, a)| LISTS.iter().map(|list| a.get(list).len()).sum::<usize>().max(1)).sum();
    if values > MOST_VALUES {
        let message = format!("the total number of attribute values must not exceed {MOST_VALUES}");
        errors.invalid_value(device, values, message);
    }
    for (name, one) in attributes.entries() {
        qualified(&attributes, name, errors);
        attribute(&one, errors);
    }
    let kept = |field: &'static str| old.is_some_and(|o| same(o.get(field).value(), device.get(field).value()));
    if !kept("capacity") {
        let several = device.get("allowMultipleAllocations").bool();
        for (name, one) in capacity.entries() {
            qualified(&capacity, name, errors);
            request_policy(&one, several, errors);
        }
    }
    if !kept("taints") && few(&device.get("taints"), MOST_TAINTS, errors) {
        for one in device.get("taints").items() {
            taint(&one, errors);
        }
    }
    let consumed = device.get("consumesCounters");
    if few(&consumed, MOST_CONSUMPTIONS, errors) {
        for one in consumed.items() {
            counter_set(&one, "counterSet", errors);
        }
        unique(&consumed, |c| c.get("counterSet").str().to_owned(), errors);
    }
    node_of_device(device, each, errors);
    binding_conditions(device, errors);
}

/// The forms of attributes that are lists.
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

fn attribute(attribute: &Cursor<'_>, errors: &mut Errors) {
    let mut given = 0;
    for field in ["bool", "int", "string", "version"] {
        let value = attribute.get(field);
        given += usize::from(value.is_present());
        if value.is_present() {
            text_of(&value, field, errors);
        }
    }
    for field in LISTS {
        let list = attribute.get(field);
        given += usize::from(list.is_present());
        if list.is_present() && list.is_empty() {
            errors.invalid(&list, "must not be empty if specified");
        }
        for value in list.items() {
            text_of(&value, field.trim_end_matches('s'), errors);
        }
    }
    match given {
        0 => errors.invalid_value(attribute, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(attribute, "exactly one value must be specified"),
    }
}

fn text_of(value: &Cursor<'_>, kind: &str, errors: &mut Errors) {
    if kind == "version" && semver::Version::parse(value.str()).is_err() {
        errors.invalid(value, "must be a string compatible with semver.org spec 2.0.0");
    }
    if value.str().len() > LONGEST_VALUE {
        errors.too_long(value, LONGEST_VALUE);
    }
}

/// How much of a capacity one request may take.
fn request_policy(capacity: &Cursor<'_>, several: bool, errors: &mut Errors) {
    let policy = capacity.get("requestPolicy");
    if policy.is_absent() {
        return;
    }
    if !several {
        return errors.forbidden(&policy, "allowMultipleAllocations must be true");
    }
    let most = quantity(&capacity.get("value"));
    let (values, range, default) = (policy.get("validValues"), policy.get("validRange"), policy.get("default"));
    match (!values.is_empty(), range.is_present()) {
        (true, true) => errors.forbidden(
            &policy,
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (true, false) if default.is_absent() => errors.required(&default, "required when validValues is defined"),
        (true, false) => valid_values(&values, quantity(&default), most, errors),
        (false, true) if default.is_absent() => errors.required(&default, "required when validRange is defined"),
        (false, true) => valid_range(&range, quantity(&default), most, errors),
        (false, false) => {}
    }
}

fn valid_values(list: &Cursor<'_>, default: Quantity, most: Quantity, errors: &mut Errors) {
    let all: Vec<Cursor<'_>> = list.items().collect();
    for pair in all.windows(2) {
        if quantity(&pair[0]) > quantity(&pair[1]) {
            let text = quantity(&pair[1]).to_string();
            errors.invalid_value(&pair[1], text, "values must be sorted in ascending order");
        }
    }
    if few(list, MOST_CHOICES, errors) {
        for one in all.iter().filter(|v| quantity(v) > most) {
            let text = quantity(one).to_string();
            errors.invalid_value(one, text, format!("option is larger than capacity value: {most}"));
        }
        unique(list, |v| quantity(v).value().to_string(), errors);
    }
    if !all.iter().any(|v| quantity(v) == default) {
        errors.invalid_value(list, default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(range: &Cursor<'_>, default: Quantity, most: Quantity, errors: &mut Errors) {
    let (min, max, step) = (range.get("min"), range.get("max"), range.get("step"));
    if min.is_absent() {
        return errors.required(&min, "required when validRange is defined");
    }
    let mut wrong = |at: &Cursor<'_>, value: &Quantity, text: String| {
        errors.invalid_value(at, value.to_string(), text);
    };
    let (low, own) = (quantity(&min), range.get("default"));
    if low > most {
        wrong(&min, &low, format!("min is larger than capacity value: {most}"));
    }
    if default < low {
        wrong(&own, &default, format!("default is less than min: {low}"));
    }
    if max.is_present() {
        let high = quantity(&max);
        if low > high {
            wrong(&max, &low, format!("min is larger than max: {high}"));
        }
        if high > most {
            wrong(&max, &high, format!("max is larger than capacity value: {most}"));
        }
        if default > high {
            wrong(&own, &default, format!("default is more than max: {high}"));
        }
    }
    if step.is_absent() {
        return;
    }
    let by = quantity(&step);
    if by.sign() <= 0 || by.value() <= 0 {
        return wrong(&step, &by, checks::NOT_POSITIVE.to_owned());
    }
    let first = low + by;
    if first > most {
        wrong(&step, &by, format!("one step {first} is larger than capacity value: {most}"));
    }
    for value in std::iter::once(default).chain(max.is_present().then(|| quantity(&max))) {
        if value.value().wrapping_sub(low.value()).wrapping_rem(by.value()) != 0 {
            wrong(&step, &value, format!("value is not a multiple of a given step ({by}) from ({low})"));
        }
    }
}

fn taint(taint: &Cursor<'_>, errors: &mut Errors) {
    let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
    meta::label_key(&key, key.str(), errors);
    if !value.is_empty() {
        meta::invalid_each(&value, label_value(value.str()), errors);
    }
    if effect.is_empty() {
        errors.required(&effect, "");
    } else if !EFFECTS.contains(&effect.str()) {
        errors.not_supported(&effect, effect.str(), EFFECTS);
    }
}

/// Counters: a set of them, or what is consumed of one.
fn counter_set(set: &Cursor<'_>, named: &'static str, errors: &mut Errors) {
    let (name, counters) = (set.get(named), set.get("counters"));
    if name.is_empty() {
        errors.required(&name, "");
    } else {
        checks::label(&name, errors);
    }
    if counters.is_empty() {
        errors.required(&counters, "");
    } else if few(&counters, MOST_COUNTERS, errors) {
        for (name, _) in counters.entries() {
            for message in dns1123_label(name) {
                errors.invalid_value(&counters, name, message);
            }
        }
    }
}

fn node_of_device(device: &Cursor<'_>, each: bool, errors: &mut Errors) {
    const RULE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if !each {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| device.get(field).is_present()) {
            let message = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid_value(device, Value::Null, message);
        }
        return;
    }
    nodes(device, "must not be empty", false, (RULE, RULE), errors);
}

/// Conditions under which a device is bound, or not.
pub(super) fn binding_conditions(of: &Cursor<'_>, errors: &mut Errors) {
    let (good, bad) = (of.get("bindingConditions"), of.get("bindingFailureConditions"));
    for list in [&good, &bad] {
        if few(list, MOST_CONDITIONS, errors) {
            for one in list.items() {
                meta::label_key(&one, one.str(), errors);
            }
        }
    }
    unique(&good, |c| c.str().to_owned(), errors);
    unique(&bad, |c| c.str().to_owned(), errors);
    for one in bad.items().filter(|b| good.items().any(|g| g.str() == b.str())) {
        errors.invalid(&one, "bindingFailureConditions must not overlap with bindingConditions");
    }
    if good.is_empty() && !bad.is_empty() {
        let none = good.value().cloned().unwrap_or_default();
        errors.invalid_value(&good, none, "bindingConditions are required to use bindingFailureConditions");
    }
    if bad.is_empty() && !good.is_empty() {
        let none = bad.value().cloned().unwrap_or_default();
        errors.invalid_value(&bad, none, "bindingFailureConditions are required to use bindingConditions");
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{changed, create_errors, update_errors};
    use serde_json::{Value, json};

    #[test]
    fn slices() {
        let slice = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
            "metadata": {"name": "s", "resourceVersion": "1"},
            "spec": {"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1}, "nodeName": "n",
                "devices": [{"name": "a", "attributes": {"x": {"int": 1}}, "capacity": {"m": {"value": "8"}}}]}});
        let check = |path: &str, to: Value, expect: &str| {
            assert_eq!(create_errors(&changed(&slice, &format!("spec/{path}"), to)), expect, "{path}");
        };
        let policy = |policy: Value| {
            json!({"name": "a", "allowMultipleAllocations": true,
            "capacity": {"m": {"value": "8", "requestPolicy": policy}}})
        };
        let at = "spec.devices[0]";
        let of = "spec.devices[0].capacity[m].requestPolicy";
        check("devices/1", json!({"name": "b"}), "");
        check("devices/1", json!({"name": "a"}), "spec.devices[1]: Duplicate value: \"a\"");
        check(
            "nodeName",
            json!(""),
            "spec.nodeName: Invalid value: \"\": must be either unset or set to a non-empty string\nspec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        );
        check(
            "allNodes",
            json!(true),
            "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        );
        check("allNodes", json!(false), "spec.allNodes: Invalid value: false: must be either unset or set to true");
        check(
            "pool/generation",
            json!(-1),
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
        );
        check("pool/name", json!(""), "spec.pool.name: Required value");
        check(
            "sharedCounters",
            json!([{"name": "c", "counters": {"x": {"value": "1"}}}]),
            "spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed",
        );
        check(
            "devices/0/attributes/x",
            json!({}),
            &format!("{at}.attributes[x]: Invalid value: \"\": exactly one value must be specified"),
        );
        check(
            "devices/0/attributes/x",
            json!({"version": "1"}),
            &format!(
                "{at}.attributes[x].version: Invalid value: \"1\": must be a string compatible with semver.org spec 2.0.0"
            ),
        );
        check(
            "devices/0/attributes/x",
            json!({"string": "y".repeat(65)}),
            &format!("{at}.attributes[x].string: Too long: may not be more than 64 bytes"),
        );
        check(
            "devices/0/consumesCounters",
            json!([{"counterSet": "c"}]),
            &format!("{at}.consumesCounters[0].counters: Required value"),
        );
        check("devices/0/taints", json!([{"key": "k"}]), &format!("{at}.taints[0].effect: Required value"));
        check(
            "devices/0/nodeName",
            json!("n"),
            &format!(
                "{at}: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
            ),
        );
        check(
            "devices/0/bindingConditions",
            json!(["a.example.com/b"]),
            &format!(
                "{at}.bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions"
            ),
        );
        check("devices/0", policy(json!({"default": "1", "validValues": ["1", "2"]})), "");
        check(
            "devices/0",
            policy(json!({"default": "3", "validValues": ["2", "1", "9"]})),
            &format!(
                "{of}.validValues[1]: Invalid value: \"1\": values must be sorted in ascending order\n\
             {of}.validValues[2]: Invalid value: \"9\": option is larger than capacity value: 8\n\
             {of}.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy"
            ),
        );
        check(
            "devices/0",
            policy(json!({"default": "2", "validRange": {"min": "1", "max": "7", "step": "2"}})),
            &format!(
                "{of}.validRange.step: Invalid value: \"2\": value is not a multiple of a given step (2) from (1)"
            ),
        );
        check(
            "devices/0",
            policy(json!({"validRange": {"min": "1"}})),
            &format!("{of}.default: Required value: required when validRange is defined"),
        );
        check(
            "devices/0/capacity/m/requestPolicy",
            json!({"default": "1"}),
            &format!("{of}: Forbidden: allowMultipleAllocations must be true"),
        );
        let other = changed(&slice, "spec/driver", json!("e.example.com"));
        assert_eq!(update_errors(&other, &slice), "spec.driver: Invalid value: \"e.example.com\": field is immutable");
    }
}
