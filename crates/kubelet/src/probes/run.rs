//! Runs one probe of one container until the container ends.

use super::tally::Tally;
use super::{Answer, Kind, grpc, http};
use crate::pod::state::Verdict;
use k8s_openapi::api::core::v1::{Container, Probe};
use pintle_client::recorder::EventType;
use pintle_runtime::{Code, Runtime};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A failed question is asked again at once so many times.
const TRIES: usize = 3;
/// How much of a command's output is kept.
const MAX_OUTPUT: usize = 10 * 1024;

fn seconds(v: Option<i32>, or: u64) -> Duration {
    Duration::from_secs(v.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(or))
}

/// What a probe asks and whom.
pub struct Target {
    /// The runtime that executes commands.
    pub runtime: Arc<dyn Runtime>,
    /// The container's spec.
    pub container: Container,
    /// Its id.
    pub id: String,
    /// The pod's address.
    pub pod_ip: String,
}

/// Asks once.
pub async fn ask(target: &Target, probe: &Probe) -> Answer {
    let timeout = seconds(probe.timeout_seconds, 1);
    let c = &target.container;
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return match target.runtime.exec_sync(&target.id, &command, timeout).await {
            Ok(out) => {
                let mut text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
                crate::text::truncate(&mut text, MAX_OUTPUT);
                if out.exit_code == 0 { Answer::Success } else { Answer::Failure(text) }
            }
            Err(e) if e.code == Code::DeadlineExceeded => Answer::Failure(format!(
                "command timed out: {:?} timed out after {}",
                command.join(" "),
                pintle_api::duration::format(timeout)
            )),
            Err(e) => Answer::Error(e.to_string()),
        };
    }
    if let Some(action) = &probe.http_get {
        return http::probe(action, c, &target.pod_ip, timeout).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let port = match http::port(&action.port, c) {
            Ok(p) => p,
            Err(e) => return Answer::Error(e),
        };
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&target.pod_ip);
        return match tokio::time::timeout(timeout, http::connect(host, port)).await {
            Ok(Ok(_)) => Answer::Success,
            Ok(Err(e)) => Answer::Failure(e),
            Err(_) => Answer::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return Answer::Error(format!("invalid port number: {}", action.port));
        };
        return grpc::probe(&target.pod_ip, port, action.service.as_deref().unwrap_or_default(), timeout).await;
    }
    Answer::Error("missing probe handler".into())
}

/// Asks again and again: `report` is told each verdict, `tell` the Events. Ends when there is nothing more to ask.
pub async fn run(
    kind: Kind,
    probe: Probe,
    target: Target,
    since_start: Duration,
    mut report: impl FnMut(Verdict),
    tell: impl Fn(EventType, &str, String),
    count: impl Fn(&'static str),
) {
    let period = seconds(probe.period_seconds, 10);
    let delay = seconds(probe.initial_delay_seconds, 0).saturating_sub(since_start);
    let mut tally = Tally::new(kind, &probe);
    let mut next = Instant::now() + delay;
    let mut told: Option<Verdict> = None;
    loop {
        tokio::time::sleep_until(next).await;
        let mut answer = ask(&target, &probe).await;
        for _ in 1..TRIES {
            if !matches!(answer, Answer::Error(_)) {
                break;
            }
            answer = ask(&target, &probe).await;
        }
        count(match &answer {
            Answer::Success | Answer::Warning(_) => "successful",
            Answer::Failure(_) => "failed",
            Answer::Error(_) => "unknown",
        });
        match &answer {
            Answer::Success => {}
            Answer::Warning(text) => tell(EventType::Warning, "ProbeWarning", format!("{kind} probe warning: {text}")),
            Answer::Failure(text) => tell(EventType::Warning, "Unhealthy", format!("{kind} probe failed: {text}")),
            Answer::Error(text) => tell(
                EventType::Warning,
                "Unhealthy",
                format!("{kind} probe errored and resulted in unknown state: {text}"),
            ),
        }
        let verdict = tally.count(&answer);
        if let Some(v) = verdict
            && told != Some(v)
        {
            told = Some(v);
            report(v);
        }
        if tally.is_over(verdict) {
            return;
        }
        next = (next + period).max(Instant::now());
    }
}
