//! What upstream's `ValidateKubeSchedulerConfiguration` rejects, in its words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::default_lease;
use super::types::{
    Args, DefaultPreemptionArgs, Extender, KubeSchedulerConfiguration, LeaderElection, NodeResourcesFitArgs, Plugins,
    PodTopologySpreadArgs, ProfileSpec, ResourceSpec, ShapePoint,
};
use pintle_api::{duration, names};

/// Plugins that are no more.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

/// Collects what is wrong.
#[derive(Default)]
struct Errors(Vec<String>);

impl Errors {
    fn invalid(&mut self, path: &str, value: impl std::fmt::Debug, why: &str) {
        self.0.push(format!("{path}: Invalid value: {value:?}: {why}"));
    }

    fn required(&mut self, path: &str, why: &str) {
        self.0.push(format!("{path}: Required value{}{why}", if why.is_empty() { "" } else { ": " }));
    }

    fn duplicate(&mut self, path: &str, value: &str) {
        self.0.push(format!("{path}: Duplicate value: {value:?}"));
    }

    fn unsupported(&mut self, path: &str, value: &str, known: &[&str]) {
        let known: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
        self.0.push(format!("{path}: Unsupported value: {value:?}: supported values: {}", known.join(", ")));
    }

    fn forbidden(&mut self, path: &str, why: &str) {
        self.0.push(format!("{path}: Forbidden: {why}"));
    }

    fn label_name(&mut self, path: &str, value: &str) {
        for why in names::qualified_name(value) {
            self.invalid(path, value, &why);
        }
    }

    fn finish(self) -> Result<(), String> {
        match self.0.as_slice() {
            [] => Ok(()),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// Checks all of it.
pub(super) fn configuration(c: &KubeSchedulerConfiguration, args: &[Args]) -> Result<(), String> {
    let mut e = Errors::default();
    if let Some(burst) = c.client_connection.burst.filter(|b| *b < 0) {
        e.invalid("clientConnection.burst", burst, "must be non-negative");
    }
    if !c.client_connection.kubeconfig.is_empty() {
        // Upstream connects by it; this scheduler is given its connection by whoever runs it.
        let why = "the scheduler reaches the API server of its own process";
        e.invalid("clientConnection.kubeconfig", &c.client_connection.kubeconfig, why);
    }
    if c.leader_election.leader_elect.unwrap_or(true) {
        leader_election(&mut e, &c.leader_election);
    }
    if c.parallelism <= 0 {
        e.invalid("parallelism", c.parallelism, "should be an integer value greater than zero");
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, (p, args)) in c.profiles.iter().zip(args).enumerate() {
        let path = format!("profiles[{i}]");
        profile(&mut e, &path, &c.api_version, p, args);
        // With several profiles each needs a name; one alone is the default scheduler's.
        let name = match &p.scheduler_name {
            Some(name) => name.as_str(),
            None if c.profiles.len() == 1 => "default-scheduler",
            None => "",
        };
        if name.is_empty() {
            e.required(&format!("{path}.schedulerName"), "");
        }
        if let Some(first) = seen.insert(name, i) {
            e.duplicate(&format!("{path}.schedulerName"), &format!("profiles[{first}].schedulerName"));
        }
        if i > 0 && p.plugins.queue_sort != c.profiles[0].plugins.queue_sort {
            let why = "must be the same for all profiles";
            e.invalid(&format!("{path}.plugins.queueSort"), &p.plugins.queue_sort, why);
        }
    }
    if let Some(p) = c.profiles.first().filter(|p| p.plugins.queue_sort.enabled.len() > 1) {
        let why = "only one queue sort plugin can be enabled";
        e.invalid("profiles[0].plugins.queueSort.Enabled", p.plugins.queue_sort.enabled.len(), why);
    }
    percentage(&mut e, "percentageOfNodesToScore", c.percentage_of_nodes_to_score);
    if c.pod_initial_backoff_seconds <= 0 {
        e.invalid("podInitialBackoffSeconds", c.pod_initial_backoff_seconds, "must be greater than 0");
    }
    if c.pod_max_backoff_seconds < c.pod_initial_backoff_seconds {
        let why = "must be greater than or equal to PodInitialBackoffSeconds";
        e.invalid("podMaxBackoffSeconds", c.pod_max_backoff_seconds, why);
    }
    extenders(&mut e, &c.extenders);
    e.finish()
}

fn leader_election(e: &mut Errors, l: &LeaderElection) {
    let mut nanoseconds = |field: &str, text: &Option<String>, default: Duration| {
        let read = |text: &str| duration::nanoseconds(text).map(|n| (n, text.to_owned()));
        let path = format!("leaderElection.{field}");
        match text.as_deref().map(read) {
            Some(Ok((n, text))) if n < 0 => e.invalid(&path, text, "must be greater than zero"),
            Some(Err(why)) => e.invalid(&path, text.as_deref().unwrap_or_default(), &why),
            Some(Ok((n, text))) if n > 0 => return (path, Some(n), text),
            _ => return (path, i64::try_from(default.as_nanos()).ok(), duration::format(default)),
        }
        (path, None, String::new())
    };
    let default = default_lease();
    let lease = nanoseconds("leaseDuration", &l.lease_duration, default.lease_duration);
    let deadline = nanoseconds("renewDeadline", &l.renew_deadline, default.renew_deadline);
    let retry = nanoseconds("retryPeriod", &l.retry_period, default.retry_period);
    let mut longer = |(path, long, _): &(String, Option<i64>, String), (_, short, said): &(_, _, String), why| {
        if long.zip(*short).is_some_and(|(long, short)| long <= short) {
            e.invalid(path, said, why);
        }
    };
    longer(&lease, &deadline, "LeaseDuration must be greater than RenewDeadline");
    longer(&deadline, &retry, "RenewDeadline must be greater than RetryPeriod");
    if l.resource_lock != "leases" && !l.resource_lock.is_empty() {
        e.invalid("leaderElection.resourceLock", &l.resource_lock, "resourceLock value must be \"leases\"");
    }
}

fn percentage(e: &mut Errors, path: &str, value: Option<i32>) {
    if let Some(v) = value.filter(|v| !(0..=100).contains(v)) {
        e.invalid(path, v, "not in valid range [0-100]");
    }
}

impl Plugins {
    /// The sets by the names of their points.
    pub(super) fn points(&self) -> [(&'static str, &super::types::PluginSet); 12] {
        [
            ("preEnqueue", &self.pre_enqueue),
            ("queueSort", &self.queue_sort),
            ("preFilter", &self.pre_filter),
            ("filter", &self.filter),
            ("postFilter", &self.post_filter),
            ("preScore", &self.pre_score),
            ("score", &self.score),
            ("reserve", &self.reserve),
            ("permit", &self.permit),
            ("preBind", &self.pre_bind),
            ("bind", &self.bind),
            ("postBind", &self.post_bind),
        ]
    }
}

fn profile(e: &mut Errors, path: &str, version: &str, p: &ProfileSpec, args: &Args) {
    percentage(e, &format!("{path}.percentageOfNodesToScore"), p.percentage_of_nodes_to_score);
    let removed = format!("was invalid in version {version:?} (KubeSchedulerConfiguration is version {version:?})");
    for (point, set) in p.plugins.points() {
        for (j, plugin) in set.enabled.iter().enumerate().filter(|(_, p)| REMOVED.contains(&p.name.as_str())) {
            e.invalid(&format!("{path}.plugins.{point}.enabled[{j}]"), &plugin.name, &removed);
        }
    }
    let mut seen = BTreeSet::new();
    for (j, c) in p.plugin_config.iter().enumerate() {
        let path = format!("{path}.pluginConfig[{j}]");
        if !seen.insert(&c.name) {
            e.duplicate(&path, &c.name);
        }
        if REMOVED.contains(&c.name.as_str()) {
            e.invalid(&path, &c.name, &removed);
        }
    }
    let of = |name: &str| args.places.get(name).map(|j| format!("{path}.pluginConfig[{j}].args"));
    if let Some(path) = of("DefaultPreemption") {
        preemption(e, &path, &args.preemption);
    }
    if let Some(path) = of("InterPodAffinity")
        && !(0..=100).contains(&args.inter_pod_affinity.hard_pod_affinity_weight)
    {
        let weight = args.inter_pod_affinity.hard_pod_affinity_weight;
        e.invalid(&format!("{path}.hardPodAffinityWeight"), weight, "not in valid range [0, 100]");
    }
    if let Some(path) = of("NodeResourcesBalancedAllocation") {
        let mut seen = BTreeSet::new();
        for (k, r) in args.balanced.resources.iter().enumerate() {
            let path = format!("{path}.resources[{k}]");
            if !seen.insert(&r.name) {
                e.duplicate(&format!("{path}.name"), &r.name);
            }
            if r.weight != 1 {
                e.invalid(&format!("{path}.weight"), r.weight, "must be 1");
            }
        }
    }
    if let Some(path) = of("NodeResourcesFit") {
        fit(e, &path, &args.fit);
    }
    if let Some(path) = of("PodTopologySpread") {
        spread(e, &path, &args.spread);
    }
    if let Some(path) = of("VolumeBinding") {
        let seconds = args.volume_binding.bind_timeout_seconds;
        if seconds < 0 {
            let why = "invalid BindTimeoutSeconds, should not be a negative value";
            e.invalid(&format!("{path}.bindTimeoutSeconds"), seconds, why);
        }
        if let Some(shape) = &args.volume_binding.shape {
            let why = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
            e.invalid(&format!("{path}.shape"), shape, why);
        }
    }
}

fn preemption(e: &mut Errors, path: &str, args: &DefaultPreemptionArgs) {
    let (percent, absolute) = (args.min_candidate_nodes_percentage, args.min_candidate_nodes_absolute);
    let (p, a) = (format!("{path}.minCandidateNodesPercentage"), format!("{path}.minCandidateNodesAbsolute"));
    if !(0..=100).contains(&percent) {
        e.invalid(&p, percent, "not in valid range [0, 100]");
    }
    if absolute < 0 {
        e.invalid(&a, absolute, "not in valid range [0, inf)");
    }
    if percent == 0 && absolute == 0 {
        e.invalid(&p, percent, "cannot be zero at the same time as minCandidateNodesAbsolute");
        e.invalid(&a, absolute, "cannot be zero at the same time as minCandidateNodesPercentage");
    }
}

fn shape(e: &mut Errors, path: &str, shape: &[ShapePoint]) {
    if shape.is_empty() {
        e.required(path, "at least one point must be specified");
    }
    if let Some(i) = shape.windows(2).position(|w| w[0].utilization >= w[1].utilization) {
        let path = format!("{path}[{}].utilization", i + 1);
        e.invalid(&path, shape[i + 1].utilization, "values must be sorted in increasing order");
    }
    for (i, point) in shape.iter().enumerate() {
        if !(0..=100).contains(&point.utilization) {
            e.invalid(&format!("{path}[{i}].utilization"), point.utilization, "not in valid range [0, 100]");
        }
        if !(0..=10).contains(&point.score) {
            e.invalid(&format!("{path}[{i}].score"), point.score, "not in valid range [0, 10]");
        }
    }
}

fn resources(e: &mut Errors, path: &str, list: &[ResourceSpec]) {
    for (i, r) in list.iter().enumerate().filter(|(_, r)| !(1..=100).contains(&r.weight) && r.weight != 0) {
        let why = format!("resource weight of {} not in valid range (0, 100]", r.name);
        e.invalid(&format!("{path}[{i}].weight"), r.weight, &why);
    }
}

fn fit(e: &mut Errors, path: &str, args: &NodeResourcesFitArgs) {
    for (i, r) in args.ignored_resources.iter().enumerate() {
        e.label_name(&format!("{path}.ignoredResources[{i}]"), r);
    }
    for (i, g) in args.ignored_resource_groups.iter().enumerate() {
        let path = format!("{path}.ignoredResourceGroups[{i}]");
        if g.contains('/') {
            e.invalid(&path, g, "resource group name can't contain '/'");
        }
        e.label_name(&path, g);
    }
    let Some(s) = &args.scoring_strategy else { return };
    let path = format!("{path}.scoringStrategy");
    let kinds = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
    if !kinds.contains(&s.kind.as_str()) && !s.kind.is_empty() {
        e.unsupported(&format!("{path}.type"), &s.kind, &kinds);
    }
    resources(e, &format!("{path}.resources"), &s.resources);
    let ratio = format!("{path}.requestedToCapacityRatio");
    match (s.kind == "RequestedToCapacityRatio", &s.requested_to_capacity_ratio) {
        (true, None) => e.required(&ratio, "must be specified when type is RequestedToCapacityRatio"),
        (true, Some(r)) => shape(e, &format!("{ratio}.shape"), &r.shape),
        (false, Some(_)) => e.forbidden(&ratio, "must be nil when type is not RequestedToCapacityRatio"),
        (false, None) => {}
    }
}

fn spread(e: &mut Errors, path: &str, args: &PodTopologySpreadArgs) {
    let kind = format!("{path}.defaultingType");
    if !["System", "List"].contains(&args.defaulting_type.as_str()) {
        e.unsupported(&kind, &args.defaulting_type, &["System", "List"]);
    } else if args.defaulting_type == "System" && !args.default_constraints.is_empty() {
        e.invalid(&kind, &args.defaulting_type, "when .defaultConstraints are not empty");
    }
    for (i, c) in args.default_constraints.iter().enumerate() {
        let list = format!("{path}.defaultConstraints");
        let path = format!("{list}[{i}]");
        if c.max_skew <= 0 {
            e.invalid(&format!("{path}.maxSkew"), c.max_skew, "not in valid range (0, inf)");
        }
        if c.topology_key.is_empty() {
            e.required(&format!("{path}.topologyKey"), "can not be empty");
        } else {
            e.label_name(&format!("{path}.topologyKey"), &c.topology_key);
        }
        let when = format!("{path}.whenUnsatisfiable");
        match c.when_unsatisfiable.as_str() {
            "" => e.required(&when, "can not be empty"),
            "DoNotSchedule" | "ScheduleAnyway" => {}
            other => e.unsupported(&when, other, &["DoNotSchedule", "ScheduleAnyway"]),
        }
        if c.label_selector.is_some() {
            let why = "constraint must not define a selector, as they deduced for each pod";
            e.forbidden(&format!("{path}.labelSelector"), why);
        }
        let same = |o: &&crate::model::wire::SpreadConstraint| {
            o.topology_key == c.topology_key && o.when_unsatisfiable == c.when_unsatisfiable
        };
        if args.default_constraints[..i].iter().find(same).is_some() {
            e.duplicate(&path, &format!("{{{}, {}}}", c.topology_key, c.when_unsatisfiable));
        }
    }
}

fn extenders(e: &mut Errors, all: &[Extender]) {
    let mut managed = BTreeSet::new();
    for (i, x) in all.iter().enumerate() {
        if !x.prioritize_verb.is_empty() && x.weight <= 0 {
            e.invalid(&format!("extenders[{i}].weight"), x.weight, "must have a positive weight applied to it");
        }
        for (j, r) in x.managed_resources.iter().enumerate() {
            let path = format!("extenders[{i}].managedResources[{j}].name");
            let wrong = names::qualified_name(&r.name);
            if wrong.is_empty() && (!r.name.contains('/') || r.name.contains("kubernetes.io/")) {
                e.invalid(&path, &r.name, "is an invalid extended resource name");
            }
            wrong.iter().for_each(|why| e.invalid(&path, &r.name, why));
            if !managed.insert(&r.name) {
                e.invalid(&path, &r.name, "duplicate extender managed resource name");
            }
        }
    }
    let binders = all.iter().filter(|x| !x.bind_verb.is_empty()).count();
    if binders > 1 {
        let found = format!("found {binders} extenders implementing bind");
        e.invalid("extenders", found, "only one extender can implement bind");
    }
}
