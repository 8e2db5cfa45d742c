//! Pod network, service proxy and cluster DNS.

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
pub use check::{cleanup_all, preflight};

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
