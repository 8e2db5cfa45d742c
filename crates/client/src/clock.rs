//! Wall-clock time, passed in so that a whole cluster can run in simulated time.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// Tells the time of day. Waiting is tokio's business; both move together when a test pauses tokio's clock and uses
/// [`Clock::simulated`].
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// A clock that starts at `start` and then follows tokio's.
    #[must_use]
    pub fn simulated(start: Timestamp) -> Self {
        let began = tokio::time::Instant::now();
        Self(Arc::new(move || {
            let passed = jiff::SignedDuration::try_from(began.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
            start.checked_add(passed).unwrap_or(Timestamp::MAX)
        }))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// `metav1.Time`: whole seconds.
#[must_use]
pub fn time(t: Timestamp) -> Time {
    Time(Timestamp::from_second(t.as_second()).unwrap_or(t))
}

/// `metav1.MicroTime`: whole microseconds.
#[must_use]
pub fn micro_time(t: Timestamp) -> MicroTime {
    MicroTime(Timestamp::from_microsecond(t.as_microsecond()).unwrap_or(t))
}

/// When so much time is over. Some delays that users ask for go further than any clock: then in 30 years.
#[must_use]
pub fn after(delay: std::time::Duration) -> tokio::time::Instant {
    const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(30 * 365 * 24 * 3600);
    let now = tokio::time::Instant::now();
    now.checked_add(delay).unwrap_or(now + FOR_EVER)
}

/// The time from `a` to `b`; zero when `b` is not after `a`.
#[must_use]
pub fn since(a: Timestamp, b: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(b.duration_since(a)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn any_delay_has_an_end() {
        let now = tokio::time::Instant::now();
        assert_eq!(after(Duration::from_secs(30)) - now, Duration::from_secs(30));
        assert!(after(Duration::MAX) > now + Duration::from_secs(1 << 29));
    }
}
