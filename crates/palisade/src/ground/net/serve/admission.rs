//! Counts the open connections of each IP address and each network.
//!
//! A network may have a quarter of the connections that are still free. A single network therefore gets a fifth of all,
//! and after dozens of networks have taken their share, there is still room. A fixed share would be too small for a
//! large office, or too large against an attacker with IP addresses in a few networks.
//!
//! A holder of IPv6 addresses may have thousands of networks, so all networks within a /32 together may have half of
//! the connections that are still free.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Exempt, Limits};
use crate::limits::ip_group;

/// Counts open connections by IP address group and by network.
pub(super) struct Admission {
    connections: usize,
    per_ip: usize,
    exempt: Exempt,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
    by_network: HashMap<IpAddr, usize>,
    by_block: HashMap<Ipv6Addr, usize>,
}

/// One counted connection. Dropping this removes it from the count.
pub(super) struct Seat {
    admission: Arc<Admission>,
    /// `None` for an exempt IP address.
    ip: Option<IpAddr>,
}

/// Returns the network that commonly has one holder: a /24 for IPv4, a /48 for IPv6.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80))),
    }
}

/// Returns the block that one holder of IPv6 addresses commonly has, a /32, or `None` for IPv4, where a holder rarely
/// has many networks.
fn block(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 96))),
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            per_ip: limits.connections_per_ip,
            exempt: Arc::clone(&limits.exempt),
            open: Mutex::default(),
        }
    }

    /// Returns a seat for a connection from `ip`, or `None` if the IP address, its network or its block has used up its
    /// share.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Seat> {
        let ip = if (self.exempt)(ip) { None } else { Some(ip) };
        let mut open = self.lock();
        if let Some(ip) = ip {
            let free = self.connections.saturating_sub(open.total);
            // SECURITY: (tests: a_network_leaves_room_for_others, many_networks_of_one_holder_leave_room)
            if count(&open.by_ip, ip_group(ip)) >= self.per_ip
                || count(&open.by_network, network(ip)) >= (free / 4).max(1)
                || block(ip).is_some_and(|of| count(&open.by_block, of) >= (free / 2).max(1))
            {
                return None;
            }
            if let Some(block) = block(ip) {
                *open.by_block.entry(block).or_default() += 1;
            }
            *open.by_ip.entry(ip_group(ip)).or_default() += 1;
            *open.by_network.entry(network(ip)).or_default() += 1;
        }
        open.total += 1;
        Some(Seat { admission: Arc::clone(self), ip })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.admission.lock();
        open.total -= 1;
        if let Some(ip) = self.ip {
            leave(&mut open.by_ip, ip_group(ip));
            leave(&mut open.by_network, network(ip));
            if let Some(block) = block(ip) {
                leave(&mut open.by_block, block);
            }
        }
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, usize>, key: K) -> usize {
    counts.get(&key).copied().unwrap_or(0)
}

fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize) -> Arc<Admission> {
        Arc::new(Admission::new(&Limits { connections, ..Limits::default() }))
    }

    /// Takes seats for `ip` until it gets no more. Returns how many it got.
    fn fill(admission: &Arc<Admission>, ip: &str, seats: &mut Vec<Seat>) -> usize {
        let before = seats.len();
        while let Some(seat) = admission.admit(ip.parse().unwrap()) {
            seats.push(seat);
        }
        seats.len() - before
    }

    #[test]
    fn a_network_leaves_room_for_others() {
        let (admission, mut seats) = (admission(800), Vec::new());
        let first = fill(&admission, "192.0.2.1", &mut seats);
        let neighbour = fill(&admission, "192.0.2.200", &mut seats);
        assert_eq!((first, neighbour), (160, 0));
        assert_eq!(fill(&admission, "198.51.100.1", &mut seats), 128);
        assert_eq!(fill(&admission, "2001:db8:1::1", &mut seats), 102);
        assert_eq!(fill(&admission, "2001:db8:1:2::1", &mut seats), 0);
        for network in 0..20 {
            fill(&admission, &format!("203.0.{network}.1"), &mut seats);
        }
        // However many came, the next network is let in.
        assert!(seats.len() < 800);
        assert!(admission.admit("100.64.0.1".parse().unwrap()).is_some());
        drop(seats);
        let open = admission.lock();
        assert_eq!((open.total, open.by_ip.len(), open.by_network.len()), (0, 0, 0));
        assert_eq!(open.by_block.len(), 0);
    }

    #[test]
    fn many_networks_of_one_holder_leave_room() {
        let (admission, mut seats) = (admission(900), Vec::new());
        for network in 0..2000 {
            fill(&admission, &format!("2001:db8:{network:x}::1"), &mut seats);
        }
        assert_eq!(seats.len(), 300);
        assert_eq!(fill(&admission, "2001:db9::1", &mut seats), 120);
        assert_eq!(fill(&admission, "192.0.2.1", &mut seats), 96);
    }

    #[test]
    fn an_ip_has_a_share_of_its_own() {
        let (admission, mut seats) = (admission(10_000), Vec::new());
        assert_eq!(fill(&admission, "192.0.2.1", &mut seats), 512);
        assert_eq!(fill(&admission, "192.0.2.2", &mut seats), 512);
    }

    #[test]
    fn exempt_ips_have_no_share_and_are_counted() {
        let (admission, mut seats) = (admission(100), Vec::new());
        for _ in 0..80 {
            seats.push(admission.admit("127.0.0.1".parse().unwrap()).unwrap());
        }
        assert_eq!(fill(&admission, "192.0.2.1", &mut seats), 4);
    }
}
