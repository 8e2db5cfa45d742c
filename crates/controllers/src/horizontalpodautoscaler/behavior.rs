//! How fast replicas may change: stabilization windows and policies. Pure, but for what it remembers.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use pintle_client::clock::since;

/// How long the highest recommendation counts (`--horizontal-pod-autoscaler-downscale-stabilization`).
const DOWNSCALE_WINDOW: Duration = Duration::from_secs(300);

/// What is remembered of one autoscaler.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// What was recommended, and when.
    recommended: Vec<(Timestamp, i32)>,
    /// By how much it was made larger, and when.
    ups: Vec<(Timestamp, i32)>,
    /// By how much it was made smaller, and when.
    downs: Vec<(Timestamp, i32)>,
}

/// The numbers to be brought within limits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Fewest.
    pub min: i32,
    /// Most.
    pub max: i32,
    /// Now.
    pub current: i32,
    /// As metrics ask.
    pub desired: i32,
}

/// A condition: status, reason, message.
pub type Said = (bool, &'static str, &'static str);

const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

fn window(rules: Option<&HPAScalingRules>, default: Duration) -> Duration {
    let seconds = rules.and_then(|r| r.stabilization_window_seconds);
    seconds.map_or(default, |s| Duration::from_secs(u64::try_from(s).unwrap_or(0)))
}

fn longest(rules: Option<&HPAScalingRules>) -> Duration {
    let periods = rules.and_then(|r| r.policies.as_ref()).into_iter().flatten().map(|p| p.period_seconds);
    Duration::from_secs(periods.max().and_then(|s| u64::try_from(s).ok()).unwrap_or(0))
}

impl Memory {
    /// What was there at first counts as a recommendation: a restart must not scale down at once.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
    }

    /// Notes a change of size.
    pub fn scaled(&mut self, behavior: Option<&HorizontalPodAutoscalerBehavior>, from: i32, to: i32, now: Timestamp) {
        let Some(behavior) = behavior else { return };
        let (events, rules) = if to > from {
            (&mut self.ups, behavior.scale_up.as_ref())
        } else {
            (&mut self.downs, behavior.scale_down.as_ref())
        };
        let keep = longest(rules);
        events.retain(|(at, _)| since(*at, now) <= keep);
        events.push((now, (to - from).abs()));
    }

    /// The desired number within all limits, and what is said of it: able to scale, limited.
    pub fn normalize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        mut b: Bounds,
        now: Timestamp,
    ) -> (i32, Said, Said) {
        let asked = b.desired;
        let (stable, reason) = match behavior {
            None => self.stabilize_default(asked, now),
            Some(behavior) => self.stabilize(behavior, &b, now),
        };
        let able =
            if stable == asked { (true, "ReadyForNewScale", "recommended size matches current size") } else { reason };
        b.desired = stable;
        let (result, (reason, message)) = match behavior {
            None => limit_default(&b),
            Some(behavior) => self.limit(behavior, &b, now),
        };
        (result, able, (result != stable, reason, message))
    }

    fn remember(&mut self, desired: i32, keep: Duration, now: Timestamp) {
        self.recommended.retain(|(at, _)| since(*at, now) <= keep);
        self.recommended.push((now, desired));
    }

    fn stabilize_default(&mut self, desired: i32, now: Timestamp) -> (i32, Said) {
        let recent = self.recommended.iter().filter(|(at, _)| since(*at, now) <= DOWNSCALE_WINDOW).map(|(_, n)| *n);
        let stable = recent.fold(desired, i32::max);
        self.remember(desired, DOWNSCALE_WINDOW, now);
        (stable, DOWN_STABILIZED)
    }

    fn stabilize(&mut self, behavior: &HorizontalPodAutoscalerBehavior, b: &Bounds, now: Timestamp) -> (i32, Said) {
        let up = window(behavior.scale_up.as_ref(), Duration::ZERO);
        let down = window(behavior.scale_down.as_ref(), DOWNSCALE_WINDOW);
        let recent =
            |window: Duration| self.recommended.iter().filter(move |(at, _)| since(*at, now) < window).map(|(_, n)| *n);
        let lowest = recent(up).fold(b.desired, i32::min);
        let highest = recent(down).fold(b.desired, i32::max);
        let stable = b.current.max(lowest).min(highest);
        self.remember(b.desired, up.max(down), now);
        (stable, if b.desired >= b.current { UP_STABILIZED } else { DOWN_STABILIZED })
    }

    fn limit(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        b: &Bounds,
        now: Timestamp,
    ) -> (i32, (&'static str, &'static str)) {
        if b.desired > b.current {
            let limit = self.rate(behavior.scale_up.as_ref(), b.current, true, now).max(b.current);
            let (most, why) = if b.max > limit { (limit, UP_LIMIT) } else { (b.max, TOO_MANY) };
            if b.desired > most {
                return (most, why);
            }
        } else if b.desired < b.current {
            let limit = self.rate(behavior.scale_down.as_ref(), b.current, false, now).min(b.current);
            let (least, why) = if b.min < limit { (limit, DOWN_LIMIT) } else { (b.min, TOO_FEW) };
            if b.desired < least {
                return (least, why);
            }
        }
        (b.desired, WITHIN)
    }

    /// How far the policies let the number go.
    fn rate(&self, rules: Option<&HPAScalingRules>, current: i32, up: bool, now: Timestamp) -> i32 {
        let Some(rules) = rules else { return if up { i32::MAX } else { 0 } };
        let select = rules.select_policy.as_deref().unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let changed = |events: &[(Timestamp, i32)], period: Duration| -> i32 {
            events.iter().filter(|(at, _)| since(*at, now) < period).map(|(_, n)| *n).fold(0, i32::saturating_add)
        };
        let proposals = rules.policies.iter().flatten().map(|p| {
            let period = Duration::from_secs(u64::try_from(p.period_seconds).unwrap_or(0));
            let start = current.saturating_sub(changed(&self.ups, period)).saturating_add(changed(&self.downs, period));
            let percent = f64::from(p.value) / 100.0;
            #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
            match (p.type_.as_str(), up) {
                ("Pods", true) => start.saturating_add(p.value),
                ("Pods", false) => start.saturating_sub(p.value),
                // Rounded up, or a small number would never grow.
                (_, true) => (f64::from(start) * (1.0 + percent)).ceil() as i32,
                (_, false) => (f64::from(start) * (1.0 - percent)) as i32,
            }
        });
        // The larger change: the largest number upwards, the smallest downwards.
        if (select == "Min") == up { proposals.min() } else { proposals.max() }.unwrap_or(current)
    }
}

const UP_STABILIZED: Said = (
    true,
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: Said = (
    true,
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);

/// Without a behavior: to twice the number at once, and to four at least.
fn limit_default(b: &Bounds) -> (i32, (&'static str, &'static str)) {
    let limit = b.current.saturating_mul(2).max(4);
    let (most, why) = if b.max > limit { (limit, UP_LIMIT) } else { (b.max, TOO_MANY) };
    if b.desired < b.min {
        (b.min, TOO_FEW)
    } else if b.desired > most {
        (most, why)
    } else {
        (b.desired, WITHIN)
    }
}
