//! Profiles made of what the configuration says.

use pintle_api::duration;
use pintle_api::features::FeatureGates;
use pintle_client::LeaderConfig;

use super::types::{
    Args, KubeSchedulerConfiguration, LeaderElection, NodeResourcesFitArgs, PluginSet, ProfileSpec, ResourceSpec,
};
use super::{Config, default_lease, types};
use crate::framework::points::{Point, Points};
use crate::framework::preemption;
use crate::framework::profile::{Enabled, Profile};
use crate::model::affinity::Spread;
use crate::plugins::inter_pod_affinity::InterPodAffinity;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_resources_fit::{NodeResourcesFit, Strategy, Weighted, default_resources};
use crate::plugins::pod_topology_spread::PodTopologySpread;
use crate::plugins::volumes::binding::VolumeBinding;
use crate::plugins::{KNOWN, Known, balanced_allocation};

/// A plugin of a profile in the making.
struct Chosen {
    known: &'static Known,
    points: Points,
    weight: i64,
}

fn is_off(set: &PluginSet, name: &str) -> bool {
    set.disabled.iter().any(|p| p.name == name || p.name == "*")
}

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|k| k.name == name)
}

/// The plugins a profile ends up with, by upstream's rules: the defaults, less what is disabled, with what is enabled in
/// place of or after them; then the same at each point.
fn choose(spec: &ProfileSpec, gates: &FeatureGates) -> Result<Vec<Chosen>, String> {
    let multi = &spec.plugins.multi_point;
    let mut out: Vec<Chosen> = Vec::new();
    for k in KNOWN.iter().filter(|k| k.works(gates)) {
        let named = multi.enabled.iter().find(|p| p.name == k.name);
        if named.is_some() || !is_off(multi, k.name) {
            let weight = named.map(|p| p.weight).filter(|w| *w > 0).map_or(k.weight, i64::from);
            out.push(Chosen { known: k, points: Points::all(k.points), weight });
        }
    }
    for p in &multi.enabled {
        let Some(k) = known(&p.name) else { return Err(format!("plugin {:?} does not exist", p.name)) };
        if !out.iter().any(|c| c.known.name == k.name) {
            out.push(Chosen { known: k, points: Points::all(k.points), weight: p.weight.max(1).into() });
        }
    }
    for (name, set) in spec.plugins.points() {
        let point = Point::by_name(name);
        let kind = format!("{}{}Plugin", name[..1].to_uppercase(), &name[1..]);
        for c in &mut out {
            if let Some(point) = point.filter(|_| is_off(set, c.known.name)) {
                c.points.remove(point);
            }
        }
        for p in &set.enabled {
            let Some(k) = known(&p.name) else { return Err(format!("{kind} {:?} does not exist", p.name)) };
            let Some(point) = point.filter(|point| k.points.contains(point)) else {
                return Err(format!("plugin {:?} does not extend {kind} plugin", p.name));
            };
            let at = out.iter().position(|c| c.known.name == k.name).unwrap_or_else(|| {
                out.push(Chosen { known: k, points: Points::default(), weight: 0 });
                out.len() - 1
            });
            out[at].points.insert(point);
            if point == Point::Score {
                out[at].weight = p.weight.max(1).into();
            }
        }
    }
    // Those whose feature is off may be named, but do nothing.
    out.retain(|c| !c.points.is_empty() && c.known.works(gates));
    Ok(out)
}

fn weighted(list: &[ResourceSpec]) -> Vec<Weighted> {
    if list.is_empty() {
        return default_resources();
    }
    // A weight left out is 1, as upstream's defaults have it.
    list.iter()
        .map(|r| Weighted { name: r.name.as_str().into(), weight: if r.weight == 0 { 1 } else { r.weight } })
        .collect()
}

fn fit(args: &NodeResourcesFitArgs) -> NodeResourcesFit {
    let strategy = args.scoring_strategy.as_ref();
    NodeResourcesFit {
        ignored_resources: args.ignored_resources.clone(),
        ignored_groups: args.ignored_resource_groups.clone(),
        resources: weighted(strategy.map_or(&[], |s| &s.resources)),
        strategy: match strategy.map_or("", |s| s.kind.as_str()) {
            "MostAllocated" => Strategy::MostAllocated,
            "RequestedToCapacityRatio" => {
                let ratio = strategy.and_then(|s| s.requested_to_capacity_ratio.as_ref());
                // Scores of the configuration go to 10, those of plugins to 100.
                let points = ratio.map(|r| r.shape.iter().map(|p| (p.utilization, p.score * 10)).collect());
                Strategy::RequestedToCapacityRatio(points.unwrap_or_default())
            }
            _ => Strategy::LeastAllocated,
        },
    }
}

fn spread(args: &types::PodTopologySpreadArgs) -> PodTopologySpread {
    if args.defaulting_type == "System" {
        return PodTopologySpread::default();
    }
    let one = |c: &crate::model::wire::SpreadConstraint| Spread {
        who: None,
        ..Spread::new("", &pintle_api::Labels::default(), c)
    };
    PodTopologySpread { defaults: args.default_constraints.iter().map(one).collect(), system_defaults: false }
}

fn profile(spec: &ProfileSpec, args: &Args, percentage: Option<i32>, gates: &FeatureGates) -> Result<Profile, String> {
    let name = spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into());
    let fail = |e: String| format!("initializing profiles: creating profile for scheduler name {name}: {e}");
    let chosen = choose(spec, gates).map_err(fail)?;
    let at = |point: Point| chosen.iter().filter(|c| c.points.contains(point)).count();
    if at(Point::QueueSort) != 1 {
        let n = at(Point::QueueSort);
        return Err(fail(format!(
            "only one queue sort plugin required for profile with scheduler name {name:?}, but got {n}"
        )));
    }
    if at(Point::Bind) == 0 {
        return Err(fail(format!("at least one bind plugin is needed for profile with scheduler name {name:?}")));
    }
    let has = |plugin: &str, point: Point| chosen.iter().any(|c| c.known.name == plugin && c.points.contains(point));
    let size = |n: i64| usize::try_from(n).unwrap_or(0);
    let preemption = has("DefaultPreemption", Point::PostFilter).then(|| preemption::Config {
        min_candidate_nodes_percentage: size(args.preemption.min_candidate_nodes_percentage),
        min_candidate_nodes_absolute: size(args.preemption.min_candidate_nodes_absolute),
    });
    let serves_claims = has("DynamicResources", Point::PostFilter);
    let mut plugins = Vec::new();
    for c in &chosen {
        let plugin: Box<dyn crate::framework::Plugin> = match c.known.name {
            "NodeResourcesFit" => Box::new(fit(&args.fit)),
            "NodeResourcesBalancedAllocation" => {
                let resources = weighted(&args.balanced.resources);
                Box::new(balanced_allocation::NodeResourcesBalancedAllocation { resources })
            }
            "InterPodAffinity" => Box::new(InterPodAffinity {
                hard_pod_affinity_weight: args.inter_pod_affinity.hard_pod_affinity_weight,
                ignore_preferred_terms_of_existing_pods: args
                    .inter_pod_affinity
                    .ignore_preferred_terms_of_existing_pods,
            }),
            "NodeAffinity" => Box::new(NodeAffinity { added: args.node_affinity.added_affinity.clone() }),
            "PodTopologySpread" => Box::new(spread(&args.spread)),
            "VolumeBinding" => Box::new(VolumeBinding {
                bind_timeout_seconds: u64::try_from(args.volume_binding.bind_timeout_seconds).unwrap_or(0),
            }),
            _ => match c.known.make {
                Some(make) => make(),
                None => continue,
            },
        };
        plugins.push(Enabled { plugin, weight: c.weight, points: c.points });
    }
    let percentage = spec.percentage_of_nodes_to_score.or(percentage).unwrap_or(0);
    Ok(Profile {
        name,
        plugins,
        preemption,
        serves_claims,
        percentage_of_nodes_to_score: usize::try_from(percentage).unwrap_or(0),
    })
}

/// The Lease to hold; what is left out or empty is as upstream's defaults have it.
fn lease(spec: &LeaderElection) -> Option<LeaderConfig> {
    let given = |name: &Option<String>, default: String| name.clone().filter(|n| !n.is_empty()).unwrap_or(default);
    let lasting = |text: &Option<String>, default| {
        text.as_deref().and_then(|t| duration::parse(t).ok()).filter(|d| !d.is_zero()).unwrap_or(default)
    };
    let default = default_lease();
    spec.leader_elect.unwrap_or(true).then(|| LeaderConfig {
        namespace: given(&spec.resource_namespace, default.namespace),
        name: given(&spec.resource_name, default.name),
        lease_duration: lasting(&spec.lease_duration, default.lease_duration),
        renew_deadline: lasting(&spec.renew_deadline, default.renew_deadline),
        retry_period: lasting(&spec.retry_period, default.retry_period),
        ..default
    })
}

/// What is taken but changes nothing in this scheduler.
fn without_effect(c: &KubeSchedulerConfiguration) -> Vec<String> {
    let connection = &c.client_connection;
    let content = [&connection.accept_content_types, &connection.content_type];
    [
        (c.parallelism != types::PARALLELISM, "parallelism", "placements are decided in one thread"),
        (connection.qps.is_some(), "clientConnection.qps", "requests are not held back here"),
        (connection.burst.is_some(), "clientConnection.burst", "requests are not held back here"),
        (content.iter().any(|c| !c.is_empty()), "clientConnection.contentType", "objects are exchanged as JSON"),
        (c.enable_profiling == Some(true), "enableProfiling", "the API server has /debug/pprof"),
        (c.enable_contention_profiling == Some(true), "enableContentionProfiling", "there are no such profiles"),
    ]
    .into_iter()
    .filter(|(given, ..)| *given)
    .map(|(_, field, why)| format!("{field} has no effect: {why}"))
    .collect()
}

/// The scheduler's configuration.
pub(super) fn config(
    c: KubeSchedulerConfiguration,
    mut args: Vec<Args>,
    gates: &FeatureGates,
) -> Result<Config, String> {
    let warnings = without_effect(&c);
    let mut specs = c.profiles;
    if specs.is_empty() {
        specs.push(ProfileSpec::default());
        args.push(Args::default());
    }
    let mut profiles = Vec::new();
    for (spec, args) in specs.iter().zip(&args) {
        let mut args = args.clone();
        // What an extender manages alone is not looked at here.
        let managed = c.extenders.iter().flat_map(|x| &x.managed_resources).filter(|r| r.ignored_by_scheduler);
        args.fit.ignored_resources.extend(managed.map(|r| r.name.clone()));
        profiles.push(profile(spec, &args, c.percentage_of_nodes_to_score, gates)?);
    }
    let seconds = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(Config {
        leader_election: lease(&c.leader_election),
        warnings,
        profiles: profiles.into(),
        extenders: c.extenders,
        pod_initial_backoff_seconds: seconds(c.pod_initial_backoff_seconds),
        pod_max_backoff_seconds: seconds(c.pod_max_backoff_seconds),
        ..Config::with(gates)
    })
}
