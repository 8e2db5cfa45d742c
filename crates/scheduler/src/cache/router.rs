//! Finds the terms that may mean a pod, by its namespace and labels, without trying them all.

use std::collections::HashMap;

use pintle_api::Labels;
use pintle_api::selector::Op;

use crate::model::affinity::Who;

/// Terms by an equality that they ask for.
#[derive(Debug, Default)]
struct Bucket {
    by_label: HashMap<String, HashMap<String, Vec<usize>>>,
    rest: Vec<usize>,
}

/// Terms by number.
#[derive(Debug, Default)]
pub struct Router {
    by_namespace: HashMap<String, Bucket>,
    /// Those that choose namespaces by label.
    everywhere: Bucket,
}

/// The label a pod must have to be meant, when there is one.
fn equality(who: &Who) -> Option<(&str, &str)> {
    let r = who.selector.requirements().iter().find(|r| r.op == Op::In && r.values.len() == 1)?;
    Some((&r.key, &r.values[0]))
}

impl Bucket {
    fn insert(&mut self, id: usize, who: &Who) {
        match equality(who) {
            Some((k, v)) => {
                self.by_label.entry(k.to_owned()).or_default().entry(v.to_owned()).or_default().push(id);
            }
            None => self.rest.push(id),
        }
    }

    /// Whether it is empty after.
    fn remove(&mut self, id: usize, who: &Who) -> bool {
        match equality(who) {
            Some((k, v)) => {
                if let Some(values) = self.by_label.get_mut(k) {
                    if let Some(ids) = values.get_mut(v) {
                        ids.retain(|i| *i != id);
                        if ids.is_empty() {
                            values.remove(v);
                        }
                    }
                    if values.is_empty() {
                        self.by_label.remove(k);
                    }
                }
            }
            None => self.rest.retain(|i| *i != id),
        }
        self.by_label.is_empty() && self.rest.is_empty()
    }

    fn collect(&self, labels: &Labels, out: &mut Vec<usize>) {
        out.extend(&self.rest);
        if self.by_label.is_empty() {
            return;
        }
        for (k, v) in labels.iter() {
            if let Some(ids) = self.by_label.get(k).and_then(|values| values.get(v)) {
                out.extend(ids);
            }
        }
    }
}

impl Router {
    /// Takes in a term.
    pub fn insert(&mut self, id: usize, who: &Who) {
        if who.namespace_selector.is_some() {
            self.everywhere.insert(id, who);
            return;
        }
        for n in &who.namespaces {
            self.by_namespace.entry(n.clone()).or_default().insert(id, who);
        }
    }

    /// Forgets a term.
    pub fn remove(&mut self, id: usize, who: &Who) {
        if who.namespace_selector.is_some() {
            self.everywhere.remove(id, who);
            return;
        }
        for n in &who.namespaces {
            if self.by_namespace.get_mut(n).is_some_and(|b| b.remove(id, who)) {
                self.by_namespace.remove(n);
            }
        }
    }

    /// The terms that may mean a pod; each is still to be asked.
    #[must_use]
    pub fn candidates(&self, namespace: &str, labels: &Labels) -> Vec<usize> {
        let mut out = Vec::new();
        self.everywhere.collect(labels, &mut out);
        if let Some(bucket) = self.by_namespace.get(namespace) {
            bucket.collect(labels, &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_api::selector::Selector;

    #[test]
    fn finds_by_namespace_and_label() {
        let mut r = Router::default();
        let who = |ns: &str, s: &str| Who::in_namespace(ns, Selector::parse(s).unwrap());
        let all = [who("a", "app=x"), who("a", "app=y"), who("b", "app=x"), who("a", "app"), who("a", "app in (x,y)")];
        for (i, w) in all.iter().enumerate() {
            r.insert(i, w);
        }
        let labels = [("app".to_owned(), "x".to_owned())].into();
        let got = |r: &Router| {
            let mut v = r.candidates("a", &labels);
            v.sort_unstable();
            v
        };
        assert_eq!(got(&r), [0, 3, 4]);
        r.remove(0, &all[0]);
        r.remove(3, &all[3]);
        assert_eq!(got(&r), [4]);
    }
}
