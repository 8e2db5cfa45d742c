//! Versions by semver.org, 2.0.0.

use std::cmp::Ordering;

fn digits(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_digit())
}

fn split(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    (core, pre, build)
}

/// Whether it is a version.
pub fn is_version(text: &str) -> bool {
    let (core, pre, build) = split(text);
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let number = |part: &str| !part.is_empty() && digits(part) && (part == "0" || !part.starts_with('0'));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|p| word(p) && (!digits(p) || number(p))))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// Which of two versions comes first.
pub fn compare(a: &str, b: &str) -> Ordering {
    // Without leading zeros the longer number is the greater.
    let number = |a: &str, b: &str| a.len().cmp(&b.len()).then_with(|| a.cmp(b));
    let ((core, pre, _), (other, other_pre, _)) = (split(a), split(b));
    let by_core = core.split('.').zip(other.split('.')).map(|(a, b)| number(a, b)).find(|o| o.is_ne());
    by_core.unwrap_or_else(|| match (pre, other_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => {
            let parts = a.split('.').zip(b.split('.')).map(|(a, b)| match (digits(a), digits(b)) {
                (true, true) => number(a, b),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => a.cmp(b),
            });
            let first = parts.into_iter().find(|o| o.is_ne());
            first.unwrap_or_else(|| a.split('.').count().cmp(&b.split('.').count()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in ["1.2.3", "0.0.0", "1.2.3-alpha.1", "1.2.3-0a.b-c+build.01", "1.2.3+x"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "1.2", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3", "1.2.3.4"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn order() {
        let rising = [
            "0.0.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0",
            "1.9.0",
            "1.36.0",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("1.0.0+a", "1.0.0+b"), Ordering::Equal);
    }
}
