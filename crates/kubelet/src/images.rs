//! Images: whether to pull, with which credentials, and when to try again.

use crate::pod::backoff::Backoff;
use crate::translate::security::ImageUser;
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Secret};
use parking_lot::Mutex;
use pintle_client::recorder::EventType;
use pintle_runtime::{RegistryAuth, Runtime};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// An image that is present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Its id.
    pub id: String,
    /// Who it runs as.
    pub user: ImageUser,
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoImage {
    /// The waiting reason.
    pub reason: &'static str,
    /// The same for humans.
    pub message: String,
    /// When it is worth another try.
    pub retry: Timestamp,
}

/// Tells of an event of the container.
pub type Tell<'a> = &'a (dyn Fn(EventType, &str, String) + Send + Sync);

/// Pulls images.
pub struct Images {
    runtime: Arc<dyn Runtime>,
    pulls: Semaphore,
    backoff: Mutex<Backoff>,
    /// Why the last pull of (pod uid, image) failed.
    failures: Mutex<HashMap<String, String>>,
    /// Credentials for everybody, from the node's own `config.json`.
    node: Vec<Credential>,
}

const SHORTLY: SignedDuration = SignedDuration::from_secs(1);
const LATER: SignedDuration = SignedDuration::from_secs(10);

impl Images {
    /// Pulls by `runtime`, `parallel` at a time.
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>, parallel: usize, node_config: Option<&[u8]>) -> Self {
        Self {
            runtime,
            pulls: Semaphore::new(parallel.clamp(1, Semaphore::MAX_PERMITS)),
            backoff: Mutex::new(Backoff::new(SignedDuration::from_secs(10), SignedDuration::from_secs(300))),
            failures: Mutex::default(),
            node: node_config.and_then(|c| parse_config(c, true).ok()).unwrap_or_default(),
        }
    }

    /// Makes the container's image present as its policy says.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn ensure(
        &self,
        uid: &str,
        c: &Container,
        secrets: &[Arc<Secret>],
        tell: Tell<'_>,
    ) -> Result<Present, NoImage> {
        let image = c.image.as_deref().unwrap_or_default();
        let no = |reason, message: String, after: SignedDuration| NoImage {
            reason,
            message,
            retry: Timestamp::now().saturating_add(after).unwrap_or(Timestamp::MAX),
        };
        if let Err(why) = check_name(image) {
            let message =
                format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {why}");
            tell(EventType::Warning, "InspectFailed", message.clone());
            return Err(no("InvalidImageName", message, LATER));
        }
        let status = self.runtime.image_status(image).await.map_err(|e| {
            let message = format!("Failed to inspect image {image:?}: {e}");
            tell(EventType::Warning, "InspectFailed", message.clone());
            no("ImageInspectError", message, LATER)
        })?;
        let policy = c.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        if policy != "Always" {
            if let Some(found) = status {
                tell(
                    EventType::Normal,
                    "Pulled",
                    format!("Container image {image:?} already present on machine and can be accessed by the pod"),
                );
                return Ok(present(found));
            }
            if policy == "Never" {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                tell(EventType::Warning, "ErrImageNeverPull", message.clone());
                return Err(no("ErrImageNeverPull", message, LATER));
            }
        }
        let key = format!("{uid}_{image}");
        let now = Timestamp::now();
        if let Some(until) = self.backoff.lock().until(&key, now) {
            let message = format!("Back-off pulling image {image:?}");
            tell(EventType::Normal, "BackOff", message.clone());
            let before = self.failures.lock().get(&key).cloned();
            let message = before.map_or(message.clone(), |b| format!("{message}: {b}"));
            return Err(NoImage { reason: "ImagePullBackOff", message, retry: until });
        }
        self.pull(&key, image, secrets, tell).await
    }

    async fn pull(&self, key: &str, image: &str, secrets: &[Arc<Secret>], tell: Tell<'_>) -> Result<Present, NoImage> {
        tell(EventType::Normal, "Pulling", format!("Pulling image {image:?}"));
        let waiting = Instant::now();
        // The semaphore is never closed.
        let _turn = self.pulls.acquire().await;
        let began = Instant::now();
        let outcome = self.try_credentials(image, secrets).await;
        let found = match outcome {
            Ok(name) => self.runtime.image_status(&name).await.and_then(|found| {
                found.ok_or_else(|| pintle_runtime::Error::not_found(format!("image {name:?} is gone after its pull")))
            }),
            Err(e) => Err(e),
        };
        match found {
            Ok(found) => {
                let ms = |d: Duration| {
                    pintle_api::duration::format(Duration::from_millis(
                        u64::try_from(d.as_millis()).unwrap_or(u64::MAX),
                    ))
                };
                tell(
                    EventType::Normal,
                    "Pulled",
                    format!(
                        "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                        ms(began.elapsed()),
                        ms(waiting.elapsed()),
                        found.size
                    ),
                );
                self.backoff.lock().forget(key);
                self.failures.lock().remove(key);
                Ok(present(found))
            }
            Err(e) => {
                tell(EventType::Warning, "Failed", format!("Failed to pull image {image:?}: {e}"));
                let now = Timestamp::now();
                self.backoff.lock().next(key, now);
                let message = e.to_string();
                self.failures.lock().insert(key.into(), format!("ErrImagePull: {message}"));
                // The next look finds it in back-off.
                let retry = now.saturating_add(SHORTLY).unwrap_or(Timestamp::MAX);
                Err(NoImage { reason: "ErrImagePull", message, retry })
            }
        }
    }

    async fn try_credentials(&self, image: &str, secrets: &[Arc<Secret>]) -> pintle_runtime::Result<String> {
        let mut credentials: Vec<Credential> = secrets.iter().flat_map(|s| of_secret(s)).collect();
        credentials.extend(self.node.iter().cloned());
        let repository = repository(image);
        let mut matching: Vec<&Credential> = credentials.iter().filter(|c| c.matches(&repository)).collect();
        // The most specific first.
        matching.sort_by_key(|c| std::cmp::Reverse(c.location.len()));
        if matching.is_empty() {
            return self.runtime.pull_image(image, None).await;
        }
        let mut last = None;
        for c in matching {
            match self.runtime.pull_image(image, Some(&c.auth)).await {
                Ok(name) => return Ok(name),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| pintle_runtime::Error::internal("no credential was tried")))
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        let prefix = format!("{uid}_");
        self.failures.lock().retain(|k, _| {
            let gone = k.starts_with(&prefix);
            if gone {
                self.backoff.lock().forget(k);
            }
            !gone
        });
    }
}

fn present(i: pintle_runtime::Image) -> Present {
    Present { id: i.id, user: ImageUser { uid: i.uid, username: i.username } }
}

/// Checks an image's name by Docker's rules.
fn check_name(image: &str) -> Result<(), &'static str> {
    let format = "invalid reference format";
    let name = image.split('@').next().unwrap_or_default();
    if name.is_empty() || image.matches('@').count() > 1 {
        return Err(format);
    }
    let (path, tag) = match name.rsplit_once(':') {
        Some((p, t)) if !t.contains('/') => (p, Some(t)),
        _ => (name, None),
    };
    let tag_ok = |t: &str| {
        (1..=128).contains(&t.len())
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
            && !t.starts_with(['.', '-'])
    };
    if tag.is_some_and(|t| !tag_ok(t)) {
        return Err(format);
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    if parts.len() > 1
        && (parts[0].contains(['.', ':'])
            || parts[0] == "localhost"
            || parts[0].chars().any(|c| c.is_ascii_uppercase()))
    {
        parts.remove(0);
    }
    for p in parts {
        if p.chars().any(|c| c.is_ascii_uppercase()) {
            return Err("invalid reference format: repository name must be lowercase");
        }
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ok = !p.is_empty()
            && p.bytes().all(|b| word(b) || matches!(b, b'.' | b'_' | b'-'))
            && p.bytes().next().is_some_and(word)
            && p.bytes().last().is_some_and(word);
        if !ok {
            return Err(format);
        }
    }
    if image.split_once('@').is_some_and(|(_, d)| d.split_once(':').is_none_or(|(_, hex)| hex.len() < 32)) {
        return Err(format);
    }
    Ok(())
}

/// `registry/path` of an image, without tag or digest; Docker Hub under the name its credentials have.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((p, t)) if !t.contains('/') => p,
        _ => name,
    };
    match name.split_once('/') {
        Some(("docker.io" | "index.docker.io", rest)) if rest.contains('/') => format!("index.docker.io/{rest}"),
        Some(("docker.io" | "index.docker.io", rest)) => format!("index.docker.io/library/{rest}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.into(),
        Some(_) => format!("index.docker.io/{name}"),
        None => format!("index.docker.io/library/{name}"),
    }
}

/// Credentials for a registry or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Credential {
    /// Host, maybe with wildcards and a path.
    location: String,
    auth: RegistryAuth,
}

impl Credential {
    fn matches(&self, repository: &str) -> bool {
        let split = |s: &str| match s.split_once('/') {
            Some((h, p)) => (h.to_string(), p.to_string()),
            None => (s.to_string(), String::new()),
        };
        let ((want_host, want_path), (host, path)) = (split(&self.location), split(repository));
        let (want_parts, parts): (Vec<_>, Vec<_>) = (want_host.split('.').collect(), host.split('.').collect());
        want_parts.len() == parts.len()
            && want_parts.iter().zip(parts).all(|(w, p)| glob(w.as_bytes(), p.as_bytes()))
            && path.starts_with(&want_path)
    }
}

/// `*` stands for any characters.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|i| glob(rest, &text[i..])),
        Some((c, rest)) => text.split_first().is_some_and(|(t, tail)| t == c && glob(rest, tail)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

fn location(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if key == "docker.io" { "index.docker.io".into() } else { key.into() }
}

fn parse_config(bytes: &[u8], nested: bool) -> Result<Vec<Credential>, String> {
    #[derive(Deserialize)]
    struct Nested {
        #[serde(default)]
        auths: BTreeMap<String, Entry>,
    }
    let entries: BTreeMap<String, Entry> = if nested {
        serde_json::from_slice::<Nested>(bytes).map_err(|e| e.to_string())?.auths
    } else {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())?
    };
    let decode = |e: &Entry| {
        let raw = base64::engine::general_purpose::STANDARD.decode(&e.auth).ok()?;
        let text = String::from_utf8(raw).ok()?;
        let (user, password) = text.split_once(':')?;
        Some((user.to_string(), password.trim_end_matches('\0').to_string()))
    };
    Ok(entries
        .into_iter()
        .map(|(key, e)| {
            let (username, password) = decode(&e).unwrap_or((e.username, e.password));
            let auth =
                RegistryAuth { username, password, identity_token: e.identitytoken, registry_token: e.registrytoken };
            Credential { location: location(&key), auth }
        })
        .collect())
}

fn of_secret(secret: &Secret) -> Vec<Credential> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.clone());
    let found = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson").map(|b| parse_config(&b, true)),
        Some("kubernetes.io/dockercfg") => data(".dockercfg").map(|b| parse_config(&b, false)),
        _ => None,
    };
    found.and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_runtime::fake::FakeRuntime;

    #[test]
    fn names() {
        let ok = [
            "busybox",
            "busybox:1",
            "a/b/c:x",
            "localhost/x",
            "h:5000/x@sha256:0123456789012345678901234567890123456789012345678901234567890123",
        ];
        let bad = ["", "Busybox", "a b", "x:", "x:-", "a//b", "-a", "x@sha256:1", "@"];
        ok.iter().for_each(|n| assert_eq!(check_name(n), Ok(()), "{n}"));
        bad.iter().for_each(|n| assert!(check_name(n).is_err(), "{n}"));
        assert_eq!(repository("busybox:1"), "index.docker.io/library/busybox");
        assert_eq!(repository("h:5000/x:1"), "h:5000/x");
    }

    #[test]
    fn credentials() {
        let json = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "*.example.com/team": {"username": "a", "password": "b"}}}"#;
        let all = parse_config(json, true).unwrap();
        let find = |image: &str| {
            all.iter()
                .find(|c| c.matches(&repository(image)))
                .map(|c| format!("{}:{}", c.auth.username, c.auth.password))
        };
        assert_eq!(find("busybox").as_deref(), Some("u:p"));
        assert_eq!(find("r.example.com/team/x").as_deref(), Some("a:b"));
        assert_eq!(find("r.example.com/other/x"), None);
        assert_eq!(find("example.com/team/x"), None);
    }

    #[tokio::test]
    async fn policies_and_back_off() {
        let rt = FakeRuntime::new();
        let images = Images::new(rt.clone(), 1, None);
        let told = Mutex::new(vec![]);
        let tell = |_: EventType, reason: &str, message: String| told.lock().push(format!("{reason} {message}"));
        let c = |policy: &str| -> Container {
            serde_saphyr::from_str(&format!("{{name: c, image: x, imagePullPolicy: {policy}}}")).unwrap()
        };
        let never = images.ensure("u", &c("Never"), &[], &tell).await.unwrap_err();
        assert_eq!(never.reason, "ErrImageNeverPull");
        rt.pull_error("x", Some(pintle_runtime::Error::not_found("no x")));
        let e = images.ensure("u", &c("IfNotPresent"), &[], &tell).await.unwrap_err();
        assert_eq!((e.reason, e.message.as_str()), ("ErrImagePull", "rpc error: code = NotFound desc = no x"));
        let e = images.ensure("u", &c("IfNotPresent"), &[], &tell).await.unwrap_err();
        assert_eq!(e.reason, "ImagePullBackOff");
        assert_eq!(e.message, "Back-off pulling image \"x\": ErrImagePull: rpc error: code = NotFound desc = no x");
        rt.pull_error("x", None);
        assert!(images.ensure("other", &c("Always"), &[], &tell).await.is_ok());
        assert!(images.ensure("u", &c("IfNotPresent"), &[], &tell).await.is_ok());
        let told = told.lock();
        assert_eq!(told[0], "ErrImageNeverPull Container image \"x\" is not present with pull policy of Never");
        assert_eq!(told[1], "Pulling Pulling image \"x\"");
        assert_eq!(told[2], "Failed Failed to pull image \"x\": rpc error: code = NotFound desc = no x");
        assert_eq!(told[3], "BackOff Back-off pulling image \"x\"");
        assert!(told[5].starts_with("Pulled Successfully pulled image \"x\" in "), "{}", told[5]);
        assert_eq!(told[6], "Pulled Container image \"x\" already present on machine and can be accessed by the pod");
    }
}
