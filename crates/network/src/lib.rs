//! Pod network, service proxy, network policy and cluster DNS of one node.
//!
//! Four parts, each usable without the others: [`podnet`] gives pods their links and addresses, [`proxy`] makes the
//! addresses of Services lead to endpoints, [`policy`] lets pass what NetworkPolicies allow, and [`dns`] answers names.
//! The last three are told of objects by shared informers and decide purely (`decide`, `Zone::answer`); what they decide
//! is compared with what is installed, and the difference is sent to the kernel in one batch. All rules are nftables
//! written by [`nft`] over netlink, in tables of our own (`pintle-podnet`, `pintle-proxy`, `pintle-policy`, `pintle-dns`).
//! [`preflight`] names what the kernel lacks, [`hindrances`] what is in the way, [`cleanup_all`] leaves no trace.

pub mod addr;
mod check;
pub mod dns;
mod follow;
mod links;
pub mod netns;
pub mod nft;
mod nl;
pub mod podnet;
pub mod policy;
pub mod proxy;
mod sysctl;
pub use check::{cleanup_all, hindrances, preflight};

#[cfg(test)]
mod testnet;
#[cfg(test)]
mod tests;
pub mod views;

/// Deletes a table of rules; that it is not there is no error.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn delete_table(nft: &mut nft::Nft, table: nft::Table) -> Result<(), nft::Error> {
    let mut batch = nft::Batch::new();
    batch.delete_table(table);
    match nft.apply(batch) {
        Err(err) if !err.is_not_found() => Err(err),
        _ => Ok(()),
    }
}
