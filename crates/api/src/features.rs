//! Feature gates: the ones of upstream's that are heeded here, and how `--feature-gates` switches them.

use std::fmt;

/// A feature that can be switched on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's own names")]
pub enum Feature {
    GangScheduling,
    GenericWorkload,
    NodeDeclaredFeatures,
    OpportunisticBatching,
}

/// What there is to say of a feature.
struct Spec {
    feature: Feature,
    name: &'static str,
    /// Whether it is on unless it is switched off.
    on: bool,
    /// What it cannot do without.
    needs: &'static [Feature],
}

/// In the order of [`Feature`].
static SPECS: &[Spec] = &[
    Spec { feature: Feature::GangScheduling, name: "GangScheduling", on: false, needs: &[Feature::GenericWorkload] },
    Spec { feature: Feature::GenericWorkload, name: "GenericWorkload", on: false, needs: &[] },
    Spec { feature: Feature::NodeDeclaredFeatures, name: "NodeDeclaredFeatures", on: true, needs: &[] },
    Spec { feature: Feature::OpportunisticBatching, name: "OpportunisticBatching", on: true, needs: &[] },
];

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SPECS[*self as usize].name)
    }
}

/// Which features are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureGates([bool; SPECS.len()]);

impl Default for FeatureGates {
    fn default() -> Self {
        Self(std::array::from_fn(|i| SPECS[i].on))
    }
}

impl FeatureGates {
    /// Reads `Name=true,Other=false`.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut gates = Self::default();
        for setting in text.split(',').filter(|s| !s.is_empty()) {
            let Some((name, value)) = setting.split_once('=') else {
                return Err(format!("missing bool value for {}", setting.trim()));
            };
            let (name, value) = (name.trim(), value.trim());
            let on = match value {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => {
                    let why = format!("strconv.ParseBool: parsing {value:?}: invalid syntax");
                    return Err(format!("invalid value of {name}={value}, err: {why}"));
                }
            };
            let spec = SPECS.iter().find(|s| s.name == name);
            let spec = spec.ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
            gates.set(spec.feature, on);
        }
        for spec in SPECS.iter().filter(|s| gates.on(s.feature)) {
            let off: Vec<String> = spec.needs.iter().filter(|f| !gates.on(**f)).map(ToString::to_string).collect();
            if !off.is_empty() {
                let (name, off) = (spec.name, off.join(" "));
                return Err(format!("{name} is enabled, but depends on features that are disabled: [{off}]"));
            }
        }
        Ok(gates)
    }

    /// Whether a feature is on.
    #[must_use]
    pub fn on(&self, feature: Feature) -> bool {
        self.0[feature as usize]
    }

    /// Switches one.
    pub fn set(&mut self, feature: Feature, on: bool) {
        self.0[feature as usize] = on;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        for (text, on) in [
            ("", "NodeDeclaredFeatures OpportunisticBatching"),
            ("GenericWorkload=true,", "GenericWorkload NodeDeclaredFeatures OpportunisticBatching"),
            (
                "GangScheduling=T, GenericWorkload = 1",
                "GangScheduling GenericWorkload NodeDeclaredFeatures OpportunisticBatching",
            ),
            ("NodeDeclaredFeatures=false,GenericWorkload=f,OpportunisticBatching=0", ""),
        ] {
            let gates = FeatureGates::parse(text).unwrap();
            let all: Vec<_> = SPECS.iter().filter(|s| gates.on(s.feature)).map(|s| s.feature.to_string()).collect();
            assert_eq!(all.join(" "), on, "{text}");
        }
        for (text, error) in [
            ("GenericWorkload", "missing bool value for GenericWorkload"),
            ("Nothing=true", "unrecognized feature gate: Nothing"),
            (
                "GenericWorkload=yes",
                "invalid value of GenericWorkload=yes, err: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            (
                "GangScheduling=true",
                "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]",
            ),
        ] {
            assert_eq!(FeatureGates::parse(text).unwrap_err(), error);
        }
    }

    #[test]
    fn each_is_where_it_belongs() {
        assert!(SPECS.iter().enumerate().all(|(i, s)| s.feature as usize == i));
    }
}
