//! CEL selectors of devices, with Kubernetes' quantities and versions.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use cel::extractors::This;
use cel::objects::{Key, Map, Opaque, Value};
use cel::{Context, ExecutionError, Program};
use pintle_api::quantity::Quantity;

use crate::model::devices::Device;

/// A quantity within an expression.
#[derive(Debug, PartialEq, Eq)]
struct CelQuantity(Quantity);

impl Opaque for CelQuantity {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.Quantity"
    }
}

/// A semantic version within an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Semver {
    numbers: [u64; 3],
    pre: String,
}

impl Opaque for Semver {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.Semver"
    }
}

impl Semver {
    fn parse(text: &str) -> Option<Self> {
        let text = text.split('+').next()?;
        let (core, pre) = text.split_once('-').unwrap_or((text, ""));
        let mut parts = core.split('.');
        let mut next = || {
            let part = parts.next()?;
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            if plain { part.parse().ok() } else { None }
        };
        let numbers = [next()?, next()?, next()?];
        parts.next().is_none().then(|| Self { numbers, pre: pre.to_owned() })
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            // A release comes after what leads up to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => pre_release(&self.pre).cmp(&pre_release(&other.pre)),
        };
        self.numbers.cmp(&other.numbers).then_with(by_pre)
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Identifiers of a pre-release in the order they compare: numbers below words.
fn pre_release(text: &str) -> Vec<(bool, u64, &str)> {
    let one = |id| match str::parse::<u64>(id) {
        Ok(n) => (false, n, ""),
        Err(_) => (true, 0, id),
    };
    text.split('.').map(one).collect()
}

fn fail(function: &str, why: &str) -> ExecutionError {
    ExecutionError::function_error(function, why)
}

/// The order of two quantities or two versions.
fn order(a: &Value, b: &Value) -> Result<Ordering, ExecutionError> {
    if let (Value::Opaque(a), Value::Opaque(b)) = (a, b) {
        if let (Some(a), Some(b)) = (a.downcast_ref::<CelQuantity>(), b.downcast_ref::<CelQuantity>()) {
            return Ok(a.0.cmp(&b.0));
        }
        if let (Some(a), Some(b)) = (a.downcast_ref::<Semver>(), b.downcast_ref::<Semver>()) {
            return Ok(a.cmp(b));
        }
    }
    Err(fail("compareTo", "no such overload"))
}

fn quantity_of(v: &Value) -> Result<Quantity, ExecutionError> {
    match v {
        Value::Opaque(o) => o.downcast_ref::<CelQuantity>().map(|q| q.0),
        _ => None,
    }
    .ok_or_else(|| fail("quantity", "no such overload"))
}

fn version_part(v: &Value, part: usize) -> Result<i64, ExecutionError> {
    let version = match v {
        Value::Opaque(o) => o.downcast_ref::<Semver>(),
        _ => None,
    };
    let version = version.ok_or_else(|| fail("semver", "no such overload"))?;
    i64::try_from(version.numbers[part]).map_err(|_| fail("semver", "out of range"))
}

fn opaque(v: impl Opaque) -> Value {
    Value::Opaque(Arc::new(v))
}

/// A context with Kubernetes' functions.
fn context<'v>() -> Result<Context<'static, 'v>, String> {
    let mut c = Context::default();
    let mut declare = || -> Result<(), cel::DeclarationError> {
        c.add_function("quantity", |text: Arc<String>| -> Result<Value, ExecutionError> {
            Quantity::parse(&text).map(|q| opaque(CelQuantity(q))).map_err(|e| fail("quantity", &e.to_string()))
        })?;
        c.add_function("isQuantity", |text: Arc<String>| -> bool { Quantity::parse(&text).is_ok() })?;
        c.add_function("semver", |text: Arc<String>| -> Result<Value, ExecutionError> {
            Semver::parse(&text).map(opaque).ok_or_else(|| fail("semver", "not a version"))
        })?;
        c.add_function("isSemver", |text: Arc<String>| -> bool { Semver::parse(&text).is_some() })?;
        c.add_function("compareTo", |This(a): This<Value>, b: Value| -> Result<i64, ExecutionError> {
            Ok(order(&a, &b)? as i64)
        })?;
        c.add_function("isGreaterThan", |This(a): This<Value>, b: Value| -> Result<bool, ExecutionError> {
            Ok(order(&a, &b)?.is_gt())
        })?;
        c.add_function("isLessThan", |This(a): This<Value>, b: Value| -> Result<bool, ExecutionError> {
            Ok(order(&a, &b)?.is_lt())
        })?;
        c.add_function("sign", |This(q): This<Value>| -> Result<i64, ExecutionError> {
            Ok(quantity_of(&q)?.sign().into())
        })?;
        c.add_function("isInteger", |This(q): This<Value>| -> Result<bool, ExecutionError> {
            Ok(quantity_of(&q)?.as_i64().is_some())
        })?;
        c.add_function("asInteger", |This(q): This<Value>| -> Result<i64, ExecutionError> {
            quantity_of(&q)?.as_i64().ok_or_else(|| fail("asInteger", "cannot convert value to integer"))
        })?;
        c.add_function("asApproximateFloat", |This(q): This<Value>| -> Result<f64, ExecutionError> {
            Ok(quantity_of(&q)?.as_f64())
        })?;
        c.add_function("major", |This(v): This<Value>| version_part(&v, 0))?;
        c.add_function("minor", |This(v): This<Value>| version_part(&v, 1))?;
        c.add_function("patch", |This(v): This<Value>| version_part(&v, 2))?;
        Ok(())
    };
    declare().map_err(|e| e.to_string())?;
    Ok(c)
}

fn string(s: &str) -> Value {
    Value::String(Arc::new(s.to_owned()))
}

fn map(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    let map: HashMap<Key, Value> = entries.into_iter().map(|(k, v)| (Key::String(Arc::new(k)), v)).collect();
    Value::Map(Map { map: Arc::new(map) })
}

/// Values by domain and name; what is named without a domain is of the driver's. Every domain the expression speaks of
/// is there, if empty.
fn by_domain<'a, T: 'a>(
    driver: &str,
    mentioned: &[String],
    all: impl Iterator<Item = (&'a String, &'a T)>,
    value: impl Fn(&T) -> Option<Value>,
) -> Value {
    let mut domains: HashMap<String, Vec<(String, Value)>> =
        mentioned.iter().map(|d| (d.clone(), Vec::new())).collect();
    for (name, v) in all {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        if let Some(v) = value(v) {
            domains.entry(domain.to_owned()).or_default().push((id.to_owned(), v));
        }
    }
    map(domains.into_iter().map(|(d, entries)| (d, map(entries))))
}

/// A compiled selector.
pub struct Selector {
    program: Program,
    /// Text literals of the expression: among them are the domains it speaks of.
    literals: Vec<String>,
}

impl Selector {
    /// Compiles.
    ///
    /// # Errors
    /// Why it does not compile.
    pub fn new(expression: &str) -> Result<Self, String> {
        let program = Program::compile(expression).map_err(|e| e.to_string())?;
        let mut literals = Vec::new();
        for quote in ['"', '\''] {
            literals.extend(expression.split(quote).skip(1).step_by(2).map(str::to_owned));
        }
        Ok(Self { program, literals })
    }

    /// Whether a device matches.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub fn matches(&self, driver: &str, device: &Device) -> Result<bool, String> {
        let attributes = by_domain(driver, &self.literals, device.attributes.iter(), |a| {
            let text = a.string.as_deref().map(string);
            let version = || a.version.as_deref().and_then(Semver::parse).map(opaque);
            text.or_else(|| a.int.map(Value::Int)).or_else(|| a.bool.map(Value::Bool)).or_else(version)
        });
        let capacity = by_domain(driver, &self.literals, device.capacity.iter(), |c| {
            Quantity::parse(&c.value).ok().map(|q| opaque(CelQuantity(q)))
        });
        let mut c = context()?;
        c.add_variable_from_value(
            "device",
            map([
                ("driver".to_owned(), string(driver)),
                ("attributes".to_owned(), attributes),
                ("capacity".to_owned(), capacity),
                (
                    "allowMultipleAllocations".to_owned(),
                    Value::Bool(device.allow_multiple_allocations.unwrap_or(false)),
                ),
            ]),
        );
        match self.program.execute(&c) {
            Ok(Value::Bool(b)) => Ok(b),
            Ok(other) => Err(format!("unexpected result type {}", other.type_of())),
            Err(e) => Err(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions() {
        let device: Device = serde_json::from_value(json!({"name": "gpu-0",
            "attributes": {"model": {"string": "a100"}, "gpu.example.com/index": {"int": 3}, "other.com/fast": {"bool": true},
                "driverVersion": {"version": "1.10.0"}},
            "capacity": {"memory": {"value": "40Gi"}}}))
        .unwrap();
        for (expression, want) in [
            ("true", Ok(true)),
            ("device.driver == 'gpu.example.com'", Ok(true)),
            ("device.attributes['gpu.example.com'].model == 'a100'", Ok(true)),
            ("device.attributes[\"gpu.example.com\"].index > 3", Ok(false)),
            ("device.attributes['other.com'].fast", Ok(true)),
            ("!('model' in device.attributes['missing.com'])", Ok(true)),
            ("device.capacity['gpu.example.com'].memory.compareTo(quantity('20Gi')) >= 0", Ok(true)),
            ("device.capacity['gpu.example.com'].memory.isLessThan(quantity('20Gi'))", Ok(false)),
            ("device.attributes['gpu.example.com'].driverVersion.isGreaterThan(semver('1.9.3'))", Ok(true)),
            ("device.attributes['gpu.example.com'].driverVersion.minor() == 10", Ok(true)),
            ("device.attributes['gpu.example.com'].missing == 'x'", Err(())),
            ("1", Err(())),
        ] {
            let got = Selector::new(expression).unwrap().matches("gpu.example.com", &device);
            assert_eq!(got.clone().map_err(drop), want, "{expression}: {got:?}");
        }
        assert!(Selector::new("device.").is_err());
    }

    #[test]
    fn versions() {
        let v = |s: &str| Semver::parse(s).unwrap();
        let order = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0", "1.2.0", "1.10.0"];
        assert!(order.windows(2).all(|w| v(w[0]) < v(w[1])));
        for bad in ["1", "1.2", "1.02.3", "a.b.c", "1.2.3.4"] {
            assert_eq!(Semver::parse(bad), None, "{bad}");
        }
    }
}
