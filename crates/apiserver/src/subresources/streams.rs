//! `pods/log`, `exec`, `attach` and `portforward`: passed on to the kubelet of the pod's node.

use std::future::ready;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use http::Response;
use http_body_util::BodyExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pintle_api::Status;
use pintle_api::service::{Body, full};
use serde_json::Value;

use super::kubelet::{Target, wants_upgrade};
use crate::Server;
use crate::admission::{Attributes, Operation};
use crate::http::context::Ctx;
use crate::http::query::Query;
use crate::http::{respond, websocket};
use crate::registry::Res;

/// What a query leaves as it is.
const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The most that is read of why a kubelet has no log to give.
const REFUSAL: usize = 50_000;

async fn beginning(mut body: Body) -> String {
    let mut text = Vec::new();
    while text.len() < REFUSAL
        && let Some(Ok(frame)) = body.frame().await
    {
        text.extend(frame.into_data().unwrap_or_default());
    }
    text.truncate(REFUSAL);
    String::from_utf8_lossy(&text).into_owned()
}

/// What a kubelet answered that gave no log, told as clients know failures.
fn refusal(code: u16, text: &str, pod: &str) -> Status {
    let told = |reason, message: String| {
        Status::failure(code, reason, format!("{message} ( pods/log {pod})")).about("", "pods/log", pod).cause(
            "UnexpectedServerResponse",
            text,
            "",
        )
    };
    match code {
        400 => Status::bad_request(text),
        500 => Status::internal(text),
        401 => told("Unauthorized", "the server has asked for the client to provide credentials".into()),
        403 => told("Forbidden", text.into()),
        404 => told("NotFound", "the server could not find the requested resource".into()),
        501.. => told(
            "InternalError",
            format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        ),
        _ => told("", "the server responded with the status code but did not return more information".into()),
    }
}

fn param(out: &mut String, key: &str, value: &str) {
    out.push(if out.is_empty() { '?' } else { '&' });
    out.push_str(key);
    out.push('=');
    out.extend(utf8_percent_encode(value, KEEP));
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod.pointer(&format!("/spec/{list}"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect()
}

/// The container meant: the one named, or the only one.
fn container(pod: &Value, asked: &str, name: &str) -> Result<String, Status> {
    let main = names(pod, "containers");
    let init = names(pod, "initContainers");
    let ephemeral = names(pod, "ephemeralContainers");
    if !asked.is_empty() {
        let known = [&main, &init, &ephemeral].iter().any(|l| l.contains(&asked));
        if !known {
            return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")));
        }
        return Ok(asked.to_owned());
    }
    match main.as_slice() {
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        [one] => Ok((*one).to_owned()),
        many => {
            let mut text =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            if !init.is_empty() {
                text = format!("{text} or one of the init containers: [{}]", init.join(" "));
            }
            Err(Status::bad_request(text))
        }
    }
}

/// The options of a log request, checked and as the kubelet takes them.
fn log_query(q: &Query, pod: &str) -> Result<String, Status> {
    use pintle_schema::errors::Errors;
    let bad = Status::bad_request;
    let mut errors = Errors::new();
    let mut out = String::new();
    let stream = q.non_empty("stream");
    let tail = q.integer("tailLines").map_err(bad)?;
    if tail.is_some_and(|n| n < 0) {
        errors.invalid_value("tailLines", tail.unwrap_or_default(), "must be greater than or equal to 0");
    }
    let limit = q.integer("limitBytes").map_err(bad)?;
    if limit.is_some_and(|n| n < 1) {
        errors.invalid_value("limitBytes", limit.unwrap_or_default(), "must be greater than 0");
    }
    let seconds = q.integer("sinceSeconds").map_err(bad)?;
    let since = q.non_empty("sinceTime");
    if seconds.is_some() && since.is_some() {
        errors.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified");
    } else if seconds.is_some_and(|n| n < 1) {
        errors.invalid_value("sinceSeconds", seconds.unwrap_or_default(), "must be greater than 0");
    }
    if let Some(s) = stream
        && !matches!(s, "All" | "Stdout" | "Stderr")
    {
        errors.not_supported("stream", s, &["All", "Stderr", "Stdout"]);
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod, crate::registry::options::causes(&errors)));
    }
    for key in ["follow", "previous", "timestamps"] {
        if q.flag(key) == Some(true) {
            param(&mut out, key, "true");
        }
    }
    for (key, v) in [("tailLines", tail), ("limitBytes", limit), ("sinceSeconds", seconds)] {
        if let Some(v) = v {
            param(&mut out, key, &v.to_string());
        }
    }
    if let Some(t) = since {
        let t =
            pintle_api::time::parse(t).ok_or_else(|| Status::bad_request(format!("sinceTime: cannot parse {t:?}")))?;
        param(&mut out, "sinceTime", &pintle_api::time::format(t));
    }
    if let Some(s) = stream.filter(|s| *s != "All") {
        param(&mut out, "stream", s);
    }
    Ok(out)
}

/// The query of exec and attach as the kubelet takes it.
fn exec_query(q: &Query, exec: bool) -> Result<String, Status> {
    let on = |key: &str| q.flag(key) == Some(true);
    let mut out = String::new();
    if !(on("stdin") || on("stdout") || on("stderr")) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    if on("tty") && on("stderr") {
        return Err(Status::bad_request("tty and stderr cannot both be true"));
    }
    for (key, sent) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if on(key) {
            param(&mut out, sent, "1");
        }
    }
    if exec {
        if q.all("command").next().is_none() {
            return Err(Status::bad_request("you must specify a command"));
        }
        for c in q.all("command") {
            param(&mut out, "command", c);
        }
    }
    Ok(out)
}

/// Sends a log as WebSocket messages: as they are, or in base64 for a client that asks for `base64.binary.k8s.io`. The
/// first message is empty, so that the client knows at once that it is connected.
fn log_messages(ctx: &Ctx, answer: Response<Body>) -> Result<Response<Body>, Status> {
    let base64 = websocket::protocols(&ctx.headers).next() == Some("base64.binary.k8s.io");
    let chunks = answer.into_body().into_data_stream().take_while(|chunk| ready(chunk.is_ok()));
    let frames = chunks
        .filter_map(|chunk| ready(chunk.ok()))
        .map(move |chunk| if base64 { STANDARD.encode(&chunk).into() } else { chunk });
    let frames = futures::stream::once(ready(bytes::Bytes::new())).chain(frames);
    websocket::serve(ctx, "text/plain", base64, frames)
}

impl Server {
    async fn pod(&self, ctx: &Ctx, res: &Res) -> Result<Value, Status> {
        let name = &ctx.info.name;
        let object = res.objects()?.get(&ctx.info.namespace, name).await?.ok_or_else(|| res.not_found(name))?;
        object.view().map_err(Status::internal)
    }

    /// Admission of a connection.
    async fn admit_connect(&self, ctx: &Ctx, res: &Res) -> Result<(), Status> {
        let a = Attributes {
            ctx,
            res,
            subresource: &ctx.info.subresource,
            operation: Operation::Connect,
            namespace: &ctx.info.namespace,
            name: &ctx.info.name,
            old: None,
            dry_run: false,
        };
        let mut options = Value::Null;
        self.admission.admit(self, &a, &mut options).await?;
        self.admission.validate(self, &a, &options).await
    }

    /// `pods/log`.
    ///
    /// # Errors
    /// 400 for a container that is not there, 404 for the pod.
    pub(crate) async fn logs(self: &Arc<Self>, ctx: &Ctx, res: &Arc<Res>) -> Result<Response<Body>, Status> {
        let pod = self.pod(ctx, res).await?;
        let name = &ctx.info.name;
        let query = log_query(&ctx.query, name)?;
        let container = container(&pod, ctx.query.get("container").unwrap_or_default(), name)?;
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
        if node.is_empty() {
            // Nothing was logged by a pod that never ran.
            return Ok(respond::bytes(200, "text/plain", ""));
        }
        let (host, port) = self.kubelet_of(node).await?;
        let path = format!("/containerLogs/{}/{name}/{container}{query}", ctx.info.namespace);
        let target = Target { host, port, tls: true, kubelet: true, path };
        let answer = self.forward(ctx, &target, full(bytes::Bytes::new())).await?;
        if !answer.status().is_success() {
            let code = answer.status().as_u16();
            return Err(refusal(code, &beginning(answer.into_body()).await, name));
        }
        if websocket::wanted(ctx) { log_messages(ctx, answer) } else { Ok(answer) }
    }

    /// `exec`, `attach` and `portforward`.
    ///
    /// # Errors
    /// 400 for options that make no sense or a request that does not switch protocols.
    pub(crate) async fn stream(self: &Arc<Self>, ctx: &Ctx, res: &Arc<Res>) -> Result<Response<Body>, Status> {
        let pod = self.pod(ctx, res).await?;
        let name = &ctx.info.name;
        let namespace = &ctx.info.namespace;
        let sub = ctx.info.subresource.as_str();
        self.admit_connect(ctx, res).await?;
        let path = if sub == "portforward" {
            let mut query = String::new();
            for p in ctx.query.all("ports").flat_map(|p| p.split(',')).filter(|p| !p.is_empty()) {
                param(&mut query, "port", p);
            }
            format!("/portForward/{namespace}/{name}{query}")
        } else {
            let query = exec_query(&ctx.query, sub == "exec")?;
            let container = container(&pod, ctx.query.get("container").unwrap_or_default(), name)?;
            format!("/{sub}/{namespace}/{name}/{container}{query}")
        };
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        if !wants_upgrade(ctx) {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let (host, port) = self.kubelet_of(node).await?;
        let target = Target { host, port, tls: true, kubelet: true, path };
        self.forward(ctx, &target, full(bytes::Bytes::new())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn chooses_containers() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, "i", "p").unwrap(), "i");
        assert_eq!(container(&pod, "x", "p").unwrap_err().message, "container x is not valid for pod p");
        assert_eq!(
            container(&pod, "", "p").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&json!({"spec": {"containers": [{"name": "a"}]}}), "", "p").unwrap(), "a");
    }

    #[test]
    fn refusals_are_told_as_statuses() {
        for (code, reason, message) in [
            (400, "BadRequest", "container \"c\" in pod \"p\" is waiting to start: CreateContainerConfigError"),
            (
                500,
                "InternalError",
                "Internal error occurred: container \"c\" in pod \"p\" is waiting to start: CreateContainerConfigError",
            ),
            (404, "NotFound", "the server could not find the requested resource ( pods/log p)"),
        ] {
            let text = "container \"c\" in pod \"p\" is waiting to start: CreateContainerConfigError";
            let s = refusal(code, text, "p");
            assert_eq!((s.code, s.reason.as_str(), s.message.as_str()), (code, reason, message));
        }
    }

    #[test]
    fn translates_queries() {
        let q = |s: &str| Query::parse(Some(s));
        assert_eq!(
            exec_query(&q("stdin=true&stdout=1&tty=true&command=sh&command=-c&command=a%20b"), true).unwrap(),
            "?input=1&output=1&tty=1&command=sh&command=-c&command=a%20b"
        );
        assert!(exec_query(&q("command=sh"), true).is_err());
        assert!(exec_query(&q("stdin=1"), true).is_err());
        assert_eq!(exec_query(&q("stdout=1"), false).unwrap(), "?output=1");
        assert_eq!(
            log_query(&q("follow=true&tailLines=5&sinceTime=2024-01-01T01:00:00%2B01:00&container=x"), "p").unwrap(),
            "?follow=true&tailLines=5&sinceTime=2024-01-01T00%3A00%3A00Z"
        );
        assert_eq!(log_query(&q("tailLines=-1"), "p").unwrap_err().code, 422);
        assert_eq!(log_query(&q("sinceSeconds=0"), "p").unwrap_err().code, 422);
    }
}
