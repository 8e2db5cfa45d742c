//! Whom a pod wants beside it and how it wants to be spread, with selectors parsed once.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pintle_api::Labels;
use pintle_api::selector::{Op, Requirement, Selector};

use super::wire;

/// A namespace's labels, by its name.
pub type Namespaces = std::collections::HashMap<String, Labels>;

/// Which pods are meant: by namespace and labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Namespaces by name.
    pub namespaces: BTreeSet<String>,
    /// Namespaces by their labels, besides.
    pub namespace_selector: Option<Selector>,
    /// Labels.
    pub selector: Selector,
    /// The same for the same meaning; equal texts share one count.
    pub text: Arc<str>,
}

impl Who {
    /// Pods of one namespace.
    #[must_use]
    pub fn in_namespace(namespace: &str, selector: Selector) -> Self {
        Self::new([namespace.to_owned()].into(), None, selector)
    }

    fn new(namespaces: BTreeSet<String>, namespace_selector: Option<Selector>, selector: Selector) -> Self {
        // What matches everything and what matches nothing have no conditions, either of them.
        let show = |s: &Selector| {
            if s.requirements().is_empty() && !s.is_everything() { "\u{0}".to_owned() } else { s.to_string() }
        };
        let mut text = String::new();
        for n in &namespaces {
            text.push_str(n);
            text.push(',');
        }
        text.push('|');
        if let Some(s) = &namespace_selector {
            text.push('/');
            text.push_str(&show(s));
        }
        text.push('|');
        text.push_str(&show(&selector));
        Self { namespaces, namespace_selector, selector, text: text.into() }
    }

    /// Whether a pod with these labels in this namespace is meant.
    #[must_use]
    pub fn matches(&self, namespace: &str, labels: &Labels, namespaces: &Namespaces) -> bool {
        let here = self.namespaces.contains(namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| s.matches(|k| namespaces.get(namespace)?.get(k)));
        here && self.selector.matches_labels(labels)
    }
}

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug)]
pub struct Term {
    /// Which pods.
    pub who: Who,
    /// Nodes with the same value of this label are one place.
    pub topology_key: String,
}

/// How a pod bears on where others are placed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Required anti-affinity: those meant are kept away.
    Repels,
    /// Required affinity: those meant are liked, by the profile's hard weight.
    Requires,
    /// Preferred affinity (above 0) or anti-affinity (below 0), by its weight.
    Prefers(i64),
}

/// A term as it bears on others, with what makes it the same as another pod's.
#[derive(Clone, Debug)]
pub struct Held {
    /// The term.
    pub term: Arc<Term>,
    /// How it bears.
    pub hold: Hold,
    /// Equal for equal terms.
    pub text: Arc<str>,
}

/// Everything a pod says of others.
#[derive(Clone, Debug, Default)]
pub struct PodAffinity {
    /// All must find company.
    pub required: Vec<Arc<Term>>,
    /// None may find company.
    pub required_anti: Vec<Arc<Term>>,
    /// Weighted wishes; below 0 for anti-affinity.
    pub preferred: Vec<(i64, Arc<Term>)>,
    /// All of it as it bears on others.
    pub held: Vec<Held>,
}

/// What to do where a spread constraint cannot be kept.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Most by which places may differ.
    pub max_skew: i64,
    /// Nodes with the same value of this label are one place.
    pub topology_key: String,
    /// Whether it must be kept (`DoNotSchedule`).
    pub hard: bool,
    /// Which pods are counted; `None` in a profile's default constraints, where it comes from the pod's owners.
    pub who: Option<Arc<Who>>,
    /// With fewer places than this the least crowded counts as empty.
    pub min_domains: usize,
    /// Whether only nodes count that the pod's node selector and affinity allow.
    pub honor_affinity: bool,
    /// Whether only nodes count whose taints the pod bears.
    pub honor_taints: bool,
}

fn selector(s: Option<&LabelSelector>) -> Selector {
    // The API server accepts no selector that does not parse.
    Selector::from_object(s).unwrap_or_else(|_| Selector::nothing())
}

fn term(namespace: &str, t: &wire::PodAffinityTerm) -> Arc<Term> {
    let names = if t.namespaces.is_empty() && t.namespace_selector.is_none() {
        [namespace.to_owned()].into()
    } else {
        t.namespaces.iter().cloned().collect()
    };
    let by_label = t.namespace_selector.as_ref().map(|s| selector(Some(s)));
    let who = Who::new(names, by_label, selector(t.label_selector.as_ref()));
    Arc::new(Term { who, topology_key: t.topology_key.clone() })
}

impl PodAffinity {
    /// From a pod's spec.
    #[must_use]
    pub fn new(namespace: &str, affinity: Option<&wire::Affinity>) -> Self {
        let mut out = Self::default();
        let Some(affinity) = affinity else { return out };
        if let Some(a) = &affinity.pod_affinity {
            out.required = a.required.iter().map(|t| term(namespace, t)).collect();
            out.preferred.extend(a.preferred.iter().map(|w| (w.weight.into(), term(namespace, &w.pod_affinity_term))));
        }
        if let Some(a) = &affinity.pod_anti_affinity {
            out.required_anti = a.required.iter().map(|t| term(namespace, t)).collect();
            let wishes = a.preferred.iter().map(|w| (-i64::from(w.weight), term(namespace, &w.pod_affinity_term)));
            out.preferred.extend(wishes);
        }
        let held = |term: &Arc<Term>, hold: Hold| Held {
            text: format!("{hold:?}|{}|{}", term.topology_key, term.who.text).into(),
            term: term.clone(),
            hold,
        };
        out.held.extend(out.required_anti.iter().map(|t| held(t, Hold::Repels)));
        out.held.extend(out.required.iter().map(|t| held(t, Hold::Requires)));
        out.held.extend(out.preferred.iter().map(|(w, t)| held(t, Hold::Prefers(*w))));
        out
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Spread {
    /// From a constraint of a pod with these labels.
    #[must_use]
    pub fn new(namespace: &str, labels: &Labels, c: &wire::SpreadConstraint) -> Self {
        let mut who = selector(c.label_selector.as_ref());
        // The API server has merged them already; objects written before it did are served as well.
        let own = c.match_label_keys.iter().filter_map(|k| labels.get(k).map(|v| (k, v)));
        let extra: Vec<Requirement> =
            own.map(|(k, v)| Requirement { key: k.clone(), op: Op::In, values: vec![v.to_owned()] }).collect();
        if !extra.is_empty() && c.label_selector.is_some() {
            let mut all = who.requirements().to_vec();
            all.extend(extra.into_iter().filter(|r| !who.requirements().contains(r)));
            who = Selector::new(all);
        }
        let honor = |policy: &Option<String>, default: bool| policy.as_deref().map_or(default, |p| p == "Honor");
        Self {
            max_skew: c.max_skew.into(),
            topology_key: c.topology_key.clone(),
            hard: c.when_unsatisfiable == "DoNotSchedule",
            who: Some(Arc::new(Who::in_namespace(namespace, who))),
            min_domains: c.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            honor_affinity: honor(&c.node_affinity_policy, true),
            honor_taints: honor(&c.node_taints_policy, false),
        }
    }
}
