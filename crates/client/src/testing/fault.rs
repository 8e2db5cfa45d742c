//! Faults between a client and an API server.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use http::{Request, Response, StatusCode};
use pintle_api::service::{ApiService, Body, ObjectStream, full};
use pintle_api::status::Status;
use tower::{ServiceExt, service_fn};

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with this failure and never reaches the server.
    Status(Status),
    /// It reaches the server, but its answer is lost: the caller sees a 500.
    LoseAnswer,
    /// It is never answered.
    Hang,
    /// It is answered late.
    Delay(Duration),
    /// A watch ends after this many events.
    DropWatch(usize),
}

/// Decides what goes wrong with a request, if anything.
pub type Faults = Arc<dyn Fn(&Request<Body>) -> Option<Fault> + Send + Sync>;

/// The same service with faults.
#[must_use]
pub fn with_faults(service: ApiService, faults: Faults) -> ApiService {
    ApiService::new(service_fn(move |request: Request<Body>| {
        let fault = faults(&request);
        let call = service.clone().oneshot(request).boxed();
        async move {
            match fault {
                None => call.await,
                Some(Fault::Status(s)) => Ok(answer(&s)),
                Some(Fault::LoseAnswer) => {
                    call.await?;
                    Ok(answer(&Status::internal("the answer was lost")))
                }
                Some(Fault::Hang) => std::future::pending().await,
                Some(Fault::Delay(d)) => {
                    tokio::time::sleep(d).await;
                    call.await
                }
                Some(Fault::DropWatch(n)) => {
                    let mut response = call.await?;
                    if let Some(events) = response.extensions_mut().remove::<ObjectStream>().and_then(|s| s.take()) {
                        response.extensions_mut().insert(ObjectStream::new(events.take(n).boxed()));
                    }
                    Ok(response)
                }
            }
        }
    }))
}

/// A failure as an HTTP answer.
pub(super) fn answer(status: &Status) -> Response<Body> {
    let mut response = Response::new(full(status.to_json()));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    response
}
