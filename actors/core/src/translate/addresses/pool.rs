//! The provider `pool`: each Gateway gets addresses of its own from ranges.
//!
//! Called by the task `Pool` with what all Gateways of such classes ask for. Who holds an address, as its status
//! says, keeps it; so nothing is remembered here, a new leader gives out what the old one did, and all replicas
//! that see the same cluster agree. It refuses to know how the ranges become local to a node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proxy_config::name::ObjectName;

use super::super::conditions::Fault;
use super::range::Range;

/// What a Gateway asks of its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::translate) struct Ask {
    /// The ranges of its class, in the order in which they are used.
    pub(super) ranges: Arc<[Range]>,
    /// When the Gateway was made, in seconds since 1970: older ones come first.
    pub(super) created: i64,
    /// The addresses that it names.
    pub(super) named: Vec<IpAddr>,
    /// How many further ones it wants, whichever they are.
    pub(super) unnamed: usize,
    /// Those that its status lists.
    pub(super) held: Vec<IpAddr>,
}

/// The addresses of a Gateway, or why it gets none.
pub(in crate::translate) type Allocation = Result<Vec<IpAddr>, Fault>;

type Taken<'a> = BTreeMap<IpAddr, &'a ObjectName>;

/// Gives out addresses. First everyone keeps what it holds and still wants; then those get what they name that
/// name something; the rest is given out by itself. A Gateway gets all that it asks for or nothing.
pub(in crate::translate) fn allocate(
    asks: &BTreeMap<ObjectName, Arc<Ask>>,
) -> BTreeMap<ObjectName, Allocation> {
    let mut order: Vec<(&ObjectName, &Ask)> = asks.iter().map(|(name, ask)| (name, &**ask)).collect();
    order.sort_by_key(|(name, ask)| (ask.created, *name));
    let mut taken = Taken::new();
    for (name, ask) in &order {
        for address in ask.kept() {
            taken.entry(address).or_insert(name);
        }
    }
    let mut made = BTreeMap::new();
    let mut settle = |step: fn(&Ask, &ObjectName, &Taken<'_>) -> Allocation| {
        for (name, ask) in &order {
            if matches!(made.get(*name), Some(Err(_))) {
                continue;
            }
            let allocation = step(ask, name, &taken);
            match &allocation {
                Ok(addresses) => taken.extend(addresses.iter().map(|address| (*address, *name))),
                Err(_) => ask.release(name, &mut taken),
            }
            made.insert((*name).clone(), allocation);
        }
    };
    settle(Ask::claim);
    settle(Ask::fill);
    made
}

impl Ask {
    /// What it holds and still wants.
    fn kept(&self) -> impl Iterator<Item = IpAddr> {
        let named = self.held.iter().filter(|held| self.named.contains(held) && self.is_in_ranges(**held));
        named.copied().chain(self.kept_unnamed())
    }

    fn kept_unnamed(&self) -> impl Iterator<Item = IpAddr> {
        let unnamed = self.held.iter().filter(|held| !self.named.contains(held) && self.is_in_ranges(**held));
        unnamed.copied().take(self.unnamed)
    }

    fn is_in_ranges(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// The addresses that it names.
    fn claim(&self, name: &ObjectName, taken: &Taken<'_>) -> Allocation {
        for address in &self.named {
            let fault = if !self.is_in_ranges(*address) {
                format!("{address} is not in the pool of the class ({}): choose one that is", self.written())
            } else if let Some(owner) = taken.get(address).filter(|owner| **owner != name) {
                format!("{address} is taken by Gateway {owner}: choose another")
            } else {
                continue;
            };
            let message = format!("spec.addresses: {fault}, or leave the value empty");
            return Err(Fault::new("AddressNotUsable", message));
        }
        Ok(self.named.clone())
    }

    /// The addresses that it names, those that it holds, and as many more as it wants.
    fn fill(&self, name: &ObjectName, taken: &Taken<'_>) -> Allocation {
        let mut addresses = self.named.clone();
        addresses.extend(self.kept_unnamed().filter(|held| taken.get(held) == Some(&name)));
        while addresses.len() < self.named.len() + self.unnamed {
            let is_free = |address: &IpAddr| !taken.contains_key(address) && !addresses.contains(address);
            let found = self.ranges.iter().find_map(|range| first_free(range, name, taken.len(), is_free));
            let Some(address) = found else {
                let message = format!(
                    "all addresses of the pool of the class ({}) are taken: add a range to its EdgeParameters",
                    self.written()
                );
                return Err(Fault::new("AddressNotAssigned", message));
            };
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn release(&self, name: &ObjectName, taken: &mut Taken<'_>) {
        for address in self.kept().chain(self.named.iter().copied()) {
            if taken.get(&address) == Some(&name) {
                taken.remove(&address);
            }
        }
    }

    fn written(&self) -> String {
        self.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// The first free address of a range, from a place that depends on the Gateway's name alone: one that is made anew
/// gets the address that it had, and what was just given up is not given to the next one that comes.
fn first_free(
    range: &Range,
    gateway: &ObjectName,
    taken: usize,
    is_free: impl Fn(&IpAddr) -> bool,
) -> Option<IpAddr> {
    let count = range.assignable();
    let start = u128::from(fingerprint(gateway)) % count;
    // Among so many there is a free one, unless all are taken.
    let tries = count.min(taken as u128 + 17);
    (0..tries).map(|step| range.nth((start + step) % count)).find(is_free)
}

/// FNV-1a: the same in every build and on every machine.
fn fingerprint(gateway: &ObjectName) -> u64 {
    let bytes = gateway.namespace.bytes().chain([0]).chain(gateway.name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
