//! Ranges of costs and of sizes.

/// At least and at most so much: a cost in cel-go's units, or a size as `size()` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// At least.
    pub min: u64,
    /// At most; `u64::MAX` when it may be anything.
    pub max: u64,
}

impl Estimate {
    /// Nothing is known.
    pub(super) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };
    /// What the first of several is united with.
    pub(super) const NONE: Self = Self { min: u64::MAX, max: 0 };

    pub(super) const fn fixed(n: u64) -> Self {
        Self { min: n, max: n }
    }

    pub(super) fn up_to(max: u64) -> Self {
        Self { min: 0, max }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Times a factor, rounded up.
    pub(super) fn by(self, factor: f64) -> Self {
        // A cast takes what is too large for the largest there is.
        let by = |n: u64| (n as f64 * factor).ceil() as u64;
        Self { min: by(self.min), max: by(self.max) }
    }

    /// What covers both.
    pub(super) fn or(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}
