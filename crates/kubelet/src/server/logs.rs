//! Container logs as the API asks for them, and the files of `/var/log`.

use super::http::{Query, Reply};
use super::route::Named;
use crate::kubelet::Shared;
use crate::logs;
use crate::notices::Notices;
use crate::pod::spec;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;
use pintle_runtime::{ContainerState, ContainerStatus};
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncSeekExt as _, BufReader};
use tokio::sync::mpsc;

/// What of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    timestamps: bool,
    tail: Option<usize>,
    limit: Option<usize>,
    since: Option<Timestamp>,
    stream: Option<&'static str>,
    previous: bool,
}

impl Options {
    fn parse(q: &Query, now: Timestamp) -> Result<Self, String> {
        let positive = |name: &str, least: i64| match q.number(name)? {
            Some(n) if n < least => Err(format!("{name} must be greater than {}", least - 1)),
            n => Ok(n),
        };
        let since = match (positive("sinceSeconds", 1)?, q.get("sinceTime").filter(|t| !t.is_empty())) {
            (Some(_), Some(_)) => return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into()),
            (Some(s), None) => now.checked_sub(SignedDuration::from_secs(s)).ok(),
            (None, Some(t)) => Some(pintle_api::time::parse(t).ok_or_else(|| format!("invalid sinceTime {t:?}"))?),
            (None, None) => None,
        };
        let stream = match q.get("stream") {
            None | Some("" | "All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(other) => return Err(format!("invalid stream {other:?}")),
        };
        let size = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok());
        Ok(Self {
            follow: q.is("follow"),
            timestamps: q.is("timestamps"),
            tail: size(positive("tailLines", 0)?),
            limit: size(positive("limitBytes", 1)?),
            since,
            stream,
            previous: q.is("previous"),
        })
    }

    /// The line as it is sent; `None` leaves it out.
    fn format(&self, line: &[u8]) -> Option<Vec<u8>> {
        let l = logs::parse(line)?;
        if self.stream.is_some_and(|s| s != l.stream) {
            return None;
        }
        if self.since.is_some_and(|since| pintle_api::time::parse(l.time).is_some_and(|t| t < since)) {
            return None;
        }
        let mut out = vec![];
        if self.timestamps {
            out.extend_from_slice(l.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(l.text);
        if !l.partial {
            out.push(b'\n');
        }
        Some(out)
    }
}

/// The container whose log is wanted.
fn choose(k: &Shared, named: &Named, previous: bool) -> Result<ContainerStatus, Reply> {
    let bad = |text: String| Reply::text(400, text);
    let missing = || Reply::text(404, format!("pod {:?} not found\n", named.pod));
    let handle = k.worker_named(&named.namespace, &named.pod).ok_or_else(missing)?;
    let (pod, state) = {
        let seen = handle.seen.lock();
        (seen.pod.clone(), seen.runtime.clone())
    };
    if spec::container(&pod, &named.container).is_none() {
        return Err(Reply::text(404, format!("container {:?} not found in pod {:?}\n", named.container, named.pod)));
    }
    let status = handle.seen.lock().status.clone();
    let id = which(&status, &named.container, &named.pod, previous).map_err(bad)?;
    state.by_id(&id).cloned().ok_or_else(|| bad(format!("unable to retrieve container logs for {id}")))
}

/// The id of the run whose log is wanted, as the status tells it.
fn which(status: &PodStatus, c: &str, p: &str, previous: bool) -> Result<String, String> {
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let told = lists.into_iter().flatten().flatten().find(|s| s.name == c);
    let Some(told) = told else { return Err(format!("container {c:?} in pod {p:?} is not available")) };
    let bare = |id: Option<&String>| id.and_then(|i| i.split_once("://")).map(|(_, id)| id.to_string());
    let now = told.state.clone().unwrap_or_default();
    let before = told.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let last = || {
        bare(before.and_then(|t| t.container_id.as_ref()))
            .ok_or_else(|| format!("previous terminated container {c:?} in pod {p:?} not found"))
    };
    if previous {
        return last();
    }
    if now.running.is_some() {
        return bare(told.container_id.as_ref())
            .ok_or_else(|| format!("container {c:?} in pod {p:?} is not available"));
    }
    if let Some(t) = &now.terminated {
        return bare(t.container_id.as_ref()).ok_or_else(|| format!("container {c:?} in pod {p:?} is terminated"));
    }
    if before.is_some() {
        return last();
    }
    let reason = now.waiting.and_then(|w| w.reason).unwrap_or_default();
    Err(match reason.as_str() {
        "ErrImagePull" => format!("container {c:?} in pod {p:?} is waiting to start: image can't be pulled"),
        "ImagePullBackOff" => {
            format!("container {c:?} in pod {p:?} is waiting to start: trying and failing to pull image")
        }
        other => format!("container {c:?} in pod {p:?} is waiting to start: {other}"),
    })
}

/// Serves a log.
pub(super) async fn serve(k: &Arc<Shared>, named: &Named, query: &Query) -> Reply {
    let options = match Options::parse(query, k.clock.now()) {
        Ok(o) => o,
        Err(e) => return Reply::text(422, e),
    };
    let container = match choose(k, named, options.previous) {
        Ok(c) => c,
        Err(reply) => return reply,
    };
    let path = PathBuf::from(&container.log_path);
    if let Err(e) = tokio::fs::metadata(&path).await {
        return Reply::text(500, format!("failed to try resolving symlinks in path {:?}: {e}", container.log_path));
    }
    let (tx, rx) = mpsc::channel::<io::Result<Bytes>>(16);
    let k = k.clone();
    tokio::spawn(async move {
        let follow = options.follow;
        let job = Job { k, id: container.id, path, options, tx };
        let tx = job.tx.clone();
        if let Err(e) = job.run().await {
            // The answer has begun; all that is left is to break it off.
            tracing::debug!(error = %e, follow, "log stream ended");
            let _ = tx.send(Err(e)).await;
        }
    });
    Reply::stream(tokio_stream(rx))
}

fn tokio_stream(rx: mpsc::Receiver<io::Result<Bytes>>) -> impl futures::Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|b| (b, rx)) })
}

struct Job {
    k: Arc<Shared>,
    id: String,
    path: PathBuf,
    options: Options,
    tx: mpsc::Sender<io::Result<Bytes>>,
}

/// Where the last `n` lines begin.
async fn tail_start(path: &Path, n: usize) -> io::Result<u64> {
    const BLOCK: u64 = 32 * 1024;
    let mut file = tokio::fs::File::open(path).await?;
    let size = file.metadata().await?.len();
    if n == 0 {
        return Ok(size);
    }
    let (mut end, mut seen) = (size, 0);
    let mut block = vec![];
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(begin)).await?;
        block.clear();
        (&mut file).take(end - begin).read_to_end(&mut block).await?;
        for (i, b) in block.iter().enumerate().rev() {
            let at = begin + i as u64;
            // The end of the last line begins no line.
            if *b == b'\n' && at + 1 < size {
                seen += 1;
                if seen == n {
                    return Ok(at + 1);
                }
            }
        }
        end = begin;
    }
    Ok(0)
}

/// How often to look whether the container still runs: the log does not tell of its end. Upstream's period.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Job {
    /// Sends one line; answers whether there is an end to it.
    async fn send(&self, line: &[u8], left: &mut Option<usize>) -> bool {
        let Some(mut out) = self.options.format(line.strip_suffix(b"\n").unwrap_or(line)) else { return false };
        if let Some(left) = left {
            out.truncate(*left);
            *left -= out.len();
        }
        let over = *left == Some(0);
        self.tx.send(Ok(out.into())).await.is_err() || over
    }

    async fn run(self) -> io::Result<()> {
        let mut left = self.options.limit;
        let start = match self.options.tail {
            Some(n) => tail_start(&self.path, n).await?,
            None => 0,
        };
        let mut growth = self.growth();
        let mut file = BufReader::new(tokio::fs::File::open(&self.path).await?);
        file.seek(SeekFrom::Start(start)).await?;
        let mut line = vec![];
        let mut ended = false;
        loop {
            let n = file.read_until(b'\n', &mut line).await?;
            if n > 0 && line.ends_with(b"\n") {
                if self.send(&line, &mut left).await {
                    return Ok(());
                }
                line.clear();
                continue;
            }
            if !self.options.follow || ended {
                if !line.is_empty() {
                    self.send(&line, &mut left).await;
                }
                return Ok(());
            }
            // All of it was read; after a rotation the rest is in a new file.
            if self.rotated(&file).await {
                growth = self.growth();
                if let Ok(fresh) = tokio::fs::File::open(&self.path).await {
                    file = BufReader::new(fresh);
                    line.clear();
                }
                continue;
            }
            // What was written before the end is read once more.
            ended = !self.is_running();
            if ended {
                continue;
            }
            let grown = async {
                match &mut growth {
                    Some(g) => g.wait().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ok = grown => if !ok { growth = None },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.tx.closed() => return Ok(()),
            }
        }
    }

    /// Tells of new lines of a followed log. Without it (no inotify watch left) the looks at the container serve.
    fn growth(&self) -> Option<Notices> {
        let watch = self.options.follow.then(|| Notices::of_file(&self.path))?;
        watch.inspect_err(|e| tracing::debug!(path = %self.path.display(), error = %e, "no watch of the log")).ok()
    }

    fn is_running(&self) -> bool {
        self.k.all_workers().iter().any(|h| {
            let seen = h.seen.lock();
            seen.runtime.by_id(&self.id).is_some_and(|c| c.state == ContainerState::Running)
        })
    }

    async fn rotated(&self, file: &BufReader<tokio::fs::File>) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let (Ok(open), Ok(now)) = (file.get_ref().metadata().await, tokio::fs::metadata(&self.path).await) else {
            return false;
        };
        open.ino() != now.ino()
    }
}

/// Serves the host's `/var/log`.
pub(super) async fn system(rest: &str) -> Reply {
    let decoded = percent_encoding::percent_decode_str(rest.trim_start_matches('/')).decode_utf8_lossy().into_owned();
    let path = Path::new("/var/log").join(&decoded);
    if decoded.split('/').any(|p| p == "..") {
        return Reply::text(400, "invalid path\n");
    }
    match tokio::fs::metadata(&path).await {
        Ok(m) if m.is_dir() => {
            let mut names = vec![];
            if let Ok(mut entries) = tokio::fs::read_dir(&path).await {
                while let Ok(Some(e)) = entries.next_entry().await {
                    let slash = if e.file_type().await.is_ok_and(|t| t.is_dir()) { "/" } else { "" };
                    names.push(format!("{}{slash}", e.file_name().to_string_lossy()));
                }
            }
            names.sort();
            let line = |n: String| {
                let safe = n.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
                format!("<a href=\"{safe}\">{safe}</a>\n")
            };
            let body: String = names.into_iter().map(line).collect();
            Reply::bytes("text/html; charset=utf-8", format!("<pre>\n{body}</pre>\n"))
        }
        Ok(_) => match tokio::fs::File::open(&path).await {
            Ok(file) => Reply::stream(tokio_util::io::ReaderStream::new(file)),
            Err(e) => Reply::text(500, format!("{e}\n")),
        },
        Err(_) => Reply::text(404, "404 page not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn options_and_lines() {
        let parse = |q: &str| Options::parse(&Query::parse(Some(q)), at(0));
        let line = b"2026-01-02T03:04:05.000000006Z stderr F text";
        let show = |q: &str| parse(q).unwrap().format(line).map(|b| String::from_utf8(b).unwrap());
        assert_eq!(show("").as_deref(), Some("text\n"));
        assert_eq!(show("timestamps=true").as_deref(), Some("2026-01-02T03:04:05.000000006Z text\n"));
        assert_eq!(show("stream=Stdout"), None);
        assert_eq!(show("sinceTime=2026-01-02T03:04:06Z"), None);
        assert_eq!(show("sinceTime=2026-01-02T03:04:05Z").as_deref(), Some("text\n"));
        assert!(parse("sinceSeconds=0").is_err() && parse("tailLines=-1").is_err() && parse("limitBytes=0").is_err());
        assert!(parse("sinceSeconds=1&sinceTime=2026-01-02T03:04:06Z").is_err());
    }

    #[test]
    fn runs() {
        let check = |state: &str, last: &str, previous: bool, want: Result<&str, &str>| {
            let text = format!(
                "{{containerStatuses: [{{name: c, image: i, imageID: '', ready: false, restartCount: 1, containerID: 'pintle://now', state: {{{state}}}, lastState: {{{last}}}}}]}}"
            );
            let status: PodStatus = serde_saphyr::from_str(&text).unwrap();
            let got = which(&status, "c", "p", previous);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{state} {last} {previous}");
        };
        let ended = "terminated: {exitCode: 1, containerID: 'pintle://before'}";
        check("running: {}", "", false, Ok("now"));
        check("running: {}", ended, true, Ok("before"));
        check("running: {}", "", true, Err("previous terminated container \"c\" in pod \"p\" not found"));
        check("waiting: {reason: CrashLoopBackOff}", ended, false, Ok("before"));
        check("waiting: {reason: CrashLoopBackOff}", ended, true, Ok("before"));
        let waits = "container \"c\" in pod \"p\" is waiting to start: ";
        check("waiting: {reason: ContainerCreating}", "", false, Err(&format!("{waits}ContainerCreating")));
        check("waiting: {reason: ErrImagePull}", "", false, Err(&format!("{waits}image can't be pulled")));
        check(ended, "", false, Ok("before"));
    }

    #[tokio::test]
    async fn the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        tokio::fs::write(&path, "a\nbb\nccc\n").await.unwrap();
        for (n, want) in [(0, 9), (1, 5), (2, 2), (3, 0), (9, 0)] {
            assert_eq!(tail_start(&path, n).await.unwrap(), want, "{n}");
        }
        let long: String = (0..20_000).map(|i| format!("{i}\n")).collect();
        tokio::fs::write(&path, &long).await.unwrap();
        let from = usize::try_from(tail_start(&path, 10_000).await.unwrap()).unwrap();
        assert!(long[from..].starts_with("10000\n"));
    }
}
