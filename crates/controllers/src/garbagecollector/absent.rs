//! Owners that were found to be gone. An owner of thousands is asked for once, not by each of them.

use std::collections::{HashSet, VecDeque};

use pintle_client::OwnerRef;

/// Owners that are remembered at most.
const MOST: usize = 500;

/// Owners that do not exist where references say. A uid is given to one object only, so what is gone stays gone.
#[derive(Default)]
pub struct Absent {
    known: HashSet<String>,
    order: VecDeque<String>,
}

fn key(namespace: &str, owner: &OwnerRef) -> String {
    [namespace, &owner.api_version, &owner.kind, &owner.name, &owner.uid].join("\0")
}

impl Absent {
    /// Whether an owner named in a namespace is known to be gone.
    pub fn has(&self, namespace: &str, owner: &OwnerRef) -> bool {
        self.known.contains(&key(namespace, owner))
    }

    /// Notes that it is. The oldest is forgotten for it.
    pub fn add(&mut self, namespace: &str, owner: &OwnerRef) {
        let key = key(namespace, owner);
        if !self.known.insert(key.clone()) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_latest() {
        let owner = |uid: usize| OwnerRef { uid: uid.to_string(), kind: "X".into(), ..OwnerRef::default() };
        let mut a = Absent::default();
        for uid in 0..=MOST {
            a.add("n", &owner(uid));
            a.add("n", &owner(uid));
        }
        assert!(!a.has("n", &owner(0)) && a.has("n", &owner(1)) && a.has("n", &owner(MOST)));
        // The same reference elsewhere is another question.
        assert!(!a.has("m", &owner(1)));
    }
}
