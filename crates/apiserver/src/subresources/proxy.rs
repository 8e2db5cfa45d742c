//! `proxy` of nodes, pods and services: any HTTP request, sent on.

use std::sync::Arc;

use http::Response;
use http::header::{HOST, HeaderValue, LOCATION};
use pintle_api::Status;
use pintle_api::service::Body;
use rand::RngExt;
use serde_json::Value;

use super::kubelet::Target;
use super::rewrite::Rewrite;
use crate::Server;
use crate::http::context::Ctx;
use crate::registry::Res;

/// `[scheme:]name[:port]`.
fn split(id: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    match *parts.as_slice() {
        [name] => Some(("", name, "")),
        [name, port] => Some(("", name, port)),
        [scheme, name, port] if matches!(scheme, "" | "http" | "https") => Some((scheme, name, port)),
        _ => None,
    }
    .filter(|(_, name, _)| !name.is_empty())
}

impl Server {
    /// Sends a request on to a node, pod or service.
    ///
    /// # Errors
    /// 400 for a name or port that makes no sense, 404, 503 when nobody answers.
    pub(crate) async fn proxy(
        self: &Arc<Self>,
        ctx: &Ctx,
        res: &Arc<Res>,
        body: &mut Body,
    ) -> Result<Response<Body>, Status> {
        let resource = res.def.resource;
        let id = ctx.info.name.as_str();
        let kind = if resource == "services" { "service" } else { "pod" };
        let Some((scheme, name, port)) = split(id) else {
            return Err(Status::bad_request(format!("invalid {kind} request {id:?}")));
        };
        let mut path = ctx.info.trailing(&ctx.raw_path).to_owned();
        let prefix = ctx.raw_path.strip_suffix(&*path).unwrap_or(&ctx.raw_path).to_owned();
        // Upstream sends a browser to the directory, so that its relative links work.
        if path.is_empty() && matches!(ctx.method, http::Method::GET | http::Method::HEAD) {
            let mut r = crate::http::respond::bytes(301, "text/html; charset=utf-8", "");
            let query = ctx.raw_query.as_deref().map(|q| format!("?{q}")).unwrap_or_default();
            if let Ok(v) = HeaderValue::from_str(&format!("{}/{query}", ctx.raw_path)) {
                r.headers_mut().insert(LOCATION, v);
            }
            return Ok(r);
        }
        if path.is_empty() {
            path.push('/');
        }
        if let Some(q) = &ctx.raw_query {
            path.push('?');
            path.push_str(q);
        }
        let target = match resource {
            "nodes" => {
                let (host, kubelet_port) = self.kubelet_of(name).await?;
                match port.parse() {
                    Ok(p) if p != kubelet_port => {
                        Target { host, port: p, tls: scheme == "https", kubelet: false, path }
                    }
                    _ => Target { host, port: kubelet_port, tls: true, kubelet: true, path },
                }
            }
            "pods" => {
                let (host, port) = self.pod_address(res, &ctx.info.namespace, name, port).await?;
                Target { host, port, tls: scheme == "https", kubelet: false, path }
            }
            _ => {
                let (host, port) = self.service_endpoint(res, &ctx.info.namespace, name, port).await?;
                Target { host, port, tls: scheme == "https", kubelet: false, path }
            }
        };
        let answer = self.forward(ctx, &target, std::mem::take(body)).await?;
        let requested = ctx.headers.get(HOST).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let rewrite = Rewrite { prefix, source: format!("{}:{}", target.host, target.port), requested };
        rewrite.answer(answer).await
    }

    async fn pod_address(&self, res: &Res, namespace: &str, name: &str, port: &str) -> Result<(String, u16), Status> {
        let object = res.objects()?.get(namespace, name).await?.ok_or_else(|| res.not_found(name))?;
        let pod: Value = object.view().map_err(Status::internal)?;
        let ports = || {
            pod.pointer("/spec/containers")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .flat_map(|c| c["ports"].as_array().into_iter().flatten())
        };
        let number = |p: &Value| p["containerPort"].as_u64().and_then(|n| u16::try_from(n).ok());
        let port = if port.is_empty() {
            // The first port of the first container that has one.
            ports().find_map(number).unwrap_or(80)
        } else {
            match port.parse() {
                Ok(n) => n,
                Err(_) => ports()
                    .find(|p| p["name"] == port)
                    .and_then(number)
                    .ok_or_else(|| Status::bad_request(format!("invalid pod request \"{name}:{port}\"")))?,
            }
        };
        let ip = pod.pointer("/status/podIP").and_then(Value::as_str).filter(|ip| !ip.is_empty());
        let ip = ip.ok_or_else(|| Status::bad_request("address not allowed"))?;
        Ok((ip.to_owned(), port))
    }

    async fn service_endpoint(
        &self,
        res: &Res,
        namespace: &str,
        name: &str,
        port: &str,
    ) -> Result<(String, u16), Status> {
        let object = res.objects()?.get(namespace, name).await?.ok_or_else(|| res.not_found(name))?;
        let service: Value = object.view().map_err(Status::internal)?;
        let ports = service.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
        let wanted = match ports.as_slice() {
            // The only port needs no name.
            [only] if port.is_empty() => only["name"].as_str().unwrap_or_default().to_owned(),
            all => match port.parse::<u64>() {
                Ok(n) => all
                    .iter()
                    .find(|p| p["port"].as_u64() == Some(n))
                    .map(|p| p["name"].as_str().unwrap_or_default().to_owned())
                    .ok_or_else(|| Status::unavailable(format!("no service port {n} found for service {name:?}")))?,
                Err(_) => port.to_owned(),
            },
        };
        let unavailable = || {
            Status::unavailable(format!("no endpoints available for service {}", pintle_schema::quote::quoted(name)))
        };
        let slices = self.registry.must("discovery.k8s.io", "v1", "endpointslices")?.objects()?.fresh().await?;
        let mut found: Vec<(String, u16)> = Vec::new();
        for slice in slices.iter(namespace).filter(|s| s.label("kubernetes.io/service-name") == Some(name)) {
            let slice: Value = slice.view().map_err(Status::internal)?;
            let matching = slice["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|p| p["name"].as_str().unwrap_or_default() == wanted)
                .and_then(|p| p["port"].as_u64())
                .and_then(|p| u16::try_from(p).ok());
            let Some(port) = matching else { continue };
            for e in slice["endpoints"].as_array().into_iter().flatten() {
                if e.pointer("/conditions/ready").and_then(Value::as_bool) == Some(false) {
                    continue;
                }
                let addresses = e["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
                found.extend(addresses.take(1).map(|a| (a.to_owned(), port)));
            }
        }
        if found.is_empty() {
            return Err(unavailable());
        }
        let chosen = rand::rng().random_range(0..found.len());
        Ok(found.swap_remove(chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for (id, want) in [
            ("a", Some(("", "a", ""))),
            ("a:80", Some(("", "a", "80"))),
            ("https:a:x", Some(("https", "a", "x"))),
            (":a:x", Some(("", "a", "x"))),
            ("ftp:a:x", None),
            ("", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(split(id), want, "{id}");
        }
    }
}
