//! Links, addresses, routes and neighbours of one network namespace, by rtnetlink.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};

use crate::addr::Net;
use crate::netns::NetNs;

/// Who made a route, as the kernel records it; routes of ours are found again by it.
const ROUTE_OWNER: RouteProtocol = RouteProtocol::Other(0x70);

/// The routing table of the node's own addresses.
const LOCAL_TABLE: u8 = 255;

/// How long a new link may take to run.
const RUNNING: Duration = Duration::from_secs(5);

/// The index of the loopback link in every namespace.
pub const LOOPBACK: u32 = 1;

/// A request the kernel refused, with what was wanted.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    what: String,
    source: io::Error,
}

impl Error {
    fn new(what: impl fmt::Display, err: rtnetlink::Error) -> Self {
        let source = match err {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        Self { what: what.to_string(), source }
    }

    fn is(&self, errno: i32) -> bool {
        self.source.raw_os_error() == Some(errno)
    }

    /// Whether the object exists already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.is(libc::EEXIST)
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.is(libc::ENODEV) || self.is(libc::ESRCH) || self.is(libc::ENOENT) || self.is(libc::EADDRNOTAVAIL)
    }
}

trait Explain<T> {
    fn explain(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Explain<T> for Result<T, rtnetlink::Error> {
    fn explain(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|err| Error::new(what(), err))
    }
}

/// A veth pair to make: one end here, the other in a pod.
#[derive(Debug)]
pub struct VethPair<'a> {
    /// The name here.
    pub name: &'a str,
    /// The hardware address here.
    pub mac: [u8; 6],
    /// The name in the pod.
    pub peer: &'a str,
    /// The hardware address in the pod.
    pub peer_mac: [u8; 6],
    /// The index in the pod.
    pub peer_index: u32,
    /// The namespace of the pod.
    pub peer_ns: BorrowedFd<'a>,
    /// The largest packet.
    pub mtu: u32,
    /// What the end here is for, kept as its alias.
    pub alias: &'a str,
}

/// What is known of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias; empty when it has none.
    pub alias: String,
    /// Its largest packet.
    pub mtu: u32,
    /// Whether it passes packets: it is up, and so is its other end.
    pub running: bool,
}

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let running = message.header.flags.contains(LinkFlags::Running);
        let mut link = Self { index: message.header.index, name: String::new(), alias: String::new(), mtu: 0, running };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                _ => {}
            }
        }
        link
    }
}

/// A session with the routing part of one namespace's kernel.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Links {
    /// Opens a session in a namespace; must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the socket is refused.
    pub fn open(ns: &NetNs) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        // The socket belongs to the namespace of the thread that opens it, wherever it is used from later.
        let (connection, handle, _) = ns.run(|| {
            let _inside = runtime.enter();
            rtnetlink::new_connection()
        })??;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// Makes a veth pair, the end here up; the kernel cannot bring up the other before both exist.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_veth(&self, pair: &VethPair<'_>) -> Result<(), Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.peer)
            .index(pair.peer_index)
            .address(pair.peer_mac.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(pair.peer_ns.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new(pair.name, pair.peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(pair.mac.to_vec())
            .mtu(pair.mtu)
            .alias(pair.alias)
            .up()
            .build();
        self.handle.link().add(message).execute().await.explain(|| format!("making the veth pair {}", pair.name))
    }

    /// Makes a VXLAN link, up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_vxlan(
        &self,
        name: &str,
        vni: u32,
        port: u16,
        local: IpAddr,
        mac: [u8; 6],
        mtu: u32,
    ) -> Result<(), Error> {
        let builder = LinkVxlan::new(name, vni).port(port).learning(false);
        let builder = match local {
            IpAddr::V4(ip) => builder.local(ip),
            IpAddr::V6(ip) => builder.local6(ip),
        };
        let message = builder.address(mac.to_vec()).mtu(mtu).up().build();
        self.handle.link().add(message).execute().await.explain(|| format!("making the VXLAN link {name}"))
    }

    /// The link of a name.
    ///
    /// # Errors
    /// When it does not exist or the kernel refuses.
    pub async fn by_name(&self, name: &str) -> Result<Link, Error> {
        let mut found = self.handle.link().get().match_name(name).execute();
        let message = found.try_next().await.explain(|| format!("finding the link {name}"))?;
        message.as_ref().map(Link::of).ok_or_else(|| Error {
            what: format!("finding the link {name}"),
            source: io::Error::from_raw_os_error(libc::ENODEV),
        })
    }

    /// The link of a name once it passes packets. After both ends of a pair are up the kernel takes a moment to notice, and
    /// drops what is sent meanwhile; asking makes newer kernels notice at once.
    ///
    /// # Errors
    /// When the link does not exist, the kernel refuses, or it does not run after a while.
    pub async fn running(&self, name: &str) -> Result<Link, Error> {
        let deadline = tokio::time::Instant::now() + RUNNING;
        loop {
            let link = self.by_name(name).await?;
            if link.running {
                return Ok(link);
            }
            if tokio::time::Instant::now() >= deadline {
                let source = io::ErrorKind::TimedOut.into();
                return Err(Error { what: format!("waiting for the link {name} to run"), source });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// All links.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn all(&self) -> Result<Vec<Link>, Error> {
        let found: Vec<_> =
            self.handle.link().get().execute().try_collect().await.explain(|| "listing links".into())?;
        Ok(found.iter().map(Link::of).collect())
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.explain(|| format!("bringing up link {index}"))
    }

    /// Deletes a link; that it is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_name(name).build();
        match self
            .handle
            .link()
            .del_with_message(message)
            .execute()
            .await
            .explain(|| format!("deleting the link {name}"))
        {
            Err(err) if !err.is_absent() => Err(err),
            _ => Ok(()),
        }
    }

    /// Gives a link an address of its own, usable at once; that it has it already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_address(&self, index: u32, ip: IpAddr) -> Result<(), Error> {
        let prefix = Net::single(ip).prefix();
        let mut request = self.handle.address().add(index, ip, prefix);
        if ip.is_ipv6() {
            // Nobody else can hold it, so duplicate address detection would only delay the pod.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        match request.execute().await.explain(|| format!("adding the address {ip}")) {
            Err(err) if !err.is_exists() => Err(err),
            _ => Ok(()),
        }
    }

    /// The addresses of every link but loopback, with the link's index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>, Error> {
        let found: Vec<_> =
            self.handle.address().get().execute().try_collect().await.explain(|| "listing addresses".into())?;
        let address = |attributes: &[AddressAttribute]| {
            let local =
                attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
            local.or_else(|| {
                attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None })
            })
        };
        Ok(found
            .iter()
            .filter(|message| message.header.index != LOOPBACK)
            .filter_map(|message| Some((message.header.index, address(&message.attributes)?)))
            .collect())
    }

    /// Adds or replaces a route.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_route(&self, route: &Route) -> Result<(), Error> {
        self.handle
            .route()
            .add(route.message())
            .replace()
            .execute()
            .await
            .explain(|| format!("adding the route {route}"))
    }

    /// Deletes a route; that it is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        match self.handle.route().del(route.message()).execute().await.explain(|| format!("deleting the route {route}"))
        {
            Err(err) if !err.is_absent() => Err(err),
            _ => Ok(()),
        }
    }

    /// Makes an address the node's own without giving it to any link, so that it is never chosen as a source.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_local(&self, ip: IpAddr) -> Result<(), Error> {
        let mut message = Route { to: Net::single(ip), via: None, index: LOOPBACK, source: None }.message();
        message.header.table = LOCAL_TABLE;
        message.header.kind = RouteType::Local;
        message.header.scope = if ip.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
        self.handle.route().add(message).replace().execute().await.explain(|| format!("taking the address {ip}"))
    }

    /// Deletes every address taken by `add_local`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_locals(&self) -> Result<(), Error> {
        self.delete_own(|route| route.header.kind == RouteType::Local).await
    }

    /// Deletes every route of ours to somewhere else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_own_routes(&self) -> Result<(), Error> {
        self.delete_own(|route| route.header.kind != RouteType::Local).await
    }

    async fn delete_own(&self, which: impl Fn(&RouteMessage) -> bool) -> Result<(), Error> {
        for any in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()] {
            let all: Vec<_> =
                self.handle.route().get(any).execute().try_collect().await.explain(|| "listing routes".into())?;
            for route in all.into_iter().filter(|route| route.header.protocol == ROUTE_OWNER && which(route)) {
                match self.handle.route().del(route).execute().await.explain(|| "deleting a route".into()) {
                    Err(err) if !err.is_absent() => return Err(err),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Tells which hardware address a neighbour has, for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_neighbour(&self, index: u32, ip: IpAddr, mac: [u8; 6]) -> Result<(), Error> {
        let request = self.handle.neighbours().add(index, ip).link_layer_address(&mac).replace();
        request.execute().await.explain(|| format!("adding the neighbour {ip}"))
    }

    /// Tells behind which host a VXLAN hardware address is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_forwarding(&self, index: u32, mac: [u8; 6], behind: IpAddr) -> Result<(), Error> {
        use rtnetlink::packet_route::neighbour::NeighbourFlags;
        let request =
            self.handle.neighbours().add_bridge(index, &mac).destination(behind).flags(NeighbourFlags::Own).replace();
        request.execute().await.explain(|| format!("adding the tunnel to {behind}"))
    }
}

/// A route out of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to.
    pub to: Net,
    /// The next hop; without one the destination is on the link itself.
    pub via: Option<IpAddr>,
    /// The link.
    pub index: u32,
    /// The source address to prefer.
    pub source: Option<IpAddr>,
}

impl Route {
    fn message(&self) -> RouteMessage {
        // The builders differ only in the type of address.
        macro_rules! build {
            ($to:expr, $family:ty, $variant:path) => {{
                let mut builder =
                    RouteMessageBuilder::<$family>::new().output_interface(self.index).protocol(ROUTE_OWNER);
                if self.to.prefix() > 0 {
                    builder = builder.destination_prefix($to, self.to.prefix());
                }
                match self.via {
                    Some($variant(via)) => builder = builder.gateway(via).onlink(),
                    _ => builder = builder.scope(RouteScope::Link),
                }
                if let Some($variant(source)) = self.source {
                    builder = builder.pref_source(source);
                }
                builder.build()
            }};
        }
        match self.to.first() {
            IpAddr::V4(to) => build!(to, Ipv4Addr, IpAddr::V4),
            IpAddr::V6(to) => build!(to, Ipv6Addr, IpAddr::V6),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}", self.index)
    }
}
