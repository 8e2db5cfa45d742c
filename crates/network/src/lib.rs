//! Pod network, service proxy and cluster DNS.

pub mod addr;
pub mod netns;
pub mod nft;
mod nl;
