use super::*;

fn parse(rest: &str) -> Result<Config, String> {
    let text = format!("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n{rest}");
    Config::parse(&text, &FeatureGates::default())
}

fn names(c: &Config, profile: usize) -> Vec<&'static str> {
    c.profiles[profile].plugins.iter().map(|p| p.plugin.name()).collect()
}

#[test]
fn an_empty_file_is_the_default() {
    let c = parse("").unwrap();
    let d = Config::default();
    assert_eq!(names(&c, 0), names(&d, 0));
    let weights = |c: &Config| c.profiles[0].plugins.iter().map(|p| (p.weight, p.points)).collect::<Vec<_>>();
    assert_eq!(weights(&c), weights(&d));
    assert_eq!(c.profiles[0].name, "default-scheduler");
    assert_eq!((c.pod_initial_backoff_seconds, c.pod_max_backoff_seconds), (1, 10));
    assert!(c.profiles[0].preemption.is_some() && c.profiles[0].serves_claims);
}

#[test]
fn what_is_rejected() {
    let check = |rest: &str, want: &str| assert_eq!(parse(rest).err().as_deref(), Some(want), "{rest}");
    check("parallelism: 0", "parallelism: Invalid value: 0: should be an integer value greater than zero");
    check("percentageOfNodesToScore: 101", "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]");
    check("podInitialBackoffSeconds: 0", "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0");
    check(
        "podInitialBackoffSeconds: 20",
        "podMaxBackoffSeconds: Invalid value: 10: must be greater than or equal to PodInitialBackoffSeconds",
    );
    check(
        "profiles: [{schedulerName: a}, {schedulerName: a}]",
        "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
    );
    check("profiles: [{schedulerName: a}, {}]", "profiles[1].schedulerName: Required value");
    check("profile: []", "strict decoding error: unknown field \"profile\"");
    check("profiles: [{schedulerNam: a}]", "strict decoding error: unknown field \"profiles[0].schedulerNam\"");
    check(
        "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]",
        "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
    );
    check(
        "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]}]",
        "profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: \"Best\": supported values: \
         \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"",
    );
    check(
        "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}}]}]",
        "profiles[0].pluginConfig[0].args.defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty",
    );
    check(
        "profiles: [{plugins: {filter: {enabled: [{name: Nope}]}}}]",
        "initializing profiles: creating profile for scheduler name default-scheduler: FilterPlugin \"Nope\" does not exist",
    );
    check(
        "profiles: [{plugins: {filter: {enabled: [{name: ImageLocality}]}}}]",
        "initializing profiles: creating profile for scheduler name default-scheduler: plugin \"ImageLocality\" does not extend FilterPlugin plugin",
    );
    check(
        "extenders: [{urlPrefix: one, prioritizeVerb: p, bindVerb: b}, {urlPrefix: two, bindVerb: b}]",
        "[extenders[0].weight: Invalid value: 0: must have a positive weight applied to it, extenders: Invalid value: \
         \"found 2 extenders implementing bind\": only one extender can implement bind]",
    );
    assert!(Config::parse("kind: Pod\napiVersion: v1", &FeatureGates::default()).is_err());
    assert!(Config::parse("{", &FeatureGates::default()).is_err());
}

#[test]
fn leader_election() {
    let lease = |rest: &str| parse(rest).unwrap().leader_election;
    let default = lease("").unwrap();
    assert_eq!((default.namespace.as_str(), default.name.as_str()), ("kube-system", "kube-scheduler"));
    let seconds = |l: &LeaderConfig| [l.lease_duration, l.renew_deadline, l.retry_period].map(|d| d.as_secs());
    assert_eq!(seconds(&default), [15, 10, 2]);
    assert!(lease("leaderElection: {leaderElect: false, leaseDuration: -1s}").is_none());
    let other =
        "{resourceName: mine, resourceNamespace: here, leaseDuration: 1m30s, renewDeadline: 0s, retryPeriod: 3s}";
    let other = lease(&format!("leaderElection: {other}")).unwrap();
    assert_eq!((other.namespace.as_str(), other.name.as_str()), ("here", "mine"));
    assert_eq!(seconds(&other), [90, 10, 3]);
    let check = |of: &str, field: &str, why: &str| {
        let said = parse(&format!("leaderElection: {{{of}}}")).err().unwrap();
        assert_eq!(said, format!("leaderElection.{field}: Invalid value: {why}"));
    };
    check("leaseDuration: 10s", "leaseDuration", "\"10s\": LeaseDuration must be greater than RenewDeadline");
    check("retryPeriod: 10s", "renewDeadline", "\"10s\": RenewDeadline must be greater than RetryPeriod");
    check("retryPeriod: -2s", "retryPeriod", "\"-2s\": must be greater than zero");
    check("renewDeadline: soon", "renewDeadline", "\"soon\": time: invalid duration \"soon\"");
    check("resourceLock: endpoints", "resourceLock", "\"endpoints\": resourceLock value must be \"leases\"");
}

#[test]
fn what_has_no_effect_is_said() {
    assert_eq!(parse("").unwrap().warnings, [""; 0]);
    let c = parse("parallelism: 4\nenableProfiling: false\nclientConnection: {qps: 50, burst: 100}").unwrap();
    let said: Vec<_> = c.warnings.iter().map(|w| w.split(' ').next().unwrap()).collect();
    assert_eq!(said, ["parallelism", "clientConnection.qps", "clientConnection.burst"]);
    for (bad, path) in
        [("burst: -1", "burst: Invalid value: -1"), ("kubeconfig: f", "kubeconfig: Invalid value: \"f\"")]
    {
        let said = parse(&format!("clientConnection: {{{bad}}}")).err().unwrap();
        assert!(said.starts_with(&format!("clientConnection.{path}")), "{said}");
    }
}

#[test]
fn plugins_are_disabled_and_weighed() {
    let c = parse(
        "profiles:
- schedulerName: a
  plugins:
    multiPoint: {disabled: [{name: ImageLocality}], enabled: [{name: TaintToleration, weight: 7}]}
    score: {disabled: [{name: NodeResourcesFit}], enabled: [{name: InterPodAffinity, weight: 9}]}
    postFilter: {disabled: [{name: '*'}]}
- schedulerName: b
  plugins:
    multiPoint:
      disabled: [{name: '*'}]
      enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: NodeName}]
",
    )
    .unwrap();
    let a = &c.profiles[0];
    assert!(!names(&c, 0).contains(&"ImageLocality"));
    let find = |name: &str| a.plugins.iter().find(|p| p.plugin.name() == name).unwrap();
    assert_eq!((find("TaintToleration").weight, find("InterPodAffinity").weight), (7, 9));
    use crate::framework::points::Point;
    assert!(!find("NodeResourcesFit").points.contains(Point::Score));
    assert!(find("NodeResourcesFit").points.contains(Point::Filter));
    assert!(a.preemption.is_none() && !a.serves_claims);
    assert_eq!(names(&c, 1), ["NodeName"]);
}

#[test]
fn arguments_reach_the_plugins() {
    let c = parse(
        "percentageOfNodesToScore: 30
profiles:
- percentageOfNodesToScore: 40
  pluginConfig:
  - name: DefaultPreemption
    args: {apiVersion: kubescheduler.config.k8s.io/v1, kind: DefaultPreemptionArgs, minCandidateNodesPercentage: 20, minCandidateNodesAbsolute: 5}
",
    )
    .unwrap();
    let p = &c.profiles[0];
    assert_eq!(p.percentage_of_nodes_to_score, 40);
    let preemption = p.preemption.unwrap();
    assert_eq!((preemption.min_candidate_nodes_percentage, preemption.min_candidate_nodes_absolute), (20, 5));
}
