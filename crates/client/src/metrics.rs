//! What is counted of requests, under upstream's names.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::RwLock;
use pintle_api::metrics::{Family, Kind, Series, Stability};

static TOTAL: Family = Family::new(
    "rest_client_requests_total",
    Kind::Counter,
    Stability::Alpha,
    &["code", "method", "host"],
    "Number of HTTP requests, partitioned by status code, method, and host.",
);
static DURATION: Family = Family::new(
    "rest_client_request_duration_seconds",
    Kind::Histogram(&[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0]),
    Stability::Alpha,
    &["verb", "host"],
    "Request latency in seconds. Broken down by verb, and host.",
);

/// What is counted of the requests to one host.
pub struct Requests {
    host: Arc<str>,
    /// Found once and then counted on. There are few: one of them is soon found.
    known: RwLock<Vec<Outcome>>,
}

/// The requests of one method that ended one way.
struct Outcome {
    method: Method,
    /// `None` when there was no answer.
    code: Option<StatusCode>,
    total: Arc<Series>,
    duration: Arc<Series>,
}

impl Outcome {
    fn count(&self, took: Duration) {
        self.total.inc();
        self.duration.observe(took.as_secs_f64());
    }
}

impl Requests {
    /// Those to this host.
    pub fn to(host: Arc<str>) -> Arc<Self> {
        Arc::new(Self { host, known: RwLock::default() })
    }

    /// A request ended.
    pub fn ended(&self, method: &Method, code: Option<StatusCode>, took: Duration) {
        if let Some(known) = self.known.read().iter().find(|o| o.code == code && o.method == *method) {
            return known.count(took);
        }
        let text = code.as_ref().map_or("<error>", StatusCode::as_str);
        let new = Outcome {
            method: method.clone(),
            code,
            total: TOTAL.with(&[text, method.as_str(), &self.host]),
            duration: DURATION.with(&[method.as_str(), &self.host]),
        };
        new.count(took);
        // Another may have found the same meanwhile: it counts on the same series.
        self.known.write().push(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_code_and_method() {
        let requests = Requests::to("metrics.test:1".into());
        let check = |code: Option<StatusCode>, text: &str, total: f64, durations: u64| {
            requests.ended(&Method::GET, code, Duration::from_secs(1));
            assert_eq!(TOTAL.with(&[text, "GET", "metrics.test:1"]).value().to_bits(), total.to_bits(), "{text}");
            assert_eq!(DURATION.with(&["GET", "metrics.test:1"]).count(), durations, "{text}");
        };
        check(Some(StatusCode::OK), "200", 1.0, 1);
        check(Some(StatusCode::OK), "200", 2.0, 2);
        check(Some(StatusCode::NOT_FOUND), "404", 1.0, 3);
        check(None, "<error>", 1.0, 4);
        requests.ended(&Method::PUT, Some(StatusCode::OK), Duration::ZERO);
        check(Some(StatusCode::OK), "200", 3.0, 5);
    }
}
