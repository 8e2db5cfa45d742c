//! Durations as Go writes them: `1h2m3.5s`, and the kubelet's rounding of them in messages.

use std::time::Duration;

/// Prints a duration as Go's `time.Duration` does.
#[must_use]
pub fn format(d: Duration) -> String {
    let nanos = d.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    // Below a second the largest fitting unit is used.
    for (unit, size) in [("ns", 1u128), ("µs", 1_000), ("ms", 1_000_000)] {
        if nanos < size * 1000 && nanos < 1_000_000_000 {
            return format!("{}{unit}", fraction(nanos, size));
        }
    }
    let seconds = nanos / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = fraction(nanos - (hours * 3600 + minutes * 60) * 1_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, m) => format!("{m}m{rest}s"),
        (h, m) => format!("{h}h{m}m{rest}s"),
    }
}

fn fraction(n: u128, unit: u128) -> String {
    let (whole, rest) = (n / unit, n % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
}

/// Reads a duration as Go's `time.ParseDuration` does; negative ones are refused.
///
/// # Errors
/// In Go's words.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (unit, after) = rest.split_at(unit_end);
        let size = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += number * size;
        rest = after;
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

/// For serde: durations as Go writes them.
pub mod go {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::time::Duration;

    /// Writes a duration.
    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format(*d))
    }
    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for (nanos, text) in [
            (0u64, "0s"),
            (15, "15ns"),
            (1_500, "1.5µs"),
            (12_000_000, "12ms"),
            (1_234_000_000, "1.234s"),
            (10_000_000_000, "10s"),
            (160_000_000_000, "2m40s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)));
        }
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(parse("5").is_err() && parse("5 m").is_err() && parse("").is_err() && parse("-5s").is_err());
    }
}
