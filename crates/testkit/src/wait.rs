//! Waiting for a condition that only another program's output shows.

use std::time::{Duration, Instant};

/// Tries until `f` answers something, for at most `patience`; what it last said is in the panic of a wait in vain.
///
/// # Panics
/// When it takes too long: the test has failed.
#[expect(clippy::panic, reason = "a test's verdict")]
pub fn until<T>(what: &str, patience: Duration, mut f: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        match f() {
            Ok(value) => return value,
            Err(why) if start.elapsed() > patience => panic!("waited {patience:?} for {what}: {why}"),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}
