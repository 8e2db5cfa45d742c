//! Lifecycle hooks.

use crate::probes::http::{Get, connect, port};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use pintle_runtime::Runtime;
use std::time::Duration;

/// A hook by HTTP gets no limit of its own; this keeps a dead server from holding it for ever.
const HTTP_LIMIT: Duration = Duration::from_secs(3600);

/// Runs a hook to its end.
///
/// # Errors
/// Why it failed, in upstream's words.
pub async fn run(
    runtime: &dyn Runtime,
    id: &str,
    c: &Container,
    pod: &str,
    pod_ip: &str,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        let command = action.command.clone().unwrap_or_default();
        let shown = format!("[{}]", command.join(" "));
        let fail = |e: String, out: String| {
            format!(
                "Exec lifecycle hook ({shown}) for Container {:?} in Pod {pod:?} failed - error: {e}, message: {out:?}",
                c.name
            )
        };
        return match runtime.exec_sync(id, &command, Duration::ZERO).await {
            Ok(out) if out.exit_code == 0 => Ok(()),
            Ok(out) => {
                let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
                Err(fail(format!("command '{}' exited with {}: {text}", command.join(" "), out.exit_code), text))
            }
            Err(e) => Err(fail(e.to_string(), String::new())),
        };
    }
    if let Some(action) = &hook.http_get {
        let path = action.path.as_deref().unwrap_or_default();
        let fail = |e: String| {
            format!("HTTP lifecycle hook ({path}) for Container {:?} in Pod {pod:?} failed - error: {e}", c.name)
        };
        let response = Get::of(action, c, pod_ip).map_err(fail)?.send(HTTP_LIMIT).await.map_err(fail)?;
        return if response.status < 400 { Ok(()) } else { Err(fail(format!("status code {}", response.status))) };
    }
    if let Some(action) = &hook.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        return connect(host, port(&action.port, c)?).await.map(drop);
    }
    if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(format!("invalid handler: {hook:?}"))
}
