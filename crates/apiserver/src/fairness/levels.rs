//! Priority levels: who may execute, who waits, and in which order those who wait go on.
//!
//! A level's seats are its own; those it says may be lent go to levels that need more while it does not use them. Those
//! who wait do so in queues, each flow in one of a few that its hash picks (shuffle sharding), and queues take turns by
//! the seat-seconds they have used (fair queuing).

use std::collections::{BTreeMap, VecDeque};

use pintle_api::object::Object;
use serde::Deserialize;
use tokio::sync::oneshot;

/// Until it is over a request is taken to occupy its seats so long, in seconds.
const ESTIMATE: f64 = 0.05;

/// What a `PriorityLevelConfiguration` says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LevelConfig {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) exempt: bool,
    shares: f64,
    lendable: f64,
    borrowing: Option<f64>,
    /// Queues, hand size and queue length limit; `None` rejects instead.
    queuing: Option<(usize, usize, usize)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Limited {
    nominal_concurrency_shares: Option<f64>,
    lendable_percent: Option<f64>,
    borrowing_limit_percent: Option<f64>,
    limit_response: Response,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    #[serde(rename = "type")]
    kind: String,
    queuing: Queuing,
}

#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Queuing {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

impl Default for Queuing {
    fn default() -> Self {
        Self { queues: 64, hand_size: 8, queue_length_limit: 50 }
    }
}

impl LevelConfig {
    /// From its object.
    pub(super) fn new(object: &Object) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Whole {
            #[serde(default)]
            spec: Spec,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Spec {
            #[serde(rename = "type")]
            kind: String,
            limited: Option<Limited>,
            exempt: Option<Limited>,
        }
        let spec = object.view::<Whole>()?.spec;
        let exempt = spec.kind == "Exempt";
        let of = if exempt { spec.exempt } else { spec.limited }.unwrap_or_default();
        let queues = of.limit_response.kind == "Queue";
        let Queuing { queues: n, hand_size, queue_length_limit } = of.limit_response.queuing;
        Ok(Self {
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            exempt,
            shares: of.nominal_concurrency_shares.unwrap_or(if exempt { 0.0 } else { 30.0 }),
            lendable: of.lendable_percent.unwrap_or(0.0),
            borrowing: of.borrowing_limit_percent,
            queuing: queues.then_some((n.max(1), hand_size.clamp(1, n.max(1)), queue_length_limit)),
        })
    }
}

/// Why a request is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
}

impl Refusal {
    /// Upstream's word for it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
        }
    }
}

/// What became of a request that came.
#[derive(Debug)]
pub(super) enum Entry {
    Executes(Place),
    /// It waits under this number until told.
    Waits(u64, oneshot::Receiver<Place>),
    Refused(Refusal),
}

/// Where an executing request sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    queue: usize,
    pub(super) seats: usize,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    seats: usize,
    tell: oneshot::Sender<Place>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    executing: usize,
    /// Seat-seconds used, in the level's virtual time.
    used: f64,
}

/// One level at work.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) config: LevelConfig,
    pub(super) nominal: usize,
    lendable: usize,
    borrowing: Option<usize>,
    queues: Vec<Queue>,
    pub(super) executing: usize,
    pub(super) waiting: usize,
    /// How far the queue has come that went on last.
    now: f64,
    /// Its object is gone; it goes when it is empty.
    gone: bool,
}

impl Level {
    fn new(config: LevelConfig) -> Self {
        Self {
            config,
            nominal: 0,
            lendable: 0,
            borrowing: None,
            queues: Vec::new(),
            executing: 0,
            waiting: 0,
            now: 0.0,
            gone: false,
        }
    }

    /// Seats it uses beyond its own.
    fn borrowed(&self) -> usize {
        if self.config.exempt { 0 } else { self.executing.saturating_sub(self.nominal) }
    }

    /// Seats it has to lend now.
    fn free(&self) -> usize {
        self.lendable.min(self.nominal.saturating_sub(self.executing))
    }

    fn resize(&mut self) {
        let wanted = self.config.queuing.map_or(1, |(n, _, _)| n);
        let rest = if self.queues.len() > wanted { self.queues.split_off(wanted) } else { Vec::new() };
        self.queues.resize_with(wanted, Queue::default);
        for (i, queue) in rest.into_iter().enumerate() {
            self.queues[i % wanted].waiting.extend(queue.waiting);
        }
    }

    /// The queue for a flow: of those its hash deals, the least burdened.
    fn pick(&self, flow: u64, hand: usize) -> usize {
        let burden = |i: &usize| {
            let q = &self.queues[*i];
            q.executing + q.waiting.iter().map(|w| w.seats).sum::<usize>()
        };
        deal(flow, self.queues.len(), hand).into_iter().min_by_key(burden).unwrap_or(0)
    }

    /// The queue whose turn it is.
    fn next(&self) -> Option<usize> {
        let ready = self.queues.iter().enumerate().filter(|(_, q)| !q.waiting.is_empty());
        ready.min_by(|(_, a), (_, b)| a.used.total_cmp(&b.used)).map(|(i, _)| i)
    }

    #[expect(clippy::cast_precision_loss, reason = "seats are few")]
    fn begin(&mut self, place: Place) {
        self.executing += place.seats;
        if let Some(q) = self.queues.get_mut(place.queue) {
            if q.executing == 0 && q.waiting.is_empty() {
                // Who was away for a while has not saved up turns.
                q.used = q.used.max(self.now);
            }
            self.now = self.now.max(q.used);
            q.executing += place.seats;
            q.used += ESTIMATE * place.seats as f64;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seats are few")]
    fn end(&mut self, place: Place, took: f64) {
        self.executing = self.executing.saturating_sub(place.seats);
        if let Some(q) = self.queues.get_mut(place.queue) {
            q.executing = q.executing.saturating_sub(place.seats);
            q.used += (took - ESTIMATE) * place.seats as f64;
        }
    }
}

/// A hand of different queues.
fn deal(mut hash: u64, queues: usize, hand: usize) -> Vec<usize> {
    let mut taken: Vec<usize> = Vec::with_capacity(hand);
    for i in 0..hand.min(queues) {
        let left = (queues - i) as u64;
        let mut card = usize::try_from(hash % left).unwrap_or(0);
        hash /= left;
        // Counts those not taken yet.
        for t in &taken {
            if card >= *t {
                card += 1;
            }
        }
        let at = taken.partition_point(|t| *t < card);
        taken.insert(at, card);
    }
    taken
}

/// All levels.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// Seats of the whole server.
    total: usize,
    levels: BTreeMap<String, Level>,
    last: u64,
}

impl Levels {
    pub(super) fn new(total: usize) -> Self {
        Self { total, ..Self::default() }
    }

    #[cfg(test)]
    fn get(&self, name: &str) -> Option<&Level> {
        self.levels.get(name).filter(|l| !l.gone)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Level> {
        self.levels.values()
    }

    /// Makes these the levels there are.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "seats are few"
    )]
    pub(super) fn configure(&mut self, configs: Vec<LevelConfig>) {
        for level in self.levels.values_mut() {
            level.gone = !configs.iter().any(|c| c.name == level.config.name);
        }
        let sum: f64 = configs.iter().map(|c| c.shares).sum();
        for config in configs {
            let level = self.levels.entry(config.name.clone()).or_insert_with(|| Level::new(config.clone()));
            let nominal = if sum > 0.0 { (self.total as f64 * config.shares / sum).ceil() } else { 0.0 };
            level.nominal = nominal as usize;
            level.lendable = (nominal * config.lendable / 100.0).round() as usize;
            level.borrowing = config.borrowing.map(|p| (nominal * p / 100.0).round() as usize);
            level.config = config;
            level.resize();
        }
        self.sweep();
        self.dispatch();
    }

    fn sweep(&mut self) {
        self.levels.retain(|_, l| !l.gone || l.executing > 0 || l.waiting > 0);
    }

    /// Whether a level may have so many seats more.
    fn may(&self, name: &str, seats: usize) -> bool {
        let Some(level) = self.levels.get(name) else { return true };
        if level.config.exempt || level.executing == 0 || level.executing + seats <= level.nominal {
            return true;
        }
        let more = level.executing + seats - level.nominal;
        if level.borrowing.is_some_and(|most| more > most) {
            return false;
        }
        let others = || self.levels.values().filter(|l| l.config.name != name);
        let free: usize = others().map(Level::free).sum();
        let lent: usize = others().map(Level::borrowed).sum();
        more + lent <= free
    }

    /// A request comes.
    pub(super) fn enter(&mut self, name: &str, flow: u64, seats: usize) -> Entry {
        let may = self.may(name, seats);
        let Some(level) = self.levels.get_mut(name) else {
            return Entry::Executes(Place { queue: usize::MAX, seats });
        };
        if level.config.exempt || (may && level.waiting == 0) {
            let queue = match level.config.queuing {
                Some((_, hand, _)) if !level.config.exempt => level.pick(flow, hand),
                _ => 0,
            };
            let place = Place { queue, seats };
            level.begin(place);
            return Entry::Executes(place);
        }
        let Some((_, hand, most)) = level.config.queuing else { return Entry::Refused(Refusal::ConcurrencyLimit) };
        let queue = level.pick(flow, hand);
        if level.queues[queue].waiting.len() >= most {
            return Entry::Refused(Refusal::QueueFull);
        }
        self.last += 1;
        let (tell, told) = oneshot::channel();
        let q = &mut level.queues[queue];
        if q.executing == 0 && q.waiting.is_empty() {
            q.used = q.used.max(level.now);
        }
        q.waiting.push_back(Waiter { id: self.last, seats, tell });
        level.waiting += 1;
        let id = self.last;
        self.dispatch();
        Entry::Waits(id, told)
    }

    /// A request is over after so many seconds.
    pub(super) fn leave(&mut self, name: &str, place: Place, took: f64) {
        if let Some(level) = self.levels.get_mut(name) {
            level.end(place, took);
        }
        self.dispatch();
        self.sweep();
    }

    /// One that waits gives up; `false` if it does not wait any more.
    pub(super) fn give_up(&mut self, name: &str, id: u64) -> bool {
        let Some(level) = self.levels.get_mut(name) else { return false };
        for q in &mut level.queues {
            if let Some(at) = q.waiting.iter().position(|w| w.id == id) {
                q.waiting.remove(at);
                level.waiting -= 1;
                return true;
            }
        }
        false
    }

    /// Lets go on who may.
    fn dispatch(&mut self) {
        let waiting: Vec<String> =
            self.levels.values().filter(|l| l.waiting > 0).map(|l| l.config.name.clone()).collect();
        for name in waiting {
            while let Some((queue, seats)) = self.levels.get(&name).and_then(|level| {
                let queue = level.next()?;
                Some((queue, level.queues[queue].waiting.front()?.seats))
            }) {
                if !self.may(&name, seats) {
                    break;
                }
                let Some(level) = self.levels.get_mut(&name) else { break };
                let Some(waiter) = level.queues[queue].waiting.pop_front() else { break };
                level.waiting -= 1;
                let place = Place { queue, seats };
                // Who does not listen any more has given up and takes no seat.
                if waiter.tell.send(place).is_ok() {
                    level.begin(place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &str, shares: f64, lendable: f64, queuing: Option<(usize, usize, usize)>) -> LevelConfig {
        LevelConfig {
            name: name.into(),
            uid: String::new(),
            exempt: name == "exempt",
            shares: if name == "exempt" { 0.0 } else { shares },
            lendable,
            borrowing: None,
            queuing,
        }
    }

    fn executes(entry: Entry) -> Place {
        match entry {
            Entry::Executes(place) => place,
            other => panic!("{other:?}"),
        }
    }

    fn refused(entry: Entry) -> Refusal {
        match entry {
            Entry::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hands_are_of_different_queues() {
        for hash in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let mut hand = deal(hash, 64, 8);
            assert_eq!(hand.len(), 8);
            hand.dedup();
            assert_eq!(hand.len(), 8);
            assert!(hand.iter().all(|q| *q < 64));
        }
        assert_eq!(deal(7, 3, 8), [0, 1, 2]);
    }

    #[test]
    fn seats_are_shared_out_and_lent() {
        let mut levels = Levels::new(10);
        levels.configure(vec![
            level("exempt", 0.0, 0.0, None),
            level("a", 30.0, 0.0, None),
            level("b", 20.0, 50.0, None),
        ]);
        assert_eq!((levels.get("a").unwrap().nominal, levels.get("b").unwrap().nominal), (6, 4));
        // Six of its own and two of b's.
        let places: Vec<Place> = (0..8).map(|_| executes(levels.enter("a", 0, 1))).collect();
        assert_eq!(refused(levels.enter("a", 0, 1)), Refusal::ConcurrencyLimit);
        for _ in 0..100 {
            executes(levels.enter("exempt", 0, 1));
        }
        // The lender has its own back at once.
        for _ in 0..4 {
            executes(levels.enter("b", 0, 1));
        }
        assert_eq!(refused(levels.enter("b", 0, 1)), Refusal::ConcurrencyLimit);
        for place in &places[..2] {
            levels.leave("a", *place, 0.01);
        }
        assert_eq!(refused(levels.enter("a", 0, 1)), Refusal::ConcurrencyLimit);
        levels.leave("a", places[2], 0.01);
        executes(levels.enter("a", 0, 1));
    }

    #[test]
    fn a_wide_request_goes_alone() {
        let mut levels = Levels::new(2);
        levels.configure(vec![level("a", 1.0, 0.0, Some((1, 1, 5)))]);
        let place = executes(levels.enter("a", 0, 10));
        let Entry::Waits(_, mut told) = levels.enter("a", 0, 1) else { panic!("it waits") };
        assert!(told.try_recv().is_err());
        levels.leave("a", place, 1.0);
        assert_eq!(told.try_recv().unwrap().seats, 1);
    }

    #[test]
    fn queues_are_bounded_and_given_up() {
        let mut levels = Levels::new(1);
        levels.configure(vec![level("a", 1.0, 0.0, Some((1, 1, 2)))]);
        let place = executes(levels.enter("a", 0, 1));
        let Entry::Waits(first, told) = levels.enter("a", 0, 1) else { panic!("it waits") };
        let Entry::Waits(_, mut second) = levels.enter("a", 0, 1) else { panic!("it waits") };
        assert_eq!(refused(levels.enter("a", 0, 1)), Refusal::QueueFull);
        assert!(levels.give_up("a", first));
        assert!(!levels.give_up("a", first));
        drop(told);
        levels.leave("a", place, 0.1);
        let place = second.try_recv().unwrap();
        assert_eq!(levels.get("a").unwrap().executing, 1);
        // A level whose object is gone serves those it has.
        levels.configure(vec![]);
        assert!(levels.get("a").is_none());
        assert_eq!(levels.iter().count(), 1);
        levels.leave("a", place, 0.1);
        assert_eq!(levels.iter().count(), 0);
    }

    /// An elephant flow with many requests does not hold up a mouse with few.
    #[test]
    fn flows_take_turns() {
        let mut levels = Levels::new(1);
        levels.configure(vec![level("a", 1.0, 0.0, Some((8, 1, 100)))]);
        let (elephant, mouse) = (0, 1);
        let mut place = executes(levels.enter("a", elephant, 1));
        let mut big = Vec::new();
        for _ in 0..50 {
            let Entry::Waits(_, told) = levels.enter("a", elephant, 1) else { panic!("it waits") };
            big.push(told);
        }
        let Entry::Waits(_, mut small) = levels.enter("a", mouse, 1) else { panic!("it waits") };
        let mut before = 0;
        loop {
            levels.leave("a", place, 0.1);
            if small.try_recv().is_ok() {
                break;
            }
            place = big.iter_mut().find_map(|t| t.try_recv().ok()).unwrap();
            before += 1;
        }
        assert!(before <= 2, "{before} went before");
    }
}
