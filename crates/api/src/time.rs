//! Times as Kubernetes prints them: RFC 3339 in UTC, to the second or to the microsecond.

use jiff::Timestamp;
use jiff::fmt::strtime;

/// `metav1.Time`: `2006-01-02T15:04:05Z`.
#[must_use]
pub fn format(t: Timestamp) -> String {
    strtime::format("%Y-%m-%dT%H:%M:%SZ", t).unwrap_or_default()
}

/// `metav1.MicroTime`: `2006-01-02T15:04:05.000000Z`.
#[must_use]
pub fn format_micro(t: Timestamp) -> String {
    strtime::format("%Y-%m-%dT%H:%M:%S.%6fZ", t).unwrap_or_default()
}

/// `time.RFC3339Nano` with all nine digits, as container logs have it.
#[must_use]
pub fn format_nano(t: Timestamp) -> String {
    strtime::format("%Y-%m-%dT%H:%M:%S.%9fZ", t).unwrap_or_default()
}

/// Parses any RFC 3339 time.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A duration as `kubectl` prints an age (`HumanDuration`): `5s`, `3m2s`, `27h`, `5d3h`, `2y34d`. Negative means
/// `<invalid>`, as upstream prints a time in the future.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let (m, h, d) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |a: i64, ua: &str, b: i64, ub: &str| if b == 0 { format!("{a}{ua}") } else { format!("{a}{ua}{b}{ub}") };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(m, "m", seconds % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(d, "d", h % 24, "h"),
        691_200..63_072_000 => format!("{d}d"),
        63_072_000..252_288_000 => two(d / 365, "y", d % 365, "d"),
        _ => format!("{}y", d / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints() {
        let t = parse("2024-02-03T04:05:06.123456789Z").unwrap();
        assert_eq!(format(t), "2024-02-03T04:05:06Z");
        assert_eq!(format_micro(t), "2024-02-03T04:05:06.123456Z");
        assert_eq!(format_nano(t), "2024-02-03T04:05:06.123456789Z");
        assert_eq!(parse("2024-02-03T06:05:06+02:00").map(format).as_deref(), Some("2024-02-03T04:05:06Z"));
        assert!(parse("yesterday").is_none());
    }

    #[test]
    fn ages() {
        for (s, want) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (182, "3m2s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_072_000 + 86_400 * 34, "2y34d"),
            (315_360_000, "10y"),
        ] {
            assert_eq!(human_duration(s), want, "{s}");
        }
    }
}
