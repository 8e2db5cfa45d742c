//! Amounts of resources as the scheduler adds them up.

use std::collections::BTreeMap;

use pintle_api::quantity::Quantity;

/// Processor share assumed of a container that asks for none, when nodes are scored: 100 milli-cores, as upstream.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory assumed of a container that asks for none, when nodes are scored: 200 MiB, as upstream.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// A `ResourceList` as text.
pub type ResourceList = BTreeMap<String, String>;

/// A resource's name, told apart once rather than at each look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceName {
    /// `cpu`
    Cpu,
    /// `memory`
    Memory,
    /// `ephemeral-storage`
    EphemeralStorage,
    /// `pods`
    Pods,
    /// Any other.
    Other(Box<str>),
}

impl From<&str> for ResourceName {
    fn from(name: &str) -> Self {
        match name {
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            "ephemeral-storage" => Self::EphemeralStorage,
            "pods" => Self::Pods,
            _ => Self::Other(name.into()),
        }
    }
}

/// Amounts of resources: requested, allocatable, or left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Processor, in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Local storage in bytes.
    pub ephemeral_storage: i64,
    /// Number of pods.
    pub pods: i64,
    /// Every other resource (huge pages, devices), in its own unit. Mostly empty.
    pub scalar: BTreeMap<Box<str>, i64>,
}

impl Resources {
    /// Reads a list; what does not parse counts as zero, for the API server accepts no such value.
    #[must_use]
    pub fn from_list(list: &ResourceList) -> Self {
        let mut out = Self::default();
        for (name, text) in list {
            let Ok(q) = Quantity::parse(text) else { continue };
            out.set(name, if name == "cpu" { q.milli_value() } else { q.value() });
        }
        out
    }

    /// The amount of one resource; processor in thousandths.
    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            _ => self.scalar.get(name).copied().unwrap_or(0),
        }
    }

    /// The amount of one resource; processor in thousandths.
    #[must_use]
    #[inline]
    pub fn amount(&self, name: &ResourceName) -> i64 {
        match name {
            ResourceName::Cpu => self.milli_cpu,
            ResourceName::Memory => self.memory,
            ResourceName::EphemeralStorage => self.ephemeral_storage,
            ResourceName::Pods => self.pods,
            ResourceName::Other(name) => self.scalar.get(name).copied().unwrap_or(0),
        }
    }

    /// Sets the amount of one resource; processor in thousandths.
    pub fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.milli_cpu = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.ephemeral_storage = amount,
            "pods" => self.pods = amount,
            _ => {
                self.scalar.insert(name.into(), amount);
            }
        }
    }

    /// Combines both amounts of every resource.
    fn combine(&mut self, other: &Self, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = f(self.pods, other.pods);
        for (name, amount) in &other.scalar {
            let mine = self.scalar.entry(name.clone()).or_default();
            *mine = f(*mine, *amount);
        }
    }

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes away.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// Raises each amount to the other's where that is more.
    pub fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_adds() {
        let list = |pairs: &[(&str, &str)]| {
            Resources::from_list(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let mut a = list(&[("cpu", "1.5"), ("memory", "1Gi"), ("pods", "110"), ("example.com/gpu", "2")]);
        assert_eq!((a.milli_cpu, a.memory, a.pods, a.get("example.com/gpu")), (1500, 1 << 30, 110, 2));
        let b = list(&[("cpu", "250m"), ("example.com/gpu", "1"), ("example.com/tpu", "4")]);
        a.add(&b);
        assert_eq!((a.milli_cpu, a.get("example.com/gpu"), a.get("example.com/tpu")), (1750, 3, 4));
        a.sub(&b);
        a.max(&list(&[("cpu", "1"), ("memory", "2Gi")]));
        assert_eq!((a.milli_cpu, a.memory), (1500, 2 << 30));
    }
}
