//! How many connections each address has open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Exempt, Limits};
use crate::limits::address_group;

/// Counts open connections by address group.
pub(super) struct Admission {
    per_address: usize,
    exempt: Exempt,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One counted connection; uncounted when dropped.
pub(super) struct Seat {
    admission: Arc<Admission>,
    /// `None` for an exempt address.
    group: Option<IpAddr>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            per_address: limits.connections_per_address,
            exempt: Arc::clone(&limits.exempt),
            open: Mutex::new(HashMap::new()),
        }
    }

    /// A seat for a connection from `address`; `None` when it has its share already.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let group = if (self.exempt)(address) { None } else { Some(address_group(address)) };
        if let Some(group) = group {
            let mut open = self.lock();
            let count = open.get(&group).copied().unwrap_or(0);
            if count >= self.per_address {
                return None;
            }
            open.insert(group, count + 1);
        }
        Some(Seat { admission: Arc::clone(self), group })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(group) = self.group else { return };
        if let Entry::Occupied(mut count) = self.admission.lock().entry(group) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
