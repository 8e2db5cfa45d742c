//! Many calls at once, starting slowly: 1, 2, 4, … so that calls that all fail for the same reason fail once, not a
//! thousand times.

use std::future::Future;
use std::sync::Arc;

use pintle_client::Error;
use tokio::task::JoinSet;

/// Calls under way at once.
const PARALLEL: usize = 64;

/// Calls `call(0..count)` in batches that double. Answers how many succeeded, and the first error; a batch with an
/// error is the last.
pub async fn slow_start<F, R>(count: usize, call: F) -> (usize, Option<Error>)
where
    F: Fn(usize) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    let call = Arc::new(call);
    let (mut next, mut size, mut succeeded) = (0, 1, 0);
    while next < count {
        let end = count.min(next + size);
        let (ok, error) = all(next..end, &call).await;
        succeeded += ok;
        if error.is_some() {
            return (succeeded, error);
        }
        next = end;
        size *= 2;
    }
    (succeeded, None)
}

/// Calls `call` for each number at once. Answers how many succeeded, and the first error.
pub async fn at_once<F, R>(count: usize, call: F) -> (usize, Option<Error>)
where
    F: Fn(usize) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    all(0..count, &Arc::new(call)).await
}

async fn all<F, R>(range: std::ops::Range<usize>, call: &Arc<F>) -> (usize, Option<Error>)
where
    F: Fn(usize) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    if range.len() == 1 {
        return match call(range.start).await {
            Ok(()) => (1, None),
            Err(e) => (0, Some(e)),
        };
    }
    let mut tasks = JoinSet::new();
    let lanes = range.len().min(PARALLEL);
    for lane in 0..lanes {
        let (call, range) = (call.clone(), range.clone());
        tasks.spawn(async move {
            let (mut ok, mut error) = (0, None);
            for i in range.skip(lane).step_by(lanes) {
                match call(i).await {
                    Ok(()) => ok += 1,
                    Err(e) => error = error.or(Some(e)),
                }
            }
            (ok, error)
        });
    }
    let (mut succeeded, mut error) = (0, None);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((ok, e)) => {
                succeeded += ok;
                error = error.or(e);
            }
            Err(e) => error = error.or_else(|| Some(Error::Config(format!("a call failed: {e}")))),
        }
    }
    (succeeded, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn run(count: usize, fail_from: usize) -> (usize, bool, usize) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let (ok, error) = slow_start(count, move |i| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { if i >= fail_from { Err(Error::Config("no".into())) } else { Ok(()) } }
        })
        .await;
        (ok, error.is_some(), calls.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn batches_double_and_stop_at_an_error() {
        assert_eq!(run(0, 0).await, (0, false, 0));
        assert_eq!(run(1000, 5000).await, (1000, false, 1000));
        assert_eq!(run(1000, 0).await, (0, true, 1));
        // 1 + 2 + 4 succeed, of the next eight three.
        assert_eq!(run(1000, 10).await, (10, true, 15));
    }
}
