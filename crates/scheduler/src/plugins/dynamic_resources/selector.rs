//! CEL selectors of devices.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map, Value};
use pintle_api::quantity::Quantity;
use pintle_schema::cel::library::{self, CelQuantity, Semver, opaque};
use pintle_schema::cel::{self as expressions, Compiled};

use crate::model::devices::Device;

/// What looking at one device may cost, as upstream.
const MOST: u64 = 1_000_000;

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
    program: Compiled,
    /// Text literals of the expression: among them are the domains it speaks of.
    literals: Vec<String>,
}

impl Selector {
    /// Compiles.
    ///
    /// # Errors
    /// Why it does not compile.
    pub fn new(expression: &str) -> Result<Self, String> {
        let program = expressions::compile(expression, &expressions::DEVICE).map_err(|e| e.to_string())?;
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
        let mut c = library::context();
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
        match library::evaluate(&self.program, &c, &mut { MOST })? {
            Value::Bool(b) => Ok(b),
            other => Err(format!("unexpected result type {}", other.type_of())),
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
            ("cel.bind(a, device.attributes['gpu.example.com'], a.model == 'a100' && a.index in [1, 3])", Ok(true)),
            ("device.attributes['gpu.example.com'].?nothing.orValue('none') == 'none'", Ok(true)),
            ("device.attributes['gpu.example.com'].missing == 'x'", Err(())),
            ("1", Err(())),
        ] {
            let got = Selector::new(expression).unwrap().matches("gpu.example.com", &device);
            assert_eq!(got.clone().map_err(drop), want, "{expression}: {got:?}");
        }
        assert!(Selector::new("device.").is_err());
        assert!(Selector::new("device.nothing").is_err());
    }
}
