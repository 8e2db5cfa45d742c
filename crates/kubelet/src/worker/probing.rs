//! The probes of a pod's containers: begun when a container runs, ended with it.

use super::{Message, Worker, ops};
use crate::pod::spec;
use crate::pod::state::Verdict;
use crate::probes::{self, run};
use pintle_client::recorder::EventType;
use pintle_runtime::ContainerState;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::AbortHandle;

/// The running probes by container id and kind.
#[derive(Default)]
pub(super) struct Probing {
    tasks: BTreeMap<(String, probes::Kind), AbortHandle>,
}

impl Probing {
    /// The container ended, or is about to be killed.
    pub(super) fn stop(&mut self, id: &str) {
        self.retain(|(of, _)| of != id);
    }

    /// A pod that is ending is not restarted, but its readiness still counts.
    pub(super) fn only_readiness(&mut self) {
        self.retain(|(_, kind)| *kind == probes::Kind::Readiness);
    }

    pub(super) fn stop_all(&mut self) {
        self.retain(|_| false);
    }

    fn retain(&mut self, keep: impl Fn(&(String, probes::Kind)) -> bool) {
        self.tasks.retain(|key, task| {
            let keep = keep(key);
            if !keep {
                task.abort();
            }
            keep
        });
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.stop_all();
    }
}

impl Worker {
    /// Begins the probes that are due.
    pub(super) fn keep_probing(&mut self) {
        let mut due = vec![];
        for (kind, c) in spec::containers(&self.pod).filter(|(kind, c)| ops::is_probed(*kind, c)) {
            let running = self.runtime.latest(&c.name).filter(|s| s.state == ContainerState::Running);
            let Some(s) = running.filter(|s| !self.killing.contains(&s.id)) else { continue };
            let started = c.startup_probe.is_none() || self.verdicts.startup.get(&s.id) == Some(&Verdict::Success);
            let wanted = [
                (probes::Kind::Startup, &c.startup_probe, !started),
                (probes::Kind::Liveness, &c.liveness_probe, started),
                (probes::Kind::Readiness, &c.readiness_probe, started),
            ];
            for (what, probe, now) in wanted {
                let key = (s.id.clone(), what);
                if let Some(probe) = probe.as_ref().filter(|_| now && !self.probing.tasks.contains_key(&key)) {
                    due.push((key, kind, c.clone().into_owned(), probe.clone(), s.started_at));
                }
            }
        }
        for (key, kind, container, probe, started_at) in due {
            let now = i64::try_from(self.now().as_nanosecond()).unwrap_or(i64::MAX);
            let since = Duration::from_nanos(u64::try_from(now.saturating_sub(started_at)).unwrap_or(0));
            let (id, what) = key.clone();
            let mut about = self.reference();
            about.field_path = Some(spec::field_path(kind, &container.name));
            let recorder = self.k.recorder.clone();
            let tell = move |kind: EventType, reason: &str, text: String| recorder.event(&about, kind, reason, text);
            let (tx, told) = (self.tx.clone(), id.clone());
            // The worker may be gone before its probes.
            let report = move |v| drop(tx.send(Message::Verdict(what, told.clone(), v)));
            let (k, r, name) = (self.k.clone(), self.r.clone(), container.name.clone());
            let count = move |result: &'static str| {
                k.count_probe(vec![
                    ("container", name.clone()),
                    ("namespace", r.namespace.clone()),
                    ("pod", r.name.clone()),
                    ("pod_uid", r.uid.clone()),
                    ("probe_type", what.to_string()),
                    ("result", result.into()),
                ]);
            };
            let target = run::Target {
                runtime: self.k.runtime.clone(),
                container,
                id,
                pod_ip: crate::kubelet::pod_ip(&self.pod, &self.runtime, &self.k.node.addresses()),
            };
            let task = tokio::spawn(run::run(what, probe, target, since, report, tell, count));
            self.probing.tasks.insert(key, task.abort_handle());
        }
    }
}
