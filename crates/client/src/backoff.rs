//! Delays that double.

use std::time::Duration;

/// Exponential delays with jitter: `first`, doubled each time up to `max`, each stretched at random by up to `jitter`
/// of itself.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    jitter: f64,
    next: Duration,
}

impl Backoff {
    /// Delays from `first` to `max`, with a jitter of `jitter` (0.5 is up to half as much again).
    #[must_use]
    pub fn new(first: Duration, max: Duration, jitter: f64) -> Self {
        Self { first, max, jitter, next: first }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.max);
        base.mul_f64(1.0 + self.jitter * fastrand::f64())
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_limit_and_starts_over() {
        let ms = Duration::from_millis;
        let mut b = Backoff::new(ms(10), ms(35), 0.0);
        assert_eq!([b.next_delay(), b.next_delay(), b.next_delay(), b.next_delay()], [ms(10), ms(20), ms(35), ms(35)]);
        b.reset();
        assert_eq!(b.next_delay(), ms(10));
        let mut j = Backoff::new(ms(10), ms(10), 0.5);
        assert!((0..100).map(|_| j.next_delay()).all(|d| d >= ms(10) && d <= ms(15)));
    }
}
