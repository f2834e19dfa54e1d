//! The keys under which attempts are counted.

use std::net::{IpAddr, Ipv6Addr};

/// The number of bits in an IPv6 address after the network part.
const HOST_BITS: u32 = 64;

/// The key under which a rule counts a caller's attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitKey(Form);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    V4(u32),
    V6Network(u64),
    Account(u64),
}

impl LimitKey {
    /// Returns the key of an IP address, grouped as in [`ip_group`].
    #[must_use]
    pub fn ip(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(v4) => Form::V4(v4.to_bits()),
            // The shift leaves 64 bits, so nothing is cut.
            IpAddr::V6(v6) => Form::V6Network((v6.to_bits() >> HOST_BITS) as u64),
        })
    }

    pub(super) fn from_account_hash(hash: u64) -> Self {
        Self(Form::Account(hash))
    }

    /// Returns the hash in the key of an account, or `None` for other keys.
    pub(super) fn account_hash(self) -> Option<u64> {
        match self.0 {
            Form::Account(hash) => Some(hash),
            Form::V4(_) | Form::V6Network(_) => None,
        }
    }
}

/// Returns the IP address that represents all clients that could be the same caller: an IPv4 address itself, the /64
/// network of an IPv6 address (commonly assigned to one connection), or the IPv4 address of an IPv4-mapped IPv6
/// address.
#[must_use]
pub fn ip_group(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> HOST_BITS << HOST_BITS)),
    }
}
