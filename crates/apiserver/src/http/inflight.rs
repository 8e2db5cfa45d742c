//! The limit on requests at once: more than that wait in line for a while.

use std::sync::Arc;
use std::time::Duration;

use pintle_api::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::context::Ctx;

/// How long a request waits in line: a quarter of its time, as upstream's priority and fairness has it.
const WAIT: Duration = Duration::from_secs(15);

/// Lets so many requests through at once, reading and writing ones apart.
#[derive(Debug)]
pub(crate) struct InFlight {
    reading: Arc<Semaphore>,
    writing: Arc<Semaphore>,
    max_reading: usize,
    max_writing: usize,
}

/// A request in flight, over when dropped; `None` for one that was let through beyond the limit.
type Guard = Option<OwnedSemaphorePermit>;

impl InFlight {
    /// Limits; 0 is none.
    pub(crate) fn new(max_reading: usize, max_writing: usize) -> Self {
        let limit = |max: usize| if max == 0 { Semaphore::MAX_PERMITS } else { max };
        let (max_reading, max_writing) = (limit(max_reading), limit(max_writing));
        Self {
            reading: Arc::new(Semaphore::new(max_reading)),
            writing: Arc::new(Semaphore::new(max_writing)),
            max_reading,
            max_writing,
        }
    }

    /// Counts a request in; when `bounded`, once there is room. Those of `system:masters` are never held up.
    ///
    /// # Errors
    /// 429 when it had to wait too long.
    pub(crate) async fn enter(&self, ctx: &Ctx, bounded: bool) -> Result<Guard, Status> {
        let reads = matches!(ctx.info.verb.as_str(), "get" | "list" | "watch" | "head" | "options");
        let gate = if reads { &self.reading } else { &self.writing };
        if let Ok(permit) = Arc::clone(gate).try_acquire_owned() {
            return Ok(Some(permit));
        }
        if !bounded || ctx.user.groups.iter().any(|g| g == "system:masters") {
            return Ok(None);
        }
        match tokio::time::timeout(WAIT, Arc::clone(gate).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(Status::too_many_requests("Too many requests, please try again later.", 1)),
        }
    }

    /// Reading and writing requests now.
    pub(crate) fn now(&self) -> (usize, usize) {
        (self.max_reading - self.reading.available_permits(), self.max_writing - self.writing.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_api::service::UserInfo;

    #[tokio::test(start_paused = true)]
    async fn waits_and_refuses() {
        let gate = InFlight::new(1, 0);
        let mut ctx = Ctx::loopback();
        ctx.info.verb = "get".into();
        let first = gate.enter(&ctx, true).await.unwrap();
        assert!(first.is_some());
        assert_eq!(gate.now(), (1, 0));
        assert!(gate.enter(&ctx, true).await.unwrap().is_none());
        ctx.user = Arc::new(UserInfo::authenticated("joe", &[]));
        assert_eq!(gate.enter(&ctx, true).await.unwrap_err().code, 429);
        drop(first);
        assert!(gate.enter(&ctx, true).await.unwrap().is_some());
    }
}
