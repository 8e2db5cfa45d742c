//! Priority and fairness: `FlowSchema` and `PriorityLevelConfiguration` say which requests may execute at once, which
//! wait and which are refused.
//!
//! Requests of this very process carry no seats: its parts bound themselves, and their calls cost no connection.

mod follow;
mod levels;
mod metrics;
mod rules;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::Server;
use crate::http::context::Ctx;
use levels::{Entry, Levels, Place, Refusal};
use metrics::SchemaMetrics;
use rules::Schema;

pub(crate) use follow::start;

/// Most seats that one request takes.
const MOST_SEATS: usize = 10;
/// Objects that one seat is worth in a list.
const OBJECTS_PER_SEAT: usize = 100;

/// A schema with what is counted of its requests.
struct Flow {
    schema: Schema,
    level_uid: String,
    metrics: SchemaMetrics,
}

/// The state of priority and fairness.
pub(crate) struct Fairness {
    on: bool,
    /// In the order they are tried.
    flows: RwLock<Arc<Vec<Arc<Flow>>>>,
    levels: Mutex<Levels>,
}

/// A request that executes; over when dropped.
pub(crate) struct Ticket {
    fairness: Arc<Fairness>,
    flow: Arc<Flow>,
    place: Place,
    since: Instant,
}

/// A request that was refused.
pub(crate) struct Rejected;

impl Drop for Ticket {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        self.flow.metrics.ended(self.place.seats, took);
        self.fairness.levels.lock().leave(&self.flow.schema.level, self.place, took);
    }
}

/// One that waits, until told or dropped.
struct Waiting<'a> {
    fairness: &'a Arc<Fairness>,
    flow: &'a Arc<Flow>,
    id: u64,
    told: tokio::sync::oneshot::Receiver<Place>,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.flow.metrics.waits(-1.0);
        if self.over {
            return;
        }
        let level = &self.flow.schema.level;
        let mut levels = self.fairness.levels.lock();
        // It may have been told at the last moment.
        if !levels.give_up(level, self.id)
            && let Ok(place) = self.told.try_recv()
        {
            levels.leave(level, place, 0.0);
        }
    }
}

impl Fairness {
    /// With so many seats; 0 switches it off.
    pub(crate) fn new(seats: usize) -> Self {
        Self { on: seats > 0, flows: RwLock::default(), levels: Mutex::new(Levels::new(seats)) }
    }

    /// Whether it decides anything.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Waits for the turn of a request that takes so many seats, at most so long.
    ///
    /// # Errors
    /// When there is no room for it to wait, or its turn did not come.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        ctx: &Ctx,
        seats: usize,
        patience: Duration,
    ) -> Result<Option<Ticket>, Rejected> {
        let flows = Arc::clone(&self.flows.read());
        let Some(flow) = flows.iter().find(|f| f.schema.matches(&ctx.user, &ctx.info)) else { return Ok(None) };
        ctx.set_flow(&flow.schema.uid, &flow.level_uid);
        let arrived = Instant::now();
        let hash = flow.schema.flow(&ctx.user, &ctx.info);
        let entry = self.levels.lock().enter(&flow.schema.level, hash, seats);
        let place = match entry {
            Entry::Executes(place) => place,
            Entry::Refused(why) => return Err(self.refuse(flow, why)),
            Entry::Waits(id, told) => {
                flow.metrics.waits(1.0);
                let mut waiting = Waiting { fairness: self, flow, id, told, over: false };
                match tokio::time::timeout(patience, &mut waiting.told).await {
                    Ok(Ok(place)) => {
                        waiting.over = true;
                        place
                    }
                    _ => {
                        drop(waiting);
                        flow.metrics.waited(arrived.elapsed().as_secs_f64(), false);
                        return Err(self.refuse(flow, Refusal::TimeOut));
                    }
                }
            }
        };
        let waited = arrived.elapsed();
        ctx.hold(waited);
        flow.metrics.began(seats, waited.as_secs_f64());
        Ok(Some(Ticket { fairness: Arc::clone(self), flow: Arc::clone(flow), place, since: Instant::now() }))
    }

    fn refuse(&self, flow: &Flow, why: Refusal) -> Rejected {
        metrics::rejected(&flow.schema.level, &flow.schema.name, why.reason());
        Rejected
    }

    /// What is configured and what goes on, for `/debug/api_priority_and_fairness/dump_priority_levels`.
    pub(crate) fn dump(&self) -> String {
        let mut out = String::from(
            "PriorityLevelName, ActiveQueues, IsIdle,    IsQuiescing, WaitingRequests, ExecutingRequests, NominalLimit\n",
        );
        for l in self.levels.lock().iter() {
            let idle = l.waiting == 0 && l.executing == 0;
            out.push_str(&format!(
                "{}, {}, {idle}, false, {}, {}, {}\n",
                l.config.name, l.waiting, l.waiting, l.executing, l.nominal
            ));
        }
        out
    }
}

impl Server {
    /// How many seats a request takes: large lists take more than one.
    pub(crate) fn seats(&self, ctx: &Ctx) -> usize {
        let i = &ctx.info;
        if i.verb != "list" || !i.name.is_empty() {
            return 1;
        }
        let Some(cache) =
            self.registry.get(&i.group, &i.version, &i.resource).and_then(|res| res.objects.as_ref()?.loaded())
        else {
            return 1;
        };
        let limit = ctx.query.integer("limit").ok().flatten().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let objects = cache.len().min(limit.unwrap_or(usize::MAX));
        objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, MOST_SEATS)
    }
}
