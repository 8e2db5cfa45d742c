//! The limit on requests at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pintle_api::Status;

use super::context::Ctx;

/// Counts requests at once, reading and writing ones apart.
#[derive(Debug)]
pub(crate) struct InFlight {
    reading: Arc<AtomicUsize>,
    writing: Arc<AtomicUsize>,
    max_reading: usize,
    max_writing: usize,
}

/// A request in flight; over when dropped.
#[derive(Debug)]
pub(crate) struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InFlight {
    pub(crate) fn new(max_reading: usize, max_writing: usize) -> Self {
        Self { reading: Arc::default(), writing: Arc::default(), max_reading, max_writing }
    }

    /// Counts a request in.
    ///
    /// # Errors
    /// 429 when there are too many. Those of `system:masters` are never refused.
    pub(crate) fn enter(&self, ctx: &Ctx) -> Result<Guard, Status> {
        let reads = matches!(ctx.info.verb.as_str(), "get" | "list" | "watch" | "head" | "options");
        let (count, max) = if reads { (&self.reading, self.max_reading) } else { (&self.writing, self.max_writing) };
        let now = count.fetch_add(1, Ordering::Relaxed) + 1;
        let guard = Guard(Arc::clone(count));
        if max > 0 && now > max && !ctx.user.groups.iter().any(|g| g == "system:masters") {
            return Err(Status::too_many_requests("Too many requests, please try again later.", 1));
        }
        Ok(guard)
    }

    /// Reading and writing requests now.
    pub(crate) fn now(&self) -> (usize, usize) {
        (self.reading.load(Ordering::Relaxed), self.writing.load(Ordering::Relaxed))
    }
}
