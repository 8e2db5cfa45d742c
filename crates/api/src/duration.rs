//! Durations as Go writes them: `1h2m3.5s`.

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
        if nanos < size * 1000 {
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

/// Reads a duration as Go's `time.ParseDuration` does, in nanoseconds.
///
/// # Errors
/// In Go's words.
pub fn nanoseconds(text: &str) -> Result<i64, String> {
    let bad = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + part.len() == 0 || part.contains('.') {
            return Err(bad());
        }
        if after.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let size: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        // What a `u64` does not hold overflows in any unit; digits of a fraction after the 18th count for nothing.
        let digits = |s: &str| if s.is_empty() { Ok(0) } else { s.parse::<u64>().map_err(|_| bad()) };
        let part = &part[..part.len().min(18)];
        let scale = 10i128.pow(u32::try_from(part.len()).unwrap_or(18));
        total += i128::from(digits(whole)?) * size + i128::from(digits(part)?) * size / scale;
        rest = after;
    }
    if text.starts_with('-') {
        total = -total;
    }
    i64::try_from(total).map_err(|_| bad())
}

/// The same; negative ones are refused.
///
/// # Errors
/// In Go's words.
pub fn parse(text: &str) -> Result<Duration, String> {
    let nanos = u64::try_from(nanoseconds(text)?).map_err(|_| format!("duration {text:?} is negative"))?;
    Ok(Duration::from_nanos(nanos))
}

/// For serde: durations as Go writes them.
pub mod go {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::time::Duration;

    /// Writes a duration.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format(*d))
    }

    /// Reads a duration.
    ///
    /// # Errors
    /// What is no duration, or negative.
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
    }

    #[test]
    fn as_go_reads_them() {
        for (text, want) in [
            ("1h30m", Ok(5_400_000_000_000)),
            ("1.5s", Ok(1_500_000_000)),
            (".5s", Ok(500_000_000)),
            ("1.s", Ok(1_000_000_000)),
            ("-2ms", Ok(-2_000_000)),
            ("+1us", Ok(1_000)),
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("0.100000000000000000000h", Ok(360_000_000_000)),
            ("9223372036854775807ns", Ok(i64::MAX)),
            ("-9223372036854775808ns", Ok(i64::MIN)),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("1m2", Err("time: missing unit in duration \"1m2\"")),
            ("5x", Err("time: unknown unit \"x\" in duration \"5x\"")),
            ("5 m", Err("time: unknown unit \" m\" in duration \"5 m\"")),
            ("", Err("time: invalid duration \"\"")),
            (".s", Err("time: invalid duration \".s\"")),
            ("1.2.3s", Err("time: invalid duration \"1.2.3s\"")),
            ("m", Err("time: invalid duration \"m\"")),
            ("9223372036854775808ns", Err("time: invalid duration \"9223372036854775808ns\"")),
            ("99999999999999999999h", Err("time: invalid duration \"99999999999999999999h\"")),
        ] {
            assert_eq!(nanoseconds(text), want.map_err(str::to_owned), "{text}");
        }
        assert!(parse("-5s").is_err());
    }
}
