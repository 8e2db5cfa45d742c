//! One task a pod: it takes in what happens, asks [`crate::pod::decide`] what to do, does one thing at a time, and reports.

mod kill;
mod ops;
mod probing;
pub mod report;
mod resizing;
mod terminate;

use crate::kubelet::Shared;
use crate::pod::backoff::Backoff;
use crate::pod::decide::{self, Decision, KillReason, Start};
use crate::pod::spec::{self, Kind, PodRef};
use crate::pod::state::{RuntimeState, Verdict, Verdicts};
use crate::pod::status::{self, Ending, Waiting};
use crate::probes;
use crate::volumes::ReadyVolumes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition, PodStatus};
use parking_lot::Mutex;
use pintle_client::recorder::EventType;
use pintle_runtime::{self as rt, ContainerState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// The pod changed.
    Pod(Arc<Pod>),
    /// The pod is gone from its source; with its last state.
    Gone(Arc<Pod>),
    /// The API object that stands for this static pod.
    Mirror(Arc<Pod>),
    /// Another pod left the node.
    Room,
    /// Something happened in the runtime.
    Runtime(rt::Event),
    /// A probe has a verdict.
    Verdict(probes::Kind, String, Verdict),
    /// An object the pod refers to changed.
    Objects,
    /// The node ends the pod. The sender is told when nothing of it runs any more.
    End(Ending, Option<i64>, Option<oneshot::Sender<()>>),
    /// What the status writer has to say.
    Written(report::Written),
}

/// What others see of a worker.
#[derive(Clone)]
pub struct Handle {
    /// To tell it something.
    pub tx: mpsc::UnboundedSender<Message>,
    /// What it knows.
    pub seen: Arc<Mutex<Seen>>,
}

/// A worker's public face.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The pod as last told.
    pub pod: Arc<Pod>,
    /// Its status as last computed.
    pub status: PodStatus,
    /// What the runtime has of it.
    pub runtime: RuntimeState,
    /// Nothing of it runs any more and nothing will.
    pub over: bool,
    /// It was not taken.
    pub rejected: bool,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It is to run.
    Running,
    /// It is being ended.
    Terminating,
    /// Nothing runs any more; what was made for it is being taken down.
    CleaningUp,
    /// Nothing is left but what a final look at it needs.
    Over,
    /// Nothing is left.
    Gone,
}

/// The outcome of the one thing a worker is doing.
enum Done {
    Volumes(ops::VolumesReady),
    Resized(Vec<resizing::Resized>, Option<rt::LinuxResources>),
    Sandbox(Result<Box<rt::SandboxStatus>, String>),
    Started(Start, Result<(), ops::NotStarted>),
    Stopped,
    CleanedUp(Result<(), String>),
    Removed,
}

/// After a failure that nothing tells us is mended, the next try.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

struct Worker {
    k: Arc<Shared>,
    r: PodRef,
    pod: Arc<Pod>,
    rx: mpsc::UnboundedReceiver<Message>,
    tx: mpsc::UnboundedSender<Message>,
    seen: Arc<Mutex<Seen>>,
    stage: Stage,
    runtime: RuntimeState,
    verdicts: Verdicts,
    waiting: BTreeMap<String, Waiting>,
    /// Not before this time is a container started again.
    not_before: BTreeMap<String, Timestamp>,
    /// Containers with another image than their last start began with.
    renewed: BTreeSet<String>,
    /// Containers whose back-off was told of, by id.
    told_backoff: BTreeSet<String>,
    messages: BTreeMap<String, String>,
    backoff: Backoff,
    volumes: Option<ReadyVolumes>,
    /// When the volumes' contents must be looked at again.
    volumes_at: Option<Timestamp>,
    volumes_stale: bool,
    volume_tries: u32,
    sandbox_tries: u32,
    sandbox_not_before: Option<Timestamp>,
    op: Option<BoxFuture<'static, Done>>,
    cancel: CancellationToken,
    kills: FuturesUnordered<BoxFuture<'static, String>>,
    killing: BTreeSet<String>,
    /// Until when a container that is replaced because its spec changed is not spoken of.
    quiet_until: Option<Timestamp>,
    probing: probing::Probing,
    ending: Option<Ending>,
    /// The source no longer has the pod.
    source_gone: bool,
    /// The grace period of the end, and when it is over.
    deadline: watch::Sender<Option<tokio::time::Instant>>,
    grace_override: Option<i64>,
    tell_over: Vec<oneshot::Sender<()>>,
    report: report::Reporter,
    /// What running containers were told last, by id: a runtime that tells it in other words is not told again.
    told_resources: BTreeMap<String, rt::LinuxResources>,
    /// What the pod as a whole was given.
    told_around: Option<rt::LinuxResources>,
    /// The pod with resources it was not granted.
    asked: Option<Arc<Pod>>,
    /// Why a wish for other resources is not granted.
    resize_pending: Option<PodCondition>,
    /// Not before this time is a failed change of resources tried again.
    resize_not_before: Option<Timestamp>,
    /// When the pod must be ended for its `activeDeadlineSeconds`.
    active_deadline: Option<Timestamp>,
}

/// Starts a worker. `runtime` is what the runtime has of the pod already; `ending` that the node does not take it.
pub fn start(k: Arc<Shared>, pod: Arc<Pod>, runtime: RuntimeState, ending: Option<Ending>) -> Handle {
    let (tx, rx) = mpsc::unbounded_channel();
    let r = PodRef::of(&pod);
    let rejected = ending.is_some();
    // A pod that is over, or being deleted, is only brought to its end.
    let over = spec::is_finished(&pod) || pod.metadata.deletion_timestamp.is_some();
    let seen = Arc::new(Mutex::new(Seen {
        pod: pod.clone(),
        status: pod.status.clone().unwrap_or_default(),
        runtime: runtime.clone(),
        over: rejected,
        rejected,
    }));
    let max = SignedDuration::try_from(k.config.max_restart_delay()).unwrap_or(SignedDuration::from_secs(300));
    let report = report::Reporter::new(k.clone(), &pod, tx.clone());
    let worker = Worker {
        r,
        rx,
        tx: tx.clone(),
        seen: seen.clone(),
        stage: if rejected || over { Stage::Terminating } else { Stage::Running },
        runtime,
        verdicts: Verdicts::default(),
        waiting: BTreeMap::new(),
        not_before: BTreeMap::new(),
        renewed: BTreeSet::new(),
        told_backoff: BTreeSet::new(),
        messages: BTreeMap::new(),
        backoff: Backoff::new(std::cmp::min(SignedDuration::from_secs(10), max), max),
        volumes: None,
        volumes_at: None,
        volumes_stale: false,
        volume_tries: 0,
        sandbox_tries: 0,
        sandbox_not_before: None,
        op: None,
        cancel: CancellationToken::new(),
        kills: FuturesUnordered::new(),
        killing: BTreeSet::new(),
        quiet_until: None,
        probing: probing::Probing::default(),
        ending,
        source_gone: false,
        deadline: watch::Sender::new(None),
        grace_override: None,
        tell_over: vec![],
        report,
        active_deadline: None,
        told_resources: BTreeMap::new(),
        told_around: None,
        asked: None,
        resize_pending: None,
        resize_not_before: None,
        pod,
        k,
    };
    tokio::spawn(worker.run());
    Handle { tx, seen }
}

impl Worker {
    fn now(&self) -> Timestamp {
        self.k.clock.now()
    }

    fn reference(&self) -> ObjectReference {
        pintle_client::recorder::reference_of(&*self.pod)
    }

    /// Tells of an Event about the pod.
    fn event(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        self.k.recorder.event(&self.reference(), kind, reason, message);
    }

    /// Tells of an Event about one of its containers.
    fn container_event(&self, kind: Kind, name: &str, what: EventType, reason: &str, message: impl Into<String>) {
        let mut about = self.reference();
        about.field_path = Some(spec::field_path(kind, name));
        self.k.recorder.event(&about, what, reason, message);
    }

    async fn run(mut self) {
        self.took_over();
        loop {
            let now = self.now();
            self.step();
            self.publish();
            if self.stage == Stage::Gone {
                break;
            }
            let wake = self.next_wake(now);
            let clock = self.k.clock.clone();
            let Self { rx, op, kills, .. } = &mut self;
            let next = tokio::select! {
                m = rx.recv() => Next::Message(m.map(Box::new)),
                done = wait(op) => Next::Done(done),
                Some(id) = kills.next() => Next::Killed(id),
                () = sleep_until(wake, &clock) => Next::Time,
            };
            match next {
                Next::Message(None) => break,
                Next::Message(Some(m)) => {
                    self.take(*m).await;
                    // What came meanwhile is taken in before the next decision.
                    while let Ok(m) = self.rx.try_recv() {
                        self.take(m).await;
                    }
                }
                Next::Done(done) => {
                    self.op = None;
                    self.finished(done).await;
                }
                Next::Killed(id) => {
                    self.refresh(&id).await;
                    self.killing.remove(&id);
                }
                Next::Time => {}
            }
        }
        self.k.worker_gone(&self.r.uid);
    }

    /// Containers that ran before this worker did: their ends are read, their probes begin.
    fn took_over(&mut self) {
        if self.stage == Stage::Terminating {
            self.set_deadline();
        }
        if !self.runtime.sandboxes.is_empty() {
            // What was granted before still counts; what is asked for now is looked at anew.
            let asked = self.pod.clone();
            let restored = crate::pod::resize::restored(&asked, &self.seen.lock().status);
            self.pod = Arc::new(restored);
            self.grant(asked);
        }
        let told: Vec<_> = {
            let status = &self.seen.lock().status;
            let lists = [&status.init_container_statuses, &status.container_statuses];
            lists.into_iter().flatten().flatten().cloned().collect()
        };
        let known: Vec<rt::ContainerStatus> = self.runtime.containers.clone();
        for c in known {
            self.noticed(&c);
            // What was said of a container that runs on still holds until its probes say otherwise.
            let id = Some(status::container_id(&c.id));
            for s in told.iter().filter(|s| s.container_id == id && c.state == ContainerState::Running) {
                if s.started == Some(true) {
                    self.verdicts.startup.insert(c.id.clone(), Verdict::Success);
                }
                if s.ready {
                    self.verdicts.readiness.insert(c.id.clone(), Verdict::Success);
                }
            }
        }
    }

    async fn take(&mut self, m: Message) {
        match m {
            Message::Pod(pod) => self.changed(pod),
            Message::Gone(pod) => {
                self.pod = pod;
                self.source_gone = true;
                self.begin_end();
            }
            Message::Mirror(pod) => self.report.aim(&pod),
            Message::Room => {
                if let Some(asked) = self.asked.take() {
                    self.grant(asked);
                }
            }
            Message::Runtime(event) => self.runtime_event(&event).await,
            Message::Verdict(kind, id, verdict) => {
                let map = match kind {
                    probes::Kind::Liveness => &mut self.verdicts.liveness,
                    probes::Kind::Readiness => &mut self.verdicts.readiness,
                    probes::Kind::Startup => &mut self.verdicts.startup,
                };
                map.insert(id, verdict);
            }
            Message::Objects => {
                self.volumes_stale = true;
                // What failed for want of an object may work now.
                let failed = |w: &Waiting| w.reason == "CreateContainerConfigError";
                let again: Vec<String> =
                    self.waiting.iter().filter(|(_, w)| failed(w)).map(|(name, _)| name.clone()).collect();
                for name in again {
                    self.not_before.remove(&name);
                }
            }
            Message::End(ending, grace, tell) => {
                if let Some(tell) = tell {
                    self.tell_over.push(tell);
                }
                if self.stage == Stage::Running {
                    self.ending = Some(ending);
                    self.grace_override = grace;
                }
                self.begin_end();
            }
            Message::Written(w) => self.written(w),
        }
    }

    fn changed(&mut self, pod: Arc<Pod>) {
        let labels_changed = pod.metadata.labels != self.pod.metadata.labels
            || pod.metadata.annotations != self.pod.metadata.annotations;
        self.volumes_stale |= labels_changed;
        for (_, new) in spec::containers(&pod) {
            // What another image did is not held against this one.
            if spec::containers(&self.pod).any(|(_, old)| old.name == new.name && old.image != new.image) {
                self.not_before.remove(&new.name);
                self.backoff.forget(&new.name);
                self.renewed.insert(new.name.clone());
            }
        }
        self.report.saw(&pod);
        self.grant(pod);
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.begin_end();
        }
    }

    /// Looks at a container anew.
    async fn refresh(&mut self, id: &str) {
        match self.k.runtime.container_status(id).await {
            Ok(c) => {
                self.noticed(&c);
                self.runtime.put_container(c);
            }
            Err(e) if e.is_not_found() => self.runtime.drop_container(id),
            Err(e) => tracing::warn!(pod = %self.r, container = id, error = %e, "cannot read the container's status"),
        }
    }

    async fn refresh_all(&mut self) {
        match crate::kubelet::runtime_state(&*self.k.runtime, &self.r.uid).await {
            Ok(state) => {
                for c in &state.containers {
                    self.noticed(c);
                }
                self.runtime = state;
            }
            Err(e) => tracing::warn!(pod = %self.r, error = %e, "cannot read the pod's state from the runtime"),
        }
    }

    async fn runtime_event(&mut self, event: &rt::Event) {
        match &event.kind {
            rt::EventKind::Resync => self.refresh_all().await,
            rt::EventKind::SandboxRemoved => self.runtime.drop_sandbox(&event.sandbox_id),
            rt::EventKind::ContainerRemoved => self.runtime.drop_container(&event.container_id),
            rt::EventKind::SandboxReady | rt::EventKind::SandboxGone => {
                match self.k.runtime.pod_sandbox_status(&event.sandbox_id).await {
                    Ok(s) => self.runtime.put_sandbox(s),
                    Err(e) if e.is_not_found() => self.runtime.drop_sandbox(&event.sandbox_id),
                    Err(e) => tracing::warn!(pod = %self.r, error = %e, "cannot read the sandbox's status"),
                }
            }
            _ => self.refresh(&event.container_id).await,
        }
    }

    /// A container is seen in a state: probes begin and end with it, and its last words are read.
    fn noticed(&mut self, c: &rt::ContainerStatus) {
        match c.state {
            ContainerState::Exited => {
                self.probing.stop(&c.id);
                if !self.messages.contains_key(&c.id) {
                    let message = report::last_words(c);
                    self.messages.insert(c.id.clone(), message);
                }
            }
            ContainerState::Running => {}
            ContainerState::Created | ContainerState::Unknown => {}
        }
    }

    /// The next time at which something is to be done although nothing happens. `now` is from before the last step: what
    /// was due then has been looked at.
    fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        if self.stage != Stage::Running {
            return None;
        }
        let timers = self.not_before.values().copied();
        let own =
            [self.volumes_at, self.sandbox_not_before, self.active_deadline, self.resize_not_before, self.quiet_until];
        timers.chain(own.into_iter().flatten()).filter(|t| *t > now).min()
    }

    fn step(&mut self) {
        match self.stage {
            Stage::Running => self.step_running(),
            Stage::Terminating => self.step_terminating(),
            Stage::CleaningUp => self.step_cleaning_up(),
            Stage::Over => self.step_over(),
            Stage::Gone => {}
        }
    }

    fn step_running(&mut self) {
        let now = self.now();
        self.check_active_deadline(now);
        if self.stage != Stage::Running {
            return self.step();
        }
        let killing = &self.killing;
        let view = decide::View { pod: &self.pod, runtime: &self.runtime, verdicts: &self.verdicts, killing };
        let decision = decide::decide(&view);
        for kill in &decision.kill {
            self.kill(kill.id.clone(), kill.kind, &kill.name, kill.message.clone(), kill.reason);
        }
        self.kill_for_resize();
        self.keep_probing();
        if decision.kill_pod && decision.create_sandbox.is_none() {
            self.begin_end();
            return self.step();
        }
        if self.op.is_some() {
            return;
        }
        self.next_op(&decision, now);
    }

    /// Chooses the one thing to do now.
    fn next_op(&mut self, decision: &Decision, now: Timestamp) {
        let due = |t: Option<Timestamp>| t.is_none_or(|t| t <= now);
        let volumes_wanted = self.volumes.is_none() || self.volumes_stale || self.volumes_at.is_some_and(|t| t <= now);
        if volumes_wanted && (due(self.volumes_at) || self.volumes_stale) {
            self.volumes_stale = false;
            self.volumes_at = None;
            self.op = Some(self.prepare_volumes());
            return;
        }
        if self.volumes.is_none() {
            return;
        }
        if let Some(attempt) = decision.create_sandbox {
            if due(self.sandbox_not_before) {
                self.sandbox_not_before = None;
                self.op = Some(self.make_sandbox(attempt));
            }
            return;
        }
        if let Some(op) = self.resize_op(now) {
            self.op = Some(op);
            return;
        }
        for start in &decision.start {
            if self.may_start(start, now) {
                self.op = Some(self.start_container(start.clone()));
                return;
            }
            // An init container that cannot start yet holds up those after it.
            if start.kind == Kind::Init {
                return;
            }
        }
    }

    /// Whether the container may start now; if it is in back-off, says so.
    fn may_start(&mut self, start: &Start, now: Timestamp) -> bool {
        if self.not_before.get(&start.name).is_some_and(|t| *t > now) {
            return false;
        }
        self.not_before.remove(&start.name);
        self.renewed.remove(&start.name);
        let last = self.runtime.of(&start.name).find(|c| c.state == ContainerState::Exited);
        let Some((id, finished)) = last.map(|c| (c.id.clone(), c.finished_at)) else { return true };
        let since = Timestamp::from_nanosecond(i128::from(finished)).unwrap_or(now);
        let key = &start.name;
        if let Some(until) = self.backoff.until_since(key, since, now) {
            let delay = std::time::Duration::try_from(self.backoff.delay(key)).unwrap_or_default();
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                pintle_api::duration::format(delay),
                start.name,
                self.r
            );
            self.waiting.insert(key.clone(), Waiting { reason: "CrashLoopBackOff".into(), message });
            self.not_before.insert(key.clone(), until);
            if self.told_backoff.insert(id) {
                let text = format!("Back-off restarting failed container {} in pod {}", start.name, self.r);
                self.container_event(start.kind, &start.name, EventType::Warning, "BackOff", text);
            }
            return false;
        }
        true
    }

    async fn finished(&mut self, done: Done) {
        match done {
            Done::Volumes(v) => self.volumes_done(v),
            Done::Resized(all, around) => self.resized(all, around).await,
            Done::Sandbox(Ok(s)) => {
                self.sandbox_tries = 0;
                // Everything starts over in it; what older sandboxes held is gone or of the past.
                self.runtime.put_sandbox(*s);
                self.refresh_all().await;
            }
            Done::Sandbox(Err(e)) => {
                self.event(EventType::Warning, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {e}"));
                self.sandbox_tries += 1;
                let delay = SignedDuration::from_secs(1i64 << self.sandbox_tries.min(5)).min(RETRY);
                self.sandbox_not_before = self.now().saturating_add(delay).ok();
                self.refresh_all().await;
            }
            Done::Started(start, outcome) => self.started(start, outcome).await,
            Done::Stopped => {
                self.refresh_all().await;
                self.stopped();
            }
            Done::CleanedUp(outcome) => self.cleaned_up(outcome),
            Done::Removed => self.stage = Stage::Gone,
        }
    }

    fn volumes_done(&mut self, v: ops::VolumesReady) {
        for (name, error) in &v.failed {
            self.event(
                EventType::Warning,
                "FailedMount",
                format!("MountVolume.SetUp failed for volume {name:?} : {error}"),
            );
        }
        let now = self.now();
        if v.failed.is_empty() {
            self.volume_tries = 0;
            self.volumes = Some(v.ready);
            self.volumes_at = v.renew;
        } else {
            // Half a second at first, up to two minutes.
            let delay =
                SignedDuration::from_millis(500i64 << self.volume_tries.min(8)).min(SignedDuration::from_secs(122));
            self.volume_tries += 1;
            self.volumes_at = now.saturating_add(delay).ok();
        }
    }

    async fn started(&mut self, start: Start, outcome: Result<(), ops::NotStarted>) {
        let now = self.now();
        match outcome {
            Ok(()) => {
                self.waiting.remove(&start.name);
            }
            Err(ops::NotStarted::Cancelled) => {}
            Err(ops::NotStarted::Failed { reason, message, retry }) => {
                self.waiting.insert(start.name.clone(), Waiting { reason: reason.clone(), message });
                if !self.renewed.contains(&start.name) {
                    let retry = retry.unwrap_or_else(|| now.saturating_add(RETRY).unwrap_or(Timestamp::MAX));
                    self.not_before.insert(start.name.clone(), retry);
                }
            }
        }
        // The runtime's own events may come later than this.
        self.refresh_all().await;
    }

    fn check_active_deadline(&mut self, now: Timestamp) {
        let status = &self.seen.lock().status;
        let limit = spec::spec(&self.pod).active_deadline_seconds;
        self.active_deadline = limit
            .zip(status.start_time.as_ref())
            .and_then(|(seconds, start)| start.0.saturating_add(SignedDuration::from_secs(seconds)).ok());
        if self.active_deadline.is_some_and(|t| t <= now) {
            self.ending = Some(Ending {
                reason: "DeadlineExceeded".into(),
                message: "Pod was active on the node longer than the specified deadline".into(),
                conditions: vec![],
            });
            let message = "Pod was active on the node longer than the specified deadline";
            self.k.recorder.event(
                &pintle_client::recorder::reference_of(&*self.pod),
                EventType::Normal,
                "DeadlineExceeded",
                message,
            );
            self.stage = Stage::Terminating;
            self.cancel.cancel();
            self.set_deadline();
        }
    }

    /// Whether a pod that was not ended from outside will have nothing started again.
    fn terminal(&self) -> bool {
        self.stage >= Stage::CleaningUp
    }

    /// Computes the status, shows it, and hands it to the writer.
    fn publish(&mut self) {
        let known: BTreeSet<&String> = self.runtime.containers.iter().map(|c| &c.id).collect();
        self.messages.retain(|id, _| known.contains(id));
        let host_ips = self.k.node.addresses();
        let old = self.seen.lock().status.clone();
        // Others' conditions come from the API, ours from what we said last.
        let old = report::with_others(old, self.pod.status.as_ref());
        let status = if self.seen.lock().rejected {
            report::rejected(&self.pod, &old, self.ending.as_ref())
        } else {
            status::status(&status::View {
                pod: &self.pod,
                old: &old,
                runtime: &self.runtime,
                verdicts: &self.verdicts,
                waiting: &self.waiting,
                messages: &self.messages,
                host_ips: &host_ips,
                ended: self.ending.as_ref().filter(|_| self.ended_by_node()),
                terminal: self.terminal(),
                resize: self.resize_pending.as_ref(),
                now: self.now(),
            })
        };
        {
            let mut seen = self.seen.lock();
            seen.pod = self.pod.clone();
            seen.runtime.clone_from(&self.runtime);
            seen.status.clone_from(&status);
            seen.over = self.stage >= Stage::CleaningUp || seen.rejected;
        }
        let delete = self.stage == Stage::Over
            && self.pod.metadata.deletion_timestamp.is_some()
            && !self.source_gone
            && !spec::is_static(&self.pod);
        if !self.is_quiet() {
            self.report.want(status, delete);
        }
    }

    /// Whether a replacement is under way that nobody needs to hear of: upstream kills a container whose spec changed
    /// and starts the new one in one step, and looks at the outcome; the pod does not stop being ready in between.
    fn is_quiet(&mut self) -> bool {
        let Some(until) = self.quiet_until else { return false };
        let under_way = !self.killing.is_empty()
            || self.op.is_some()
            || spec::spec(&self.pod)
                .containers
                .iter()
                .any(|c| self.runtime.latest(&c.name).is_none_or(|s| s.state != ContainerState::Running));
        let quiet = self.stage == Stage::Running && under_way && self.now() < until;
        if !quiet {
            self.quiet_until = None;
        }
        quiet
    }

    fn kill(&mut self, id: String, kind: Kind, name: &str, message: String, reason: KillReason) {
        if !self.killing.insert(id.clone()) {
            return;
        }
        if matches!(reason, KillReason::Other) && self.stage == Stage::Running {
            self.quiet_until = Some(self.now() + REPLACEMENT);
        }
        self.probing.stop(&id);
        let grace = self.grace_for(name, reason);
        self.container_event(kind, name, EventType::Normal, "Killing", message);
        let job = self.kill_job(id, kind, name, grace, None);
        self.kills.push(job);
    }
}

/// How long a replacement may take before its steps show: upstream looks at its containers once a second.
const REPLACEMENT: SignedDuration = SignedDuration::from_secs(1);

enum Next {
    Message(Option<Box<Message>>),
    Done(Done),
    Killed(String),
    Time,
}

async fn wait(op: &mut Option<BoxFuture<'static, Done>>) -> Done {
    match op {
        Some(op) => op.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Timestamp>, clock: &pintle_client::Clock) {
    let Some(at) = at else { return std::future::pending().await };
    tokio::time::sleep(pintle_client::clock::since(clock.now(), at)).await;
}
