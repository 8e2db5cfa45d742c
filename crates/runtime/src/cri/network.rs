//! What a runtime asks of whoever connects sandboxes to the pod network.

use crate::{PortMapping, Result};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// What the network may know of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSandbox {
    /// The sandbox's identity.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's uid.
    pub uid: String,
    /// The host name inside.
    pub hostname: String,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Ports of the host that lead to the sandbox.
    pub port_mappings: Vec<PortMapping>,
}

/// Connects sandboxes to the pod network. Sandboxes in the host's network are never shown to it.
#[async_trait]
pub trait SandboxNetwork: Send + Sync + 'static {
    /// Connects the network namespace at `netns` and answers its addresses, the primary first. The namespace is new and
    /// its loopback interface is up. After an error, `detach` is called once.
    async fn attach(&self, sandbox: &NetworkSandbox, netns: &Path) -> Result<Vec<IpAddr>>;

    /// Gives back all that `attach` took. The namespace may be gone already; repeated calls are no error.
    async fn detach(&self, sandbox: &NetworkSandbox, netns: Option<&Path>) -> Result<()>;

    /// Tells of a sandbox that lives on from before a restart of this process, so that what is kept in memory about it
    /// can be made again.
    async fn restore(&self, _sandbox: &NetworkSandbox, _netns: &Path, _ips: &[IpAddr]) -> Result<()> {
        Ok(())
    }

    /// `Ok` once pods can be connected; otherwise the reason, for the node's Ready condition.
    async fn ready(&self) -> Result<()> {
        Ok(())
    }
}

/// A pod network that reaches nothing: the sandbox has its loopback interface only. For tests and for single
/// containers started by hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackOnly;

#[async_trait]
impl SandboxNetwork for LoopbackOnly {
    async fn attach(&self, _sandbox: &NetworkSandbox, _netns: &Path) -> Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
    async fn detach(&self, _sandbox: &NetworkSandbox, _netns: Option<&Path>) -> Result<()> {
        Ok(())
    }
}
