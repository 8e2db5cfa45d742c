//! Random operations, compared with a model so simple that it can hardly be wrong: the whole state of every revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Fixture, Rng, next, unique, until};
use crate::{
    Compare, Error, Event, Expect, Key, KeyValue, ListRequest, Op, Outcome, Revision, Store, Txn, Watch, WatchRequest,
};

/// How many seeds the macro tries.
pub const SEEDS: u64 = 12;
const STEPS: u64 = 300;

type State = BTreeMap<Key, KeyValue>;

/// Every state there was.
struct Model {
    /// The revision of the first state.
    base: Revision,
    states: Vec<State>,
    compacted: Revision,
}

impl Model {
    fn revision(&self) -> Revision {
        self.base + self.states.len() as u64 - 1
    }
    fn at(&self, revision: Revision) -> &State {
        &self.states[usize::try_from(revision - self.base).unwrap()]
    }
    fn now(&self) -> &State {
        self.at(self.revision())
    }

    fn txn(&mut self, txn: &Txn) -> Outcome {
        let now = self.now();
        let holds = |compare: &Compare| compare.expect.holds(now.get(&compare.key).map(|kv| kv.mod_revision));
        if !txn.compares.iter().all(holds) {
            let current = txn.on_failure.iter().map(|key| now.get(key).cloned()).collect();
            return Outcome::Failed { revision: self.revision(), current };
        }
        let revision = self.revision() + 1;
        let mut next = now.clone();
        for op in &txn.ops {
            match op {
                Op::Put { key, value, .. } => {
                    let kv = KeyValue { key: key.clone(), value: value.clone(), mod_revision: revision };
                    next.insert(key.clone(), kv);
                }
                Op::Delete { key } => drop(next.remove(key)),
            }
        }
        if next == *now {
            return Outcome::Succeeded { revision: self.revision() };
        }
        self.states.push(next);
        Outcome::Succeeded { revision }
    }

    fn list(&self, request: &ListRequest) -> Result<(Vec<KeyValue>, Revision, u64), ()> {
        let revision = request.revision.unwrap_or(self.revision());
        if revision < self.compacted || revision > self.revision() {
            return Err(());
        }
        let matches = |kv: &&KeyValue| {
            kv.key.starts_with(&request.prefix) && request.from_key.as_ref().is_none_or(|from| *kv.key >= **from)
        };
        let mut kvs: Vec<_> = self.at(revision).values().filter(matches).cloned().collect();
        let total = kvs.len();
        kvs.truncate(request.limit.unwrap_or(usize::MAX));
        let remaining = (total - kvs.len()) as u64;
        Ok((kvs, revision, remaining))
    }

    /// The changes from one revision to the present one, by key within a revision.
    fn events(&self, from: Revision, prefix: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for revision in from.max(self.base + 1)..=self.revision() {
            let (before, after) = (self.at(revision - 1), self.at(revision));
            let mut keys: Vec<_> = before.keys().chain(after.keys()).filter(|key| key.starts_with(prefix)).collect();
            keys.sort();
            keys.dedup();
            for key in keys.into_iter().filter(|key| before.get(*key) != after.get(*key)) {
                let prev = before.get(key).cloned();
                let value = after.get(key).map(|kv| kv.value.clone());
                events.push(Event { key: key.clone(), revision, value, created: prev.is_none(), prev });
            }
        }
        events
    }
}

fn random_txn(rng: &mut Rng, model: &Model, keys: &[Key]) -> Txn {
    let mut txn = Txn::default();
    for _ in 0..rng.below(3) {
        let key = rng.pick(keys);
        let held = model.now().get(key).map(|kv| kv.mod_revision);
        let expect = match (rng.below(6), held) {
            (0, _) => Expect::Absent,
            (1, _) => Expect::Exists,
            (2, _) => Expect::ModRevision(model.base + rng.below(model.revision() - model.base + 2)),
            (_, Some(revision)) => Expect::ModRevision(revision),
            (_, None) => Expect::Absent,
        };
        txn = txn.when(key.clone(), expect).or_get(key.clone());
    }
    for _ in 0..=rng.below(4) {
        let key = rng.pick(keys);
        if txn.ops.iter().any(|op| op.key() == key) {
            continue;
        }
        txn = if rng.one_in(3) {
            txn.delete(key.clone())
        } else {
            let length = usize::try_from(if rng.one_in(20) { rng.below(20_000) } else { rng.below(30) }).unwrap();
            txn.put(key.clone(), vec![rng.below(256) as u8; length])
        };
    }
    txn
}

/// Compares a store, freshly made, with the model over some hundred random operations.
pub async fn check(f: &Fixture, seed: u64) {
    let mut rng = Rng::new(seed);
    let store = &*f.store;
    let root = unique("model");
    let dirs = ["a/", "a/b/", "b/", ""];
    let keys: Vec<Key> = (0..24).map(|i| format!("{root}{}{}", dirs[i % 4], i / 4).into()).collect();
    let base = store.current_revision().await.unwrap();
    let mut model = Model { base, states: vec![State::new()], compacted: 0 };
    let mut watches: Vec<(Watch, Revision, String)> = Vec::new();
    for step in 0..STEPS {
        let context = || format!("seed {seed} step {step}");
        match rng.below(20) {
            0..=11 => {
                let txn = random_txn(&mut rng, &model, &keys);
                let got = store.txn(txn.clone()).await.unwrap();
                assert_eq!(got, model.txn(&txn), "{}: {txn:?}", context());
            }
            12..=13 => {
                let key = rng.pick(&keys);
                let got = store.get(key).await.unwrap();
                assert_eq!((got.kv.as_ref(), got.revision), (model.now().get(key), model.revision()), "{}", context());
            }
            14..=17 => {
                let mut request = ListRequest::prefix(format!("{root}{}", rng.pick(&dirs)));
                request.from_key = rng.one_in(2).then(|| rng.pick(&keys).to_string());
                request.revision = rng.one_in(2).then(|| base + rng.below(model.revision() - base + 2));
                request.limit = rng.one_in(2).then(|| usize::try_from(rng.below(12)).unwrap());
                let got = store.list(request.clone()).await;
                let got = got.map(|listed| (listed.kvs, listed.revision, listed.remaining));
                match (&got, model.list(&request)) {
                    (Ok(got), Ok(expect)) => assert_eq!(*got, expect, "{}: {request:?}", context()),
                    (Err(Error::Compacted { .. } | Error::FutureRevision { .. }), Err(())) => {}
                    (got, expect) => panic!("{}: {request:?} gave {got:?}, not {expect:?}", context()),
                }
            }
            18 if model.revision() > model.compacted.max(base) && rng.one_in(3) => {
                let low = model.compacted.max(base) + 1;
                let revision = low + rng.below(model.revision() - low + 1);
                store.compact(revision).await.unwrap();
                model.compacted = revision;
            }
            _ => {
                let low = model.compacted.max(base) + 1;
                let from = low + rng.below(model.revision() - low.min(model.revision()) + 2);
                let prefix = format!("{root}{}", rng.pick(&dirs));
                let mut watch = store.watch(WatchRequest::prefix(&prefix).from(from)).await.unwrap();
                // Read something at once, so that a later compaction does not end the watch.
                watch.request_progress();
                let mut seen = until(&mut watch, model.revision()).await;
                sort(&mut seen);
                compare(&model, from, &prefix, &seen, &context());
                watches.push((watch, model.revision().max(from - 1) + 1, prefix));
            }
        }
    }
    finish(&model, watches, seed, store, &root).await;
}

/// What the watches saw of the later changes.
async fn finish(model: &Model, watches: Vec<(Watch, Revision, String)>, seed: u64, store: &dyn Store, root: &str) {
    for (mut watch, from, prefix) in watches {
        let mut seen = Vec::new();
        watch.request_progress();
        loop {
            let batch = next(&mut watch).await;
            seen.extend(batch.events);
            if batch.revision >= model.revision() {
                break;
            }
            watch.request_progress();
        }
        sort(&mut seen);
        compare(model, from, &prefix, &seen, &format!("seed {seed} at the end"));
    }
    let listed = store.list(ListRequest::prefix(root)).await.unwrap();
    assert!(listed.kvs.iter().eq(model.now().values()), "seed {seed}: the final state differs");
}

/// Within a revision the order of keys is the implementation's choice.
fn sort(events: &mut [Arc<Event>]) {
    events.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
}

fn compare(model: &Model, from: Revision, prefix: &str, seen: &[Arc<Event>], context: &str) {
    let expect = model.events(from, prefix);
    assert_eq!(seen.len(), expect.len(), "{context}: {prefix} from {from}: {seen:?} is not {expect:?}");
    for (seen, expect) in seen.iter().zip(&expect) {
        let mut seen = (**seen).clone();
        if seen.prev.is_none()
            && !seen.created
            && expect.prev.as_ref().is_some_and(|p| p.mod_revision <= model.compacted)
        {
            seen.prev.clone_from(&expect.prev); // Allowed: that state was compacted.
        }
        assert_eq!(seen, *expect, "{context}: {prefix} from {from}");
    }
}
