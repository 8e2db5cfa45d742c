//! Image names, complete and shortened, by the rules every registry's users know.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A complete name: registry, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    /// `docker.io`, `localhost:5000`.
    pub registry: String,
    /// `library/busybox`.
    pub repository: String,
    /// `latest`, unless there is a digest only.
    pub tag: Option<String>,
    /// `sha256:…` of the manifest.
    pub digest: Option<String>,
}

impl ImageName {
    /// Registry and repository.
    #[must_use]
    pub fn familiar(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    #[must_use]
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail =
            |why: &str| Error::invalid(format!("couldn't parse image name {text:?}: invalid reference format{why}"));
        let (name, digest) = match text.split_once('@') {
            Some((n, d)) => (n, Some(d)),
            None => (text, None),
        };
        if digest.is_some_and(|d| !is_digest(d)) {
            return Err(fail(""));
        }
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((n, t)) if !t.contains('/') => (n, Some(t)),
            _ => (name, None),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(fail(""));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || has_upper(first) => {
                (first, rest)
            }
            _ => ("docker.io", name),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository = match repository {
            r if registry == "docker.io" && !r.contains('/') => format!("library/{r}"),
            r => r.to_string(),
        };
        if has_upper(&repository) {
            return Err(fail(&format!(": repository name ({repository}) must be lowercase")));
        }
        if !is_registry(registry) || !repository.split('/').all(is_component) || repository.len() > 255 {
            return Err(fail(""));
        }
        let tag = match (tag, digest) {
            (Some(t), _) => Some(t.to_string()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".into()),
        };
        Ok(Self { registry: registry.into(), repository, tag, digest: digest.map(Into::into) })
    }
}

fn has_upper(s: &str) -> bool {
    s.chars().any(|c| c.is_ascii_uppercase())
}

/// Whether the text is a digest we can check.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn is_tag(t: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&t.len()) && t.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && (b == b'.' || b == b'-')))
}

fn is_registry(r: &str) -> bool {
    if let Some(v6) = r.strip_prefix('[') {
        let Some((address, port)) = v6.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok()));
    }
    let (host, port) = r.split_once(':').map_or((r, None), |(h, p)| (h, Some(p)));
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// Lower-case words, separated by one period, one or two underscores, or dashes.
fn is_component(c: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (c.bytes().next(), c.bytes().last()) else { return false };
    let mut separator = String::new();
    for ch in c.bytes() {
        if word(ch) {
            separator.clear();
            continue;
        }
        separator.push(char::from(ch));
        if !matches!(separator.as_str(), "." | "_" | "__") && !separator.bytes().all(|b| b == b'-') {
            return false;
        }
    }
    word(first) && word(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let hex = "a".repeat(64);
        let check = |text: &str, expect: &str| assert_eq!(text.parse::<ImageName>().unwrap().to_string(), expect);
        check("busybox", "docker.io/library/busybox:latest");
        check("busybox:1.36", "docker.io/library/busybox:1.36");
        check("index.docker.io/busybox", "docker.io/library/busybox:latest");
        check("user/app", "docker.io/user/app:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/a/b:v1", "localhost:5000/a/b:v1");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest");
        check("[::1]:5000/x", "[::1]:5000/x:latest");
        check(&format!("busybox@sha256:{hex}"), &format!("docker.io/library/busybox@sha256:{hex}"));
        check(&format!("a/b:t@sha256:{hex}"), &format!("docker.io/a/b:t@sha256:{hex}"));
        check("a__b/c-d.e", "docker.io/a__b/c-d.e:latest");
    }

    #[test]
    fn bad_names() {
        for text in
            ["", "UPPER", "a//b", "a:", ":x", "a@sha256:12", "a b", "-a", "a-", "a..b", "a.com:x/b", "a___b", "/a"]
        {
            assert!(text.parse::<ImageName>().is_err(), "{text}");
        }
        let e = "library/UPPER".parse::<ImageName>().unwrap_err();
        assert!(e.message.ends_with("invalid reference format: repository name (library/UPPER) must be lowercase"));
    }
}
