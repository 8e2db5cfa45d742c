//! Numbers that may be percentages.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The value of a number or of a percentage of `total`. Text that is no percentage counts as 0; validation keeps it
/// out.
#[must_use]
pub fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => *n,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let hundredths = percent.saturating_mul(total.into());
            let up = i64::from(round_up && hundredths % 100 > 0);
            i32::try_from(hundredths / 100 + up).unwrap_or(i32::MAX)
        }
    }
}

/// A rolling update's surge and unavailability in pods. Both zero would never progress, so then one may be
/// unavailable.
#[must_use]
pub fn fenceposts(surge: Option<&IntOrString>, unavailable: Option<&IntOrString>, desired: i32) -> (i32, i32) {
    let surge = surge.map_or(0, |v| scaled(v, desired, true));
    let unavailable = unavailable.map_or(0, |v| scaled(v, desired, false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        let s = |t: &str| IntOrString::String(t.into());
        for (v, total, up, want) in [
            (IntOrString::Int(3), 10, true, 3),
            (s("25%"), 10, true, 3),
            (s("25%"), 10, false, 2),
            (s("100%"), 7, false, 7),
            (s("x"), 7, false, 0),
            (s("9223372036854775807%"), 7, true, i32::MAX),
        ] {
            assert_eq!(scaled(&v, total, up), want);
        }
        assert_eq!(fenceposts(Some(&s("0%")), Some(&IntOrString::Int(0)), 5), (0, 1));
        assert_eq!(fenceposts(Some(&s("25%")), Some(&s("25%")), 1), (1, 0));
    }
}
