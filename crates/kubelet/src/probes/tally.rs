//! What a row of answers adds up to. Pure.

use super::{Answer, Kind};
use crate::pod::state::Verdict;
use k8s_openapi::api::core::v1::Probe;

/// Counts answers of one probe of one container.
#[derive(Clone, Debug)]
pub struct Tally {
    kind: Kind,
    failure_threshold: u32,
    success_threshold: u32,
    last: Option<bool>,
    run: u32,
}

/// The probe's verdict before the first answer.
#[must_use]
pub fn initial(kind: Kind) -> Option<Verdict> {
    match kind {
        Kind::Liveness => Some(Verdict::Success),
        Kind::Readiness => Some(Verdict::Failure),
        Kind::Startup => None,
    }
}

impl Tally {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(kind: Kind, probe: &Probe) -> Self {
        let n = |v: Option<i32>, or: u32| v.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(or);
        Self {
            kind,
            failure_threshold: n(probe.failure_threshold, 3),
            success_threshold: n(probe.success_threshold, 1),
            last: None,
            run: 0,
        }
    }

    /// Counts an answer; answers the verdict once enough of the same came in a row.
    pub fn count(&mut self, answer: &Answer) -> Option<Verdict> {
        let ok = match answer {
            Answer::Success | Answer::Warning(_) => true,
            Answer::Failure(_) => false,
            Answer::Error(_) => return None,
        };
        self.run = if self.last == Some(ok) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        let threshold = if ok { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold {
            return None;
        }
        Some(if ok { Verdict::Success } else { Verdict::Failure })
    }

    /// Whether, after this verdict, there is nothing more to ask: the container will be killed, or has started.
    #[must_use]
    pub fn is_over(&self, verdict: Option<Verdict>) -> bool {
        match self.kind {
            Kind::Readiness => false,
            Kind::Liveness => verdict == Some(Verdict::Failure),
            Kind::Startup => verdict.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let probe: Probe = serde_saphyr::from_str("{failureThreshold: 2, successThreshold: 2}").unwrap();
        let check = |answers: &str, want: &str| {
            let mut t = Tally::new(Kind::Readiness, &probe);
            let shown: String = answers
                .chars()
                .map(|a| {
                    let a = match a {
                        's' => Answer::Success,
                        'f' => Answer::Failure(String::new()),
                        _ => Answer::Error(String::new()),
                    };
                    match t.count(&a) {
                        None => '-',
                        Some(Verdict::Success) => 'S',
                        Some(Verdict::Failure) => 'F',
                    }
                })
                .collect();
            assert_eq!(shown, want, "{answers}");
        };
        check("sss", "-SS");
        check("sfsfs", "-----");
        check("fes", "---");
        check("fef", "--F");
        check("ffs", "-F-");
    }
}
